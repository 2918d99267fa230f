"""From a problem to every local minimum: basins from a grid, optima by Newton steps; of very many rows by a sample."""

from __future__ import annotations

import numpy as np

from ragscale.errors import FitError
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._refine import refine
from ragscale.fitting.solver._solution import Solution, distinct, join
from ragscale.fitting.solver._starts import Starts, scattered_starts, starts

_MANY = 10_000  # rows from which the search goes by a sample
_SAMPLE = 2_000
_SEVERAL = 3  # sets of weights from which the minima of all rows show where to start
_WITHIN = 1.1  # of the best, near the end of the way: what is not the best minimum
_NEARLY = 1.3  # minima on the sample that may be the best of all rows


def solve(problem: Problem, near: Solution | None = None) -> Solution:
    """Return every distinct local minimum, best first; ``near`` adds starts.

    Raises
    ------
    FitError
        When no start leads to a finite objective.
    """
    solution = (
        _by_sample(problem, near)
        if len(problem.table.n) > _MANY
        else _thorough(problem, problem.table.weight[None], near)[0]
    )
    if not len(solution.value):
        raise no_objective(problem)
    return solution


def no_objective(problem: Problem) -> FitError:
    """Return the error of a problem that no start has a finite objective for."""
    rows = f"{len(problem.table.y)} rows, values {problem.table.y.min():g} to {problem.table.y.max():g}"
    return FitError(f"the law {problem.law.name!r} has no finite objective on this table ({rows}): try another law")


def _by_sample(problem: Problem, near: Solution | None) -> Solution:
    """Search on few of very many rows, and go from what is found there to the optimum of all rows.

    Where several minima are nearly as good, other rows might prefer another one: a second sample is searched too.
    """
    weight = problem.table.weight
    found = None
    for draw in range(2):
        rows = np.sort(np.random.default_rng(draw).choice(len(weight), _SAMPLE, replace=False))
        part = Problem(
            problem.law,
            problem.link,
            problem.objective,
            space=problem.space,
            table=problem.table.take(rows),
            typical=problem.typical,
        )
        few = _thorough(part, part.table.weight[None], near)[0]
        few = few.take(np.flatnonzero(few.value <= _NEARLY * few.value[:1])[:8])
        whole = refine(problem, few.c, few.u, np.broadcast_to(weight, (len(few.u), len(weight))))
        found = distinct(whole if found is None else join(found, whole))
        if len(found.value) and not _is_rugged(found):
            break
    assert found is not None
    return found


def solve_each(problem: Problem, weights: np.ndarray, near: Solution | None = None) -> list[Solution]:
    """Return the minima with each row of case weights (F, n), best first, in one batch; empty where nothing is finite.

    A row of weight 0 is not there: so all folds of a cross-validation are one batch. Each has the best minimum that
    `solve` finds; of the others only those that come near it. ``near`` are the minima of all rows together, where they
    are known: starts are these, and what a coarse grid of each part shows beside them, unless some objective is rugged.
    """
    if len(problem.table.n) > _MANY:
        return [_by_sample(problem.weighted(weight), None) for weight in weights]
    if near is None and len(weights) >= _SEVERAL:
        near = _thorough(problem, weights.max(axis=0)[None])[0]
    if near is None or not len(near.value) or _is_rugged(near):
        return _thorough(problem, weights, near)
    near = near.take(np.flatnonzero(near.value <= _NEARLY * near.value[0]))
    begun = _joined(near, starts(problem, weights, (near.c[:1], near.u[:1])))
    solutions = [solution for solution, _ in _refined(problem, begun, weights, within=_WITHIN)]
    for i, solution in enumerate(solutions):
        if not len(solution.value) or _is_rugged(solution):
            solutions[i] = _thorough(problem, weights[i : i + 1], near)[0]
    return solutions


def _thorough(problem: Problem, weights: np.ndarray, near: Solution | None = None) -> list[Solution]:
    """Start from the basins of a fine grid; where an objective is rugged go on with all, and scattered ones."""
    found = _refined(problem, _joined(near, starts(problem, weights)), weights)
    solutions = [solution for solution, _ in found]
    for i, (solution, left) in enumerate(found):
        if len(solution.value) and _is_rugged(solution):
            c, u = _joined(left, [scattered_starts(problem, weights[i])])[0]
            more = refine(problem, c, u, np.broadcast_to(weights[i], (len(u), weights.shape[1])))
            solutions[i] = distinct(join(solution, more))
    return solutions


def _joined(near: Solution | Starts | None, begun: list[Starts]) -> list[Starts]:
    """Put known minima or other starts before all starts."""
    if near is None:
        return begun
    first = (near.c, near.u) if isinstance(near, Solution) else near
    return [(np.concatenate([first[0], c]), np.concatenate([first[1], u])) for c, u in begun]


def _refined(
    problem: Problem, begun: list[Starts], weights: np.ndarray, within: float = np.inf
) -> list[tuple[Solution, Starts]]:
    """Return the minima that the starts of each row of weights end in, and where starts stood that were left behind."""
    owner = np.repeat(np.arange(len(weights)), [len(u) for _, u in begun])
    c, u = np.concatenate([c for c, _ in begun]), np.concatenate([u for _, u in begun])
    found = refine(problem, c, u, weights, owner=owner, within=within)
    parts = [found.take(np.flatnonzero(owner == i)) for i in range(len(weights))]
    return [(distinct(part), (part.c[part.value == np.inf], part.u[part.value == np.inf])) for part in parts]


def _is_rugged(solution: Solution) -> bool:
    """Say whether there may be better minima than the grid showed: several nearly as good, or none proven."""
    return not solution.converged[0] or int((solution.value < 1.02 * solution.value[0]).sum()) > 1
