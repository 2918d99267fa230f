"""What all decisions share: a law with its parameters and replicates, checked arguments, estimates with intervals."""

from __future__ import annotations

import html
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError, ExtrapolationWarning, FitError
from ragscale.fitting.laws._catalogue import make_law
from ragscale.fitting.laws._law import ScalingLaw, Theta

_EXTRAPOLATION = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """A law with parameter values, its replicates if there are any, and where they come from."""

    law: ScalingLaw
    theta: Theta
    replicates: Theta | None = None
    link: Any = None
    data: pd.DataFrame | None = None
    confidence_level: float = 0.95

    @property
    def n_replicates(self) -> int:
        return 0 if self.replicates is None else len(next(iter(_varying(self.replicates))))

    def stacked(self) -> Theta:
        """Return the point estimate and the replicates below each other, as (1 + S, 1) columns."""
        if self.replicates is None:
            return Theta({name: np.full((1, 1), value) for name, value in self.theta.items()})
        n = self.n_replicates
        rows = {k: np.broadcast_to(np.asarray(v, np.float64), (n,)) for k, v in self.replicates.items()}
        return Theta({name: np.concatenate([[value], rows[name]])[:, None] for name, value in self.theta.items()})

    def metric(self, loss: np.ndarray) -> np.ndarray:
        """Return the predicted metric for a loss; they are the same for the identity link."""
        return np.asarray(loss if self.link is None else self.link.metric(loss))

    def quantiles(self, stacked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of the percentile interval over rows 1, 2, ... of a stacked quantity."""
        tail = (1 - self.confidence_level) / 2
        if stacked.shape[0] < 2:
            nothing = np.full(stacked.shape[1:], np.nan)
            return nothing, nothing
        # "inverted_cdf" returns a replicate, so that infinite ones (censored, never reached) do no harm
        low, high = np.quantile(stacked[1:], [tail, 1 - tail], axis=0, method="inverted_cdf")
        return low, high

    def warn_beyond_data(self, what: str, **counts: np.ndarray) -> None:
        """Warn when a count lies more than tenfold outside of what was fitted."""
        if self.data is None:
            return
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


def answer(law: ScalingLaw, question: str, *arguments: Any) -> Any:
    """Return what a law says of itself in closed form, None where only a search can tell."""
    return getattr(law, question)(*arguments) if law._knows(question) else None


def surface(subject: Any) -> Surface:
    """Read what a decision is about: a fit, a bootstrap, or a pair (law, parameters in counts)."""
    if isinstance(subject, Surface):
        return subject
    if isinstance(subject, tuple):
        if len(subject) != 2:
            raise ConfigError(f"expected a pair (law, parameters), got {len(subject)} things")
        law = make_law(subject[0])
        if not isinstance(subject[1], Mapping):
            raise ConfigError(f"the parameters of a pair (law, parameters) are a mapping, not {subject[1]!r}")
        theta = law.theta(subject[1])
        bad = [name for name, value in theta.items() if np.ndim(value) or not np.isfinite(value)]
        if bad:
            raise ConfigError(f"parameters must be finite numbers; {', '.join(bad)} are not")
        return _checked(Surface(law=law, theta=theta))
    fit: Any = getattr(subject, "fit", subject)
    if not isinstance(getattr(fit, "law", None), ScalingLaw) or not hasattr(fit, "theta"):
        raise ConfigError(
            f"expected a ManifoldFit, a Bootstrap or a pair (law, parameters), got {type(subject).__name__}: "
            "fit first, rs.fit_manifold(results)"
        )
    law = fit.law
    replicates = None if fit is subject else _finite_replicates(law, subject.theta)
    return _checked(
        Surface(
            law=law,
            theta=law.theta(_own(law, fit.theta)),
            replicates=replicates,
            link=getattr(fit, "link", None),
            data=getattr(fit, "data", None),
            confidence_level=float(getattr(subject, "confidence_level", 0.95)),
        )
    )


def _own(law: ScalingLaw, theta: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the parameters of the link."""
    names = {parameter.name for parameter in law.parameters}
    return {name: value for name, value in theta.items() if name in names}


def _checked(found: Surface) -> Surface:
    further = found.law.further_columns
    if further and "_further" not in found.law.__dict__:
        raise ConfigError(
            f"the law {found.law.name!r} also reads {', '.join(further)}: decide with law.at({further[0]}=...) and its "
            "parameters, rs.optimal_allocation((fit.law.at(...), fit.theta), ...)"
        )
    return found


def _varying(theta: Theta) -> list[np.ndarray]:
    return [np.asarray(value) for value in theta.values() if np.ndim(value) == 1] or [np.zeros(1)]


def _finite_replicates(law: ScalingLaw, theta: Mapping[str, Any]) -> Theta:
    complete = law.theta({k: np.asarray(v, np.float64) for k, v in _own(law, theta).items()})
    n = max(len(v) for v in _varying(complete))
    rows = {name: np.broadcast_to(np.asarray(value, np.float64), (n,)) for name, value in complete.items()}
    good = np.all([np.isfinite(row) for row in rows.values()], axis=0)
    if not good.any():
        raise FitError("no replicate of the bootstrap has finite parameters")
    return Theta({name: row[good] for name, row in rows.items()})


def counts(problems: list[str], *, allow_zero: tuple[str, ...] = (), **values: Any) -> dict[str, np.ndarray]:
    """Convert named counts to float64 arrays that broadcast, adding to ``problems`` what is wrong."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in values.items():
        try:
            raw = np.asarray(value)
            if raw.dtype.kind in "bSUMmc":
                raise TypeError(f"{raw.dtype} is no count")
            array = raw.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            problems.append(f"{name} = {value!r:.60} is not numeric ({error})")
            continue
        bad = ~np.isfinite(array) | ((array < 0) if name in allow_zero else (array <= 0))
        if bad.any():
            rule = "finite and not negative" if name in allow_zero else "finite and positive"
            problems.append(f"{name} must be {rule}, got {array[bad].flat[0]:g}")
        if array.size == 0:
            problems.append(f"{name} is empty")
        arrays[name] = array
    try:
        np.broadcast_shapes(*(a.shape for a in arrays.values()))
    except ValueError:
        problems.append("shapes do not broadcast: " + ", ".join(f"{k} {v.shape}" for k, v in arrays.items()))
    return arrays


def refuse(problems: list[str], where: str) -> None:
    """Raise one error with everything that is wrong with the arguments."""
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))


def scalar(value: np.ndarray) -> Any:
    """Return a 0-dimensional array as its scalar (text as str), others as they are."""
    found = np.asarray(value)[()]
    return str(found) if isinstance(found, np.str_) else found


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Estimate(np.lib.mixins.NDArrayOperatorsMixin):
    """A decision in numbers: behaves as its point estimate in arithmetic, and carries intervals beside it.

    Attributes
    ----------
    name : str
        What it is.
    value : ndarray or float
        The point estimate, in the shape that the arguments broadcast to.
    low, high : ndarray or float
        Percentile interval; NaN without a bootstrap.
    replicates : ndarray
        (n_replicates, ...) values over the bootstrap.
    confidence_level : float
    at : mapping
        The arguments, broadcast: N, D, R, ...
    note : str
        What to know about it, in words; may be empty.
    """

    name: str
    value: Any
    low: Any
    high: Any
    replicates: np.ndarray
    confidence_level: float
    at: Mapping[str, np.ndarray] = field(default_factory=dict)
    note: str = ""

    @classmethod
    def from_stacked(
        cls, name: str, found: Surface, stacked: np.ndarray, at: Mapping[str, np.ndarray], note: str = ""
    ) -> Estimate:
        """Build from the point estimate (row 0) and the replicates (further rows)."""
        low, high = found.quantiles(stacked)
        return cls(
            name=name,
            value=scalar(stacked[0]),
            low=scalar(low),
            high=scalar(high),
            replicates=stacked[1:],
            confidence_level=found.confidence_level,
            at=at,
            note=note,
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value, dtype=dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [x.value if isinstance(x, Estimate) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **options)

    def __float__(self) -> float:
        return float(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else repr(self)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self.value)[key]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the point estimate."""
        return np.shape(self.value)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per element: the arguments, the value, and the interval where there is one."""
        columns = {name: np.ravel(np.broadcast_to(a, self.shape)) for name, a in self.at.items()}
        columns[self.name] = np.ravel(self.value)
        if len(self.replicates):
            columns |= {f"{self.name}_low": np.ravel(self.low), f"{self.name}_high": np.ravel(self.high)}
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        text = f"{self.name} = {self.value}"
        if len(self.replicates):
            text += f" ({100 * self.confidence_level:g}% interval {self.low} to {self.high})"
        return text + (f"; {self.note}" if self.note else "")

    def _repr_html_(self) -> str:
        return self.to_frame().to_html() + (f"<p>{html.escape(self.note)}</p>" if self.note else "")
