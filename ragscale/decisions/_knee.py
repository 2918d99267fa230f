"""Where the curve of loss against pretraining tokens bends; always by a named definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale._renamed import renamed
from ragscale._typing import HitRateLike, Numbers, Words
from ragscale.decisions._arguments import Prices, counts, flatten, read_prices, refuse, scalar
from ragscale.decisions._estimate import quantiles
from ragscale.decisions._surface import Subject, Surface, surface
from ragscale.fitting.laws._law import Theta
from ragscale.results import Result

Definition = Literal["exchange", "curvature", "gain_fraction"]
_NODES = 241
_BEYOND = 1000.0
_BISECTIONS = 60
_MEANING = {
    "exchange": "one more store token is worth as much as one more pretraining token at their prices",
    "curvature": "the loss against ln D bends most",
    "gain_fraction": "pretraining has given the stated fraction of what it can give",
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Knee(Result):
    """A knee in D, with its definition.

    Attributes
    ----------
    definition : str
        ``"exchange"``, ``"curvature"`` or ``"gain_fraction"``; ``meaning`` says it in words.
    N, R, D : float or ndarray
        Parameters, store tokens, and the knee in pretraining tokens.
    D_over_N, loss : float or ndarray
    low, high : float or ndarray
        Percentile interval of D; NaN without a bootstrap.
    status : str or ndarray of str
        ``"found"``; ``"below"``: already past the knee at the smallest D looked at, which is D; ``"above"``: not
        reached at the largest D, which is D.
    found_share : float or ndarray
        Share of the replicates with status "found"; NaN without a bootstrap.
    laws : mapping of str to float or ndarray
        The knee under each law that fits equally well, where there are several.
    looked_at : tuple of float
        The least and the most D that were looked at, over all elements.
    note : str
        What to know, in words; may be empty.
    """

    definition: str
    meaning: str
    N: Numbers
    R: Numbers
    D: Numbers
    D_over_N: Numbers
    loss: Numbers
    low: Numbers
    high: Numbers
    status: Words
    found_share: Numbers
    laws: Mapping[str, Numbers] = field(default_factory=dict)
    looked_at: tuple[float, float] = (0.0, float("inf"))
    note: str = ""

    _picture: ClassVar[str] = "knee"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per element."""
        names = ("N", "R", "D", "D_over_N", "loss", "status", "found_share")
        columns = {k: np.ravel(getattr(self, k)) for k in names}
        columns |= {"D_low": np.ravel(self.low), "D_high": np.ravel(self.high)}
        columns |= {f"D[{law}]": np.ravel(value) for law, value in self.laws.items()}
        return pd.DataFrame({"definition": self.definition, **columns})

    def summary(self) -> str:
        """Say where the knee is, one line per element."""
        lines = [f"knee: the D where {self.meaning}"]
        for i, row in enumerate(self.to_frame().to_dict("records")):
            values = [float(np.ravel(value)[i]) for value in self.laws.values()]
            text = self._place(row)
            if len(values) > 1:
                text += f"; {self._range(min(values), max(values))} across {len(values)} laws that fit equally well"
            lines.append(f"N = {row['N']:.3g}, R = {row['R']:.3g}: {text}")
        return "\n".join([*lines[:21], *([self.note] if self.note else [])])

    def _place(self, row: Any) -> str:
        """Say where the knee is, with its interval; that it cannot be told where these contradict each other."""
        low, high, least = row["D_low"], row["D_high"], row["status"] == "below"
        text = f", interval {self._range(low, high)}" if np.isfinite([low, high]).all() else ""
        everywhere = low <= self.looked_at[0] * (1 + 1e-9) and high >= self.looked_at[1] * (1 - 1e-9)
        if everywhere or (row["status"] != "found" and not low <= row["D"] <= high and text):
            return f"cannot be told{text}"
        if row["status"] == "found":
            return f"D = {row['D']:.3g} tokens ({row['D_over_N']:.3g} per parameter){text}"
        side = "already past it at" if least else "not reached by"
        return f"{side} D = {row['D']:.3g} tokens, the {'least' if least else 'most'} looked at{text}"

    def _range(self, low: float, high: float) -> str:
        """Say a range of D; its ends are no numbers where they are the limits of what was looked at."""
        least, most = self.looked_at[0] * (1 + 1e-9), self.looked_at[1] * (1 - 1e-9)
        if low >= most:
            return f"beyond {low:.3g}"
        if high <= least:
            return f"below {high:.3g}"
        start = f"from below {low:.3g}" if low <= least else f"{low:.3g}"
        return f"{start} to {'beyond ' if high >= most else ''}{high:.3g}"


