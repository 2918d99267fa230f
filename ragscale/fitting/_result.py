"""A fitted surface: what it predicts, how good it is, and how to keep it."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale._typing import Column, Curve, Numbers
from ragscale.errors import ConfigError, ExtrapolationWarning, FitError
from ragscale.fitting._checkpoint import Checkpoints, checkpoints_of, latent_at_checkpoint
from ragscale.fitting._comparison import Comparison
from ragscale.fitting._determined import other_values, refuse_unseen, unseen
from ragscale.fitting._own import Own, peek
from ragscale.fitting.laws._law import ScalingLaw, Theta, check_counts
from ragscale.fitting.solver._objective import Objective
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver.links import Link, Space
from ragscale.results._result import Result, latex_table

if TYPE_CHECKING:
    from ragscale.fitting._diagnostics import Diagnostics
    from ragscale.fitting._evidence import Evidence
    from ragscale.fitting._verdict import Verdict

_FAR = 10.0
NOT_DETERMINED = "not determined"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ManifoldFit(Result):
    """A law fitted to a results table; a value, never changed: frames that it hands out are copies.

    Attributes
    ----------
    law : ScalingLaw
    theta : Theta
        Parameters in counts, ``fit.theta.alpha`` or ``fit.theta["alpha"]``.
    link : Link
        How the law's latent loss becomes the metric; a floor or ceiling that was fitted is filled in.
    loss : Objective
        The loss of a residual that was summed.
    space : "log" or "linear"
        Where residuals are taken.
    objective : float
        The sum over rows of weight times loss, at its minimum.
    data : DataFrame
        The rows, with ``weight``; seeds averaged if that was asked for.
    minima : DataFrame
        Every distinct local minimum found, best first: the parameters and ``objective``.
    converged : bool
        Whether the best minimum is stationary.
    weights : str
        In words where the weights come from.
    selection : Comparison or None
        How the laws compared, when the law was chosen with ``law="auto"``.
    left_out : str
        In words which rows of the table the law could not read.
    dropped : tuple of str
        Parameters of terms that the rows say nothing about (one N, one D, D in step with N): the terms are left out.
    hit_rate : HitRateCurve, callable or None
        h(R) as the table measures it: what a law that reads ``hit_rate`` takes where none is given.
    evidence : Evidence or None
        What the table says without any law, each trained model compared with itself.
    """

    law: ScalingLaw
    theta: Theta
    link: Link
    loss: Objective
    space: Space
    objective: float
    data: Own[pd.DataFrame] = Own()
    minima: Own[pd.DataFrame] = Own()
    converged: bool = True
    weights: str = "equal"
    selection: Comparison | None = None
    left_out: str = ""
    dropped: tuple[str, ...] = ()
    hit_rate: Curve | Numbers | None = None
    evidence: Evidence | None = None

    _picture: ClassVar[str] = "parity"
    schema: ClassVar[str] = "ragscale.fit"

    # Predictions ---------------------------------------------------------------------------------------------------

    def latent(self, N: ArrayLike, D: ArrayLike, R: ArrayLike = 0.0, **columns: Column) -> np.ndarray:
        """Return the latent loss of the law at counts; the metric itself with the identity link."""
        return self.law.loss(N, D, R, self.theta, **self._with_hit_rate(columns))

    def _with_hit_rate(self, columns: Mapping[str, Column]) -> Mapping[str, Column]:
        """Add the measured h(R) where the law reads it and nothing else was given."""
        missing = "hit_rate" in self.law.further_columns and "hit_rate" not in columns
        return {**columns, "hit_rate": self.hit_rate} if missing and self.hit_rate is not None else columns

    def predict(
        self, N: ArrayLike, D: ArrayLike, R: ArrayLike = 0.0, *, at_checkpoint: bool = False, **columns: Column
    ) -> np.ndarray:
        """Predict the metric.

        Parameters
        ----------
        N, D, R : array-like
            Parameters, pretraining tokens, store tokens; broadcast against each other.
        at_checkpoint : bool
            For trained models that are in the table: start from what their own rows say of them, and let the law give
            the gain of a store alone. Most of what a law misses is common to all rows of a checkpoint.
        **columns : array-like or callable
            Further columns that the law reads: numbers, or functions of R. ``hit_rate`` is `hit_rate` where it is
            not given; 1 is a gold passage, also with R = 0.

        Raises
        ------
        FitError
            Where the rows say nothing about an N or D (see `unseen`), or the law leaves what the metric can be
            (`lowest`, `highest`), far outside the data. `latent` evaluates the formula anywhere.

        Warns
        -----
        ExtrapolationWarning
            When a count is more than 10 times outside the range of the data.
        """
        refuse_unseen(peek(self, "data"), self.unseen, {"N": N, "D": D})
        self._warn_if_far(N, D, R)
        if at_checkpoint:
            latent = latent_at_checkpoint(self, N, D, R, self._with_hit_rate(columns))
        else:
            latent = self.latent(N, D, R, **columns)
        value = np.asarray(self.link.metric(latent))
        beyond = ~((value >= self.lowest) & (value <= self.highest))
        if beyond.any():
            n, d, r = (np.broadcast_to(np.asarray(x, dtype=float), value.shape)[beyond].flat[0] for x in (N, D, R))
            worst = value[beyond].flat[0]
            limit = f"above {self.highest:g}" if worst > self.highest else f"below {self.lowest:g}"
            raise FitError(
                f"the law {self.law.name!r} predicts {worst:.4g} at N = {n:.4g}, D = {d:.4g}, R = {r:.4g}, and the "
                f"metric is never {limit}: this lies outside of what the law can describe"
            )
        return value

    @property
    def lowest(self) -> float:
        """The lowest value that the metric can take: as its link says, or 0 where all values are positive."""
        return self._limits[0]

    @property
    def highest(self) -> float:
        """The highest value that the metric can take: 0 for log likelihoods, the ceiling of a score, or infinity."""
        return self._limits[1]

    @cached_property
    def _limits(self) -> tuple[float, float]:
        return self.link.limits(peek(self, "data")["value"].to_numpy(float))

    @cached_property
    def unseen(self) -> dict[str, str]:
        """Variables whose effect the rows cannot show, each with a sentence; empty where N, D and R vary well."""
        found = unseen(peek(self, "data"), self.law.variables)
        return {name: text for name, text in found.items() if name != "R" or "C" in self.dropped}

    def require(self, *variables: str, **counts: ArrayLike) -> None:
        """Raise where the rows cannot show the effect of one of ``variables``: for decisions that turn on it.

        Parameters
        ----------
        *variables : "N", "D" or "R"
            What the decision compares different values of.
        **counts : array-like
            The N or D that it is made at: where the rows have one only, it has to be that one.

        Raises
        ------
        FitError
            Saying which rows are missing.
        """
        missing = [text for name, text in self.unseen.items() if name in variables]
        rest = {name: value for name, value in counts.items() if name not in variables}
        missing += other_values(peek(self, "data"), self.unseen, rest)
        if missing:
            raise FitError("these results cannot answer that: " + "; ".join(missing))

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Parameters that these rows do not determine: of terms left out, or free to move and move no prediction."""
        notes = self._params["note"]
        return tuple(str(name) for name in notes.index[notes.to_numpy() == NOT_DETERMINED])

    @property
    def describes_data(self) -> bool:
        """Whether the law follows the data at all; `diagnostics` says what is wrong where it does not."""
        return self.diagnostics.describes_data

    def gradient(
        self, N: ArrayLike, D: ArrayLike, R: ArrayLike = 0.0, **columns: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the slopes of the metric per parameter, per pretraining token and per store token."""
        slopes = self.law.gradient(N, D, R, self.theta, **self._with_hit_rate(columns))
        chain = self.link.slopes(self.latent(N, D, R, **columns))[0]
        by_n, by_d, by_r = (np.asarray(chain * slope) for slope in slopes)
        return by_n, by_d, by_r

    def extrapolation(self, N: ArrayLike, D: ArrayLike, R: ArrayLike = 0.0) -> pd.DataFrame:
        """Say how far counts lie outside the data: 1 inside, 3 for three times the largest or a third of the smallest.

        Returns
        -------
        DataFrame
            One row per (broadcast) point, columns of the variables that the law reads, and ``ratio``, the largest.
        """
        counts = np.broadcast_arrays(*check_counts(N, D, R))
        frame = {}
        for name, values in zip("NDR", counts, strict=True):
            if name not in self.law.variables:
                continue
            seen = peek(self, "data")[name].to_numpy(float)
            low, high = seen.min(), seen.max()
            flat = values.reshape(-1)
            with np.errstate(divide="ignore", invalid="ignore"):
                below = np.where(flat < low, low / flat, 1.0)
                above = np.where(flat > high, flat / high, 1.0)
            frame[name] = np.maximum(np.maximum(below, above), 1.0)
        table = pd.DataFrame(frame, index=range(counts[0].size))
        table["ratio"] = table.max(axis=1) if frame else 1.0
        return table

    def _warn_if_far(self, N: ArrayLike, D: ArrayLike, R: ArrayLike) -> None:
        table = self.extrapolation(N, D, R).drop(columns="ratio")
        largest = {str(name): float(np.max(table[name].to_numpy(float), initial=1.0)) for name in table}
        far = {name: ratio for name, ratio in largest.items() if ratio > _FAR}
        if far:
            import warnings

            said = ", ".join(f"{name} {ratio:.3g} times" for name, ratio in far.items())
            warnings.warn(
                f"prediction outside the data: {said} beyond its range; see how_sure_are_we in the guide, and "
                "bootstrap(fit).interval(..., kind='extrapolation')",
                ExtrapolationWarning,
                stacklevel=3,
            )

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """What the table knows of its trained models; for ``predict(at_checkpoint=True)``."""
        return checkpoints_of(self)

    @property
    def residuals(self) -> np.ndarray:
        """Return predicted - observed for every row of ``data``, in ``space``."""
        problem = self.problem
        c, u = problem.position(self.theta)
        return problem.residual(problem.latent(problem.columns(u, slopes=False), c), u)[0]

    # The problem behind the fit ------------------------------------------------------------------------------------

    @cached_property
    def problem(self) -> Problem:
        """The minimisation that this fit solved (a floor or ceiling counts as known)."""
        from ragscale.fitting._table import arrays

        data = peek(self, "data")
        table = arrays(data, data["weight"].to_numpy(float), self.law)
        return Problem(self.law, self.link, self.loss, space=self.space, table=table)

    @property
    def params(self) -> pd.DataFrame:
        """Parameters in counts, with cluster-robust standard errors.

        Returns
        -------
        DataFrame
            Indexed by parameter: ``value, stderr, low, high`` (95 %; on the log scale for parameters that are searched
            so), ``at_bound`` and ``note``. For intervals that do not lean on a normal approximation, `bootstrap`.
        """
        return self._params.copy()

    @cached_property
    def _params(self) -> pd.DataFrame:
        from ragscale.fitting._diagnostics import parameter_table

        return parameter_table(self)

    @cached_property
    def diagnostics(self) -> Diagnostics:
        """What to know before believing the fit, in words; ``print(fit.diagnostics)``."""
        from ragscale.fitting._diagnostics import diagnose

        return diagnose(self)

    @property
    def verdict(self) -> Verdict:
        """Whether retrieval helps these models, in words; see `Verdict`."""
        return self._verdict

    @cached_property
    def _verdict(self) -> Verdict:
        from ragscale.fitting._verdict import verdict

        return verdict(self)

    def params_in(self, unit: float) -> pd.DataFrame:
        """Return the parameters with N, D and R counted in ``unit``, e.g. 1e9 for billions."""
        if not unit > 0:
            raise ConfigError(f"unit = {unit!r} must be positive, e.g. 1e9")
        factor = unit_factors(self.law, self.theta, unit)
        table = self.params
        for column in ("value", "stderr", "low", "high"):
            table[column] *= [factor.get(name, 1.0) for name in table.index]
        return table

    # Looking at it -------------------------------------------------------------------------------------------------

    def to_frame(self, grid: Mapping[str, ArrayLike] | pd.DataFrame | None = None) -> pd.DataFrame:
        """Predict on a grid: a table of points, or values of N, D and R to be crossed; by default the fitted rows.

        Returns
        -------
        DataFrame
            Columns N, D, R, ``predicted``, and for the fitted rows ``value`` and ``residual``. On a grid, ``predicted``
            is NaN where the law leaves what the metric can be (`lowest`, `highest`).
        """
        if grid is None:
            points = frame = self.data
        elif isinstance(grid, pd.DataFrame):
            points = frame = grid.assign(R=grid.get("R", 0.0))
        else:
            axes = [np.atleast_1d(np.asarray(grid.get(name, [0.0]), dtype=float)) for name in "NDR"]
            mesh = np.meshgrid(*axes, indexing="ij")
            points = frame = pd.DataFrame({name: values.reshape(-1) for name, values in zip("NDR", mesh, strict=True)})
        columns = {name: points[name].to_numpy(float) for name in self.law.further_columns if name in points}
        predicted = self.link.metric(
            self.latent(
                points["N"].to_numpy(float), points["D"].to_numpy(float), points["R"].to_numpy(float), **columns
            )
        )
        if grid is None:
            return frame.assign(predicted=predicted, residual=self.residuals)
        possible = (predicted >= self.lowest) & (predicted <= self.highest)
        return frame.assign(predicted=np.where(possible, predicted, np.nan))

    def summary(self) -> str:
        """Return the fit as text: what was fitted, parameters, diagnostics."""
        count, sizes = self.diagnostics.n_clusters, self.data["N"].nunique()
        stationary = "" if self.converged else "; NOT CONVERGED"
        missing = [f"! {text[0].upper()}{text[1:]}." for text in self.unseen.values()]
        chosen = [f"law chosen: {self.selection.note}"] if self.selection is not None and self.selection.note else []
        read = self.evidence.reads if self.evidence is not None else None
        lines = [
            *([] if self.describes_data else [self.diagnostics.misfit]),
            self.verdict.text,
            *chosen,
            *([read.summary()] if read is not None else []),
            f"{self.law.name}: L = {self.law.formula}",
            f"rows {len(self.data)}, trained models {count}, values of N {sizes}{self._store_words()}",
            f"link {self.link.name}, weights {self.weights}" + (f"; {self.left_out}" if self.left_out else ""),
            f"objective {self.objective:.8g} ({self.loss.describe(self.space)}){stationary}",
            *missing,
            "",
            self.params.to_string(float_format=lambda value: f"{value:.5g}"),
            "",
            str(self.diagnostics),
        ]
        return "\n".join(lines)

    def _store_words(self) -> str:
        return "" if (peek(self, "data")["R"] != 0).any() else "; all rows taken as R = 0, no store"

    def __repr__(self) -> str:
        rows = len(peek(self, "data"))
        return f"<ManifoldFit: {self.law.name}, {rows} rows, link {self.link.name}, objective {self.objective:.8g}>"

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{html.escape(finding.text)}</li>" for finding in self.diagnostics.findings)
        return (
            f"<div><b>{html.escape(self.law.name)}</b>: L = {html.escape(self.law.formula)}<br>"
            f"{len(self.data)} rows, objective {self.objective:.8g} "
            f"({html.escape(self.loss.describe(self.space))})"
            f"{self.params.to_html(float_format=lambda value: f'{value:.5g}')}<ul>{said}</ul></div>"
        )

    def to_latex(self, *, digits: int = 3, caption: str = "", label: str = "") -> str:
        """Return the parameters as a booktabs table, a value and its interval in one cell."""
        table = self.params.reset_index().rename(
            columns={"name": "parameter", "low": "value_low", "high": "value_high"}
        )
        columns = ["parameter", "value", "value_low", "value_high", "stderr"]
        return latex_table(pd.DataFrame(table[columns]), digits=digits, caption=caption, label=label)

    # Keeping it ----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able; `from_dict` gives the same predictions bit for bit."""
        from ragscale.fitting._saved import fit_to_dict

        return fit_to_dict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ManifoldFit:
        """Build a fit from `to_dict`."""
        from ragscale.fitting._saved import fit_from_dict

        return fit_from_dict(value)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to a versioned JSON file, atomically."""
        from ragscale.fitting._saved import write

        write(path, self.to_dict(), self.schema)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `to_json` wrote; predictions are the same bit for bit.

        Raises
        ------
        FitError
            When the file's law is not known here (an own law must be imported first).
        CheckpointError
            When the file is damaged or holds something else.
        """
        from ragscale.fitting._saved import fit_from_dict, read

        return read(path, fit_from_dict, cls.schema)

    def to_lmfit(self) -> Any:
        """Return an lmfit ``ModelResult``-like pair ``(lmfit.Minimizer, lmfit.Parameters)`` at this optimum.

        The minimiser's residuals are least squares in ``space``, whatever this fit's loss is; use it for
        ``lmfit.conf_interval`` after ``minimizer.minimize(params=parameters)``.
        """
        from ragscale.fitting._lmfit import to_lmfit

        return to_lmfit(self)


def unit_factors(law: ScalingLaw, theta: Mapping[str, float], unit: float) -> dict[str, float]:
    """Return by what each parameter is multiplied when N, D and R are counted in ``unit``.

    A coefficient scales as its column does: the ratio of the column in counts to the column in units. A nonlinear
    parameter scales by its declared unit.
    """
    factors: dict[str, float] = {}
    for parameter in law.parameters:
        over, _, under = parameter.unit.partition("/")
        power = (over in {"N", "D", "R"}) - (under in {"N", "D", "R"})
        factors[parameter.name] = unit ** -float(power)
    here, there = dict(theta), {name: value * factors[name] for name, value in theta.items()}
    probe = (np.array([2.0]) * unit, np.array([3.0]) * unit, np.array([1.5]) * unit)
    n, d, r = probe
    law_free = law if not law.further_columns else None
    if law_free is None:
        raise FitError(f"the law {law.name!r} reads further columns: its parameters have no view in other units")
    names = _coefficients(law, theta, probe)
    nothing = dict.fromkeys(names, 0.0)  # of the other terms, beside which a small column would lose its digits
    for name in names:
        one, zero = {**here, **nothing, name: 1.0}, {**here, **nothing}
        column = law._loss(n, d, r, Theta(one)) - law._loss(n, d, r, Theta(zero))
        one, zero = {**there, **nothing, name: 1.0}, {**there, **nothing}
        other = law._loss(n / unit, d / unit, r / unit, Theta(one)) - law._loss(
            n / unit, d / unit, r / unit, Theta(zero)
        )
        factors[name] = float((np.asarray(column) / np.asarray(other)).reshape(-1)[0])
    return factors


def _coefficients(law: ScalingLaw, theta: Mapping[str, float], probe: tuple[np.ndarray, ...]) -> list[str]:
    from ragscale.fitting.solver._linear_parameters import linear_names

    n, d, r = probe
    typical = {"N": float(n[0]), "D": float(d[0]), "R": float(r[0])}
    return [name for name in linear_names(law, n, d, r, typical) if name != "offset"]
