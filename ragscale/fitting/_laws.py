"""The built-in laws: base b(N, D) = E + A N^-alpha + B D^-beta and what a store of R tokens takes off it.

All have zero gain at R = 0, so rows without retrieval anchor the base. E, A, B, C >= 0; alpha, beta in [0.01, 2].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ragscale.errors import ConfigError
from ragscale.fitting._gains import GAINS, Gain
from ragscale.fitting._law import Parameter, ScalingLaw, SeparableLaw, Theta

_BASE = (
    Parameter("E", 0.0, description="loss that no size, data or store removes"),
    Parameter("A", 0.0, description="coefficient of N^-alpha"),
    Parameter("alpha", 0.01, 2.0, description="exponent of the model size"),
    Parameter("B", 0.0, description="coefficient of D^-beta"),
    Parameter("beta", 0.01, 2.0, description="exponent of the pretraining tokens"),
)
_C = Parameter("C", 0.0, description="size of the gain from retrieval")
Shape = Literal["log1p", "power", "hill"]


def _powers(theta: Theta, n: np.ndarray, d: np.ndarray) -> tuple[Any, Any]:
    return np.exp(-theta.alpha * np.log(n)), np.exp(-theta.beta * np.log(d))


def _flat(values: Any, like: Any) -> Any:
    return values + np.zeros_like(like)


class _BaseLaw(SeparableLaw):
    """The base, with the options that every built-in law shares."""

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        a, b = _powers(theta, n, d)
        return {"E": np.ones_like(n), "A": a, "B": b}

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        a, b = _powers(theta, n, d)
        return {("A", "alpha"): -np.log(n) * a, ("B", "beta"): -np.log(d) * b}

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        a, b = _powers(theta, n, d)
        return -theta.A * theta.alpha * a / n, -theta.B * theta.beta * b / d, np.zeros_like(r)


class Chinchilla(_BaseLaw):
    """L = E + A N^-alpha + B D^-beta, without retrieval.

    References
    ----------
    Hoffmann et al. 2022, arXiv 2203.15556, equation 2; Besiroglu et al. 2024, arXiv 2404.10102.
    """

    name = "chinchilla"
    formula = "E + A N^-alpha + B D^-beta"
    reference = "Hoffmann et al. 2022, arXiv 2203.15556, eq. 2"
    variables = ("N", "D")
    parameters = _BASE


class _GainLaw(_BaseLaw):
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


class _AdditiveLaw(_GainLaw):
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
        return dn, dd, -theta.C * self.gain.rate(r, theta)


class Log1p(_AdditiveLaw):
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
    parameters = (*_BASE, _C, *gain.parameters("R"))


class Power(_AdditiveLaw):
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
    parameters = (*_BASE, _C, *gain.parameters("R"))

    def __init__(self, *, R0: float | Literal["free"] | None = None, **options: Any) -> None:
        self.free_scale = R0 == "free"
        if isinstance(R0, str) and not self.free_scale:
            raise ConfigError(f"Power: R0 = {R0!r} must be a number of tokens, 'free' or None")
        if R0 is not None and not isinstance(R0, str):
            options["fixed"] = {**(options.get("fixed") or {}), "R0": float(R0)}
        super().__init__(**options)

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({"R0": "free"} if self.free_scale else {})}


def _hill_options(exponent: float | Literal["free"], options: dict[str, Any], where: str) -> dict[str, Any]:
    """Fix the exponent of a Hill gain unless it is free or fixed already."""
    if exponent == "free":
        return options
    if isinstance(exponent, str):
        raise ConfigError(f"{where}: exponent = {exponent!r} must be a number or 'free'")
    return {**options, "fixed": {"n": float(exponent), **(options.get("fixed") or {})}}


class Hill(_AdditiveLaw):
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
    parameters = (*_BASE, _C, *gain.parameters("R"))

    def __init__(self, *, exponent: float | Literal["free"] = 1.0, **options: Any) -> None:
        super().__init__(**_hill_options(exponent, options, "Hill"))

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({} if "n" in self.fixed else {"exponent": "free"})}


class Rpower(_AdditiveLaw):
    """L = b(N, D) - C R^g: a plain power of the store; describes the range of the data, do not extrapolate it."""

    name = "rpower"
    formula = "E + A N^-alpha + B D^-beta - C R^g"
    reference = "a power law in R; compare arXiv 2407.12854, figure 1 (near-linear in log R)"
    gain = GAINS["rpower"]
    parameters = (*_BASE, _C, *gain.parameters("R"))


class LogRatio(_AdditiveLaw):
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
    parameters = (*_BASE, _C, *gain.parameters("R/N"))

    def _x(self, n: np.ndarray, r: np.ndarray) -> np.ndarray:
        return r / n

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        dn, dd, _ = _BaseLaw._gradient(self, n, d, r, theta)
        slope = -theta.C * self.gain.rate(r / n, theta)
        return dn - slope * r / n**2, dd, slope / n


class _ShapedLaw(_GainLaw):
    """A law whose gain's shape is an option: h = "log1p", "power" or "hill"."""

    _own: tuple[Parameter, ...] = ()

    def __init__(
        self, *, h: Shape = "log1p", R0: float | Literal["free"] | None = None, exponent: Any = 1.0, **options: Any
    ) -> None:
        if h not in {"log1p", "power", "hill"}:
            raise ConfigError(f"{type(self).__name__}: h = {h!r} must be 'log1p', 'power' or 'hill'")
        self.h = h
        self.gain = GAINS[h]
        self.parameters = (*_BASE, *self._own, *self.gain.parameters("R"))
        self.free_scale = h == "power" and R0 == "free"
        if h == "power" and R0 is not None and not isinstance(R0, str):
            options["fixed"] = {**(options.get("fixed") or {}), "R0": float(R0)}
        if h == "hill":
            options = _hill_options(exponent, options, type(self).__name__)
        super().__init__(**options)

    def options(self) -> dict[str, Any]:
        options = {**super().options(), "h": self.h}
        if self.free_scale:
            options["R0"] = "free"
        if self.h == "hill" and "n" not in self.fixed:
            options["exponent"] = "free"
        return options


