"""The ends of intervals from replicates: always in order, never NaN."""

from __future__ import annotations

import numpy as np

from ragscale.errors import FitError


def logarithm(values: np.ndarray) -> np.ndarray:
    """Return logarithms, minus infinity for what is not positive: a replicate that fell below zero is very low."""
    with np.errstate(all="ignore"):
        return np.where(values > 0, np.log(np.maximum(values, 1e-300)), np.where(np.isnan(values), np.nan, -np.inf))


def ends(values: np.ndarray, confidence_level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the percentile interval over the first axis; infinite values count as what they are.

    Raises
    ------
    FitError
        When a replicate is NaN.
    """
    tail = (1.0 - confidence_level) / 2.0
    if np.isnan(values).any():
        raise FitError(
            f"{np.isnan(values).any(axis=tuple(range(1, values.ndim))).sum()} replicates are not numbers here"
        )
    if np.isfinite(values).all():
        low, high = np.quantile(values, [tail, 1.0 - tail], axis=0)
    else:  # no interpolation between a number and infinity
        low = np.quantile(values, tail, axis=0, method="lower")
        high = np.quantile(values, 1.0 - tail, axis=0, method="higher")
    return low, high


def finite(low: np.ndarray, high: np.ndarray, lowest: float, highest: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends, brought within the lowest and the highest value that the metric can take.

    Raises
    ------
    FitError
        When an end is not finite, or the whole interval lies beyond what the metric can be.
    """
    low, high = np.maximum(low, lowest), np.minimum(high, highest)
    bad = ~(np.isfinite(low) & np.isfinite(high) & (high > lowest) & (low < highest))
    if bad.any():
        raise FitError(
            f"there is no finite interval at {bad.sum()} of {bad.size} points: replicates of the fit go from "
            f"{np.ravel(low)[np.argmax(bad)]:.3g} to {np.ravel(high)[np.argmax(bad)]:.3g} there, outside of what the "
            "law can describe"
        )
    return low, high


def conformal_factor(ratios: np.ndarray, confidence_level: float) -> float:
    """Return the k-th smallest ratio of error to half-width, k = ceil((n + 1) level), the largest where k > n.

    Examples
    --------
    >>> conformal_factor(np.arange(1.0, 40.0), 0.95), conformal_factor(np.arange(1.0, 39.0), 0.95)
    (38.0, 38.0)

    References
    ----------
    Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a Random World, section 2.2; Lei et al. 2018, JASA 113.
    """
    n = len(ratios)
    k = min(int(np.ceil((n + 1) * confidence_level - 1e-9)), n)
    return float(np.sort(ratios)[k - 1])
