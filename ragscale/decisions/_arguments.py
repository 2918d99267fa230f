"""Arguments of decisions: counts that broadcast, everything wrong with them in one error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError

Prices: TypeAlias = "tuple[ArrayLike, ArrayLike] | Mapping[Any, ArrayLike]"
"""(p_D, p_R), or a mapping with ``"D"`` and ``"R"``; each 1 where it is not given."""


def counts(problems: list[str], *, allow_zero: tuple[str, ...] = (), **values: Any) -> dict[str, np.ndarray]:
    """Convert named counts to float64 arrays that broadcast, adding to ``problems`` what is wrong."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in values.items():
        try:
            raw = np.asarray(value)
            if raw.dtype.kind in "bSUMmc":
                raise TypeError(f"{raw.dtype} is no count")
            if raw.dtype.kind == "O" and any(item is None for item in raw.flat):  # it would turn into NaN
                raise TypeError("None is no count")
            array = raw.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            problems.append(f"{name} = {value!r:.60} is not numeric ({error})")
            continue
        bad = ~np.isfinite(array) | ((array < 0) if name in allow_zero else (array <= 0))
        if bad.any():
            rule = "finite and not negative" if name in allow_zero else "finite and positive"
            problems.append(f"{name} must be {rule}, got {array[bad].flat[0]:g}")
        if array.size == 0:
            problems.append(f"{name} is empty")
        arrays[name] = array
    try:
        np.broadcast_shapes(*(a.shape for a in arrays.values()))
    except ValueError:
        problems.append(_shapes(arrays))
    return arrays


def _shapes(arrays: dict[str, np.ndarray]) -> str:
    """Say which shapes do not broadcast, and how every combination is asked for."""
    text = "shapes do not broadcast: " + ", ".join(f"{k} {v.shape}" for k, v in arrays.items())
    flat = [name for name, array in arrays.items() if array.ndim == 1 and array.size > 1]
    if len(flat) > 1:
        text += f"; for every combination give {flat[0]} a further axis: np.asarray({flat[0]})[:, None]"
    return text


def flatten(given: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """Broadcast arrays against each other; return them flat, and the shape they had."""
    shape = np.broadcast_shapes(*(a.shape for a in given.values()))
    return {name: np.broadcast_to(array, shape).ravel() for name, array in given.items()}, shape


def refuse(problems: list[str], where: str) -> None:
    """Raise one error with everything that is wrong with the arguments."""
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))


def scalar(value: np.ndarray) -> Any:
    """Return a 0-dimensional array as its scalar (text as str), others as they are."""
    found = np.asarray(value)[()]
    return str(found) if isinstance(found, np.str_) else found


def read_prices(prices: Prices | None, problems: list[str]) -> tuple[ArrayLike, ArrayLike]:
    """Return (p_D, p_R) of a pair or mapping, 1 each for None, adding to ``problems`` what is wrong."""
    if prices is None:
        return 1.0, 1.0
    if isinstance(prices, Mapping):
        unknown = [str(k) for k in prices if k not in ("D", "R")]
        if unknown:
            problems.append(f"prices are for 'D' and 'R', not {', '.join(unknown)}")
        return prices.get("D", 1.0), prices.get("R", 1.0)
    if isinstance(prices, (tuple, list)) and len(prices) == 2:
        return prices[0], prices[1]
    problems.append(f"prices = {prices!r} must be a pair (p_D, p_R) or {{'D': p_D, 'R': p_R}}")
    return 1.0, 1.0
