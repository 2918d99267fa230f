"""Blocks in a little disorder that no prefix notices.

Neighbouring blocks often come from one document, and a small batch of neighbours is a bad sample. So blocks are
shuffled within windows that grow with their place in the stream: a window at block p holds about `share` x p blocks.
Every D still reads its first D tokens, each once: in the window where D ends, only the blocks before D are shuffled.
No window reaches from a trunk over the end of a D whose branch leaves it, because a branch is longer than a window.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def shuffled_block(block: int, *, end: int, seed: int, share: float) -> int:
    """Return which block stands at a place of the order: one of the same window, below ``end``.

    Parameters
    ----------
    block : int
        The place.
    end : int
        The first block that must not be read (or only in part); places from there on keep their block.
    seed : int
    share : float
        Size of a window as a share of its place; 0 keeps every block in its place.
    """
    start, stop = window(block, share)
    stop = min(stop, end)
    if block >= end or stop - start < 2:
        return block
    return start + int(_permutation(seed, start, stop - start)[block - start])


def window(block: int, share: float) -> tuple[int, int]:
    """Return the window [start, stop) that holds a block."""
    if share <= 0:
        return block, block + 1
    starts = _starts(block, share)
    at = int(np.searchsorted(starts, block, side="right")) - 1
    return int(starts[at]), int(starts[at + 1])


def _starts(block: int, share: float) -> np.ndarray:
    """Return the starts of all windows up to one beyond a block, computed for ever larger powers of two."""
    return _starts_below(1 << max(10, int(block).bit_length()), share)


@lru_cache(maxsize=64)
def _starts_below(end: int, share: float) -> np.ndarray:
    starts = [0]
    while starts[-1] < end:
        starts.append(starts[-1] + max(1, int(share * starts[-1])))
    return np.asarray([*starts, starts[-1] + max(1, int(share * starts[-1]))])


@lru_cache(maxsize=4)
def _permutation(seed: int, start: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, start]).permutation(size)
