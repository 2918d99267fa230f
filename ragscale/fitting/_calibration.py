"""A backtest by compute: how prediction intervals did when smaller runs predicted larger ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from ragscale.errors import FitError, IdentifiabilityWarning
from ragscale.fitting._bootstrap import bootstrap
from ragscale.fitting._fit_table import fit_table
from ragscale.fitting._intervals import conformal_factor, logarithm
from ragscale.fitting._own import Own, peek
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting._table import arrays
from ragscale.results._result import Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Calibration(Result):
    """What a rolling-origin backtest by compute found.

    Attributes
    ----------
    factor : float
        By how much prediction intervals must be widened for their nominal coverage (1: they are wide enough).
    coverage : float
        Coverage of the plain prediction intervals in the backtest.
    n_points : int
        Rows predicted from rows of less compute.
    origins : DataFrame
        One row per origin: ``n_train, n_test, error`` (mean absolute), ``coverage``.
    """

    factor: float
    coverage: float
    n_points: int
    origins: Own[pd.DataFrame] = Own()

    _picture: ClassVar[str] = "calibration"

    def summary(self) -> str:
        """Say how the intervals did, and by how much to widen them."""
        head = (
            f"Prediction intervals held {self.coverage:.0%} of {self.n_points} rows of more compute; their "
            f"coverage asks for intervals {self.factor:.3g} times as wide"
        )
        return f"{head}\n{self.origins.to_string(index=False, float_format='{:.3g}'.format)}"

    def to_frame(self) -> pd.DataFrame:
        """Return `origins`."""
        return self.origins


def backtest(
    fit: ManifoldFit,
    *,
    confidence_level: float = 0.95,
    origins: Sequence[float] = (0.4, 0.5, 0.6, 0.7, 0.8),
    horizon: float = 0.25,
    n_resamples: int = 200,
) -> Calibration:
    """Predict the table's larger runs from its smaller ones, again and again, and see how intervals do.

    Rows are ordered by compute N D. At each origin (a share of the rows) the law is fitted to the rows before it and
    predicts the ``horizon`` after it. The factor is the quantile, with the finite-sample correction of conformal
    prediction, of the absolute error over the half-width of the plain prediction interval.

    Raises
    ------
    FitError
        When no origin leaves enough rows to fit.

    References
    ----------
    Tashman 2000, Int. J. Forecasting 16(4) (rolling origins); Vovk, Gammerman and Shafer 2005, section 2.2 (conformal
    prediction).

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("chinchilla", noise=0.01, rng=0), "chinchilla")
    >>> 0 <= rs.fitting.backtest(fit, n_resamples=20).coverage <= 1
    True
    """
    data = peek(fit, "data")
    compute = np.log(data["N"].to_numpy(float)) + np.log(data["D"].to_numpy(float))
    order = np.argsort(compute, kind="stable")
    need = 2 * (len(fit.law.free) + len(fit.link.parameters))
    ratios, rows = [], []
    for share in origins:
        cut, end = int(share * len(order)), int((share + horizon) * len(order))
        train, test = data.iloc[order[:cut]], data.iloc[order[cut:end]]
        varied = "R" not in fit.law.variables or train["R"].nunique() > 1
        if len(train) < need or len(test) == 0 or not varied:
            continue
        early = fit_table(
            train.reset_index(drop=True), fit.law, link=fit.link, weights="weight", loss=fit.loss.loss,
            delta=fit.loss.delta, tau=fit.loss.tau, space=fit.space,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IdentifiabilityWarning)
            replicates = bootstrap(early, n_resamples=n_resamples, confidence_level=confidence_level, rng=0)
        table = arrays(test, np.ones(len(test)), fit.law)
        middle = np.asarray(early.link.metric(early.latent(table.n, table.d, table.r, **table.further)))
        try:
            low, high = replicates.interval(table.n, table.d, table.r, kind="prediction", **table.further)
        except FitError:  # this part of the table says nothing about the rest, or its law fails there
            continue
        if fit.space == "log":
            low, high, middle, seen = logarithm(low), np.log(high), logarithm(middle), np.log(table.y)
        else:
            seen = table.y
        half = np.where(seen > middle, high - middle, middle - low)  # infinite where replicates fall below zero
        missed = np.where(np.isfinite(middle), np.abs(seen - middle), np.inf)
        ratio = np.where(np.isinf(missed), np.inf, missed / np.maximum(half, 1e-12))
        ratios.append(ratio)
        error = float(missed.mean())
        rows.append({"n_train": cut, "n_test": len(test), "error": error, "coverage": float((ratio <= 1).mean())})
    if not ratios:
        raise FitError(
            f"a backtest needs {need} rows before its first origin; the table has {len(data)} in all: "
            "use kind='prediction' and widen it by judgement"
        )
    every = np.concatenate(ratios)
    factor = conformal_factor(every, confidence_level)
    if not np.isfinite(factor):
        raise FitError(
            f"the law {fit.law.name!r} fitted to this table's smaller runs predicts values below zero for its larger "
            "ones: it has no extrapolation interval; choose a law that levels off, or kind='prediction'"
        )
    return Calibration(
        factor=factor,
        coverage=float((every <= 1).mean()),
        n_points=every.size,
        origins=pd.DataFrame(rows),
    )
