"""A long text gives the tokens that it gives in one piece, in little memory, whatever the tokenizer and the script."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest

import ragscale as rs
from ragscale import Document, _long_texts
from ragscale.passages import chunk
from ragscale.splitting._order import text_digest

tokenizers = pytest.importorskip("tokenizers")


def words(n: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    some = ["river", "stone,", "(winter)", "don't", "1,234.5", "naïve", "🌍", "東京", "x" * 30, "\n\n", "\t", "  ", "ß"]
    return [draw.choice(some) for _ in range(n)]


def tokenizer_of(kind: str):
    models, pre, normal = tokenizers.models, tokenizers.pre_tokenizers, tokenizers.normalizers
    trainers = tokenizers.trainers
    texts = [" ".join(words(400, seed)) for seed in range(3)]
    special = ["<unk>", "<|endoftext|>"]
    if kind == "unigram":
        backend = tokenizers.Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    elif kind == "wordpiece":
        backend = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
        trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    else:
        backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
        trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=special, show_progress=False)
    backend.pre_tokenizer = {
        "byte level": pre.ByteLevel(add_prefix_space=False),
        "byte level with a space before": pre.ByteLevel(add_prefix_space=True),
        "unigram": pre.Metaspace(prepend_scheme="always"),
        "metaspace first": pre.Metaspace(prepend_scheme="first"),
        "wordpiece": pre.BertPreTokenizer(),
        "digits": pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]),
    }.get(kind, pre.Whitespace())
    if kind == "llama":  # no words before the merges: the whole text is one
        backend.pre_tokenizer = pre.Split(tokenizers.Regex("never"), "isolated")
        backend.normalizer = normal.Sequence([normal.Prepend("▁"), normal.Replace(" ", "▁")])
    if kind == "wordpiece":
        backend.normalizer = normal.BertNormalizer()
    backend.train_from_iterator(texts, trainer)
    return backend


KINDS = ["byte level", "byte level with a space before", "unigram", "metaspace first", "wordpiece", "digits", "llama"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["words", "no spaces", "one letter", "spaces"])
def test_pieces_give_the_tokens_of_the_whole(monkeypatch, kind, text):
    monkeypatch.setattr(_long_texts, "LONG_CHARACTERS", 3000)
    monkeypatch.setattr(_long_texts, "PIECE_CHARACTERS", 1000)
    backend = tokenizer_of(kind)
    joined = {
        "words": " ".join(words(1500)),
        "no spaces": "".join(random.Random(1).choices("東京都の天気は晴れです。", k=8000)),
        "one letter": "a" * 8000,
        "spaces": " " * 8000,
    }[text]
    whole = backend.encode(joined, add_special_tokens=False)
    found = _long_texts.encode(backend, joined)
    np.testing.assert_array_equal(found.ids, whole.ids)
    begins = [whole.token_to_chars(i)[0] for i in range(len(whole))]
    mine = [found.token_to_chars(i)[0] for i in range(len(found))]
    assert all(a == b or joined[min(a, b) : max(a, b)].isspace() for a, b in zip(begins, mine, strict=True))
    if kind == "byte level" and text == "words":
        assert len(list(_long_texts._pieces(backend, joined))) > 5
        assert mine == begins
    passages = chunk(Document("d", joined), backend, size=64)
    assert "".join(passage.text for passage in passages) == (joined if len(whole) else "")
    texts = ["short", joined, "", "short"]
    for one, other in zip(_long_texts.encode_all(backend, texts), texts, strict=True):
        np.testing.assert_array_equal(one.ids, _long_texts.encode(backend, other).ids)


def test_a_split_of_long_documents_is_the_split_in_whole(monkeypatch, tokenizer, tmp_path, digest_of):
    documents = [Document(f"d{i}", " ".join(words(900 + i, seed=i))) for i in range(3)]
    rs.split_corpus(documents, tmp_path / "whole", tokenizer=tokenizer, passage_overlap=10)
    monkeypatch.setattr(_long_texts, "LONG_CHARACTERS", 3000)
    monkeypatch.setattr(_long_texts, "PIECE_CHARACTERS", 1000)
    split = rs.split_corpus(documents, tmp_path / "pieces", tokenizer=tokenizer, passage_overlap=10)
    assert digest_of(tmp_path / "pieces") == digest_of(tmp_path / "whole")
    assert split.audit(measure=False).ok


@pytest.mark.parametrize("text", ["", " ", "a", "Ab  c\n", " ".join(words(3000)), "ΑΣ " * 1000, "x" * 5000])
def test_the_digest_of_a_text_does_not_depend_on_the_blocks(monkeypatch, text):
    want = hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=16).digest()
    for size in (1, 7, 1 << 18):
        monkeypatch.setattr(_long_texts.text_blocks, "__defaults__", (size,))
        assert text_digest(text) == want
        assert "".join(_long_texts.text_blocks(text)) == text


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from the kernel")
def test_a_book_in_one_line_takes_at_most_a_hundred_bytes_for_each_token(tmp_path):
    code = f"""
import json, random, resource
from pathlib import Path
import ragscale as rs
out = Path({str(tmp_path)!r})
draw = random.Random(0)
words = ["%x" % draw.getrandbits(24) for _ in range(5000)]
text = " ".join(draw.choice(words) for _ in range(120_000))
(out / "g.jsonl").write_text(json.dumps({{"id": "g", "text": text}}) + "\\n")
tokenizer = rs.splitting.train_tokenizer(["low lower"] * 5, 300)
rs.split_corpus([rs.Document("a", "low lower")], out / "warm", tokenizer=tokenizer)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
split = rs.split_corpus(out / "g.jsonl", out / "s", tokenizer=tokenizer)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / split.n_tokens)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100
