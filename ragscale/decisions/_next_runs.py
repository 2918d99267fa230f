"""Which runs to add, so that a decision gets certain at the least cost."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import pandas as pd

from ragscale._typing import ResultsLike
from ragscale.decisions._allocation import optimal_allocation
from ragscale.decisions._arguments import counts, refuse
from ragscale.decisions._design import MISFITS, Local, localise, misfit_columns, misfit_knots
from ragscale.errors import ConfigError, FitError, RagscaleError, RagscaleWarning
from ragscale.fitting._options import FitSettings
from ragscale.fitting.laws._catalogue import BUILT_IN, make_law
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.results import Result, validate

_FREE = 1e-6  # of the cheapest run: what evaluating a checkpoint with another store counts as


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NextRuns(Result):
    """The runs to add next.

    Attributes
    ----------
    runs : DataFrame
        The chosen rows of the candidates, in the order of choice, all columns unchanged.
    cost : ndarray (n_runs,)
        FLOPs of each: 6 N D, and 0 where the checkpoint is in the results already.
    deviation_before, deviation_after : float
        Expected standard deviation of the decision, over the laws: of ln loss at the target (a relative error), or of
        the best share.
    budget_flops : float
    goal : str
    laws : tuple of str
        The laws that were considered.
    """

    _picture: ClassVar[str] = "next_runs"

    runs: pd.DataFrame
    cost: np.ndarray
    deviation_before: float
    deviation_after: float
    budget_flops: float
    goal: str
    laws: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.runs)

    def to_frame(self) -> pd.DataFrame:
        """Return `runs`."""
        return self.runs.copy()

    def summary(self) -> str:
        """Say how many runs, what they cost, and what they are expected to bring."""
        what = "the predicted loss (relative)" if self.goal == "loss" else "the best share of the store"
        head = (
            f"{len(self)} runs for {self.cost.sum():.3g} of {self.budget_flops:.3g} FLOPs: the standard deviation of "
            f"{what} is expected to go from {self.deviation_before:.2g} to {self.deviation_after:.2g}"
        )
        shown = self.runs.assign(cost=self.cost).head(12).to_string(index=False, float_format="{:.3g}".format)
        more = f"\n... and {len(self) - 12} more" if len(self) > 12 else ""
        return f"{head}\n{shown}{more}" if len(self) else head + "\nno candidate fits the budget and teaches anything"


def next_runs(
    results: ResultsLike,
    candidates: pd.DataFrame,
    *,
    budget_flops: float,
    goal: Literal["share", "loss"] = "loss",
    at: pd.DataFrame | None = None,
    law: str | ScalingLaw | Sequence[str | ScalingLaw] = "auto",
    value: str = "value",
    batch: int | None = None,
    **options: Unpack[FitSettings],
) -> NextRuns:
    r"""Choose the runs that make a decision certain for the least compute.

    Each law is linearised at its estimate. With J the slopes of :math:`\ln L` in its parameters and P a weak prior
    (which is what makes this work where the results alone determine nothing), the information of a set of runs is
    :math:`I = P + \sum_i J_i J_i^\top / s^2`, and the variance of the decision :math:`g^\top I^{-1} g`, with g the
    slopes of the target's :math:`\ln L` or of the best share. No law holds over all scales: what it misses between a
    run and the target are further coordinates, shared by runs of one scale, so that many small runs do not replace a
    large one. Runs are taken one by one, each with the largest relative drop of the variance per FLOP, averaged over
    the laws by weight and over two degrees of misfit.

    Parameters
    ----------
    results : results table
        What is measured already; it costs nothing.
    candidates : DataFrame
        Columns N and D, and R if it is not 0; further ones are kept. A run costs 6 N D FLOPs, a further store of a
        checkpoint that is in the results nearly nothing.
    budget_flops : float
        What may be spent.
    goal : "loss" or "share"
        What is to be known: the loss at ``at``, or the best share of the store for its N and D + R.
    at : DataFrame, optional
        Columns N and D, and R if it is not 0. By default the candidate of the largest compute, and for "share" the
        largest D + R at the largest N of the results and candidates.
    law : str, ScalingLaw, or several
        "auto": the laws of the manifold that the columns allow.
    value : str
        Name of the column with the measured values.
    batch : int, optional
        At most so many runs, to train and come back with.
    **options
        Further arguments of `fit_manifold`.

    Returns
    -------
    NextRuns

    Raises
    ------
    ConfigError, ResultsError
        When arguments or tables are wrong.

    References
    ----------
    Linear optimal design for predictions (V-optimality): Atkinson, Donev and Tobias 2007, chapter 10. Which runs for
    scaling laws: arXiv 2410.11840; the benchmark: arXiv 2604.22753.

    Examples
    --------
    >>> import pandas as pd
    >>> import ragscale as rs
    >>> table = rs.datasets.simulate("hill", noise=0.01, rng=0)[["N", "D", "R", "value"]]
    >>> pool = pd.DataFrame({"N": [1e8, 1e9], "D": [1e11, 1e11]})
    >>> chosen = rs.next_runs(table, pool, budget_flops=1e20, law="hill")
    >>> bool(chosen.cost.sum() <= 1e20)
    True
    """
    table = _measured(results, value)
    pool = _points(candidates, "candidates")
    targets = None if at is None else _points(at, "at")
    problems: list[str] = []
    counts(problems, budget_flops=budget_flops)
    if not isinstance(goal, str) or goal not in ("loss", "share"):
        problems.append(f"goal = {goal!r} must be 'loss' or 'share'")
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or batch < 1):
        problems.append(f"batch = {batch!r} must be a whole number of at least 1")
    refuse(problems, "next_runs")
    laws = _laws(law, table, pool)
    for one in laws:  # a law that the results can be fitted with needs its columns of the candidates too
        if all(name in table for name in one.further_columns):
            _arrays(pool, one)
    locals_ = _weighted([local for local in (_try(one, table, options) for one in laws) if local is not None])
    if not locals_:
        raise FitError(f"next_runs: none of the laws {', '.join(one.name for one in laws)} has a finite loss here")
    targets = _default_target(table, pool, goal) if targets is None else targets
    cost = _cost(table, pool)
    plan = _Plan(locals_, table, pool, targets, goal)
    order = plan.choose(cost, float(budget_flops), len(pool) if batch is None else int(batch))
    return NextRuns(
        runs=candidates.iloc[order].reset_index(drop=True),
        cost=np.where(cost[order] < 6 * pool["N"].min() * pool["D"].min() * 0.5, 0.0, cost[order]),
        deviation_before=float(np.sqrt(plan.variance([]))),
        deviation_after=float(np.sqrt(plan.variance(order))),
        budget_flops=float(budget_flops),
        goal=goal,
        laws=tuple(local.law.name for local in locals_),
    )


def _measured(results: Any, value: str) -> Any:
    frame = pd.DataFrame(results).copy()
    if value != "value":
        if value not in frame:
            raise ConfigError(
                f"next_runs: value = {value!r} is no column; there are {', '.join(map(str, frame.columns))}"
            )
        frame = frame.assign(value=frame[value])
    frame = frame if "R" in frame else frame.assign(R=0.0)
    return validate(frame)


def _points(frame: Any, what: str) -> Any:
    columns = getattr(frame, "columns", ())
    missing = [name for name in ("N", "D") if name not in columns]
    if missing:
        raise ConfigError(f"next_runs: {what} needs the columns N and D; missing: {', '.join(missing)}")
    problems: list[str] = []
    found = frame.reset_index(drop=True)
    found = found if "R" in found else found.assign(R=0.0)
    values = {f"{what}.{name}": found[name].to_numpy() for name in "NDR"}
    counts(problems, allow_zero=(f"{what}.R",), **values)
    refuse(problems, "next_runs")
    return found.astype(dict.fromkeys("NDR", float))


def _laws(law: Any, table: Any, pool: Any) -> list[ScalingLaw]:
    if not isinstance(law, str) or law != "auto":
        several: list[Any] = [law] if isinstance(law, (str, ScalingLaw, type)) else list(law)
        return [make_law(one) for one in several]
    stores = (table["R"] > 0).any()
    reads = [one for one in BUILT_IN if stores == ("R" in one.variables)]
    return [one() for one in reads]


def _try(law: ScalingLaw, table: Any, options: Mapping[str, Any]) -> Local | None:
    try:
        return localise(law, table, options)
    except RagscaleError:
        return None


def _weighted(found: list[Local]) -> list[Local]:
    """Weight laws by how well they fit: exp(-chi^2 / 2) with as many degrees of freedom as they leave."""
    if not found:
        return found
    score = np.array([np.log(local.noise) for local in found])
    weight = np.exp(-20.0 * (score - score.min()))
    return [replace(one, weight=float(w / weight.sum())) for one, w in zip(found, weight, strict=True)]


def _default_target(table: Any, pool: Any, goal: str) -> Any:
    if goal == "loss":
        return pool.iloc[[int(np.argmax((pool["N"] * pool["D"]).to_numpy()))]]
    every = pd.concat([table[["N", "D", "R"]], pool[["N", "D", "R"]]])
    total = (every["D"] + every["R"]).max()
    return pd.DataFrame({"N": [every["N"].max()], "D": [0.5 * total], "R": [0.5 * total]})


def _cost(table: Any, pool: Any) -> np.ndarray:
    """Return 6 N D, and next to nothing where the checkpoint exists."""
    cost = 6.0 * pool["N"].to_numpy() * pool["D"].to_numpy()
    there = set(zip(table["N"].to_numpy(float), table["D"].to_numpy(float), strict=True))
    known = [(n, d) in there for n, d in zip(pool["N"], pool["D"], strict=True)]
    return np.where(known, _FREE * cost.min(), cost)


class _Plan:
    """The information of runs under every law, and the greedy choice."""

    def __init__(self, found: list[Local], table: Any, pool: Any, targets: Any, goal: str) -> None:
        self.locals = found
        self.parts = []
        middle = {name: float(np.exp(np.log(targets[name]).mean())) for name in ("N", "D")}
        for local in found:
            rows, new = (_arrays(frame, local.law) for frame in (table, pool))
            knots = misfit_knots([rows, new, targets])
            slope = _slopes(local, targets, goal)
            jacobians = [local.jacobian(local.log_loss(x)) for x in (rows, new)]
            for misfit in MISFITS:
                have, more = (
                    np.hstack([jacobian, misfit_columns(x, middle, knots, misfit)]) / local.noise
                    for jacobian, x in zip(jacobians, (rows, new), strict=True)
                )
                extra = have.shape[1] - len(local.names)
                start = np.diag(np.concatenate([local.prior(), np.ones(extra)])) + have.T @ have
                wide = np.hstack([slope, np.zeros((len(slope), extra))])
                self.parts.append((local.weight / len(MISFITS), start, more, wide))
        measured = set(map(tuple, table[["N", "D", "R"]].to_numpy(float).tolist()))
        self.old = np.array([tuple(row) in measured for row in pool[["N", "D", "R"]].to_numpy(float).tolist()])

    def variance(self, order: Sequence[int]) -> float:
        total = 0.0
        for weight, start, gain, slope in self.parts:
            information = start + gain[list(order)].T @ gain[list(order)]
            total += weight * float(np.mean(np.einsum("ij,jk,ik->i", slope, np.linalg.inv(information), slope)))
        return total

    def choose(self, cost: np.ndarray, budget: float, most: int) -> list[int]:
        """Take runs one by one, each with the largest relative drop of the variance per FLOP that is affordable."""
        inverse = [np.linalg.inv(start) for _, start, _, _ in self.parts]
        left, order = budget, []
        open_ = ~self.old
        while len(order) < most:
            able = open_ & (cost <= left)
            if not able.any():
                break
            drop = np.zeros(len(cost))
            for (weight, _, gain, slope), inv in zip(self.parts, inverse, strict=True):
                through = gain @ inv  # (candidates, coordinates)
                unit = 1.0 + np.einsum("ij,ij->i", through, gain)
                now = np.mean(np.einsum("ij,jk,ik->i", slope, inv, slope))
                drop += weight * np.mean((through @ slope.T) ** 2, axis=1) / unit / now
            best = int(np.argmax(np.where(able, drop / cost, -np.inf)))
            if not drop[best] > 0:
                break
            order.append(best)
            open_[best] = False
            left -= cost[best]
            for k, (_, _, gain, _) in enumerate(self.parts):
                through = inverse[k] @ gain[best]
                inverse[k] = inverse[k] - np.outer(through, through) / (1.0 + gain[best] @ through)
        return order


def _arrays(frame: Any, law: ScalingLaw) -> dict[str, np.ndarray]:
    missing = [name for name in law.further_columns if name not in frame]
    if missing:
        raise ConfigError(f"next_runs: the law {law.name!r} also reads {', '.join(missing)}: add them to both tables")
    return {name: frame[name].to_numpy(float) for name in ("N", "D", "R", *law.further_columns)}


def _slopes(local: Local, targets: Any, goal: str) -> np.ndarray:
    """Return the slopes of the decision in the coordinates, (n_targets, n_coordinates)."""
    if goal == "loss":
        return local.jacobian(local.log_loss(_arrays(targets, local.law)))
    n, total = targets["N"].to_numpy(float), (targets["D"] + targets["R"]).to_numpy(float)

    def share(theta: Mapping[str, float]) -> np.ndarray:
        own = {k: v for k, v in theta.items() if k not in local.law.fixed and k not in local.law.tied}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RagscaleWarning)
            return np.ravel(optimal_allocation((local.law, own), N=n, budget=total).share)

    return local.jacobian(share, step=0.02)
