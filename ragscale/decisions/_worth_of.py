"""What a better retriever is worth: in hits, in nats, in store tokens that it saves, and in the best split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale._typing import Curve, HitRateLike
from ragscale.decisions._allocation import optimal_allocation
from ragscale.decisions._arguments import counts, refuse
from ragscale.decisions._surface import surface
from ragscale.errors import ConfigError
from ragscale.results import Result

if TYPE_CHECKING:
    from ragscale.fitting import ManifoldFit


_NODES = 2_001
_BEYOND = 1e3  # how many times larger a store the other retriever may need


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Worth(Result):
    """One retriever against another, under a law that reads h(R).

    Attributes
    ----------
    table : DataFrame
        One row per store size: ``R, hit_rate, hit_rate_over``; ``R_over``, the store with which the other retriever
        hits as often (infinite where no store measured does); ``saved``, R_over - R; ``loss, loss_over, gain``: the
        metric with either at N and D, and how much better the first is.
    splits : DataFrame
        One row per budget: the best split with each retriever, ``D, R, value`` and ``D_over, R_over, value_over``;
        empty without budgets.
    N, D : float
        Where ``table`` is evaluated.
    """

    table: pd.DataFrame
    splits: pd.DataFrame
    N: float
    D: float

    _picture: ClassVar[str] = "worth"

    def to_frame(self) -> pd.DataFrame:
        """Return `table`."""
        return self.table.copy()

    def summary(self) -> str:
        """Say what the largest store reads like with the other retriever, and what is gained."""
        rows = self.table.to_dict("records")
        lines = []
        for row in rows:
            other = f"{row['R_over']:.3g}" if np.isfinite(row["R_over"]) else "more than any store measured"
            text = f"{row['R']:.3g} store tokens ({100 * row['hit_rate']:.1f} % hits) read like {other} with the other"
            lines.append(f"{text}; worth {row['gain']:.3g} at N = {self.N:.3g}, D = {self.D:.3g}")
        for row in self.splits.to_dict("records"):
            split = f"best R {row['R']:.3g} instead of {row['R_over']:.3g}"
            lines.append(f"budget {row['budget']:.3g}: {split}, worth {row['gain']:.3g}")
        return "\n".join(lines)


def worth_of(
    curve: Curve | pd.DataFrame,
    *,
    over: Curve | pd.DataFrame,
    fit: ManifoldFit,
    N: float | None = None,
    D: float | None = None,
    R: ArrayLike | None = None,
    budget: ArrayLike | None = None,
) -> Worth:
    r"""Compare two retrievers by their hit rates, through a law that reads them.

    With :math:`h_1` and :math:`h_2` the hit rates, a store of R tokens reads like one of :math:`h_2^{-1}(h_1(R))`
    tokens with the other retriever, and gains :math:`L(N, D, R; h_2) - L(N, D, R; h_1)`. The law must have been
    fitted to results with retrieval; that a hit of either retriever is worth the same is its assumption.

    Parameters
    ----------
    curve, over : HitRateCurve, callable of R, or table with R and hit_rate
        h(R) of the retriever asked about, and of the one that it is compared with; see
        `ragscale.results.hit_rate_curve`. No model is needed for either.
    fit : ManifoldFit
        Of a law that reads the hit rate, ``reading`` or ``coverage``.
    N, D : float, optional
        By default the largest N and D of the fit.
    R : array-like, optional
        Store sizes; by default nine over the range of stores that the fit saw.
    budget : array-like, optional
        Tokens: also compare the best splits.

    Returns
    -------
    Worth

    Raises
    ------
    ConfigError
        When the law does not read the hit rate, or a count is none.

    References
    ----------
    Gains by hits and misses: the law of reading of this library; cf. arXiv 2510.02657.

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate_reading(row_noise=0.001, rng=0), "reading")
    >>> better = lambda R: 1 - 0.5 * (1 - fit.hit_rate(R))
    >>> found = rs.decisions.worth_of(better, over=fit.hit_rate, fit=fit)
    >>> bool((found.table["gain"] > 0).all())
    True
    """
    law = getattr(getattr(fit, "fit", fit), "law", None)
    if law is None or "hit_rate" not in law.further_columns:
        raise ConfigError(
            "worth_of needs the fit of a law that reads the hit rate: fit_manifold(results, law='reading') on results "
            "with the columns condition and hit_rate"
        )
    ours, theirs = _as_curve(curve, "curve"), _as_curve(over, "over")
    first = surface(fit, hit_rate=ours)
    problems: list[str] = []
    stores = first.measured("R")
    given = counts(
        problems,
        N=first.measured("N").max() if N is None else N,
        D=first.measured("D").max() if D is None else D,
        R=np.geomspace(stores.min(), stores.max(), 9) if R is None else R,
    )
    if budget is not None:
        given |= counts(problems, budget=budget)
    refuse(problems, "worth_of")
    n, d, r = float(given["N"]), float(given["D"]), np.ravel(given["R"])
    sign = -1.0 if first.rises else 1.0
    h, h_over = np.asarray(ours(r), np.float64), np.asarray(theirs(r), np.float64)
    grid = np.geomspace(r.min() / _BEYOND, r.max() * _BEYOND, _NODES)
    reached = np.maximum.accumulate(np.asarray(theirs(grid), np.float64))
    index = np.searchsorted(reached, h * (1 - 1e-12))
    other = np.where(index < len(grid), grid[np.minimum(index, len(grid) - 1)], np.inf)
    other = np.where(np.abs(h - h_over) <= 1e-12, r, np.where(h <= 0, 0.0, other))
    values = [np.ravel(_metric(fit, hit_rate, n, d, r)) for hit_rate in (ours, theirs)]
    table = pd.DataFrame(
        {
            "R": r,
            "hit_rate": h,
            "hit_rate_over": h_over,
            "R_over": other,
            "saved": other - r,
            "loss": values[0],
            "loss_over": values[1],
            "gain": sign * (values[1] - values[0]),
        }
    )
    splits = pd.DataFrame()
    if budget is not None:
        budgets = np.ravel(given["budget"])
        best = [optimal_allocation(fit, N=n, budget=budgets, hit_rate=hit_rate) for hit_rate in (ours, theirs)]
        columns = {"budget": budgets}
        for allocation, end in zip(best, ("", "_over"), strict=True):
            columns |= {f"{name}{end}": np.ravel(getattr(allocation, name)) for name in ("D", "R", "value")}
        splits = pd.DataFrame(columns).assign(gain=lambda frame: sign * (frame["value_over"] - frame["value"]))
    return Worth(table=table, splits=splits, N=n, D=d)


def _as_curve(given: Any, name: str) -> Any:
    """Return a function of R: a curve or a function as it is, a table as a measured curve."""
    if callable(given):
        return given
    from ragscale.results import hit_rate_curve

    if isinstance(given, (int, float)):
        raise ConfigError(f"worth_of: {name} = {given!r} is one hit rate; a curve over R is needed")
    return hit_rate_curve(given)


def _metric(fit: Any, hit_rate: HitRateLike, n: float, d: float, r: np.ndarray) -> np.ndarray:
    found = surface(getattr(fit, "fit", fit), hit_rate=hit_rate)
    point = {name: float(value) for name, value in found.theta.items()}
    return found.metric(found.at_point().loss(n, d, r, point))
