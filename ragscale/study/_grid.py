"""Sizes of a study: counts of tokens, multiples of N, or shares of the budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ragscale.errors import ConfigError

_UNITS = ("tokens", "per_parameter", "share_of_budget")


@dataclass(frozen=True, slots=True)
class Grid:
    """Sizes in one of three units.

    Parameters
    ----------
    values : sequence of float
        The sizes.
    unit : {"tokens", "per_parameter", "share_of_budget"}
        Token counts; multiples of N (core + head parameters); shares of the budget T.

    Examples
    --------
    >>> Grid((1, 20), "per_parameter").tokens(n_params=1000, budget=10**6)
    (1000, 20000)
    >>> Grid((0.25,), "share_of_budget").tokens(n_params=1000, budget=10**6)
    (250000,)
    """

    values: tuple[float, ...]
    unit: str = "tokens"

    def __post_init__(self) -> None:
        given = [self.values] if isinstance(self.values, int | float | np.number | str) else self.values
        plain = (value.item() if isinstance(value, np.generic) else value for value in given)
        # 4e4 and 40_000 are one size, and have one digest
        values = tuple(int(v) if isinstance(v, float) and v.is_integer() else v for v in plain)
        object.__setattr__(self, "values", values)

    @classmethod
    def of(cls, value: Grid | Mapping[str, Any] | Iterable[float] | float, name: str) -> Grid:
        """Return a grid from a grid, its dictionary, numbers or one number."""
        if isinstance(value, Grid):
            return value
        if isinstance(value, Mapping):
            known = [item.name for item in fields(cls)]
            unknown = sorted(set(value) - set(known))
            if unknown or "values" not in value:
                raise ConfigError(
                    f"{name} = {dict(value)!r} must have 'values' and may have 'unit' ({', '.join(_UNITS)})"
                )
            given: Any = value
            return cls(**given)
        values: Any = value
        try:
            return cls(values)
        except TypeError:
            raise ConfigError(f"{name} = {value!r} must be numbers, or a Grid") from None

    def tokens(self, *, n_params: int, budget: int) -> tuple[int, ...]:
        """Return the sizes as token counts for a model of ``n_params`` and a budget of ``budget`` tokens."""
        scale = {"tokens": 1, "per_parameter": n_params, "share_of_budget": budget}[self.unit]
        return tuple(sorted({round(value * scale) for value in self.values}))

    def problems(self, name: str, *, zero: bool) -> list[str]:
        """List what is wrong with the grid."""
        found = []
        if self.unit not in _UNITS:
            found.append(f"{name}.unit = {self.unit!r} must be one of {', '.join(_UNITS)}")
        if not self.values and not zero:
            found.append(f"{name} has no values")
        bad = [value for value in self.values if not _is_size(value, zero)]
        if bad:
            found.append(
                f"{name} has values that are not {'zero or ' if zero else ''}positive numbers: {bad} "
                "(write 40_000 or 4e4 for forty thousand)"
            )
        elif self.unit == "share_of_budget" and any(value > 1 for value in self.values):
            found.append(f"{name} has shares of the budget above 1: {[v for v in self.values if v > 1]}")
        return found


def _is_size(value: Any, zero: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and (value > 0 or (zero and value == 0))
