"""The solver: a grid with exact linear solves for every basin, variable projection, Newton steps to the optimum.

1. `starts`: on a grid of the nonlinear parameters the coefficients have a closed-form optimum (least squares with
   non-negativity, by enumeration). Local minima on the grid are the basins.
2. `refine`, far from the optimum: Levenberg-Marquardt on the variable-projection residual, with secant weights
   ``w = psi(log f/y) / (f (f - y))``, whose fixed point is stationary for the *robust* objective itself, not for an
   approximation.
3. `refine`, near it: damped Newton steps on all parameters with the exact Hessian. Re-weighted least squares alone
   crawls when delta is small (the objective is nearly an L1 norm); Newton's method does not.

All replicates run in one batch. References: Golub and Pereyra 1973, SIAM J. Numer. Anal. 10(2); Kaufman 1975, BIT 15.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ragscale.fitting.solver._linear import nonnegative, solve
from ragscale.fitting.solver._problem import Columns, Problem, Slope

_GRID = {1: 60, 2: 24, 3: 14, 4: 8, 5: 5}
_BLOCK = 300_000  # doubles in the largest array of a batch: what stays near the processor


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


# Starts --------------------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def starts(problem: Problem, weight: np.ndarray, limit: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return starts (c, u), one per basin found, best first; ``weight`` is (n,)."""
    found_c, found_u = [], []
    for extra in _link_starts(problem):
        target, omega = _linearised(problem, extra)
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
            omega = _linearised(problem, extra)[1] * weight * np.minimum(1.0, spread / np.maximum(np.abs(r), 1e-300))
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


