"""A corpus file that is damaged, cut short, or not what it was taken for is an error that names it."""

from __future__ import annotations

import bz2
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ragscale as rs
from ragscale import Document
from ragscale.errors import ConfigError, SplitError
from ragscale.splitting import _opening as opening
from ragscale.splitting import read_huggingface, read_jsonl, read_parquet, read_text, train_tokenizer

ROWS = [{"id": f"d{i}", "text": f"river {i} " + " ".join(f"w{i * 37 % 997}{j}" for j in range(20))} for i in range(600)]
LINES = [json.dumps(row) + "\n" for row in ROWS]


def zstd(*parts: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return b"".join(zstandard.ZstdCompressor(write_checksum=True).compress(part) for part in parts)


def whole(first: int = 0, last: int = 600) -> bytes:
    return "".join(LINES[first:last]).encode()


CUT = {
    "nothing.jsonl.gz": bytes,
    "nothing.jsonl.zst": bytes,
    "half a gzip.jsonl.gz": lambda: gzip.compress(whole())[: len(gzip.compress(whole())) // 2],
    "gzip without its end.jsonl.gz": lambda: gzip.compress(whole())[:-4],
    "second member cut.jsonl.gz": lambda: gzip.compress(whole(0, 300)) + gzip.compress(whole(300))[:-100],
    "header of a member.jsonl.gz": lambda: gzip.compress(whole(0, 300)) + gzip.compress(whole(300))[:5],
    "no gzip.jsonl.gz": whole,
    "bzip2.jsonl.gz": lambda: bz2.compress(whole()),
    "flipped.jsonl.gz": lambda: gzip.compress(whole())[:900] + b"?" + gzip.compress(whole())[901:],
    "half a zstd.jsonl.zst": lambda: zstd(whole())[: len(zstd(whole())) // 2],
    "second frame cut.jsonl.zst": lambda: zstd(whole(0, 300)) + zstd(whole(300))[:-100],
    "first bytes of a frame.jsonl.zst": lambda: zstd(whole(0, 300)) + zstd(whole(300))[:3],
    "header of a frame.jsonl.zst": lambda: zstd(whole(0, 300)) + zstd(whole(300))[:7],
    "frame without checksum.jsonl.zst": lambda: zstd(whole(0, 300), whole(300))[:-1],
    "something behind.jsonl.zst": lambda: zstd(whole()) + b"some more bytes",
    "no zstd.jsonl.zst": whole,
    "cut in a record.jsonl": lambda: whole()[:20_000],
    "cut in a character.jsonl": lambda: '{"id": "1", "text": "café'.encode()[:-1],
    "UTF-16.jsonl": lambda: whole().decode().encode("utf-16"),
    "UTF-32.jsonl": lambda: whole().decode().encode("utf-32"),
}


@pytest.mark.parametrize("name", CUT)
def test_what_cannot_be_read_to_its_end_is_an_error_that_names_the_file(tokenizer, tmp_path, name):
    content = CUT[name]()
    (tmp_path / "good.jsonl").write_bytes(whole(0, 5))
    (tmp_path / name).write_bytes(content)
    for paths in (tmp_path / name, [tmp_path / "good.jsonl", tmp_path / name]):
        with pytest.raises(SplitError, match=name.replace(".", r"\.")):
            rs.split_corpus(paths, tmp_path / "s", tokenizer=tokenizer, max_rejected=0.9)
    with pytest.raises(SplitError, match=name.replace(".", r"\.")):
        list(read_jsonl(tmp_path / name))


def test_the_error_comes_from_a_worker_too(tokenizer, tmp_path):
    paths = [tmp_path / f"{i}.jsonl.gz" for i in range(3)]
    for path in paths:
        path.write_bytes(gzip.compress(whole(0, 20)))
    paths[1].write_bytes(gzip.compress(whole(0, 20))[:-30])
    with pytest.raises(SplitError, match=r"1\.jsonl\.gz is cut short"):
        rs.split_corpus(paths, tmp_path / "s", tokenizer=tokenizer, n_workers=2)
    paths[1].write_bytes(gzip.compress(whole(20, 40)))
    assert rs.split_corpus(paths, tmp_path / "s", tokenizer=tokenizer).n_documents == 40


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_one_bad_parquet_shard_of_three_is_named(tokenizer, tmp_path, damage):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for i in range(3):
        table = pyarrow.Table.from_pylist(ROWS[i * 200 : i * 200 + 200])
        parquet.write_table(table, tmp_path / f"part-{i}.parquet", row_group_size=50, write_page_checksum=True)
    bad = tmp_path / "part-1.parquet"
    data = bad.read_bytes()
    damages = {
        "cut": data[:-500],
        "flipped": data[:2000] + bytes(500) + data[2500:],
        "text": b"some text",
        "empty": b"",
    }
    bad.write_bytes(damages[damage])
    with pytest.raises(SplitError, match=r"part-1\.parquet"):
        rs.split_corpus(tmp_path, tmp_path / "s", tokenizer=tokenizer)
    with pytest.raises(SplitError, match=r"part-1\.parquet"):
        list(read_parquet(tmp_path))


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt"])
def test_a_byte_order_mark_loses_nothing(tmp_path, suffix):
    path = tmp_path / f"windows{suffix}"
    data = b"\xef\xbb\xbf" + whole(0, 3).replace(b"\n", b"\r\n")
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else zstd(data) if suffix.endswith("zst") else data)
    if suffix == ".txt":
        (document,) = read_text(path)
        assert document.text.startswith("{")
    else:
        assert [d.id for d in read_jsonl(path)] == ["d0", "d1", "d2"]


def test_the_parts_of_a_data_set_can_be_chosen_and_a_missing_one_is_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    one, two = (datasets.Dataset.from_list(ROWS[i : i + 3]) for i in (0, 3))
    both = datasets.DatasetDict(train=one, test=two)
    both.save_to_disk(str(tmp_path / "saved"))
    for source in (both, {"train": one, "test": two}, tmp_path / "saved"):
        assert [d.id for d in read_huggingface(source)] == ["d0", "d1", "d2"]
        assert [d.id for d in read_huggingface(source, split="test")] == ["d3", "d4", "d5"]
        with pytest.raises(ConfigError, match=r"no part 'validation'.*'train', 'test'"):
            list(read_huggingface(source, split="validation"))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_huggingface(tmp_path / "nowhere"))
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "a.jsonl").write_bytes(whole(0, 3))
    with pytest.raises(ConfigError, match="validation"):
        list(read_huggingface(tmp_path / "lines", split="validation"))
    (arrow,) = (tmp_path / "saved" / "train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises((ConfigError, SplitError), match="saved"):
        list(read_huggingface(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["low lower", "another text"], r"no such file or folder: 'low lower'.*Document\("),
        (["a long text " * 200], r"no path, it is too long.*Document\("),
        (iter(["low", "lower"]), r"item 1 is str: 'low'; wrap each text, ragscale\.Document\("),
        ([{"id": "a", "text": "low"}], r"item 1 is dict.*ragscale\.Document\(id"),
        ([Document("a", "low"), None], "item 2 is NoneType"),
        (Document("a", "low"), "got Document"),
        (7, "got int"),
        ([], "empty"),
        (iter(()), "empty"),
    ],
)
def test_what_are_no_documents_is_said_with_what_to_give(tokenizer, tmp_path, given, says):
    with pytest.raises((ConfigError, SplitError), match=says):
        rs.split_corpus(given, tmp_path / "s", tokenizer=tokenizer)


