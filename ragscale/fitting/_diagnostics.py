"""What to know before believing a fit, in words, with the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pandas as pd
from scipy import special

from ragscale.fitting._conditions import GOLD, RANDOM, conditions
from ragscale.fitting._determined import redundant
from ragscale.fitting._experiments import clusters
from ragscale.fitting._misfit import all_alike, parity_slope, patterns, verdict
from ragscale.fitting._own import Own, peek
from ragscale.fitting._result import NOT_DETERMINED
from ragscale.fitting.solver._newton import second_order
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._state import State, jacobian_of
from ragscale.results._direction import direction
from ragscale.results._result import Result

if TYPE_CHECKING:
    from ragscale.fitting._result import ManifoldFit

TOO_FEW = "too few models for an error"
Verdict = Literal["helps", "hurts", "does not help", "cannot be told", "not measured"]
_SAME = {
    "helps": {"helps here", "helps from D0 on"},
    "hurts": {"hurts"},
    "does not help": {"no effect", "nobody reads in this range"},
    "cannot be told": {"cannot be told"},
    "not measured": {"not measured", "cannot be told"},
}
"""Which verdict on single stores says the same as one on their average."""
_SMALL = 0.02
"""An effect that is surely within this share of the metric, or of a score's range, is none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know: ``level`` is "note" or "warning", ``topic`` a fixed word, ``text`` a sentence."""

    level: Literal["note", "warning"]
    topic: str
    text: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RetrievalEffect(Result):
    """Whether retrieval helps, by comparison within trained models; no law is involved.

    Attributes
    ----------
    verdict : "helps", "hurts", "does not help", "cannot be told" or "not measured"
        By the 95 % interval of the mean over trained models of the change of the metric, with against without a store:
        it does not help where the interval holds 0 and ends within 2 %, and cannot be told where it is wider.
    change, low, high : float
        That mean and interval; a share of the metric where residuals are logarithmic, else in its own units.
        Negative is a lower metric with retrieval.
    n_models : int
        Trained models that were evaluated both with and without a store.
    relative : bool
        Whether the change is a logarithm, a share of the metric, rather than in its own units.
    """

    verdict: Verdict
    change: float
    low: float
    high: float
    n_models: int
    relative: bool = False

    _absent: ClassVar[Mapping[str, str]] = {
        "plot": "one number with its interval: summary() says all of it",
    }

    def to_frame(self) -> pd.DataFrame:
        """Return one row: the verdict, the change with its interval, and the number of models."""
        row = {"verdict": self.verdict, "change": self.change, "change_low": self.low, "change_high": self.high}
        return pd.DataFrame([row | {"n_models": self.n_models}])

    def summary(self) -> str:
        """Say whether retrieval helps, with the change and its interval."""
        if self.verdict == "not measured" and self.n_models == 1:
            return (
                f"One trained model was evaluated with and without a store: the metric changes by {self._said()} "
                "on average over its stores, without an interval; whether other models gain as much cannot be told."
            )
        if self.verdict == "not measured":
            return "Whether retrieval helps is not measured: no trained model has rows both with and without a store."
        words = {
            "helps": "Retrieval helps here",
            "hurts": "Retrieval hurts here: with a store these models are worse",
            "does not help": "Retrieval does not help here: its effect is nearly zero, if there is any",
            "cannot be told": "Whether retrieval helps cannot be told: its effect may be zero, and may be large",
        }
        return f"{words[self.verdict]} (change of the metric {self._said()} over {self.n_models} trained models)."

    def on_average(self) -> str:
        """Say the change without a verdict: what single stores do may be more, or other."""
        models = f"{self.n_models} trained model" + ("s" if self.n_models != 1 else "")
        return f"On average over all stores the metric changes by {self._said()} ({models})."

    def _said(self) -> str:
        """Return the change with its interval, in percent where it is a share."""
        numbers = np.array([self.change, self.low, self.high])
        middle, low, high = 100 * np.expm1(numbers) if self.relative else numbers
        interval = f" [{low:+.3g}, {high:+.3g}]" if np.isfinite(low) else ""
        return f"{middle:+.3g}{' %' if self.relative else ''}{interval}"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Diagnostics(Result):
    """Findings in words and the numbers behind them; ``str()`` lists them.

    Attributes
    ----------
    findings : tuple of Finding
    retrieval : RetrievalEffect
    condition : float
        Condition number of the Jacobian with columns of length 1, at the typical row.
    correlation : DataFrame
        Correlations of the estimates, coefficients taken at the typical row (so that A and alpha are not trivially
        correlated).
    leverage : Series
        By trained model: how far it determines its own prediction, summed over its rows, in parameters.
    n_clusters : int
        Trained models: distinct (N, D, seed).
    slope : float
        Of the parity plot: by how much predictions change when observations change by 1.
    misfit : str
        What says that the law does not describe the data; empty where it does.
    """

    findings: tuple[Finding, ...]
    retrieval: RetrievalEffect
    condition: float
    correlation: Own[pd.DataFrame] = Own()
    leverage: Own[pd.Series] = Own()
    n_clusters: int
    slope: float = 1.0
    misfit: str = ""

    _absent: ClassVar[Mapping[str, str]] = {
        "plot": "findings in words; plotting.residuals(fit) and plotting.parity(fit) show what they are about",
        "to_json": "they are worked out anew from the fit: keep that, with fit.to_json(path)",
    }

    @property
    def describes_data(self) -> bool:
        """Whether the law follows the data at all."""
        return not self.misfit

    def to_frame(self) -> pd.DataFrame:
        """Return the findings: ``level``, ``topic``, ``text``."""
        rows = [(finding.level, finding.topic, finding.text) for finding in self.findings]
        return pd.DataFrame(rows, columns=["level", "topic", "text"])

    def summary(self) -> str:
        """List the findings, a line each; warnings are marked."""
        return "\n".join(f"- {'! ' if f.level == 'warning' else ''}{f.text}" for f in self.findings)

    def topics(self) -> tuple[str, ...]:
        """Return the topics found, e.g. ``("retrieval", "bound")``."""
        return tuple(dict.fromkeys(finding.topic for finding in self.findings))


