"""How sure a fit is: resample trained models, refit, and look at the spread."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError, FitError, IdentifiabilityWarning
from ragscale.fitting._comparison import Comparison
from ragscale.fitting._determined import refuse_unseen
from ragscale.fitting._experiments import clusters
from ragscale.fitting._hit_rate import drawn
from ragscale.fitting._own import Own, peek
from ragscale.fitting._result import NOT_DETERMINED, ManifoldFit
from ragscale.fitting.laws._law import Theta
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._varpro import Solution, refine
from ragscale.results import HitRateDraws
from ragscale.results._result import Result

LEAST_WEIGHT = 0.01
"""A law that the data make a hundred times less likely than all others together does not count in decisions."""
_LEAST_REPLICATES = 20
Kind = Literal["confidence", "prediction", "extrapolation"]


class Interval(NamedTuple):
    """Lower and upper ends, in the metric."""

    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Bootstrap(Result):
    """Replicates of a fit; a value, never changed.

    Attributes
    ----------
    fit : ManifoldFit
    theta : Theta
        For each parameter its replicates in counts, (n_resamples,).
    link_values : mapping
        Replicates of a fitted floor or ceiling.
    objective : ndarray (n_resamples,)
        The objective of each replicate on its own resample.
    by : str or tuple of str
        What was resampled.
    confidence_level : float
        Level of `params` and `interval`.
    hit_rate : HitRateDraws or None
        Drawn curves h(R), one for each replicate, of a law that reads ``hit_rate``: its questions are a sample too.
    seed : int
        From which `members` are drawn.
    """

    fit: ManifoldFit
    theta: Theta
    link_values: Own[dict[str, np.ndarray]] = Own()
    objective: np.ndarray
    by: str | tuple[str, ...]
    confidence_level: float
    hit_rate: HitRateDraws | None = None
    seed: int = 0

    _picture: ClassVar[str] = "slices"
    schema: ClassVar[str] = "ragscale.bootstrap"

    def __post_init__(self) -> None:
        for values in (*self.theta.values(), *self.link_values.values(), self.objective):
            values.setflags(write=False)

    @cached_property
    def members(self) -> dict[str, Bootstrap]:
        """Bootstraps of all laws that count, by name, where ``law="auto"`` or a comparison chose the law; else empty.

        This one is that of the chosen law; of another, as many replicates are drawn as its weight asks.
        """
        selection = self.fit.selection
        if selection is None:
            return {}
        found = {}
        for name, weight in selection.weights.items():
            if weight >= LEAST_WEIGHT:
                found[name] = self if name == selection.chosen else self._of(selection.fits[name], weight)
        return found

    def _of(self, fit: ManifoldFit, weight: float) -> Bootstrap:
        count = max(_LEAST_REPLICATES, round(weight * self.n_resamples))
        options = {"n_resamples": count, "by": self.by, "confidence_level": self.confidence_level}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IdentifiabilityWarning)  # said for the chosen law already
            return bootstrap(fit, **options, rng=self.seed)

    @property
    def n_resamples(self) -> int:
        """Number of replicates."""
        return len(self.objective)

    def predict(self, N: ArrayLike, D: ArrayLike, R: ArrayLike = 0.0, **columns: Any) -> np.ndarray:
        """Return the metric under every replicate, (n_resamples, ...) with the broadcast shape of the counts."""
        n, d, r = np.broadcast_arrays(*(np.asarray(count, dtype=float) for count in (N, D, R)))
        refuse_unseen(peek(self.fit, "data"), self.fit.unseen, {"N": n, "D": d})
        shape = (self.n_resamples, *([1] * n.ndim))
        theta = {name: values.reshape(shape) for name, values in self.theta.items()}
        extra = {name: values.reshape(shape) for name, values in self.link_values.items()}
        if self.hit_rate is not None and "hit_rate" not in columns:
            columns = {**columns, "hit_rate": self.hit_rate.shaped(shape)}
        elif callable(self.fit.hit_rate) and "hit_rate" in self.fit.law.further_columns:
            columns = {"hit_rate": self.fit.hit_rate, **columns}
        latent = self.fit.law.loss(n, d, r, _free_only(self.fit.law, theta), **columns)
        return np.asarray(self.fit.link.metric(latent, extra))

    @property
    def params(self) -> pd.DataFrame:
        """Parameters in counts: ``value``, ``stderr`` and percentile interval ``low``, ``high`` of the replicates."""
        return self._params.copy()

    @cached_property
    def _params(self) -> pd.DataFrame:
        tail = (1.0 - self.confidence_level) / 2.0
        values = {**self.fit.theta, **{p.name: float(getattr(self.fit.link, p.name)) for p in self.fit.link.parameters}}
        rows, open_ = [], self.fit.undetermined
        for name, value in values.items():
            replicates = self.theta[name] if name in self.theta else self.link_values[name]
            if name in open_:
                nothing = dict.fromkeys(("value", "stderr", "low", "high"), np.nan)
                rows.append({"name": name, **nothing, "note": NOT_DETERMINED})
                continue
            low, high = np.quantile(replicates, [tail, 1.0 - tail])
            stderr = float(np.std(replicates, ddof=1)) if name not in self.fit.law.fixed else np.nan
            note = "fixed" if name in self.fit.law.fixed else ""
            rows.append({"name": name, "value": value, "stderr": stderr, "low": low, "high": high, "note": note})
        return pd.DataFrame(rows).set_index("name")

    def interval(
        self, N: ArrayLike, D: ArrayLike, R: ArrayLike = 0.0, *, kind: Kind = "confidence", **columns: ArrayLike
    ) -> Interval:
        """Return an interval for the metric at each point.

        Parameters
        ----------
        N, D, R : array-like
            Counts.
        kind : "confidence", "prediction" or "extrapolation"
            For the surface; for a new measurement (the surface and the scatter of the rows); for a measurement at more
            compute than any in the table (the prediction interval, widened by how much such intervals fell short
            when earlier parts of this table predicted later ones; see `calibration`).
        """
        if kind not in {"confidence", "prediction", "extrapolation"}:
            raise ConfigError(f"kind = {kind!r} must be 'confidence', 'prediction' or 'extrapolation'")
        replicates = self.predict(N, D, R, **columns)
        logarithmic = self.fit.space == "log"
        values = np.log(replicates) if logarithmic else replicates
        if kind != "confidence":
            values = values + self._scatter(values.shape)
        tail = (1.0 - self.confidence_level) / 2.0
        low, high = np.quantile(values, [tail, 1.0 - tail], axis=0)
        if kind == "extrapolation":
            middle = np.asarray(self.fit.link.metric(self.fit.latent(N, D, R, **columns)))
            middle = np.log(middle) if logarithmic else middle
            factor = max(self.calibration.factor, 1.0)
            low, high = (
                middle - factor * np.maximum(middle - low, 0.0),
                middle + factor * np.maximum(high - middle, 0.0),
            )
        return Interval(np.exp(low), np.exp(high)) if logarithmic else Interval(low, high)

    def _scatter(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw residuals of the fit, made as large as those of new rows are; always the same draws."""
        residuals = self.fit.residuals
        free = len(self.fit.law.free) + len(self.fit.link.parameters)
        scale = np.sqrt(len(residuals) / max(len(residuals) - free, 1))
        return -scale * np.random.default_rng(20240601).choice(residuals, size=shape)

    @cached_property
    def calibration(self) -> Calibration:
        """By how much intervals fell short when this table's smaller runs predicted its larger ones."""
        return backtest(self.fit, confidence_level=self.confidence_level)

    # Looking at it, keeping it -------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Say what was resampled, and the parameters with their intervals."""
        what = self.by if isinstance(self.by, str) else f"trained models, by {', '.join(self.by)}"
        head = (
            f"{self.n_resamples} resamples of {what}: {self.fit.law.name}, {100 * self.confidence_level:g} % intervals"
        )
        return f"{head}\n{self.params.to_string(float_format='{:.5g}'.format)}"

    def to_frame(self) -> pd.DataFrame:
        """Return the parameters: ``parameter``, ``value``, ``stderr``, and the interval ``value_low, value_high``."""
        names = {"name": "parameter", "low": "value_low", "high": "value_high"}
        return self.params.reset_index().rename(columns=names)

    @property
    def replicates(self) -> pd.DataFrame:
        """One row per replicate: its parameters in counts and its ``objective``."""
        return pd.DataFrame({**self.theta, **self.link_values, "objective": self.objective})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything, the fit included, to one NumPy archive (``.npz``: arrays and JSON, no pickle)."""
        from ragscale.fitting._saved import save_bootstrap

        save_bootstrap(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bootstrap:
        """Read what `save` wrote; predictions are the same bit for bit.

        Raises
        ------
        CheckpointError
            When the file is damaged or holds something else.
        """
        from ragscale.fitting._saved import load_bootstrap

        return load_bootstrap(path)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Refuse: thousands of numbers belong into an archive; see `save`."""
        raise ConfigError("a bootstrap is kept with save(path) and Bootstrap.load(path), its table with to_frame()")

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Self:
        """Refuse; see `load`."""
        raise ConfigError("a bootstrap is kept with save(path) and Bootstrap.load(path)")


