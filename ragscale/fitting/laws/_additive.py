"""Laws whose gain is added to the base: L = b(N, D) - C h(x), with no gain at R = 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack

import numpy as np

from ragscale.errors import ConfigError
from ragscale.fitting.laws._base import BASE, BaseLaw, separable_optimum
from ragscale.fitting.laws._gains import GAINS, Gain
from ragscale.fitting.laws._law import GainRate, LawOptions, Parameter, ScalingLaw, Theta

GAIN_SIZE = Parameter("C", 0.0, description="size of the gain from retrieval")


def middle(parameter: Parameter) -> float:
    """Return the middle of the range in which a parameter is searched, in its own unit."""
    low, high = parameter.start or (parameter.lower, parameter.upper)
    return math.sqrt(low * high) if parameter.log else 0.5 * (low + high)


class GainLaw(BaseLaw):
    """A law whose gain has one of the shapes of `Gain`; ``x`` is what the shape is a function of."""

    gain: Gain
    unit = "R"

    def _resolve(self, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> ScalingLaw:
        """Fix R0 of a power gain at the power of ten nearest to the typical store, unless it is given or free."""
        if self.gain.name != "power" or "R0" in self.fixed or "R0" in self.tied or getattr(self, "free_scale", False):
            return self
        stores = r[r > 0]
        typical = 10.0 ** round(float(np.mean(np.log10(stores)))) if stores.size else 1e9
        return self.replace(fixed={**self.fixed, "R0": typical})

    def _without(self, variable: str, store: float = 1.0) -> Mapping[str, float | None] | None:
        if variable != "R" or self.unit != "R":
            return super()._without(variable, store)
        free = {p.name for p in self.free}
        shape = [p for p in self.gain.parameters("R") if p.name in free]
        held = {p.name: middle(p) * p.unit_value({"N": 1.0, "D": 1.0, "R": store}) for p in shape}
        return {"C": None, **held} if held else None

    def _gain_limit(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> np.ndarray | None:
        half = self.gain.half_point(theta)
        if half is None or self.unit != "R":
            return None
        none = self.loss(n, d, np.zeros_like(n), theta)
        offset = theta.offset if self.offset else 0.0
        # the gain is proportional to h, and h = 1/2 here
        return 2 * (none + offset - self.loss(n, d, half + 0 * n, theta)) - offset


class AdditiveLaw(GainLaw):
    """L = b(N, D) - C h(x)."""

    def _x(self, n: np.ndarray, r: np.ndarray) -> np.ndarray:
        return r

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        return {**super()._columns(theta, n, d, r), "C": -self.gain.value(self._x(n, r), theta)}

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        gain = self.gain.slopes(self._x(n, r), theta)
        return {**super()._column_slopes(theta, n, d, r), **{("C", name): -slope for name, slope in gain.items()}}

    def _columns_and_slopes(
        self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray
    ) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
        columns = self._columns(theta, n, d, r)
        gain = self.gain.slopes(self._x(n, r), theta)
        slopes = {("A", "alpha"): -np.log(n) * columns["A"], ("B", "beta"): -np.log(d) * columns["B"]}
        return columns, {**slopes, **{("C", name): -slope for name, slope in gain.items()}}

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        dn, dd, _ = super()._gradient(n, d, r, theta)
        return dn, dd, -self.gain.sized_rate(theta.C, r, theta)

    def _gain_rate(self, n: np.ndarray, theta: Theta) -> GainRate | None:
        if not self.gain.is_concave(theta):
            return None
        return shifted(self.gain.log_rate(1.0 if self.unit == "R" else n, theta), np.log(theta.C))

    _data_for = BaseLaw._data_for
    _gain_limit = GainLaw._gain_limit

    def _compute_optimum(self, compute: np.ndarray, theta: Theta) -> np.ndarray | None:
        return separable_optimum(compute, theta) if self.unit == "R" else None

    @property
    def gain_depends_on_N(self) -> bool:
        return self.unit != "R"


def shifted(rate: GainRate, by: Any) -> GainRate:
    """Return a rate with a constant added to its logarithm."""

    def with_constant(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, bend = rate(r)
        return value + by, bend

    return with_constant


class Log1p(AdditiveLaw):
    """L = b(N, D) - C ln(1 + eta R): the paper's main form. The gain grows without bound.

    eta -> 0 is a linear gain C eta R. The best split of a budget is the same for every N.

    References
    ----------
    arXiv 2604.00715, equation 2 (there in billions of tokens).
    """

    name = "log1p"
    formula = "E + A N^-alpha + B D^-beta - C ln(1 + eta R)"
    reference = "arXiv 2604.00715, eq. 2"
    gain = GAINS["log1p"]
    parameters = (*BASE, GAIN_SIZE, *gain.parameters("R"))


class Power(AdditiveLaw):
    """L = b(N, D) - C (1 - (1 + R/R0)^-gamma): the gain saturates at C.

    Parameters
    ----------
    R0 : float, "free" or None
        Scale of the store in tokens. None takes the power of ten nearest to the geometric mean of the stores (1e9 on
        the paper's grid), because gamma and R0 together are weakly determined; "free" fits it.

    References
    ----------
    arXiv 2604.00715, power form; there C (R + 1)^-gamma, which is C, not 0, without retrieval. This is the same curve
    with E shifted by C.
    """

    name = "power"
    formula = "E + A N^-alpha + B D^-beta - C (1 - (1 + R/R0)^-gamma)"
    reference = "arXiv 2604.00715, power form, made zero at R = 0"
    gain = GAINS["power"]
    parameters = (*BASE, GAIN_SIZE, *gain.parameters("R"))

    def __init__(self, *, R0: float | Literal["free"] | None = None, **options: Unpack[LawOptions]) -> None:
        self.free_scale = R0 == "free"
        if isinstance(R0, str) and not self.free_scale:
            raise ConfigError(f"Power: R0 = {R0!r} must be a number of tokens, 'free' or None")
        if R0 is not None and not isinstance(R0, str):
            options["fixed"] = {**(options.get("fixed") or {}), "R0": float(R0)}
        super().__init__(**options)

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({"R0": "free"} if self.free_scale else {})}


def hill_options(exponent: float | Literal["free"], options: LawOptions, where: str) -> LawOptions:
    """Fix the exponent of a Hill gain unless it is free or fixed already."""
    if exponent == "free":
        return options
    if isinstance(exponent, str):
        raise ConfigError(f"{where}: exponent = {exponent!r} must be a number or 'free'")
    return {**options, "fixed": {"n": float(exponent), **(options.get("fixed") or {})}}


class Hill(AdditiveLaw):
    """L = b(N, D) - C R^n / (R^n + K^n): the gain saturates at C, half of it at R = K.

    Parameters
    ----------
    exponent : float or "free"
        n; 1 by default, as the paper fits it. "free" fits it in [0.3, 4]; above 1 the gain starts convex.

    References
    ----------
    arXiv 2604.00715, Hill form.
    """

    name = "hill"
    formula = "E + A N^-alpha + B D^-beta - C R^n / (R^n + K^n)"
    reference = "arXiv 2604.00715, Hill form"
    gain = GAINS["hill"]
    parameters = (*BASE, GAIN_SIZE, *gain.parameters("R"))

    def __init__(self, *, exponent: float | Literal["free"] = 1.0, **options: Unpack[LawOptions]) -> None:
        super().__init__(**hill_options(exponent, options, "Hill"))

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({} if "n" in self.fixed else {"exponent": "free"})}


class Rpower(AdditiveLaw):
    """L = b(N, D) - C R^g: a plain power of the store; describes the range of the data, do not extrapolate it."""

    name = "rpower"
    formula = "E + A N^-alpha + B D^-beta - C R^g"
    reference = "a power law in R; compare arXiv 2407.12854, figure 1 (near-linear in log R)"
    gain = GAINS["rpower"]
    parameters = (*BASE, GAIN_SIZE, *gain.parameters("R"))


class LogRatio(AdditiveLaw):
    """L = b(N, D) - C ln(1 + eta R/N): the store counts relative to the model, so small models gain more.

    References
    ----------
    arXiv 2604.00715, code of the form "interactionlog" (there R + 1).
    """

    name = "log_ratio"
    formula = "E + A N^-alpha + B D^-beta - C ln(1 + eta R/N)"
    reference = "arXiv 2604.00715, form 'interactionlog' of the code, made zero at R = 0"
    gain = GAINS["log1p"]
    unit = "R/N"
    parameters = (*BASE, GAIN_SIZE, *gain.parameters("R/N"))

    def _x(self, n: np.ndarray, r: np.ndarray) -> np.ndarray:
        return r / n

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        dn, dd, _ = BaseLaw._gradient(self, n, d, r, theta)
        slope = -self.gain.sized_rate(theta.C, r / n, theta)
        return dn - slope * r / n**2, dd, slope / n
