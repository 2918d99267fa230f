"""The shapes of a gain from retrieval: h(x) with h(0) = 0, increasing in x >= 0, where x is R (or R/N)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ragscale.fitting.laws._law import Parameter, Theta

LogRate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Gain(ABC):
    """One shape; ``unit`` is the unit of x, so that scales are searched around the typical store."""

    name: ClassVar[str]
    formula: ClassVar[str]

    @abstractmethod
    def parameters(self, unit: str) -> tuple[Parameter, ...]:
        """Return the parameters of the shape."""

    @abstractmethod
    def value(self, x: np.ndarray, theta: Theta) -> Any:
        """Return h(x)."""

    @abstractmethod
    def slopes(self, x: np.ndarray, theta: Theta) -> dict[str, Any]:
        """Return dh/d parameter."""

    @abstractmethod
    def rate(self, x: np.ndarray, theta: Theta) -> Any:
        """Return dh/dx."""

    def sized_rate(self, size: Any, x: np.ndarray, theta: Theta) -> Any:
        """Return ``size`` dh/dx; no gain has no slope, not even at x = 0, where a root is infinitely steep."""
        with np.errstate(invalid="ignore"):
            return np.where(np.equal(size, 0.0), 0.0, size * self.rate(x, theta))

    @abstractmethod
    def log_rate(self, unit: Any, theta: Theta) -> LogRate:
        """Return R -> (ln dh(R / unit)/dR, its derivative in ln R)."""

    def is_concave(self, theta: Theta) -> bool:
        """Say whether dh/dx falls everywhere."""
        return True

    def half_point(self, theta: Theta) -> Any:
        """Return the x with h = 1/2 for a gain that saturates at 1, None for one that grows without bound."""
        return None


class LogGain(Gain):
    """h = ln(1 + eta x): unbounded, linear for small eta x."""

    name = "log1p"
    formula = "ln(1 + eta {x})"

    def parameters(self, unit: str) -> tuple[Parameter, ...]:
        inverse = "/".join(reversed(unit.split("/"))) if "/" in unit else f"1/{unit}"
        text = "how early the gain bends; 1/eta is the store where it is C ln 2"
        return (Parameter("eta", math.exp(-9), math.exp(9), log=True, unit=inverse, description=text),)

    def value(self, x: np.ndarray, theta: Theta) -> Any:
        return np.log1p(theta.eta * x)

    def slopes(self, x: np.ndarray, theta: Theta) -> dict[str, Any]:
        return {"eta": x / (1.0 + theta.eta * x)}

    def rate(self, x: np.ndarray, theta: Theta) -> Any:
        return theta.eta / (1.0 + theta.eta * x)

    def log_rate(self, unit: Any, theta: Theta) -> LogRate:
        eta = theta.eta / unit
        constant = np.log(eta)

        def rate(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x = 1.0 + eta * r
            return constant - np.log(x), 1.0 / x - 1.0

        return rate


class PowerGain(Gain):
    """h = 1 - (1 + x/R0)^-gamma: saturates at 1; gamma -> 0 is log1p with eta = 1/R0."""

    name = "power"
    formula = "(1 - (1 + {x}/R0)^-gamma)"

    def parameters(self, unit: str) -> tuple[Parameter, ...]:
        return (
            Parameter("gamma", 0.01, 5.0, log=True, description="exponent with which the gain saturates"),
            Parameter("R0", 1e-4, 1e4, log=True, unit=unit, description="store where the gain starts to bend"),
        )

    def value(self, x: np.ndarray, theta: Theta) -> Any:
        return -np.expm1(-theta.gamma * np.log1p(x / theta.R0))

    def slopes(self, x: np.ndarray, theta: Theta) -> dict[str, Any]:
        logarithm = np.log1p(x / theta.R0)
        left = np.exp(-theta.gamma * logarithm)
        return {
            "gamma": logarithm * left,
            "R0": -theta.gamma * left * x / (theta.R0 * (theta.R0 + x)),
        }

    def rate(self, x: np.ndarray, theta: Theta) -> Any:
        return theta.gamma / theta.R0 * np.exp(-(theta.gamma + 1.0) * np.log1p(x / theta.R0))

    def log_rate(self, unit: Any, theta: Theta) -> LogRate:
        inverse = 1.0 / (theta.R0 * unit)
        constant, power = np.log(theta.gamma * inverse), theta.gamma + 1.0

        def rate(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x = 1.0 + r * inverse
            return constant - power * np.log(x), power * (1.0 / x - 1.0)

        return rate

    def half_point(self, theta: Theta) -> Any:
        return theta.R0 * np.expm1(np.log(2.0) / theta.gamma)


class HillGain(Gain):
    """h = x^n / (x^n + K^n): saturates at 1, half of it at K; n > 1 starts convex."""

    name = "hill"
    formula = "{x}^n / ({x}^n + K^n)"

    def parameters(self, unit: str) -> tuple[Parameter, ...]:
        return (
            Parameter("K", 1e-4, 1e4, log=True, unit=unit, description="store that gives half of the largest gain"),
            Parameter("n", 0.3, 4.0, log=True, description="steepness; above 1 small stores give next to nothing"),
        )

    def value(self, x: np.ndarray, theta: Theta) -> Any:
        u = (x / theta.K) ** theta.n
        return u / (1.0 + u)

    def slopes(self, x: np.ndarray, theta: Theta) -> dict[str, Any]:
        ratio = x / theta.K
        u = ratio**theta.n
        bend = u / (1.0 + u) ** 2
        return {"K": -theta.n / theta.K * bend, "n": bend * np.log(np.where(ratio > 0, ratio, 1.0))}

    def rate(self, x: np.ndarray, theta: Theta) -> Any:
        ratio = x / theta.K
        with np.errstate(divide="ignore"):  # n < 1: the first token has infinite slope
            return theta.n / theta.K * ratio ** (theta.n - 1.0) / (1.0 + ratio**theta.n) ** 2

    def log_rate(self, unit: Any, theta: Theta) -> LogRate:
        log_k, shape = np.log(theta.K * unit), theta.n
        constant = np.log(shape) - shape * log_k

        def rate(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            log_r = np.log(r)
            u = np.exp(shape * (log_r - log_k))
            return constant + (shape - 1.0) * log_r - 2.0 * np.log1p(u), shape - 1.0 - 2.0 * shape * u / (1.0 + u)

        return rate

    def is_concave(self, theta: Theta) -> bool:
        return bool(np.all(theta.n <= 1.0))

    def half_point(self, theta: Theta) -> Any:
        return theta.K


class RootGain(Gain):
    """h = x^g: a plain power, for the range of the data only; g > 1 is convex."""

    name = "rpower"
    formula = "{x}^g"

    def parameters(self, unit: str) -> tuple[Parameter, ...]:
        return (Parameter("g", 0.05, 2.0, log=True, description="exponent of the gain; above 1 it accelerates"),)

    def value(self, x: np.ndarray, theta: Theta) -> Any:
        return x**theta.g

    def slopes(self, x: np.ndarray, theta: Theta) -> dict[str, Any]:
        return {"g": x**theta.g * np.log(np.where(x > 0, x, 1.0))}

    def rate(self, x: np.ndarray, theta: Theta) -> Any:
        with np.errstate(divide="ignore"):  # g < 1: the first token has infinite slope
            return theta.g * x ** (theta.g - 1.0)

    def log_rate(self, unit: Any, theta: Theta) -> LogRate:
        power = theta.g - 1.0
        constant = np.log(theta.g) - theta.g * np.log(unit)

        def rate(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return constant + power * np.log(r), power

        return rate

    def is_concave(self, theta: Theta) -> bool:
        return bool(np.all(theta.g <= 1.0))


GAINS: dict[str, Gain] = {gain.name: gain for gain in (LogGain(), PowerGain(), HillGain(), RootGain())}
