"""Average repeated runs that differ in nothing but their seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ragscale._typing import ResultsLike
from ragscale.results._table import MEASURED, row_keys, validate

_PER_RUN = ("seed", "run")


def average_seeds(results: ResultsLike) -> pd.DataFrame:
    r"""Average the rows that differ only in ``seed``, ``run`` and what is measured (``value``, ``hit_rate``, ...).

    With m seeds of values v_i and standard errors s_i over the questions, the mean's standard error is

    .. math:: \mathrm{stderr}^2 = \frac{1}{m} \sum_i s_i^2 + \frac{1}{m (m - 1)} \sum_i (v_i - \bar v)^2 .

    The first part does not shrink with m: every seed answers the same questions, so what these questions do to the
    value is common to all seeds. The second part, the spread between seeds, does. It alone is in ``stderr_seeds``.

    Parameters
    ----------
    results : DataFrame, or anything that `validate` accepts

    Returns
    -------
    DataFrame
        One row per distinct measurement, in the order of first appearance, without ``seed`` and ``run``, with ``value``
        the mean, ``n_seeds``, ``stderr_seeds`` (NaN for a single seed) and ``stderr``. Without a ``stderr`` column
        (or where any of a group's is missing) ``stderr`` is ``stderr_seeds``. What else is measured is averaged.

    Examples
    --------
    >>> from ragscale import results
    >>> runs = {"N": [1e9] * 3, "D": [2e10] * 3, "R": [0] * 3, "value": [2.1, 2.2, 2.3], "seed": [42, 43, 44]}
    >>> results.average_seeds(runs)[["value", "n_seeds", "stderr_seeds"]]
       value  n_seeds  stderr_seeds
    0    2.2        3      0.057735
    """
    table = validate(results)
    group = row_keys(table, without=_PER_RUN)
    size = np.bincount(group)
    first = np.unique(group, return_index=True)[1]
    averaged = table.iloc[first].drop(columns=[c for c in _PER_RUN if c in table.columns])
    mean = _mean(table["value"], group)
    averaged["value"] = mean
    for column in MEASURED:
        if column in table and column not in ("value", "stderr"):
            numbers = pd.to_numeric(table[column], errors="coerce")
            averaged[column] = _mean(numbers, group)
    squares = np.bincount(group, weights=(np.asarray(table["value"]) - mean[group]) ** 2)
    spread = np.where(size > 1, squares / (size * np.maximum(size - 1, 1)), np.nan)
    within = _mean(table["stderr"] ** 2, group) if "stderr" in table else np.full(len(size), np.nan)
    averaged["n_seeds"] = size
    averaged["stderr_seeds"] = np.sqrt(spread)
    averaged["stderr"] = np.sqrt(np.where(size > 1, np.nan_to_num(within) + spread, within))
    return averaged.reset_index(drop=True)


def _mean(values: Any, group: np.ndarray) -> np.ndarray:
    return np.bincount(group, weights=np.asarray(values, np.float64)) / np.bincount(group)
