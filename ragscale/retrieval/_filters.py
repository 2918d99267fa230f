"""Passages that must not be given to the reader: filters at query time.

A filter is a callable that takes a query and passages, best first, and returns which to keep. It sees the passages in
rank order and decides on each by itself and those before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._scripts import spaced
from ragscale.errors import ConfigError
from ragscale.retrieval._base import Retriever
from ragscale.retrieval._hits import Hits
from ragscale.retrieval._wrapper import Wrapper

if TYPE_CHECKING:
    from ragscale.passages import Passage

Filter = Callable[[str, Sequence["Passage"]], Sequence[bool]]

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class ContainsQuestion:
    """Drop passages that hold the query word for word (case, punctuation and spacing aside).

    Parameters
    ----------
    min_words : int
        Shorter queries are left alone: a name alone would drop every passage about its bearer.
    """

    min_words: int = 4

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[bool]:
        words = _words(query)
        wanted = f" {' '.join(words)} "
        if len(words) < max(self.min_words, 1):
            return [True] * len(passages)
        return [wanted not in f" {' '.join(_words(passage.text))} " for passage in passages]


@dataclass(frozen=True)
class FromDocuments:
    """Drop passages that come from stated documents, e.g. those that a test set was made of.

    Parameters
    ----------
    documents : set of str, or mapping of str to set of str
        Document ids to drop for every query, or by query text.
    """

    documents: frozenset[str] | Mapping[str, frozenset[str]]

    def __post_init__(self) -> None:
        documents = self.documents
        if isinstance(documents, str):
            raise ConfigError(f"documents must be a set of ids or a mapping of queries to such, got {documents!r}")
        kept = (
            {query: frozenset(names) for query, names in documents.items()}
            if isinstance(documents, Mapping)
            else frozenset(documents)
        )
        object.__setattr__(self, "documents", kept)

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[bool]:
        dropped = self.documents.get(query, ()) if isinstance(self.documents, Mapping) else self.documents
        return [passage.document_id not in dropped for passage in passages]


@dataclass(frozen=True)
class NearDuplicates:
    """Drop passages nearly equal to a better one that was kept: word n-grams with a high Jaccard similarity.

    Parameters
    ----------
    threshold : float
        Dropped from this similarity on.
    n : int
        Words per n-gram; a text with fewer words is one n-gram.

    References
    ----------
    Shao et al., "Scaling Retrieval-Based Language Models with a Trillion-Token Datastore", 2024, section 3: 13-grams
    and a similarity of 0.8.
    """

    threshold: float = 0.8
    n: int = 13

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[bool]:
        kept: list[set[tuple[str, ...]]] = []
        keep = []
        for passage in passages:
            grams = _ngrams(_words(passage.text), self.n)
            near = any(_jaccard(grams, other) >= self.threshold for other in kept)
            keep.append(not near)
            if not near:
                kept.append(grams)
        return keep


@dataclass(frozen=True)
class MinLength:
    """Drop passages shorter than a number of tokens."""

    n_tokens: int = 13

    def __call__(self, query: str, passages: Sequence[Passage]) -> list[bool]:
        return [passage.n_tokens >= self.n_tokens for passage in passages]


class FilteredRetriever(Wrapper):
    """Drop passages at query time, and fill up with the next best.

    The search goes as deep as it must: the k hits are the first k that pass, so a smaller k gives a prefix.
    ``Hits.filtered`` counts, for each filter, what it removed before the k-th hit.

    Parameters
    ----------
    retriever : Retriever
        What is searched.
    filters : sequence of callable
        Applied in this order; each sees what those before it kept. A passage is counted where it first fails.

    Examples
    --------
    >>> from ragscale import Passage
    >>> from ragscale.retrieval import BM25Retriever
    >>> store = [Passage("a", "Where do fish sleep at night?", 7, "quiz"), Passage("b", "Fish sleep.", 3, "b")]
    >>> retriever = FilteredRetriever(BM25Retriever(), [ContainsQuestion()]).index(store)
    >>> hits = retriever.search("Where do fish sleep at night?", k=1)
    >>> hits.ids, hits.filtered
    (array([[1]]), {'ContainsQuestion': array([1])})
    """

    def __init__(self, retriever: Retriever, filters: Sequence[Filter]) -> None:
        filters = (filters,) if callable(filters) or not isinstance(filters, Iterable) else tuple(filters)
        wrong = [repr(one) for one in filters if not callable(one)]
        if not isinstance(retriever, Retriever) or not filters or wrong:
            raise ConfigError(
                f"give a retriever and one or more callable filters, got {type(retriever).__name__} and "
                f"{', '.join(wrong) or len(filters)}"
            )
        self.filters = filters
        names = [getattr(one, "__name__", type(one).__name__) for one in filters]
        self._names = [name if names.count(name) == 1 else f"{name}{i}" for i, name in enumerate(names)]

    @property
    def retriever(self) -> Retriever:
        """What is searched."""
        return self._parts()[0]

    def _search_nested(self, queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]) -> list[Hits]:
        answers = {n: _Answers(len(queries), k, len(self.filters)) for n in n_passages_per_store}
        deepest = n_passages_per_store[-1]
        depth = k + max(k, 16)
        open_queries = list(range(len(queries)))
        while open_queries:
            texts = [queries[query] for query in open_queries]
            found = self._part_hits(self.retriever, texts, min(depth, deepest), n_passages_per_store)
            still = set()
            for n, hits in found.items():
                for line, query in enumerate(open_queries):
                    if not answers[n].set(query, self._pass(queries[query], hits, line), exhausted=depth >= n):
                        still.add(query)
            open_queries, depth = sorted(still), depth * 4
        return [answers[n].hits(self._names) for n in n_passages_per_store]

    def _pass(self, query: str, hits: Hits, line: int) -> tuple[Any, Any, Any]:
        """Return the rows and scores of one query, and by which filter each was removed (-1: kept)."""
        rows = hits.ids[line][hits.ids[line] >= 0]
        removed_by = np.full(rows.size, -1)
        passages = [self.passages[row] for row in rows.tolist()]
        for number, one in enumerate(self.filters):
            left = np.flatnonzero(removed_by < 0)
            keep = np.asarray(one(query, [passages[i] for i in left]), dtype=bool)
            if keep.shape != left.shape:
                raise ConfigError(f"{self._names[number]} returned {keep.shape} decisions for {left.size} passages")
            removed_by[left[~keep]] = number
        return rows, hits.scores[line, : rows.size], removed_by


class _Answers:
    """The first k passages that pass, and the counts of what did not, for each query over one store."""

    def __init__(self, n_queries: int, k: int, n_filters: int) -> None:
        self.k = k
        self.ids = np.full((n_queries, k), -1, dtype=np.int64)
        self.scores = np.full((n_queries, k), -np.inf, dtype=np.float32)
        self.removed = np.zeros((n_filters, n_queries), dtype=np.int64)

    def set(self, query: int, passed: tuple[Any, Any, Any], *, exhausted: bool) -> bool:
        """Take the answer of one query; return whether searching deeper cannot change it."""
        rows, scores, removed_by = passed
        kept = np.flatnonzero(removed_by < 0)[: self.k]
        full = kept.size == self.k
        self.ids[query, : kept.size], self.scores[query, : kept.size] = rows[kept], scores[kept]
        before = removed_by[: kept[-1]] if full else removed_by
        self.removed[:, query] = np.bincount(before[before >= 0], minlength=len(self.removed))
        return full or exhausted

    def hits(self, names: Sequence[str]) -> Hits:
        return Hits(self.ids, self.scores, dict(zip(names, self.removed, strict=True)))


def _words(text: str) -> list[str]:
    return _WORD.findall(spaced(text.casefold()))


def _ngrams(words: list[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}


def _jaccard(one: set[Any], other: set[Any]) -> float:
    return len(one & other) / len(one | other)
