"""Shapes of h(R), many replicates at once: monotone cubics in ln R through isotonic rates, and Hill curves.

Shapes: S replicates, K measured stores. ``rows`` (any shape that broadcasts against R) says which replicate is where.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit


class Shape(ABC):
    """Replicates of one curve; 0 without a store, proportional below the smallest store, flat beyond the largest."""

    def __init__(self, stores: np.ndarray) -> None:
        self.stores = stores
        self.log_stores = np.log(stores)

    kind: ClassVar[str]
    values: np.ndarray

    @abstractmethod
    def _inside(self, x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return h and dh/d ln R at x = ln R between the smallest and the largest store."""

    @abstractmethod
    def joined(self, other: Any) -> Shape:
        """Return the replicates of both, these first."""

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """Return what `make_shape` needs, for an archive."""
        return {f"{prefix}stores": self.stores, f"{prefix}values": self.values}

    def value(self, r: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return h(R)."""
        with np.errstate(divide="ignore"):
            x = np.clip(np.log(r), self.log_stores[0], self.log_stores[-1])
        return self._inside(x, rows)[0] * np.minimum(r / self.stores[0], 1.0)

    def slope(self, r: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return dh/dR."""
        first = self.stores[0]
        with np.errstate(divide="ignore"):
            x = np.clip(np.log(r), self.log_stores[0], self.log_stores[-1])
        h, by_x = self._inside(x, rows)
        inside = np.where(r >= self.stores[-1], 0.0, by_x / np.maximum(r, first))
        return np.where(r < first, h / first, inside)


class Monotone(Shape):
    """Rates (S, K) that do not fall, joined by cubics without overshoot."""

    kind = "monotone"

    def __init__(self, stores: np.ndarray, rates: np.ndarray) -> None:
        super().__init__(stores)
        self.values = self.rates = rates
        self.cubics = None
        if len(stores) > 1:
            from scipy.interpolate import PchipInterpolator

            self.cubics = PchipInterpolator(self.log_stores, rates, axis=1).c  # (4, K - 1, S)

    def _inside(self, x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.cubics is None:
            flat = self.rates[rows, 0] + 0.0 * x
            return flat, 0.0 * flat
        piece = np.clip(np.searchsorted(self.log_stores, x, side="right") - 1, 0, len(self.stores) - 2)
        a, b, c, d = self.cubics[:, piece, rows]
        t = x - self.log_stores[piece]
        return ((a * t + b) * t + c) * t + d, (3.0 * a * t + 2.0 * b) * t + c

    def joined(self, other: Monotone) -> Monotone:
        return Monotone(self.stores, np.concatenate([self.rates, other.rates]))


class Hill(Shape):
    """hmax / (1 + (K / R)^g); ``theta`` (S, 3) holds logit hmax, ln K, ln g."""

    kind = "hill"

    def __init__(self, stores: np.ndarray, theta: np.ndarray) -> None:
        super().__init__(stores)
        self.values = self.theta = theta

    def _inside(self, x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        top, middle, steep = np.moveaxis(self.theta[rows], -1, 0)
        g = np.exp(steep)
        part = expit(g * (x - middle))
        return expit(top) * part, expit(top) * part * (1.0 - part) * g

    def joined(self, other: Hill) -> Hill:
        return Hill(self.stores, np.concatenate([self.theta, other.theta]))


def make_shape(kind: str, stores: np.ndarray, values: np.ndarray) -> Shape:
    """Return a shape from its kind and `Shape.arrays`."""
    return {Monotone.kind: Monotone, Hill.kind: Hill}[kind](stores, values)


def isotonic(rates: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the non-falling rates closest to those given, row by row, by pooling adjacent violators.

    Parameters
    ----------
    rates : ndarray (S, K)
    weight : ndarray (K,)
    """
    out = np.empty_like(rates)
    for row, values in enumerate(rates):
        means, sizes, counts = [], [], []
        for value, size in zip(values, weight, strict=True):
            means.append(value)
            sizes.append(size)
            counts.append(1)
            while len(means) > 1 and means[-2] > means[-1]:
                total = sizes[-2] + sizes[-1]
                means[-2:] = [(means[-2] * sizes[-2] + means[-1] * sizes[-1]) / total]
                sizes[-2:] = [total]
                counts[-2:] = [counts[-2] + counts[-1]]
        out[row] = np.repeat(means, counts)
    return out


_LOWEST, _HIGHEST = np.array([-9.0, -np.inf, np.log(0.1)]), np.array([9.0, np.inf, np.log(8.0)])


def fit_hill(stores: np.ndarray, rates: np.ndarray, n: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Fit Hill curves by binomial maximum likelihood, (S, 3): damped Fisher scoring, all replicates at once.

    Parameters
    ----------
    rates : ndarray (S, K)
    n : ndarray (K,)
        Questions behind each rate.
    start : ndarray (3,), optional
        Where to start; by default from several places.
    """
    x = np.log(stores)
    if start is not None:
        starts = [start]
    else:
        starts = [
            np.array([a, k, np.log(g)]) for a in (-1.0, 1.5) for k in np.quantile(x, [0.3, 0.9]) for g in (0.6, 1.5)
        ]
    best, lowest = np.zeros((len(rates), 3)), np.full(len(rates), np.inf)
    for first in starts:
        theta, value = _score(x, rates, n, np.tile(first, (len(rates), 1)))
        better = value < lowest
        best[better], lowest[better] = theta[better], value[better]
    return best


def _score(x: np.ndarray, rates: np.ndarray, n: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Descend from ``theta`` (S, 3); return the parameters and the negative log likelihood."""
    low, high = _LOWEST.copy(), _HIGHEST.copy()
    low[1], high[1] = x[0] - 7.0, x[-1] + 7.0

    def parts(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        g = np.exp(t[:, 2:])
        top, part = expit(t[:, :1]), expit(g * (x - t[:, 1:2]))
        p = np.clip(top * part, 1e-12, 1.0 - 1e-12)
        bend = p * (1.0 - part)
        slopes = np.stack([p * (1.0 - top), -bend * g, bend * g * (x - t[:, 1:2])], axis=1)
        return p, slopes, -(n * (rates * np.log(p) + (1.0 - rates) * np.log1p(-p))).sum(axis=1)

    p, slopes, value = parts(theta)
    damping = np.full(len(theta), 1e-2)
    for _ in range(80):
        weight = n / (p * (1.0 - p))
        gradient = -(slopes * (weight * (rates - p))[:, None, :]).sum(axis=2)
        hessian = np.matmul(slopes * weight[:, None, :], slopes.transpose(0, 2, 1))
        index = np.arange(3)
        hessian[:, index, index] += damping[:, None] * (hessian[:, index, index] + 1e-3)
        moved = np.clip(theta - np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0], low, high)
        new_p, new_slopes, new = parts(moved)
        better = new < value
        gained = np.where(better, value - new, 0.0)
        theta = np.where(better[:, None], moved, theta)
        p, slopes = np.where(better[:, None], new_p, p), np.where(better[:, None, None], new_slopes, slopes)
        value = np.where(better, new, value)
        damping = np.where(better, damping / 5.0, damping * 5.0)
        if np.all((gained < 1e-9 * np.abs(value)) & (better | (damping > 1e6))):
            break
    return theta, value
