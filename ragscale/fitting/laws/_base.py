"""The base b(N, D) = E + A N^-alpha + B D^-beta that most laws share: Chinchilla's law without retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ragscale.fitting.laws._law import Parameter, SeparableLaw, Theta

BASE = (
    Parameter("E", 0.0, description="loss that no size, data or store removes"),
    Parameter("A", 0.0, description="coefficient of N^-alpha"),
    Parameter("alpha", 0.01, 2.0, description="exponent of the model size"),
    Parameter("B", 0.0, description="coefficient of D^-beta"),
    Parameter("beta", 0.01, 2.0, description="exponent of the pretraining tokens"),
)


def powers(theta: Theta, n: np.ndarray, d: np.ndarray) -> tuple[Any, Any]:
    return np.exp(-theta.alpha * np.log(n)), np.exp(-theta.beta * np.log(d))


class BaseLaw(SeparableLaw):
    """The base, with the options that every built-in law shares."""

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        a, b = powers(theta, n, d)
        return {"E": np.ones_like(n), "A": a, "B": b}

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        a, b = powers(theta, n, d)
        return {("A", "alpha"): -np.log(n) * a, ("B", "beta"): -np.log(d) * b}

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        a, b = powers(theta, n, d)
        return -theta.A * theta.alpha * a / n, -theta.B * theta.beta * b / d, np.zeros_like(r)

    def _without(self, variable: str, store: float = 1.0) -> Mapping[str, float | None] | None:
        names = {"N": ("A", "alpha"), "D": ("B", "beta")}.get(variable)
        if names is None:
            return None
        # E takes over what a constant term adds; where E is held, the coefficient has to stay
        return {names[0]: None if "E" in self.fixed else 0.0, names[1]: 0.5}

    def _data_for(self, n: np.ndarray, loss: np.ndarray, theta: Theta) -> np.ndarray:
        left = loss - theta.E - theta.A * n**-theta.alpha
        return np.where(left > 0, (np.maximum(left, 0) / theta.B) ** (-1.0 / theta.beta), np.inf)


def separable_optimum(compute: np.ndarray, theta: Theta) -> np.ndarray:
    """Return the N that minimises A N^-alpha + B D^-beta under 6 N D = compute."""
    total = theta.alpha + theta.beta
    scale = np.exp(np.log(theta.alpha * theta.A / (theta.beta * theta.B)) / total)
    return scale * (compute / 6) ** (theta.beta / total)


class Chinchilla(BaseLaw):
    """L = E + A N^-alpha + B D^-beta, without retrieval.

    References
    ----------
    Hoffmann et al. 2022, arXiv 2203.15556, equation 2; Besiroglu et al. 2024, arXiv 2404.10102.
    """

    name = "chinchilla"
    formula = "E + A N^-alpha + B D^-beta"
    reference = "Hoffmann et al. 2022, arXiv 2203.15556, eq. 2"
    variables = ("N", "D")
    parameters = BASE

    def _compute_optimum(self, compute: np.ndarray, theta: Theta) -> np.ndarray:
        return separable_optimum(compute, theta)
