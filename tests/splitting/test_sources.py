"""Readers give the same documents whatever they lie in; what is unusable is listed with its place."""

from __future__ import annotations

import gzip
import json

import pytest

import ragscale as rs
from ragscale import Document
from ragscale.errors import ConfigError, MissingExtraError, SplitError
from ragscale.splitting import read_datatrove_tokens, read_huggingface, read_jsonl, read_parquet, read_text


def rows_of(documents):
    return [{"id": d.id, "text": d.text, "title": d.title, "source": d.source} for d in documents]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_json_lines_plain_and_compressed(documents, tmp_path, suffix):
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(documents)).encode()
    if suffix.endswith("gz"):
        data = gzip.compress(data)
    if suffix.endswith("zst"):
        zstandard = pytest.importorskip("zstandard")
        half = len(data) // 2
        data = b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:half], data[half:]))
    (tmp_path / f"corpus{suffix}").write_bytes(data)
    assert list(read_jsonl(tmp_path)) == documents


def test_fields_can_be_named_and_an_id_made_from_the_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "some text", "nr": 7}\n{"body": "other text"}\n')
    first, second = read_jsonl(path, text="body", id="nr")
    assert first == Document("7", "some text")
    assert second.id.startswith("text-")
    assert len(second.id) == len("text-") + 32


def test_parquet_and_saved_data_sets(documents, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    datasets = pytest.importorskip("datasets")
    parquet.write_table(pyarrow.Table.from_pylist(rows_of(documents)), tmp_path / "a.parquet", row_group_size=50)
    assert list(read_parquet(tmp_path / "a.parquet")) == documents
    with pytest.raises(SplitError, match="no column 'body'"):
        list(read_parquet(tmp_path / "a.parquet", text="body"))
    dataset = datasets.Dataset.from_list(rows_of(documents))
    dataset.save_to_disk(str(tmp_path / "saved"))
    assert list(read_huggingface(tmp_path / "saved")) == documents
    assert list(read_huggingface(dataset.to_iterable_dataset())) == documents
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(documents)))
    assert list(read_huggingface(tmp_path / "lines")) == documents


def test_a_data_set_can_be_split(documents, tokenizer, tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list([*rows_of(documents[:30]), {**rows_of(documents)[0], "id": "x", "text": ""}])
    split = rs.split_corpus(read_huggingface(dataset), tmp_path / "s", tokenizer=tokenizer, max_rejected=0.1)
    assert split.n_documents == 30
    assert split.manifest["corpus"]["rejects"] == {"empty text": 1}


def test_folders_of_text(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("second\nfile")
    (tmp_path / "sub" / "a.md").write_text("# first")
    assert list(read_text(tmp_path)) == [Document("b.txt", "second\nfile"), Document("sub/a.md", "# first")]
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    assert len(list(read_text(tmp_path))) == 2


def test_datatrove_token_shards(documents, tokenizer, tmp_path):
    datatrove = pytest.importorskip("datatrove.pipeline.tokens")
    from datatrove.data import Document as TheirDocument

    tokenizer.save(tmp_path / "tokenizer")
    writer = datatrove.DocumentTokenizer(
        str(tmp_path / "tokens"),
        tokenizer_name_or_path=str(tmp_path / "tokenizer" / "tokenizer.json"),
        eos_token="<|endoftext|>",
        shuffle_documents=False,
    )
    list(writer.run((TheirDocument(text=d.text, id=d.id) for d in documents), 0, 1) or ())
    read = list(read_datatrove_tokens(tmp_path / "tokens", tokenizer))
    assert [d.text for d in read] == [d.text for d in documents]
    assert len({d.id for d in read}) == len(documents)
    direct = rs.split_corpus(documents, tmp_path / "direct", tokenizer=tokenizer)
    again = rs.split_corpus(read_datatrove_tokens(tmp_path / "tokens", tokenizer), tmp_path / "s", tokenizer=tokenizer)
    assert again.n_tokens == direct.n_tokens


BAD_LINES = [
    (b'{"id": "1", "text": "good one"}', None),
    (b'{"id": "2", "text": ', "broken JSON"),
    (b'["no", "object"]', "broken JSON"),
    (b'{"id": "3", "text": "caf\xe9"}', "wrong encoding"),
    (b'{"id": "4"}', "missing text"),
    (b'{"id": "5", "text": 5}', "missing text"),
    (b'{"id": "6", "text": " \\n "}', "empty text"),
    (b'{"id": "7", "text": "nul \\u0000 byte"}', "NUL character"),
    (b'{"id": "8", "text": "half \\ud800 pair"}', "lone surrogate"),
    (b"", None),
    (b'{"id": "9", "text": "good two"}', None),
    (b'{"id": "1", "text": "the id again"}', "duplicate id"),
]


def test_bad_records_are_counted_and_listed_with_their_lines(tokenizer, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in BAD_LINES) + b"\n")
    split = rs.split_corpus(str(path), tmp_path / "s", tokenizer=tokenizer, max_rejected=0.9)
    listed = [json.loads(line) for line in (tmp_path / "s" / "rejects.jsonl").read_text().splitlines()]
    kept = {row["id"] for row in split.document_rows()}
    expected = {(number, reason) for number, (_, reason) in enumerate(BAD_LINES, 1) if reason}
    found = {(row["line"], row["reason"]) for row in listed}
    assert {pair for pair in found if pair[1] != "duplicate id"} == {p for p in expected if p[1] != "duplicate id"}
    assert {row["line"] for row in listed if row["reason"] == "duplicate id"} <= {1, 12}
    assert len(listed) == len(expected)
    assert all(row["file"] == str(path) for row in listed)
    assert kept == {"1", "9"}
    counts = split.manifest["corpus"]["rejects"] | split.manifest["corpus"]["dropped"]
    assert counts == {
        "broken JSON": 2,
        "missing text": 2,
        **dict.fromkeys(("wrong encoding", "empty text", "NUL character", "lone surrogate", "duplicate id"), 1),
    }


def test_too_many_bad_records_stop_the_run_and_stay_listed(tokenizer, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in BAD_LINES) + b"\n")
    with pytest.raises(SplitError, match="8 of 11 records are unusable") as caught:
        rs.split_corpus(str(path), tmp_path / "s", tokenizer=tokenizer, max_rejected=0.5)
    assert "2 broken JSON" in str(caught.value)
    assert len((tmp_path / "s" / "rejects.jsonl").read_text().splitlines()) == 8


