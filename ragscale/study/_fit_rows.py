"""The rows that a study's surface is fitted to: with what gold and random passages show, where a law can read it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ragscale.results import select


def rows_to_fit(results: pd.DataFrame, *, metric: str, task: str | None, law: Any) -> pd.DataFrame:
    """Return the rows of one surface, of one task or averaged over tasks.

    For ``law="auto"`` they keep gold and random passages where every hit rate is known: only these rows say what a hit
    and a miss are worth, so without them the law of reading is not among the laws that can be chosen. Rows of a gold
    passage that only part of the questions have are means over other questions, and stay out.

    Raises
    ------
    ResultsError
        When there is none; the message names what there is.
    """
    plain = select(results, metric=metric, task=task)
    if law != "auto" or not {"hit_rate", "condition", "n_examples"} <= set(results):
        return plain
    closed: Any = results[results["condition"] == "closed-book"]
    asked = {name: rows["n_examples"].max() for name, rows in closed.groupby("task")}
    same = [n == asked.get(name) for name, n in zip(results["task"], results["n_examples"], strict=True)]
    whole: Any = select(results[same], metric=metric, task=task, conditions=None)
    retrieved = whole[whole["condition"] == "retrieved"]
    known = "hit_rate" in whole and len(retrieved) > 0 and bool(retrieved["hit_rate"].notna().all())
    return whole if known else plain
