"""Fit one law to the rows of a prepared table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError
from ragscale.fitting._conditions import rows_for
from ragscale.fitting._determined import drop_undetermined
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting._table import arrays, check_fittable, row_weights
from ragscale.fitting.laws._law import ScalingLaw, Theta
from ragscale.fitting.solver._make_link import make_link
from ragscale.fitting.solver._objective import LossName, Objective
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._rows import Table
from ragscale.fitting.solver._search import solve
from ragscale.fitting.solver._solution import Solution
from ragscale.fitting.solver.links import Link, Space

_START = 1e-3  # the delta of a first fit, whose residuals say what "auto" is


@dataclass(frozen=True, slots=True)
class Settled:
    """What a fit minimises: every argument resolved against the rows, and found good."""

    table: pd.DataFrame
    law: ScalingLaw
    link: Link
    objective: Objective
    automatic: bool
    space: Space
    weight: np.ndarray
    words: str
    left_out: str
    dropped: tuple[str, ...]

    @property
    def problem(self) -> Problem:
        """The minimisation over these rows."""
        return self.over(arrays(self.table, self.weight, self.law))

    def over(self, rows: Table, law: ScalingLaw | None = None) -> Problem:
        """Return the same minimisation over other rows, or with another law."""
        return Problem(law or self.law, self.link, self.objective, space=self.space, table=rows)


def settle(
    table: pd.DataFrame,
    law: ScalingLaw,
    *,
    link: str | Link = "auto",
    weights: Any = None,
    delta: float | Literal["auto"] = 1e-3,
    loss: LossName = "huber",
    tau: float = 0.5,
    space: Literal["auto", "log", "linear"] = "auto",
) -> Settled:
    """Resolve what is asked for against the rows that the law can read, or say why they cannot determine it."""
    table, kept, left_out = rows_for(table, law)
    if weights is not None and not isinstance(weights, str) and np.shape(weights) == kept.shape:
        weights = np.asarray(weights)[kept]
    link = make_link(law.link if isinstance(link, str) and link == "auto" else link, table)
    if not isinstance(space, str) or space not in {"auto", "log", "linear"}:
        raise ConfigError(f"space = {space!r} must be 'auto', 'log' or 'linear'")
    where = link.space if space == "auto" else space
    law = law._resolve(*(table[name].to_numpy(float) for name in "NDR"))
    law, dropped = drop_undetermined(law, table)
    check_fittable(law, table, link, where)
    weight, words = row_weights(table, link, weights, where)
    automatic = isinstance(delta, str)
    if (automatic and delta != "auto") or not (automatic or isinstance(delta, (int, float, np.integer, np.floating))):
        raise ConfigError(f"delta = {delta!r} must be a number or 'auto'")
    objective = Objective(loss, _START if automatic else float(delta), tau)
    return Settled(table, law, link, objective, automatic, where, weight, words, left_out, dropped)


def fit_table(table: pd.DataFrame, law: ScalingLaw, **options: Any) -> ManifoldFit:
    """Fit one law to the rows of a prepared table that it can read; options as for `settle`."""
    asked = settle(table, law, **options)
    problem = asked.problem
    solution = solve(problem)
    if asked.automatic:
        c, u = solution.c[:1], solution.u[:1]
        r = problem.residual(problem.latent(problem.columns(u, slopes=False), c), u)[0]
        delta = max(1.345 * 1.4826 * float(np.median(np.abs(r))), 1e-9)
        problem = replace(asked, objective=replace(asked.objective, delta=delta)).problem
        solution = solve(problem, solution)
    return _make_fit(asked, problem, solution)


def _make_fit(asked: Settled, problem: Problem, solution: Solution) -> ManifoldFit:
    """Return the fit at the best minimum."""
    size = problem.sizes(solution.u)
    thetas = problem.theta(solution.c, solution.u, size)
    extra = {name: values[:, 0] for name, values in problem.extra(solution.u).items()}
    minima = pd.DataFrame({**thetas, **extra, "objective": solution.value})
    data = asked.table.assign(weight=asked.weight)
    data.attrs = {}
    return ManifoldFit(
        law=problem.law.replace() if problem.law.further_columns else problem.law,
        theta=Theta({name: float(values[0]) for name, values in thetas.items()}),
        link=problem.link.with_values({name: float(values[0]) for name, values in extra.items()}),
        loss=problem.objective,
        space=problem.space,
        objective=float(solution.value[0]),
        data=data,
        minima=minima,
        converged=bool(solution.converged[0]),
        weights=asked.words,
        left_out=asked.left_out,
        dropped=asked.dropped,
    )
