"""Several problems with some parameters in common, minimised as one: variable projection, then Newton's method.

The Hessian has the shape of an arrow: every problem has a block of its own, and a border of the shared parameters.
Shapes: S replicates, p_t parameters of problem t, P parameters in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ragscale.errors import ConfigError
from ragscale.fitting.solver._bounded_step import bounded_step
from ragscale.fitting.solver._newton import newton_system
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._projection import project_at, projection_system
from ragscale.fitting.solver._solution import Solution
from ragscale.fitting.solver._state import State

_PROJECTIONS, _NEWTON = 60, 120
_CHUNK = 64


@dataclass(slots=True)
class JointSolution:
    """Optima of a batch, one `Solution` for each problem; the shared parameters are equal in all."""

    parts: list[Solution]
    value: np.ndarray
    converged: np.ndarray

    def take(self, index: np.ndarray) -> JointSolution:
        """Return some of the batch."""
        return JointSolution([part.take(index) for part in self.parts], self.value[index], self.converged[index])


class JointProblem:
    """Problems with the parameters ``shared`` in common.

    Raises
    ------
    ConfigError
        When a shared parameter is a coefficient, which every problem solves for by itself, or is not free.
    """

    def __init__(self, problems: Sequence[Problem], shared: Sequence[str]) -> None:
        self.problems, self.shared = list(problems), tuple(shared)
        searched = [parameter.name for parameter in problems[0].nonlinear]
        wrong = [name for name in shared if name not in searched]
        if wrong:
            raise ConfigError(
                f"shared = {', '.join(wrong)}: only free parameters that enter non-linearly can be shared, those are "
                f"{', '.join(searched) or 'none'}"
            )
        self.place: list[np.ndarray] = []
        count = len(self.shared)
        for problem in self.problems:
            names = [parameter.name for parameter in problem.nonlinear]
            where = np.empty(problem.k + problem.m + problem.l, dtype=int)
            for i in range(len(where)):
                j = i - problem.k
                if 0 <= j < problem.m and names[j] in self.shared:
                    where[i] = self.shared.index(names[j])
                else:
                    where[i] = count
                    count += 1
            self.place.append(where)
        self.size = count

    def part(self, index: slice) -> JointProblem:
        """Return the problem of some replicates."""
        other = object.__new__(JointProblem)
        other.problems = [problem.part(index) for problem in self.problems]
        other.shared, other.place, other.size = self.shared, self.place, self.size
        return other


@np.errstate(all="ignore")
def refine_jointly(
    joint: JointProblem,
    starts: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: Sequence[np.ndarray],
    *,
    tolerance: float = 1e-12,
) -> JointSolution:
    """Go from starts, (c, u) of each problem with equal shared parameters, to stationary points of the sum.

    Parameters
    ----------
    weights : sequence of ndarray (S, n_t)
        Case weights of each problem's rows, the weight of the problem included.
    """
    count = len(starts[0][1])
    found = []
    for first in range(0, count, _CHUNK):
        rows = slice(first, first + _CHUNK)
        walk = _Walk(joint.part(rows), [(c[rows], u[rows]) for c, u in starts], [w[rows] for w in weights])
        if all(problem.link.invertible and problem.k for problem in joint.problems):
            walk.run(walk.projection_step, _PROJECTIONS, 1e-6, damping=1e-3)
        walk.run(walk.newton_step, _NEWTON, tolerance, damping=1e-6)
        found.append(walk)
    parts = [
        Solution(
            np.concatenate([walk.c[t] for walk in found]),
            np.concatenate([walk.u[t] for walk in found]),
            np.concatenate([walk.values[t] for walk in found]),
            np.concatenate([walk.converged for walk in found]),
        )
        for t in range(len(joint.problems))
    ]
    return JointSolution(
        parts, np.concatenate([walk.value for walk in found]), np.concatenate([walk.converged for walk in found])
    )


class _Walk:
    """A batch on its way down; every replicate has its own damping."""

    def __init__(
        self, joint: JointProblem, starts: Sequence[tuple[np.ndarray, np.ndarray]], weights: Sequence[np.ndarray]
    ) -> None:
        self.joint, self.weights = joint, list(weights)
        self.c = [c.copy() for c, _ in starts]
        self.u = [np.clip(u, p.lower, p.upper) for p, (_, u) in zip(joint.problems, starts, strict=True)]
        self.values = []
        for t, problem in enumerate(joint.problems):
            columns = problem.columns(self.u[t], slopes=False)
            self.c[t] = np.clip(self.c[t], *problem.coefficient_bounds(columns.size))
            residual = problem.residual(problem.latent(columns, self.c[t]), self.u[t])
            self.values.append(problem.value(residual, weights[t]))
        self.value = np.sum(self.values, axis=0)
        self.converged = np.zeros(len(self.value), dtype=bool)

    def run(self, step: _Step, limit: int, tolerance: float, *, damping: float) -> None:
        """Repeat a kind of step until it promises less than ``tolerance`` of the objective."""
        damp = np.full(len(self.value), damping)
        quiet = np.zeros(len(self.value), dtype=int)
        active = np.arange(len(self.value))
        self.converged[:] = False
        for _ in range(limit):
            if not active.size:
                return
            before = self.value[active]
            tried, promised = step(active, damp[active])
            value = np.sum([one[2] for one in tried], axis=0)
            better = value < before
            gained = np.where(better, before - value, 0.0)
            chosen = active[better]
            for t, (c, u, values) in enumerate(tried):
                self.c[t][chosen], self.u[t][chosen], self.values[t][chosen] = c[better], u[better], values[better]
            self.value[chosen] = value[better]
            done = ((promised <= tolerance * before) & (promised > -np.inf)) | (before <= 1e-30)
            self.converged[active] = done
            damp[active] = np.where(better, np.maximum(damp[active] / 8.0, 1e-14), damp[active] * 7.0)
            quiet[active] = np.where(gained <= tolerance * before, quiet[active] + 1, 0)
            stuck = (quiet[active] > 8) | (damp[active] > 1e12)
            active = active[~(done | stuck)]

    def _states(self, rows: np.ndarray) -> list[State]:
        return [
            State(problem.part(rows), self.c[t][rows], self.u[t][rows], self.weights[t][rows], self.values[t][rows])
            for t, problem in enumerate(self.joint.problems)
        ]

    def _assembled(self, states: list[State], blocks: list[tuple[np.ndarray, np.ndarray]]) -> _System:
        """Put the gradients and Hessians of all problems into one, with parameters and bounds."""
        count, size = len(blocks[0][0]), self.joint.size
        system = _System(
            np.zeros((count, size)),
            np.zeros((count, size, size)),
            np.zeros((count, size)),
            np.full((count, size), -np.inf),
            np.full((count, size), np.inf),
        )
        for state, (gradient, hessian), at in zip(states, blocks, self.joint.place, strict=True):
            system.gradient[:, at] += gradient
            system.hessian[:, at[:, None], at] += hessian
            system.p[:, at], low, high = state.limits()
            system.lower[:, at] = np.maximum(system.lower[:, at], low)
            system.upper[:, at] = np.minimum(system.upper[:, at], high)
        return system

    def newton_step(self, rows: np.ndarray, damping: np.ndarray) -> tuple[list[_Tried], np.ndarray]:
        """Move all parameters by the exact Hessian; return what every problem tried, and the gain promised."""
        states = self._states(rows)
        blocks = [newton_system(state) for state in states]
        system = self._assembled(states, [(gradient, hessian) for gradient, hessian, _ in blocks])
        damped = system.hessian.copy()
        index = np.arange(self.joint.size)
        for (_, _, scale), at in zip(blocks, self.joint.place, strict=True):
            damped[:, at, at] += damping[:, None] * scale
        damped[:, index, index] += 1e-300
        step, _ = bounded_step(damped, system.gradient, system.p, system.lower, system.upper)
        downhill = (system.gradient * step).sum(axis=1)
        bend = np.einsum("si,sij,sj->s", step, system.hessian, step)
        tried = [state.attempt((system.p + step)[:, at]) for state, at in zip(states, self.joint.place, strict=True)]
        tried = [(c, u, np.where(downhill < 0, value, np.inf)) for c, u, value in tried]
        promised = -downhill - 0.5 * bend
        certain = ((bend >= 0) & (promised >= 0)) | (np.abs(step).max(axis=1) == 0)
        return tried, np.where(certain, np.abs(promised), np.inf)

    def projection_step(self, rows: np.ndarray, damping: np.ndarray) -> tuple[list[_Tried], np.ndarray]:
        """Move the nonlinear parameters of all problems; every problem solves for its coefficients again."""
        states = self._states(rows)
        systems = [projection_system(state) for state in states]
        blocks = []
        for state, (gradient, hessian, _, _) in zip(states, systems, strict=True):
            index = np.arange(state.problem.k, state.problem.k + state.problem.m)
            hessian[:, index, index] *= 1.0 + damping[:, None]
            blocks.append((gradient, hessian))
        system = self._assembled(states, blocks)
        step, promised = bounded_step(system.hessian, system.gradient, system.p, system.lower, system.upper)
        tried = []
        for state, (_, _, omega, target), at in zip(states, systems, self.joint.place, strict=True):
            u = (system.p + step)[:, at][:, state.problem.k :]
            tried.append(project_at(state, u, omega, target))
        return tried, promised


@dataclass(slots=True)
class _System:
    """Gradient (S, P), Hessian (S, P, P), parameters and their bounds (S, P)."""

    gradient: np.ndarray
    hessian: np.ndarray
    p: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


_Tried = tuple[np.ndarray, np.ndarray, np.ndarray]
_Step = Callable[[np.ndarray, np.ndarray], tuple[list[_Tried], np.ndarray]]
