"""Several retrievers as one, by fusing their ranked lists."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ragscale._counts import whole_or_zero
from ragscale.errors import ConfigError
from ragscale.results import Result
from ragscale.retrieval._base import Retriever
from ragscale.retrieval._checked import checked_hits
from ragscale.retrieval._fusion import Fusion, WeightedSum, reciprocal_rank_fusion
from ragscale.retrieval._hits import Hits, in_order
from ragscale.retrieval._metrics import Relevant, ndcg
from ragscale.retrieval._wrapper import Wrapper

if TYPE_CHECKING:
    import pandas as pd

    from ragscale.passages import Passage


class HybridRetriever(Wrapper):
    """Fuse the hits of several retrievers, for stores of every size.

    Parameters
    ----------
    *retrievers : Retriever
        The arms, at least one. Those that were indexed over the same passages before are not indexed again, and those
        that were indexed over others stay as they are: the hybrid indexes copies of them.
    fusion : callable
        `reciprocal_rank_fusion`, a `weighted_sum`, or your own: takes one `Hits` per arm and returns (rows, scores).
    depth : int
        How many hits of each arm are fused, whatever k is, so that a smaller k gives a prefix of a larger one.

    Notes
    -----
    The answer for a store of R tokens is the fusion of what the arms answer for that store, so it is exact where the
    arms are.

    Examples
    --------
    >>> from ragscale import Passage
    >>> from ragscale.retrieval import BM25Retriever
    >>> store = [Passage("a", "A red fish.", 3, "a"), Passage("b", "Blue fish.", 2, "b")]
    >>> hybrid = HybridRetriever(BM25Retriever(), BM25Retriever(stemmer=None)).index(store)
    >>> hybrid.search("fishes in blue", k=2).ids
    array([[1, 0]])
    """

    _part_argument = "retrievers"

    def __init__(self, *retrievers: Retriever, fusion: Fusion = reciprocal_rank_fusion, depth: int = 100) -> None:
        wrong = [type(arm).__name__ for arm in retrievers if not isinstance(arm, Retriever)]
        if not retrievers or wrong:
            raise ConfigError(f"a hybrid needs one or more retrievers, got {', '.join(wrong) or 'none'}")
        if len({id(arm) for arm in retrievers}) < len(retrievers):
            raise ConfigError("the same retriever stands twice in this hybrid; give it a larger weight instead")
        if not callable(fusion):
            raise ConfigError(f"fusion must be callable, e.g. reciprocal_rank_fusion, got {fusion!r}")
        if whole_or_zero(depth) < 1:
            raise ConfigError(f"depth must be at least 1, got {depth!r}")
        self.fusion, self.depth = fusion, whole_or_zero(depth)

    @property
    def retrievers(self) -> tuple[Retriever, ...]:
        """The arms that are searched."""
        return self._parts()

    def _search_nested(self, queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]) -> list[Any]:
        found = [self._part_hits(arm, queries, self.depth, n_passages_per_store) for arm in self.retrievers]
        name = f"the fusion {getattr(self.fusion, '__name__', type(self.fusion).__name__)}"
        return [
            checked_hits(
                self.fusion([by_store[n] for by_store in found]), name=name, n_queries=len(queries), k=k, n_passages=n
            )
            for n in n_passages_per_store
        ]

    def with_fusion(self, fusion: Fusion) -> HybridRetriever:
        """Return a hybrid of the same arms, indexed already, with another fusion."""
        other = HybridRetriever(*self.retrievers, fusion=fusion, depth=self.depth)
        return other if self._passages is None else other.index(self.passages)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tuning(Result):
    """What `tune_weights` found.

    Attributes
    ----------
    fusion : callable
        The best fusion tried: give it to `HybridRetriever.with_fusion`.
    weights : tuple of float
        Its weights, one per arm, adding up to 1.
    score : float
        Its mean metric over the development queries. It was chosen for being highest there: expect less elsewhere.
    table : DataFrame
        One row per weighting tried: a column per arm, and ``score``.
    """

    fusion: Fusion
    weights: tuple[float, ...]
    score: float
    table: pd.DataFrame

    _absent: ClassVar[Mapping[str, str]] = {
        "plot": "a handful of weightings with one score each: to_frame()",
        "to_json": "it holds a function; keep weights, from which weighted_sum(weights) makes it again",
    }

    def to_frame(self) -> pd.DataFrame:
        """Return `table`."""
        return self.table.copy()

    def summary(self) -> str:
        """Say which weights are best, and of how many."""
        weights = ", ".join(f"{weight:.2g}" for weight in self.weights)
        return f"weights {weights} score {self.score:.3g}, the highest of {len(self.table)} tried on these queries"


def tune_weights(
    hybrid: HybridRetriever,
    queries: Sequence[str],
    relevant: Relevant,
    *,
    fusion: Literal["weighted_sum", "reciprocal_rank_fusion"] = "weighted_sum",
    n_steps: int = 10,
    metric: Callable[[Hits, Relevant, Sequence[Passage]], Any] = ndcg,
) -> Tuning:
    """Choose the weights of a hybrid's arms on a development set, by trying a grid.

    Each arm is searched once; only the fusion is repeated.

    Parameters
    ----------
    hybrid : HybridRetriever
        Indexed, with at least two arms.
    queries : sequence of str
        Development queries; test queries must not be among them.
    relevant : sequence of mapping or collection, one per query
        Grades by passage id, or the relevant ids.
    fusion : {"weighted_sum", "reciprocal_rank_fusion"}
    n_steps : int
        The weights are multiples of 1 / ``n_steps``.
    metric : callable
        Takes hits, relevant and passages, returns one value per query, higher is better; nDCG@10 by default.

    Returns
    -------
    Tuning
        Of equally good weightings the most even one.
    """
    n_arms = len(hybrid.retrievers)
    if n_arms < 2:
        raise ConfigError("there is nothing to weigh in a hybrid of one arm")
    arms = [arm._hits(list(queries), hybrid.depth, [hybrid.n_passages])[hybrid.n_passages] for arm in hybrid.retrievers]
    tried = []
    for steps in itertools.product(range(n_steps + 1), repeat=n_arms):
        if sum(steps) == n_steps:
            weights = tuple(step / n_steps for step in steps)
            rows, scores = in_order(*_fusion(fusion, weights)(arms), hybrid.depth)
            values = np.asarray(metric(Hits(rows, scores), relevant, hybrid.passages), dtype=np.float64)
            if np.isnan(values).all():
                raise ConfigError("no development query has a relevant passage in this store")
            tried.append((*weights, float(np.nanmean(values))))
    table = _as_table(tried, n_arms)
    *weights, score = max(tried, key=lambda row: (row[-1], -max(row[:-1])))
    return Tuning(fusion=_fusion(fusion, tuple(weights)), weights=tuple(weights), score=score, table=table)


def _fusion(name: str, weights: tuple[float, ...]) -> Fusion:
    if name == "weighted_sum":
        return WeightedSum(weights)
    if name == "reciprocal_rank_fusion":
        return partial(reciprocal_rank_fusion, weights=weights)
    raise ConfigError(f"fusion {name!r} has no weights to tune: give 'weighted_sum' or 'reciprocal_rank_fusion'")


def _as_table(rows: list[tuple[float, ...]], n_arms: int) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=[*(f"weight{i}" for i in range(n_arms)), "score"])
