"""Everything at a point that steps need: columns, residuals and their slopes."""

from __future__ import annotations

import numpy as np

from ragscale.fitting.solver._columns import Columns
from ragscale.fitting.solver._problem import Problem

_SAFE = 1e-100  # a latent whose slopes and their squares are numbers


class State:
    """Everything at the current point that steps need."""

    def __init__(self, problem: Problem, c: np.ndarray, u: np.ndarray, weight: np.ndarray, value: np.ndarray) -> None:
        self.problem, self.c, self.u, self.weight, self.value = problem, c, u, weight, value
        self.columns = problem.columns(u)
        self.f = _heard(problem.latent(self.columns, c), weight)
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
            return jacobian_of(self.problem, self.columns, self.c, self.u, self.weight)
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


def jacobian_of(problem: Problem, columns: Columns, c: np.ndarray, u: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return dr/d(c, u) at any point, (S, p, n)."""
    k, m = problem.k, problem.m
    f = _heard(problem.latent(columns, c), weight)
    out = np.empty((len(c), k + m + problem.l, f.shape[1]))
    with np.errstate(all="ignore"):
        slope, others = problem.residual_slopes(f, u)
        np.multiply(columns.phi, slope[:, None, :], out=out[:, :k])
        problem.tangents(columns, c, out[:, k : k + m])
        out[:, k : k + m] *= slope[:, None, :]
        for i, other in enumerate(others):
            out[:, k + m + i] = other
    return out


def _heard(f: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the latent with a harmless value in rows of weight 0: beyond the law's range slopes are infinite there."""
    return f if f.size == 0 or f.min() > _SAFE else np.where(weight == 0, 1.0, f)
