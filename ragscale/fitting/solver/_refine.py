"""From starts to stationary points, all of a batch at once: first near, then by Newton's method to the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ragscale.fitting.solver._gauss_newton import gauss_newton_step
from ragscale.fitting.solver._newton import newton_step
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._projection import projection_step
from ragscale.fitting.solver._solution import Solution
from ragscale.fitting.solver._state import State

_BLOCK = 300_000  # doubles in the largest array of a batch: what stays near the processor
Step = Callable[[State, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


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
        if problem.link.invertible and problem.k:
            part.run(projection_step, project, tolerance=1e-5)
        else:
            part.run(gauss_newton_step, 60, tolerance=1e-6)
        part.run(newton_step, 100, tolerance=tolerance, start=1e-6)
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

    def run(self, step: Step, limit: int, tolerance: float, start: float = 1e-3) -> None:
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
            state = State(problem.part(rows), self.c[rows], self.u[rows], self.weight[rows], self.value[rows])
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
