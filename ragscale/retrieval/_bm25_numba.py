"""The compiled half of `_bm25_kernel`: import it only where numba is installed. Same legend, same roundings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

BLOCK = 16384


def compiled(function: Callable[..., Any]):
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to cache: a read-only installation without a home directory
        return numba.njit(nogil=True)(function)


@compiled
def _worse(score: float, row: int, other_score: float, other_row: int):
    return score < other_score or (score == other_score and row > other_row)


@compiled
def _push(scores: np.ndarray, rows: np.ndarray, size: int, score: float, row: int):
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


@compiled
def _sort(scores: np.ndarray, rows: np.ndarray, size: int):
    """Turn the heap into falling scores, equal ones by rising row."""
    while size > 1:
        size -= 1
        score, row = scores[size], rows[size]
        scores[size], rows[size] = scores[0], rows[0]
        place = 0
        while True:
            child = 2 * place + 1
            if child >= size:
                break
            if child + 1 < size and _worse(scores[child + 1], rows[child + 1], scores[child], rows[child]):
                child += 1
            if not _worse(scores[child], rows[child], score, row):
                break
            scores[place], rows[place] = scores[child], rows[child]
            place = child
        scores[place], rows[place] = score, row


@compiled
def _find(rows: np.ndarray, low: int, high: int, row: int):
    """Return where ``row`` stands in ``rows[low:high]``, or -1."""
    n = high - low
    if n == 0:
        return -1
    while n > 1:
        half = n >> 1
        low += half * (rows[low + half - 1] < row)  # no branch to predict
        n -= half
    if rows[low] != row:
        return -1
    return low


@compiled
def _first_from(rows: np.ndarray, low: int, high: int, row: int):
    """Return the first place in ``rows[low:high]`` that holds ``row`` or more."""
    while low < high:
        middle = (low + high) >> 1
        if rows[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def search(  # noqa: PLR0917
    terms: np.ndarray,
    bounds: np.ndarray,
    postings: tuple[np.ndarray, np.ndarray, np.ndarray],
    length_class: np.ndarray,
    impacts: np.ndarray,
    whole_idf: np.ndarray,
    whole_norm: np.ndarray,
    idf: np.ndarray,
    n_holding: np.ndarray,
    norms: np.ndarray,
    n_in_store: np.ndarray,
    k: int,
    reserve: int,
):
    """Return rows and scores, (n_stores, n_queries, k), best first, and which (store, query) are not yet proven.

    One pass scores every passage in the whole index, from precomputed ``impacts``, and keeps the best ``k + reserve``
    so far. When the pass reaches the end of a smaller store, those are scored exactly in it, best first, until none
    that is left can come among its k best: a passage's score in the store is at most ``most`` times its score in the
    whole. Where the reserve runs out before, the pair is marked as open.
    """
    starts, rows, counts = postings
    n_queries, n_stores = len(bounds) - 1, len(n_in_store)
    n_rows, n_whole = n_in_store[-1], len(length_class)
    kept = k if n_in_store[0] == n_whole else k + reserve
    found = np.full((n_stores, n_queries, k), -1, dtype=np.int64)
    best = np.full((n_stores, n_queries, k), -np.inf, dtype=np.float32)
    is_open = np.zeros((n_stores, n_queries), dtype=np.bool_)
    heap_scores, heap_rows = np.empty(kept, dtype=np.float32), np.empty(kept, dtype=np.int64)
    tried_scores, tried_rows = np.empty(kept, dtype=np.float32), np.empty(kept, dtype=np.int64)
    block = min(BLOCK, n_rows)
    totals = np.zeros(block, dtype=np.float32)
    # where the query's terms stand for passages that were scored exactly before, by row
    most_terms, most_slots = 0, 0
    for query in range(n_queries):
        most_terms = max(most_terms, bounds[query + 1] - bounds[query])
    if kept > k:
        most_slots = min(kept * n_stores, n_rows)
    slot_of = np.full(n_rows if kept > k else 0, -1, dtype=np.int32)
    slots = np.empty(most_slots, dtype=np.int64)
    places = np.empty((most_slots, most_terms), dtype=np.int64)
    length_ratio = np.ones(n_stores)
    for store in range(n_stores):
        for i in range(len(norms)):
            if norms[i, store] > 0:
                length_ratio[store] = max(length_ratio[store], whole_norm[i] / norms[i, store])
    for query in range(n_queries):
        first, last = bounds[query], bounds[query + 1]
        at, begin = np.empty(last - first, dtype=np.int64), np.empty(last - first, dtype=np.int64)
        for i in range(last - first):
            at[i] = starts[terms[first + i]]
        size = base = store = n_slots = 0
        least = np.float32(0)
        while base < n_rows:
            end = min(base + block, n_in_store[store])
            n_postings = 0
            for i in range(last - first):
                low, high = at[i], starts[terms[first + i] + 1]
                if end < n_rows or n_rows < n_whole:
                    high = _first_from(rows, low, high, end)
                for j in range(low, high):
                    totals[rows[j] - base] += impacts[j]
                begin[i], at[i] = low, high
                n_postings += high - low
            if n_postings * 4 > end - base:
                for row in range(end - base):
                    score = totals[row]
                    if score > least:  # rows rise: of equal scores the first stays
                        size = _push(heap_scores, heap_rows, size, score, row + base)
                        least = heap_scores[0] if size == kept else np.float32(0)
                totals[: end - base] = 0
            elif n_postings > 0:
                for i in range(last - first):
                    for j in range(begin[i], at[i]):
                        score = totals[rows[j] - base]
                        totals[rows[j] - base] = 0
                        if score > 0 and score >= least:
                            size = _push(heap_scores, heap_rows, size, score, np.int64(rows[j]))
                            least = heap_scores[0] if size == kept else np.float32(0)
            base = end
            if base < n_in_store[store]:
                continue
            if base < n_whole:
                n_held = 0
                for i in range(first, last):
                    n_held += n_holding[i, store]
                if 5 * n_held + base < 2500 + k * (150 + 25 * (last - first)):  # nanoseconds, about
                    is_open[store, query] = True  # so few postings are sooner scored all
                    store += 1
                    if base == n_rows:
                        break
                    continue
            tried_scores[:size] = heap_scores[:size]
            tried_rows[:size] = heap_rows[:size]
            _sort(tried_scores, tried_rows, size)
            if base == n_whole:
                best[store, query, : min(size, k)] = tried_scores[: min(size, k)]
                found[store, query, : min(size, k)] = tried_rows[: min(size, k)]
                break
            most = 0.0
            for i in range(first, last):
                if n_holding[i, store] > 0:
                    most = max(most, np.float64(idf[i, store]) / np.float64(whole_idf[i]))
            most *= length_ratio[store] * (1 + 2.4e-7 * (last - first + 8))  # rounding of both sums in float32
            n_best = 0
            proven = size < kept
            for i in range(size):
                if n_best == k and tried_scores[i] * most < best[store, query, 0]:
                    proven = True
                    break
                row = tried_rows[i]
                if slot_of[row] < 0:
                    slot_of[row] = n_slots
                    slots[n_slots] = row
                    for t in range(last - first):
                        term = terms[first + t]
                        places[n_slots, t] = _find(rows, starts[term], starts[term + 1], row)
                    n_slots += 1
                slot, norm, score = slot_of[row], norms[length_class[row], store], np.float32(0)
                for t in range(last - first):
                    place = places[slot, t]
                    if place >= 0:
                        count = np.float64(counts[place])
                        score += np.float32(np.float64(idf[first + t, store]) * (count / (norm + count)))
                n_best = _push(best[store, query], found[store, query], n_best, score, row)
            _sort(best[store, query], found[store, query], n_best)
            is_open[store, query] = not proven
            store += 1
            if base == n_rows:
                break
        for i in range(n_slots):
            slot_of[slots[i]] = -1
    return found, best, is_open


@compiled
def search_open(  # noqa: PLR0917
    terms: np.ndarray,
    bounds: np.ndarray,
    postings: tuple[np.ndarray, np.ndarray, np.ndarray],
    length_class: np.ndarray,
    idf: np.ndarray,
    n_holding: np.ndarray,
    norm: np.ndarray,
    n_rows: int,
    k: int,
):
    """Return rows and scores, (n_queries, k), best first, of one store by scoring every passage of it."""
    starts, rows, counts = postings
    n_queries = len(bounds) - 1
    found = np.full((n_queries, k), -1, dtype=np.int64)
    best = np.full((n_queries, k), -np.inf, dtype=np.float32)
    totals = np.zeros(n_rows, dtype=np.float32)
    for query in range(n_queries):
        size, n_postings, least = 0, 0, np.float32(0)
        for i in range(bounds[query], bounds[query + 1]):
            low = starts[terms[i]]
            for j in range(low, low + n_holding[i]):
                count = np.float64(counts[j])
                totals[rows[j]] += np.float32(np.float64(idf[i]) * (count / (norm[length_class[rows[j]]] + count)))
            n_postings += n_holding[i]
        if n_postings * 4 > n_rows:
            for row in range(n_rows):
                score = totals[row]
                if score > least:
                    size = _push(best[query], found[query], size, score, row)
                    least = best[query, 0] if size == k else np.float32(0)
            totals[:] = 0
        else:
            for i in range(bounds[query], bounds[query + 1]):
                low = starts[terms[i]]
                for j in range(low, low + n_holding[i]):
                    score = totals[rows[j]]
                    totals[rows[j]] = 0
                    if score > 0 and score >= least:
                        size = _push(best[query], found[query], size, score, np.int64(rows[j]))
                        least = best[query, 0] if size == k else np.float32(0)
        _sort(best[query], found[query], size)
    return found, best
