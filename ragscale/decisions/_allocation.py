"""The best split of a token budget between pretraining and the store."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ragscale.decisions._decision import Surface, counts, refuse, scalar, surface
from ragscale.decisions._split import best_split
from ragscale.errors import ConfigError

_LIMITS = {
    "D=min": "; all that may goes to the store",
    "D=max": "; pretraining data is the limit",
    "R=max": "; the store is as large as it may be",
    "R=min": "; even the smallest store gives it",
    "N=min": "; the smallest model allowed",
    "N=max": "; the largest model allowed",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Allocation:
    """The best split of each budget, with intervals when it comes from a bootstrap.

    All arrays have the shape that the arguments broadcast to; scalars for scalar arguments.

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
        The law's loss at the optimum; ``value`` is the metric that the link makes of it.
    gain : float or ndarray
        How much lower this loss is than that of spending everything on pretraining; 0 where R = 0.
    exchange_rate : float or ndarray
        Pretraining tokens that one more store token replaces, at the optimum; p_R / p_D inside.
    boundary : str or ndarray of str
        ``"interior"``, or the limit that the optimum lies at: ``"R=0"``, ``"R=max"``, ``"D=min"``, ``"D=max"``,
        ``"R=min"`` (an arbitrarily small store is best), and for `compute_optimal` ``"N=min"``, ``"N=max"``.
    prices : tuple of float
        (p_D, p_R).
    replicates : dict of ndarray
        ``N, D, R, share, loss`` over the bootstrap, (n_replicates, ...); empty without one.
    boundary_share : dict of ndarray
        Share of the replicates at each boundary, by its name; empty without a bootstrap.
    confidence_level : float
    budget_unit : str
        ``"tokens"`` or ``"FLOPs"``.
    note : str
        What to know, in words; may be empty.
    """

    N: Any
    budget: Any
    D: Any
    R: Any
    share: Any
    loss: Any
    value: Any
    gain: Any
    exchange_rate: Any
    boundary: Any
    prices: Any = (1.0, 1.0)
    replicates: Mapping[str, np.ndarray] = field(default_factory=dict)
    boundary_share: Mapping[str, Any] = field(default_factory=dict)
    confidence_level: float = 0.95
    budget_unit: str = "tokens"
    note: str = ""

    def interval(self, name: str) -> tuple[Any, Any]:
        """Return (low, high) of ``"N"``, ``"D"``, ``"R"``, ``"share"`` or ``"loss"`` over the bootstrap.

        Raises
        ------
        ConfigError
            Without a bootstrap, or for another name.
        """
        if name not in self.replicates:
            known = ", ".join(self.replicates) or "none, because this comes from a fit: rs.bootstrap(fit) gives them"
            raise ConfigError(f"there is no interval of {name!r}; there are: {known}")
        tail = (1 - self.confidence_level) / 2
        low, high = np.quantile(self.replicates[name], [tail, 1 - tail], axis=0, method="inverted_cdf")
        return scalar(low), scalar(high)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per budget, with ``<name>_low``, ``<name>_high`` and ``at_boundary`` from a bootstrap."""
        names = ("N", "budget", "D", "R", "share", "loss", "value", "gain", "exchange_rate", "boundary")
        columns = {name: np.ravel(getattr(self, name)) for name in names}
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
        return "\n".join(filter(None, [*self._sentences(), self.note]))

    def _sentences(self) -> list[str]:
        frame = self.to_frame()
        lines = []
        for i, row in enumerate(frame.to_dict("records")):
            head = f"N = {row['N']:.3g}, {row['budget']:.3g} {self.budget_unit}: "
            if row["R"] == 0 and self.budget_unit == "FLOPs":
                text = f"pretrain on {row['D']:.3g} tokens, no store" + _LIMITS.get(row["boundary"], "")
            elif row["boundary"] == "R=0":
                text = "retrieval does not help here; spend everything on pretraining"
                rate = row["exchange_rate"]
                if rate < 0:
                    text += " (a store makes it worse)"
                elif np.isfinite(rate) and rate > 0:
                    text += f" (the first store token replaces {rate:.3g} pretraining tokens)"
            else:
                whole = "budget" if self.budget_unit == "tokens" else "tokens"
                text = f"pretrain on {row['D']:.3g} tokens, retrieve from {row['R']:.3g} ({100 * row['share']:.1f}%"
                if "share_low" in row:
                    text += f", {100 * row['share_low']:.1f} to {100 * row['share_high']:.1f}%"
                text += f" of the {whole})"
                text += f"; lowers the loss by {row['gain']:.3g}" + _LIMITS.get(row["boundary"], "")
            shares = {k: np.ravel(v)[i] for k, v in self.boundary_share.items()}
            others = [f"{100 * s:.0f}% at {k}" for k, s in shares.items() if s > 0 and k not in ("interior", "R=0")]
            if shares.get("R=0", 0) > 0 and row["boundary"] != "R=0":
                others.insert(0, f"{100 * shares['R=0']:.0f}% with no retrieval at all")
            if row["boundary"] == "R=0" and shares and shares.get("R=0", 0.0) < 1:
                others.insert(0, f"{100 * (1 - shares.get('R=0', 0.0)):.0f}% with some retrieval")
            lines.append(head + text + (f" [replicates: {', '.join(others)}]" if others else ""))
        return lines

    def _repr_html_(self) -> str:
        words = "<br>".join(html.escape(line) for line in self._sentences()[:20])
        return f"<p>{words}</p>" + self.to_frame().to_html()


