"""The rows of a study's results that one surface is fitted to."""

from __future__ import annotations

import pandas as pd

from ragscale.errors import FitError


def select(results: pd.DataFrame, *, metric: str, task: str | None = None) -> pd.DataFrame:
    """Return the closed-book and retrieved rows of one metric, of one task or averaged over tasks.

    Raises
    ------
    FitError
        When there is none; the message names what there is.
    """
    rows = results.query("metric == @metric and condition in ['closed-book', 'retrieved']")
    rows = rows if task is None else rows.query("task == @task")
    if rows.empty:
        raise FitError(
            f"no closed-book or retrieved row has metric {metric!r}{'' if task is None else f' and task {task!r}'}; "
            f"there are metrics {sorted(set(results['metric']))} and tasks {sorted(set(results['task']))}"
        )
    if task is None and len(set(rows["task"])) > 1:
        cells = rows.groupby(["N", "D", "R", "seed"], as_index=False).agg(
            value=("value", "mean"), n=("task", "nunique")
        )
        rows = cells.query(f"n == {cells['n'].max()}").drop(columns="n").assign(metric=metric, task="mean")
    return rows.reset_index(drop=True)