def _free_only(law: Any, theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in theta.items() if name not in law.fixed and name not in law.tied}


def bootstrap(
    fit: ManifoldFit | Comparison,
    *,
    n_resamples: int = 1000,
    by: Sequence[str] | Literal["rows", "residuals"] = ("N", "D", "seed"),
    confidence_level: float = 0.95,
    rng: Any = None,
) -> Bootstrap:
    """Refit on resampled results; by default whole trained models are drawn.

    One checkpoint is evaluated with every store size, and whatever happened in its training is in all its rows. Drawing
    rows one by one takes them for independent, and 95 % intervals then hold the truth in about 60 % of cases.

    Parameters
    ----------
    fit : ManifoldFit or Comparison
        Of a comparison the best law is refitted, and decisions average over all that count.
    n_resamples : int
    by : sequence of str, "rows" or "residuals"
        Columns that tell trained models apart (those that the table has); "rows" draws single rows; "residuals" keeps
        the design and draws residuals of single rows.
    confidence_level : float
        Level of the intervals.
    rng : int, Generator, SeedSequence or None
        Randomness, as `numpy.random.default_rng` takes it.

    Returns
    -------
    Bootstrap

    Raises
    ------
    ConfigError
        When an argument is out of range.

    Warns
    -----
    IdentifiabilityWarning
        Below 20 trained models, or 6 values of N: too few for the intervals to be believed.

    Examples
    --------
    >>> import pandas as pd
    >>> from ragscale.fitting import fit_manifold
    >>> grid = [(n, d) for n in (1e8, 2e8, 4e8, 8e8, 16e8, 32e8) for d in (2e9, 8e9, 3e10, 2e11)]
    >>> table = pd.DataFrame(grid, columns=["N", "D"])
    >>> noise = 1 + 0.01 * np.random.default_rng(0).standard_normal(len(table))
    >>> table["value"] = (1.7 + 400 * table.N**-0.34 + 410 * table.D**-0.28) * noise
    >>> replicates = bootstrap(fit_manifold(table, "chinchilla"), n_resamples=200, rng=0)
    >>> low, high = replicates.params.loc["alpha", ["low", "high"]]
    >>> bool(low < 0.34 < high)
    True
    """
    if isinstance(fit, Comparison):
        name = fit.best
        fit = replace(fit.fits[name], selection=replace(fit, chosen=name))
    problems = []
    if n_resamples < 2:
        problems.append(f"n_resamples = {n_resamples!r} must be at least 2")
    if not 0 < confidence_level < 1:
        problems.append(f"confidence_level = {confidence_level!r} must be between 0 and 1")
    if isinstance(by, str) and by not in {"rows", "residuals"}:
        problems.append(f"by = {by!r} must be column names, 'rows' or 'residuals'")
    if problems:
        raise ConfigError("bootstrap: " + "; ".join(problems))
    generator = np.random.default_rng(rng)
    _warn_if_few(fit, by)
    problem = fit.problem
    rows = len(peek(fit, "data"))
    weight = problem.table.weight
    if by == "residuals":
        problem, weights = _residual_resamples(fit, n_resamples, generator)
    else:
        group = np.arange(rows) if by == "rows" else clusters(peek(fit, "data"), by)
        count = int(group.max()) + 1
        draws = generator.multinomial(count, np.full(count, 1.0 / count), size=n_resamples)
        weights = draws[:, group] * weight
    solution = _refit(problem, fit, weights)
    size = problem.columns(solution.u, slopes=False).size
    return Bootstrap(
        fit=fit,
        theta=Theta(problem.theta(solution.c, solution.u, size)),
        link_values={name: values[:, 0].copy() for name, values in problem.extra(solution.u).items()},
        objective=solution.value,
        by=by if isinstance(by, str) else tuple(by),
        confidence_level=confidence_level,
        hit_rate=drawn(fit, n_resamples, generator),
        seed=int(generator.spawn(1)[0].integers(2**31)),
    )


