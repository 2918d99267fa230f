"""How many pretraining tokens each measured store was worth: the paper's sigma and kappa, and corrected ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from ragscale._typing import ResultsLike
from ragscale.decisions._estimate import quantiles
from ragscale.decisions._surface import Subject, Surface, answer, surface
from ragscale.errors import ConfigError, ResultsError
from ragscale.fitting.laws._law import Theta
from ragscale.results import Result, average_seeds

_PER = 1e9  # kappa is a drop per 1e9 store tokens
_PAPER_LIMIT = 1e4  # the paper's script drops larger sigmas
_BISECTIONS = 80
_RESAMPLES = 1000
_LOG_D = (-20.0, 230.0)  # beyond exp(230) = 1e100 tokens a value counts as unreachable by data


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Substitution(Result):
    """What each measured store was worth.

    Attributes
    ----------
    table : DataFrame
        One row per measured (N, D, R), or per (N, D) for the paper's: ``value, baseline, D_eff, D_eff_baseline, sigma,
        multiplier, kappa, status`` ("ok", "negative", "censored", "baseline censored"), ``D_over_N``, and with a
        bootstrap ``sigma_low, sigma_high`` for the uncertainty of the curve.
    convention : str
    without_baseline : int
        Rows with a store that have no row without one, and were left out.
    dropped : int
        Rows that the paper's convention drops; 0 for the corrected one.
    median_sigma, median_kappa : float
        Over the rows of status "ok" or "negative".
    geometric_mean_sigma : float
        Over the positive ones, as the paper reports it.
    median_low, median_high : float
        Interval of ``median_sigma``, by resampling trained models; NaN for fewer than two.
    n_models : int
        Trained models with a store and without.
    confidence_level : float
    """

    table: pd.DataFrame
    convention: str
    without_baseline: int
    dropped: int
    median_sigma: float
    median_kappa: float
    geometric_mean_sigma: float
    median_low: float = float("nan")
    median_high: float = float("nan")
    n_models: int = 0
    confidence_level: float = 0.95

    _picture: ClassVar[str] = "substitutions"

    def to_frame(self) -> pd.DataFrame:
        """Return `table`."""
        return self.table.copy()

    def summary(self) -> str:
        """Say what a store token was worth, how often, and what was left out."""
        status = self.table["status"].value_counts()
        counts = ", ".join(f"{count} {name}" for name, count in status.items())
        lines = [
            f"one store token was worth {self.median_sigma:.3g} pretraining tokens in the median ({self._basis()})",
            f"{len(self.table)} cells: {counts}; median gain per 1e9 store tokens {self.median_kappa:.3g}",
        ]
        if self.without_baseline:
            lines.append(f"{self.without_baseline} rows have no value at R = 0 and were left out")
        if self.dropped:
            lines.append(f"{self.dropped} cells were dropped as the paper does")
        return "\n".join(lines)

    def _basis(self) -> str:
        models = f"{self.n_models} trained model" + ("s" if self.n_models != 1 else "")
        if not self.median_low <= self.median_high:
            return f"{self.convention}; no interval from {models}"
        span = f"{self.median_low:.3g} to {self.median_high:.3g}"
        text = f"{self.convention}; {100 * self.confidence_level:g} % interval {span}, {models}"
        return text + (", which cannot be told from nothing" if self.median_low <= 0 <= self.median_high else "")


def substitution(
    results: ResultsLike, fit_or_bootstrap: Subject, *, convention: Literal["corrected", "paper"] = "corrected"
) -> Substitution:
    r"""Measure what each store was worth in pretraining tokens.

    The fitted curve without retrieval, L(N, D, 0), turns a measured value into the data that would give it:
    D_eff(v) solves :math:`L(N, D_{eff}, 0) = v`; for a base :math:`E + A N^{-\alpha} + B D^{-\beta}` it is
    :math:`((v - E - A N^{-\alpha})/B)^{-1/\beta}`.

    ``"corrected"``
        :math:`\sigma = (D_{eff}(v_R) - D_{eff}(v_0)) / R` for every measured R, with :math:`v_0` the measured value
        at R = 0 of the same N and D: what the curve misses at R = 0 cancels. Negative values (retrieval hurt) stay. A
        value better than any amount of data would give is ``"censored"``: D_eff and sigma are infinite, a lower bound
        and not a gap. ``multiplier`` = :math:`D_{eff}(v_R) / D_{eff}(v_0)` does not divide by the size of the store.
    ``"paper"``
        :math:`\sigma = (D_{eff}(v_R) - D) / R` at the best measured R of each (N, D) only; censored values, and
        :math:`|\sigma| > 10^4`, are dropped (``dropped`` counts them). The misfit of the curve at R = 0 is
        then booked as a gain from retrieval, and the best of several noisy stores is taken for the truth.

    In both, :math:`\kappa = (v_0 - v_R) / (R / 10^9)` in the unit of the metric, positive where retrieval helped.

    Parameters
    ----------
    results : DataFrame
        A results table with R = 0 and R > 0 at the same N and D. Seeds are averaged.
    fit_or_bootstrap : ManifoldFit, Bootstrap, or (law, parameters)
        Whose L(N, D, 0) is the baseline curve; fitted to the same task and metric.
    convention : "corrected" or "paper"

    Returns
    -------
    Substitution

    Raises
    ------
    ConfigError
        When the convention is unknown.
    ResultsError
        When the table is malformed, or no cell has both R = 0 and R > 0.

    References
    ----------
    arXiv 2604.00715, Tables 9 and 10 (sigma, kappa); its script computes D_eff of the baseline and does not use
    it.

    Examples
    --------
    >>> import ragscale as rs
    >>> table = rs.datasets.simulate("hill", noise=0.01, rng=0)
    >>> found = rs.substitution(table, rs.fit_manifold(table, "hill"))
    >>> found.median_sigma > 0
    True
    """
    if not isinstance(convention, str) or convention not in ("corrected", "paper"):
        raise ConfigError(f"convention = {convention!r} must be 'corrected' or 'paper'")
    found = surface(fit_or_bootstrap)
    found.require("D")
    if found.members:
        raise ConfigError("substitution needs one law for its baseline curve: name it, fit_manifold(results, law=...)")
    table, alone = _pairs(average_seeds(results))
    n, d, r = (table[c].to_numpy() for c in ("N", "D", "R"))
    theta = found.stacked()
    with np.errstate(all="ignore"):
        effective = _effective_data(found, theta, n, _latent(found, table["value"].to_numpy()))
        baseline = _effective_data(found, theta, n, _latent(found, table["baseline"].to_numpy()))
        reference = baseline if convention == "corrected" else np.broadcast_to(d, baseline.shape)
        sigma = (effective - reference) / r
    rises = found.rises
    table["D_eff"], table["D_eff_baseline"] = effective[0], baseline[0]
    table["sigma"] = sigma[0]
    with np.errstate(all="ignore"):
        table["multiplier"] = effective[0] / baseline[0]
    table["kappa"] = (table["value"] - table["baseline"]) * (1 if rises else -1) / (r / _PER)
    table["status"] = np.select(
        [np.isinf(baseline[0]) & (convention == "corrected"), np.isinf(effective[0]), sigma[0] < 0],
        ["baseline censored", "censored", "negative"],
        "ok",
    )
    if len(sigma) > 1:
        low, high = quantiles(np.where(np.isnan(sigma), np.inf, sigma), found.confidence_level)
        table["sigma_low"], table["sigma_high"] = low, high
    kappas: Any = table["kappa"]
    dropped = 0
    if convention == "paper":
        table, kappas, dropped = _as_in_the_paper(table, rises)
    sigma = table["sigma"].to_numpy(np.float64)
    finite = sigma[np.isfinite(sigma)]
    positive = finite[finite > 0]
    model = table.groupby([c for c in ("task", "metric", "split", "N", "D") if c in table], sort=False).ngroup()
    low, high = _median_interval(sigma, model.to_numpy(), found.confidence_level)
    return Substitution(
        table=table.reset_index(drop=True),
        convention=convention,
        without_baseline=alone,
        dropped=dropped,
        median_sigma=float(np.median(finite)) if finite.size else float("nan"),
        median_kappa=float(kappas.median()),
        geometric_mean_sigma=float(np.exp(np.log(positive).mean())) if positive.size else float("nan"),
        median_low=low,
        median_high=high,
        n_models=int(model.nunique()),
        confidence_level=found.confidence_level,
    )


def _median_interval(sigma: np.ndarray, model: np.ndarray, level: float) -> tuple[float, float]:
    """Return the percentile interval of the median over resampled trained models, whose stores share their noise."""
    known = np.isfinite(sigma)
    group = np.unique(model[known], return_inverse=True)[1]
    count = int(group.max(initial=-1)) + 1
    if count < 2:
        return float("nan"), float("nan")
    values = sigma[known]
    order = np.argsort(values)
    rng, medians = np.random.default_rng(0), [0.0]
    for _ in range(_RESAMPLES):
        weight = np.cumsum(np.bincount(rng.integers(count, size=count), minlength=count)[group[order]])
        medians.append(float(values[order[np.searchsorted(2 * weight, weight[-1])]]))
    low, high = quantiles(np.asarray(medians)[:, None], level)
    return float(low[0]), float(high[0])


def _pairs(table: Any) -> tuple[pd.DataFrame, int]:
    """Put the value without retrieval beside every value with it."""
    keys = [c for c in ("N", "D", "task", "metric", "split") if c in table]
    zero = table[table["R"] == 0]
    repeated = zero.duplicated(keys)
    if repeated.any():
        extra = [c for c in table.columns if c not in keys and zero[c].nunique() > 1]
        raise ResultsError(
            f"{int(repeated.sum())} cells have several rows with R = 0, which differ in {', '.join(extra)}: keep one"
        )
    stores = table[table["R"] > 0].merge(
        zero[[*keys, "value"]].rename(columns={"value": "baseline"}), on=keys, how="left", validate="many_to_one"
    )
    alone = int(stores["baseline"].isna().sum())
    stores = stores[stores["baseline"].notna()].reset_index(drop=True)
    if stores.empty:
        raise ResultsError("substitution needs rows with R = 0 and R > 0 at the same N and D; there is no such pair")
    named = [c for c in ("task", "metric", "split", "retriever", "k", "condition") if c in stores]
    out = stores[[*named, "N", "D", "R", "value", "baseline"]].copy()
    out.attrs = {}
    out.insert(len(named) + 3, "D_over_N", out["D"] / out["N"])
    return out, alone


def _latent(found: Surface, values: np.ndarray) -> np.ndarray:
    return np.asarray(values if found.link is None else found.link.latent(values), np.float64)


def _effective_data(found: Surface, theta: Theta, n: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Return D with L(N, D, 0) = loss, (S, M); infinite where no amount of data gives that loss."""
    closed = answer(found.law, "_data_for", n, loss, theta)
    if closed is not None:
        return closed
    shape = np.broadcast_shapes((next(iter(theta.values())).shape[0], 1), loss.shape)
    low, high = np.full(shape, _LOG_D[0]), np.full(shape, _LOG_D[1])
    none = np.zeros_like(n)
    unreachable = ~(found.law.loss(n, np.exp(high), none, theta) < loss)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        worse = found.law.loss(n, np.exp(middle), none, theta) > loss
        low, high = np.where(worse, middle, low), np.where(worse, high, middle)
    return np.where(unreachable, np.inf, np.exp(0.5 * (low + high)))


def _as_in_the_paper(table: Any, rises: bool) -> tuple[pd.DataFrame, Any, int]:
    """Keep the best store of each (N, D); return also kappa before and the number of rows that were dropped."""
    keys = [c for c in ("task", "metric", "split", "N", "D") if c in table]
    better = table["value"] * (1 if rises else -1)
    best = table.loc[better.groupby([table[c] for c in keys], sort=False).idxmax()]
    kept = np.isfinite(best["sigma"]) & (best["sigma"].abs() <= _PAPER_LIMIT)
    return best[kept].copy(), best["kappa"], int((~kept).sum())
