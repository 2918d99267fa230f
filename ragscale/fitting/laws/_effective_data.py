"""A store as further pretraining data: L = E + A N^-alpha + B (D + eta R)^-beta."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ragscale.fitting.laws._base import BASE, BaseLaw
from ragscale.fitting.laws._law import Parameter, Theta


class EffectiveData(BaseLaw):
    """L = E + A N^-alpha + B (D + eta R)^-beta: a store token is worth eta pretraining tokens, everywhere.

    The exchange rate is the constant eta, so the best split is a corner: all data or all store.

    References
    ----------
    This library; the paper's sigma (arXiv 2604.00715, equation 4) is eta measured cell by cell.
    """

    name = "effective_data"
    formula = "E + A N^-alpha + B (D + eta R)^-beta"
    reference = "this library; sigma of arXiv 2604.00715, eq. 4, taken as a constant"
    parameters = (
        *BASE,
        Parameter(
            "eta",
            math.exp(-9),
            math.exp(9),
            log=True,
            unit="D/R",
            description="pretraining tokens that one store token is worth",
        ),
    )

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        return super()._columns(theta, n, d + theta.eta * r, r)

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        effective = d + theta.eta * r
        slopes = super()._column_slopes(theta, n, effective, r)
        return {**slopes, ("B", "eta"): -theta.beta * r * np.exp(-(theta.beta + 1.0) * np.log(effective))}

    def _without(self, variable: str, store: float = 1.0) -> Mapping[str, float | None] | None:
        return (
            None if variable == "D" else super()._without(variable, store)
        )  # with one D the store still moves the term

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        dn, dd, _ = super()._gradient(n, d + theta.eta * r, r, theta)
        return dn, dd, theta.eta * dd

    def _gain_limit(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> np.ndarray:
        return theta.B * d**-theta.beta - (theta.offset if self.offset else 0.0) + 0 * n

    def _constant_exchange_rate(self, theta: Theta) -> Any:
        return theta.eta

    _data_for = BaseLaw._data_for
