"""Caballero et al. 2022: a smoothly broken power law in one variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Unpack

import numpy as np

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import LawOptions, Parameter, ScalingLaw, Theta
from ragscale.fitting.laws._published import Published

_UNITS = {"N": "N", "D": "D", "R": "R", "C": ""}


def _parameters(variable: str, n_breaks: int) -> tuple[Parameter, ...]:
    unit = _UNITS[variable]
    start = (0.02, 50.0) if unit else (1e17, 1e24)
    low, high = (1e-6, 1e6) if unit else (1e6, 1e36)
    breaks: list[Parameter] = []
    for i in range(1, n_breaks + 1):
        breaks += [
            Parameter(f"c{i}", -5.0, 8.0, start=(-0.5, 0.8), description=f"change of the slope at break {i}"),
            Parameter(f"d{i}", low, high, log=True, unit=unit, start=start, description=f"where break {i} lies"),
            Parameter(f"f{i}", 0.02, 5.0, log=True, start=(0.1, 1.5), description=f"how gradual break {i} is"),
        ]
    return (
        Parameter("a", 0.0, 1e3, start=(0.0, 3.0), description="limit"),
        Parameter("b", 1e-12, 1e40, log=True, start=(1e-1, 1e5), description="size, the value of the power at x = 1"),
        Parameter("c0", -2.0, 4.0, start=(-0.1, 0.6), description="slope before the first break"),
        *breaks,
    )


class BrokenPowerLaw(ScalingLaw):
    """y = a + b x^-c0 prod_i (1 + (x / d_i)^(1 / f_i))^(-c_i f_i): power laws, joined smoothly at breaks.

    Between breaks it is a straight line on log-log axes after the limit a is taken off; a negative slope makes it
    non-monotone (double descent, over-training). Limit: c_i = 0 takes a break away. Breaks are interchangeable, so
    their numbers mean nothing; each costs three parameters, and one that lies outside the data is not determined.

    Parameters
    ----------
    variable : "N", "D", "R" or "C"
        What x is; C = 6 N D. With "R" leave out rows without a store, where x^-c0 is infinite.
    n_breaks : int
        The number of breaks.

    References
    ----------
    Caballero et al. 2022, arXiv 2210.14891, equation 1; the values of figure 4 (right) from the authors' code.

    Examples
    --------
    >>> law = BrokenPowerLaw(variable="D", n_breaks=1)
    >>> float(law.loss(1, 400, 0, law.published["addition"].parameters).round(3))
    2.051
    """

    name = "bnsl"
    formula = "a + b x^-c0 prod_i (1 + (x / d_i)^(1 / f_i))^(-c_i f_i)"
    reference = "Caballero et al. 2022, arXiv 2210.14891, eq. 1"
    variables = ("D",)
    parameters = _parameters("D", 1)
    published: ClassVar[Mapping[str, Published]] = {
        "addition": Published(
            parameters={
                "a": 0.41388453071629455,
                "b": 2.2772722897737556,
                "c0": 0.055077348404973955,
                "c1": 5.662903816010331,
                "d1": 612.5836172918001,
                "f1": 0.059193036393742314,
            },
            source="arXiv 2210.14891, figure 4 (right): cross-entropy of 4-digit addition against training examples",
        )
    }

    def __init__(
        self, *, variable: Literal["N", "D", "R", "C"] = "D", n_breaks: int = 1, **options: Unpack[LawOptions]
    ) -> None:
        if variable not in _UNITS or isinstance(n_breaks, bool) or not isinstance(n_breaks, int) or n_breaks < 0:
            raise ConfigError(
                f"BrokenPowerLaw: variable = {variable!r} must be 'N', 'D', 'R' or 'C' and n_breaks = {n_breaks!r} a "
                "whole number of at least 0"
            )
        self.variable, self.n_breaks = variable, n_breaks
        self.variables = ("N", "D") if variable == "C" else (variable,)
        self.parameters = _parameters(variable, n_breaks)
        super().__init__(**options)

    def options(self) -> dict[str, Any]:
        return {**super().options(), "variable": self.variable, "n_breaks": self.n_breaks}

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        x = {"N": n, "D": d, "R": r}[self.variable] if self.variable != "C" else 6.0 * n * d
        if self.variable == "R" and (x <= 0).any():
            raise ConfigError("bnsl in R is not defined without a store: leave out the rows with R = 0")
        log_x = np.log(x)
        power = np.log(theta.b) - theta.c0 * log_x
        for i in range(1, self.n_breaks + 1):
            width = theta[f"f{i}"]
            power = power - theta[f"c{i}"] * width * np.logaddexp(0.0, (log_x - np.log(theta[f"d{i}"])) / width)
        return theta.a + np.exp(np.minimum(power, 700.0))
