"""Where to start from: the basins of a grid, or scattered points where a grid would be too coarse."""

from __future__ import annotations

import numpy as np

from ragscale.fitting.solver._grid import LARGEST, Grid
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._projection import project

_BLOCK = 300_000  # doubles in the largest array of a batch: what stays near the processor
Starts = tuple[np.ndarray, np.ndarray]
"""Starts (c, u), shapes (S, k) and (S, m + l)."""


@np.errstate(all="ignore")
def starts(problem: Problem, weights: np.ndarray, known: Starts | None = None, limit: int = 8) -> list[Starts]:
    """Return starts for each row of case weights (F, n), one start per basin found, best first.

    Parameters
    ----------
    known : (c, u), optional
        The best minimum of all rows: it says which of them are outliers, and a coarse grid does to see other basins.
    """
    found: list[list[Starts]] = [[] for _ in weights]
    trust = None if known is None else _trust(problem, *known, weights.max(axis=0))
    for extra in _link_starts(problem):
        target, omega = linearised(problem, extra)
        grid = Grid(problem, extra, coarse=trust is not None) if problem.m <= LARGEST else None
        for basins, weight in zip(found, weights, strict=True):
            if grid is None:
                basins.append(_scatter(problem, extra, limit, weight))
                continue
            if trust is not None:
                basins.append(grid.minima(target, omega * weight * trust, limit))
                continue
            c, u = grid.minima(target, omega * weight, limit)
            basins.append((c, u))
            if problem.k:  # once more with the rows that the best point calls outliers weighed down
                basins.append(grid.minima(target, omega * weight * _trust(problem, c[:1], u[:1], weight), limit))
    return [(np.concatenate([c for c, _ in one]), np.concatenate([u for _, u in one])) for one in found]


def _trust(problem: Problem, c: np.ndarray, u: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return 1 for each row near a law (c, u), less the farther it is."""
    f = problem.latent(problem.columns(u, slopes=False), c)
    size = np.abs(problem.residual(f, u)[0])
    spread = max(np.median(size[weight > 0]), 1e-12)
    return np.minimum(1.0, spread / np.maximum(size, 1e-300))


@np.errstate(all="ignore")
def scattered_starts(problem: Problem, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return starts (c, u) all over the search region: for objectives with many shallow minima."""
    found = [_scatter(problem, extra, 2, weight, count=512, spread=32) for extra in _link_starts(problem)]
    return np.concatenate([c for c, _ in found]), np.concatenate([u for _, u in found])


def _link_starts(problem: Problem) -> list[np.ndarray]:
    """Return values of the link's free parameters to start from."""
    if not problem.l:
        return [np.empty(0)]
    points = []
    low, high = problem.lower[problem.m :], problem.upper[problem.m :]
    for share in (0.15, 0.35, 0.7):
        near = [1.0 - share if p.name == "floor" else share for p in problem.link.parameters]
        points.append(low + (high - low) * np.array(near))
    return points


def linearised(problem: Problem, extra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the latent that each observation asks for, and the weight of a latent residual."""
    link_values = {p.name: np.array([[v]]) for p, v in zip(problem.link.parameters, extra, strict=True)}
    target = problem.link.latent(problem.table.y[None], link_values)
    u = np.concatenate([np.zeros(problem.m), extra])[None]
    slope, _ = problem.residual_slopes(target, u)
    return target[0], slope[0] ** 2


def _scatter(
    problem: Problem, extra: np.ndarray, limit: int, weight: np.ndarray, *, count: int = 4096, spread: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Start from the best of many scattered points, and from the first ``spread`` of them; always the same ones."""
    from scipy.stats import qmc  # a fifth of a second, and few fits need it

    points = qmc.Sobol(problem.m, scramble=False).random(count) if problem.m else np.zeros((1, 0))
    low = np.array([start[0] for start in problem.start[: problem.m]])
    high = np.array([start[1] for start in problem.start[: problem.m]])
    u = np.hstack([low + points * (high - low), np.tile(extra, (len(points), 1))])
    target, omega = linearised(problem, extra)
    values, coefficients = [], []
    size = max(1, _BLOCK // (len(problem.table.n) * max(problem.k, 1)))
    for first in range(0, len(u), size):
        part = u[first : first + size]
        columns = problem.columns(part, slopes=False)
        c = project(problem, columns, np.broadcast_to(omega * weight, (len(part), len(target))), target)
        r = problem.residual(problem.latent(columns, c), part)
        values.append(problem.value(r, weight[None]))
        coefficients.append(c)
    order = np.argsort(np.concatenate(values), kind="stable")[: 4 * limit]
    order = np.unique(np.concatenate([order, np.arange(min(spread, len(u)))]))
    return np.concatenate(coefficients)[order], u[order]