@renamed("price_ratio", "prices", convert=lambda ratio: {"D": 1.0, "R": ratio})
def knee_point(
    fit_or_bootstrap: Subject,
    *,
    N: ArrayLike,
    budget: ArrayLike | None = None,
    R: ArrayLike = 0.0,
    definition: Definition = "exchange",
    fraction: float = 0.9,
    prices: Prices | None = None,
    min_D: ArrayLike | None = None,
    hit_rate: HitRateLike = None,
) -> Knee:
    r"""Find the knee of pretraining at fixed N and R, by a named definition.

    ``"exchange"``
        The D beyond which one more pretraining token is worth less than one more store token,
        :math:`\rho(N, D, R) = p_R / p_D`; for additive laws
        :math:`D = (\beta B\, p_R / (g'(R)\, p_D))^{1/(\beta+1)}`. At R = 0 this is the onset: retrieval pays for
        budgets above it.
    ``"curvature"``
        Where L(ln D) has its largest curvature :math:`L'' / (1 + L'^2)^{3/2}`, with the loss in its own unit and ln D
        natural; :math:`D = (\sqrt 2\, \beta B)^{1/\beta}` for a base :math:`B D^{-\beta}`. It changes when the loss is
        measured in another unit (bits instead of nats): a property of the picture rather than of the model.
    ``"gain_fraction"``
        The smallest D at which pretraining has given ``fraction`` of the loss it removes between ``min_D`` and
        ``budget``; without a budget, of all that infinite data would remove.

    Parameters
    ----------
    fit_or_bootstrap : ManifoldFit, Bootstrap, or (law, parameters)
    N, R : array-like
        Counts. For "exchange" at R = 0 the worth of the first store token counts.
    budget : array-like, optional
        The largest D looked at; if left out 1,000 times the largest D of the fitted rows, 1e18 tokens for a law with
        given parameters.
    definition : "exchange", "curvature" or "gain_fraction"
    fraction : float
        For "gain_fraction".
    prices : (p_D, p_R), {"D": p_D, "R": p_R}, or None
        What a pretraining token and a store token cost, for "exchange"; None: the same.
    min_D : array-like, optional
        The smallest D looked at: by default the smallest of the fitted data for "gain_fraction", else a tenth of it (1
        for a law with given parameters).

    Returns
    -------
    Knee

    Raises
    ------
    ConfigError
        Listing everything wrong with the arguments.

    Examples
    --------
    >>> import ragscale as rs
    >>> law = {"E": 1.7, "A": 406, "alpha": 0.34, "B": 411, "beta": 0.28, "C": 0.05, "eta": 1e-9}
    >>> knee = rs.knee_point(("log1p", law), N=1e9)
    >>> f"{knee.D:.3g}", knee.status
    ('4.55e+09', 'found')
    """
    found = surface(fit_or_bootstrap, hit_rate=hit_rate)
    found.require("D", "R", N=N)
    if isinstance(definition, str) and definition == "exchange":
        found.require_measured_store("knee_point")
    problems: list[str] = []
    if not isinstance(definition, str) or definition not in _MEANING:
        problems.append(f"definition = {definition!r} must be one of {', '.join(_MEANING)}")
    if isinstance(definition, str) and definition == "gain_fraction" and min_D is None:
        if found.data is None:
            problems.append("definition='gain_fraction' needs min_D, the D that the gain is counted from")
        else:
            min_D = float(np.min(np.asarray(found.data["D"], np.float64)))
    price_d, price_r = read_prices(prices, problems)
    given = counts(
        problems,
        allow_zero=("R",),
        N=N,
        R=R,
        budget=_most_d(found) if budget is None else budget,
        min_D=found.least_D if min_D is None else min_D,
        p_D=price_d,
        p_R=price_r,
        fraction=fraction,
    )
    if not problems and np.any(given["budget"] <= given["min_D"]):
        problems.append("budget, the largest D looked at, must be above min_D")
    if not problems and np.any(given["fraction"] >= 1):
        problems.append("fraction must be in (0, 1)")
    refuse(problems, "knee_point")
    flat, shape = flatten(given)

    def decide(part: Surface) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):
            sign = _FUNCTIONS[definition](part, part.stacked(), flat, budget is None)
            d, status = _first_crossing(sign, np.log(flat["min_D"]), np.log(flat["budget"]))
        return {"D": d, "status": status}

    pooled = found.pooled(decide)
    d, status = pooled.stacked["D"], pooled.stacked["status"]
    found.warn_beyond_data("knee_point", N=flat["N"], D=d[0][status[0] == "found"])
    low, high = quantiles(d, found.confidence_level)
    point = {name: float(value) for name, value in found.theta.items()}
    loss = np.ravel(found.at_point().loss(flat["N"], d[0], flat["R"], point))
    found.check_possible("knee_point", loss)

    def shaped(values: np.ndarray) -> Any:
        return scalar(np.reshape(values, shape))

    share = (status[1:] == "found").mean(axis=0) if len(d) > 1 else np.full(len(flat["N"]), np.nan)
    return Knee(
        definition=definition,
        meaning=_MEANING[definition],
        N=shaped(flat["N"]),
        R=shaped(flat["R"]),
        D=shaped(d[0]),
        D_over_N=shaped(d[0] / flat["N"]),
        loss=shaped(loss),
        low=shaped(low),
        high=shaped(high),
        status=shaped(status[0]),
        found_share=shaped(share),
        laws=pooled.by_law("D", shape),
        looked_at=(float(flat["min_D"].min()), float(flat["budget"].max())),
        note=found.doubt if definition == "exchange" else "",
    )