def test_a_damaged_archive_is_told_not_swallowed(documents, tokenizer, tmp_path):
    data = gzip.compress("".join(json.dumps(row) + "\n" for row in rows_of(documents)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(SplitError, match="is cut short"):
        rs.split_corpus(str(tmp_path / "a.jsonl.gz"), tmp_path / "s", tokenizer=tokenizer, max_rejected=0)


def test_what_is_no_corpus_is_named(tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_jsonl(tmp_path / "nowhere.jsonl")
    with pytest.raises(ConfigError, match="item 1 is str"):
        rs.split_corpus(iter(["text"]), tmp_path / "a", tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="got int"):
        rs.split_corpus(5, tmp_path / "b", tokenizer=tokenizer)
    with pytest.raises(SplitError, match="no usable documents"):
        rs.split_corpus([], tmp_path / "c", tokenizer=tokenizer)


def test_a_tokenizer_in_any_form_gives_the_same_split(documents, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    from ragscale.splitting._tokenizers import to_hugging_face

    loaded = to_hugging_face(tokenizer)
    forms = [
        tokenizer,
        loaded,
        loaded.backend_tokenizer,
        tmp_path / "tokenizer",
        str(tmp_path / "tokenizer" / "tokenizer.json"),
    ]
    digests = {
        rs.split_corpus(documents[:10], tmp_path / str(i), tokenizer=form).digest for i, form in enumerate(forms)
    }
    assert len(digests) == 1
    split = rs.Split.load(tmp_path / "0")
    assert split.tokenizer.eos_token_id == split.eos_id
    assert len(split.tokenizer) == split.vocab_size
    text = documents[0].text
    assert split.tokenizer.decode(split.tokenizer.encode(text)) == text
    split.check_tokenizer(loaded)
    other = rs.splitting.train_tokenizer(documents, 300)
    with pytest.raises(SplitError, match="another tokenizer"):
        split.check_tokenizer(other)
    with pytest.raises(ConfigError, match="end-of-text"):
        rs.split_corpus(documents, tmp_path / "x", tokenizer=tokenizer, eos_token="<none>")
    with pytest.raises((ConfigError, MissingExtraError), match="no tokenizer at"):
        rs.split_corpus(documents, tmp_path / "x", tokenizer=str(tmp_path / "missing"))


def test_a_tokenizer_that_normalises_still_gives_the_text_of_passages(documents, tmp_path):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    backend.train_from_iterator((d.text for d in documents), trainer)
    split = rs.split_corpus(documents, tmp_path / "s", tokenizer=backend, passage_tokens=16)
    texts: dict[str, str] = {}
    for passage in split.store(split.n_tokens).passages:
        texts[passage.document_id] = passage.text + texts.get(passage.document_id, "")
    assert texts == {d.id: d.text for d in documents}
    report = split.audit()
    report.raise_if_failed()
    assert report.checks["detail"].str.startswith("not checked").sum() == 2
