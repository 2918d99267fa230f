"""Contributions of postings in nested stores, kept between searches: for small collections that are searched often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_BYTES = 64 << 20
_SETS = 4  # of sizes that are kept


@dataclass(frozen=True, slots=True)
class StoreImpacts:
    """What `search_cached` reads.

    Attributes
    ----------
    n_in_store : ndarray of int64, shape (n_stores,)
        Passages of each store, increasing.
    n_holding : ndarray of int64, shape (n_terms, n_stores)
        Postings of each term in each store: the first so many, since postings are in store order.
    places : ndarray of int64, shape (n_terms, n_stores)
        Where the impacts of a term in a store begin.
    impacts : ndarray of float32
        Contributions, with the roundings of `_bm25_kernel`.
    """

    n_in_store: NDArray[np.int64]
    n_holding: NDArray[np.int64]
    places: NDArray[np.int64]
    impacts: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        postings: tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]],
        length_class: NDArray[Any],
        n_in_store: NDArray[np.int64],
        idf: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]],
        norms: NDArray[np.float64],
    ) -> StoreImpacts:
        """Compute them: a division for every posting and store that it stands in."""
        from ragscale.retrieval._bm25_cached import fill_impacts

        starts, rows, _ = postings
        before = np.zeros((len(starts), len(n_in_store)), dtype=np.int64)
        for store, n in enumerate(n_in_store.tolist()):
            before[:, store] = np.concatenate([[0], np.cumsum(rows < n)])[starts]
        n_holding = np.diff(before, axis=0)
        ends = np.cumsum(n_holding.T.ravel())
        places = np.ascontiguousarray((ends - n_holding.T.ravel()).reshape(n_holding.T.shape).T)
        impacts = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.float32)
        fill_impacts(postings, length_class, idf(n_holding, n_in_store), norms, places, n_holding, impacts)
        return cls(n_in_store, n_holding, places, impacts)

    def search(
        self, numbers: list[NDArray[np.int64]], starts: NDArray[np.int64], rows: NDArray[Any], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and scores, (n_stores, n_queries, k), of queries as numbers of terms."""
        from ragscale.retrieval._bm25_cached import search_cached

        bounds = np.cumsum([0, *map(len, numbers)])
        terms = np.concatenate([np.empty(0, dtype=np.int64), *numbers])
        return search_cached(terms, bounds, starts, rows, self.places, self.n_holding, self.impacts, self.n_in_store, k)


class KeptImpacts:
    """The impacts of the last few sets of store sizes."""

    def __init__(self) -> None:
        self._impacts: dict[tuple[int, ...], StoreImpacts] = {}
        self._asked: dict[tuple[int, ...], int] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[KeptImpacts], tuple[()]]:
        return KeptImpacts, ()  # another process makes its own

    def are_worth(
        self, n_in_store: NDArray[np.int64], *, n_postings: int, n_queries: int, postings_per_query: float, k: int
    ) -> bool:
        """Whether to search these stores by kept impacts: few postings a query, and asked often enough to pay.

        Adding up every store by itself visits more postings than one pass over the whole does, but proves and rescores
        nothing: where that pays, and for how many queries, was measured (benchmarks/retrieval.py, ``nested``). Making
        the impacts takes about 35 ns per posting; a query then is some 20 + 1.3 k microseconds faster.
        """
        sizes = tuple(n_in_store.tolist())
        share = sum(sizes) / sizes[-1]
        if len(sizes) < 2 or 4 * share * n_postings > _MOST_BYTES:
            return False
        if (share - 1) * postings_per_query > (len(sizes) - 1) * (6_600 + 430 * k):
            return False
        if sizes in self._impacts:
            return True
        with self._lock:
            while len(self._asked) >= 64:
                self._asked.pop(next(iter(self._asked)))
            asked = self._asked[sizes] = self._asked.get(sizes, 0) + n_queries
        return asked * (20 + 1.3 * k) > 0.035 * n_postings

    def get(self, n_in_store: NDArray[np.int64], make: Callable[[], StoreImpacts]) -> StoreImpacts:
        """Return the impacts of these sizes; made once."""
        sizes = tuple(n_in_store.tolist())
        with self._lock:
            if sizes not in self._impacts:
                while len(self._impacts) >= _SETS:
                    self._impacts.pop(next(iter(self._impacts)))
                self._impacts[sizes] = make()
            return self._impacts[sizes]
