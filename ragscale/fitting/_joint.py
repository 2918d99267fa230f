"""Fit one law to several groups of rows at once, and draw its replicates; see `JointFit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ragscale._typing import RngLike
from ragscale.errors import ConfigError, FitError, RagscaleError
from ragscale.fitting._bootstrap import Bootstrap, warn_if_few
from ragscale.fitting._conditions import rows_for
from ragscale.fitting._diagnostics import sandwich
from ragscale.fitting._experiments import EXPERIMENT, MODEL, clusters
from ragscale.fitting._fit_table import fit_table
from ragscale.fitting._freedom import Freedom, given_back
from ragscale.fitting._hit_rate import drawn
from ragscale.fitting._joint_fit import JointBootstrap, JointFit
from ragscale.fitting._own import peek
from ragscale.fitting._resampling import drawn_models
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting.laws._law import ScalingLaw, Theta
from ragscale.fitting.solver._joint import JointProblem, JointSolution, refine_jointly
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._projection import project
from ragscale.fitting.solver._starts import linearised

_STARTS = 4


def fit_jointly(
    tables: Mapping[str, pd.DataFrame],
    law: ScalingLaw,
    *,
    over: str,
    shared: Sequence[str] | None,
    options: Mapping[str, Any],
) -> JointFit:
    r"""Minimise the weighted sum of the objectives of all groups over all parameters at once.

    .. math:: \min_{\theta_s, \theta_1 \ldots \theta_T} \sum_t w_t \sum_{i \in t} \rho(r_i(\theta_s, \theta_t)),
        \qquad w_t \propto \left(\tfrac{1}{n_t} \min_{\theta} \sum_{i \in t} \rho(r_i)\right)^{-1}

    Every group is fitted alone first; that gives the weights, and each group's shared parameters are one start for all.
    """
    if "weights" in options and options["weights"] is not None and not isinstance(options["weights"], str):
        raise ConfigError("weights as numbers are for one surface; with over= name a column")
    every = pd.concat([_rows(task, table, law) for task, table in tables.items()], ignore_index=True)
    law = law._resolve(*(every[name].to_numpy(float) for name in "NDR"))
    alone = {task: _alone(task, table, law, options) for task, table in tables.items()}
    names = tuple(law.shared_by_default if shared is None else shared)
    unknown = [name for name in names if name not in [p.name for p in law.parameters]]
    if unknown:
        known = ", ".join(p.name for p in law.parameters)
        raise ConfigError(f"shared = {', '.join(map(repr, unknown))} are no parameters of {law.name!r}: {known}")
    names = tuple(name for name in names if name not in law.fixed) if shared is None else names
    weights = _weights(alone)
    if not names or len(alone) == 1:
        total = sum(weights[task] * fit.objective for task, fit in alone.items())
        good = all(fit.converged for fit in alone.values())
        return JointFit(fits=alone, over=over, shared=names, weights=weights, objective=total, converged=good)
    joint = JointProblem(_problems(alone, every), names)
    case = [weights[task] * problem.table.weight for task, problem in zip(alone, joint.problems, strict=True)]
    found = _best(joint, alone, names, case)
    return JointFit(
        fits={task: _at(fit, joint.problems[t], found, t) for t, (task, fit) in enumerate(alone.items())},
        over=over,
        shared=names,
        weights=weights,
        objective=float(found.value[0]),
        converged=bool(found.converged[0]),
    )


def _rows(task: str, table: pd.DataFrame, law: ScalingLaw) -> pd.DataFrame:
    try:
        return rows_for(table, law)[0]
    except RagscaleError as error:
        raise type(error)(f"{task}: {error}") from error


def _alone(task: str, table: pd.DataFrame, law: ScalingLaw, options: Mapping[str, Any]) -> ManifoldFit:
    try:
        return fit_table(table, law, **options)
    except RagscaleError as error:
        raise type(error)(f"{task}: {error}") from error


def _weights(alone: Mapping[str, ManifoldFit]) -> dict[str, float]:
    """Return the inverse of each group's own mean loss of a residual, of mean 1 over rows."""
    rows = np.array([len(peek(fit, "data")) for fit in alone.values()], dtype=float)
    mean = np.array([fit.objective for fit in alone.values()]) / rows
    mean = np.maximum(mean, max(1e-6 * mean.max(), 1e-300))  # a group that is fitted exactly must not be all
    inverse = 1.0 / mean
    scaled = inverse * rows.sum() / (inverse * rows).sum()
    return dict(zip(alone, scaled.tolist(), strict=True))


