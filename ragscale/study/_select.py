"""The rows of a study's results that one surface is fitted to."""

from __future__ import annotations

import pandas as pd

from ragscale import results as results_table
from ragscale.errors import FitError, ResultsError


def select(results: pd.DataFrame, *, metric: str, task: str | None = None) -> pd.DataFrame:
    """Return the closed-book and retrieved rows of one metric, of one task or averaged over tasks.

    A cell that lacks a task would be another mean, so it is left out of an average; see `ragscale.results.select`.

    Raises
    ------
    FitError
        When there is none; the message names what there is.
    """
    try:
        return results_table.select(results, metric=metric, task=task)
    except ResultsError as error:
        raise FitError(str(error)) from error
