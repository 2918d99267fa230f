"""BM25 over nested stores in one pass, compiled by numba where it is installed.

Both versions do the same floating-point operations in the same order, so that their scores agree to the last bit:
the term frequency part in float64, each term's contribution rounded to float32, contributions added in float32 in the
order of the query's terms. These also are the roundings of bm25s.

Legend: postings of a term stand in ``rows[starts[t]:starts[t + 1]]``, rows ascending; store s holds the first
``n_in_store[s]`` rows, increasing; ``norms[c, s] = k1 (1 - b + b length / mean length of s)`` for length class c.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def search_numpy(  # noqa: PLR0917
    query_terms: list[NDArray[np.int64]],
    query_idf: list[NDArray[np.float32]],
    postings: tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]],
    length_class: NDArray[Any],
    norms: NDArray[np.float64],
    n_in_store: NDArray[np.int64],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return rows and scores, (n_stores, n_queries, k), in pure NumPy."""
    from ragscale.retrieval._hits import top_k

    starts, rows, counts = postings
    n_stores, n_queries = len(n_in_store), len(query_terms)
    found = np.full((n_stores, n_queries, k), -1, dtype=np.int64)
    best = np.full((n_stores, n_queries, k), -np.inf, dtype=np.float32)
    totals = np.zeros((n_stores, int(n_in_store[-1])), dtype=np.float32)
    for query in range(n_queries):
        touched = []
        for term, idf in zip(query_terms[query], query_idf[query], strict=True):
            span = slice(starts[term], starts[term + 1])
            row, count = rows[span], counts[span].astype(np.float64)
            touched.append(row)
            for store in range(n_stores):
                end = np.searchsorted(row, n_in_store[store])
                part = count[:end] / (norms[length_class[row[:end]], store] + count[:end])
                totals[store, row[:end]] += (np.float64(idf[store]) * part).astype(np.float32)
        if not touched:
            continue
        candidates = np.unique(np.concatenate(touched))
        for store in range(n_stores):
            inside = candidates[: np.searchsorted(candidates, n_in_store[store])]
            lines = totals[store, inside][None]
            found[store, query], best[store, query] = (part[0] for part in top_k(lines, k, rows=inside[None]))
            totals[store, inside] = 0
    return found, best