def _problems(fits: Mapping[str, ManifoldFit], every: pd.DataFrame) -> list[Problem]:
    """Return the problem of each group, all in the units of all rows, so that shared parameters have one bound."""
    stores = every["R"].to_numpy(float)
    tokens = every["D"].to_numpy(float)
    counts = {"N": every["N"].to_numpy(float), "D": tokens, "R": stores[stores > 0] if (stores > 0).any() else tokens}
    typical = {name: float(np.exp(np.mean(np.log(values)))) for name, values in counts.items()}
    return [
        Problem(fit.law, fit.link, fit.loss, space=fit.space, table=fit.problem.table, typical=typical)
        for fit in fits.values()
    ]


def _best(
    joint: JointProblem, alone: Mapping[str, ManifoldFit], names: tuple[str, ...], case: list[np.ndarray]
) -> JointSolution:
    """Walk down from the shared parameters of each group and from their median; return the lowest end."""
    points = [[fit.theta[name] for name in names] for fit in alone.values()]
    points.append([float(np.median([point[i] for point in points])) for i in range(len(names))])
    order = _promising(joint, alone, names, points)
    starts = []
    for t, fit in enumerate(alone.values()):
        parts = [_start(joint.problems[t], fit, dict(zip(names, points[i], strict=True))) for i in order]
        starts.append((np.concatenate([c for c, _ in parts]), np.concatenate([u for _, u in parts])))
    weights = [np.broadcast_to(one, (len(order), len(one))) for one in case]
    found = refine_jointly(joint, starts, weights)
    if not np.isfinite(found.value).any():
        raise FitError("no common parameters give a finite objective in every group: share fewer of them")
    return found.take(np.array([int(np.nanargmin(found.value))]))


def _promising(
    joint: JointProblem, alone: Mapping[str, ManifoldFit], names: tuple[str, ...], points: list[list[float]]
) -> list[int]:
    """Return the points at which the groups, each with the shared parameters held there, lose least."""
    totals = []
    for point in points:
        held = dict(zip(names, point, strict=True))
        losses = []
        for problem, fit in zip(joint.problems, alone.values(), strict=True):
            c, u = _start(problem, fit, held)
            columns = problem.columns(u, slopes=False)
            value = problem.value(problem.residual(problem.latent(columns, c), u), problem.table.weight[None])
            losses.append(float(value[0]) / max(fit.objective, 1e-300))
        totals.append(sum(losses))
    return [int(i) for i in np.argsort(totals, kind="stable")[:_STARTS]]


