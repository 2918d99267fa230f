"""How much a run would teach: the variance of a decision, linearised in the parameters of a law."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragscale.errors import FitError, RagscaleError, RagscaleWarning
from ragscale.fitting import fit_manifold
from ragscale.fitting.laws._law import ScalingLaw

_STEP = 1e-4
_LEAST_NOISE = 0.003  # relative; what two seeds of one run differ by at least
_PRIOR_LOG = 1.5  # standard deviation of the logarithm of a positive parameter that the data do not determine
_PRIOR_EXPONENT = 0.15
MISFITS = (0.0005, 0.004)
"""Relative error of a law over a factor e in N or D, as far as it may be known: a good law, and an ordinary one."""
_START = {"alpha": 0.34, "beta": 0.3}


@dataclass(frozen=True, kw_only=True)
class Local:
    """A law near its estimate, with coordinates in which a prior makes sense: logarithms of positive parameters."""

    law: ScalingLaw
    theta: dict[str, float]
    names: tuple[str, ...]
    logarithmic: np.ndarray
    noise: float
    weight: float = 1.0

    def moved(self, steps: np.ndarray) -> dict[str, float]:
        """Return the parameters after a step in the coordinates."""
        values = dict(self.theta)
        for name, log, step in zip(self.names, self.logarithmic, steps, strict=True):
            values[name] = values[name] * float(np.exp(step)) if log else values[name] + float(step)
        return {**values, **{k: values[o] for k, o in self.law.tied.items()}}

    def jacobian(self, function: Callable[[Mapping[str, float]], np.ndarray], step: float = _STEP) -> np.ndarray:
        """Return d function / d coordinates, (n_values, n_coordinates), by central differences."""
        columns = []
        for i in range(len(self.names)):
            moves = np.zeros(len(self.names))
            moves[i] = step
            up, down = np.asarray(function(self.moved(moves))), np.asarray(function(self.moved(-moves)))
            columns.append((up - down) / (2 * step))
        return np.stack(columns, axis=-1)

    def log_loss(self, points: Mapping[str, np.ndarray]) -> Callable[[Mapping[str, float]], np.ndarray]:
        """Return ln L at points as a function of the parameters."""
        n, d, r = (points[name] for name in "NDR")
        further = {name: points[name] for name in self.law.further_columns}

        def value(theta: Mapping[str, float]) -> np.ndarray:
            own = {name: theta[name] for name in theta if name not in self.law.fixed and name not in self.law.tied}
            with np.errstate(all="ignore"):
                loss = self.law.loss(n, d, r, own, **further)
            return np.log(np.maximum(loss, 1e-12))

        return value

    def prior(self) -> np.ndarray:
        """Return the prior precision of each coordinate."""
        return np.where(self.logarithmic, _PRIOR_LOG, _PRIOR_EXPONENT) ** -2.0


def localise(law: ScalingLaw, table: Any, options: Mapping[str, Any]) -> Local:
    """Estimate a law as far as the table allows; what it cannot determine stands at typical values.

    Raises
    ------
    FitError
        When even then no finite loss comes out.
    """
    noise = _LEAST_NOISE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RagscaleWarning)
            fit = fit_manifold(table, law, **options)
        law, theta = fit.law, {name: float(value) for name, value in fit.theta.items()}
        free = max(len(table) - len(law.free), 1)
        noise = max(noise, float(np.sqrt(np.sum(np.asarray(fit.residuals) ** 2) / free)))
        if not all(np.isfinite(list(theta.values()))):
            theta = _typical(law, table)
    except RagscaleError:
        theta = _typical(law, table)
    names = tuple(p.name for p in law.free)
    bounds = {p.name: p for p in law.free}
    log = np.array([bounds[name].log or name in {"E", "A", "B", "C"} for name in names])
    theta = {k: (max(v, 1e-9) if k in bounds and bounds[k].lower >= 0 else v) for k, v in theta.items()}
    return Local(law=law, theta=theta, names=names, logarithmic=log, noise=noise)


def _typical(law: ScalingLaw, table: Any) -> dict[str, float]:
    """Return parameters that pass through the middle of the table with exponents as they usually are."""
    n, d, y = (table[name].to_numpy(float) for name in ("N", "D", "value"))
    r = table["R"].to_numpy(float) if "R" in table else np.zeros_like(n)
    stores = r[r > 0]
    middle = {"N": np.exp(np.log(n).mean()), "D": np.exp(np.log(d).mean())}
    middle["R"] = float(np.exp(np.log(stores).mean())) if stores.size else middle["D"]
    y0 = float(np.median(y))
    values: dict[str, float] = {}
    for p in law.parameters:
        low, high = p.start or (p.lower, p.upper)
        low, high = max(low, -1e3), min(high, 1e3)
        unit = p.unit_value(middle)
        values[p.name] = (np.sqrt(max(low, 1e-9) * max(high, 1e-9)) if p.log else 0.5 * (low + high)) * unit
    values |= {name: start for name, start in _START.items() if name in values}
    if {"E", "A", "B"} <= set(values):
        values["E"] = 0.6 * float(y.min())
        left = max(y0 - values["E"], 1e-6)
        values["A"] = 0.5 * left * middle["N"] ** values["alpha"]
        values["B"] = 0.5 * left * middle["D"] ** values["beta"]
    if "C" in values:
        values["C"] = 0.02 * y0
    values |= law.fixed
    values |= {name: values[other] for name, other in law.tied.items()}
    with np.errstate(all="ignore"):
        own = {k: v for k, v in values.items() if k not in law.fixed and k not in law.tied}
        further = {name: table[name].to_numpy(float) for name in law.further_columns if name in table}
        finite = np.isfinite(np.asarray(law.loss(n, d, r, own, **further))).all()
    if not finite:
        raise FitError(f"next_runs: the law {law.name!r} has no finite loss at typical parameters: fit it first")
    return {name: float(value) for name, value in values.items()}


def misfit_columns(
    points: Mapping[str, np.ndarray], target: Mapping[str, float], knots: Mapping[str, np.ndarray], misfit: float
) -> np.ndarray:
    """Return what a law misses between runs and the target as columns of further coordinates, each of prior variance 1.

    No law holds over all scales. Its error in ln L, away from the target, is a Brownian path in ln N and one in ln D
    with ``misfit`` per root of a factor e: runs of the same scale share it, so that any number of small runs does not
    teach what one larger run would.

    Parameters
    ----------
    points : mapping of str to ndarray (n_points,)
    target : mapping of str to float
        Where the error is counted from.
    knots : mapping of str to ndarray
        Ends of the intervals in ln N and ln D.
    misfit : float
        See `MISFITS`.

    Returns
    -------
    ndarray (n_points, n_intervals)
    """
    columns = []
    for name, edges in knots.items():
        here, there = np.log(points[name])[:, None], np.log(target[name])
        low, high = np.minimum(here, there), np.maximum(here, there)
        width = np.diff(edges)
        covered = np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0.0, None)
        columns.append(misfit * covered / np.sqrt(width))
    return np.concatenate(columns, axis=1)


def misfit_knots(frames: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return intervals of about a factor e over all N and D that occur."""
    found = {}
    for name in ("N", "D"):
        values = np.log(np.concatenate([np.asarray(frame[name], np.float64) for frame in frames]))
        low, high = values.min() - 1e-9, values.max() + 1e-9
        found[name] = np.linspace(low, high, max(2, round(high - low) + 1))
    return found
