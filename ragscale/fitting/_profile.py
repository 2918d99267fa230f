"""Profile of the objective along one parameter, with the same loss as the fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import special
from scipy.optimize import root_scalar

from ragscale.errors import ConfigError
from ragscale.fitting._diagnostics import sandwich
from ragscale.fitting._own import Own
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._refine import refine
from ragscale.results._result import Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Profile(Result):
    """The best objective for given values of one parameter.

    Attributes
    ----------
    name : str
    value : float
        The estimate.
    low, high : float
        Ends of the profile interval; a bound of the parameter where the profile never rises enough.
    confidence_level : float
    curve : DataFrame
        ``value``, ``objective``, and ``root``: the signed square root of the scaled rise, a straight line through 0
        where the usual approximation holds.
    threshold : float
        The objective at the ends of the interval.
    """

    name: str
    value: float
    low: float
    high: float
    confidence_level: float
    curve: Own[pd.DataFrame] = Own()
    threshold: float

    _picture: ClassVar[str] = "profile"

    def summary(self) -> str:
        """Say the estimate and its interval."""
        level = f"{100 * self.confidence_level:g} %"
        return f"{self.name} = {self.value:.5g}, {level} profile interval [{self.low:.5g}, {self.high:.5g}]"

    def to_frame(self) -> pd.DataFrame:
        """Return `curve`."""
        return self.curve


def profile(fit: ManifoldFit, name: str, *, confidence_level: float = 0.95, n_points: int = 25) -> Profile:
    r"""Profile one parameter: hold it at values around the estimate and fit all others again.

    For a likelihood twice the rise of the minimum is chi-squared; for a robust loss and clustered rows it is
    :math:`\lambda \chi^2_1` with :math:`\lambda = [A^{-1} B A^{-1}]_{jj} / [A^{-1}]_{jj}`, A the curvature of the
    objective and B the covariance of its slope over trained models.

    Parameters
    ----------
    fit : ManifoldFit
    name : str
        A free parameter of the law.
    confidence_level : float
    n_points : int
        Points of the curve.

    Raises
    ------
    ConfigError
        When the parameter is not free, or stands at its bound.

    References
    ----------
    Bates and Watts 1988, Nonlinear Regression Analysis, section 6.1 (profile); Kent 1982, Biometrika 69(1), eq. 3.3
    (scaling for misspecified models).

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("hill", noise=0.01, rng=0), "hill")
    >>> found = rs.fitting.profile(fit, "alpha", n_points=5)
    >>> found.low < found.value < found.high
    True
    """
    free = [parameter.name for parameter in fit.law.free]
    if name not in free:
        raise ConfigError(f"parameter {name!r} is not free; the free ones are {', '.join(free)}")
    parameter = next(p for p in fit.law.free if p.name == name)
    row = fit.params.loc[name]
    if bool(row["at_bound"]):
        raise ConfigError(f"parameter {name!r} stands at its bound ({row['value']:g}): it has no two-sided profile")
    scale = _scale(fit, name)
    rise = 0.5 * scale * float(special.chdtri(1, 1.0 - confidence_level))
    logarithmic = parameter.log or (name in _coefficients(fit) and row["value"] > 0 and row["low"] > 0)
    value = float(row["value"])
    lower, upper = parameter.bounds(fit.problem.typical)
    walk = _Walk(fit, name, logarithmic)
    start = np.log(value) if logarithmic else value
    step = float(row["stderr"]) / (value if logarithmic else 1.0)
    step = step if np.isfinite(step) and step > 0 else 0.05 * max(abs(start), 1e-3)
    ends = []
    for sign, bound in ((-1.0, lower), (1.0, upper)):
        limit = (np.log(bound) if bound > 0 else -np.inf) if logarithmic else bound
        ends.append(_cross(walk, start, sign * step, float(limit), fit.objective + rise))
    low, high = ends
    margin = 0.3 * (high - low)
    grid = np.linspace(low - margin, high + margin, n_points)
    at_bounds = [(np.log(b) if b > 0 else -np.inf) if logarithmic else b for b in (lower, upper)]
    grid = np.unique(np.clip(grid, float(at_bounds[0]), float(at_bounds[1])))
    objective = np.array([walk(x) for x in grid])
    root = np.sign(grid - start) * np.sqrt(np.maximum(2.0 * (objective - fit.objective) / scale, 0.0))
    back = np.exp if logarithmic else float
    return Profile(
        name=name,
        value=value,
        low=float(back(low)),
        high=float(back(high)),
        confidence_level=confidence_level,
        curve=pd.DataFrame({"value": np.exp(grid) if logarithmic else grid, "objective": objective, "root": root}),
        threshold=fit.objective + rise,
    )


def _coefficients(fit: ManifoldFit) -> list[str]:
    return [p.name for p in fit.problem.coefficients]


def _scale(fit: ManifoldFit, name: str) -> float:
    """Return lambda, the ratio of the sandwich variance to the inverse curvature, for one search direction."""
    local = sandwich(fit)
    i = local.names.index(name)
    free = np.flatnonzero(~local.held)
    size = np.sqrt(np.maximum(np.diag(local.bread), 1e-300))[free]
    inverse = np.linalg.pinv(local.bread[np.ix_(free, free)] / np.outer(size, size), rcond=1e-12, hermitian=True)
    j = int(np.flatnonzero(free == i)[0])
    return float(local.covariance[i, i] / (inverse[j, j] / size[j] ** 2))


class _Walk:
    """The best objective at a value of one parameter; starts each fit where the nearest earlier one ended."""

    def __init__(self, fit: ManifoldFit, name: str, logarithmic: bool) -> None:
        self.fit, self.name, self.logarithmic = fit, name, logarithmic
        self.known: dict[float, tuple[float, dict[str, float]]] = {}
        start = np.log(fit.theta[name]) if logarithmic else fit.theta[name]
        self.known[float(start)] = (fit.objective, dict(fit.theta))

    def __call__(self, x: float) -> float:
        x = float(x)
        if x in self.known:
            return self.known[x][0]
        fit = self.fit
        law = fit.law.replace(fixed={**fit.law.fixed, self.name: float(np.exp(x)) if self.logarithmic else x})
        old = fit.problem
        problem = Problem(law, fit.link, fit.loss, space=fit.space, table=old.table, typical=old.typical)
        nearest = min(self.known, key=lambda other: abs(other - x))
        c, u = problem.position(self.known[nearest][1])
        found = refine(problem, c, u, old.table.weight[None])
        theta = problem.theta(found.c, found.u, problem.sizes(found.u))
        self.known[x] = (float(found.value[0]), {key: float(item[0]) for key, item in theta.items()})
        return self.known[x][0]


def _cross(walk: _Walk, start: float, step: float, limit: float, level: float) -> float:
    """Return where the profile reaches a level, or the bound if it never does."""
    inside = start
    for _ in range(40):
        outside = inside + step
        outside = max(outside, limit) if step < 0 else min(outside, limit)
        if walk(outside) >= level:
            found = root_scalar(
                lambda x: walk(x) - level, bracket=(inside, outside), method="brentq", xtol=1e-4 * abs(step)
            )
            return float(found.root)
        if outside == limit:
            return limit
        inside, step = outside, 1.6 * step
    return inside