def _start(problem: Problem, fit: ManifoldFit, held: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return (c, u) of a group with the shared parameters held and its coefficients solved for again."""
    c, u = problem.position({**fit.theta, **held})
    u = np.clip(u, problem.lower, problem.upper)
    if problem.k:
        target, omega = linearised(problem, u[0, problem.m :])
        c = project(problem, problem.columns(u, slopes=False), (omega * problem.table.weight)[None], target)
    return c, u


def _at(fit: ManifoldFit, problem: Problem, found: JointSolution, t: int) -> ManifoldFit:
    """Return the fit of a group at the joint optimum."""
    part = found.parts[t]
    theta = {name: float(values[0]) for name, values in problem.theta(part.c, part.u, problem.sizes(part.u)).items()}
    extra = {name: float(values[0, 0]) for name, values in problem.extra(part.u).items()}
    residual = problem.residual(problem.latent(problem.columns(part.u, slopes=False), part.c), part.u)
    objective = float(problem.value(residual, problem.table.weight[None])[0])
    return replace(
        fit,
        theta=Theta(theta),
        link=fit.link.with_values(extra),
        objective=objective,
        minima=pd.DataFrame([{**theta, **extra, "objective": objective}]),
        converged=bool(found.converged[0]),
    )


def _trained_models(every: pd.DataFrame, by: Any) -> np.ndarray:
    """Number the trained models over all groups: a run has the same name in each of them."""
    plain = every.drop(columns=[EXPERIMENT]) if EXPERIMENT in every else every
    if tuple(by) == MODEL and EXPERIMENT in every and "run" in plain and bool(np.all(plain["run"].notna())):
        return clusters(plain, ("run",))
    return clusters(plain, by)


def _freedom(joint: JointFit, problem: JointProblem, group: np.ndarray) -> Freedom:
    """Return what all parameters together, the shared ones once, took of the residuals of all groups."""
    fits = list(joint.fits.values())
    sizes = [len(fit.residuals) for fit in fits]
    slopes = np.zeros((problem.size, sum(sizes)))
    held = np.zeros(problem.size, dtype=bool)
    first = 0
    for fit, place, size in zip(fits, problem.place, sizes, strict=True):
        local = sandwich(fit)
        slopes[place, first : first + size] = local.jacobian
        held[place] |= local.held
        first += size
    root = [
        np.sqrt(peek(fit, "data")["weight"].to_numpy(float) * joint.weights[task]) for task, fit in joint.fits.items()
    ]
    counted = [np.abs(fit.residuals) <= fit.loss.limit for fit in fits]
    residual = np.concatenate([fit.residuals for fit in fits])
    return given_back(slopes[~held], residual, np.concatenate(root), group, np.concatenate(counted))


def bootstrap_jointly(
    joint: JointFit, *, n_resamples: int, by: Any, confidence_level: float, rng: RngLike
) -> JointBootstrap:
    """Refit on resampled trained models, the same for every group, all parameters at once."""
    fits = joint.fits
    if isinstance(by, str):
        raise ConfigError(f"by = {by!r} resamples rows of one surface; a joint fit draws trained models: name columns")
    generator = np.random.default_rng(rng)
    frames = [peek(fit, "data") for fit in fits.values()]
    every = pd.concat(frames, ignore_index=True)
    group = _trained_models(every, by)
    count = int(group.max()) + 1
    problem = JointProblem(_problems(fits, every), joint.shared)
    draws = drawn_models(_freedom(joint, problem, group).models_drawn(count), count, n_resamples, generator)
    ends = np.cumsum([len(frame) for frame in frames])
    weights = [
        draws[:, part] * one.table.weight * joint.weights[task]
        for part, one, task in zip(np.split(group, ends[:-1]), problem.problems, fits, strict=True)
    ]
    starts = []
    for one, fit in zip(problem.problems, fits.values(), strict=True):
        c, u = one.position(fit.theta)
        starts.append((np.repeat(c, n_resamples, axis=0), np.repeat(u, n_resamples, axis=0)))
    found = refine_jointly(problem, starts, weights, tolerance=1e-10)
    boots = {}
    for t, (task, fit) in enumerate(fits.items()):
        one, part = problem.problems[t], found.parts[t]
        boots[task] = Bootstrap(
            fit=fit,
            theta=Theta(one.theta(part.c, part.u, one.sizes(part.u))),
            link_values={name: values[:, 0].copy() for name, values in one.extra(part.u).items()},
            objective=part.value.copy(),
            by=tuple(by),
            confidence_level=confidence_level,
            hit_rate=drawn(fit, n_resamples, generator),
        )
    warn_if_few(next(iter(fits.values())), MODEL)
    return JointBootstrap(fit=joint, boots=boots, confidence_level=confidence_level)
