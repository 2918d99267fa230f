"""Variable projection: the nonlinear parameters move, the coefficients are solved for again.

Levenberg-Marquardt on the variable-projection residual, with secant weights ``w = psi(log f/y) / (f (f - y))``, whose
fixed point is stationary for the *robust* objective itself, not for an approximation.

References: Golub and Pereyra 1973, SIAM J. Numer. Anal. 10(2); Kaufman 1975, BIT 15.
"""

from __future__ import annotations

import numpy as np

from ragscale.fitting.solver._bounded_step import bounded_step
from ragscale.fitting.solver._columns import Columns
from ragscale.fitting.solver._linear import nonnegative
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._state import State


def projection_step(state: State, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take a variable-projection step: the nonlinear parameters move, the coefficients are solved for again."""
    k = state.problem.k
    gradient, hessian, omega, target = projection_system(state)
    index = np.arange(k, k + state.problem.m)
    hessian[:, index, index] *= 1.0 + damping[:, None]
    p, lower, upper = state.limits()
    step, predicted = bounded_step(hessian, gradient, p, lower, upper)
    c, u, value = project_at(state, (p + step)[:, k:], omega, target)
    return c, u, value, predicted


def projection_system(state: State) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return gradient (S, p), Gauss-Newton Hessian (S, p, p) in the latent, weights (S, n) and target (n,)."""
    problem = state.problem
    values = problem.table.y
    target = problem.link.latent(values)
    omega = problem.link.secant(state.f, state.r, values, problem.space)
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
    state: State, u: np.ndarray, omega: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve for the coefficients at search coordinates u; return c, u and the objective."""
    problem = state.problem
    columns = problem.columns(u, slopes=False)
    c = project(problem, columns, omega, target)
    low, high = problem.coefficient_bounds(columns.size)
    c = np.clip(c, low, high)
    with np.errstate(all="ignore"):
        return c, u, problem.value(problem.residual(problem.latent(columns, c), u), state.weight)


def project(problem: Problem, columns: Columns, omega: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the best coefficients (S, k) for weighted least squares."""
    if not problem.k:
        return np.zeros((len(omega), 0))
    goal = target if columns.rest is None else target - columns.rest
    weighted = columns.phi * omega[:, None, :]
    gram = np.matmul(weighted, columns.phi.transpose(0, 2, 1)).transpose(1, 2, 0)
    right = np.einsum("skn,sn->ks", weighted, np.broadcast_to(goal, omega.shape))
    return nonnegative(gram, right, problem.signed).T
