"""The sequential fit of arXiv 2604.00715, faithful to its script, for comparison only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import curve_fit

from ragscale._typing import ResultsLike
from ragscale.errors import ConfigError, FitError
from ragscale.fitting._prepare import prepare
from ragscale.results._result import Result

Form = Literal["chinchilla", "power", "log", "hill", "interactionlog"]
_UNIT = 1e9


def _base(n: np.ndarray, d: np.ndarray, p: Any) -> np.ndarray:
    A, alpha, B, beta, L0 = p
    return A * n**-alpha + B * d**-beta + L0


def _gain(form: str, n: np.ndarray, r: np.ndarray, C: float, shape: float) -> np.ndarray:
    """Return what the script adds to the base; its power form is C, not 0, at R = 0."""
    if form == "power":
        return C * (r + 1.0) ** -shape
    if form == "log":
        return -C * np.log(1.0 + shape * r)
    if form == "hill":
        return -C * r / (r + shape)
    return -C * np.log(1.0 + shape * (r * _UNIT + 1.0) / (n * _UNIT))


_SHAPE = {"power": "gamma", "log": "eta", "hill": "K", "interactionlog": "eta"}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PaperFit(Result):
    """What the paper's script reports; parameters per 1e9.

    Attributes
    ----------
    form : str
    params : Series
        A, alpha, B, beta, L0, and C with the shape parameter.
    baseline : Series
        The two-dimensional fit to the rows with R = 0, whose alpha, beta and L0 are locked.
    cv_error, lomo_error : float
        Mean relative error over 5 shuffled folds of rows, and leaving out one N at a time; as in the script the
        exponents of the three-dimensional form come from all rows, so that both leak.
    converged : bool
        False where scipy's ``curve_fit`` gave up and the start is returned, as the script does without a word.
    """

    form: str
    params: pd.Series
    baseline: pd.Series
    cv_error: float
    lomo_error: float
    converged: bool

    _absent: ClassVar[Mapping[str, str]] = {
        "plot": "it is for comparison only; fit_manifold(results).plot() draws a fit that may be used"
    }

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each parameter."""
        return pd.DataFrame({"parameter": self.params.index.astype(str), "value": self.params.to_numpy(float)})

    def summary(self) -> str:
        """Say what the script would report."""
        values = ", ".join(f"{name} = {value:.4g}" for name, value in self.params.items())
        state = "" if self.converged else "; NOT CONVERGED: this is the start"
        errors = f"{100 * self.cv_error:.2f} % over folds of rows, {100 * self.lomo_error:.2f} % leaving out one N"
        return f"The paper's script, form {self.form}: {values} (per 1e9){state}\nmean error {errors}; both leak"

    def predict(self, N: ArrayLike, D: ArrayLike, R: ArrayLike = 0.0) -> np.ndarray:
        """Predict the metric at counts."""
        n, d, r = (np.asarray(count, dtype=float) / _UNIT for count in (N, D, R))
        p = {str(name): float(value) for name, value in self.params.items()}
        value = _base(n, d, [p[name] for name in ("A", "alpha", "B", "beta", "L0")])
        if self.form == "chinchilla":
            return value
        return value + _gain(self.form, n, r, p["C"], p[_SHAPE[self.form]])


