"""Files of questions that are damaged, cut short or saved by other programs are named, and never half read."""

from __future__ import annotations

import gzip
import json

import pytest

from ragscale.errors import TaskError
from ragscale.evaluation import load_task

ROWS = [{"id": str(i), "question": f"What is {i} and one?", "answers": [str(i + 1)]} for i in range(200)]
DATA = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(*parts: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("half.jsonl.gz", lambda: gzip.compress(DATA)[:1000]),
        ("half.jsonl.zst", lambda: zstd(DATA)[:500]),
        ("frame.jsonl.zst", lambda: zstd(DATA[:5000]) + zstd(DATA[5000:])[:-20]),
        ("no.jsonl.zst", lambda: DATA),
        ("cut.jsonl", lambda: DATA[:5003]),
        ("utf16.jsonl", lambda: DATA.decode().encode("utf-16")),
        ("latin.jsonl", lambda: '{"id": "1", "question": "café?", "answers": ["a"]}\n'.encode("latin-1")),
        ("deep.jsonl", lambda: DATA + b'{"a":' * 100_000),
        ("empty.jsonl.gz", lambda: b""),
    ],
)
def test_what_cannot_be_read_to_its_end_is_a_problem_of_the_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content())
    with pytest.raises(TaskError, match=name.replace(".", r"\.")):
        load_task(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, name):
    data = b"\xef\xbb\xbf" + DATA.replace(b"\n", b"\r\n")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else zstd(data) if "zst" in name else data)
    assert [example.id for example in load_task(tmp_path / name).examples] == [row["id"] for row in ROWS]
