"""Which way is better: the one place that knows."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from ragscale._typing import ResultsLike
from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results._door import as_frame
from ragscale.results._metric_names import RISING, Kind, kind_of
from ragscale.results._table import validate

_COLUMN = "higher_is_better"
_TRUE, _FALSE = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no"}
_FEWEST = 5
_CLEAR = 1e-3
LARGEST_LOSS = 18.0
"""log2 of a vocabulary of 262,144: a loss per token, in bits, of a model that knows nothing."""
_SAY_SO = "say so: the argument higher_is_better=True or False, a column of that name, or a column metric"


def higher_is_better(results: ResultsLike) -> bool:
    """Say whether a higher value of a metric, or of the one metric of a table, is better.

    In this order: the column ``higher_is_better``, which `evaluate` and the importers write; the name in the column
    ``metric``, from a table of the names that evaluation harnesses use; and, with a warning, whether the value rises
    with N and D. A direction is never taken from a trend that noise could be.

    Parameters
    ----------
    results : str, or a results table
        The name of a metric (``"mmlu/acc"``, ``"val_loss"``), or a table of one metric.

    Returns
    -------
    bool

    Raises
    ------
    ResultsError
        When it cannot be told, or the table holds metrics of both kinds.

    Warns
    -----
    ResultsWarning
        When only the values could tell.

    Examples
    --------
    >>> from ragscale import results
    >>> [results.higher_is_better(name) for name in ("acc_norm", "squad_f1", "bits_per_byte", "log_likelihood")]
    [True, True, False, True]
    >>> results.higher_is_better("my_measure")
    Traceback (most recent call last):
    ...
    ragscale.errors.ResultsError: is a higher 'my_measure' better? Its name does not tell; say so: ...
    """
    if (
        isinstance(results, str)
        and not results.lower().endswith((".csv", ".jsonl", ".parquet"))
        and (kind_of(results) or os.sep not in results)
    ):
        return _of_name(results)
    table = as_frame(results)
    told = told_direction(table)
    if told is not None:
        return told
    missing = [c for c in ("N", "D", "value") if c not in table]
    if missing:
        raise ResultsError(f"whether higher is better cannot be told, and {', '.join(missing)} are missing: {_SAY_SO}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)
        table = validate(table if "R" in table else table.assign(R=0.0))
    return _by_rank(table)


def direction(table: pd.DataFrame, given: bool | None = None, *, presumed: bool | None = None) -> bool:
    """Return whether higher is better in a table of one surface, for a fit.

    A table without any name of a metric holds losses, unless its values say otherwise: then they decide with a
    warning, or, where they cannot, it is an error.

    Parameters
    ----------
    table : DataFrame
        Canonical, of one metric.
    given : bool, optional
        What the user says, above everything.
    presumed : bool, optional
        What the link that the user chose says: it counts where nothing else does.
    """
    if given is not None:
        if not isinstance(given, (bool, np.bool_)):
            raise ResultsError(f"higher_is_better = {given!r} must be True, False or None")
        _warn_of_contradiction(table, bool(given), "the argument higher_is_better")
        return bool(given)
    told = told_direction(table)
    if told is not None:
        _warn_of_contradiction(table, told, "the column higher_is_better")
        return told
    trend, values = rank_trend(table), table["value"].to_numpy(float)
    if presumed is not None:
        if trend > 0 and not presumed:
            raise ResultsError(
                "the values rise with N and D, and this link makes a metric that falls: if higher is better use "
                "link='bounded' (or link='auto' with higher_is_better=True); if not, say higher_is_better=False"
            )
        return presumed
    if _names(table):
        return _by_rank(table)
    if trend == 0 and 1 < values.max() <= LARGEST_LOSS and values.min() > 0:
        return False
    return False if trend < 0 and values.min() >= 0 else _by_rank(table)


def told_direction(table: pd.DataFrame) -> bool | None:
    """Return what the column ``higher_is_better`` says, else the names of the metrics, else None."""
    said = _said(table)
    names = _names(table)
    if said is None:
        kinds: dict[str, Kind | None] = {name: kind_of(name) for name in names}
        found = {kind in RISING for kind in kinds.values() if kind is not None}
        if not found or (None in kinds.values() and len(found) == 1 and len(kinds) > 1):
            return None
    else:
        kinds, found = dict.fromkeys(names), said
    if len(found) > 1:
        raise ResultsError(
            "the table holds metrics of which higher is better and others of which lower is"
            + (f" ({', '.join(names[:6])})" if names else "")
            + ": choose one, rs.results.select(results, metric=...)"
        )
    return found.pop()


def _warn_of_contradiction(table: pd.DataFrame, rises: bool, source: str) -> None:
    """Warn where a name that is known says otherwise, and the values do not settle it."""
    against = [name for name in _names(table) if (kind := kind_of(name)) is not None and (kind in RISING) != rises]
    if against and rank_trend(table) != (1 if rises else -1):
        better, other = ("higher", "lower") if rises else ("lower", "higher")
        warnings.warn(
            f"{source} says that {better} is better, and of a metric called {against[0]!r} {other} is: {source} is "
            "believed. Check which is right",
            ResultsWarning,
            stacklevel=4,
        )


def _names(table: pd.DataFrame) -> list[str]:
    if "metric" not in table:
        return []
    cells = pd.Series(table["metric"]).dropna().astype(object).map(str)
    return [name for name in dict.fromkeys(cells.tolist()) if name.strip()]


def _said(table: pd.DataFrame) -> set[bool] | None:
    if _COLUMN not in table:
        return None
    found: set[bool] = set()
    for cell in pd.Series(table[_COLUMN]).dropna().astype(object).map(str).unique():
        word = cell.strip().lower()
        if word not in _TRUE | _FALSE:
            raise ResultsError(f"column 'higher_is_better' holds {cell!r}, expected True or False")
        found.add(word in _TRUE)
    return found or None


def _of_name(name: str) -> bool:
    kind = kind_of(name)
    if kind is None:
        raise ResultsError(f"is a higher {name!r} better? Its name does not tell; {_SAY_SO}")
    return kind in RISING


def _by_rank(table: Any) -> bool:
    names, trend = _names(table), rank_trend(table)
    what = f"a higher {names[0]!r}" if names else "a higher value"
    if trend == 0:
        low, high = float(table["value"].min()), float(table["value"].max())
        raise ResultsError(
            f"is {what} better? Nothing says so, and the values ({low:g} to {high:g}) show no clear trend with N and "
            f"D; {_SAY_SO}"
        )
    warnings.warn(
        f"whether {what} is better was told by rank correlation alone: it {'rises' if trend > 0 else 'falls'} with N "
        f"and D, so {'higher' if trend > 0 else 'lower'} is taken as better; {_SAY_SO}",
        ResultsWarning,
        stacklevel=4,
    )
    return trend > 0


def rank_trend(table: pd.DataFrame) -> int:
    """Return 1 if the value rises with the compute N D over trained models, -1 if it falls, 0 if noise could be it."""
    counts = table[["N", "D"]].to_numpy(float)
    retrieving = table["R"].to_numpy(float) > 0 if "R" in table else np.zeros(len(table), dtype=bool)
    rows = ~retrieving if (~retrieving).sum() >= _FEWEST else np.ones(len(table), dtype=bool)
    frame = pd.DataFrame(
        {"N": counts[rows, 0], "D": counts[rows, 1], "value": table["value"].to_numpy(float)[rows]}
    ).replace([np.inf, -np.inf], np.nan)
    models: Any = frame.dropna().groupby(["N", "D"], as_index=False)["value"].mean()
    compute, value = np.log(models["N"] * models["D"]), models["value"]
    if len(models) < _FEWEST or compute.nunique() < 2 or value.nunique() < 2:
        return 0
    rho = float(compute.rank().corr(value.rank()))
    t = abs(rho) * np.sqrt((len(models) - 2) / max(1.0 - rho**2, 1e-12))
    return int(np.sign(rho)) if 2.0 * stdtr(len(models) - 2, -t) < _CLEAR else 0