def fit_paper(results: ResultsLike, form: Form = "log", **columns: str) -> PaperFit:
    """Fit as the paper's script does: one start, least squares, in two steps; for comparison, not for use.

    First A, alpha, B, beta, L0 on the rows with R = 0; then, on all rows, A, B, C and the shape with alpha, beta locked
    and L0 within 1e-6. Known faults are kept: one start, no check of bounds, large values dominate, errors that leak.

    Parameters
    ----------
    results : DataFrame
        As for `fit_manifold`.
    form : "chinchilla", "power", "log", "hill" or "interactionlog"
    **columns
        Names of columns, as for `fit_manifold`.

    Raises
    ------
    ConfigError
        For an unknown form.
    FitError
        When there are fewer than 5 rows with R = 0.

    References
    ----------
    arXiv 2604.00715, equations 1 and 2, and DegenAI-Labs/RAG-Scaling-Laws, scripts/fit_scaling_law (501e43d).

    Examples
    --------
    >>> import ragscale as rs
    >>> paper = rs.fitting.fit_paper(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log")
    >>> paper.form
    'log'
    """
    if form not in {"chinchilla", *_SHAPE}:
        raise ConfigError(f"form = {form!r} must be 'chinchilla', 'power', 'log', 'hill' or 'interactionlog'")
    table = prepare(results, **cast(Any, columns), seed_average=False)
    n, d, r = (table[name].to_numpy(float) / _UNIT for name in "NDR")
    y = table["value"].to_numpy(float)
    none = r == 0
    if none.sum() < 5:
        raise FitError(f"the paper's procedure needs 5 rows with R = 0, the table has {int(none.sum())}")
    base, good = _fit_base(n[none], d[none], y[none])
    baseline = pd.Series(base, ["A", "alpha", "B", "beta", "L0"])
    if form == "chinchilla":
        cv, lomo = _errors(n[none], d[none], r[none], y[none], _base_predictor)
        return PaperFit(form=form, params=baseline, baseline=baseline, cv_error=cv, lomo_error=lomo, converged=good)
    gain, also_good = _fit_gain(form, base, (n, d, r, y))
    A, B, L0, C, shape = gain
    params = pd.Series({"A": A, "alpha": base[1], "B": B, "beta": base[3], "L0": L0, "C": C, _SHAPE[form]: shape})

    def predictor(train: np.ndarray, test: np.ndarray, data: tuple[np.ndarray, ...]) -> np.ndarray:
        fitted, _ = _fit_gain(form, base, tuple(column[train] for column in data))
        locked = (fitted[0], base[1], fitted[1], base[3], fitted[2])
        return _base(data[0][test], data[1][test], locked) + _gain(form, data[0][test], data[2][test], *fitted[3:])

    cv, lomo = _errors(n, d, r, y, predictor)
    both = good and also_good
    return PaperFit(form=form, params=params, baseline=baseline, cv_error=cv, lomo_error=lomo, converged=both)


def _base_predictor(train: np.ndarray, test: np.ndarray, data: tuple[np.ndarray, ...]) -> np.ndarray:
    n, d, _, y = data
    return _base(n[test], d[test], _fit_base(n[train], d[train], y[train])[0])


def _curve_fit(
    function: Callable[..., np.ndarray],
    x: Any,
    y: np.ndarray,
    start: list[float],
    bounds: tuple[list[float], list[float]],
) -> tuple[np.ndarray, bool]:
    low, high = np.array(bounds[0]), np.array(bounds[1])
    begin = np.clip(start, low, high)
    try:
        return np.asarray(curve_fit(function, x, y, p0=begin, bounds=(low, high), maxfev=50_000)[0]), True
    except (RuntimeError, ValueError):
        return begin, False


def _fit_base(n: np.ndarray, d: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, bool]:
    mean = float(y.mean())
    floor = max(0.5, 0.5 * float(y.min()))
    start = [0.1 * mean, 0.35, 0.1 * mean, 0.3, 0.9 * float(y.min())]
    bounds = ([0.0, 0.0, 0.0, 0.0, floor], [np.inf, 2.0, np.inf, 2.0, max(1.5 * mean, floor + 1e-6)])
    return _curve_fit(lambda x, *p: _base(x[0], x[1], p), np.array([n, d]), y, start, bounds)


def _fit_gain(form: str, base: np.ndarray, data: tuple[np.ndarray, ...]) -> tuple[np.ndarray, bool]:
    n, d, r, y = data
    A, alpha, B, beta, L0 = base

    def surface(x: np.ndarray, *p: float) -> np.ndarray:
        a, b, floor, C, shape = p
        return _base(x[0], x[1], (a, alpha, b, beta, floor)) + _gain(form, x[0], x[2], C, shape)

    low_shape = 1e-12 if form == "hill" else 0.0
    bounds = ([0.0, 0.0, L0 - 1e-6, 0.0, low_shape], [np.inf, np.inf, L0 + 1e-6, np.inf, 10.0])
    return _curve_fit(surface, np.array([n, d, r]), y, [A, B, L0, 0.1, 1.0], bounds)


def _errors(
    n: np.ndarray,
    d: np.ndarray,
    r: np.ndarray,
    y: np.ndarray,
    predict: Callable[[np.ndarray, np.ndarray, tuple[np.ndarray, ...]], np.ndarray],
) -> tuple[float, float]:
    """Return the errors of 5 folds of rows, shuffled as scikit-learn's KFold(5, random_state=42) does, and by N."""
    data = (n, d, r, y)
    order = np.arange(len(y))
    np.random.RandomState(42).shuffle(order)  # the script's folds, not ours
    by_row = [np.isin(np.arange(len(y)), part) for part in np.array_split(order, 5)]
    by_size = [n == size for size in np.unique(n)]
    found = []
    for folds in (by_row, by_size):
        errors = []
        for test in folds:
            if (~test).sum() < 5 or not test.any():
                continue
            predicted = predict(~test, test, data)
            errors.append(float(np.mean(np.abs(predicted - y[test]) / y[test])))
        found.append(float(np.mean(errors)) if errors else float("nan"))
    return found[0], found[1]
