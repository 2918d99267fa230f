"""Models begin to read at a threshold in D; from there a passage with the answer is worth a constant."""

from __future__ import annotations

from typing import Any, Literal, Unpack

import numpy as np

from ragscale.errors import ConfigError
from ragscale.fitting.laws._base import BASE, BaseLaw, powers
from ragscale.fitting.laws._law import LawOptions, Parameter, ScalingLaw, SeparableLaw, Theta


class EvidenceLaw(BaseLaw):
    """A law that reads what was shown: the column ``hit_rate`` is the share of questions whose answer it holds.

    A passage is shown where R > 0, and where ``hit_rate`` > 0 although R = 0 (a gold passage needs no store).
    """

    variables = ("N", "D", "R", "hit_rate")

    def _shown(self, r: np.ndarray) -> np.ndarray:
        return (r > 0) | (self.column("hit_rate", r) > 0)

    def _shares(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of questions that read a passage with the answer, and one without."""
        rate = self.column("hit_rate", r)
        shown = (r > 0) | (rate > 0)
        return np.where(shown, rate, 0.0), np.where(shown, 1.0 - rate, 0.0)


class Reading(EvidenceLaw):
    """L = b(N, D) - s(N, D) (leap + [a passage is shown] (h gold + (1 - h) other)), s a threshold in D.

    s = 1 / (1 + (D0 (N / N_ref)^c / D)^k) is the skill of reading, between 0 and 1: a model of N_ref parameters reads
    half after D0 tokens. h is the column ``hit_rate``, the share of questions whose answer stands in the passages
    shown; the retriever gives it for every store without any model. ``leap`` is what the loss without a passage falls
    by at the same threshold, since copying helps there too. With s = 1 everywhere this is `Coverage` with constant
    gains, with D0 beyond all data it is `Chinchilla`.

    Parameters
    ----------
    c : float or "free"
        How the threshold moves with the size; "free" fits it.
    leap : bool
        Whether the loss without a passage falls at the threshold too.
    N_ref : float, optional
        Size that D0 belongs to; by default the power of ten nearest to the geometric mean of the sizes.

    References
    ----------
    The form and its evidence: docs/maths/reading.md. That copying from the context appears at a threshold in training:
    Olsson et al. 2022, arXiv 2209.11895; in steps, arXiv 2511.16893.

    Examples
    --------
    >>> theta = {"E": 2, "A": 0, "alpha": 0.3, "B": 0, "beta": 0.3, "D0": 1e7, "c": 0, "k": 4, "leap": 0.1,
    ...          "gold": 1.5, "other": -0.2}
    >>> law = Reading(N_ref=1e7)
    >>> law.loss(1e7, [1e6, 1e7, 1e8], 1e6, theta, hit_rate=0.5).round(3)
    array([2.   , 1.625, 1.25 ])
    """

    name = "reading"
    formula = (
        "E + A N^-alpha + B D^-beta - s(N,D) (leap + [R>0] (h gold + (1-h) other)), s = 1/(1 + (D0 (N/N_ref)^c / D)^k)"
    )
    shared_by_default = ("D0", "c", "k")
    reference = "this library; total expectation over hits and misses, times a threshold in D"
    parameters = (
        *BASE,
        Parameter(
            "D0",
            1 / 32,
            32,
            unit="D",
            log=True,
            start=(0.25, 4),
            description="tokens at which a model of N_ref reads half",
        ),
        Parameter("c", -1.5, 1.5, start=(-0.5, 0.5), description="D0 grows as (N / N_ref)^c"),
        Parameter("k", 0.5, 16, log=True, start=(1, 8), description="steepness of the threshold in ln D"),
        Parameter("N_ref", 1e-3, 1e3, unit="N", log=True, description="size that D0 belongs to"),
        Parameter("leap", 0, description="what the loss without a passage falls by at the threshold"),
        Parameter("gold", description="gain of a reader by a passage that holds the answer"),
        Parameter("other", description="gain of a reader by a passage without the answer; negative: a cost"),
    )

    def __init__(
        self,
        *,
        c: float | Literal["free"] = "free",
        leap: bool = True,
        N_ref: float | None = None,
        **options: Unpack[LawOptions],
    ) -> None:
        held = {} if leap else {"leap": 0.0}
        if isinstance(c, str) and c != "free":
            raise ConfigError(f"Reading: c = {c!r} must be a number or 'free'")
        if not isinstance(c, str):
            held["c"] = float(c)
        if N_ref is not None:
            if not N_ref > 0:
                raise ConfigError(f"Reading: N_ref = {N_ref!r} must be a positive number of parameters")
            held["N_ref"] = float(N_ref)
        options["fixed"] = {**held, **(options.get("fixed") or {})}
        super().__init__(**options)

    def _resolve(self, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> ScalingLaw:
        """Settle N_ref at the power of ten nearest to the typical size, unless it is given."""
        if "N_ref" in self.fixed or "N_ref" in self.tied:
            return self
        return self.replace(fixed={**self.fixed, "N_ref": 10.0 ** round(float(np.mean(np.log10(n))))})

    def skill(self, theta: Theta, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Return s(N, D), how much of the gain a model realises."""
        return _logistic(theta.k * self._excess(theta, n, d))

    def threshold(self, theta: Theta, n: np.ndarray) -> np.ndarray:
        """Return the D at which a model of N parameters reads half."""
        return theta.D0 * np.exp(theta.c * np.log(n / theta.N_ref))

    def _excess(self, theta: Theta, n: np.ndarray, d: np.ndarray) -> Any:
        return np.log(d / theta.D0) - theta.c * np.log(n / theta.N_ref)

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        hit, miss = self._shares(r)
        s = self.skill(theta, n, d)
        return {**super()._columns(theta, n, d, r), "leap": -s, "gold": -s * hit, "other": -s * miss}

    def _columns_and_slopes(
        self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray
    ) -> tuple[dict[str, Any], dict[tuple[str, str], Any] | None]:
        hit, miss = self._shares(r)
        a, b = powers(theta, n, d)
        x = self._excess(theta, n, d)
        s = _logistic(theta.k * x)
        columns = {"E": np.ones_like(n), "A": a, "B": b, "leap": -s, "gold": -s * hit, "other": -s * miss}
        bend = s * (1.0 - s)
        size = np.log(n / theta.N_ref)
        by = {
            "D0": bend * (theta.k / theta.D0),
            "c": bend * (theta.k * size),
            "k": -bend * x,
            "N_ref": -bend * (theta.k * theta.c / theta.N_ref),
        }
        slopes: dict[tuple[str, str], Any] = {("A", "alpha"): -np.log(n) * a, ("B", "beta"): -np.log(d) * b}
        for name, slope in by.items():
            slopes |= {("leap", name): slope, ("gold", name): slope * hit, ("other", name): slope * miss}
        return columns, slopes

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        return self._columns_and_slopes(theta, n, d, r)[1] or {}

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        by_n, by_d, _ = super()._gradient(n, d, r, theta)
        hit, miss = self._shares(r)
        s = self.skill(theta, n, d)
        bend = s * (1.0 - s) * theta.k * (theta.leap + hit * theta.gold + miss * theta.other)
        by_r = -s * (theta.gold - theta.other) * self.column_slope("hit_rate", r)
        return by_n + bend * theta.c / n, by_d - bend / d, by_r

    def _gain_limit(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> np.ndarray | None:
        hit = self.column("hit_rate", np.full(np.shape(n * d), 1e300))
        return self.skill(theta, n, d) * (hit * theta.gold + (1.0 - hit) * theta.other)


class ReadingGain(SeparableLaw):
    """L = closed - s(N, D) (h gold + (1 - h) other): the gain alone, for checkpoints whose closed book is measured.

    ``closed`` is that loss, a column. What a model's training did to all of its rows is in it, so the gain is fitted by
    comparison within models.
    """

    name = "reading_gain"
    formula = "closed - s(N,D) (h gold + (1-h) other), s = 1/(1 + (D0 (N/N_ref)^c / D)^k)"
    reference = "the law reading, without its base"
    variables = ("N", "D", "R", "hit_rate", "closed")
    parameters = (
        Parameter("one", 1.0, 1.0, description="coefficient of the closed book"),
        *(p for p in Reading.parameters if p.name in {"D0", "c", "k", "N_ref", "gold", "other"}),
    )

    def __init__(self, **options: Unpack[LawOptions]) -> None:
        options["fixed"] = {"one": 1.0, **(options.get("fixed") or {})}
        super().__init__(**options)

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        hit = self.column("hit_rate", r)
        s = _logistic(theta.k * (np.log(d / theta.D0) - theta.c * np.log(n / theta.N_ref)))
        return {"one": self.column("closed"), "gold": -s * hit, "other": -s * (1.0 - hit)}


def _logistic(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -500.0, 500.0)))
