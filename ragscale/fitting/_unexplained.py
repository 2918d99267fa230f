"""Columns that tell rows of one cell apart, and that nobody asked for: a surface has one value at a point."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from ragscale.fitting._experiments import EXPERIMENT, group_rows, hashable
from ragscale.results._table import MEASURED

CELL = ("N", "D", "R", "task", "metric", "condition", "k", "retriever", "store_source", "split", "seed", "run")
_BESIDE = (
    *MEASURED,
    EXPERIMENT,
    "N_total",
    "answer_in_store",
    "chance",
    "higher_is_better",
    "hit_rate",
    "n_cut",
    "n_left_out",
    "n_questions",
    "n_seeds",
    "seen_share",
    "stderr_seeds",
    "validation_loss",
    "weight",
)
"""What is measured or counted along with a value, or follows from its cell, and tells no rows apart."""


def unexplained(table: pd.DataFrame, explained: Collection[str] = ()) -> dict[str, list[Any]]:
    """Return the columns in which rows of one cell differ, each with the values of the first such cell.

    Parameters
    ----------
    table : DataFrame
        Canonical.
    explained : collection of str
        Columns that may differ: those of ``by`` and ``over``, the weights, what the law reads.
    """
    cell = group_rows(table, [name for name in (*CELL, *explained) if name in table])
    others = [c for c in table.columns if c not in (*CELL, *_BESIDE, *explained)]
    repeated = np.bincount(cell)[cell] > 1
    if not others or not repeated.any():
        return {}
    found = {}
    cell = cell[repeated]
    first = np.zeros(int(cell.max()) + 1, dtype=int)
    first[cell[::-1]] = np.arange(len(cell))[::-1]
    for name in others:
        column: Any = pd.Series(table[name])[repeated]
        codes = pd.factorize(hashable(column))[0]
        differs = codes != codes[first[cell]]
        if differs.any():
            mine = column[cell == cell[int(np.argmax(differs))]]
            found[str(name)] = mine[~hashable(mine).duplicated()].tolist()[:4]
    return found


def advice(found: dict[str, list[Any]]) -> str:
    """Say which columns are not explained, and what to do about them."""
    listed = "; ".join(f"{name!r} ({', '.join(map(str, values))})" for name, values in found.items())
    name, values = next(iter(found.items()))
    choice = f"{name}={values[0]!r}" if name.isidentifier() else f"**{{{name!r}: {values[0]!r}}}"
    return (
        f"rows of one cell (N, D, R, task, metric, condition, k, retriever, seed, run) differ in {listed}: choose one, "
        f"rs.results.select(results, {choice}); or name the columns that tell experiments apart, by={name!r}; or drop "
        "them"
    )
