"""What lies on disk: shards that roll over, wide vocabularies, prefixes that read little, imports that stay light."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

import ragscale as rs
from ragscale import Document
from ragscale.splitting import _assemble, _store, _units


def test_shards_roll_over_and_read_as_one(documents, tokenizer, tmp_path, monkeypatch):
    whole = rs.split_corpus(documents, tmp_path / "one", tokenizer=tokenizer, passage_tokens=32)
    monkeypatch.setattr(_assemble, "SHARD_BYTES", 3000)
    monkeypatch.setattr(_units, "FRAME_ROWS", 10)
    many = rs.split_corpus(documents, tmp_path / "many", tokenizer=tokenizer, passage_tokens=32)
    monkeypatch.undo()
    assert len(list((tmp_path / "many" / "tokens").glob("[0-9]*.bin"))) == -(-2 * many.n_tokens // 3000) > 3
    assert len(list((tmp_path / "many" / "passages").glob("*.zst"))) > 3
    np.testing.assert_array_equal(many.pretraining(many.n_tokens)[:], whole.pretraining(whole.n_tokens)[:])
    assert list(many.store(many.n_tokens).passages) == list(whole.store(whole.n_tokens).passages)
    many.audit(measure=False).raise_if_failed()


def test_a_wide_vocabulary_takes_four_bytes(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {f"w{i}": i for i in range(70_000)} | {"<eos>": 70_000}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    documents = [Document(str(i), f"w{i} w{69_999 - i} w66000") for i in range(20)]
    split = rs.split_corpus(documents, tmp_path / "s", tokenizer=backend, eos_token="<eos>")
    assert split.pretraining(4).dtype == np.dtype("<u4")
    assert split.vocab_size == 70_001
    assert (split.pretraining(split.n_tokens)[3::4] == 70_000).all()
    assert (split.pretraining(split.n_tokens)[2::4] == 66_000).all()
    split.audit(measure=False).raise_if_failed()


def test_passages_read_only_the_frames_they_need(documents, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(_units, "FRAME_ROWS", 8)
    split = rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer, passage_tokens=16)
    passages = split.store(split.n_tokens).passages
    everything = list(passages)
    opened = []
    real = _store.Passages._lines

    def counted(self, number):
        opened.append(number)
        return real(self, number)

    monkeypatch.setattr(_store.Passages, "_lines", counted)
    prefix = passages[:20]
    assert list(prefix) == everything[:20]
    assert set(opened) == set(range(len(set(opened))))
    assert len(opened) <= 5
    assert passages[37] == everything[37]
    assert passages[-1] == everything[-1]
    assert passages[5:50:7] == everything[5:50:7]
    assert list(passages[10:60][5:20]) == everything[15:30]
    assert list(pickle.loads(pickle.dumps(passages))) == everything
    assert passages.n_tokens.tolist() == [p.n_tokens for p in everything]
    assert everything[3] in passages
    for outside in (len(everything), -len(everything) - 1):
        with pytest.raises(IndexError):
            passages[outside]
    assert len(split.store(0).passages) == 0


def test_a_split_of_files_needs_neither_transformers_nor_torch(documents, tokenizer, tmp_path):
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"id": d.id, "text": d.text}) + "\n" for d in documents[:9]))
    tokenizer.save(tmp_path / "tokenizer")
    code = """
import sys, ragscale as rs
split = rs.split_corpus(sys.argv[1], sys.argv[3], tokenizer=sys.argv[2], validation_tokens=20, progress=True)
assert split.audit(measure=False).ok
heavy = {"torch", "transformers", "faiss", "matplotlib", "sklearn", "datasets"} & set(sys.modules)
assert not heavy, heavy
"""
    arguments = [str(tmp_path / name) for name in ("c.jsonl", "tokenizer", "s")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tokens/s" in done.stderr


def test_real_articles_and_their_questions(shared_data, tmp_path):
    tiny = shared_data / "tiny"
    source = rs.splitting.read_jsonl(tiny / "corpus.jsonl.gz")
    tokenizer = rs.splitting.train_tokenizer(source, 2000)
    split = rs.split_corpus(
        source,
        tmp_path / "s",
        tokenizer=tokenizer,
        validation_tokens=1000,
        deduplicate="minhash",
        decontaminate=rs.splitting.Decontamination([tiny / "qa.jsonl.gz"], action="flag"),
    )
    report = split.audit()
    report.raise_if_failed()
    assert report.measures["near_duplicate_share"] == 0
    assert {d.id: d.text for part in ("pool", "validation") for d in split.documents(part)} == {
        d.id: d.text for d in source
    }
    table = split.contamination()
    assert table["questions"].sum() == 170
    assert (table["questions_with_hits"] <= table["questions"] - table["questions_too_short"]).all()
