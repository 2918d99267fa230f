"""The basins of a problem: local minima on a grid of its nonlinear parameters.

At every grid point the coefficients have a closed-form optimum: least squares with non-negativity, by enumeration.
"""

from __future__ import annotations

import numpy as np

from ragscale.fitting.solver._columns import Columns
from ragscale.fitting.solver._linear import nonnegative
from ragscale.fitting.solver._problem import Problem

_SIZE = {1: 60, 2: 24, 3: 14, 4: 8, 5: 5}
_COARSE = {1: 30, 2: 12, 3: 8, 4: 6, 5: 5}
LARGEST = max(_SIZE)
"""The most nonlinear parameters for which a grid is fine enough."""


class Grid:
    """A law on a grid of its nonlinear parameters, with the coefficients solved for at every point.

    A column that depends on few parameters is evaluated on their grid only; the normal equations of the whole grid are
    put together from products of such parts. Nothing here depends on weights: one grid serves all. A coarse one is for
    those who know most basins and look for others.
    """

    def __init__(self, problem: Problem, extra: np.ndarray, *, coarse: bool = False) -> None:
        self.problem, self.extra = problem, extra
        self.axes = _axes(problem, (_COARSE if coarse else _SIZE)[problem.m] if problem.m else 0)
        self.shape = tuple(len(axis) for axis in self.axes)
        self.parts, places = _parts(problem, self.axes, extra)
        self.places = [place.reshape(-1) for place in places]

    def minima(self, target: np.ndarray, omega: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (c, u) at the local minima of the weighted least squares, best first.

        Parameters
        ----------
        target, omega : ndarray (n,)
            The latent that each row asks for, and the weight of its residual.
        """
        problem, parts, flat = self.problem, self.parts, self.places
        count, total = len(parts), int(np.prod(self.shape, dtype=int))
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
        lack = np.where(bad, np.inf, lack + offset).reshape(self.shape)
        chosen = _local_minima(lack, limit)
        index = np.unravel_index(chosen, self.shape) if self.shape else ()
        u = np.array([axis[i] for axis, i in zip(self.axes, index, strict=True)]).T.reshape(len(chosen), problem.m)
        return c[:, chosen].T.copy(), np.hstack([u, np.tile(self.extra, (len(chosen), 1))])


def _axes(problem: Problem, size: int) -> list[np.ndarray]:
    axes = []
    for j in range(problem.m):
        low, high = problem.start[j]
        if low == high:
            axes.append(np.array([low]))
        elif low > 0 and high / low > 20 and not problem.nonlinear[j].log:
            axes.append(np.geomspace(max(low, 0.02 * min(1.0, high)), high, size))
        else:
            axes.append(np.linspace(low, high, size))
    return axes


def _local_minima(lack: np.ndarray, limit: int) -> np.ndarray:
    """Return flat indices of the strict local minima on the grid, and of the best point, best first."""
    if lack.ndim == 0:
        return np.array([0])
    around = lack.copy()
    for axis in range(lack.ndim):
        line = np.moveaxis(
            around, axis, 0
        )  # a view: the lowest of each point and its two neighbours is written in place
        above, below = line[1:].copy(), line[:-1].copy()
        np.minimum(line[:-1], above, out=line[:-1])
        np.minimum(line[1:], below, out=line[1:])
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
