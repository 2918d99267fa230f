"""The exact k best of a set of vectors, bit for bit the same however the search is cut into pieces.

Fast kernels compute scores in float32, in an order of summation that changes with the shape of the batch. They serve
here only to propose candidates. What counts is one score per (query, vector) pair, summed in float64 in a fixed
order, and the order by (score, row). A search is accepted when the bound on the float32 error proves that no vector
outside the candidates can belong to the k best, and widened until it is.

Q queries, M candidates, P pairs of a query and a candidate, W width of a vector.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragscale._extras import require
from ragscale.errors import ConfigError

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Floats = NDArray[np.float32]

_MARGIN = 16
_CHUNK_BYTES = 1 << 21  # of float64 vectors at a time: what a processor's cache holds


@functools.cache
def load_faiss() -> Any:
    """Import faiss, or say what to install; two wheels of it at once are an error."""
    names = {(one.metadata["Name"] or "").lower().replace("_", "-") for one in metadata.distributions()}
    wheels = sorted(name for name in names if name.startswith(("faiss-cpu", "faiss-gpu")))
    if len(wheels) > 1:
        raise ConfigError(
            f"{' and '.join(wheels)} are both installed and overwrite each other's files: pip uninstall -y "
            f"{' '.join(wheels)}, then pip install 'ragscale[dense]' (CPU) or 'ragscale[dense-gpu]'"
        )
    return require("faiss", "dense")


class Part(Protocol):
    """A run of consecutive passages that proposes candidates.

    ``top(which, m)`` returns (rows, float32 scores) of the m best for the queries numbered ``which``: rows of the
    whole store, -1 padding at the end where there are no more; fewer than m columns mean that there are no more.
    """

    def top(self, which: Rows, m: int) -> tuple[Rows, Scores]: ...


def pair_scores(queries_PW: Floats, vectors_PW: Floats, metric: str) -> Scores:
    """Return the score that counts of each pair of rows: inner product, or minus the squared distance."""
    wide_PW = vectors_PW.astype(np.float64)
    if metric == "l2":
        wide_PW -= queries_PW
        return (0.0 - np.square(wide_PW, out=wide_PW).sum(axis=-1)).astype(np.float32)
    wide_PW *= queries_PW
    return (wide_PW.sum(axis=-1) + 0.0).astype(np.float32)  # + 0.0: no negative zero


def rescore(queries_QW: Floats, rows_QM: Rows, fetch: Callable[[Rows], Floats], metric: str) -> Scores:
    """Return the scores that count of candidate rows; padding gets -inf."""
    scores_QM = np.full(rows_QM.shape, -np.inf, np.float32)
    query_P, column_P = np.nonzero(rows_QM >= 0)
    step = max(1, _CHUNK_BYTES // (8 * queries_QW.shape[1]))
    for start in range(0, len(query_P), step):
        query, column = query_P[start : start + step], column_P[start : start + step]
        scores_QM[query, column] = pair_scores(queries_QW[query], fetch(rows_QM[query, column]), metric)
    return scores_QM


def error_bound(queries_QW: Floats, longest: float, metric: str) -> NDArray[np.float64]:
    """Bound how far a float32 kernel's score can be from the one that counts, per query.

    Any order of summing W products in float32 errs by at most W u / (1 - W u) times the sum of their absolute
    values (Higham 2002, eq. 3.5), with u = 2^-24; that sum is at most |q| |x| (Cauchy-Schwarz). Eight more units
    cover the rounding of inputs and result. A squared distance is a sum of terms below (|q| + |x|)^2, taken as
    |q|^2 + |x|^2 - 2 q.x by blocked kernels: three sums.
    """
    length_Q = np.sqrt(np.square(queries_QW.astype(np.float64)).sum(axis=1))
    return bound_of_lengths(length_Q, queries_QW.shape[1], longest, metric)


def bound_of_lengths(length_Q: Any, width: int, longest: float, metric: str) -> Any:
    """Return `error_bound` from the lengths of the queries, an array or tensor of float64."""
    unit = (width + 8) * 2.0**-24 * 1.01
    if metric == "l2":
        return 3 * unit * (length_Q + longest) ** 2
    return unit * length_Q * longest


def best_of_parts(
    parts: Sequence[Part],
    n_queries: int,
    k: int,
    *,
    score: Callable[[Rows, Rows, Scores], Scores],
    slack: NDArray[np.float64] | float = 0.0,
    margin: int = _MARGIN,
) -> list[tuple[Rows, Scores]]:
    """Return the exact k best over the first part, the first two, and so on.

    Parameters
    ----------
    parts : sequence of Part
        Consecutive runs of passages; store i is made of the first i + 1.
    n_queries, k : int
        Rows and columns of the answer.
    score : callable
        ``score(which, rows, proposed)`` returns the scores that count of the rows proposed for these queries.
    slack : float or ndarray, shape (n_queries,)
        How far a proposed score may be from the one that counts.
    margin : int
        How many more than k candidates are asked for at first.

    Returns
    -------
    list of (rows, scores)
        Per store, each (n_queries, k); ordered by score, then row; -1 and -inf pad.
    """
    slack_Q = np.broadcast_to(np.asarray(slack, dtype=np.float64), (n_queries,))
    rows_QK = np.full((n_queries, k), -1, np.int64)
    scores_QK = np.full((n_queries, k), -np.inf, np.float32)
    answers = []
    for part in parts:
        before = (rows_QK, scores_QK)
        rows_QK, scores_QK = rows_QK.copy(), scores_QK.copy()
        open_Q, m = np.arange(n_queries), k + margin
        while open_Q.size:
            found, proposed = part.top(open_Q, m)
            # What cannot reach the k best, for the store before or this part alone has k that are better, is left out.
            slack_Q1 = slack_Q[open_Q, None]
            least_Q1 = before[1][open_Q, -1:].astype(np.float64)
            if found.shape[1] >= k:
                least_Q1 = np.maximum(least_Q1, proposed[:, k - 1 : k] - slack_Q1)
            able = np.where(proposed + slack_Q1 >= least_Q1, found, -1)
            counted = score(open_Q, able, proposed)
            merged = (
                np.concatenate([before[0][open_Q], able], axis=1),
                np.concatenate([before[1][open_Q], counted], axis=1),
            )
            rows_QK[open_Q], scores_QK[open_Q] = ordered(*merged, k)
            if found.shape[1] < m:
                break
            # Nothing unseen scores above the last proposal by more than the slack: done where that is below the k-th.
            reach = np.where(found[:, -1] < 0, -np.inf, proposed[:, -1].astype(np.float64) + slack_Q[open_Q])
            open_Q = open_Q[(reach >= scores_QK[open_Q, -1]) & (reach > -np.inf)]
            m *= 4
        answers.append((rows_QK, scores_QK))
    return answers


def ordered(rows: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    """Return the first k columns in order of score, then row; a row of -1 or a score of -inf goes last."""
    scores = np.where(rows < 0, np.float32(-np.inf), scores)
    order = np.lexsort((np.where(rows < 0, np.iinfo(np.int64).max, rows), -scores), axis=-1)[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


class FlatPart:
    """Vectors of the rows from ``start`` on, compared with every query by faiss's exhaustive kernel."""

    def __init__(self, queries: Floats, vectors: Floats, start: int, metric: str) -> None:
        self.queries, self.vectors, self.start, self.metric = queries, vectors, start, metric
        self.faiss = load_faiss()

    def top(self, which: Rows, m: int) -> tuple[Rows, Scores]:
        m = min(m, len(self.vectors))
        queries = self.queries if len(which) == len(self.queries) else self.queries[which]
        if m > 1024:
            return self._many(queries, m)
        kind = self.faiss.METRIC_L2 if self.metric == "l2" else self.faiss.METRIC_INNER_PRODUCT
        proposed, rows = self.faiss.knn(queries, self.vectors, m, metric=kind)
        return rows + self.start, -proposed if self.metric == "l2" else proposed

    def _many(self, queries: Floats, m: int) -> tuple[Rows, Scores]:
        """Propose very many, query by query: heaps are slow there, a partition of all scores is not."""
        rows = np.empty((len(queries), m), np.int64)
        proposed = np.empty((len(queries), m), np.float32)
        square = np.einsum("nw,nw->n", self.vectors, self.vectors) if self.metric == "l2" else None
        for i, query in enumerate(queries):
            scores = self.vectors @ query
            if square is not None:
                scores = 2 * scores - square - query @ query
            chosen = np.argpartition(-scores, m - 1)[:m] if m < len(scores) else np.arange(m)
            chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
            rows[i], proposed[i] = chosen + self.start, scores[chosen]
        return rows, proposed
