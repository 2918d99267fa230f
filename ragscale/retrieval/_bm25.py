"""BM25 for stores of every size from one postings file.

A BM25 score depends on its store: through the number of passages that hold a term and through the mean length. With
passages in store order both are known for every prefix, so one pass over the postings scores every store exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragscale._counts import is_number, whole_or_zero
from ragscale._extras import require
from ragscale._files import atomic_write, canonical_json
from ragscale.errors import ConfigError, MissingExtraError
from ragscale.retrieval._analysis import Analyzer
from ragscale.retrieval._base import Retriever
from ragscale.retrieval._bm25_impacts import KeptImpacts, StoreImpacts

if TYPE_CHECKING:
    from ragscale.passages import Passage

_ARRAYS = ("starts", "rows", "counts", "lengths")
_QUERIES_AT_ONCE = 512


class BM25Retriever(Retriever):
    """Lexical search by BM25, for stores of every size at once; needs no Java.

    Parameters
    ----------
    k1, b : float
        Saturation of the term frequency, and strength of length normalisation; Pyserini's defaults.
    stemmer : str or None
        A Snowball algorithm, e.g. ``"porter"``, ``"german"``; None for no stemming.
    stop_words : "lucene", a language of bm25s, sequence of str, or None
        Words that are not indexed.
    token_pattern : str or None
        A regular expression whose matches are the words; None splits words as Lucene's standard tokenizer does, and
        Chinese, Japanese, Thai and other scripts without spaces by characters.
    length_encoding : {"exact", "lucene"}
        ``"exact"`` gives the scores of bm25s; ``"lucene"`` those of Lucene, which rounds lengths from 40 terms on to
        4 significant bits and does not count passages without a term.
    n_threads : int
        Threads that share the queries of a search.
    compiled : bool or None
        Use numba; None where it is installed. The results are the same.

    Notes
    -----
    With :math:`n_t` passages of the store's :math:`N` holding term t, :math:`f` its count in a passage of length
    :math:`l`, and :math:`\\bar l` the store's mean length, a passage scores the sum over the query's terms

    .. math:: \\ln\\Bigl(1 + \\frac{N - n_t + 1/2}{n_t + 1/2}\\Bigr) \\frac{f}{f + k_1 (1 - b + b\\, l / \\bar l)}.

    Passages that share no term with the query are no hits.

    References
    ----------
    Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, eq. 3.15; the variant
    "Lucene (accurate)" of Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020, table 1.

    Examples
    --------
    >>> from ragscale import Passage
    >>> store = [Passage("a", "A red fish swims.", 4, "a"), Passage("b", "Blue fishes.", 2, "b")]
    >>> retriever = BM25Retriever().index(store)
    >>> retriever.search(["fishing", "blue", "green"], k=2).ids
    array([[ 1,  0],
           [ 1, -1],
           [-1, -1]])
    """

    def __init__(
        self,
        *,
        k1: float = 0.9,
        b: float = 0.4,
        stemmer: str | None = "porter",
        stop_words: str | Iterable[str] | None = "lucene",
        token_pattern: str | None = None,
        length_encoding: str = "exact",
        n_threads: int = 1,
        compiled: bool | None = None,
    ) -> None:
        problems = [
            problem
            for wrong, problem in [
                (not is_number(k1) or not k1 >= 0, f"k1 must be at least 0, got {k1!r}"),
                (not is_number(b) or not 0 <= b <= 1, f"b must be from 0 to 1, got {b!r}"),
                (length_encoding not in {"exact", "lucene"}, f"length_encoding {length_encoding!r} is unknown"),
                (whole_or_zero(n_threads) < 1, f"n_threads must be at least 1, got {n_threads!r}"),
                (
                    stop_words is not None and not isinstance(stop_words, Iterable),
                    f"stop_words must be a name, a list of words or None, got {stop_words!r}",
                ),
                (
                    not _is_pattern(token_pattern),
                    f"token_pattern {token_pattern!r} is no pattern with at most one group",
                ),
            ]
            if wrong
        ]
        if problems:
            raise ConfigError("; ".join(problems))
        self.k1, self.b, self.length_encoding = float(k1), float(b), length_encoding
        self.stemmer, self.token_pattern = stemmer, token_pattern
        self.stop_words = stop_words if stop_words is None or isinstance(stop_words, str) else tuple(stop_words)
        self.n_threads, self.compiled = whole_or_zero(n_threads), compiled

    def _index(self, passages: Sequence[Passage]) -> None:
        from scipy.sparse import csr_array

        self._analyzer = Analyzer(self.stemmer, self.stop_words, self.token_pattern)
        texts = (passage.text for passage in self._track(passages, what="index", total=len(passages)))
        terms, bounds = self._analyzer.index(texts)
        shape = (len(passages), max(len(self._analyzer.vocabulary), 1))
        postings = csr_array((np.ones(len(terms), dtype=np.int32), terms, bounds), shape=shape).tocsc()
        postings.sum_duplicates()
        most = int(postings.data.max(initial=0))
        self._starts = postings.indptr.astype(np.int64)
        self._rows = postings.indices.astype(np.int32)
        self._counts = postings.data.astype(np.min_scalar_type(most))
        self._lengths = np.diff(bounds).astype(np.int32)
        self._prepare()
        if self._kernel() is not None:  # compiled here, on one word, so that the first search need not wait for it
            self._search_part([np.zeros(min(1, len(self._rows)), dtype=np.int64)], np.array([len(passages)]), 1)

    def _prepare(self) -> None:
        """Derive from the saved arrays what every search needs."""
        lengths = np.asarray(self._lengths)
        self._total_length = np.cumsum(lengths, dtype=np.int64)
        self._n_not_empty = np.cumsum(lengths > 0, dtype=np.int64)
        scored = _lucene_lengths(lengths) if self.length_encoding == "lucene" else lengths
        self._class_lengths, length_class = np.unique(scored, return_inverse=True)
        self._length_class = length_class.astype(np.min_scalar_type(len(self._class_lengths)))
        self._whole: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]] | None = None
        self._kept = KeptImpacts()

    def _search(self, queries: Sequence[str], k: int) -> tuple[Any, Any]:
        return self._search_nested(queries, k, [self.n_passages])[0]

    def _search_nested(
        self, queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]
    ) -> Sequence[tuple[Any, Any]]:
        n_in_store = np.asarray(n_passages_per_store, dtype=np.int64)
        numbers = [np.asarray(self._analyzer.query(query), dtype=np.int64) for query in queries]
        parts = [slice(i, i + _QUERIES_AT_ONCE) for i in range(0, len(queries), _QUERIES_AT_ONCE)] or [slice(0, 0)]
        impacts = self._impacts_in_stores(n_in_store, numbers, k)
        if impacts is not None:
            found = list(self._map(lambda part: impacts.search(numbers[part], self._starts, self._rows, k), parts))
        else:
            found = list(self._map(lambda part: self._search_part(numbers[part], n_in_store, k), parts))
        rows, scores = (np.concatenate(side, axis=1) for side in zip(*found, strict=True))
        return list(zip(rows, scores, strict=True))

    def _map(self, function: Any, parts: list[slice]) -> Iterable[Any]:
        if self.n_threads == 1:
            return map(function, self._track(parts, what="search"))
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self.n_threads) as pool:
            return list(self._track(pool.map(function, parts), what="search", total=len(parts)))

    def _search_part(
        self, numbers: list[NDArray[np.int64]], n_in_store: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        bounds = np.cumsum([0, *map(len, numbers)])
        terms = np.concatenate([np.empty(0, dtype=np.int64), *numbers])
        if not terms.size:
            shape = (len(n_in_store), len(numbers), k)
            return np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)
        norms = self._norms(n_in_store)
        n_holding = self._document_frequencies(terms, n_in_store)
        idf = self._idf(n_holding, n_in_store)
        postings = (self._starts, self._rows, self._counts)
        kernel = self._kernel()
        if kernel is None:
            from ragscale.retrieval._bm25_kernel import search_numpy

            per_query = [idf[bounds[i] : bounds[i + 1]] for i in range(len(numbers))]
            return search_numpy(numbers, per_query, postings, self._length_class, norms, n_in_store, k)
        impacts, whole_idf, whole_norm = self._in_whole()
        rows, scores, is_open = kernel.search(
            terms,
            bounds,
            postings,
            self._length_class,
            impacts,
            whole_idf[terms],
            whole_norm,
            idf,
            n_holding,
            norms,
            n_in_store,
            k,
            self._reserve(k),
        )
        for store in np.flatnonzero(is_open.any(axis=1)).tolist():
            left = np.flatnonzero(is_open[store])
            places = np.concatenate([np.arange(bounds[query], bounds[query + 1]) for query in left])
            their_bounds = np.cumsum([0, *np.diff(bounds)[left]])
            rows[store, left], scores[store, left] = kernel.search_open(
                terms[places],
                their_bounds,
                postings,
                self._length_class,
                idf[places, store],
                n_holding[places, store],
                np.ascontiguousarray(norms[:, store]),
                n_in_store[store],
                k,
            )
        return rows, scores

    def _impacts_in_stores(
        self, n_in_store: NDArray[np.int64], numbers: list[NDArray[np.int64]], k: int
    ) -> StoreImpacts | None:
        """Return every posting's contribution in every store, where they are worth their keep, else None."""
        if self._kernel() is None or not numbers:
            return None
        terms = np.concatenate(numbers)
        n_visited = float((self._starts[terms + 1] - self._starts[terms]).sum())
        if not self._kept.are_worth(
            n_in_store,
            n_postings=len(self._rows),
            n_queries=len(numbers),
            postings_per_query=n_visited / len(numbers),
            k=k,
        ):
            return None
        postings = (self._starts, self._rows, self._counts)
        return self._kept.get(
            n_in_store,
            lambda: StoreImpacts.of(postings, self._length_class, n_in_store, self._idf, self._norms(n_in_store)),
        )

    def _reserve(self, k: int) -> int:
        """Return how many candidates to keep beside k: more are sorted for nothing, fewer leave stores unproven."""
        return int((14 + 0.6 * k) * min(max(self.n_passages / 40_000, 1), 4))

    def _kernel(self) -> Any:
        """Return the compiled kernel, or None where numba is missing or was refused."""
        if self.compiled is False:
            return None
        try:
            require("numba", "bm25")
        except MissingExtraError:
            if self.compiled:
                raise
            return None
        from ragscale.retrieval import _bm25_numba

        return _bm25_numba

    def _document_frequencies(self, terms: NDArray[np.int64], n_in_store: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the passages of each store that hold each term, (n_terms, n_stores): postings are in store order."""
        if n_in_store[0] == self.n_passages:
            return (self._starts[terms + 1] - self._starts[terms])[:, None]
        unique, where = np.unique(terms, return_inverse=True)
        postings = (self._rows[self._starts[term] : self._starts[term + 1]] for term in unique.tolist())
        return np.array([np.searchsorted(rows, n_in_store) for rows in postings], dtype=np.int64)[where]

    def _idf(self, n_holding: NDArray[np.int64], n_in_store: NDArray[np.int64]) -> NDArray[np.float32]:
        return _idf(n_holding, self._n_scored(n_in_store))

    def _norms(self, n_in_store: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return k1 (1 - b + b length / mean length), (n_length_classes, n_stores)."""
        return self._norms_of(self._total_length[n_in_store - 1], self._n_scored(n_in_store))

    def _norms_of(self, total_length: NDArray[np.int64], n_scored: NDArray[np.int64]) -> NDArray[np.float64]:
        mean_length = np.maximum(total_length / np.maximum(n_scored, 1), 1e-9)
        return self.k1 * ((1 - self.b) + self.b * self._class_lengths[:, None] / mean_length)

    def _n_scored(self, n_in_store: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._n_not_empty[n_in_store - 1] if self.length_encoding == "lucene" else n_in_store

    # As one of several shards of an index, see _shards.py

    def _lengths_in(self, n_in_store: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the terms, and the passages that are scored, among the first n passages, for n from 0."""
        last = np.maximum(n_in_store - 1, 0)
        lengths = np.where(n_in_store > 0, self._total_length[last], 0)
        return lengths, np.where(n_in_store > 0, self._n_scored(last + 1), 0)

    def _holding_in(self, terms: NDArray[np.int64], n_in_store: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the first n passages that hold each term, (n_terms, n_stores), for n from 0, rising."""
        postings = (self._rows[self._starts[term] : self._starts[term + 1]] for term in terms.tolist())
        return np.array([np.searchsorted(rows, n_in_store) for rows in postings], dtype=np.int64)

    def _search_given(
        self,
        numbers: list[NDArray[np.int64]],
        n_holding: NDArray[np.int64],
        total_length: NDArray[np.int64],
        n_scored: NDArray[np.int64],
        *,
        n_in_store: NDArray[np.int64],
        k: int,
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Score this shard with the statistics of whole stores, of which it holds the first ``n_in_store`` passages.

        ``n_holding`` is of every term of every query, (n_terms, n_stores).
        """
        bounds = np.cumsum([0, *map(len, numbers)])
        terms = np.concatenate([np.empty(0, dtype=np.int64), *numbers])
        idf, norms = _idf(n_holding, n_scored), self._norms_of(total_length, n_scored)
        postings = (self._starts, self._rows, self._counts)
        kernel = self._kernel()
        if kernel is None:
            from ragscale.retrieval._bm25_kernel import search_numpy

            per_query = [idf[bounds[i] : bounds[i + 1]] for i in range(len(numbers))]
            found = search_numpy(numbers, per_query, postings, self._length_class, norms, n_in_store, k)
            return list(zip(*found, strict=True))
        unique, where = np.unique(terms, return_inverse=True)
        here = self._holding_in(unique, n_in_store)[where] if len(terms) else np.zeros_like(n_holding)
        return [
            kernel.search_open(
                terms,
                bounds,
                postings,
                self._length_class,
                np.ascontiguousarray(idf[:, store]),
                np.ascontiguousarray(here[:, store]),
                np.ascontiguousarray(norms[:, store]),
                n_in_store[store],
                k,
            )
            for store in range(len(n_in_store))
        ]

    def _in_whole(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        """Return every posting's contribution over the whole index, every term's idf and every length class's norm."""
        if self._whole is None:
            everything = np.array([self.n_passages])
            idf = self._idf(np.diff(self._starts)[:, None], everything)[:, 0]
            norm = np.ascontiguousarray(self._norms(everything)[:, 0])
            impacts = np.repeat(idf, np.diff(self._starts))
            step = 1 << 20
            for start in range(0, len(impacts), step):
                part = slice(start, start + step)
                count = self._counts[part].astype(np.float64)
                impacts[part] = impacts[part] * (count / (norm[self._length_class[self._rows[part]]] + count))
            self._whole = (impacts, idf, norm)
        return self._whole

    def _save(self, directory: Path) -> None:
        for name in _ARRAYS:
            with atomic_write(directory / f"{name}.npy") as file:
                np.save(file, getattr(self, f"_{name}"))
        with atomic_write(directory / "terms.json", "w", encoding="utf-8") as file:
            file.write(canonical_json(list(self._analyzer.vocabulary)))

    def _load(self, directory: Path) -> None:
        import json

        self._analyzer = Analyzer(self.stemmer, self.stop_words, self.token_pattern)
        terms = json.loads((directory / "terms.json").read_text(encoding="utf-8"))
        self._analyzer.vocabulary.update(zip(terms, range(len(terms)), strict=True))
        for name in _ARRAYS:
            setattr(
                self, f"_{name}", np.load(directory / f"{name}.npy", mmap_mode="c")
            )  # "r" has another type for numba
        self._prepare()

    def _describe(self) -> dict[str, Any]:
        n_bytes = sum(getattr(self, f"_{name}").nbytes for name in _ARRAYS)
        return {"bytes": n_bytes, "n_terms": len(self._analyzer.vocabulary), "n_postings": len(self._rows)}


def _idf(n_holding: NDArray[np.int64], n_scored: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.log(1 + (n_scored - n_holding + 0.5) / (n_holding + 0.5)).astype(np.float32)


def _is_pattern(token_pattern: Any) -> bool:
    try:
        return token_pattern is None or re.compile(token_pattern).groups <= 1
    except (re.error, TypeError, RecursionError, OverflowError):
        return False


def _lucene_lengths(lengths: NDArray[np.int32]) -> NDArray[np.int64]:
    """Round lengths as Lucene stores them in one byte: exact below 40, then to 4 significant bits of the rest."""
    beyond = np.maximum(lengths.astype(np.int64) - 24, 1)
    shift = np.maximum(np.floor(np.log2(beyond)).astype(np.int64) - 3, 0)
    return np.where(lengths < 40, lengths, 24 + ((beyond >> shift) << shift))