def optimal_allocation(
    fit_or_bootstrap: Any,
    *,
    N: Any,
    budget: Any,
    prices: Any = None,
    max_D: Any = None,
    max_R: Any = None,
    min_D: Any = 1.0,
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

    Parameters
    ----------
    fit_or_bootstrap : ManifoldFit, Bootstrap, or (law, parameters)
        With a bootstrap every replicate is allocated too.
    N : array-like
        Parameters.
    budget : array-like
        T; broadcasts against N. Tokens for prices of 1.
    prices : (p_D, p_R), {"D": p_D, "R": p_R}, or None
        Cost of one pretraining token and one store token; each may be an array. None is (1, 1).
    max_D, max_R : array-like, optional
        How many unique tokens there are. If both are reached the budget is not spent.
    min_D : array-like
        The least to pretrain on, tokens.

    Returns
    -------
    Allocation

    Raises
    ------
    ConfigError
        Listing everything wrong with the arguments.

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
    N = 1e+09, 2e+09 tokens: retrieval does not help here; spend everything on pretraining (the first store token ...

    References
    ----------
    The law and its forms: arXiv 2604.00715, equation 2. The paper computes no allocation.
    """
    found = surface(fit_or_bootstrap)
    problems: list[str] = []
    price_d, price_r = _read_prices(prices, problems)
    given = counts(problems, allow_zero=("max_R",), N=N, budget=budget, min_D=min_D, **_caps(max_D, max_R))
    if not problems:
        given |= counts(problems, p_D=price_d, p_R=price_r)
    if not problems:
        problems += _infeasible(given)
    refuse(problems, "optimal_allocation")
    shape = np.broadcast_shapes(*(a.shape for a in given.values()))
    flat = {k: np.broadcast_to(a, shape).ravel() for k, a in given.items()}
    return allocate(found, flat, shape, "optimal_allocation")


def _read_prices(prices: Any, problems: list[str]) -> tuple[Any, Any]:
    if prices is None:
        return 1.0, 1.0
    if isinstance(prices, Mapping):
        unknown = [str(k) for k in prices if k not in ("D", "R")]
        if unknown:
            problems.append(f"prices are for 'D' and 'R', not {', '.join(unknown)}")
        return prices.get("D", 1.0), prices.get("R", 1.0)
    if isinstance(prices, (tuple, list)) and len(prices) == 2:
        return prices[0], prices[1]
    problems.append(f"prices = {prices!r} must be a pair (p_D, p_R) or {{'D': p_D, 'R': p_R}}")
    return 1.0, 1.0


def _caps(max_D: Any, max_R: Any) -> dict[str, Any]:
    return {k: v for k, v in (("max_D", max_D), ("max_R", max_R)) if v is not None}


def _infeasible(given: dict[str, np.ndarray]) -> list[str]:
    problems = []
    if np.any(given["budget"] < given["p_D"] * given["min_D"]):
        problems.append("a budget does not even pay for min_D; raise it, or lower min_D")
    if "max_D" in given and np.any(given["max_D"] < given["min_D"]):
        problems.append("max_D is below min_D")
    return problems


def allocate(found: Surface, flat: dict[str, np.ndarray], shape: tuple[int, ...], where: str) -> Allocation:
    """Allocate flat, checked arguments for the point estimate and every replicate."""
    theta = found.stacked()
    r, d, boundary = best_split(found.law, theta, **flat)
    n = flat["N"]
    found.warn_beyond_data(where, N=n, D=d[0], R=r[0])
    return assemble(found, theta, np.broadcast_to(n, r.shape), (d, r, boundary), flat=flat, shape=shape)


def assemble(
    found: Surface,
    theta: Any,
    n: np.ndarray,
    optimum: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    flat: dict[str, np.ndarray],
    shape: tuple[int, ...],
    unit: str = "tokens",
) -> Allocation:
    """Compute what follows from the optimum, and shape it like the arguments."""
    d, r, boundary = optimum
    law, p_d, p_r = found.law, flat["p_D"], flat["p_R"]
    spent_r = p_r * r
    share = spent_r / flat["budget"] if unit == "tokens" else r / (d + r)
    loss = law.loss(n, d, r, theta)
    point = {k: np.asarray(v)[0] for k, v in theta.items()}
    all_in = np.minimum((flat["budget"] / p_d if unit == "tokens" else flat["all_D"]), flat.get("max_D", np.inf))
    gain = law.loss(n[0], all_in, np.zeros_like(all_in), point) - loss[0]
    _, slope_d, slope_r = law.gradient(n[0], d[0], r[0], point)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = slope_r / slope_d + 0.0  # no negative zero

    def shaped(values: np.ndarray) -> Any:
        return scalar(np.reshape(values, shape))

    replicates, shares = {}, {}
    if len(r) > 1:
        several = {"N": n, "D": d, "R": r, "share": share, "loss": loss}
        replicates = {k: v[1:].reshape(-1, *shape) for k, v in several.items()}
        shares = {str(b): shaped((boundary[1:] == b).mean(axis=0)) for b in np.unique(boundary[1:])}
    return Allocation(
        N=shaped(n[0]),
        budget=shaped(flat["budget"]),
        D=shaped(d[0]),
        R=shaped(r[0]),
        share=shaped(share[0]),
        loss=shaped(loss[0]),
        value=shaped(found.metric(loss[0])),
        gain=shaped(np.where(r[0] > 0, gain, 0.0)),
        exchange_rate=shaped(rate),
        boundary=shaped(boundary[0]),
        prices=(shaped(p_d), shaped(p_r)),
        replicates=replicates,
        boundary_share=shares,
        confidence_level=found.confidence_level,
        budget_unit=unit,
        note="" if "R" in law.variables else f"the law {law.name!r} has no retrieval term",
    )
