"""From starts to stationary points, all of a batch at once: first near, then by Newton's method to the end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from ragscale.fitting.solver._gauss_newton import gauss_newton_step
from ragscale.fitting.solver._newton import newton_step
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._projection import projection_step
from ragscale.fitting.solver._solution import Solution
from ragscale.fitting.solver._state import State

_BLOCK = 300_000  # doubles in the largest array of a batch: what stays near the processor
_TOGETHER = 2e-5, 1e-3  # of the objective, of the coordinates: starts that have come together
_ROUGHLY = 1e-4, 1e-2  # the same where the minima are known beforehand
_JOINED = (4, 8, 12)  # after so many steps
_NEIGHBOURS = 3  # by objective, that each is compared with
Step = Callable[[State, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


@np.errstate(all="ignore")
def refine(
    problem: Problem,
    c: np.ndarray,
    u: np.ndarray,
    weight: np.ndarray,
    *,
    owner: np.ndarray | None = None,
    within: float = np.inf,
    project: int = 25,
    tolerance: float = 1e-14,
) -> Solution:
    """Go from starts to stationary points of the objective.

    Parameters
    ----------
    c, u : ndarray (S, k), (S, m + l)
    weight : ndarray (S, n), or (F, n) with ``owner``
        Case weights, e.g. how often a bootstrap drew each row.
    owner : int ndarray (S,), optional
        Which row of ``weight`` each start has. Starts of one owner that have come together are one from there on: the
        others are left where they are, with an infinite objective.
    within : float
        With ``owner``, where the minima are among the starts: arrived near one, only starts within this factor of
        their owner's best go on to the end, and coming roughly together is enough.
    project : int
        Largest number of variable-projection steps before Newton's method.
    tolerance : float
        Stop when another Newton step would lower the objective by less than this share of it.
    """
    # glibc keeps free memory up to twice the largest block it has mapped and released, and gives more back to the
    # kernel, to be mapped and cleared again at every step; this block is never touched and costs nothing
    np.empty(3_900_000)
    batch = _Batch(problem, c, u, weight, owner)
    batch.together = _TOGETHER if np.isinf(within) else _ROUGHLY
    if problem.link.invertible and problem.k:
        batch.run(projection_step, project, tolerance=1e-5)
    else:
        batch.run(gauss_newton_step, 60, tolerance=1e-6)
    if owner is not None:
        batch.join()
        batch.drop(within)
    batch.run(newton_step, 100, tolerance=tolerance, start=1e-6)
    return Solution(batch.c, batch.u, batch.value, batch.converged)


class _Batch:
    """A batch on its way down; every replicate has its own damping and leaves when it has arrived."""

    together = _TOGETHER

    def __init__(
        self, problem: Problem, c: np.ndarray, u: np.ndarray, weight: np.ndarray, owner: np.ndarray | None
    ) -> None:
        self.problem, self.weight, self.owner = problem, weight, owner
        self.size = max(1, _BLOCK // (len(problem.table.n) * (problem.k + problem.m + problem.l)))
        self.u = np.clip(u, problem.lower, problem.upper)
        self.c = c.copy()
        self.value = np.empty(len(u))
        self.converged = np.zeros(len(u), dtype=bool)
        self.dropped = np.zeros(len(u), dtype=bool)
        for rows in self._blocks(np.arange(len(u))):
            part = problem.part(rows)
            columns = part.columns(self.u[rows], slopes=False)
            self.c[rows] = np.clip(self.c[rows], *part.coefficient_bounds(columns.size))
            r = part.residual(part.latent(columns, self.c[rows]), self.u[rows])
            self.value[rows] = part.value(r, self._weight(rows))

    def _blocks(self, active: np.ndarray) -> list[Any]:
        """Split what is on its way into blocks of one size; slices, which copy nothing, while that is everything."""
        count = -(-len(active) // self.size)
        edges = np.linspace(0, len(active), count + 1).astype(int)
        parts = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        return parts if len(active) == len(self.u) else [active[part] for part in parts]

    def _weight(self, rows: Any) -> np.ndarray:
        return self.weight[rows if self.owner is None else self.owner[rows]]

    def join(self) -> None:
        """Leave behind what came to where a better one of its owner is."""
        assert self.owner is not None
        near, close = self.together
        alive = np.flatnonzero(~self.dropped)
        order = alive[np.lexsort((self.value[alive], self.owner[alive]))]
        value, u, c, owner = self.value[order], self.u[order], self.c[order], self.owner[order]
        for apart in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            low, high = slice(None, -apart), slice(apart, None)
            together = (owner[high] == owner[low]) & (value[high] - value[low] <= near * np.abs(value[low]))
            together &= (np.abs(u[high] - u[low]) <= close * (1.0 + np.abs(u[low]))).all(axis=1)
            size = np.abs(c[low]).max(axis=1, keepdims=True, initial=0.0)
            together &= (np.abs(c[high] - c[low]) <= close * size).all(axis=1)
            self._leave(order[high][together])

    def drop(self, within: float) -> None:
        """Leave behind what arrived far above the best one of its owner."""
        assert self.owner is not None
        best = np.full(self.owner.max(initial=0) + 1, np.inf)
        np.minimum.at(best, self.owner, self.value)
        self._leave(np.flatnonzero(self.converged & (self.value > within * best[self.owner])))

    def _leave(self, index: np.ndarray) -> None:
        self.dropped[index] = True
        self.value[index] = np.inf

    def run(self, step: Step, limit: int, tolerance: float, start: float = 1e-3) -> None:
        """Repeat a kind of step until the predicted gain is below ``tolerance`` of the objective."""
        damping = np.full(len(self.u), start)
        quiet = np.zeros(len(self.u), dtype=int)
        self.converged[:] = False
        active = np.flatnonzero(~self.dropped)
        for count in range(limit):
            if self.owner is not None and count in _JOINED:
                self.join()
                active = active[~self.dropped[active]]
            if not active.size:
                return
            # what is still on its way fills blocks anew at each step: few that take long do not keep others waiting
            going = [self._step(step, rows, tolerance, damping, quiet) for rows in self._blocks(active)]
            active = active[np.concatenate(going)]

    def _step(self, step: Step, rows: Any, tolerance: float, damping: np.ndarray, quiet: np.ndarray) -> np.ndarray:
        """Take one step with each replicate of a block; return which go on."""
        problem = self.problem
        state = State(problem.part(rows), self.c[rows], self.u[rows], self._weight(rows), self.value[rows])
        c, u, value, predicted = step(state, damping[rows])
        better = value < state.value
        gain = np.where(better, state.value - value, 0.0)
        floor = 1e-30 * len(problem.table.n)
        done = (predicted <= tolerance * state.value) & (predicted > -np.inf) | (state.value <= floor)
        quiet[rows] = np.where(gain <= tolerance * state.value, quiet[rows] + 1, 0)
        damping[rows] = np.where(better, np.maximum(damping[rows] / 8.0, 1e-14), damping[rows] * 7.0)
        chosen = np.arange(len(self.u))[rows][better]  # only now: the state may be a view of what follows
        self.c[chosen], self.u[chosen], self.value[chosen] = c[better], u[better], value[better]
        self.converged[rows] = done
        stuck = (quiet[rows] > 8) | (damping[rows] > 1e12)
        return ~(done | stuck)
