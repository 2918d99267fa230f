"""What `bootstrap` was asked for, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError
from ragscale.fitting._experiments import EXPERIMENT, MODEL

_WORDS = ("rows", "residuals")


def check_resampling(
    table: pd.DataFrame, *, n_resamples: Any, by: Any, confidence_level: Any, rng: Any
) -> tuple[int, str | tuple[str, ...], float, np.random.Generator]:
    """Return the arguments of a bootstrap as they are used, or raise one error that lists what is wrong.

    Raises
    ------
    ConfigError
        Naming each argument of a wrong type or out of range, and for ``by`` the columns that there are.
    """
    problems: list[str] = []
    count = _number(n_resamples)
    if count is None or count < 2 or count != np.floor(count):
        problems.append(f"n_resamples = {n_resamples!r} must be a whole number of at least 2")
    level = _number(confidence_level)
    if level is None or not 0 < level < 1:
        problems.append(f"confidence_level = {confidence_level!r} must be a number between 0 and 1, e.g. 0.95")
    chosen = _by(table, by, problems)
    generator = None
    try:
        generator = np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        problems.append(f"rng = {rng!r:.60} must be an integer, a numpy Generator or None ({error})")
    if problems or count is None or level is None or generator is None:
        raise ConfigError("bootstrap: " + "; ".join(problems))
    return int(count), chosen, float(level), generator


def _number(value: Any) -> float | None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    return float(value) if np.isfinite(value) else None


def _by(table: pd.DataFrame, by: Any, problems: list[str]) -> str | tuple[str, ...]:
    if isinstance(by, str) and by in _WORDS:
        return by
    columns = [str(name) for name in table.columns if name != EXPERIMENT]
    names = (by,) if isinstance(by, str) else tuple(by) if isinstance(by, Iterable) else None
    if names is None or not names or not all(isinstance(name, str) for name in names):
        problems.append(f"by = {by!r} must be names of columns, 'rows' or 'residuals'")
        return ()
    missing = [name for name in names if name not in columns]
    if missing and names != MODEL:
        problems.append(
            f"by = {by!r} names {', '.join(map(repr, missing))}, no column of the fitted table, which has "
            f"{', '.join(columns)} (or 'rows' or 'residuals')"
        )
    return names
