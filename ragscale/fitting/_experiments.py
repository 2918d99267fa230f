"""What is independent in a table: trained models, not rows and not checkpoints of one run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError, ResultsWarning

MODEL = ("N", "D", "seed")
EXPERIMENT = "_experiment"
"""The column of prepared tables that numbers experiments, where ``run`` or ``by`` tells them apart."""

_MANY = 12
_EVENLY_MANY = 8


def clusters(table: pd.DataFrame, by: Sequence[str] = MODEL) -> np.ndarray:
    """Number the experiments of a table, by row.

    Rows of one ``run`` (or of one value of the ``by`` that was given to the fit) are one experiment; where there is
    none, rows that share N, D and seed. Any other ``by`` is taken by its word.

    Raises
    ------
    ConfigError
        When ``by`` names a column that the table does not have.
    """
    names = tuple(by)
    if names == MODEL and EXPERIMENT in table:
        return pd.factorize(table[EXPERIMENT].to_numpy())[0]
    missing = [name for name in names if name not in table]
    if missing and names != MODEL:
        columns = ", ".join(name for name in map(str, table.columns) if name != EXPERIMENT)
        raise ConfigError(
            f"by = {by!r} names {', '.join(map(repr, missing))}, no column of the results; their columns are {columns}"
        )
    names = tuple(name for name in names if name in table)
    if not names:
        return np.arange(len(table))
    return group_rows(table, names)


def group_rows(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Number the rows by the values of some columns, in order of appearance; gaps are a value of their own."""
    key = pd.DataFrame({name: hashable(table[name]) for name in dict.fromkeys(names)})
    return key.groupby(list(key.columns), sort=False, dropna=False).ngroup().to_numpy()


def hashable(column: Any) -> pd.Series:
    """Return a column whose cells can be compared: lists and the like by how they print."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column
    return column.map(lambda cell: cell if isinstance(cell, str) else repr(cell)).astype(object)


def experiments(table: Any, by: Sequence[str]) -> np.ndarray | None:
    """Return which experiment each row belongs to, None where N, D and seed say it.

    A column of which every value has one N names runs: its rows are one experiment each, however many D they have.
    Other columns of ``by`` (a corpus, a learning rate) tell experiments apart in addition to the run, or N, D and seed.
    """
    model = [name for name in MODEL if name in table]
    run = ["run"] if "run" in table and table["run"].notna().all() and not _is_of_rows(table, "run") else []
    if not by:
        return group_rows(table, run) if run else None
    named = group_rows(table, by)
    sizes = table["N"].to_numpy(float)
    one_size = all(np.ptp(sizes[named == group]) == 0 for group in range(named.max() + 1)) if len(named) else False
    return named if one_size and not run else group_rows(table, [*by, *(run or model)])


def _is_of_rows(table: pd.DataFrame, name: str) -> bool:
    """Tell whether a column numbers evaluations, one a store, and not trainings."""
    model = group_rows(table, [c for c in MODEL if c in table])
    cell = group_rows(table, [c for c in (*MODEL, "R") if c in table])
    one_each = int(group_rows(table, [name]).max()) + 1 == len(table)
    return one_each and int(cell.max()) + 1 == len(table) > int(model.max()) + 1


def merged(experiment: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the experiment of each group of rows that were averaged: experiments that share a group become one."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    count, groups = int(experiment.max()) + 1, int(group.max()) + 1
    ones = np.ones(len(group), dtype=bool)
    edges = sparse.coo_matrix((ones, (experiment, count + group)), shape=(count + groups, count + groups))
    return connected_components(edges, directed=False)[1][count:]


def warn_of_checkpoints(table: Any) -> None:
    """Warn where one N has so many D, or such even ones, that they are checkpoints of one run."""
    counts = table[["N", "D"]].drop_duplicates().sort_values(["N", "D"])
    many = counts.groupby("N")["D"].transform("size") >= min(_EVENLY_MANY, _MANY)  # most tables have no such N
    suspects = []
    for n, rows in counts[many].groupby("N"):
        steps = np.diff(rows["D"].to_numpy(float))
        even = len(steps) + 1 >= _EVENLY_MANY and np.ptp(steps) <= 0.02 * steps.mean()
        if len(rows) >= _MANY or even:
            suspects.append((float(n), len(rows)))
    if suspects:
        n, many = max(suspects, key=lambda pair: pair[1])
        warnings.warn(
            f"N = {n:g} has {many} values of D and {_why_unknown(table)}: if these are checkpoints of one run they are "
            "not separate experiments, and intervals are too narrow. Add a column 'run', or name the column that tells "
            f"runs apart, by={_like_a_run(table)!r}",
            ResultsWarning,
            stacklevel=4,
        )


def _why_unknown(table: Any) -> str:
    if "run" not in table:
        return "there is no column 'run'"
    gaps = int(pd.Series(table["run"]).isna().sum())
    return f"the column 'run' has gaps in {gaps} of {len(table)} rows" if gaps else "the column 'run' numbers rows"


def _like_a_run(table: Any) -> str:
    """Return a column that may name runs: each of its values has one N and several D."""
    for name in map(str, table.columns):
        if name in ("N", "D", "R", "value", "seed", EXPERIMENT) or bool(np.any(pd.isna(table[name]))):
            continue
        groups = pd.DataFrame({"run": group_rows(table, [name]), "N": table["N"], "D": table["D"]}).groupby("run")
        most = {count: int(np.max(groups[count].nunique().to_numpy())) for count in ("N", "D")}
        if len(groups) > 1 and most["N"] == 1 < most["D"]:
            return name
    return "..."