# Covariance ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Local:
    """The problem around its optimum: p free search parameters."""

    names: list[str]
    p: np.ndarray
    held: np.ndarray
    open: np.ndarray  # parameters that can move without any prediction moving
    jacobian: np.ndarray
    bread: np.ndarray
    covariance: np.ndarray
    inverse: np.ndarray  # of the Hessian; NaN where a parameter is held
    cluster: np.ndarray
    row_weight: np.ndarray


@np.errstate(all="ignore")
def sandwich(fit: ManifoldFit) -> _Local:
    """Return the sandwich covariance of the M-estimator, clustered by trained model.

    The second derivative of Huber's loss is 1 within delta and 0 beyond; with a small delta only few rows would
    determine its mean, so it is taken over a wider window (Powell's kernel) and scaled back.
    """
    problem = fit.problem
    c, u = problem.position(fit.theta)
    weight = problem.table.weight[None]
    state = State(problem, c, u, weight, np.array([fit.objective]))
    jacobian = jacobian_of(problem, state.columns, c, u, weight)
    r = state.r
    irls = problem.objective.weight(r) * weight
    psi = irls * r
    window = max(problem.objective.limit, 1.06 * _robust_spread(r[0]) * r.size**-0.2)
    near = np.abs(r) <= window
    ratio = 1.0 if np.isinf(window) else min(1.0, problem.objective.limit / window)
    curvature = near * ratio * weight * problem.objective._side(r)
    gradient = np.matmul(jacobian, psi[:, :, None])[:, :, 0]
    bread = np.matmul(jacobian * curvature[:, None, :], jacobian.transpose(0, 2, 1))[0]
    full = bread + second_order(state, psi, gradient)[0]
    p, lower, upper = (values[0] for values in state.limits())
    held = (p <= lower + 1e-9 * (1 + np.abs(p))) | (p >= upper - 1e-9 * (1 + np.abs(p)))
    group = clusters(peek(fit, "data"))
    scores = np.zeros((group.max() + 1, len(p)))
    np.add.at(scores, group, (jacobian[0] * psi[0]).T)
    free = ~held
    open_ = np.zeros(len(p), dtype=bool)
    open_[free] = redundant(jacobian[0][free] * np.sqrt(weight[0]))
    covariance = np.full((len(p), len(p)), np.nan)
    whole = covariance.copy()
    if free.any():
        size = np.sqrt(np.maximum(np.diag(bread), 1e-300))[free]
        inverse = None
        for matrix in (full, bread):
            scaled = matrix[np.ix_(free, free)] / np.outer(size, size)
            if np.all(np.isfinite(scaled)) and np.linalg.eigvalsh(scaled)[0] > 1e-10:
                inverse = np.linalg.inv(scaled) / np.outer(size, size)
                break
        else:
            scaled = _tame(bread[np.ix_(free, free)] / np.outer(size, size))
            inverse = np.linalg.pinv(scaled, rcond=1e-10, hermitian=True) / np.outer(size, size)
        count, rows = len(scores), r.size
        correction = count / max(count - 1, 1) * (rows - 1) / max(rows - free.sum(), 1)
        part = scores[:, free]
        whole[np.ix_(free, free)] = inverse
        covariance[np.ix_(free, free)] = correction * inverse @ (part.T @ part) @ inverse
    names = [q.name for q in (*problem.coefficients, *problem.nonlinear, *problem.link.parameters)]
    return _Local(names, p, held, open_, jacobian[0], bread, covariance, whole, group, curvature[0])


