"""Several ranked lists into one.

A fusion is a callable that takes one `Hits` per arm, all for the same queries, and returns (rows, scores).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ragscale.errors import ConfigError
from ragscale.retrieval._hits import Hits

Fusion = Callable[[Sequence[Hits]], tuple[NDArray[np.int64], NDArray[np.float64]]]
Normalisation = Literal["min_max", "z_score", "none"]


def reciprocal_rank_fusion(
    arms: Sequence[Hits], *, weights: Sequence[float] | None = None, constant: float = 60.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Score a passage by the sum over the arms of weight / (constant + rank), ranks from 1.

    It reads ranks only, so the arms' scores need not be comparable.

    Parameters
    ----------
    arms : sequence of Hits
        One per arm, each (n_queries, depth of the arm).
    weights : sequence of float, optional
        One per arm; all 1 by default.
    constant : float
        The larger, the less the first ranks matter.

    Returns
    -------
    rows : ndarray of int64, shape (n_queries, n_candidates)
    scores : ndarray of float64, shape (n_queries, n_candidates)

    References
    ----------
    Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods",
    SIGIR 2009, section 2.

    Examples
    --------
    >>> lexical, dense = Hits([[3, 1]], [[9.0, 8.0]]), Hits([[1, 0]], [[0.9, 0.1]])
    >>> rows, scores = reciprocal_rank_fusion([lexical, dense])
    >>> int(rows[0, scores[0].argmax()])
    1
    """
    weighted = _weighted(arms, weights)
    parts = [
        factor / (constant + np.broadcast_to(np.arange(1, hits.k + 1), hits.ids.shape)) for hits, factor in weighted
    ]
    return _sum_by_row([hits for hits, _ in weighted], parts)


@dataclass(frozen=True)
class WeightedSum:
    """Score a passage by the weighted sum of its normalised scores; `weighted_sum` makes one.

    A passage that an arm did not return counts there as the arm's lowest (``"none"``: as 0).
    """

    weights: tuple[float, ...] | None = None
    normalisation: Normalisation = "min_max"

    def __call__(self, arms: Sequence[Hits]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        weighted = _weighted(arms, self.weights)
        parts = [factor * _normalised(hits, self.normalisation) for hits, factor in weighted]
        return _sum_by_row([hits for hits, _ in weighted], parts)


def weighted_sum(weights: Sequence[float] | None = None, *, normalisation: Normalisation = "min_max") -> WeightedSum:
    """Return a fusion by the weighted sum of normalised scores.

    Parameters
    ----------
    weights : sequence of float, optional
        One per arm, not negative; all 1 by default.
    normalisation : {"min_max", "z_score", "none"}
        What each arm's scores of one query become first: 0 to 1; standard deviations above the lowest; themselves.

    Examples
    --------
    >>> lexical, dense = Hits([[3, 1]], [[9.0, 8.0]]), Hits([[1, 0]], [[0.9, 0.1]])
    >>> rows, scores = weighted_sum((0.7, 0.3))([lexical, dense])
    >>> dict(zip(rows[0].tolist(), scores[0].round(2).tolist()))
    {0: 0.0, 1: 0.3, 3: 0.7}
    """
    if normalisation not in ("min_max", "z_score", "none"):
        raise ConfigError(f"normalisation {normalisation!r} is unknown: give 'min_max', 'z_score' or 'none'")
    kept = None if weights is None else tuple(map(float, weights))
    return WeightedSum(kept if kept is None else tuple(_weights(kept, len(kept))), normalisation)


def _weights(weights: Sequence[float] | None, n_arms: int) -> Sequence[float]:
    if weights is None:
        return (1.0,) * n_arms
    if len(weights) != n_arms or min(weights) < 0 or not np.isfinite(weights).all() or not sum(weights) > 0:
        raise ConfigError(f"{n_arms} arms need {n_arms} weights, none negative, not all 0; got {tuple(weights)}")
    return weights


def _weighted(arms: Sequence[Hits], weights: Sequence[float] | None) -> list[tuple[Hits, float]]:
    """Pair the arms with their weights; one of weight 0 brings no candidates either."""
    factors = _weights(weights, len(arms))
    return [(hits, factor) for hits, factor in zip(arms, factors, strict=True) if factor > 0]


def _normalised(hits: Hits, how: Normalisation) -> NDArray[np.float64]:
    hit = hits.ids >= 0
    scores = hits.scores.astype(np.float64)
    if how == "none":
        return np.where(hit, scores, 0.0)
    lowest = np.min(scores, axis=1, where=hit, initial=np.inf, keepdims=True)
    highest = np.max(scores, axis=1, where=hit, initial=-np.inf, keepdims=True)
    above = np.where(hit, scores - np.where(np.isfinite(lowest), lowest, 0), 0.0)
    if how == "min_max":
        spread = highest - lowest
    else:
        n_hits = np.maximum(hit.sum(axis=1, keepdims=True), 1)
        mean = above.sum(axis=1, keepdims=True) / n_hits
        spread = np.sqrt((np.where(hit, above - mean, 0.0) ** 2).sum(axis=1, keepdims=True) / n_hits)
    flat = ~(spread > 0)
    return np.where(flat, np.where(hit, 1.0, 0.0), above / np.where(flat, 1.0, spread))


def _sum_by_row(
    arms: Sequence[Hits], parts: Sequence[NDArray[np.floating]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Add up what the arms give each passage, arm by arm, and pad queries to one width."""
    ids, values = np.concatenate([hits.ids for hits in arms], axis=1), np.concatenate(parts, axis=1)
    n_queries = len(ids)
    query, place = np.nonzero(ids >= 0)
    width = int(ids.max(initial=0)) + 1
    keys, where = np.unique(query * width + ids[query, place], return_inverse=True)
    sums = np.bincount(where, weights=values[query, place], minlength=len(keys))
    owner, row = np.divmod(keys, width)
    column = np.arange(len(keys)) - np.searchsorted(owner, owner)
    rows = np.full((n_queries, int(column.max(initial=-1)) + 1), -1, dtype=np.int64)
    scores = np.full(rows.shape, -np.inf)
    rows[owner, column], scores[owner, column] = row, sums
    return rows, scores
