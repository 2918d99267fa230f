"""How good a ranking is, against known relevant passages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ragscale.errors import ConfigError
from ragscale.passages import Passage
from ragscale.retrieval._hits import Hits

Relevant = Sequence[Mapping[str, float] | Collection[str]]


def ndcg(hits: Hits, relevant: Relevant, passages: Sequence[Passage], *, k: int = 10) -> NDArray[np.float64]:
    """Return the normalised discounted cumulative gain of each query's first k hits.

    .. math:: \\mathrm{nDCG}@k = \\frac{\\sum_{i=1}^{k} g_i / \\log_2(i + 1)}{\\sum_{i=1}^{k} g^*_i / \\log_2(i + 1)}

    with the grade :math:`g_i` at rank i and the grades :math:`g^*` of all relevant passages in falling order: the gain
    is the grade itself, as in trec_eval.

    Parameters
    ----------
    hits : Hits
    relevant : sequence of mapping or collection, one per query
        Grades by passage id, or the ids alone (grade 1).
    passages : sequence of Passage
        What was indexed.
    k : int
        How many hits count.

    Returns
    -------
    ndarray of float64, shape (n_queries,)
        NaN where nothing is relevant.

    References
    ----------
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, section 2.2.

    Examples
    --------
    >>> import ragscale as rs
    >>> store = [rs.Passage("p1", "the sea", 2, "a"), rs.Passage("p2", "the moon", 2, "b")]
    >>> hits = rs.retrieval.Hits([[1, 0]], [[2.5, 0.5]])
    >>> rs.retrieval.ndcg(hits, [{"p1"}], store).round(3)
    array([0.631])
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    values = np.full(hits.n_queries, np.nan)
    for query, grades in enumerate(_grades(relevant, hits)):
        ideal = np.sort([grade for grade in grades.values() if grade > 0])[::-1][:k]
        if ideal.size:
            gains = [grades.get(passage.id, 0.0) for passage in hits.top(k).take(passages, query)]
            values[query] = (np.maximum(gains, 0) @ discount[: len(gains)]) / (ideal @ discount[: ideal.size])
    return values


def recall(hits: Hits, relevant: Relevant, passages: Sequence[Passage], *, k: int = 100) -> NDArray[np.float64]:
    """Return the share of each query's relevant passages among its first k hits; NaN where nothing is relevant.

    Parameters as for `ndcg`; a passage is relevant when its grade is above 0.

    Examples
    --------
    >>> import ragscale as rs
    >>> store = [rs.Passage("p1", "the sea", 2, "a"), rs.Passage("p2", "the moon", 2, "b")]
    >>> hits = rs.retrieval.Hits([[1, 0]], [[2.5, 0.5]])
    >>> rs.retrieval.recall(hits, [{"p1"}], store, k=1)
    array([0.])
    """
    values = np.full(hits.n_queries, np.nan)
    for query, grades in enumerate(_grades(relevant, hits)):
        wanted = {name for name, grade in grades.items() if grade > 0}
        if wanted:
            found = {passage.id for passage in hits.top(k).take(passages, query)}
            values[query] = len(wanted & found) / len(wanted)
    return values


def _grades(relevant: Relevant, hits: Hits) -> list[Mapping[str, float]]:
    if len(relevant) != hits.n_queries:
        raise ConfigError(f"{hits.n_queries} queries need as many entries of relevant passages, got {len(relevant)}")
    return [grades if isinstance(grades, Mapping) else dict.fromkeys(grades, 1.0) for grades in relevant]
