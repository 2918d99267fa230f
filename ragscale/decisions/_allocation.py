"""The best split of a token budget between pretraining and the store."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale._typing import HitRateLike, Numbers, Words
from ragscale.decisions._allocation_words import sentences
from ragscale.decisions._arguments import Prices, counts, flatten, read_prices, refuse, scalar
from ragscale.decisions._estimate import quantiles
from ragscale.decisions._near_optimal import near_optimal
from ragscale.decisions._regret import Regret, law_table
from ragscale.decisions._split import best_split
from ragscale.decisions._surface import SETTLED, Pooled, Subject, Surface, surface
from ragscale.results import Result

_NOWHERE = 10_000.0  # times the largest D or store: a budget is the user's own, and often far from the pilot's
_MOST_SHOWN = 1_000  # budgets for which the near-optimal range and the table of laws are computed


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Allocation(Result):
    """The best split of each budget, with intervals when it comes from a bootstrap.

    All arrays have the shape that the arguments broadcast to; scalars for scalar arguments. Where several laws fit the
    data equally well, the split minimises their weighted mean, and ``laws`` and ``regret`` say what is at stake.

    Attributes
    ----------
    N, budget : float or ndarray
        Parameters, and what was to be spent: tokens (at prices other than 1, in units of the price), or FLOPs.
    D, R : float or ndarray
        Pretraining tokens and store tokens.
    share : float or ndarray
        The part of the spending that goes to the store: R / budget for equal prices. From `compute_optimal` it is the
        part of the tokens, R / (D + R).
    loss : float or ndarray
        The law's loss at the optimum (for several laws the metric, signed so that lower is better); ``value`` is the
        metric that the link makes of it.
    gain : float or ndarray
        How much lower this loss is than that of spending everything on pretraining; 0 where R = 0.
    improvement : float or ndarray
        The same in the unit of the metric, whatever the link; positive is better.
    exchange_rate : float or ndarray
        Pretraining tokens that one more store token replaces, at the optimum; p_R / p_D inside.
    boundary : str or ndarray of str
        ``"interior"``, or the limit that the optimum lies at: ``"R=0"``, ``"R=max"``, ``"D=min"``, ``"D=max"``,
        ``"R=min"`` (an arbitrarily small store is best), and for `compute_optimal` ``"N=min"``, ``"N=max"``.
    prices : tuple of float
        (p_D, p_R).
    replicates : dict of ndarray
        ``N, D, R, share, loss, improvement`` over the bootstrap, (n_replicates, ...); empty without one.
    boundary_share : dict of ndarray
        Share of the replicates at each boundary, by its name; empty without a bootstrap.
    laws : DataFrame
        One row per law and budget where several laws fit: ``law, weight, N, budget, D, R, share, loss, boundary`` of
        its own best, and ``regret``: what the recommended one costs under it. Empty for a single law.
    regret : Regret or None
        Expected and worst loss of the recommended split over the laws, in the unit of the metric and in percent of the
        gain that a store can bring; None for a single law.
    near_optimal : DataFrame
        Ranges of D whose predicted metric is within ``within`` of the best: ``N, budget, D_low, D_high, R_low, R_high,
        share_low, share_high, within``; two flat minima are two rows.
    confidence_level : float
    budget_unit : str
        ``"tokens"`` or ``"FLOPs"``.
    metric : str
        What was measured; empty where the table does not say.
    rises : bool
        Whether a higher metric is better.
    verdict : str
        The kind of the fit's `Verdict`; empty for a law with given parameters.
    store : str or ndarray of str
        What the law says of a store of the whole budget beside all of the pretraining: ``"helps"``,
        ``"does not help"``, or ``"excluded"`` by ``max_R`` = 0.
    note : str
        What to know, in words; may be empty.
    """

    _picture: ClassVar[str] = "splits"

    N: Numbers
    budget: Numbers
    D: Numbers
    R: Numbers
    share: Numbers
    loss: Numbers
    value: Numbers
    gain: Numbers
    exchange_rate: Numbers
    boundary: Words
    improvement: Numbers = float("nan")
    prices: tuple[Numbers, Numbers] = (1.0, 1.0)
    replicates: Mapping[str, np.ndarray] = field(default_factory=dict)
    boundary_share: Mapping[str, Numbers] = field(default_factory=dict)
    laws: pd.DataFrame = field(default_factory=pd.DataFrame)
    regret: Regret | None = None
    near_optimal: pd.DataFrame = field(default_factory=pd.DataFrame)
    confidence_level: float = 0.95
    budget_unit: str = "tokens"
    metric: str = ""
    rises: bool = False
    verdict: str = ""
    store: Words = "helps"
    note: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.regret, tuple):  # a file gives back a plain one
            object.__setattr__(self, "regret", Regret(*self.regret))

    def interval(self, name: str) -> tuple[Numbers, Numbers]:
        """Return (low, high) of ``"N"``, ``"D"``, ``"R"``, ``"share"``, ``"loss"`` or ``"improvement"``.

        Raises
        ------
        ConfigError
            Without a bootstrap, or for another name.
        """
        if name not in self.replicates:
            known = ", ".join(self.replicates) or "none, because this comes from a fit: rs.bootstrap(fit) gives them"
            refuse([f"there is no interval of {name!r}; there are: {known}"], "Allocation")
        values = self.replicates[name]
        low, high = quantiles(np.concatenate([values[:1], values]), self.confidence_level)
        return scalar(low), scalar(high)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per budget, with ``<name>_low``, ``<name>_high`` and ``at_boundary`` from a bootstrap."""
        names = ("N", "budget", "D", "R", "share", "loss", "value", "gain", "improvement", "exchange_rate", "boundary")
        size = np.size(self.share)
        columns = {name: np.broadcast_to(np.ravel(getattr(self, name)), size) for name in names}
        for name in self.replicates:
            low, high = self.interval(name)
            if np.any(low != high) or name != "N":
                columns |= {f"{name}_low": np.ravel(low), f"{name}_high": np.ravel(high)}
        if self.boundary_share:
            inside = self.boundary_share.get("interior", np.zeros(np.shape(self.share)))
            columns["at_boundary"] = np.ravel(1.0 - np.asarray(inside))
        return pd.DataFrame(columns)

    def summary(self) -> str:
        """Return the decision in words, one line per budget."""
        return "\n".join(filter(None, [*sentences(self)[:20], self.note]))

    def _repr_html_(self) -> str:
        words = "<br>".join(html.escape(line) for line in self.summary().splitlines())
        return f"<p>{words}</p>" + self.to_frame().to_html(max_rows=30)