def _tame(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix that linear algebra accepts: degenerate tables make infinite entries."""
    return np.clip(np.nan_to_num(matrix, nan=0.0, posinf=1e30, neginf=-1e30), -1e30, 1e30)


def _robust_spread(r: np.ndarray) -> float:
    low, high = np.quantile(r, [0.25, 0.75])
    return max(min(float(np.std(r)), float(high - low) / 1.349), 1e-12)


@np.errstate(all="ignore")
def parameter_table(fit: ManifoldFit, confidence_level: float = 0.95) -> pd.DataFrame:
    """Return values, cluster-robust standard errors, intervals and bounds of all parameters."""
    problem = fit.problem
    local = sandwich(fit)
    index = {name: i for i, name in enumerate(local.names)}
    c, u = problem.position(fit.theta)
    sizes, size_slopes = _sizes(problem, u)
    count = int(local.cluster.max()) + 1
    too_few = count <= int((~local.held & ~local.open).sum())  # errors between models need more models than parameters
    quantile = float(special.stdtrit(max(count - len(local.p), 1), 0.5 + confidence_level / 2))
    values = {**fit.theta, **{p.name: float(getattr(fit.link, p.name)) for p in fit.link.parameters}}
    rows = []
    for name, value in values.items():
        own = fit.law.tied.get(name, name)
        i = index.get(own)
        row = {"name": name, "value": value, "stderr": np.nan, "low": np.nan, "high": np.nan, "at_bound": False}
        if name in fit.dropped:
            rows.append({**row, "value": np.nan if i is None else value, "note": NOT_DETERMINED})
            continue
        if i is None:
            rows.append({**row, "note": "fixed"})
            continue
        follows = i < problem.k and (local.open[problem.k : problem.k + problem.m] & (size_slopes[i] != 0)).any()
        if local.open[i] or follows:
            rows.append({**row, "note": NOT_DETERMINED})
            continue
        note = f"= {own}" if own != name else ""
        if local.held[i]:
            rows.append({**row, "at_bound": True, "note": note or "at bound"})
            continue
        direction = np.zeros(len(local.p))
        logarithmic = False
        if i < problem.k:
            scale_free = not np.any(size_slopes[i])
            direction[i] = 1.0 / sizes[i]
            direction[problem.k : problem.k + problem.m] = -c[0, i] / sizes[i] * size_slopes[i]
            error = _error(direction, local)
            own_error = np.sqrt(max(local.covariance[i, i], 0.0))
            logarithmic = not scale_free and not problem.signed[i] and local.p[i] > 2.0 * own_error
        elif i < problem.k + problem.m and problem.nonlinear[i - problem.k].log:
            direction[i] = value
            error, logarithmic = _error(direction, local), True
        else:
            direction[i] = 1.0
            error = _error(direction, local)
        if logarithmic and value > 0:
            with np.errstate(over="ignore"):
                low, high = value * np.exp(-quantile * error / value), value * np.exp(quantile * error / value)
        else:
            low, high = value - quantile * error, value + quantile * error
            if i < problem.k and not problem.signed[i]:
                low = max(low, 0.0)
        if too_few:
            rows.append({**row, "note": note or TOO_FEW})
            continue
        rows.append({**row, "stderr": error, "low": low, "high": high, "note": note})
    return pd.DataFrame(rows).set_index("name")


def _error(direction: np.ndarray, local: _Local) -> float:
    used = np.flatnonzero(direction)
    part = local.covariance[np.ix_(used, used)]
    if np.isnan(part).any():  # what stands at a bound does not move
        used = used[~local.held[used]]
        part = local.covariance[np.ix_(used, used)]
    return float(np.sqrt(max(direction[used] @ part @ direction[used], 0.0)))


def _sizes(problem: Problem, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns' sizes at the typical row (k,) and their logarithmic slopes (k, m)."""
    size = problem.sizes(u)[0]
    slopes = np.zeros((problem.k, problem.m))
    for j in range(problem.m):
        moved = np.repeat(u, 2, axis=0)
        moved[:, j] += [1e-6, -1e-6]
        up, down = problem.sizes(moved)
        slopes[:, j] = (np.log(up) - np.log(down)) / 2e-6
    return size, slopes


# Findings ------------------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def diagnose(fit: ManifoldFit) -> Diagnostics:
    """Look at a fit from every side."""
    local = sandwich(fit)
    effect = retrieval_effect(peek(fit, "data"), fit.space)
    free = ~local.held
    names = [name for name, is_free in zip(local.names, free, strict=True) if is_free]
    covariance = local.covariance[np.ix_(free, free)]
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    spread[np.isnan(spread)] = np.inf
    correlation = pd.DataFrame(covariance / np.outer(spread, spread), names, names)
    weighted = local.jacobian[free] * np.sqrt(local.row_weight)
    length = np.linalg.norm(weighted, axis=1, keepdims=True)
    singular = np.linalg.svd(_tame(weighted / np.maximum(length, 1e-300)), compute_uv=False)
    condition = float(singular[0] / max(singular[-1], 1e-300)) if singular.size else 1.0
    leverage = _leverage(local, free)
    count = int(local.cluster.max()) + 1
    table = peek(fit, "data")
    residual = fit.residuals
    value = table["value"].to_numpy(float)
    observed = np.log(value) if fit.space == "log" else value
    slope = parity_slope(observed, residual, table["weight"].to_numpy(float))
    shapes = patterns(table, residual, local.cluster)
    misfit, odd = verdict(slope, int(local.held.sum()), len(local.held), shapes, fit.space)
    misfit = all_alike(value) or misfit
    findings = [
        *([Finding("warning", "misfit", misfit)] if misfit else []),
        *(Finding("warning", "design", f"{text[0].upper()}{text[1:]}.") for text in fit.unseen.values()),
        *_retrieval_findings(fit, effect),
        *(Finding("warning", "pattern", text) for text in odd),
        *_bound_findings(fit, local),
        *(_tradeoff_findings(correlation, condition) if count > int(free.sum()) else []),
        *_design_findings(fit, count),
        *_minima_findings(fit),
        *_leverage_findings(leverage),
        *_residual_findings(fit),
    ]
    return Diagnostics(
        findings=tuple(findings),
        retrieval=effect,
        condition=condition,
        correlation=correlation,
        leverage=leverage,
        n_clusters=count,
        slope=slope,
        misfit=misfit,
    )


def retrieval_effect(table: pd.DataFrame, space: str = "log", confidence_level: float = 0.95) -> RetrievalEffect:
    """Compare each trained model with itself: its rows with a store against its rows without.

    Examples
    --------
    >>> import ragscale as rs
    >>> table = rs.datasets.simulate("hill", noise=0.01, rng=0)
    >>> rs.fitting.retrieval_effect(table).verdict
    'helps'
    """
    table = pd.DataFrame(table[~np.isin(conditions(table), [GOLD, RANDOM])])
    value = table["value"].to_numpy(float)
    outcome = np.log(value) if space == "log" else value
    group = clusters(table)
    with_store = table["R"].to_numpy(float) > 0
    count = group.max() + 1
    sums = [np.bincount(group[m], weights=outcome[m], minlength=count) for m in (with_store, ~with_store)]
    sizes = [np.bincount(group[m], minlength=count) for m in (with_store, ~with_store)]
    both = (sizes[0] > 0) & (sizes[1] > 0)
    n_models = int(both.sum())
    log = space == "log"
    if n_models == 0:
        return RetrievalEffect(verdict="not measured", change=np.nan, low=np.nan, high=np.nan, n_models=0)
    change = sums[0][both] / sizes[0][both] - sums[1][both] / sizes[1][both]
    middle = float(change.mean())
    if n_models == 1:
        nothing = {"low": np.nan, "high": np.nan}
        return RetrievalEffect(verdict="not measured", change=middle, **nothing, n_models=1, relative=log)
    half = float(special.stdtrit(n_models - 1, 0.5 + confidence_level / 2) * change.std(ddof=1) / np.sqrt(n_models))
    rising = direction(table)
    low, high = middle - half, middle + half
    verdict: Verdict = "does not help" if max(-low, high) <= _SMALL * _range(value, log=log) else "cannot be told"
    if low > 0 or high < 0:
        verdict = "helps" if (middle > 0) == rising else "hurts"
    return RetrievalEffect(verdict=verdict, change=middle, low=low, high=high, n_models=n_models, relative=log)


def _range(value: np.ndarray, *, log: bool) -> float:
    """Return what a change is a share of: 1 for logarithms and shares, 100 for percent, else the typical value."""
    most = float(np.abs(value).max())
    if log or most <= 1:
        return 1.0
    return 100.0 if most <= 100 else float(np.median(np.abs(value)))


def _retrieval_findings(fit: ManifoldFit, effect: RetrievalEffect) -> list[Finding]:
    if not np.any(peek(fit, "data")["R"].to_numpy(float) > 0):
        return []
    level = "note" if effect.verdict == "helps" else "warning"
    if fit.verdict.kind in _SAME.get(effect.verdict, ()):
        found = [Finding(level, "retrieval", str(effect))]
    else:  # other stores, another question: not a second verdict beside the first
        found = [Finding("note", "retrieval", effect.on_average())]
    if fit.theta.get("C") == 0.0:
        found.append(Finding("warning", "no gain", "The fitted gain is zero (C = 0): its shape means nothing."))
    return found


def _bound_findings(fit: ManifoldFit, local: _Local) -> list[Finding]:
    values = {**fit.theta, **{p.name: float(getattr(fit.link, p.name)) for p in fit.link.parameters}}
    return [
        Finding("warning", "bound", f"{name} = {values[name]:.4g} stands at its bound: the data want it beyond.")
        for name, held in zip(local.names, local.held, strict=True)
        if held
    ]


def _tradeoff_findings(correlation: pd.DataFrame, condition: float) -> list[Finding]:
    found = []
    matrix = correlation.to_numpy()
    for i in range(len(matrix)):
        for j in range(i):
            if abs(matrix[i, j]) > 0.95:
                a, b = correlation.index[j], correlation.index[i]
                text = (
                    f"{a} and {b} trade off (correlation {matrix[i, j]:+.3f}): the data fix a combination of them, "
                    "neither alone."
                )
                found.append(Finding("note", "trade-off", text))
    if condition > 1e4:
        text = f"The parameters are nearly redundant here (condition {condition:.2g}): fix or tie some."
        found.append(Finding("warning", "condition", text))
    return found


def _design_findings(fit: ManifoldFit, count: int) -> list[Finding]:
    found = []
    data = peek(fit, "data")
    if count < 20:
        text = f"Only {count} trained model{'s' if count > 1 else ''}: intervals are rough below 20."
        found.append(Finding("warning", "few models", text))
    sizes = len(np.unique(data["N"].to_numpy(float)))
    if "N" in fit.law.variables and 1 < sizes < 6:
        text = f"alpha and E rest on {sizes} value{'s' if sizes > 1 else ''} of N: at least 6 are needed to trust them."
        found.append(Finding("warning", "few sizes", text))
    stores = data[data["R"] > 0]
    pairs = [("D", "N", data), ("R", "N", stores), ("R", "D", stores)]
    for a, b, rows in pairs:
        if (
            {a, b} - set(fit.law.variables)
            or {a, b} & set(fit.unseen)
            or len(rows) < 3
            or rows[a].nunique() < 2
            or rows[b].nunique() < 2
        ):
            continue
        r = float(np.corrcoef(np.log(rows[a]), np.log(rows[b]))[0, 1])
        if r > 0.95:
            text = (
                f"{a} and {b} rise together in this table (correlation of logarithms {r:.3f}): what one does cannot be "
                f"told from what the other does. Vary {a} at fixed {b}."
            )
            found.append(Finding("warning", "design", text))
    return found


def _minima_findings(fit: ManifoldFit) -> list[Finding]:
    found = []
    if not fit.converged:
        found.append(Finding("warning", "convergence", "The optimum is flat or at a kink: no stationary point proven."))
    close = peek(fit, "minima")["objective"].to_numpy(float)
    close = close[1:][close[1:] < 1.02 * close[0]]
    if len(close):
        text = (
            f"{len(close)} other local minim{'a' if len(close) > 1 else 'um'} within 2 % of the best objective: see "
            "fit.minima, and bootstrap before reading parameters."
        )
        found.append(Finding("warning", "minima", text))
    return found


def _leverage(local: _Local, free: np.ndarray) -> pd.Series:
    jacobian = local.jacobian[free]
    bread = local.bread[np.ix_(free, free)]
    size = np.sqrt(np.maximum(np.diag(bread), 1e-300))
    inverse = np.linalg.pinv(_tame(bread / np.outer(size, size)), rcond=1e-12, hermitian=True)
    scaled = jacobian / size[:, None]
    rows = np.einsum("in,ij,jn->n", scaled, inverse, scaled) * local.row_weight
    return pd.Series(np.bincount(local.cluster, weights=rows), name="leverage")


def _leverage_findings(leverage: pd.Series) -> list[Finding]:
    high = int((leverage > 0.75).sum())
    if not high:
        return []
    text = f"{high} of {len(leverage)} trained models largely determine their own prediction (leverage > 0.75)."
    return [Finding("note", "leverage", text)]


def _residual_findings(fit: ManifoldFit) -> list[Finding]:
    r = fit.residuals
    spread = _robust_spread(r)
    outliers = int((np.abs(r) > 5 * spread).sum())
    unit = " (relative)" if fit.space == "log" else ""
    found = [Finding("note", "residuals", f"Residuals have a robust standard deviation of {spread:.3g}{unit}.")]
    if outliers:
        text = f"{outliers} of {len(r)} rows lie more than 5 of these from the surface: look at them."
        found.append(Finding("note", "outliers", text))
    return found
