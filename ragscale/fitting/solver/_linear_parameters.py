"""Which parameters of a law enter linearly: as it says, or found by trying; and the columns of a law without any."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ragscale.fitting.laws._law import Parameter, ScalingLaw, SeparableLaw, Theta


def linear_names(
    law: ScalingLaw, n: np.ndarray, d: np.ndarray, r: np.ndarray, typical: Mapping[str, float]
) -> frozenset[str]:
    """Return the parameters that enter linearly: as the law says, or found by trying."""
    probe = Theta({p.name: probe_value(p, typical, 0.4) for p in law.parameters})
    with np.errstate(all="ignore"):
        if isinstance(law, SeparableLaw):
            names = set(law._columns(probe, n, d, r))
        else:
            names = _find_linear(law, n, d, r, typical)
    return frozenset(names | ({"offset"} if law.offset else set()))


def probe_value(parameter: Parameter, typical: Mapping[str, float], share: float) -> float:
    unit = parameter.unit_value(typical)
    if parameter.start:
        low, high = parameter.start
        if parameter.log:
            return math.exp(math.log(low) + share * math.log(high / low)) * unit
        return (low + share * (high - low)) * unit
    low, high = parameter.lower, parameter.upper
    if parameter.log:
        low, high = math.log(max(low, 1e-3)), math.log(min(high, 1e3))
        return math.exp(low + share * (high - low)) * unit
    low, high = max(low, -2.0) if high > -2.0 else high - 1.0, min(high, 3.0) if low < 3.0 else low + 1.0
    return (low + share * (high - low)) * unit


def _find_linear(
    law: ScalingLaw, n: np.ndarray, d: np.ndarray, r: np.ndarray, typical: Mapping[str, float]
) -> set[str]:
    """Try each parameter: is the loss affine in it, together with those already found, at two places?"""

    def is_affine(names: list[str], share: float) -> bool:
        base = {p.name: probe_value(p, typical, share) for p in law.parameters}
        start = {**base, **dict.fromkeys(names, 0.0)}
        steps = {name: 1.0 + 0.37 * i for i, name in enumerate(names)}
        at_zero = np.asarray(law._loss(n, d, r, Theta(start)), dtype=float)
        parts = [
            np.asarray(law._loss(n, d, r, Theta({**start, k: s})), dtype=float) - at_zero for k, s in steps.items()
        ]
        for factor in (1.0, 2.5):
            moved = {**start, **{k: factor * s for k, s in steps.items()}}
            whole = np.asarray(law._loss(n, d, r, Theta(moved)), dtype=float) - at_zero
            expected = factor * np.sum(parts, axis=0)
            size = np.abs(whole) + factor * np.sum(np.abs(parts), axis=0) + 1e-6 * np.abs(at_zero)
            if not np.all(np.isfinite(whole)) or np.any(np.abs(whole - expected) > 1e-9 * size):
                return False
        return True

    found: list[str] = []
    for parameter in law.parameters:
        if parameter.name == "offset":
            continue
        try:
            good = all(is_affine([*found, parameter.name], share) for share in (0.3, 0.62))
        except (ArithmeticError, ValueError):
            good = False
        if good:
            found.append(parameter.name)
    return set(found)


def columns_by_loss(
    law: ScalingLaw, linear: frozenset[str], values: Mapping[str, Any], counts: tuple[np.ndarray, ...]
) -> dict[str, Any]:
    """Take a plain law apart: one column per linear parameter, and the rest."""
    names = [name for name in linear if name != "offset"]
    n, d, r = counts
    shape = np.broadcast_shapes(n.shape, *(np.shape(value) for value in values.values()))

    def loss(coefficients: Mapping[str, float]) -> np.ndarray:
        theta = Theta({p.name: {**values, **coefficients}.get(p.name, 0.0) for p in law.parameters})
        return np.broadcast_to(np.asarray(law._loss(n, d, r, theta), dtype=float), shape)

    zero = dict.fromkeys(names, 0.0)
    rest = loss(zero)
    columns = {name: loss({**zero, name: 1.0}) - rest for name in names}
    return columns if names and not np.any(rest) else {**columns, "(rest)": rest}
