"""A tiny language that a model of a few thousand parameters learns in a second, and runs small enough for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragscale.training import ModelConfig, TrainConfig

VOCABULARY = 64


def markov_tokens(n_tokens: int, *, seed: int = 0, vocabulary: int = VOCABULARY) -> np.ndarray:
    """Sample a Markov chain; id 0 ends documents."""
    rng = np.random.default_rng(7)
    cumulative = rng.dirichlet(np.full(vocabulary, 0.05), vocabulary).cumsum(1)
    uniform = np.random.default_rng(seed).random(n_tokens)
    tokens = np.zeros(n_tokens, np.uint16)
    for i in range(1, n_tokens):
        tokens[i] = min(vocabulary - 1, np.searchsorted(cumulative[tokens[i - 1]], uniform[i]))
    return tokens


@dataclass
class ArraySplit:
    """The attributes of a `Split` that training reads, over arrays."""

    tokens: np.ndarray
    validation: np.ndarray
    digest: str = "split-a"
    eos_id: int = 0
    vocab_size: int = VOCABULARY
    tokenizer: Any = None
    asked: list[int] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    def pretraining(self, D: int) -> np.ndarray:
        self.asked.append(D)
        return self.tokens[:D]


@pytest.fixture(scope="session")
def stream() -> np.ndarray:
    return markov_tokens(20_000)


@pytest.fixture(scope="session")
def validation() -> np.ndarray:
    return markov_tokens(1_000, seed=1)


@pytest.fixture
def model() -> ModelConfig:
    return ModelConfig.custom(n_layers=1, d_model=32, n_heads=2, d_ff=64, vocab_size=VOCABULARY, max_seq_len=64)


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig(
        seq_len=16,
        batch_tokens=64,
        learning_rate=5e-3,
        warmup_steps=4,
        precision="fp32",
        allow_short_runs=True,
        log_every=5,
        save_minutes=1e6,
    )


@pytest.fixture
def split(stream: np.ndarray, validation: np.ndarray) -> ArraySplit:
    return ArraySplit(stream, validation)


@pytest.fixture(scope="session")
def weights_digest() -> Callable[[Path], str]:
    return lambda path: hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
