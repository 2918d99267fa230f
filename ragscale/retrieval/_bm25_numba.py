"""The compiled half of `_bm25_kernel`: import it only where numba is installed. Same legend, same roundings."""

from __future__ import annotations

import numba
import numpy as np

BLOCK = 16384


def _compiled(function):
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to cache: a read-only installation without a home directory
        return numba.njit(nogil=True)(function)


@_compiled
def _worse(score, row, other_score, other_row):
    return score < other_score or (score == other_score and row > other_row)


@_compiled
def _push(scores, rows, size, score, row):
    """Keep the best of what was pushed in a heap whose root is the worst kept; return the new size."""
    k = len(scores)
    if size < k:
        place = size
        while place > 0:
            parent = (place - 1) >> 1
            if not _worse(score, row, scores[parent], rows[parent]):
                break
            scores[place], rows[place] = scores[parent], rows[parent]
            place = parent
        scores[place], rows[place] = score, row
        return size + 1
    if not _worse(scores[0], rows[0], score, row):
        return size
    place = 0
    while True:
        child = 2 * place + 1
        if child >= k:
            break
        if child + 1 < k and _worse(scores[child + 1], rows[child + 1], scores[child], rows[child]):
            child += 1
        if not _worse(scores[child], rows[child], score, row):
            break
        scores[place], rows[place] = scores[child], rows[child]
        place = child
    scores[place], rows[place] = score, row
    return size


@_compiled
def search_impacts(terms, bounds, starts, rows, impacts, n_rows, k):  # noqa: PLR0917
    """Return rows and scores, (n_queries, k), over one store whose contributions are precomputed. Not yet ordered."""
    n_queries = len(bounds) - 1
    found = np.full((n_queries, k), -1, dtype=np.int64)
    best = np.full((n_queries, k), -np.inf, dtype=np.float32)
    block = min(BLOCK, n_rows)
    totals = np.zeros(block, dtype=np.float32)
    touched = np.empty(block, dtype=np.int64)
    for query in range(n_queries):
        first, last = bounds[query], bounds[query + 1]
        at = np.empty(last - first, dtype=np.int64)
        for i in range(last - first):
            at[i] = starts[terms[first + i]]
        size = 0
        base = 0
        while base < n_rows:
            end = min(base + block, n_rows)
            n_touched = 0
            for i in range(last - first):
                j, stop = at[i], starts[terms[first + i] + 1]
                while j < stop and rows[j] < end:
                    row = rows[j] - base
                    if totals[row] == 0:
                        touched[n_touched] = row
                        n_touched += 1
                    totals[row] += impacts[j]
                    j += 1
                at[i] = j
            for i in range(n_touched):
                row = touched[i]
                score = totals[row]
                totals[row] = 0
                if size < k or score >= best[query, 0]:
                    size = _push(best[query], found[query], size, score, row + base)
            base = end
    return found, best


@_compiled
def search_nested(terms, bounds, idf, starts, rows, counts, length_class, norms, small, n_in_store, k):  # noqa: PLR0917
    """Return rows and scores, (n_stores, n_queries, k). Not yet ordered.

    ``small[count, class, store]`` holds the term frequency part for the small counts, to save most divisions.
    """
    n_queries, n_stores = len(bounds) - 1, len(n_in_store)
    n_rows = n_in_store[-1]
    found = np.full((n_stores, n_queries, k), -1, dtype=np.int64)
    best = np.full((n_stores, n_queries, k), -np.inf, dtype=np.float32)
    sizes = np.zeros(n_stores, dtype=np.int64)
    block = min(max(BLOCK // n_stores, 1024), n_rows)
    totals = np.zeros((block, n_stores), dtype=np.float32)
    touched = np.empty(block, dtype=np.int64)
    n_small = small.shape[0]
    for query in range(n_queries):
        first, last = bounds[query], bounds[query + 1]
        at = np.empty(last - first, dtype=np.int64)
        for i in range(last - first):
            at[i] = starts[terms[first + i]]
        sizes[:] = 0
        base = 0
        least = 0  # the smallest store that holds this block
        while base < n_rows:
            while n_in_store[least] <= base:
                least += 1
            end = min(base + block, n_in_store[least])
            n_touched = 0
            for i in range(last - first):
                j, stop = at[i], starts[terms[first + i] + 1]
                while j < stop and rows[j] < end:
                    row, count, length = rows[j] - base, counts[j], length_class[rows[j]]
                    if totals[row, n_stores - 1] == 0:
                        touched[n_touched] = row
                        n_touched += 1
                    if count < n_small:
                        for store in range(least, n_stores):
                            part = np.float64(idf[first + i, store]) * small[count, length, store]
                            totals[row, store] += np.float32(part)
                    else:
                        for store in range(least, n_stores):
                            fraction = np.float64(count) / (norms[length, store] + np.float64(count))
                            totals[row, store] += np.float32(np.float64(idf[first + i, store]) * fraction)
                    j += 1
                at[i] = j
            for i in range(n_touched):
                row = touched[i]
                for store in range(least, n_stores):
                    score = totals[row, store]
                    totals[row, store] = 0
                    if sizes[store] < k or score >= best[store, query, 0]:
                        sizes[store] = _push(best[store, query], found[store, query], sizes[store], score, row + base)
            base = end
    return found, best