def _warn_if_few(fit: ManifoldFit, by: Any) -> None:
    count = int(clusters(peek(fit, "data")).max()) + 1
    sizes = len(np.unique(peek(fit, "data")["N"].to_numpy(float)))
    said = []
    if count < 20:
        said.append(f"{count} trained models (below 20)")
    if sizes < 6 and "N" in fit.law.variables:
        said.append(f"{sizes} values of N (below 6)")
    if said:
        warnings.warn(
            "the table has " + " and ".join(said) + ": intervals are likely too narrow",
            IdentifiabilityWarning,
            stacklevel=3,
        )


def _residual_resamples(
    fit: ManifoldFit, n_resamples: int, generator: np.random.Generator
) -> tuple[Problem, np.ndarray]:
    """Return the problem with new observations, predictions plus drawn residuals."""
    problem = fit.problem
    drawn = generator.choice(fit.residuals, size=(n_resamples, len(peek(fit, "data"))))
    predicted = np.asarray(fit.to_frame()["predicted"], dtype=float)
    y = predicted * np.exp(-drawn) if fit.space == "log" else predicted - drawn
    return problem.with_observations(y), np.broadcast_to(problem.table.weight, y.shape)


def _refit(problem: Problem, fit: ManifoldFit, weights: np.ndarray) -> Solution:
    """Refit every resample from every local minimum that could become the best one; keep the best."""
    best = None
    for c, u in _warm_starts(fit):
        count = len(weights)
        found = refine(
            problem, np.repeat(c, count, axis=0), np.repeat(u, count, axis=0), weights, project=6, tolerance=1e-11
        )
        if best is None:
            best = found
            continue
        better = found.value < best.value
        for name in ("c", "u", "value", "converged"):
            getattr(best, name)[better] = getattr(found, name)[better]
    if best is None or not np.isfinite(best.value).all():
        raise FitError("the bootstrap could not refit every resample: the fit's optimum is not finite there")
    return best


