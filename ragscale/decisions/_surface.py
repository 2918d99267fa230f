"""What a decision is about: one fitted surface, or the average of those that the data cannot tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import pandas as pd

from ragscale._typing import HitRateLike
from ragscale.errors import ConfigError, ExtrapolationWarning, FitError
from ragscale.fitting._bootstrap import LEAST_WEIGHT
from ragscale.fitting._conditions import as_hit_rate
from ragscale.fitting.laws._catalogue import make_law
from ragscale.fitting.laws._law import ScalingLaw, Theta
from ragscale.fitting.solver.links import Identity, Link

if TYPE_CHECKING:
    from ragscale.fitting import Bootstrap, Comparison, ManifoldFit

Subject: TypeAlias = "ManifoldFit | Bootstrap | Comparison | tuple[str | ScalingLaw, Mapping[str, float]]"
"""A fit, a bootstrap, a comparison of laws, or a law with parameters in counts: what every decision takes."""

SETTLED = frozenset({"nobody reads in this range", "no effect", "hurts"})
"""Kinds of `Verdict` that settle the split of a budget by themselves: no store."""

_EXTRAPOLATION = 10.0
_NOWHERE = 1000.0
BELOW = 10.0  # how far below the smallest D measured a recommendation may go


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """A law with parameter values, its replicates if there are any, and where they come from.

    ``members`` are the surfaces that this one averages, each with its ``weight``; empty for a single law. ``source`` is
    the fit that it comes from. A law that reads h(R) holds one curve for the point and each replicate.
    """

    law: Any
    theta: Theta
    replicates: Theta | None = None
    link: Link | None = None
    data: pd.DataFrame | None = None
    confidence_level: float = 0.95
    name: str = ""
    weight: float = 1.0
    members: tuple[Surface, ...] = ()
    source: Any = None

    @property
    def n_replicates(self) -> int:
        if self.members:
            return sum(member.n_replicates for member in self.members)
        return 0 if self.replicates is None else len(next(iter(_varying(self.replicates))))

    def require(self, *variables: str, **counts: Any) -> None:
        """Raise where the rows of the fit cannot show the effect of ``variables``, or of an N or D other than theirs.

        Raises
        ------
        FitError
            Saying which rows are missing.
        """
        for part in self.members or (self,):
            if part.source is not None and part.source.unseen:
                part.source.require(*variables, **counts)
        if "R" in variables:
            self._require_store()
        if len(variables) > 1 and self.source is not None:
            self._require_description("R" in variables)

    def _require_description(self, of_stores: bool) -> None:
        """Raise where the law does not follow the data, unless what these say of stores settles the question."""
        fit = self.source
        several = self.data is not None and len(np.unique(self.data["value"].to_numpy(float))) > 1
        settled = of_stores and fit.verdict.kind in SETTLED and several
        if not fit.describes_data and not settled:
            raise FitError(f"this fit cannot answer that: {fit.diagnostics.misfit} {fit.verdict.text}")

    def _require_store(self) -> None:
        """Raise where the law knows no store, the rows have some, and whether these help is open or plain."""
        if (
            self.source is None
            or self.data is None
            or "R" in self.law.variables
            or not np.any(self.data["R"].to_numpy(float) > 0)
        ):
            return
        verdict = self.source.verdict
        if verdict.kind not in SETTLED:
            raise FitError(
                f"the law {self.law.name!r} has no term for a store, and these results have stores. {verdict.text} "
                "Fit a law with R, rs.fit_manifold(results, law='log1p'), or add the rows that such a law needs"
            )

    def stacked(self) -> Theta:
        """Return the point estimate and the replicates below each other, as (1 + S, 1) columns."""
        if self.replicates is None:
            return Theta({name: np.full((1, 1), value) for name, value in self.theta.items()})
        n = self.n_replicates
        rows = {k: np.broadcast_to(np.asarray(v, np.float64), (n,)) for k, v in self.replicates.items()}
        return Theta({name: np.concatenate([[value], rows[name]])[:, None] for name, value in self.theta.items()})

    def at_point(self) -> Any:
        """Return the law with the further columns of the point estimate only."""
        return taken(self.law, (0, 0))

    def metric(self, loss: np.ndarray) -> np.ndarray:
        """Return the predicted metric for a loss; they are the same for the identity link."""
        return np.asarray(loss if self.link is None else self.link.metric(loss))

    @property
    def rises(self) -> bool:
        """Whether a higher metric is better: what the link makes of a falling loss."""
        return self.link is not None and self.link.rising

    def pooled(self, decide: Callable[[Surface], dict[str, np.ndarray]]) -> Pooled:
        """Decide under the surface itself and under each law, and put the replicates of all laws together.

        ``decide`` returns named arrays (1 + S, M): the point in row 0, replicates below. The point of an average is
        decided under the averaged surface; its replicates are those of the laws, as many of each as its weight asks.
        """
        if not self.members:
            return Pooled(decide(self), {})
        point = decide(self)
        each = {member.name: member.in_metric(decide(member)) for member in self.members}
        total = max(member.n_replicates for member in self.members)
        rows = {name: [values[:1]] for name, values in point.items()}
        if total:
            for member in self.members:
                count = min(member.n_replicates, max(1, round(member.weight * total)))
                for name, parts in rows.items():
                    parts.append(each[member.name][name][1 : 1 + count])
        stacked = {name: np.concatenate(parts) for name, parts in rows.items()}
        return Pooled(stacked, {law: {k: v[0] for k, v in values.items()} for law, values in each.items()})

    def signed(self, loss: np.ndarray) -> np.ndarray:
        """Return the metric for a loss, turned so that lower is better: the loss itself for the identity link."""
        if self.members:
            return np.asarray(loss)  # of an average it is that already
        return np.asarray((-1.0 if self.rises else 1.0) * self.metric(loss))

    def in_metric(self, decided: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a decision of one law with its losses as those of an average are: the metric, lower is better."""
        losses = {name: self.signed(decided[name]) for name in ("loss", "without") if name in decided}
        return {**decided, **losses}

    @property
    def metric_name(self) -> str:
        """What was measured, by the column ``metric``; empty where the table does not say, or for given parameters."""
        names = [] if self.data is None or "metric" not in self.data else self.data["metric"].dropna().unique()
        return str(names[0]) if len(names) == 1 else ""

    @property
    def store_measured(self) -> bool:
        """Whether any row has a store; true for a law with given parameters, which are taken by their word."""
        return self.data is None or bool(np.any(self.data["R"].to_numpy(float) > 0))

    @property
    def doubt(self) -> str:
        """The verdict of the fit in words where it is not that retrieval helps; empty for given parameters."""
        verdict = None if self.source is None else self.source.verdict
        return "" if verdict is None or verdict.helps else str(verdict.text)

    def require_measured_store(self, what: str) -> None:
        """Raise where no row has a store: nothing about one is in the data, and that is not "nothing"."""
        if not self.store_measured:
            raise FitError(
                f"{what}: no row of these results has a store (R is 0 in all of them), so what a store token is worth "
                "is not measured: add rows of models that were evaluated with one"
            )

    def warn_beyond_data(self, what: str, **counts: np.ndarray) -> str:
        """Warn when a count lies more than tenfold outside of what was fitted; return what was said."""
        if self.data is None:
            return ""
        far = []
        for name, value in counts.items():
            column = np.asarray(self.data[name], np.float64) if name in self.data else np.empty(0)
            fitted, asked = column[column > 0], value[np.isfinite(value) & (value > 0)]
            if not (fitted.size and asked.size):
                continue
            sides = [(asked.max(), asked.max() / fitted.max())]
            if (column > 0).all():  # with R = 0 among the data a small store lies between data
                sides.append((asked.min(), fitted.min() / asked.min()))
            span = f"{fitted.min():.3g} to {fitted.max():.3g}"
            far += [
                f"{name} = {x:.3g} is {ratio:.0f} times beyond {span}" for x, ratio in sides if ratio > _EXTRAPOLATION
            ]
        if far:
            warnings.warn(f"{what} extrapolates: {'; '.join(far)}", ExtrapolationWarning, stacklevel=4)
        return "; ".join(far)

    def refuse_nowhere(self, what: str, *, times: float = _NOWHERE, **counts: np.ndarray) -> None:
        """Refuse a recommendation that many times outside of what was fitted: nothing there was ever seen.

        Between no store and the smallest one that was measured any small store lies inside.
        """
        for name, value in counts.items():
            seen, asked = self.measured(name), value[np.isfinite(value) & (value > 0)]
            if not (seen.size and asked.size):
                continue
            above, below = asked.max() > times * seen.max(), name != "R" and times * asked.min() < seen.min()
            if above or below:
                raise FitError(
                    f"{what}: the best {name} by this law is {asked.max() if above else asked.min():.3g}, more than "
                    f"{times:.0f} times outside of the {seen.min():.3g} to {seen.max():.3g} of the rows: they do "
                    f"not say where it is. Ask nearer to them, or set a limit ({'max' if above else 'min'}_{name})"
                )

    def measured(self, name: str) -> np.ndarray:
        """Return the positive values of a column of the fitted data; none for a law with given parameters."""
        if self.data is None or name not in self.data:
            return np.empty(0)
        column = np.asarray(self.data[name], np.float64)
        return column[column > 0]

    @property
    def least_D(self) -> float:
        """The least D that a recommendation may have; 1 for a law with given parameters."""
        measured = self.measured("D")
        return max(1.0, float(measured.min()) / BELOW) if measured.size else 1.0

    def check_possible(self, where: str, loss: np.ndarray) -> None:
        """Refuse a predicted metric that cannot be: at or below zero where every measured value is positive, and so on.

        Raises
        ------
        FitError
            With the value, and what it says about the fit.
        """
        if self.data is None:
            return
        link = (self.members[0].link if self.members else self.link) or Identity()
        low, high = link.limits(np.asarray(self.data["value"], np.float64))
        value = self.metric(loss)
        beyond = (value < low) | (value > high) | ((value <= 0) & (low == 0) & np.isinf(high))
        if np.any(beyond):
            limit = f"above {high:g}" if np.any(value > high) else f"{low:g} or below"
            raise FitError(
                f"{where}: the fit of the law {self.law.name!r} predicts {value[beyond].flat[0]:.3g} there, and this "
                f"metric is never {limit}: the data do not determine the surface that far; fit another law, add runs, "
                "or ask within the measured range"
            )


