"""Draw trained models again and refit, block by block."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ragscale.errors import FitError
from ragscale.fitting._experiments import clusters
from ragscale.fitting._freedom import freedom
from ragscale.fitting._one_step import CHECKED, MANY_MODELS, OneStep, agrees, disagreement, one_step
from ragscale.fitting._own import peek
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._refine import refine
from ragscale.fitting.solver._solution import Solution, join

_WEIGHTS = 4_000_000  # of one block: 32 MB in float64
REFITS = "refits"


def resampled(
    fit: ManifoldFit, n_resamples: int, by: str | tuple[str, ...], generator: np.random.Generator
) -> tuple[Problem, Solution, str]:
    """Return the optima of all resamples, and in words how they were found; the weights of a block exist at a time."""
    problem = fit.problem
    if by == "residuals":
        problem, weights = residual_resamples(fit, n_resamples, generator)
        return problem, refit(problem, fit, weights), REFITS
    data = peek(fit, "data")
    group = independent(data, by)
    count = int(group.max()) + 1
    models = freedom(fit, group).models_drawn(count)
    step = max(1, _WEIGHTS // max(len(data), count))
    steps = _steps(fit, group, n_resamples)
    found, words = None, REFITS
    for start in range(0, n_resamples, step):
        draws = drawn_models(models, count, min(step, n_resamples - start), generator)
        first = 0
        if steps is not None and start == 0:
            first = min(CHECKED, len(draws))
            found = refit(problem, fit, draws[:first, group] * problem.table.weight)
            difference = disagreement(fit, steps.replicates(draws[:first]), found)
            if agrees(difference):
                words = f"one step each, whose spreads are within {difference:.0%} of those of {first} refits"
            else:
                steps = None
        rest = draws[first:]
        if steps is not None:
            part = steps.replicates(rest)
            lost = np.flatnonzero(~part.converged)
            if lost.size:
                part.put(lost, refit(problem, fit, rest[lost][:, group] * problem.table.weight))
        else:
            part = refit(problem, fit, rest[:, group] * problem.table.weight)
        found = part if found is None else join(found, part)
    assert found is not None
    return problem, found, words


def _steps(fit: ManifoldFit, group: np.ndarray, n_resamples: int) -> OneStep | None:
    """Return what single steps need, where there are many experiments and one optimum that resamples can choose."""
    if group.max() < MANY_MODELS or n_resamples < 5 * CHECKED or len(warm_starts(fit)) > 1:
        return None
    return one_step(fit, group)


def independent(data: pd.DataFrame, by: str | tuple[str, ...]) -> np.ndarray:
    """Number what is independent, by row: trained models, or rows where ``by`` is "rows" or "residuals"."""
    return np.arange(len(data)) if isinstance(by, str) else clusters(data, by)


def drawn_models(models: int, count: int, n_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Draw ``models`` of ``count`` experiments with replacement; return their weights (n_resamples, count), mean 1.

    Fewer than there are, because a fit of p parameters makes residuals smaller than the noise: resamples of all of them
    would differ too little.

    References
    ----------
    Rao and Wu 1988, J. American Statistical Association 83 (resamples of another size).
    """
    draws = generator.multinomial(models, np.full(count, 1.0 / count), size=n_resamples)
    return draws * (count / models)


def residual_resamples(
    fit: ManifoldFit, n_resamples: int, generator: np.random.Generator
) -> tuple[Problem, np.ndarray]:
    """Return the problem with new observations, predictions plus drawn residuals."""
    problem = fit.problem
    data = peek(fit, "data")
    drawn = generator.choice(freedom(fit, independent(data, "residuals")).residuals, size=(n_resamples, len(data)))
    predicted = np.asarray(fit.to_frame()["predicted"], dtype=float)
    y = predicted * np.exp(-drawn) if fit.space == "log" else predicted - drawn
    return problem.with_observations(y), np.broadcast_to(problem.table.weight, y.shape)


def refit(problem: Problem, fit: ManifoldFit, weights: np.ndarray) -> Solution:
    """Refit every resample from every local minimum that could become the best one; keep the best."""
    best = None
    for c, u in warm_starts(fit):
        count = len(weights)
        found = refine(
            problem, np.repeat(c, count, axis=0), np.repeat(u, count, axis=0), weights, project=4, tolerance=1e-11
        )
        if best is None:
            best = found
            continue
        better = found.value < best.value
        for name in ("c", "u", "value", "converged"):
            getattr(best, name)[better] = getattr(found, name)[better]
    if best is None or not np.isfinite(best.value).all():
        raise FitError("the bootstrap could not refit every resample: the fit's optimum is not finite there")
    return best


def warm_starts(fit: ManifoldFit) -> list[tuple[np.ndarray, np.ndarray]]:
    problem = fit.problem
    minima = peek(fit, "minima")
    objective = minima["objective"].to_numpy(float)
    near = np.flatnonzero(objective <= 1.3 * objective[0])[:4]
    starts = []
    names = [p.name for p in fit.law.parameters]
    for i in near:
        row = {str(name): float(minima[name].to_numpy(float)[i]) for name in minima}
        link = fit.link.with_values({p.name: row[p.name] for p in fit.link.parameters})
        local = (
            problem
            if not fit.link.parameters
            else Problem(fit.law, link, fit.loss, space=fit.space, table=problem.table, typical=problem.typical)
        )
        starts.append(local.position({name: row[name] for name in names}))
    return starts
