r"""Replicates of a fit to very many models by one Newton step each, where that is as good as a refit.

.. math:: \theta^* = \hat\theta - \Big(H + \sum_c (w_c - 1) h_c\Big)^{-1} \sum_c (w_c - 1)\, s_c

with the scores s_c and Hessians h_c of experiments, how often each was drawn w_c, and the smoothed Hessian H of all.
The Hessian is the resample's own: with that of all rows one far model that is drawn often is missed.

References
----------
Kline and Santos 2012, J. Econometric Methods 1(1) (the score bootstrap); Andrews 2002, Econometrica 70(1) (that few
steps are as good as all, to higher order).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragscale.fitting._diagnostics import sandwich
from ragscale.fitting._own import peek
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting.solver._linear import solve
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._solution import Solution

MANY_MODELS = 1_000
"""Experiments from which a step is tried."""
CHECKED = 40
"""Replicates that are refitted all the same, to see whether steps are as good."""

_SPREAD = 0.1  # by how much spreads may differ
_APART = 0.3  # of a spread: how far a step may be from its refit, in the root mean square
_ROWS = 64  # at which predictions are compared


@dataclass(frozen=True, slots=True)
class OneStep:
    """What steps need: scores (C, p), Hessians (C, p (p + 1) / 2) and losses (C,) of experiments; the whole Hessian."""

    fit: ManifoldFit
    scores: np.ndarray
    hessians: np.ndarray
    losses: np.ndarray
    whole: np.ndarray

    def replicates(self, draws: np.ndarray) -> Solution:
        """Return one step for each row of weights of experiments (S, C).

        The objective is that of the quadratic model; it is infinite where a step leaves the bounds, or there is none.
        """
        problem = self.fit.problem
        c, u = problem.position(self.fit.theta)
        change = (draws - 1.0) @ self.scores
        i, j = np.tril_indices(len(self.whole))
        hessian = np.repeat(self.whole[None], len(draws), axis=0)
        more = (draws - 1.0) @ self.hessians
        hessian[:, i, j] += more
        hessian[:, j, i] = hessian[:, i, j]
        step = -solve(hessian.transpose(1, 2, 0), change.T).T
        moved = np.hstack([c, u]) + step
        low, high = problem.coefficient_bounds(problem.sizes(u))
        low, high = np.append(low, problem.lower), np.append(high, problem.upper)
        value = draws @ self.losses + 0.5 * np.einsum("si,si->s", change, step)
        inside = np.isfinite(step).all(axis=1) & ((moved > low) & (moved < high)).all(axis=1) & (value > 0)
        k = problem.k
        return Solution(moved[:, :k].copy(), moved[:, k:].copy(), np.where(inside, value, np.inf), inside)


def one_step(fit: ManifoldFit, group: np.ndarray) -> OneStep | None:
    """Return what steps need; None where a parameter is at a bound or left open: nothing is smooth around it."""
    local = sandwich(fit)
    problem = fit.problem
    if local.held.any() or local.open.any() or problem.limited or not np.isfinite(local.inverse).all():
        return None
    slopes = local.jacobian
    r = fit.residuals
    weight = peek(fit, "data")["weight"].to_numpy(float)
    psi = problem.objective.weight(r) * weight * r
    pairs = zip(*np.tril_indices(len(slopes)), strict=True)
    return OneStep(
        fit,
        np.stack([np.bincount(group, slope * psi) for slope in slopes], axis=1),
        np.stack([np.bincount(group, slopes[i] * slopes[j] * local.row_weight) for i, j in pairs], axis=1),
        np.bincount(group, problem.objective.rho(r) * weight),
        np.linalg.inv(local.inverse),
    )


def disagreement(fit: ManifoldFit, steps: Solution, refits: Solution) -> float:
    """Return by how much steps spread other than refits of the same resamples do, infinite where single ones differ.

    Parameters and predictions at rows of all sizes are compared; .05 says that no spread differs by more than 5 %.
    """
    if not np.isfinite(steps.value).all():
        return float("inf")
    one, full = (_compared(fit, solution) for solution in (steps, refits))
    spread = full.std(axis=0, ddof=1)
    moves = spread > 1e-9 * np.maximum(np.abs(full).max(axis=0), 1e-9)
    if not moves.any():
        return 0.0
    apart = np.sqrt(np.mean((one - full)[:, moves] ** 2, axis=0)) / spread[moves]
    ratio = np.abs(one[:, moves].std(axis=0, ddof=1) / spread[moves] - 1.0)
    return float(ratio.max()) if np.all(apart <= _APART) else float("inf")


def agrees(difference: float) -> bool:
    """Say whether steps can stand for refits."""
    return difference <= _SPREAD


def _compared(fit: ManifoldFit, solution: Solution) -> np.ndarray:
    """Return parameters and predictions of replicates, (S, q)."""
    whole = fit.problem
    table = whole.table
    order = np.argsort(np.log(table.n) + np.log(table.d), kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, _ROWS).astype(int))]
    some = Problem(fit.law, fit.link, fit.loss, space=fit.space, table=table.take(rows), typical=whole.typical)
    latent = some.latent(some.columns(solution.u, slopes=False), solution.c)
    return np.hstack([solution.c, solution.u, latent])