@dataclass(frozen=True, slots=True)
class Pooled:
    """A decision under a surface: ``stacked`` (1 + S, M) by name, and by law the points (M,) where several fit."""

    stacked: dict[str, np.ndarray]
    laws: dict[str, dict[str, np.ndarray]]

    def by_law(self, name: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return one quantity under each law, in the shape of the arguments."""
        return {law: np.reshape(values[name], shape) for law, values in self.laws.items()}


class Average:
    """The weighted mean of fitted surfaces in the metric, as a law that decisions can minimise.

    The sign is such that lower is better, whatever the metric.
    """

    variables = ("N", "D", "R")
    offset = False
    further_columns = ()

    def __init__(self, members: Sequence[Surface]) -> None:
        self.members = tuple(replace(member, law=member.at_point()) for member in members)
        self.name = "average of " + ", ".join(member.name for member in members)
        self.sign = -1.0 if members[0].rises else 1.0
        self.gain_depends_on_N = any(member.law.gain_depends_on_N for member in members)

    def _knows(self, answer: str) -> bool:
        return False

    def _loss(self, n: Any, d: Any, r: Any, theta: Any = None) -> np.ndarray:
        n, d, r = (np.asarray(x, np.float64) for x in (n, d, r))
        value = sum(m.weight * m.metric(m.law.loss(n, d, r, m.theta)) for m in self.members)
        return self._rows(self.sign * np.asarray(value), theta)

    def loss(self, N: Any, D: Any, R: Any, theta: Any = None) -> np.ndarray:
        return self._loss(N, D, R, theta)

    def _gradient(self, n: Any, d: Any, r: Any, theta: Any = None) -> tuple[np.ndarray, ...]:
        n, d, r = (np.asarray(x, np.float64) for x in (n, d, r))
        sums = [0.0, 0.0, 0.0]
        for m in self.members:
            chain = 1.0 if m.link is None else m.link.slopes(m.law.loss(n, d, r, m.theta))[0]
            for i, slope in enumerate(m.law.gradient(n, d, r, m.theta)):
                sums[i] = sums[i] + self.sign * m.weight * chain * slope
        return tuple(self._rows(np.asarray(total), theta) for total in sums)

    @staticmethod
    def _rows(value: np.ndarray, theta: Any) -> np.ndarray:
        """Give a value the row that stacked parameters have: (1, M) against (M,)."""
        return value if theta is None else value + np.zeros(np.shape(theta["weight"]))

    def gradient(self, N: Any, D: Any, R: Any, theta: Any = None) -> tuple[np.ndarray, ...]:
        return self._gradient(N, D, R, theta)


@dataclass(frozen=True)
class _Signed:
    """The link of an average: its loss is the metric, turned so that lower is better."""

    sign: float

    @property
    def rising(self) -> bool:
        return self.sign < 0

    def metric(self, latent: np.ndarray, extra: Any = None) -> np.ndarray:
        return self.sign * np.asarray(latent)

    def latent(self, metric: np.ndarray, extra: Any = None) -> np.ndarray:
        return self.sign * np.asarray(metric)

    def slopes(self, latent: np.ndarray, extra: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return self.sign * np.ones_like(latent), {}


def taken(law: Any, index: Any) -> Any:
    """Return a law whose further columns are those of the replicates at ``index``; most laws have none."""
    return law.take(index) if hasattr(law, "take") else law


def answer(law: Any, question: str, *arguments: Any) -> Any:
    """Return what a law says of itself in closed form, None where only a search can tell."""
    return getattr(law, question)(*arguments) if law._knows(question) else None


def surface(subject: Any, *, hit_rate: HitRateLike = None) -> Surface:
    """Read what a decision is about.

    Parameters
    ----------
    subject : ManifoldFit, Bootstrap, Comparison, or (law, parameters)
        Of a comparison, and of a fit whose law was chosen by ``law="auto"``, all laws that the data cannot tell apart
        count, by their weights.
    hit_rate : HitRateCurve, callable of R, number or table, optional
        h(R) for laws that read it; by default the curve that the fit carries.

    Raises
    ------
    ConfigError
        When it is none of these, or a law needs a column that is not given.
    """
    if isinstance(subject, Surface):
        return subject
    if isinstance(subject, tuple):
        return _from_pair(subject, hit_rate)
    if hasattr(subject, "fits") and hasattr(subject, "weights"):
        return _average(_candidates(subject), hit_rate)
    fit: Any = getattr(subject, "fit", subject)
    if not isinstance(getattr(fit, "law", None), ScalingLaw) or not hasattr(fit, "theta"):
        raise ConfigError(
            "expected a ManifoldFit, a Bootstrap, a Comparison or a pair (law, parameters), got "
            f"{type(subject).__name__}: fit first, rs.fit_manifold(results)"
        )
    candidates = _candidates(fit.selection) if getattr(getattr(fit, "selection", None), "fits", None) else []
    if fit is not subject:
        boots = getattr(subject, "members", {})
        candidates = [(name, weight, boots[name]) for name, weight, _ in candidates if name in boots]
    return _average(candidates, hit_rate) if candidates else _from_fit(subject, hit_rate)


def _candidates(comparison: Any) -> list[tuple[str, float, Any]]:
    """Return the laws that count, with their weights."""
    return [(name, w, comparison.fits[name]) for name, w in comparison.weights.items() if w >= LEAST_WEIGHT]


def _average(candidates: Sequence[tuple[str, float, Any]], hit_rate: HitRateLike) -> Surface:
    total = sum(weight for _, weight, _ in candidates)
    members = [replace(_from_fit(s, hit_rate), name=name, weight=weight / total) for name, weight, s in candidates]
    if len(members) == 1:
        return members[0]
    law = Average(members)
    return Surface(
        law=law,
        theta=Theta({"weight": 1.0}),
        link=cast(Link, _Signed(law.sign)),  # as much of one as decisions ask
        data=members[0].data,
        confidence_level=members[0].confidence_level,
        name=law.name,
        members=tuple(members),
        source=members[0].source,
    )


def _from_pair(subject: tuple[Any, ...], hit_rate: HitRateLike) -> Surface:
    if len(subject) != 2:
        raise ConfigError(f"expected a pair (law, parameters), got {len(subject)} things")
    law = make_law(subject[0])
    if not isinstance(subject[1], Mapping):
        raise ConfigError(f"the parameters of a pair (law, parameters) are a mapping, not {subject[1]!r}")
    theta = law.theta(subject[1])
    bad = [name for name, value in theta.items() if np.ndim(value) or not np.isfinite(value)]
    if bad:
        raise ConfigError(f"parameters must be finite numbers; {', '.join(bad)} are not")
    further = law.further_columns
    if further == ("hit_rate",) and hit_rate is not None:
        law = law.at(hit_rate=as_hit_rate(hit_rate))
    return Surface(law=_complete(law), theta=theta, name=law.name)


def _from_fit(subject: Any, hit_rate: HitRateLike) -> Surface:
    fit = getattr(subject, "fit", subject)
    law = fit.law
    if "hit_rate" in law.further_columns:
        from ragscale.fitting._hit_rate import law_for_decisions

        law = law_for_decisions(subject, hit_rate)
    replicates = None
    if fit is not subject:
        replicates, good = _finite_replicates(law, subject.theta)
        law = law if good.all() else taken(law, np.concatenate([[0], 1 + np.flatnonzero(good)]))
    return Surface(
        law=_complete(law),
        theta=law.theta(_own(law, fit.theta)),
        replicates=replicates,
        link=getattr(fit, "link", None),
        data=getattr(fit, "data", None),
        confidence_level=float(getattr(subject, "confidence_level", 0.95)),
        name=law.name,
        source=fit,
    )


def _complete(law: ScalingLaw) -> ScalingLaw:
    """Refuse a law that lacks further columns."""
    further = law.further_columns
    if further and "_further" not in law.__dict__:
        if further == ("hit_rate",):
            raise ConfigError(
                f"the law {law.name!r} reads the hit rate of the store: give hit_rate=, a curve "
                "rs.results.hit_rate_curve(results), a function of R, or a table with R and hit_rate"
            )
        raise ConfigError(
            f"the law {law.name!r} also reads {', '.join(further)}: decide with law.at({further[0]}=...) and its "
            "parameters, rs.optimal_allocation((fit.law.at(...), fit.theta), ...)"
        )
    return law


def _own(law: ScalingLaw, theta: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the parameters of the link."""
    names = {parameter.name for parameter in law.parameters}
    return {name: value for name, value in theta.items() if name in names}


def _varying(theta: Theta) -> list[np.ndarray]:
    return [np.asarray(value) for value in theta.values() if np.ndim(value) == 1] or [np.zeros(1)]


def _finite_replicates(law: ScalingLaw, theta: Mapping[str, Any]) -> tuple[Theta, np.ndarray]:
    """Return the replicates whose parameters are all finite, and which they are."""
    complete = law.theta({k: np.asarray(v, np.float64) for k, v in _own(law, theta).items()})
    n = max(len(v) for v in _varying(complete))
    rows = {name: np.broadcast_to(np.asarray(value, np.float64), (n,)) for name, value in complete.items()}
    good = np.all([np.isfinite(row) for row in rows.values()], axis=0)
    if not good.any():
        raise FitError("no replicate of the bootstrap has finite parameters")
    return Theta({name: row[good] for name, row in rows.items()}), good