def _most_d(found: Surface) -> float:
    """Return the largest D that is looked at by default: what lies further out than this no row can tell."""
    measured = found.measured("D")
    return float(_BEYOND * measured.max()) if measured.size else 1e18


Sign = Callable[[np.ndarray], np.ndarray]


def _exchange(found: Surface, theta: Theta, flat: dict[str, np.ndarray], unlimited: bool) -> Sign:
    """Positive where a store token is worth more than its price in pretraining tokens."""

    def sign(x: np.ndarray) -> np.ndarray:
        _, slope_d, slope_r = found.law.gradient(flat["N"], np.exp(x), flat["R"], theta)
        return -slope_r + flat["p_R"] / flat["p_D"] * slope_d

    return sign


def _curvature(found: Surface, theta: Theta, flat: dict[str, np.ndarray], unlimited: bool) -> Sign:
    """Positive right of the largest curvature: minus its derivative."""
    step = 1e-3

    def slope(x: np.ndarray) -> np.ndarray:
        _, slope_d, _ = found.law.gradient(flat["N"], np.exp(x), flat["R"], theta)
        return np.exp(x) * slope_d

    def curvature(x: np.ndarray) -> np.ndarray:
        bend = (slope(x + step) - slope(x - step)) / (2 * step)
        return np.abs(bend) / (1 + slope(x) ** 2) ** 1.5

    return lambda x: curvature(x - step) - curvature(x + step)


def _gain_fraction(found: Surface, theta: Theta, flat: dict[str, np.ndarray], unlimited: bool) -> Sign:
    """Positive where more than the fraction has been gained."""

    def loss(d: np.ndarray) -> np.ndarray:
        return found.law.loss(flat["N"], d, flat["R"], theta)

    start = loss(flat["min_D"])
    end = loss(np.full_like(flat["N"], 1e300)) if unlimited else loss(flat["budget"])
    target = start - flat["fraction"] * (start - end)
    return lambda x: target - loss(np.exp(x))


_FUNCTIONS = {"exchange": _exchange, "curvature": _curvature, "gain_fraction": _gain_fraction}


def _first_crossing(sign: Sign, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first x where a function turns from negative to positive, as exp(x), and what was found."""
    nodes = low + (high - low) * np.linspace(0, 1, _NODES)[:, None]
    positive = np.stack([sign(x) > 0 for x in nodes])
    turns = positive[1:] & ~positive[:-1]
    first = np.argmax(turns, axis=0)
    cell = np.arange(len(low))
    a, b = nodes[first, cell], nodes[first + 1, cell]
    for _ in range(_BISECTIONS):
        middle = 0.5 * (a + b)
        up = sign(middle) > 0
        a, b = np.where(up, a, middle), np.where(up, middle, b)
    found = turns.any(axis=0)
    status = np.where(found, "found", np.where(positive[0], "below", "above"))
    d = np.exp(np.where(found, 0.5 * (a + b), np.where(positive[0], low, high)))
    return d, status
