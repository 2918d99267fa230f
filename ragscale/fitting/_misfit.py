"""Whether a law follows the data at all, and where it does not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

_FLAT = 0.5  # predictions that move less than half as much as the observations
_ODD = 0.8
_LEVELS = 8
_PATTERN = 0.25  # share of the residuals' variance that goes with one variable
_CERTAIN = 1e-4


class Pattern(NamedTuple):
    """Residuals that go with a variable."""

    variable: str
    share: float  # of their variance
    low_at: float  # where the law predicts too little, most
    low: float
    high_at: float  # where it predicts too much, most
    high: float


def parity_slope(observed: np.ndarray, residual: np.ndarray, weight: np.ndarray) -> float:
    """Return by how much predictions change when observations change by 1 (1: all of it, 0: a flat parity plot).

    Rows far from the surface, at most a tenth of all, are left out: one wild row says little about the rest.
    """
    distance = np.abs(residual)
    near = distance <= max(float(np.quantile(distance, 0.9)), 5.0 * float(np.median(distance)))
    y, p, w = observed[near], (observed + residual)[near], weight[near]
    if w.sum() <= 0 or np.ptp(y) <= 1e-12 * max(1.0, float(np.abs(y).max())):
        return 1.0
    dy, dp = y - np.average(y, weights=w), p - np.average(p, weights=w)
    return float((w * dy * dp).sum() / (w * dy * dy).sum())


def patterns(table: pd.DataFrame, residual: np.ndarray, cluster: np.ndarray) -> list[Pattern]:
    """Return the variables that residuals go with: an analysis of variance over trained models.

    Along R each model is compared with itself. Residuals beyond three robust spreads are drawn in.
    """
    found = []
    low, high = np.quantile(residual, [0.25, 0.75])
    limit = max(3.0 * float(high - low) / 1.349, 1e-300)
    drawn = np.clip(residual, -limit, limit)
    for name in ("N", "D", "R"):  # of what the law does not read, too
        values = table[name].to_numpy(float)
        level, at = _levels(values)
        if len(at) < 3:
            continue
        own = drawn - (_means(drawn, cluster)[cluster] if name == "R" else drawn.mean())
        cells, at_cell = np.unique(cluster * len(at) + level, return_inverse=True)
        mean, of = _means(own, at_cell), cells % len(at)
        spare = len(mean) - len(at) - (len(np.unique(cluster)) - 1 if name == "R" else 0)
        if spare < 3:
            continue
        counts = np.bincount(of, minlength=len(at))
        middle = np.bincount(of, weights=mean, minlength=len(at)) / np.maximum(counts, 1)
        between = float((counts * (middle - mean.mean()) ** 2).sum())
        total = float(((mean - mean.mean()) ** 2).sum())
        if not total > 0 or between / total < _PATTERN:
            continue
        ratio = between / (len(at) - 1) / max((total - between) / spare, 1e-300)
        if special.fdtrc(len(at) - 1, spare, ratio) < _CERTAIN:
            i, j = int(np.argmin(middle)), int(np.argmax(middle))
            found.append(Pattern(name, between / total, at[i], float(middle[i]), at[j], float(middle[j])))
    return found


def _means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    return np.bincount(group, weights=values) / np.bincount(group)


def _levels(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the level of each row and what stands for it: a value, or the middle of an eighth of the rows."""
    distinct, index = np.unique(values, return_inverse=True)
    if len(distinct) <= _LEVELS:
        return index, distinct
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _LEVELS + 1)[1:-1]))
    level = np.searchsorted(edges, values, side="right")
    kept, level = np.unique(level, return_inverse=True)
    return level, np.array([float(np.median(values[level == i])) for i in range(len(kept))])


def all_alike(value: np.ndarray) -> str:
    """Say that every row has one value, where several do; nothing else can be learnt from them."""
    if len(value) < 2 or np.ptp(value) > 0:
        return ""
    return (
        f"EVERY VALUE IS {value[0]:.4g}: nothing in these rows goes with N, D or R, and one law is as good as another. "
        "Do not decide with it."
    )


def verdict(slope: float, at_bounds: int, n_free: int, found: list[Pattern], space: str) -> tuple[str, list[str]]:
    """Return the one sentence that says that the law does not describe the data, or none, and what is odd besides."""
    unit, factor = (" %", 100.0) if space == "log" else ("", 1.0)
    odd = [
        f"Residuals go with {p.variable} ({p.share:.0%} of their variance): the law predicts too much at "
        f"{p.variable} = {p.high_at:.3g} ({factor * p.high:+.2g}{unit}) and too little at {p.low_at:.3g} "
        f"({factor * p.low:+.2g}{unit}). Its form is wrong along {p.variable}, or something else changes with it."
        for p in found
    ]
    many = at_bounds >= max(2, n_free / 3.0)
    if slope >= _ODD or (slope >= _FLAT and not many):
        return "", odd
    text = (
        f"THIS LAW DOES NOT DESCRIBE THE DATA: predictions move {max(slope, 0.0):.0%} as much as the observations do "
        "(slope of the parity plot)"
    )
    if at_bounds:
        text += f", and {at_bounds} of {n_free} parameters stand at their bounds"
    if found:
        text += f"; residuals go with {' and '.join(p.variable for p in found)}"
    return text + ". Do not decide with it.", odd
