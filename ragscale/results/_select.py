"""The rows of one surface, out of a table of many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ragscale._typing import ResultsLike
from ragscale.errors import ResultsError
from ragscale.results._door import as_frame
from ragscale.results._table import validate

_CLOSED, _RETRIEVED = "closed-book", "retrieved"
_OF_STORE = ("retriever", "k", "store_source")
_ANY = 1_000_000_007.0


def select(
    results: ResultsLike,
    *,
    metric: str | None = None,
    task: str | None = None,
    conditions: Sequence[str] | None = (_CLOSED, _RETRIEVED),
    **where: object,
) -> pd.DataFrame:
    """Return the rows of one metric and task, of the conditions that a law in (N, D, R) describes.

    Parameters
    ----------
    results : DataFrame, or anything that `validate` accepts
    metric : str, optional
        Which metric; may be left out where the table has one.
    task : str, optional
        Which task. Without it the mean over the tasks of a cell (N, D, R, seed, condition, ...), from the cells that
        have every task, with the mean of their hit rates; with one task in the table, that one.
    conditions : sequence of str, optional
        Values of the column ``condition`` to keep, where there is one; None keeps all. Rows without a condition stay.
    **where
        Further columns and the value (or list of values) to keep: ``n_shot=5, filter="strict-match"``. Rows with R = 0
        that have no ``retriever``, ``k`` or ``store_source`` (``"none"``, 0, a gap) stay: they belong to each.

    Returns
    -------
    DataFrame
        Canonical, see `validate`, with a fresh index; without N and D where a table of one model's stores has none.

    Raises
    ------
    ResultsError
        When no row is left, naming what there is, or no column of that name exists.

    Examples
    --------
    >>> from ragscale import results
    >>> rows = {"N": [1e9] * 4, "D": [2e10] * 4, "R": [0, 1e9] * 2, "value": [0.4, 0.5, 2.3, 2.2]}
    >>> table = results.validate(rows | {"metric": ["acc", "acc", "nll", "nll"]})
    >>> results.select(table, metric="acc")["value"].tolist()
    [0.4, 0.5]
    """
    frame = as_frame(results)
    of_one_model = "R" in frame and pd.Series(frame["R"]).nunique() > 1
    absent = [name for name in ("N", "D") if of_one_model and name not in frame]  # a sweep of stores need not give them
    table = validate(frame.assign(**dict.fromkeys(absent, _ANY)))
    if conditions is not None and isinstance(conditions, str):
        conditions = (conditions,)
    wanted: dict[str, Any] = {"metric": metric, "task": task, **where}
    if "condition" in table:
        wanted["condition"] = conditions
    unknown = [name for name, value in wanted.items() if value is not None and name not in table]
    if unknown:
        raise ResultsError(
            f"select: no column {', '.join(map(repr, unknown))}; the table has {', '.join(map(str, table.columns))}"
        )
    keep = np.ones(len(table), dtype=bool)
    for name, value in wanted.items():
        if value is None:
            continue
        allowed = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [value]
        matches = table[name].astype(object).isin(allowed).to_numpy(dtype=bool)  # Arrow refuses values of another type
        if name == "condition":
            matches = matches | table[name].isna().to_numpy()
        elif name in _OF_STORE:
            matches = matches | _without_store(table, name)
        keep &= matches
    rows: Any = pd.DataFrame(table[keep]).reset_index(drop=True)
    if rows.empty:
        raise ResultsError(_nothing(table, wanted))
    metrics = rows["metric"].dropna().unique() if "metric" in rows else []
    if len(metrics) > 1:
        raise ResultsError(f"select: the table has {len(metrics)} metrics ({_some(metrics)}): choose one, metric=...")
    if task is None and "task" in rows and rows["task"].nunique() > 1:
        rows = _mean_over_tasks(rows)
    return rows.drop(columns=absent)


def _without_store(table: pd.DataFrame, name: str) -> np.ndarray:
    """Return where no store is read and the column says so."""
    column = table[name]
    says_none = column.isna().to_numpy() | column.astype(object).isin([0, "none", ""]).to_numpy(dtype=bool)
    return says_none & (table["R"] == 0).to_numpy(dtype=bool)


def _mean_over_tasks(rows: Any) -> pd.DataFrame:
    """Average tasks within cells; a cell that lacks a task would be another mean, so it is left out."""
    keys = [
        c
        for c in (
            "N",
            "D",
            "R",
            "seed",
            "run",
            "condition",
            "k",
            "retriever",
            "store_source",
            "seen_share",
            "metric",
            "split",
        )
        if c in rows
    ]
    means = {name: (name, _mean_of_all) for name in ("hit_rate",) if name in rows}
    apart = (*keys, *means, "value", "task")
    constant = [c for c in rows.columns if c not in apart and rows[c].nunique(dropna=False) == 1]
    groups = rows.groupby([*keys, *constant], as_index=False, dropna=False, sort=False)
    cells = groups.agg(value=("value", "mean"), tasks=("task", "nunique"), **means)
    whole = cells[cells["tasks"] == rows["task"].nunique()]
    if whole.empty:
        raise ResultsError(f"select: no cell has all {rows['task'].nunique()} tasks ({_some(rows['task'].unique())})")
    averaged = whole.drop(columns="tasks").assign(task="mean").reset_index(drop=True)
    return pd.DataFrame(averaged)


def _mean_of_all(values: pd.Series) -> float:
    """Return a mean that is unknown where one of the values is."""
    return float(values.astype(float).mean(skipna=False))


def _nothing(table: pd.DataFrame, wanted: dict[str, Any]) -> str:
    asked = [name for name, value in wanted.items() if value is not None]
    there = "; ".join(f"{name}: {_some(table[name].unique())}" for name in asked)
    said = ", ".join(f"{name}={wanted[name]!r}" for name in asked)
    return f"select: no row has {said}; the table has {there}"


def _some(values: Any) -> str:
    names = [str(value) for value in values]
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
