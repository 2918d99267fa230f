"""How sure a fit is: resample trained models, refit, and look at the spread."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale._typing import Column, RngLike
from ragscale.errors import ConfigError, IdentifiabilityWarning
from ragscale.fitting._comparison import Comparison
from ragscale.fitting._determined import refuse_unseen
from ragscale.fitting._experiments import clusters
from ragscale.fitting._freedom import Freedom, freedom
from ragscale.fitting._hit_rate import drawn
from ragscale.fitting._intervals import ends, finite, logarithm
from ragscale.fitting._joint_fit import JointBootstrap, JointFit
from ragscale.fitting._own import Own, peek
from ragscale.fitting._resampling import REFITS, independent, resampled
from ragscale.fitting._resampling_checks import check_resampling
from ragscale.fitting._result import NOT_DETERMINED, ManifoldFit
from ragscale.fitting.laws._law import Theta
from ragscale.results import HitRateDraws
from ragscale.results._result import Result

if TYPE_CHECKING:
    from ragscale.fitting._calibration import Calibration

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
    method : str
        "refits"; or in words how well single Newton steps agree with refits, where there are more than 1,000 trained
        models and they stand for most of the refits.
    """

    fit: ManifoldFit
    theta: Theta
    link_values: Own[dict[str, np.ndarray]] = Own()
    objective: np.ndarray
    by: str | tuple[str, ...]
    confidence_level: float
    hit_rate: HitRateDraws | None = None
    seed: int = 0
    method: str = REFITS

    _picture: ClassVar[str] = "slices"
    _absent: ClassVar[Mapping[str, str]] = {
        "to_json": "thousands of numbers belong into an archive: save(path) and Bootstrap.load(path)"
    }
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IdentifiabilityWarning)  # said for the chosen law already
            return bootstrap(fit, n_resamples=count, by=self.by, confidence_level=self.confidence_level, rng=self.seed)

    @property
    def n_resamples(self) -> int:
        """Number of replicates."""
        return len(self.objective)

    def predict(self, N: ArrayLike, D: ArrayLike, R: ArrayLike = 0.0, **columns: Column) -> np.ndarray:
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
        values = {**self.fit.theta, **{p.name: float(getattr(self.fit.link, p.name)) for p in self.fit.link.parameters}}
        rows, open_ = [], self.fit.undetermined
        for name, value in values.items():
            replicates = self.theta[name] if name in self.theta else self.link_values[name]
            if name in open_:
                nothing = dict.fromkeys(("value", "stderr", "low", "high"), np.nan)
                rows.append({"name": name, **nothing, "note": NOT_DETERMINED})
                continue
            low, high = ends(replicates, self.confidence_level)
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

        Raises
        ------
        FitError
            Where the rows say nothing about an N or D, the fit itself predicts less than the metric can be, or most
            replicates do: an interval is finite, or there is none.
        """
        if kind not in {"confidence", "prediction", "extrapolation"}:
            raise ConfigError(f"kind = {kind!r} must be 'confidence', 'prediction' or 'extrapolation'")
        replicates = self.predict(N, D, R, **columns)
        logarithmic = self.fit.space == "log"
        values = logarithm(replicates) if logarithmic else replicates
        if kind != "confidence":
            values = values + self._scatter(values.shape)
        low, high = ends(values, self.confidence_level)
        if kind == "extrapolation":
            middle = np.asarray(self.fit.link.metric(self.fit.latent(N, D, R, **columns)))
            middle = logarithm(middle) if logarithmic else middle
            with np.errstate(invalid="ignore"):
                factor = max(self.calibration.factor, 1.0)
                low = middle - factor * np.maximum(middle - low, 0.0)
                high = middle + factor * np.maximum(high - middle, 0.0)
        if logarithmic:
            with np.errstate(over="ignore"):
                low, high = np.exp(low), np.exp(high)
        return Interval(*finite(low, high, self.fit.lowest, self.fit.highest))

    def _scatter(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw residuals of new rows; always the same draws."""
        return -self._freedom.draw(shape, np.random.default_rng(20240601))

    @cached_property
    def _freedom(self) -> Freedom:
        return freedom(self.fit, independent(peek(self.fit, "data"), self.by))

    @cached_property
    def calibration(self) -> Calibration:
        """By how much intervals fell short when this table's smaller runs predicted its larger ones."""
        from ragscale.fitting._calibration import backtest

        return backtest(self.fit, confidence_level=self.confidence_level)

    # Looking at it, keeping it -------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Say what was resampled, and the parameters with their intervals."""
        what = self.by if isinstance(self.by, str) else f"trained models, by {', '.join(self.by)}"
        head = (
            f"{self.n_resamples} resamples of {what}: {self.fit.law.name}, {100 * self.confidence_level:g} % intervals"
        )
        if self.method != REFITS:
            head += f"\n{self.method}"
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


