"""Optima of a batch, and which of them are different ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Solution:
    """Optima of a batch: normalised coefficients, search coordinates, objective, and whether each is stationary."""

    c: np.ndarray
    u: np.ndarray
    value: np.ndarray
    converged: np.ndarray

    def take(self, index: np.ndarray) -> Solution:
        """Return some of the batch."""
        return Solution(self.c[index], self.u[index], self.value[index], self.converged[index])

    def put(self, index: np.ndarray, other: Solution) -> None:
        """Replace some of the batch."""
        self.c[index], self.u[index], self.value[index], self.converged[index] = (
            other.c,
            other.u,
            other.value,
            other.converged,
        )


def join(first: Solution, second: Solution) -> Solution:
    """Return both batches as one."""
    names = ("c", "u", "value", "converged")
    return Solution(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))


def distinct(solution: Solution) -> Solution:
    """Return the different local minima, best first."""
    order = np.argsort(solution.value, kind="stable")
    kept: list[int] = []
    for i in order:
        if not np.isfinite(solution.value[i]):
            continue
        gap = np.abs(solution.value[kept] - solution.value[i])
        same = gap <= 1e-10 * abs(solution.value[i]) + 1e-300
        near = gap <= 1e-7 * abs(solution.value[i]) + 1e-300
        close = np.array([np.allclose(solution.u[j], solution.u[i], rtol=1e-2, atol=1e-2) for j in kept], dtype=bool)
        if not np.any(same | (near & close)):
            kept.append(int(i))
    return solution.take(np.array(kept[:20], dtype=int))
