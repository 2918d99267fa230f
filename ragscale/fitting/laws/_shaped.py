"""Laws whose gain depends on N and D, with its shape in R as an option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import numpy as np

from ragscale.errors import ConfigError
from ragscale.fitting.laws._additive import GAIN_SIZE, GainLaw, hill_options, shifted
from ragscale.fitting.laws._base import BASE, powers
from ragscale.fitting.laws._gains import GAINS
from ragscale.fitting.laws._law import GainRate, LawOptions, Parameter, Theta

Shape = Literal["log1p", "power", "hill"]


class ShapedOptions(LawOptions, total=False):
    """What a law with a shape takes further: the scale of a power gain, the exponent of a Hill gain."""

    R0: float | Literal["free"] | None
    exponent: float | Literal["free"]


class ShapedLaw(GainLaw):
    """A law whose gain's shape is an option: h = "log1p", "power" or "hill"."""

    _own: tuple[Parameter, ...] = ()

    def __init__(
        self,
        *,
        h: Shape = "log1p",
        R0: float | Literal["free"] | None = None,
        exponent: float | Literal["free"] = 1.0,
        **options: Unpack[LawOptions],
    ) -> None:
        if h not in {"log1p", "power", "hill"}:
            raise ConfigError(f"{type(self).__name__}: h = {h!r} must be 'log1p', 'power' or 'hill'")
        self.h = h
        self.gain = GAINS[h]
        self.parameters = (*BASE, *self._own, *self.gain.parameters("R"))
        self.free_scale = h == "power" and R0 == "free"
        if h == "power" and R0 is not None and not isinstance(R0, str):
            options["fixed"] = {**(options.get("fixed") or {}), "R0": float(R0)}
        if h == "hill":
            options = hill_options(exponent, options, type(self).__name__)
        super().__init__(**options)

    def options(self) -> dict[str, Any]:
        options = {**super().options(), "h": self.h}
        if self.free_scale:
            options["R0"] = "free"
        if self.h == "hill" and "n" not in self.fixed:
            options["exponent"] = "free"
        return options


class Interaction(ShapedLaw):
    """L = b(N, D) - C N^-nu D^-mu h(R): the gain shrinks (nu > 0) or grows (nu < 0) with the model, and with D.

    Parameters
    ----------
    h : "log1p", "power" or "hill"
        Shape of the gain.
    scale_D : bool
        Fit mu too; otherwise mu = 0.

    References
    ----------
    This library; the additive laws of arXiv 2604.00715 cannot say that small models gain more.
    """

    name = "interaction"
    formula = "E + A N^-alpha + B D^-beta - C N^-nu D^-mu h(R)"
    reference = "this library; nu = mu = 0 are the laws of arXiv 2604.00715"
    _own = (
        GAIN_SIZE,
        Parameter("nu", -1.0, 2.0, description="exponent with which the gain shrinks with N"),
        Parameter("mu", -1.0, 2.0, description="exponent with which the gain shrinks with D"),
    )
    parameters = (*BASE, *_own, *GAINS["log1p"].parameters("R"))

    def __init__(self, *, h: Shape = "log1p", scale_D: bool = False, **options: Unpack[ShapedOptions]) -> None:
        if not scale_D:
            options["fixed"] = {"mu": 0.0, **(options.get("fixed") or {})}
        super().__init__(h=h, **options)

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({} if "mu" in self.fixed else {"scale_D": True})}

    def _without(self, variable: str, store: float = 1.0) -> Mapping[str, float | None] | None:
        own = {"N": "nu", "D": "mu"}.get(variable)
        more = {own: 0.0} if own is not None and own not in self.fixed else {}
        return {**(super()._without(variable, store) or {}), **more} or None

    def _scale(self, theta: Theta, n: np.ndarray, d: np.ndarray) -> Any:
        return np.exp(-theta.nu * np.log(n) - theta.mu * np.log(d))

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        scale = self._scale(theta, n, d)
        return {**super()._columns(theta, n, d, r), "C": -scale * self.gain.value(r, theta)}

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        scale = self._scale(theta, n, d)
        gained = scale * self.gain.value(r, theta)
        slopes = {("C", name): -scale * slope for name, slope in self.gain.slopes(r, theta).items()}
        slopes |= {("C", "nu"): np.log(n) * gained, ("C", "mu"): np.log(d) * gained}
        return {**super()._column_slopes(theta, n, d, r), **slopes}

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        dn, dd, _ = super()._gradient(n, d, r, theta)
        scale = theta.C * self._scale(theta, n, d)
        gained = scale * self.gain.value(r, theta)
        return dn + theta.nu * gained / n, dd + theta.mu * gained / d, -self.gain.sized_rate(scale, r, theta)

    _data_for = GainLaw._data_for
    _gain_limit = GainLaw._gain_limit

    def _gain_rate(self, n: np.ndarray, theta: Theta) -> GainRate | None:
        if np.any(theta.mu != 0) or not self.gain.is_concave(theta):
            return None
        return shifted(self.gain.log_rate(1.0, theta), np.log(theta.C) - theta.nu * np.log(n))


class Multiplicative(ShapedLaw):
    """L = E + (A N^-alpha + B D^-beta) (1 - C h(R)): retrieval removes a share of the reducible loss.

    The gain shrinks as N and D grow. With h = "power" or "hill" the share is at most C; with "log1p" it is not
    bounded, and the law describes the range of the data only.

    Parameters
    ----------
    h : "log1p", "power" or "hill"
        Shape of the gain.
    """

    name = "multiplicative"
    formula = "E + (A N^-alpha + B D^-beta) (1 - C h(R))"
    reference = "this library"
    _own = (Parameter("C", 0.0, 1.0, start=(0.02, 0.6), description="share of the reducible loss that h = 1 removes"),)
    parameters = (*BASE, *_own, *GAINS["log1p"].parameters("R"))

    def _without(self, variable: str, store: float = 1.0) -> Mapping[str, float | None] | None:
        if variable == "D" and self.fixed.get("A") == 0.0:  # B, a constant too, has to stay: the gain is a share of it
            return {"E": 0.0, "B": None, "beta": 0.5}
        return super()._without(variable, store)

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        left = 1.0 - theta.C * self.gain.value(r, theta)
        columns = super()._columns(theta, n, d, r)
        return {"E": columns["E"], "A": columns["A"] * left, "B": columns["B"] * left}

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        h = self.gain.value(r, theta)
        left = 1.0 - theta.C * h
        a, b = powers(theta, n, d)
        slopes: dict[tuple[str, str], Any] = {
            key: s * left for key, s in super()._column_slopes(theta, n, d, r).items()
        }
        for name, slope in {"C": h, **{k: theta.C * s for k, s in self.gain.slopes(r, theta).items()}}.items():
            slopes |= {("A", name): -a * slope, ("B", name): -b * slope}
        return slopes

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        dn, dd, _ = super()._gradient(n, d, r, theta)
        a, b = powers(theta, n, d)
        left = 1.0 - theta.C * self.gain.value(r, theta)
        return dn * left, dd * left, -self.gain.sized_rate((theta.A * a + theta.B * b) * theta.C, r, theta)

    _data_for = GainLaw._data_for
    _gain_limit = GainLaw._gain_limit