def _linearised(problem: Problem, extra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    target, omega = _linearised(problem, extra)
    values, coefficients = [], []
    size = max(1, _BLOCK // (len(problem.table.n) * max(problem.k, 1)))
    for first in range(0, len(u), size):
        part = u[first : first + size]
        columns = problem.columns(part, slopes=False)
        c = _project(problem, columns, np.broadcast_to(omega * weight, (len(part), len(target))), target)
        r = problem.residual(problem.latent(columns, c), part)
        values.append(problem.value(r, weight[None]))
        coefficients.append(c)
    order = np.argsort(np.concatenate(values), kind="stable")[: 4 * limit]
    order = np.unique(np.concatenate([order, np.arange(min(spread, len(u)))]))
    return u[order], np.concatenate(coefficients)[order]


def _project(problem: Problem, columns: Columns, omega: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the best coefficients (S, k) for weighted least squares."""
    if not problem.k:
        return np.zeros((len(omega), 0))
    goal = target if columns.rest is None else target - columns.rest
    weighted = columns.phi * omega[:, None, :]
    gram = np.matmul(weighted, columns.phi.transpose(0, 2, 1)).transpose(1, 2, 0)
    right = np.einsum("skn,sn->ks", weighted, np.broadcast_to(goal, omega.shape))
    return nonnegative(gram, right, problem.signed).T


# Refinement ----------------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def refine(
    problem: Problem, c: np.ndarray, u: np.ndarray, weight: np.ndarray, *, project: int = 25, tolerance: float = 1e-14
) -> Solution:
    """Go from starts to stationary points of the objective.

    Parameters
    ----------
    c, u : ndarray (S, k), (S, m + l)
    weight : ndarray (S, n)
        Case weights, e.g. how often a bootstrap drew each row.
    project : int
        Largest number of variable-projection steps before Newton's method.
    tolerance : float
        Stop when another Newton step would lower the objective by less than this share of it.
    """
    size = max(1, _BLOCK // (len(problem.table.n) * (problem.k + problem.m + problem.l)))
    # glibc keeps free memory up to twice the largest block it has mapped and released, and gives more back to the
    # kernel, to be mapped and cleared again at every step; this block is never touched and costs nothing
    np.empty(3_900_000)
    parts = []
    for first in range(0, len(u), size):
        rows = slice(first, first + size)
        part = _Batch(problem.part(rows), c[rows].copy(), u[rows].copy(), weight[rows])
        if problem.link.name in {"identity", "log"} and problem.k:
            part.run(_projection_step, project, tolerance=1e-5)
        else:
            part.run(_gauss_newton_step, 60, tolerance=1e-6)
        part.run(_newton_step, 100, tolerance=tolerance, start=1e-6)
        parts.append(part)
    return Solution(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("c", "u", "value", "converged")))


class _Batch:
    """A batch on its way down; every replicate has its own damping and leaves when it has arrived."""

    def __init__(self, problem: Problem, c: np.ndarray, u: np.ndarray, weight: np.ndarray) -> None:
        self.problem, self.c, self.u, self.weight = problem, c, u, weight
        self.u = np.clip(u, problem.lower, problem.upper)
        self.converged = np.zeros(len(u), dtype=bool)
        columns = problem.columns(self.u, slopes=False)
        low, high = problem.coefficient_bounds(columns.size)
        self.c = np.clip(c, low, high)
        self.value = problem.value(problem.residual(problem.latent(columns, self.c), self.u), weight)

    def run(self, step: _Step, limit: int, tolerance: float, start: float = 1e-3) -> None:
        """Repeat a kind of step until the predicted gain is below ``tolerance`` of the objective."""
        problem = self.problem
        damping = np.full(len(self.u), start)
        active = np.arange(len(self.u))
        self.converged[:] = False
        quiet = np.zeros(len(self.u), dtype=int)
        floor = 1e-30 * len(problem.table.n)
        for _ in range(limit):
            if not active.size:
                return
            rows = slice(None) if active.size == len(self.u) else active  # no copies while all are on their way
            state = _State(problem.part(rows), self.c[rows], self.u[rows], self.weight[rows], self.value[rows])
            c, u, value, predicted = step(state, damping[active])
            better = value < state.value
            gain = np.where(better, state.value - value, 0.0)
            done = (predicted <= tolerance * state.value) & (predicted > -np.inf) | (state.value <= floor)
            quiet[active] = np.where(gain <= tolerance * state.value, quiet[active] + 1, 0)
            chosen = active[better]  # only now: the state may be a view of what follows
            self.c[chosen], self.u[chosen], self.value[chosen] = c[better], u[better], value[better]
            damping[active] = np.where(better, np.maximum(damping[active] / 8.0, 1e-14), damping[active] * 7.0)
            stuck = (quiet[active] > 8) | (damping[active] > 1e12)
            self.converged[active] = done
            active = active[~(done | stuck)]


class _State:
    """Everything at the current point that steps need."""

    def __init__(self, problem: Problem, c: np.ndarray, u: np.ndarray, weight: np.ndarray, value: np.ndarray) -> None:
        self.problem, self.c, self.u, self.weight, self.value = problem, c, u, weight, value
        self.columns = problem.columns(u)
        self.f = problem.latent(self.columns, c)
        self.r = problem.residual(self.f, u)

    def tangents(self) -> np.ndarray:
        """Return df/d(c, nonlinear parameters), (S, k + m, n)."""
        k = self.problem.k
        out = np.empty((len(self.c), k + self.problem.m, self.f.shape[1]))
        out[:, :k] = self.columns.phi
        self.problem.tangents(self.columns, self.c, out[:, k:])
        return out

    def jacobian(self) -> np.ndarray:
        """Return dr/d(c, u), (S, p, n)."""
        if self.problem.l:
            return _jacobian(self.problem, self.columns, self.c, self.u)
        out = self.tangents()
        out *= self.problem.residual_slopes(self.f, self.u)[0][:, None, :]
        return out

    def limits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the parameters (S, p) and their bounds."""
        low, high = self.problem.coefficient_bounds(self.columns.size)
        S = len(self.c)
        lower = np.hstack(
            [np.broadcast_to(low, self.c.shape), np.broadcast_to(self.problem.lower, (S, self.u.shape[1]))]
        )
        upper = np.hstack(
            [np.broadcast_to(high, self.c.shape), np.broadcast_to(self.problem.upper, (S, self.u.shape[1]))]
        )
        return np.hstack([self.c, self.u]), lower, upper

    def attempt(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return c, u and the objective at parameters p."""
        k = self.problem.k
        c, u = p[:, :k].copy(), p[:, k:].copy()
        columns = self.problem.columns(u, slopes=False)
        if self.problem.limited:  # the bounds of normalised coefficients move with the columns
            c = np.clip(c, *self.problem.coefficient_bounds(columns.size))
        f = self.problem.latent(columns, c)
        with np.errstate(all="ignore"):
            return c, u, self.problem.value(self.problem.residual(f, u), self.weight)


def _jacobian(problem: Problem, columns: Columns, c: np.ndarray, u: np.ndarray) -> np.ndarray:
    k, m = problem.k, problem.m
    f = problem.latent(columns, c)
    out = np.empty((len(c), k + m + problem.l, f.shape[1]))
    with np.errstate(all="ignore"):
        slope, others = problem.residual_slopes(f, u)
        np.multiply(columns.phi, slope[:, None, :], out=out[:, :k])
        problem.tangents(columns, c, out[:, k : k + m])
        out[:, k : k + m] *= slope[:, None, :]
        for i, other in enumerate(others):
            out[:, k + m + i] = other
    return out


def _bounded_step(
    hessian: np.ndarray, gradient: np.ndarray, p: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solve H s = -g with p + s inside the bounds; return s and the gain that the quadratic model predicts, (S, p)."""
    slack = 1e-12 * (1.0 + np.abs(p))
    held = ((p <= lower + slack) & (gradient > 0)) | ((p >= upper - slack) & (gradient < 0))
    fixed = np.zeros_like(p)
    for _ in range(3):
        free = ~held
        matrix = hessian * (free[:, :, None] & free[:, None, :])
        index = np.arange(p.shape[1])
        matrix[:, index, index] += held
        right = np.where(held, fixed, -gradient - np.einsum("sij,sj->si", hessian, np.where(held, fixed, 0.0)))
        step = solve(matrix.transpose(1, 2, 0), right.T).T
        step = np.where(np.isfinite(step), step, 0.0)
        beyond = free & ((p + step < lower) | (p + step > upper))
        if not beyond.any():
            break
        fixed = np.where(beyond, np.clip(p + step, lower, upper) - p, fixed)
        held = held | beyond
    step = np.clip(p + step, lower, upper) - p
    predicted = -(gradient * step).sum(axis=1) - 0.5 * np.einsum("si,sij,sj->s", step, hessian, step)
    return step, predicted


def newton_system(state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gradient (S, p), exact Hessian (S, p, p) by differences of the exact gradient, and its scale (S, p)."""
    problem = state.problem
    jacobian = state.jacobian()
    irls = problem.objective.weight(state.r) * state.weight
    psi = irls * state.r
    gradient = np.matmul(jacobian, psi[:, :, None])[:, :, 0]
    curvature = problem.objective.curvature(state.r) * state.weight
    bending = _residual_bending(state)
    if bending is None:
        hessian = np.matmul(jacobian * curvature[:, None, :], jacobian.transpose(0, 2, 1))
        hessian += _second_order(state, psi, gradient)
    else:
        hessian = np.matmul(jacobian * (curvature + psi * bending)[:, None, :], jacobian.transpose(0, 2, 1))
        hessian += _model_bending(state, psi)
    scale = np.matmul(jacobian * jacobian, irls[:, :, None])[:, :, 0]
    return gradient, hessian, scale


def _newton_step(state: _State, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take a damped Newton step on all parameters."""
    gradient, hessian, scale = newton_system(state)
    index = np.arange(scale.shape[1])
    damped = hessian.copy()
    damped[:, index, index] += damping[:, None] * scale + 1e-300
    p, lower, upper = state.limits()
    step, _ = _bounded_step(damped, gradient, p, lower, upper)
    downhill = (gradient * step).sum(axis=1)
    bend = np.einsum("si,sij,sj->s", step, hessian, step)
    predicted = -downhill - 0.5 * bend
    c, u, value = state.attempt(p + step)
    value = np.where(downhill < 0, value, np.inf)
    # near a saddle the model promises nothing; only a real minimum may end the search
    at_minimum = (bend >= 0) & (predicted >= 0)
    still = np.abs(step).max(axis=1) == 0
    return c, u, value, np.where(at_minimum | still, np.abs(predicted), np.inf)


def _residual_bending(state: _State) -> np.ndarray | float | None:
    """Return d2r/df2 / (dr/df)^2 where it is simple, None where the link needs the general way."""
    problem = state.problem
    if problem.l or problem.link.name not in {"identity", "log"}:
        return None
    if problem.link.name == "identity":
        return -1.0 if problem.space == "log" else 0.0
    return 0.0 if problem.space == "log" else np.exp(-np.minimum(state.f, 700.0))


def _model_bending(state: _State, psi: np.ndarray) -> np.ndarray:
    """Return sum of psi dr/df d2f, (S, p, p): coefficients enter linearly, so only nonlinear parameters are moved."""
    problem, k, m = state.problem, state.problem.k, state.problem.m
    v = problem.gathered(psi * problem.residual_slopes(state.f, state.u)[0])
    sums = {i: v(i) for i in {slope.column for slope in state.columns.slopes}}
    out = np.zeros((len(psi), k + m, k + m))

    def slope_sums(slopes: list[Slope]) -> tuple[np.ndarray, list[tuple[int, int, np.ndarray]]]:
        total, parts = np.zeros((len(psi), m)), []
        for i, j, slope in slopes:
            part = np.einsum("sn,sn->s", slope, sums[i])
            parts.append((i, j, part))
            total[:, j] += part if i < 0 else state.c[:, i] * part
        return total, parts

    base, parts = slope_sums(state.columns.slopes)
    for i, j, part in parts:
        if i >= 0:
            out[:, i, k + j] = out[:, k + j, i] = part
    step = 1e-6 * np.maximum(np.abs(state.u[:, :m]), 1e-2)
    if len({i for i, _, _ in parts}) == len(parts):  # no column has two parameters: all can move at once
        moved = state.u.copy()
        moved[:, :m] += step
        index = np.arange(k, k + m)
        out[:, index, index] = (slope_sums(problem.distinct_columns(moved).slopes)[0] - base) / step
        return out
    for j in range(m):
        moved = state.u.copy()
        moved[:, j] += step[:, j]
        out[:, k + j, k:] += (slope_sums(problem.distinct_columns(moved).slopes)[0] - base) / step[:, j : j + 1]
    lower = out[:, k:, k:]
    out[:, k:, k:] = 0.5 * (lower + lower.transpose(0, 2, 1))
    return out


def _second_order(state: _State, psi: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return sum of psi * d2r, (S, p, p), by moving each parameter with psi frozen."""
    problem, k = state.problem, state.problem.k
    p = np.hstack([state.c, state.u])
    out = np.empty((len(p), p.shape[1], p.shape[1]))
    for i in range(p.shape[1]):
        step = 1e-6 * np.maximum(np.abs(p[:, i]), 1e-2)
        moved = p.copy()
        moved[:, i] += step
        c, u = moved[:, :k], moved[:, k:]
        columns = problem.columns(u) if k <= i < k + problem.m else state.columns
        other = np.matmul(_jacobian(problem, columns, c, u), psi[:, :, None])[:, :, 0]
        out[:, i] = (other - gradient) / step[:, None]
    return 0.5 * (out + out.transpose(0, 2, 1))


def _gauss_newton_step(state: _State, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take a Levenberg-Marquardt step on all parameters, re-weighted."""
    problem = state.problem
    jacobian = state.jacobian()
    irls = problem.objective.weight(state.r) * state.weight
    gradient = np.matmul(jacobian, (irls * state.r)[:, :, None])[:, :, 0]
    hessian = np.matmul(jacobian * irls[:, None, :], jacobian.transpose(0, 2, 1))
    index = np.arange(hessian.shape[1])
    hessian[:, index, index] *= 1.0 + damping[:, None]
    hessian[:, index, index] += 1e-300
    p, lower, upper = state.limits()
    step, predicted = _bounded_step(hessian, gradient, p, lower, upper)
    c, u, value = state.attempt(p + step)
    return c, u, value, predicted


def projection_system(state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return gradient (S, p), Gauss-Newton Hessian (S, p, p) in the latent, weights (S, n) and target (n,)."""
    problem = state.problem
    target = problem.table.y if problem.link.name == "identity" else np.log(problem.table.y)
    omega = _secant(state, target)
    omega *= problem.objective.weight(state.r)
    omega *= state.weight
    tangents = state.tangents()
    gradient = np.matmul(tangents, (omega * (state.f - target))[:, :, None])[:, :, 0]
    hessian = np.matmul(tangents * omega[:, None, :], tangents.transpose(0, 2, 1))
    every = np.arange(gradient.shape[1])
    hessian[:, every, every] *= 1.0 + 1e-13
    hessian[:, every, every] += 1e-300
    return gradient, hessian, omega, target


def project_at(
    state: _State, u: np.ndarray, omega: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve for the coefficients at search coordinates u; return c, u and the objective."""
    problem = state.problem
    columns = problem.columns(u, slopes=False)
    c = _project(problem, columns, omega, target)
    low, high = problem.coefficient_bounds(columns.size)
    c = np.clip(c, low, high)
    with np.errstate(all="ignore"):
        return c, u, problem.value(problem.residual(problem.latent(columns, c), u), state.weight)


def _projection_step(state: _State, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take a variable-projection step: the nonlinear parameters move, the coefficients are solved for again."""
    k = state.problem.k
    gradient, hessian, omega, target = projection_system(state)
    index = np.arange(k, k + state.problem.m)
    hessian[:, index, index] *= 1.0 + damping[:, None]
    p, lower, upper = state.limits()
    step, predicted = _bounded_step(hessian, gradient, p, lower, upper)
    c, u, value = project_at(state, (p + step)[:, k:], omega, target)
    return c, u, value, predicted


def _secant(state: _State, target: np.ndarray) -> np.ndarray:
    """Return r dr/df / (f - target), which turns the residual into a linear one with the same gradient."""
    problem, r = state.problem, state.r
    if problem.space == "log" and problem.link.name == "identity":
        f = np.maximum(state.f, 1e-300)
        excess = f / problem.table.y
        excess -= 1.0
        small = np.abs(excess) <= 1e-6
        excess[small] = 1.0
        secant = r / excess
        secant[small] = 1.0 - 0.5 * r[small]
        f *= problem.table.y
        secant /= f
        return secant
    if problem.space == "linear" and problem.link.name == "log":
        metric = np.exp(np.minimum(state.f, 700))
        apart = state.f - target
        return np.where(np.abs(apart) > 1e-8, r / np.where(apart == 0, 1.0, apart), metric) * metric
    return np.ones_like(state.f)


def join(first: Solution, second: Solution) -> Solution:
    """Return both batches as one."""
    names = ("c", "u", "value", "converged")
    return Solution(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))


_Step = Callable[[_State, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


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
