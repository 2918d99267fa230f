"""Fit all that remains of a prepared table when parts of it are left out: many fits of one law as one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import RagscaleError
from ragscale.fitting._conditions import reads_evidence
from ragscale.fitting._determined import drop_undetermined, unseen
from ragscale.fitting._fit_table import Settled, fit_table, settle
from ragscale.fitting._own import peek
from ragscale.fitting._resampling import warm_starts
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting._table import arrays, check_counts
from ragscale.fitting.laws._law import ScalingLaw, Theta
from ragscale.fitting.solver._search import no_objective, solve_each
from ragscale.fitting.solver._solution import Solution
from ragscale.fitting.solver.links import Link, Space

Counts = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class FoldFit:
    """What a fold needs of a fit: the best law, and what its rows cannot show (see `ManifoldFit.unseen`)."""

    law: ScalingLaw
    theta: Theta
    link: Link
    space: Space
    objective: float
    converged: bool
    unseen: Mapping[str, str]

    def predict(self, counts: Counts) -> np.ndarray:
        """Return the metric at rows, the columns that the law reads included; no row is refused."""
        further = {name: counts[name] for name in self.law.further_columns}
        return np.asarray(self.link.metric(self.law.loss(counts["N"], counts["D"], counts["R"], self.theta, **further)))


def fit_without(
    table: pd.DataFrame,
    law: ScalingLaw,
    parts: Sequence[np.ndarray],
    *,
    weights: Any,
    options: Mapping[str, Any],
    whole: ManifoldFit | None = None,
) -> list[FoldFit | RagscaleError]:
    """Fit what remains without each of several parts of a prepared table; what cannot be fitted is its error.

    Fits of the same law are one batch over all rows, with weight 0 where a row is left out.

    Parameters
    ----------
    parts : sequence of ndarray (n,) of bool
        The rows to leave out.
    weights
        As for `fit_manifold`; numbers are (n,).
    whole : ManifoldFit, optional
        The fit to all rows, where it is known: it shows where to start.
    """
    asked = _settled(table, law, weights, options)
    found: dict[int, FoldFit | RagscaleError] = {}
    together: dict[str, dict[int, _Rest]] = {}
    rows = table if asked is None else asked.table
    counts = {name: rows[name].to_numpy(float) for name in ("N", "D", "R", *law.further_columns) if name in rows}
    for i, part in enumerate(parts):
        rest = None
        try:
            if asked is not None:
                rest = _rest(asked, law, counts, ~part)
            if rest is None:  # an objective or rows of its own
                found[i] = _apart(table, law, part, weights, options)
            else:
                together.setdefault(repr(rest.law.to_dict()), {})[i] = rest
        except RagscaleError as error:
            found[i] = error
    for batch in together.values():
        assert asked is not None
        found |= _fit_batch(asked, batch, whole)
    return [found[i] for i in range(len(parts))]


@dataclass(frozen=True, slots=True)
class _Rest:
    law: ScalingLaw
    weight: np.ndarray  # (n,), 0 where a row is left out
    unseen: Mapping[str, str]


def _settled(table: pd.DataFrame, law: ScalingLaw, weights: Any, options: Mapping[str, Any]) -> Settled | None:
    """Return what all parts have in common, None where they have to be looked at one by one."""
    try:
        asked = settle(table, law, weights=weights, **options)
    except RagscaleError:  # without some rows there may be nothing wrong
        return None
    own = asked.automatic or len(asked.table) < len(table) or asked.words.startswith("equal:")
    return None if own else asked


def _rest(asked: Settled, law: ScalingLaw, counts: Counts, kept: np.ndarray) -> _Rest | None:
    """Settle what depends on the rows that remain: what they determine of the law, and their weights."""
    rows = {name: column[kept] for name, column in counts.items()}
    law = law._resolve(rows["N"], rows["D"], rows["R"])
    law, dropped = drop_undetermined(law, rows)
    check_counts(law, asked.link, rows["R"])
    weight = np.where(kept, asked.weight, 0.0)
    if not weight.any() or (reads_evidence(law) and not rows["hit_rate"].any()):
        return None
    if asked.words not in {"equal", "number of seeds"}:
        weight *= kept.sum() / weight.sum()
    lost = {name: text for name, text in unseen(rows, law.variables).items() if name != "R" or "C" in dropped}
    return _Rest(law, weight, lost)


def _apart(table: pd.DataFrame, law: ScalingLaw, part: np.ndarray, weights: Any, options: Mapping[str, Any]) -> FoldFit:
    rest = pd.DataFrame(table[~part]).reset_index(drop=True)
    own = weights if weights is None or isinstance(weights, str) else np.asarray(weights, dtype=float)[~part]
    fit = fit_table(rest, law, weights=own, **options)
    return FoldFit(fit.law, fit.theta, fit.link, fit.space, fit.objective, fit.converged, fit.unseen)


def _fit_batch(
    asked: Settled, batch: Mapping[int, _Rest], whole: ManifoldFit | None
) -> dict[int, FoldFit | RagscaleError]:
    law = next(iter(batch.values())).law
    problem = asked.over(arrays(asked.table, np.ones(len(asked.table)), law), law)
    near = _minima(whole) if whole is not None and repr(whole.law.to_dict()) == repr(law.to_dict()) else None
    weights = np.array([rest.weight for rest in batch.values()])
    found: dict[int, FoldFit | RagscaleError] = {}
    for (i, rest), solution in zip(batch.items(), solve_each(problem, weights, near), strict=True):
        if not len(solution.value):
            found[i] = no_objective(problem.weighted(rest.weight))
            continue
        best = solution.take(np.array([0]))
        theta = problem.theta(best.c, best.u, problem.sizes(best.u))
        extra = {name: float(value[0, 0]) for name, value in problem.extra(best.u).items()}
        found[i] = FoldFit(
            problem.law.replace() if problem.law.further_columns else problem.law,
            Theta({name: float(values[0]) for name, values in theta.items()}),
            problem.link.with_values(extra),
            problem.space,
            float(best.value[0]),
            bool(best.converged[0]),
            rest.unseen,
        )
    return found


def _minima(fit: ManifoldFit) -> Solution:
    """Return the lowest minima of a fit, as the solver knows them."""
    begun = warm_starts(fit)
    c, u = (np.concatenate(some) for some in zip(*begun, strict=True))
    converged = np.full(len(u), True)
    converged[0] = fit.converged
    return Solution(c, u, peek(fit, "minima")["objective"].to_numpy(float)[: len(u)], converged)