def _warm_starts(fit: ManifoldFit) -> list[tuple[np.ndarray, np.ndarray]]:
    problem = fit.problem
    minima = peek(fit, "minima")
    objective = minima["objective"].to_numpy(float)
    near = np.flatnonzero(objective <= 1.3 * objective[0])[:4]
    starts = []
    names = [p.name for p in fit.law.parameters]
    for i in near:
        row = {str(name): float(minima[name].to_numpy(float)[i]) for name in minima}
        link = fit.link.with_values({p.name: row[p.name] for p in fit.link.parameters})
        local = (
            problem
            if not fit.link.parameters
            else Problem(fit.law, link, fit.loss, space=fit.space, table=problem.table, typical=problem.typical)
        )
        starts.append(local.position({name: row[name] for name in names}))
    return starts


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
    """
    from ragscale.fitting._fit import fit_table
    from ragscale.fitting._table import arrays

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
        low, high = replicates.interval(table.n, table.d, table.r, kind="prediction", **table.further)
        middle = np.asarray(early.link.metric(early.latent(table.n, table.d, table.r, **table.further)))
        if fit.space == "log":
            low, high, middle, seen = np.log(low), np.log(high), np.log(middle), np.log(table.y)
        else:
            seen = table.y
        half = np.where(seen > middle, high - middle, middle - low)
        ratio = np.abs(seen - middle) / np.maximum(half, 1e-12)
        ratios.append(ratio)
        error = float(np.abs(seen - middle).mean())
        rows.append({"n_train": cut, "n_test": len(test), "error": error, "coverage": float((ratio <= 1).mean())})
    if not ratios:
        raise FitError(
            f"a backtest needs {need} rows before its first origin; the table has {len(data)} in all: "
            "use kind='prediction' and widen it by judgement"
        )
    every = np.concatenate(ratios)
    rank = min(1.0, np.ceil((every.size + 1) * confidence_level) / every.size)
    return Calibration(
        factor=float(np.quantile(every, rank)),
        coverage=float((every <= 1).mean()),
        n_points=every.size,
        origins=pd.DataFrame(rows),
    )