def optimal_allocation(
    fit_or_bootstrap: Subject,
    *,
    N: ArrayLike,
    budget: ArrayLike,
    prices: Prices | None = None,
    min_D: ArrayLike | None = None,
    max_D: ArrayLike | None = None,
    max_R: ArrayLike | None = None,
    hit_rate: HitRateLike = None,
    within: float | None = None,
) -> Allocation:
    r"""Split a token budget between pretraining and the store so that the loss is lowest.

    .. math:: \min_{D, R \ge 0} L(N, D, R) \quad \text{subject to} \quad p_D D + p_R R \le T

    Inside, the optimum has exchange rate p_R / p_D: for log1p,
    :math:`\beta B D^{-\beta-1} / p_D = C \eta / ((1 + \eta R) p_R)`. A corner is reported as a corner: R = 0 exactly
    when the first store token is worth less than it costs, :math:`C \eta / p_R \le \beta B (T/p_D)^{-\beta-1} / p_D`.
    With the additive laws (log1p, power, hill, rpower) the split is the same for every N.

    Where the gain is concave the loss is convex along the budget and its one stationary point is found by safeguarded
    Newton steps; for all other laws (a Hill exponent above 1, gains that depend on D, a law of your own) all stationary
    points are bracketed and compared with both ends.

    Of a comparison, and of a fit whose law was chosen by ``law="auto"``, every law that the data cannot tell apart
    counts by its weight: the split minimises the weighted mean of what they predict, the replicates are drawn from all
    of them, and ``laws``, ``regret`` say how much they disagree.

    Parameters
    ----------
    fit_or_bootstrap : ManifoldFit, Bootstrap, Comparison, or (law, parameters)
        With a bootstrap every replicate is allocated too.
    N : array-like
        Parameters.
    budget : array-like
        T; broadcasts against N. Tokens for prices of 1.
    prices : (p_D, p_R), {"D": p_D, "R": p_R}, or None
        Cost of one pretraining token and one store token; each may be an array. None is (1, 1).
    max_D, max_R : array-like, optional
        How many unique tokens there are. If both are reached the budget is not spent.
    min_D : array-like, optional
        The least to pretrain on, tokens. By default a tenth of the smallest D that was measured, because no fit knows
        what lies far below it; 1 for a law with given parameters.
    hit_rate : HitRateCurve, callable of R, number or table, optional
        h(R), for laws that read it; by default the curve that the fit carries.
    within : float, optional
        How much worse than the best a split of ``near_optimal`` may be, in the unit of the metric; by default half of
        the fit's median absolute residual, for a law with given parameters 0.2 % of the best value.

    Returns
    -------
    Allocation

    Raises
    ------
    ConfigError
        Listing everything wrong with the arguments.
    FitError
        When the fit predicts a metric at the optimum that cannot be, such as a loss below zero, or the optimum lies
        more than 10,000 times outside of the fitted D or R.

    Warns
    -----
    ExtrapolationWarning
        When the answer lies more than tenfold outside the fitted N, D or R.

    Examples
    --------
    >>> import ragscale as rs
    >>> law = {"E": 1.7, "A": 406, "alpha": 0.34, "B": 411, "beta": 0.28, "C": 0.05, "eta": 1e-9}
    >>> best = rs.optimal_allocation(("log1p", law), N=1e9, budget=[2e9, 50e9])
    >>> best.boundary
    array(['R=0', 'interior'], ...)
    >>> best.share.round(3)
    array([0.   , 0.268])
    >>> print(best.summary().splitlines()[0])
    N = 1e+09, 2e+09 tokens: a store does not pay here; spend everything on pretraining (its first token replaces ...

    References
    ----------
    The law and its forms: arXiv 2604.00715, equation 2. The paper computes no allocation.
    """
    found = surface(fit_or_bootstrap, hit_rate=hit_rate)
    found.require("D", "R", N=N)
    problems: list[str] = []
    price_d, price_r = read_prices(prices, problems)
    least = found.least_D if min_D is None else min_D
    given = counts(problems, allow_zero=("max_R",), N=N, budget=budget, min_D=least, **_caps(max_D, max_R))
    if within is not None and (
        isinstance(within, bool) or not (isinstance(within, (int, float)) and 0 < within < np.inf)
    ):
        problems.append(f"within = {within!r} must be a positive number, in the unit of the metric")
    if not problems:
        given |= counts(problems, p_D=price_d, p_R=price_r)
    if not problems:
        if min_D is None:  # a budget too small for the default limit is spent on pretraining
            given["min_D"] = np.minimum(given["min_D"], 0.5 * given["budget"] / given["p_D"])
            given["min_D"] = np.minimum(given["min_D"], given.get("max_D", np.inf))
        problems += _infeasible(given)
    refuse(problems, "optimal_allocation")
    flat, shape = flatten(given)
    return allocate(found, flat, shape, "optimal_allocation", within=within)


