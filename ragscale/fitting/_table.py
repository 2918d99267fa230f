"""From a prepared table to the arrays of a fit: weighted, and checked against the law."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError, FitError
from ragscale.fitting._conditions import reads_evidence
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.solver._make_link import make_link
from ragscale.fitting.solver._rows import Table
from ragscale.fitting.solver.links import Link
from ragscale.results._direction import direction


def row_weights(table: Any, link: Link, weights: Any, space: str) -> tuple[np.ndarray, str]:
    """Return the weight of each row, of mean 1, and in words where it comes from."""
    count = len(table)
    seeds = table["n_seeds"].to_numpy(float) if "n_seeds" in table else np.ones(count)
    value = table["value"].to_numpy(float)
    if weights is None and link.counts_answers and "n_examples" in table and _shares(table, link) is not None:
        known = table["n_examples"].notna()
        if known.all():
            weights = "binomial"
        elif known.any() or not np.any(seeds != 1):
            return seeds, f"equal: n_examples is not known in {int((~known).sum())} of {count} rows"
    if weights is None:
        return seeds, "number of seeds" if np.any(seeds != 1) else "equal"
    if isinstance(weights, str):
        if weights == "binomial":
            share = _shares(table, link)
            if "n_examples" not in table or share is None:
                raise ConfigError("weights='binomial' needs values in [0, 1] (or percent) and a column n_examples")
            n = table["n_examples"].to_numpy(float)
            if not np.all(n > 0):
                raise ConfigError(f"weights='binomial' needs n_examples in every row; {int((~(n > 0)).sum())} lack it")
            p = (n * share + 1.0) / (n + 2.0)  # never 0 or 1
            found, words = n / (p * (1.0 - p)), "binomial, from n_examples"
        elif weights == "stderr":
            if "stderr" not in table:
                raise ConfigError("weights='stderr' needs a column stderr")
            error = table["stderr"].to_numpy(float) / (value if space == "log" else 1.0)
            if not np.all(np.isfinite(error) & (error > 0)):
                raise ConfigError("weights='stderr' needs a finite, positive stderr in every row")
            found, words = 1.0 / error**2, "1 / stderr^2"
        elif weights in table:
            found, words = table[weights].to_numpy(float), f"column {weights!r}"
        else:
            raise ConfigError(f"weights = {weights!r} must be 'stderr', 'binomial', a column, an array or None")
    else:
        try:
            found, words = np.asarray(weights, dtype=float), "given"
        except (TypeError, ValueError) as error:
            raise ConfigError(f"weights are not numeric: {error}") from error
    if found.shape != (count,) or not np.all(np.isfinite(found) & (found >= 0)) or not found.any():
        raise ConfigError(f"weights need {count} finite, non-negative numbers, one per row (after averaging seeds)")
    return found / found.mean(), words


def _shares(table: pd.DataFrame, link: Link) -> np.ndarray | None:
    """Return the values as shares of 1, None where they are neither shares nor percent."""
    value = table["value"].to_numpy(float)
    top = 100.0 if getattr(link, "ceiling", 1.0) == 100.0 else 1.0
    return value / top if value.min() >= 0 and value.max() <= top else None


def arrays(table: pd.DataFrame, weight: np.ndarray, law: ScalingLaw) -> Table:
    """Return the columns as float64 arrays."""
    n, d, r, y = (table[column].to_numpy(np.float64) for column in ("N", "D", "R", "value"))
    return Table(n, d, r, y, weight, further_columns(table, law))


def further_columns(table: pd.DataFrame, law: ScalingLaw) -> dict[str, np.ndarray]:
    """Return the columns that a law reads beyond N, D and R."""
    found = {}
    for name in law.further_columns:
        if name not in table:
            raise ConfigError(f"law {law.name!r} reads the column {name!r}, which the results do not have")
        found[name] = table[name].to_numpy(np.float64)
    return found


def check_fittable(law: ScalingLaw, table: pd.DataFrame, link: Link, space: str) -> None:
    """Say everything that keeps this law from being fitted to this table.

    Raises
    ------
    FitError
        When the table cannot determine the law.
    """
    problems = list(link.problems(table["value"].to_numpy(float)))
    rises = direction(table, presumed=link.rising)
    if law.link == "auto" and rises != link.rising:
        kind = make_link("auto", table).name if rises else "identity"
        problems.append(
            f"{'higher' if rises else 'lower'} is better here, and the law {law.name!r} through link={link.name!r} can "
            f"only {'rise' if link.rising else 'fall'} as models get better: use link={kind!r} (or 'auto'), say "
            f"higher_is_better={not rises} if that is not so, or let a law that models the metric itself have "
            "link = 'identity' in its class"
        )
    if space == "log" and not link.positive and np.any(table["value"].to_numpy(float) <= 0):
        problems.append(
            f"residuals are taken in the logarithm, and the table has values <= 0 (down to {table['value'].min():g}): "
            "use space='linear', or link='bounded' for a score"
        )
    problems += _about_counts(law, link, table["R"].to_numpy(float))
    if problems:
        raise FitError("; ".join(problems))


def check_counts(law: ScalingLaw, link: Link, stores: np.ndarray) -> None:
    """Say what keeps this law from being fitted to so many rows with these stores (n,), whatever their values.

    Raises
    ------
    FitError
        As `check_fittable`.
    """
    problems = _about_counts(law, link, stores)
    if problems:
        raise FitError("; ".join(problems))


def _about_counts(law: ScalingLaw, link: Link, stores: np.ndarray) -> list[str]:
    problems = []
    need = len(law.free) + len(link.parameters)
    if len(stores) < need:
        problems.append(f"{len(stores)} rows cannot determine {need} parameters: add rows, or fix some parameters")
    if "R" in law.variables and not reads_evidence(law) and np.ptp(stores) == 0:
        problems.append(
            f"the law {law.name!r} needs stores of different sizes, and R is {stores[0]:g} in every row: fit "
            "law='chinchilla', or add rows with and without retrieval"
        )
    return problems
