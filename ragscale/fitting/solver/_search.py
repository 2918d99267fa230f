"""From a problem to every local minimum: basins from a grid, optima by Newton steps; of very many rows by a sample."""

from __future__ import annotations

import numpy as np

from ragscale.errors import FitError
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._refine import refine
from ragscale.fitting.solver._solution import Solution, distinct, join
from ragscale.fitting.solver._starts import scattered_starts, starts

_MANY = 10_000  # rows from which the search goes by a sample
_SAMPLE = 2_000
_SURVIVORS = 8  # starts that Newton's method polishes where a law has no coefficients
_NEARLY = 1.3  # minima on the sample that may be the best of all rows


def solve(problem: Problem, near: Solution | None = None) -> Solution:
    """Return every distinct local minimum, best first; ``near`` adds starts.

    Raises
    ------
    FitError
        When no start leads to a finite objective.
    """
    solution = _by_sample(problem, near) if len(problem.table.n) > _MANY else _thorough(problem, near)
    if not len(solution.value):
        rows = f"{len(problem.table.y)} rows, values {problem.table.y.min():g} to {problem.table.y.max():g}"
        raise FitError(f"the law {problem.law.name!r} has no finite objective on this table ({rows}): try another law")
    return solution


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
        few = _thorough(part, near)
        few = few.take(np.flatnonzero(few.value <= _NEARLY * few.value[:1])[:8])
        whole = refine(problem, few.c, few.u, np.broadcast_to(weight, (len(few.u), len(weight))))
        found = distinct(whole if found is None else join(found, whole))
        if len(found.value) and not _is_rugged(found):
            break
    assert found is not None
    return found


def _thorough(problem: Problem, near: Solution | None) -> Solution:
    weight = problem.table.weight
    c, u = starts(problem, weight)
    if near is not None:
        c, u = np.concatenate([near.c, c]), np.concatenate([near.u, u])
    solution = distinct(refine(problem, c, u, np.broadcast_to(weight, (len(u), len(weight))), survivors=_SURVIVORS))
    if len(solution.value) and _is_rugged(solution):
        solution = distinct(join(solution, _search_wider(problem, weight)))
    return solution


def _is_rugged(solution: Solution) -> bool:
    """Say whether there may be better minima than the grid showed: several nearly as good, or none proven."""
    return not solution.converged[0] or int((solution.value < 1.02 * solution.value[0]).sum()) > 1


def _search_wider(problem: Problem, weight: np.ndarray) -> Solution:
    c, u = scattered_starts(problem, weight)
    return refine(problem, c, u, np.broadcast_to(weight, (len(u), len(weight))), survivors=_SURVIVORS)
