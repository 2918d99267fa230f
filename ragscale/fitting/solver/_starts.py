"""Where to start from: a grid with exact linear solves, whose local minima are the basins.

On a grid of the nonlinear parameters the coefficients have a closed-form optimum (least squares with non-negativity, by
enumeration). With more than five nonlinear parameters a grid is too coarse, and scattered points take its place.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ragscale.fitting.solver._columns import Columns
from ragscale.fitting.solver._linear import nonnegative
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._projection import project

_GRID = {1: 60, 2: 24, 3: 14, 4: 8, 5: 5}
_BLOCK = 300_000  # doubles in the largest array of a batch: what stays near the processor


@np.errstate(all="ignore")
def starts(problem: Problem, weight: np.ndarray, limit: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return starts (c, u), one per basin found, best first; ``weight`` is (n,)."""
    found_c, found_u = [], []
    for extra in _link_starts(problem):
        target, omega = linearised(problem, extra)
        omega = omega * weight
        for _ in range(2):
            u, c = (
                _grid(problem, extra, target, omega, limit)
                if problem.m <= 5
                else _scatter(problem, extra, limit, weight)
            )
            found_u.append(u)
            found_c.append(c)
            if problem.m > 5 or not problem.k:
                break
            # once more with the rows that the best point calls outliers weighed down
            f = problem.latent(problem.columns(u[:1], slopes=False), c[:1])
            r = problem.residual(f, u[:1])[0]
            spread = max(np.median(np.abs(r)), 1e-12)
            omega = linearised(problem, extra)[1] * weight * np.minimum(1.0, spread / np.maximum(np.abs(r), 1e-300))
    return np.concatenate(found_c), np.concatenate(found_u)


@np.errstate(all="ignore")
def scattered_starts(problem: Problem, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return starts (c, u) all over the search region: for objectives with many shallow minima."""
    found = [_scatter(problem, extra, 2, weight, count=512, spread=32) for extra in _link_starts(problem)]
    return np.concatenate([c for _, c in found]), np.concatenate([u for u, _ in found])


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


def _axes(problem: Problem) -> list[np.ndarray]:
    axes = []
    for j in range(problem.m):
        low, high = problem.start[j]
        size = _GRID[problem.m]
        if low == high:
            axes.append(np.array([low]))
        elif low > 0 and high / low > 20 and not problem.nonlinear[j].log:
            axes.append(np.geomspace(max(low, 0.02 * min(1.0, high)), high, size))
        else:
            axes.append(np.linspace(low, high, size))
    return axes


def _grid(
    problem: Problem, extra: np.ndarray, target: np.ndarray, omega: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Solve for the coefficients at every grid point; return the local minima.

    A column that depends on few parameters is evaluated on their grid only; the normal equations of the whole grid are
    put together from products of such parts.
    """
    axes = _axes(problem)
    shape = tuple(len(axis) for axis in axes)
    parts, places = _parts(problem, axes, extra)
    count = len(parts)
    total = int(np.prod(shape, dtype=int))
    flat = [place.reshape(-1) for place in places]
    gram = np.empty((count, count, total))
    right = np.empty((count, total))
    for i, part in enumerate(parts):
        weighted = part * omega
        right[i] = (weighted @ target)[flat[i]]
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = (weighted @ parts[j].T)[flat[i], flat[j]]
    offset = 0.0
    if count > problem.k:  # the last part has coefficient 1
        right, offset = right[:-1] - gram[:-1, -1], gram[-1, -1] - 2.0 * right[-1]
        gram = gram[:-1, :-1]
    bad = ~np.isfinite(gram).all(axis=(0, 1)) | ~np.isfinite(right).all(axis=0)
    gram[:, :, bad], right[:, bad] = 0.0, 0.0
    if problem.k:
        c = nonnegative(gram, right, problem.signed)
        lack = np.einsum("kp,klp,lp->p", c, gram, c) - 2.0 * (c * right).sum(axis=0)
    else:
        c, lack = np.zeros((0, total)), np.zeros(total)
    lack = np.where(bad, np.inf, lack + offset).reshape(shape)
    chosen = _local_minima(lack, limit)
    u = np.array([[axis[i] for axis, i in zip(axes, np.unravel_index(p, shape), strict=True)] for p in chosen])
    u = u.reshape(len(chosen), problem.m)
    return np.hstack([u, np.tile(extra, (len(chosen), 1))]), c[:, chosen].T.copy()


def _local_minima(lack: np.ndarray, limit: int) -> np.ndarray:
    """Return flat indices of the strict local minima on the grid, and of the best point, best first."""
    if lack.ndim == 0:
        return np.array([0])
    around = ndimage.minimum_filter(lack, size=3, mode="nearest")
    found = np.flatnonzero((lack <= around).reshape(-1) & np.isfinite(lack).reshape(-1))
    found = np.union1d(found, [np.argmin(lack)])
    return found[np.argsort(lack.reshape(-1)[found], kind="stable")][:limit]


def _parts(problem: Problem, axes: list[np.ndarray], extra: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return each column on the grid of the parameters that it depends on, and where each grid point finds it."""
    middle = np.array([[axis[len(axis) // 2] for axis in axes]]).reshape(1, problem.m)
    depends = _dependence(problem, middle, axes)
    shape = tuple(len(axis) for axis in axes)
    everywhere = np.indices(shape) if axes else np.zeros((0,), dtype=int)
    parts, places = [], []
    cache: dict[tuple[int, ...], Columns] = {}
    for needs in depends:
        if needs not in cache:
            mesh = np.meshgrid(*(axes[j] for j in needs), indexing="ij")
            points = np.repeat(middle, int(np.prod([len(axes[j]) for j in needs], dtype=int)), axis=0)
            for j, values in zip(needs, mesh, strict=True):
                points[:, j] = values.reshape(-1)
            cache[needs] = problem.columns(np.hstack([points, np.tile(extra, (len(points), 1))]), slopes=False)
        columns = cache[needs]
        i = len(parts)
        part = columns.phi[:, i] if i < problem.k else columns.rest
        assert part is not None
        parts.append(part)
        if needs:
            index = np.ravel_multi_index([everywhere[j] for j in needs], [shape[j] for j in needs])
        else:
            index = np.zeros(shape, dtype=int)
        places.append(np.asarray(index))
    return parts, places


def _dependence(problem: Problem, middle: np.ndarray, axes: list[np.ndarray]) -> list[tuple[int, ...]]:
    """Find on which nonlinear parameters each column depends, by moving one at a time."""
    tail = np.zeros((1, problem.l))
    base = problem.columns(np.hstack([middle, tail]), slopes=False)
    count = problem.k + (base.rest is not None)
    needs: list[list[int]] = [[] for _ in range(count)]
    for j, axis in enumerate(axes):
        moved = middle.copy()
        moved[0, j] = axis[len(axis) // 3] if len(axis) > 2 else axis[0]
        other = problem.columns(np.hstack([moved, tail]), slopes=False)
        for i in range(problem.k):
            if not np.array_equal(base.phi[0, i], other.phi[0, i], equal_nan=True):
                needs[i].append(j)
        if base.rest is not None and other.rest is not None and not np.array_equal(base.rest, other.rest):
            needs[-1].append(j)
    return [tuple(item) for item in needs]


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
    return u[order], np.concatenate(coefficients)[order]