def _free_only(law: Any, theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in theta.items() if name not in law.fixed and name not in law.tied}


@overload
def bootstrap(
    fit: ManifoldFit | Comparison,
    *,
    n_resamples: int = 1000,
    by: str | Sequence[str] = ("N", "D", "seed"),
    confidence_level: float = 0.95,
    rng: RngLike = None,
) -> Bootstrap: ...
@overload
def bootstrap(
    fit: JointFit,
    *,
    n_resamples: int = 1000,
    by: Sequence[str] = ("N", "D", "seed"),
    confidence_level: float = 0.95,
    rng: RngLike = None,
) -> JointBootstrap: ...
def bootstrap(
    fit: ManifoldFit | Comparison | JointFit,
    *,
    n_resamples: int = 1000,
    by: str | Sequence[str] = ("N", "D", "seed"),
    confidence_level: float = 0.95,
    rng: RngLike = None,
) -> Bootstrap | JointBootstrap:
    """Refit on resampled results; by default whole trained models are drawn.

    One checkpoint is evaluated with every store size, and whatever happened in its training is in all its rows. Drawing
    rows one by one takes them for independent, and 95 % intervals then hold the truth in about 60 % of cases.

    Parameters
    ----------
    fit : ManifoldFit, Comparison or JointFit
        Of a comparison the best law is refitted, and decisions average over all that count. Of a joint fit the same
        trained models are drawn for every group.
    n_resamples : int
    by : str, sequence of str, "rows" or "residuals"
        Columns that tell what is independent. The default is trained models: ``run`` or the ``by`` of the fit where
        there is one, else N, D and seed. "rows" draws single rows; "residuals" keeps the design and draws residuals of
        single rows.
    confidence_level : float
        Level of the intervals.
    rng : int, Generator, SeedSequence or None
        Randomness, as `numpy.random.default_rng` takes it.

    Returns
    -------
    Bootstrap, or JointBootstrap of a joint fit

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
    generator, n_resamples, confidence_level, by = _checked(fit, n_resamples, by, confidence_level, rng)
    if isinstance(fit, JointFit):
        from ragscale.fitting._joint import bootstrap_jointly

        return bootstrap_jointly(fit, n_resamples=n_resamples, by=by, confidence_level=confidence_level, rng=rng)
    warn_if_few(fit, by)
    problem, solution, method = resampled(fit, n_resamples, by, generator)
    size = problem.sizes(solution.u)
    return Bootstrap(
        fit=fit,
        theta=Theta(problem.theta(solution.c, solution.u, size)),
        link_values={name: values[:, 0].copy() for name, values in problem.extra(solution.u).items()},
        objective=solution.value,
        by=by,
        confidence_level=confidence_level,
        hit_rate=drawn(fit, n_resamples, generator),
        seed=int(generator.spawn(1)[0].integers(2**31)),
        method=method,
    )


def _checked(
    fit: Any, n_resamples: Any, by: Any, confidence_level: Any, rng: Any
) -> tuple[np.random.Generator, int, float, str | tuple[str, ...]]:
    """Return the arguments in their types, or say everything that is wrong with them."""
    if not isinstance(fit, (ManifoldFit, JointFit)):
        raise ConfigError(f"bootstrap: fit is a {type(fit).__name__}, expected a ManifoldFit from fit_manifold")
    table = peek(next(iter(fit.fits.values())) if isinstance(fit, JointFit) else fit, "data")
    count, by, level, generator = check_resampling(
        table, n_resamples=n_resamples, by=by, confidence_level=confidence_level, rng=rng
    )
    return generator, count, level, by


def warn_if_few(fit: ManifoldFit, by: Any) -> None:
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
