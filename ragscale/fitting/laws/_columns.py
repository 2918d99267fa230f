"""Further columns of a law: numbers, or functions of R, one for all replicates or one for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragscale.errors import ConfigError


class FunctionsOfR:
    """Functions of R, one per replicate; indexed like parameters, whose replicates have the shape (S, 1).

    Attributes
    ----------
    rows : ndarray of int
        Which function stands where; broadcasts against R.
    """

    def __init__(self, functions: Sequence[Callable[[np.ndarray], Any]], rows: np.ndarray | None = None) -> None:
        self.functions = tuple(functions)
        self.rows = np.arange(len(self.functions))[:, None] if rows is None else rows

    def __getitem__(self, index: Any) -> FunctionsOfR:
        return FunctionsOfR(self.functions, np.asarray(self.rows[index]))

    def __call__(self, r: Any) -> np.ndarray:
        return self._each(r, lambda function, at: function(at))

    def derivative(self, r: Any) -> np.ndarray:
        """Return the slope of each function in R."""
        return self._each(r, slope_of)

    def _each(self, r: Any, what: Callable[[Any, np.ndarray], Any]) -> np.ndarray:
        rows, stores = np.broadcast_arrays(self.rows, np.asarray(r, dtype=np.float64))
        found = np.empty(stores.shape)
        for i in np.unique(rows):
            here = rows == i
            found[here] = what(self.functions[i], stores[here])
        return found


def as_column(name: str, value: Any) -> Any:
    """Return numbers as float64, a function of R as it is, several functions as `FunctionsOfR`."""
    if callable(value):
        return value
    if isinstance(value, (list, tuple)) and value and all(callable(one) for one in value):
        return FunctionsOfR(value)
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"column {name!r} must be numbers or a function of R: {error}") from error


def slope_of(function: Any, r: Any) -> np.ndarray:
    """Return df/dR of a function of R: its own ``derivative`` where it has one, else central differences."""
    r = np.asarray(r, dtype=np.float64)
    if hasattr(function, "derivative"):
        return np.asarray(function.derivative(r), dtype=np.float64)
    step = 1e-4 * np.maximum(r, 1.0)
    low = np.maximum(r - step, 0.0)
    return (np.asarray(function(r + step), dtype=np.float64) - np.asarray(function(low))) / (r + step - low)
