"""Very many very small linear systems at once: the batch is the last axis, so every operation is one long vector."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve symmetric systems by elimination without pivoting, after scaling the diagonal to 1.

    Parameters
    ----------
    matrix : ndarray (k, k, P)
    right : ndarray (k, P)

    Returns
    -------
    ndarray (k, P)
        Not finite where a system is singular.
    """
    k = len(right)
    with np.errstate(all="ignore"):
        diagonal = np.einsum("iip->ip", matrix)
        scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        a = matrix * scale[:, None] * scale[None, :]
        x = right * scale
        for i in range(k):
            inverse = 1.0 / a[i, i]
            for j in range(i + 1, k):
                factor = a[j, i] * inverse
                a[j, i + 1 :] -= factor * a[i, i + 1 :]
                x[j] -= factor * x[i]
        for i in reversed(range(k)):
            for j in range(i + 1, k):
                x[i] -= a[i, j] * x[j]
            x[i] /= a[i, i]
        return x * scale


def nonnegative(gram: np.ndarray, right: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """Minimise c'Gc - 2 b'c over c >= 0 exactly, by trying which coefficients are zero.

    Parameters
    ----------
    gram : ndarray (k, k, P)
    right : ndarray (k, P)
    signed : bool ndarray (k,)
        Coefficients that may be negative.

    Returns
    -------
    ndarray (k, P)
    """
    k = len(right)
    gram = gram.copy()
    for i in range(k):
        gram[i, i] *= 1.0 + 1e-13  # two equal columns share their coefficient instead of dividing 0 by 0
    best = solve(gram, right)
    bad = ~np.isfinite(best).all(axis=0) | (best[~signed] < 0).any(axis=0)
    if not bad.any():
        return best
    gram, right = gram[:, :, bad], right[:, bad]
    chosen = np.zeros_like(right)
    lowest = np.zeros(right.shape[1])
    limited = np.flatnonzero(~signed)
    for size in range(len(limited) + 1):
        for zeros in combinations(limited, size):
            kept = np.array([i for i in range(k) if i not in zeros], dtype=int)
            if kept.size == 0:
                continue
            part = solve(gram[np.ix_(kept, kept)], right[kept])
            value = -(part * right[kept]).sum(axis=0)
            better = np.isfinite(part).all(axis=0) & (part[~signed[kept]] >= 0).all(axis=0) & (value < lowest)
            if better.any():
                lowest = np.where(better, value, lowest)
                chosen[:, better] = 0.0
                chosen[np.ix_(kept, np.flatnonzero(better))] = part[:, better]
    best[:, bad] = chosen
    return best
