"""A small synthetic corpus, a tokenizer trained on it, and ways to compare what lies on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ragscale import Document
from ragscale.splitting._tokenizers import SplitTokenizer, _train

TEXT = """river stone winter carbon engine harbour violet orchard signal copper theory garden market planet silver
tunnel ballad cipher delta ember fossil glacier hollow island jungle kernel ladder meadow nectar oxygen pepper quartz
rivet saddle temple umbra valley walnut xenon yellow zephyr ünïcode 東京 naïve 🌍"""
WORDS = TEXT.split()


def make_documents(n: int, *, seed: int = 0, mean_words: int = 60) -> list[Document]:
    rng = np.random.default_rng(seed)
    documents = []
    for i in range(n):
        words = rng.choice(WORDS, size=1 + rng.poisson(mean_words))
        text = " ".join(words) + f" ({i}).\nEnd of part {rng.integers(1000)}."
        documents.append(Document(f"doc-{i}", text, title=f"Title {i}", source="synthetic"))
    return documents


def tree_digest(directory: Path, *, without: tuple[str, ...] = (".lock", "rejects.jsonl")) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file() and path.name not in without
    }


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    return make_documents(120)


@pytest.fixture(scope="session")
def tokenizer(documents: list[Document]) -> SplitTokenizer:
    return _train(documents, 400, "<|endoftext|>", 2)


@pytest.fixture
def corpus():
    return make_documents


@pytest.fixture
def digest_of():
    return tree_digest