def test_the_first_reject_is_quoted_with_the_fields_that_there_are(tokenizer, tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "contents": "low"}) + "\n" for i in range(20)))
    says = r"c\.jsonl, line 1: missing text, no field 'text' among \['contents', 'id'\]"
    with pytest.raises(SplitError, match=rf"20 of 20.*{says}"):
        rs.split_corpus(path, tmp_path / "s", tokenizer=tokenizer)
    with pytest.raises(SplitError, match=says):
        rs.split_corpus(path, tmp_path / "s", tokenizer=tokenizer, max_rejected=1.0)
    with pytest.raises(SplitError, match=says):
        train_tokenizer(read_jsonl(path), 300)
    assert (tmp_path / "s" / "rejects.jsonl").read_text().count("missing text") == 20
    assert rs.split_corpus(read_jsonl(path, text="contents"), tmp_path / "s", tokenizer=tokenizer).n_documents == 1


def test_a_line_that_is_too_long_is_rejected_unread(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    long = b'{"id": "long", "text": "' + b"a" * 300_000 + b'"}\n'
    path.write_bytes(gzip.compress(LINES[0].encode() + long + LINES[1].encode() + long[:-1]))
    records = [record for _, record in read_jsonl(path, max_line_bytes=100_000).records(str(path))]
    assert [getattr(record, "id", None) or record.reason for record in records] == [
        "d0",
        "line too long",
        "d1",
        "line too long",
    ]
    assert "300,027 bytes, at most 100,000" in records[1].detail
    assert len(list(read_jsonl(path))) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from the kernel")
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_small_file_cannot_fill_the_memory(tmp_path, suffix):
    path = tmp_path / f"bomb.jsonl.{suffix}"
    data = b'{"id": "long", "text": "' + b"a" * (200 << 20)
    path.write_bytes(gzip.compress(data, 1) if suffix == "gz" else zstd(data))
    del data
    code = f"""
import resource
from ragscale.splitting import read_jsonl
source = read_jsonl({str(path)!r}, max_line_bytes=1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
((_, record),) = source.records({str(path)!r})
print(record.reason, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("line too long ")
    assert int(done.stdout.split()[-1]) < 90


def test_frames_and_skippable_frames_are_read_as_one(tmp_path):
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(skippable + zstd(whole(0, 100)[:777], whole(0, 100)[777:]) + skippable + zstd(whole(100)))
    assert [d.id for d in read_jsonl(path)] == [row["id"] for row in ROWS]


def test_plain_lines_need_no_zstandard(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(whole(0, 3))
    code = f"""
import sys
sys.modules["zstandard"] = None
from ragscale.splitting import read_jsonl
print(len(list(read_jsonl({str(path)!r}))))
open({str(path)!r}, "ab").write(b"broken")
try:
    list(read_jsonl({str(path)!r}))
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "SplitError"]


def test_questions_that_cannot_be_read_are_named(tokenizer, tmp_path):
    for name, content in {
        "a.jsonl": b'{"question": "Who?"}\n{"question": ',
        "b.jsonl": b'["Who?"]\n',
        "c.jsonl": b'{"query": "Who?"}\n',
        "d.jsonl.gz": gzip.compress(b'{"question": "Who?"}\n' * 100)[:-9],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises((ConfigError, SplitError), match=name):
            rs.split_corpus(
                [Document("a", "low")], tmp_path / "s", tokenizer=tokenizer, decontaminate=[tmp_path / name]
            )


def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    with pytest.raises(SplitError, match="could not be read"), opening.open_binary(Path(tmp_path)):
        pass
