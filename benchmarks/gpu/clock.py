"""Seconds of a device, and data that every job makes the same way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(run: Callable[[], Any], device: str, *, rounds: int, times: int) -> float:
    """Return the median over rounds of the seconds that one of ``times`` calls takes."""
    result = []
    for _ in range(rounds):
        wait(device)
        started = time.perf_counter()
        for _ in range(times):
            run()
        wait(device)
        result.append((time.perf_counter() - started) / times)
    return statistics.median(result)


def peak_gib(device: str) -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None


def forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def markov(n_tokens: int, vocabulary: int = 64) -> np.ndarray:
    """Return tokens of a chain that a small model learns; id 0 ends documents."""
    rng = np.random.default_rng(7)
    cumulative = rng.dirichlet(np.full(vocabulary, 0.05), vocabulary).cumsum(1)
    uniform, tokens = rng.random(n_tokens), np.zeros(n_tokens, np.uint16)
    for i in range(1, n_tokens):
        tokens[i] = min(vocabulary - 1, np.searchsorted(cumulative[tokens[i - 1]], uniform[i]))
    return tokens
