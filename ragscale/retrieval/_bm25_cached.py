"""BM25 over nested stores of a small collection, compiled: every posting's contribution in every store is kept.

Import it only where numba is installed. Same roundings as `_bm25_kernel`. Where `_bm25_numba.search` scores the whole
and proves the smaller stores from a reserve, this adds up each store by itself, without a division, and begins to
select with a bound from the store before: its k best are in this store too, and k of their scores are known.

A candidate is one number: the bits of its positive score above, the row counted from the end below; larger is better.
"""

from __future__ import annotations

import numpy as np

from ragscale.retrieval._bm25_numba import compiled

_LAST = 0xFFFFFFFF
_FEW = 12


@compiled
def fill_impacts(  # noqa: PLR0917
    postings: tuple[np.ndarray, np.ndarray, np.ndarray],
    length_class: np.ndarray,
    idf: np.ndarray,
    norms: np.ndarray,
    places: np.ndarray,
    n_holding: np.ndarray,
    impacts: np.ndarray,
):
    """Write every posting's contribution in every store: that of term t in store s from ``places[t, s]`` on."""
    starts, rows, counts = postings
    for term in range(len(starts) - 1):
        low = starts[term]
        for store in range(norms.shape[1]):
            at, weight = places[term, store], np.float64(idf[term, store])
            for i in range(n_holding[term, store]):
                count = np.float64(counts[low + i])
                norm = norms[length_class[rows[low + i]], store]
                impacts[at + i] = np.float32(weight * (count / (norm + count)))


@compiled
def _first_in_order(keys: np.ndarray, n: int, k: int, stack: np.ndarray):
    """Put the k largest of ``keys[:n]`` first, falling: a quicksort that leaves alone what comes after them."""
    depth = 0
    stack[0, 0], stack[0, 1] = 0, n - 1
    while depth >= 0:
        low, high = stack[depth, 0], stack[depth, 1]
        depth -= 1
        while high - low > _FEW:
            middle = (low + high) >> 1
            one, two, three = keys[low], keys[middle], keys[high]
            pivot = max(min(one, two), min(max(one, two), three))
            left, right = low, high
            while left <= right:
                while keys[left] > pivot:
                    left += 1
                while keys[right] < pivot:
                    right -= 1
                if left <= right:
                    keys[left], keys[right] = keys[right], keys[left]
                    left += 1
                    right -= 1
            if left < k and left < high:  # the larger keys stand on the left; what begins at k or later may stay
                depth += 1
                stack[depth, 0], stack[depth, 1] = left, high
            high = right
        for i in range(low + 1, high + 1):
            key, place = keys[i], i
            while place > low and keys[place - 1] < key:
                keys[place] = keys[place - 1]
                place -= 1
            keys[place] = key


@compiled
def search_cached(  # noqa: PLR0917
    terms: np.ndarray,
    bounds: np.ndarray,
    starts: np.ndarray,
    rows: np.ndarray,
    places: np.ndarray,
    n_holding: np.ndarray,
    impacts: np.ndarray,
    n_in_store: np.ndarray,
    k: int,
):
    """Return rows and scores, (n_stores, n_queries, k), best first, from the impacts that `fill_impacts` wrote."""
    n_queries, n_stores = len(bounds) - 1, len(n_in_store)
    found = np.full((n_stores, n_queries, k), -1, dtype=np.int64)
    best = np.full((n_stores, n_queries, k), -np.inf, dtype=np.float32)
    totals = np.zeros(n_in_store[-1], dtype=np.float32)
    bits = totals.view(np.uint32)
    keys = np.empty(n_in_store[-1], dtype=np.uint64)
    stack = np.empty((64, 2), dtype=np.int64)
    for query in range(n_queries):
        first, last = bounds[query], bounds[query + 1]
        for store in range(n_stores):
            n_rows, n_postings = n_in_store[store], 0
            for i in range(first, last):
                low, at, n_held = starts[terms[i]], places[terms[i], store], n_holding[terms[i], store]
                for j in range(n_held):
                    totals[rows[low + j]] += impacts[at + j]
                n_postings += n_held
            least = np.uint32(1)  # the smallest positive number: passages without a term are no hits
            if store > 0 and found[store - 1, query, k - 1] >= 0:
                least = bits[found[store - 1, query, 0]]
                for i in range(1, k):
                    least = min(least, bits[found[store - 1, query, i]])
            n = 0
            if n_postings * 4 > n_rows:
                for row in range(n_rows):
                    if bits[row] >= least:
                        keys[n] = (np.uint64(bits[row]) << np.uint64(32)) | np.uint64(_LAST - row)
                        n += 1
                totals[:n_rows] = 0
            else:
                for i in range(first, last):
                    low = starts[terms[i]]
                    for j in range(low, low + n_holding[terms[i], store]):
                        row = np.int64(rows[j])
                        if bits[row] >= least:
                            keys[n] = (np.uint64(bits[row]) << np.uint64(32)) | np.uint64(_LAST - row)
                            n += 1
                        totals[row] = 0
            n_best = min(n, k)
            _first_in_order(keys, n, n_best, stack)
            for i in range(n_best):
                found[store, query, i] = _LAST - np.int64(keys[i] & np.uint64(_LAST))
                bits[0] = np.uint32(keys[i] >> np.uint64(32))
                best[store, query, i] = totals[0]
            bits[0] = 0
    return found, best
