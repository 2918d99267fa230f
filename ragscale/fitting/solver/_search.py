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


def solve_each(problem: Problem, weights: np.ndarray) -> list[Solution]:
    """Return what `solve` would with each row of case weights (F, n), in one batch; empty where nothing is finite.

    A row of weight 0 is not there: so all folds of a cross-validation are one batch.
    """
    if len(problem.table.n) > _MANY:
        return [_by_sample(problem.weighted(weight), None) for weight in weights]
    return _thorough(problem, weights)


def _thorough(problem: Problem, weights: np.ndarray, near: Solution | None = None) -> list[Solution]:
    begun = starts(problem, weights)
    if near is not None:
        begun = [(np.concatenate([near.c, c]), np.concatenate([near.u, u])) for c, u in begun]
    solutions = [distinct(found) for found in _refined(problem, begun, weights)]
    for i, solution in enumerate(solutions):
        if len(solution.value) and _is_rugged(solution):
            solutions[i] = distinct(join(solution, _search_wider(problem, weights[i])))
    return solutions


def _refined(problem: Problem, begun: list[Starts], weights: np.ndarray) -> list[Solution]:
    """Return where the starts of each row of weights end, all in one batch."""
    owner = np.repeat(np.arange(len(weights)), [len(u) for _, u in begun])
    c, u = np.concatenate([c for c, _ in begun]), np.concatenate([u for _, u in begun])
    found = refine(problem, c, u, weights[owner])
    return [found.take(np.flatnonzero(owner == i)) for i in range(len(weights))]


def _is_rugged(solution: Solution) -> bool:
    """Say whether there may be better minima than the grid showed: several nearly as good, or none proven."""
    return not solution.converged[0] or int((solution.value < 1.02 * solution.value[0]).sum()) > 1


def _search_wider(problem: Problem, weight: np.ndarray) -> Solution:
    c, u = scattered_starts(problem, weight)
    return refine(problem, c, u, np.broadcast_to(weight, (len(u), len(weight))))
