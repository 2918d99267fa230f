"""Re-weighted Levenberg-Marquardt on all parameters, for links whose latent cannot be projected."""

from __future__ import annotations

import numpy as np

from ragscale.fitting.solver._bounded_step import bounded_step
from ragscale.fitting.solver._state import State


def gauss_newton_step(state: State, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
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
    step, predicted = bounded_step(hessian, gradient, p, lower, upper)
    c, u, value = state.attempt(p + step)
    return c, u, value, predicted