class Interaction(_ShapedLaw):
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
        _C,
        Parameter("nu", -1.0, 2.0, description="exponent with which the gain shrinks with N"),
        Parameter("mu", -1.0, 2.0, description="exponent with which the gain shrinks with D"),
    )
    parameters = (*_BASE, *_own, *GAINS["log1p"].parameters("R"))

    def __init__(self, *, h: Shape = "log1p", scale_D: bool = False, **options: Any) -> None:
        if not scale_D:
            options["fixed"] = {"mu": 0.0, **(options.get("fixed") or {})}
        super().__init__(h=h, **options)

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({} if "mu" in self.fixed else {"scale_D": True})}

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
        return dn + theta.nu * gained / n, dd + theta.mu * gained / d, -scale * self.gain.rate(r, theta)


class EffectiveData(_BaseLaw):
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
        *_BASE,
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

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        dn, dd, _ = super()._gradient(n, d + theta.eta * r, r, theta)
        return dn, dd, theta.eta * dd


class Multiplicative(_ShapedLaw):
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
    parameters = (*_BASE, *_own, *GAINS["log1p"].parameters("R"))

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        left = 1.0 - theta.C * self.gain.value(r, theta)
        columns = super()._columns(theta, n, d, r)
        return {"E": columns["E"], "A": columns["A"] * left, "B": columns["B"] * left}

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        h = self.gain.value(r, theta)
        left = 1.0 - theta.C * h
        a, b = _powers(theta, n, d)
        slopes: dict[tuple[str, str], Any] = {
            key: s * left for key, s in super()._column_slopes(theta, n, d, r).items()
        }
        for name, slope in {"C": h, **{k: theta.C * s for k, s in self.gain.slopes(r, theta).items()}}.items():
            slopes |= {("A", name): -a * slope, ("B", name): -b * slope}
        return slopes

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        dn, dd, _ = super()._gradient(n, d, r, theta)
        a, b = _powers(theta, n, d)
        left = 1.0 - theta.C * self.gain.value(r, theta)
        return dn * left, dd * left, -(theta.A * a + theta.B * b) * theta.C * self.gain.rate(r, theta)


BUILT_IN: tuple[type[ScalingLaw], ...] = (
    Chinchilla,
    Log1p,
    Power,
    Hill,
    Rpower,
    LogRatio,
    Interaction,
    EffectiveData,
    Multiplicative,
)


def make_law(law: str | ScalingLaw, options: Mapping[str, Any] | None = None) -> ScalingLaw:
    """Return a law from its name in the catalogue, or the law itself."""
    from ragscale.fitting._catalogue import law_classes

    if isinstance(law, ScalingLaw):
        return law
    if isinstance(law, type) and issubclass(law, ScalingLaw):
        return law(**(options or {}))
    classes = law_classes()
    if law not in classes:
        raise ConfigError(
            f"law = {law!r} is not known; give a ScalingLaw or one of {', '.join(sorted(classes))}, see catalogue()"
        )
    return classes[law](**(options or {}))
