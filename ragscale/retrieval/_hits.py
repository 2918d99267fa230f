"""What a search returns, and the one order that every retriever's results are put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragscale.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from ragscale.passages import Passage


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The k best passages for each query, best first.

    Parameters
    ----------
    ids : ndarray of int64, shape (n_queries, k)
        Rows into the indexed passages; -1 pads where a query has fewer than k hits.
    scores : ndarray of float32, shape (n_queries, k)
        Higher is better; equal scores stand in the order of their rows; -inf pads.
    filtered : mapping of str to ndarray of int64, shape (n_queries,)
        Passages that a filter removed on the way to these k, by the filter's name.

    Examples
    --------
    >>> hits = Hits([[2, 0, -1]], [[1.5, 0.5, float("-inf")]])
    >>> hits.n_queries, hits.k
    (1, 3)
    >>> hits.top(1).ids
    array([[2]])
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    filtered: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = np.asarray(self.ids, dtype=np.int64)
        scores = np.asarray(self.scores, dtype=np.float32)
        if ids.ndim != 2 or ids.shape != scores.shape:
            raise ConfigError(
                f"hits need ids and scores of one shape (n_queries, k), got {ids.shape} and {scores.shape}"
            )
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "scores", scores)

    @property
    def n_queries(self) -> int:
        """Number of queries, the rows of both arrays."""
        return self.ids.shape[0]

    @property
    def k(self) -> int:
        """Number of hits per query, padding included."""
        return self.ids.shape[1]

    def __len__(self) -> int:
        return self.n_queries

    def top(self, k: int) -> Hits:
        """Return the first k hits of every query."""
        return Hits(self.ids[:, :k], self.scores[:, :k], self.filtered)

    def take(self, passages: Sequence[Passage], query: int) -> list[Passage]:
        """Return the passages of one query, best first, without padding."""
        return [passages[row] for row in self.ids[query].tolist() if row >= 0]

    def to_frame(self, passages: Sequence[Passage] | None = None) -> pd.DataFrame:
        """Return one row per hit: query, rank (from 1), row, score, and the passage's id if passages are given."""
        import pandas as pd

        query, place = np.nonzero(self.ids >= 0)
        rows = self.ids[query, place]
        frame = pd.DataFrame({"query": query, "rank": place + 1, "row": rows, "score": self.scores[query, place]})
        if passages is not None:
            frame["passage_id"] = [passages[row].id for row in rows.tolist()]
        return frame


def top_k(scores: ArrayLike, k: int, *, rows: ArrayLike | None = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Select the k best of each row of scores: highest first, equal ones in the order of their rows.

    `numpy.argpartition` alone leaves open which of several equal scores it keeps, so that the answer for k = 5 need
    not begin the answer for k = 10. This selection is the same on every machine and for every k.

    Parameters
    ----------
    scores : array_like, shape (n_queries, n)
        Higher is better; -inf marks what is not a hit.
    k : int
        How many to keep.
    rows : array_like of int, shape (n_queries, n), optional
        The passage row of each score; column numbers by default.

    Returns
    -------
    rows : ndarray of int64, shape (n_queries, k)
        -1 where fewer than k scores are above -inf.
    scores : ndarray of float32, shape (n_queries, k)

    Examples
    --------
    >>> rows, scores = top_k([[0.5, 2.0, 0.5, float("-inf")]], k=4)
    >>> rows
    array([[ 1,  0,  2, -1]])
    """
    scores = np.asarray(scores, dtype=np.float32)
    n_queries, n = scores.shape
    columns = np.broadcast_to(np.arange(n), scores.shape) if rows is None else np.asarray(rows, dtype=np.int64)
    out_rows = np.full((n_queries, k), -1, dtype=np.int64)
    out_scores = np.full((n_queries, k), -np.inf, dtype=np.float32)
    for query in range(n_queries):
        line, names = scores[query], columns[query]
        if 0 < k < n:  # keep everything that ties with the k-th best, then order exactly
            threshold = np.partition(line, n - k)[n - k]
            kept = np.flatnonzero((line >= threshold) & (line > -np.inf) & (names >= 0))
        else:
            kept = np.flatnonzero((line > -np.inf) & (names >= 0))
        kept = kept[np.lexsort((names[kept], -line[kept]))][:k]
        out_rows[query, : kept.size] = names[kept]
        out_scores[query, : kept.size] = line[kept]
    return out_rows, out_scores


def in_order(rows: ArrayLike, scores: ArrayLike, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Put what a kernel returned into the contract's order, and pad or cut it to k columns."""
    rows = np.asarray(rows, dtype=np.int64)
    scores = np.asarray(scores, dtype=np.float32)
    scores = np.where(rows < 0, np.float32(-np.inf), scores)
    rows = np.where(scores == -np.inf, -1, rows)
    falls, ties = scores[:, :-1] > scores[:, 1:], scores[:, :-1] == scores[:, 1:]
    if not (falls | (ties & (rows[:, :-1] <= rows[:, 1:]))).all():
        order = np.lexsort((rows, -scores), axis=-1)
        rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    rows, scores = rows[:, :k], scores[:, :k]
    if rows.shape[1] < k:
        missing = ((0, 0), (0, k - rows.shape[1]))
        rows = np.pad(rows, missing, constant_values=-1)
        scores = np.pad(scores, missing, constant_values=-np.inf)
    return rows, scores
