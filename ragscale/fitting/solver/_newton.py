"""Newton's method on all parameters with the exact Hessian, for the last part of the way.

Re-weighted least squares alone crawls when delta is small (the objective is nearly an L1 norm); Newton's method does
not.
"""

from __future__ import annotations

import numpy as np

from ragscale.fitting.solver._bounded_step import bounded_step
from ragscale.fitting.solver._columns import Slope
from ragscale.fitting.solver._state import State, jacobian_of


def newton_step(state: State, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take a damped Newton step on all parameters."""
    gradient, hessian, scale = newton_system(state)
    index = np.arange(scale.shape[1])
    damped = hessian.copy()
    damped[:, index, index] += damping[:, None] * scale + 1e-300
    p, lower, upper = state.limits()
    step, _ = bounded_step(damped, gradient, p, lower, upper)
    downhill = (gradient * step).sum(axis=1)
    bend = np.einsum("si,sij,sj->s", step, hessian, step)
    predicted = -downhill - 0.5 * bend
    c, u, value = state.attempt(p + step)
    value = np.where(downhill < 0, value, np.inf)
    # near a saddle the model promises nothing; only a real minimum may end the search
    at_minimum = (bend >= 0) & (predicted >= 0)
    still = np.abs(step).max(axis=1) == 0
    return c, u, value, np.where(at_minimum | still, np.abs(predicted), np.inf)


def newton_system(state: State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gradient (S, p), exact Hessian (S, p, p) by differences of the exact gradient, and its scale (S, p)."""
    problem = state.problem
    jacobian = state.jacobian()
    irls = problem.objective.weight(state.r) * state.weight
    psi = irls * state.r
    gradient = np.matmul(jacobian, psi[:, :, None])[:, :, 0]
    curvature = problem.objective.curvature(state.r) * state.weight
    bending = None if problem.l else problem.link.bending(state.f, problem.space)
    if bending is None:
        hessian = np.matmul(jacobian * curvature[:, None, :], jacobian.transpose(0, 2, 1))
        hessian += second_order(state, psi, gradient)
    else:
        hessian = np.matmul(jacobian * (curvature + psi * bending)[:, None, :], jacobian.transpose(0, 2, 1))
        hessian += _model_bending(state, psi)
    scale = np.matmul(jacobian * jacobian, irls[:, :, None])[:, :, 0]
    return gradient, hessian, scale


def _model_bending(state: State, psi: np.ndarray) -> np.ndarray:
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


def second_order(state: State, psi: np.ndarray, gradient: np.ndarray) -> np.ndarray:
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
        other = np.matmul(jacobian_of(problem, columns, c, u, state.weight), psi[:, :, None])[:, :, 0]
        out[:, i] = (other - gradient) / step[:, None]
    return 0.5 * (out + out.transpose(0, 2, 1))