def _caps(max_D: Any, max_R: Any) -> dict[str, Any]:
    return {k: v for k, v in (("max_D", max_D), ("max_R", max_R)) if v is not None}


def _infeasible(given: dict[str, np.ndarray]) -> list[str]:
    problems = []
    if np.any(given["budget"] < given["p_D"] * given["min_D"]):
        problems.append("a budget does not even pay for min_D; raise it, or lower min_D")
    if "max_D" in given and np.any(given["max_D"] < given["min_D"]):
        problems.append("max_D is below min_D")
    return problems


def allocate(
    found: Surface, flat: dict[str, np.ndarray], shape: tuple[int, ...], where: str, *, within: float | None = None
) -> Allocation:
    """Allocate flat, checked arguments for the point estimate, every replicate and every law."""
    settled = settled_verdict(found)

    def decide(part: Surface) -> dict[str, np.ndarray]:
        theta = part.stacked()
        if settled:
            limits = {**flat, "max_R": np.zeros_like(flat["N"])}
            r, d, boundary = best_split(part.law, theta, **limits)
        else:
            r, d, boundary = best_split(part.law, theta, **flat)
        n = np.broadcast_to(flat["N"], r.shape)
        all_in = np.broadcast_to(np.minimum(flat["budget"] / flat["p_D"], flat.get("max_D", np.inf)), r.shape)
        losses = {"loss": part.law.loss(n, d, r, theta), "without": part.law.loss(n, all_in, 0 * r, theta)}
        return {"N": n, "D": d, "R": r, "boundary": boundary, **losses}

    pooled = found.pooled(decide)
    point = {name: values[0] for name, values in pooled.stacked.items()}
    found.refuse_nowhere(where, times=_NOWHERE, D=point["D"], R=point["R"])
    far = found.warn_beyond_data(where, N=point["N"], D=point["D"], R=point["R"])
    note = "\n".join(filter(None, [settled or open_verdict(found), extrapolated(far)]))
    return assemble(found, pooled, flat=flat, shape=shape, where=where, note=note, within=within)


def extrapolated(far: str) -> str:
    """Return a sentence on how far outside of the rows a decision lies; nothing where it does not."""
    return f"This extrapolates: {far} of the rows." if far else ""


