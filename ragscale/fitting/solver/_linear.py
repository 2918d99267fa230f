"""Very many very small linear systems at once: the batch is the last axis, so every operation is one long vector."""

from __future__ import annotations

from itertools import combinations

import numpy as np

_EXCHANGES = 4


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
    """Minimise c'Gc - 2 b'c over c >= 0 exactly.

    Coefficients that come out negative are set to zero, and those that want to rise are let go again, until nothing is
    left to exchange; where that does not come to an end, or a system is singular, all choices are tried.

    Parameters
    ----------
    gram : ndarray (k, k, P)
    right : ndarray (k, P)
    signed : bool ndarray (k,)
        Coefficients that may be negative.

    Returns
    -------
    ndarray (k, P)

    References
    ----------
    Portugal, Judice and Vicente 1994, Mathematics of Computation 63(208) (block pivoting).
    """
    k = len(right)
    gram = gram.copy()
    for i in range(k):
        gram[i, i] *= 1.0 + 1e-13  # two equal columns share their coefficient instead of dividing 0 by 0
    best = solve(gram, right)
    limited = ~signed
    zero = (best < 0) & limited[:, None]
    active = np.flatnonzero(zero.any(axis=0) | ~np.isfinite(best).all(axis=0))
    zero, bits = zero[:, active], 1 << np.arange(k)
    for _ in range(_EXCHANGES):
        if not active.size:
            return best
        code, left = bits @ zero, np.ones(len(active), dtype=bool)
        for value in np.flatnonzero(np.bincount(code)):
            rows = np.flatnonzero(code == value)
            place, kept = active[rows], np.flatnonzero((value & bits) == 0)
            system, goal = gram.take(place, axis=2), right.take(place, axis=1)
            part = np.zeros_like(goal)
            if kept.size:
                part[kept] = solve(system[kept][:, kept], goal[kept])
            wrong = (part < 0) & limited[:, None]
            for i in np.flatnonzero(value & bits):
                wrong[i] = (system[i] * part).sum(axis=0) < goal[i]
            finite = np.isfinite(part).all(axis=0)
            good = finite & ~wrong.any(axis=0)
            best[:, place[good]] = part[:, good]
            left[rows[good]] = False
            zero[:, rows] ^= wrong & finite
        active, zero = active[left], zero[:, left]
    if active.size:
        best[:, active] = _by_trying(gram[:, :, active], right[:, active], signed)
    return best


def _by_trying(gram: np.ndarray, right: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """Return the best coefficients (k, P) over which of them are zero."""
    k = len(right)
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
    return chosen
