"""Hoffmann et al. 2022: published values, compute-optimal size and tokens, and the three approaches to find them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError, ResultsError, ResultsWarning
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.laws._published import Published

if TYPE_CHECKING:
    from ragscale.fitting import ManifoldFit
    from ragscale.fitting._options import FitOptions

CHINCHILLA_PUBLISHED: Mapping[str, Published] = {
    "hoffmann": Published(
        parameters={"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
        source="arXiv 2203.15556, eq. 10 (rounded; too rounded to allocate compute with, see arXiv 2404.10102)",
    ),
    "besiroglu": Published(
        parameters={"E": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658},
        source="arXiv 2404.10102, table of fits: the same data, read off the figure and fitted again",
    ),
}
"""Published parameters of the law `Chinchilla`, N and D in counts, loss in nats per token."""

_FLOPS = 6.0


def chinchilla_optimum(
    parameters: Mapping[str, Any], flops: ArrayLike, *, flops_per_token_and_parameter: float = _FLOPS
) -> pd.DataFrame:
    """Return the model size and tokens that give the least loss E + A N^-alpha + B D^-beta for a training computation.

    With C = 6 N D: N = G (C/6)^(beta/(alpha+beta)), D = (C/6) / N, G = (alpha A / (beta B))^(1/(alpha+beta)).

    Parameters
    ----------
    parameters : mapping
        E, A, alpha, B, beta: ``fit.theta`` or ``CHINCHILLA_PUBLISHED[...].parameters``.
    flops : array-like
        Training FLOPs C.

    Returns
    -------
    DataFrame
        ``flops, N, D, tokens_per_parameter, loss``, one row per computation.

    References
    ----------
    Hoffmann et al. 2022, arXiv 2203.15556, equation 4.

    Examples
    --------
    >>> best = chinchilla_optimum(CHINCHILLA_PUBLISHED["besiroglu"].parameters, 5.76e23)
    >>> best.round(2)[["tokens_per_parameter", "loss"]].to_dict("records")
    [{'tokens_per_parameter': 18.39, 'loss': 1.97}]
    """
    e, a, alpha, b, beta = (float(parameters[name]) for name in ("E", "A", "alpha", "B", "beta"))
    compute = np.atleast_1d(np.asarray(flops, dtype=np.float64))
    if min(a, b, alpha, beta) <= 0 or (compute <= 0).any():
        raise ConfigError("chinchilla_optimum needs positive A, B, alpha, beta and flops")
    log_g = (np.log(alpha * a) - np.log(beta * b)) / (alpha + beta)
    pairs = compute / flops_per_token_and_parameter
    n = np.exp(log_g + np.log(pairs) * beta / (alpha + beta))
    d = pairs / n
    loss = e + a * n**-alpha + b * d**-beta
    return pd.DataFrame({"flops": compute, "N": n, "D": d, "tokens_per_parameter": d / n, "loss": loss})


def isoflop_bias(alpha: float, beta: float, *, spread: float, n_points: int) -> float:
    """Return the factor by which approach 2 misses the best N without any noise, on sizes centred on the optimum.

    Along a line of equal computation the reducible loss is proportional to ``beta exp(-alpha x) + alpha exp(beta x)``,
    x = ln(N / N*). A parabola in x through ``n_points`` sizes evenly spaced in x from N*/spread to spread N* has its
    lowest point at ``-q / (2 p)``, with

        q = sum x (alpha sinh(beta x) - beta sinh(alpha x)) / sum x^2
        p = (n sum x^2 g - sum x^2 sum g) / (n sum x^4 - (sum x^2)^2),  g = beta cosh(alpha x) + alpha cosh(beta x)

    The factor is exp of that, the same at every computation: exponents come out right, coefficients do not. It is 1
    for alpha = beta and grows with the difference and the spread.

    References
    ----------
    arXiv 2603.22339, section on asymmetric surfaces (the effect); the closed form is derived here.

    Examples
    --------
    Chinchilla's exponents, sizes from 1/16 to 16 times the best: 5.4 % too many parameters, so 5.1 % too few tokens.

    >>> factor = isoflop_bias(0.34, 0.28, spread=16, n_points=15)
    >>> round(factor, 4), round(1 / factor - 1, 6)
    (1.0537, -0.051002)
    """
    if not (alpha > 0 and beta > 0 and spread > 1 and n_points >= 3):
        raise ConfigError("isoflop_bias needs alpha, beta > 0, spread > 1 and n_points >= 3")
    x = np.linspace(-np.log(spread), np.log(spread), n_points)
    q = (x * (alpha * np.sinh(beta * x) - beta * np.sinh(alpha * x))).sum() / (x**2).sum()
    g = beta * np.cosh(alpha * x) + alpha * np.cosh(beta * x)
    p = (n_points * (x**2 * g).sum() - (x**2).sum() * g.sum()) / (n_points * (x**4).sum() - (x**2).sum() ** 2)
    return float(np.exp(-q / (2.0 * p)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeOptimal:
    """What an approach says of the best size and tokens: ``N = n0 (C / 1e20)^a``, ``D = d0 (C / 1e20)^b``.

    ``budgets`` holds one row per computation that entered: ``flops, N, D, loss`` of the best point found there.
    For approach 2, ``bias_N`` is the factor by which its N is too large on the noise-free surface of approach 3 at the
    very same sizes (median over budgets), ``bias_a`` the same for the exponent, and ``corrected`` the result with both
    taken out; for the others they are 1, 0 and None.
    """

    approach: int
    a: float
    b: float
    n0: float
    d0: float
    budgets: pd.DataFrame
    bias_N: float = 1.0
    bias_a: float = 0.0
    corrected: ComputeOptimal | None = None
    fit: ManifoldFit | None = None

    def predict(self, flops: ArrayLike) -> pd.DataFrame:
        """Return N, D and tokens per parameter at these computations."""
        c = np.atleast_1d(np.asarray(flops, dtype=np.float64))
        n, d = self.n0 * (c / 1e20) ** self.a, self.d0 * (c / 1e20) ** self.b
        return pd.DataFrame({"flops": c, "N": n, "D": d, "tokens_per_parameter": d / n})


def chinchilla_approach_1(curves: pd.DataFrame, *, n_budgets: int = 1500) -> ComputeOptimal:
    """Find the best model for each computation on the lower envelope of training curves.

    Parameters
    ----------
    curves : DataFrame
        ``N``, ``D`` (tokens seen so far) and ``value`` (loss), several D for each N. Curves of one schedule length are
        cut short of their decay, so each D should end its own schedule or be read with that in mind.
    n_budgets : int
        Computations, evenly spaced in the logarithm over the range where at least two sizes have points.

    References
    ----------
    Hoffmann et al. 2022, arXiv 2203.15556, section 3.1 (1,500 log-spaced computations).
    """
    table = _rows(curves, "chinchilla_approach_1")
    lines = []
    for n in np.unique(table.n):
        x = np.log(table.flops[table.n == n])
        points = np.unique(x)
        if points.size > 1:
            lines.append((n, points, np.array([table.value[(table.n == n)][x == point].min() for point in points])))
    if len(lines) < 2:
        raise ResultsError("chinchilla_approach_1 needs at least two sizes N with several D each")
    starts, ends = (sorted(line[1][i] for line in lines) for i in (0, -1))
    low, high = starts[1], ends[-2]
    if low >= high:
        raise ResultsError("chinchilla_approach_1: the curves of different N share no range of computation 6 N D")
    grid = np.linspace(low, high, n_budgets)
    sizes = np.array([line[0] for line in lines])
    losses = np.stack([np.interp(grid, x, y, left=np.inf, right=np.inf) for _, x, y in lines])
    best = losses.argmin(axis=0)
    return _power_laws(1, np.exp(grid), sizes[best], losses.min(axis=0))


def chinchilla_approach_2(
    results: pd.DataFrame, *, tolerance: float = 0.1, fit: ManifoldFit | None = None
) -> ComputeOptimal:
    """Fit a parabola in ln N to the losses of each computation, and report the bias of doing so.

    A parabola is symmetric and the curve of equal computation is not, unless alpha = beta: even without noise the
    lowest point is shifted. The shift is computed on the surface of approach 3 at the very same sizes and tokens,
    reported, and taken out in ``corrected``.

    Parameters
    ----------
    results : DataFrame
        ``N``, ``D``, ``value`` and optionally ``flops`` (6 N D otherwise).
    tolerance : float
        Rows whose log10 of the computation lies within it of each other are one budget.
    fit : ManifoldFit, optional
        A fit of the law ``chinchilla`` for the bias; fitted to the same rows by default.

    Warns
    -----
    ResultsWarning
        For budgets left out because they have fewer than 3 sizes or no minimum inside them.

    References
    ----------
    Hoffmann et al. 2022, arXiv 2203.15556, section 3.2; arXiv 2603.22339 (the bias).
    """
    from ragscale.fitting import fit_manifold

    table = _rows(results, "chinchilla_approach_2")
    fitted = fit if fit is not None else fit_manifold(table.frame(), law="chinchilla", link="identity")
    theta = _theta(fitted)
    budget = _group(np.log10(table.flops), tolerance)
    rows, shifts, left_out = [], [], []
    for number in range(int(budget.max()) + 1):
        n, flops, value = (column[budget == number] for column in (table.n, table.flops, table.value))
        centre = float(np.exp(np.log(flops).mean()))
        vertex = _vertex(np.log(n), value)
        if vertex is None:
            left_out.append(f"{centre:.3g}")
            continue
        # the surface at the same sizes, with the tokens that the budget leaves, so that only the parabola is tested
        d = flops / (_FLOPS * n)
        seen = _vertex(np.log(n), theta["A"] * n ** -theta["alpha"] + theta["B"] * d ** -theta["beta"])
        true = float(np.log(chinchilla_optimum(theta, centre)["N"].to_numpy()[0]))
        shifts.append(np.nan if seen is None else seen[0] - true)
        rows.append((centre, float(np.exp(vertex[0])), vertex[1]))
    if left_out:
        warnings.warn(
            f"approach 2 leaves out {len(left_out)} computations with fewer than 3 sizes or without a minimum between "
            f"them: {', '.join(left_out[:6])}{' ...' if len(left_out) > 6 else ''} FLOPs",
            ResultsWarning,
            stacklevel=2,
        )
    if len(rows) < 2:
        raise ResultsError(f"chinchilla_approach_2 needs at least 2 computations with 3 sizes each, found {len(rows)}")
    flops, n, loss = (np.array(column) for column in zip(*rows, strict=True))
    shift = np.asarray(shifts)
    known = np.isfinite(shift)
    if not known.any():
        return _power_laws(2, flops, n, loss, fit=fitted)
    shift = np.where(known, shift, np.median(shift[known]))
    corrected = _power_laws(2, flops, n / np.exp(shift), loss, fit=fitted)
    plain = _power_laws(2, flops, n, loss, fit=fitted)
    return replace(
        plain,
        bias_N=float(np.exp(np.median(shift[known]))),
        bias_a=plain.a - corrected.a,
        corrected=corrected,
    )


def chinchilla_approach_3(
    results: pd.DataFrame, *, law: str | ScalingLaw = "chinchilla", **options: Unpack[FitOptions]
) -> ComputeOptimal:
    """Fit E + A N^-alpha + B D^-beta to all rows, and follow its optimum in closed form.

    Parameters
    ----------
    results : DataFrame
        ``N``, ``D`` and ``value``.
    **options
        Passed on to `fit_manifold`.

    References
    ----------
    Hoffmann et al. 2022, arXiv 2203.15556, section 3.3.
    """
    from ragscale.fitting import fit_manifold

    table = _rows(results, "chinchilla_approach_3")
    settings: FitOptions = {"link": "identity", **options}
    fit = fit_manifold(table.frame(), law, **settings)
    flops = np.geomspace(table.flops.min(), table.flops.max(), 9)
    best = chinchilla_optimum(_theta(fit), flops)
    return _power_laws(3, flops, best["N"].to_numpy(), best["loss"].to_numpy(), fit=fit)


class _Rows(NamedTuple):
    n: np.ndarray
    d: np.ndarray
    value: np.ndarray
    flops: np.ndarray

    def frame(self) -> pd.DataFrame:
        run = np.arange(len(self.n))  # repeated runs of one (N, D) are measurements of their own
        return pd.DataFrame({"N": self.n, "D": self.d, "R": 0.0, "value": self.value, "run": run})


def _rows(results: pd.DataFrame, what: str) -> _Rows:
    missing = [name for name in ("N", "D", "value") if name not in results]
    if missing:
        raise ResultsError(f"{what} needs the columns {', '.join(missing)}; the table has {list(results)}")
    n, d, value = (results[name].to_numpy(np.float64) for name in ("N", "D", "value"))
    flops = results["flops"].to_numpy(np.float64) if "flops" in results else np.full(len(n), np.nan)
    if np.isnan(flops).any():
        flops = _FLOPS * n * d
    problems = [
        f"{name} must be positive and finite, got {column[bad][0]:g}"
        for name, column in (("N", n), ("D", d), ("flops", flops))
        if (bad := ~(np.isfinite(column) & (column > 0))).any()
    ]
    if not np.isfinite(value).all():
        problems.append("value holds what is not finite")
    if problems or not len(n):
        raise ResultsError(f"{what}: " + ("; ".join(problems) or "the table is empty"))
    return _Rows(n, d, value, flops)


def _theta(fit: ManifoldFit) -> dict[str, float]:
    return {name: float(fit.theta[name]) for name in ("E", "A", "alpha", "B", "beta")}


def _group(log_flops: np.ndarray, tolerance: float) -> np.ndarray:
    """Number the computations: a new one starts where the gap to the next lower row exceeds the tolerance."""
    order = np.argsort(log_flops, kind="stable")
    number = np.empty(len(order), dtype=int)
    number[order] = np.concatenate([[0], np.cumsum(np.diff(log_flops[order]) > tolerance)])
    return number


def _vertex(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """Return the lowest point of the parabola through (x, y), or None where there is none within the points."""
    if np.unique(x).size < 3:
        return None
    centre = x.mean()
    p, q, r = np.polyfit(x - centre, y, 2)
    if p <= 0:
        return None
    lowest = -q / (2 * p)
    if not x.min() <= centre + lowest <= x.max():
        return None
    return float(centre + lowest), float(r - q * q / (4 * p))


def _power_laws(
    approach: int, flops: np.ndarray, n: np.ndarray, loss: np.ndarray, fit: ManifoldFit | None = None
) -> ComputeOptimal:
    d = flops / (_FLOPS * n)
    x = np.log(flops / 1e20)
    a, log_n0 = np.polyfit(x, np.log(n), 1)
    b, log_d0 = np.polyfit(x, np.log(d), 1)
    return ComputeOptimal(
        approach=approach,
        a=float(a),
        b=float(b),
        n0=float(np.exp(log_n0)),
        d0=float(np.exp(log_d0)),
        budgets=pd.DataFrame({"flops": flops, "N": n, "D": d, "loss": loss}),
        fit=fit,
    )