def _of_a_store(law: Any, theta: Any, n: np.ndarray, d: np.ndarray, flat: dict[str, np.ndarray]) -> np.ndarray:
    """Say whether a store that cost nothing would help, (M,)."""
    most = flat.get("max_R", np.full(n.shape, np.inf))
    with np.errstate(all="ignore"):
        whole = np.minimum(np.where(flat["p_R"] > 0, flat["budget"] / flat["p_R"], d), most)
        helps = law.loss(n, d, whole, theta) < law.loss(n, d, np.zeros_like(n), theta)
    return np.select([most <= 0, np.ravel(helps)], ["excluded", "helps"], "does not help")


def verdict_kind(found: Surface) -> str:
    """Return the kind of verdict of the fit behind a surface; empty for a law with given parameters."""
    return "" if found.source is None else str(found.source.verdict.kind)


def settled_verdict(found: Surface) -> str:
    """Return the words of a verdict that settles the split by itself: nothing helps, or nobody reads; else nothing."""
    verdict = getattr(found.source, "verdict", None)
    return verdict.text if verdict is not None and verdict.kind in SETTLED else ""


def open_verdict(found: Surface) -> str:
    """Return the words of a verdict that leaves open whether retrieval helps at all; else nothing."""
    verdict = getattr(found.source, "verdict", None)
    return verdict.text if verdict is not None and verdict.kind == "cannot be told" else ""


def assemble(
    found: Surface,
    pooled: Pooled,
    *,
    flat: dict[str, np.ndarray],
    shape: tuple[int, ...],
    where: str,
    unit: str = "tokens",
    note: str = "",
    within: float | None = None,
) -> Allocation:
    """Compute what follows from the optimum, and shape it like the arguments."""
    n, d, r, loss = (pooled.stacked[name] for name in ("N", "D", "R", "loss"))
    boundary = pooled.stacked["boundary"]
    law, p_d, p_r = found.law, flat["p_D"], flat["p_R"]
    with np.errstate(invalid="ignore"):
        share = p_r * r / flat["budget"] if unit == "tokens" else r / (d + r)
    found.check_possible(where, loss[0])
    point = {k: np.asarray(v)[0] for k, v in found.stacked().items()}
    here = found.at_point()
    all_in = np.minimum((flat["budget"] / p_d if unit == "tokens" else flat["all_D"]), flat.get("max_D", np.inf))
    without = pooled.stacked["without"]
    gain = without[0] - loss[0]
    better = np.where(r > 0, found.signed(without) - found.signed(loss), 0.0)
    _, slope_d, slope_r = here.gradient(n[0], d[0], r[0], point)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = slope_r / slope_d + 0.0  # no negative zero

    def shaped(values: np.ndarray) -> Any:
        return scalar(np.reshape(values, shape))

    replicates, shares = {}, {}
    if len(r) > 1:
        several = {"N": n, "D": d, "R": r, "share": share, "loss": loss, "improvement": better}
        replicates = {k: v[1:].reshape(-1, *shape) for k, v in several.items()}
        shares = {str(b): shaped((boundary[1:] == b).mean(axis=0)) for b in np.unique(boundary[1:])}
    few, lined = len(n[0]) <= _MOST_SHOWN, unit == "tokens" and "R" in law.variables
    if "R" not in law.variables:
        note = "\n".join(filter(None, [note, f"the law {law.name!r} has no retrieval term"]))
    laws, regret = law_table(found, pooled, flat, all_in, unit) if few else (pd.DataFrame(), None)
    return Allocation(
        N=shaped(n[0]),
        budget=shaped(flat["budget"]),
        D=shaped(d[0]),
        R=shaped(r[0]),
        share=shaped(share[0]),
        loss=shaped(loss[0]),
        value=shaped(found.metric(loss[0])),
        gain=shaped(np.where(r[0] > 0, gain, 0.0)),
        improvement=shaped(better[0]),
        exchange_rate=shaped(rate),
        boundary=shaped(boundary[0]),
        prices=(shaped(p_d), shaped(p_r)),
        replicates=replicates,
        boundary_share=shares,
        laws=laws,
        regret=regret,
        near_optimal=near_optimal(found, flat, r[0], within) if few and lined else pd.DataFrame(),
        confidence_level=found.confidence_level,
        budget_unit=unit,
        metric=found.metric_name,
        rises=found.rises,
        verdict=verdict_kind(found),
        store=shaped(_of_a_store(here, point, n[0], all_in, flat)),
        note=note,
    )
