"""From a results table to the arrays of a fit: checked, averaged over seeds, weighted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError, FitError, ResultsError
from ragscale.fitting._conditions import RETRIEVED, conditions, reads_evidence
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.solver._links import Link
from ragscale.fitting.solver._problem import Table
from ragscale.results import average_seeds, validate
from ragscale.results._door import as_frame

_ONE_SURFACE = ("task", "metric", "split")
_ONE_STORE = ("retriever", "k")


def prepare(
    results: Any, *, N: str = "N", D: str = "D", R: str = "R", value: str = "value", seed_average: bool = True
) -> pd.DataFrame:
    """Return the canonical table of one surface, with ``n_seeds`` where seeds were averaged.

    Raises
    ------
    ResultsError
        Listing everything wrong with the table, or that it holds several surfaces.
    """
    frame = as_frame(results)
    missing = [f"{what} = {name!r}" for what, name in (("N", N), ("D", D), ("value", value)) if name not in frame]
    if R != "R" and R not in frame:
        missing.append(f"R = {R!r}")
    if missing:
        shown = ", ".join(map(str, frame.columns)) or "no columns"
        raise ResultsError(f"columns not in the results table: {', '.join(missing)}; it has {shown}")
    for target, source in (("N", N), ("D", D), ("R", R), ("value", value)):
        if source != target:
            frame[target] = frame[source]
    if "R" not in frame:
        frame["R"] = 0.0
    table = validate(frame)
    problems = [
        f"column {column!r} holds {len(_kinds(table, column))} values ({_some(table, column)}), a surface has one"
        for column in _ONE_SURFACE
        if len(_kinds(table, column)) > 1
    ]
    stores = pd.DataFrame(table[(table["R"] > 0) & (conditions(table) == RETRIEVED)])
    problems += [
        f"column {column!r} holds {len(_kinds(stores, column))} values where R > 0 ({_some(stores, column)})"
        for column in _ONE_STORE
        if len(_kinds(stores, column)) > 1
    ]
    if problems:
        raise ResultsError(
            "; ".join(problems) + ". Choose rows first, e.g. fit_manifold(results[results['task'] == 'sciq'])"
        )
    if seed_average and len(_kinds(table, "seed")) > 1:
        table = average_seeds(table)
    return table


def _kinds(table: pd.DataFrame, column: str) -> list[Any]:
    """Return the different values of a column, none where it does not exist."""
    return pd.Series(table[column]).unique().tolist() if column in table else []


def _some(table: pd.DataFrame, column: str) -> str:
    kinds = [str(kind) for kind in _kinds(table, column)]
    return ", ".join(kinds[:4]) + (", ..." if len(kinds) > 4 else "")


def row_weights(table: pd.DataFrame, link: Link, weights: Any, space: str) -> tuple[np.ndarray, str]:
    """Return the weight of each row, of mean 1, and in words where it comes from."""
    count = len(table)
    seeds = table["n_seeds"].to_numpy(float) if "n_seeds" in table else np.ones(count)
    value = table["value"].to_numpy(float)
    if weights is None and link.name == "bounded" and "n_examples" in table and _is_share(value):
        weights = "binomial"
    if weights is None:
        return seeds, "number of seeds" if np.any(seeds != 1) else "equal"
    if isinstance(weights, str):
        if weights == "binomial":
            if "n_examples" not in table or not _is_share(value):
                raise ConfigError("weights='binomial' needs values in [0, 1] and a column n_examples")
            n = table["n_examples"].to_numpy(float)
            p = (n * value + 1.0) / (n + 2.0)  # never 0 or 1
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


def _is_share(value: np.ndarray) -> bool:
    return bool(value.min() >= 0 and value.max() <= 1)


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
    if space == "log" and link.name != "log" and np.any(table["value"].to_numpy(float) <= 0):
        problems.append(
            f"residuals are taken in the logarithm, and the table has values <= 0 (down to {table['value'].min():g}): "
            "use space='linear', or link='bounded' for a score"
        )
    need = len(law.free) + len(link.parameters)
    if len(table) < need:
        problems.append(f"{len(table)} rows cannot determine {need} parameters: add rows, or fix some parameters")
    if "R" in law.variables and not reads_evidence(law) and np.ptp(table["R"].to_numpy(float)) == 0:
        only = table["R"].iloc[0]
        problems.append(
            f"the law {law.name!r} needs stores of different sizes, and R is {only:g} in every row: fit "
            "law='chinchilla', or add rows with and without retrieval"
        )
    if problems:
        raise FitError("; ".join(problems))


def clusters(table: pd.DataFrame, by: Sequence[str] = ("N", "D", "seed")) -> np.ndarray:
    """Number the trained models: rows that share ``by`` (and ``run``, where there is one) are one cluster."""
    names = [name for name in by if name in table]
    if not names:
        return np.arange(len(table))
    return table.groupby(names, sort=False, dropna=False).ngroup().to_numpy()
