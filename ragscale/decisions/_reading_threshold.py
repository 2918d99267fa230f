"""Where retrieval starts to help: the smallest model, or the least trained one, that gains with confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale._typing import HitRateLike
from ragscale.decisions._arguments import counts, refuse
from ragscale.decisions._checkpoint_gains import checkpoint_gains, gain_intervals, joint_gains
from ragscale.decisions._surface import Subject, Surface, surface
from ragscale.errors import ConfigError
from ragscale.results import Result, validate
from ragscale.results import higher_is_better as is_rising

By = Literal["N", "D", "D_over_N", "steps"]
_UNITS = {"N": "parameters", "D": "pretraining tokens", "D_over_N": "tokens per parameter", "steps": "steps"}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Threshold(Result):
    """From where on passages help with confidence.

    Attributes
    ----------
    threshold : float, or mapping of task to float
        The smallest measured value of ``by`` from which on every larger one gains with confidence; NaN where there is
        none in the range measured. A mapping where the table has several tasks.
    joint : float
        The same for the gain averaged over all tasks; equal to ``threshold`` for a single one.
    by, control : str
        What the threshold is in, and what the gain is measured against.
    table : DataFrame
        One row per value of ``by`` (and task and metric): ``gain, low, high, n`` (trained models or replicates),
        ``helps`` (low > 0), ``hurts`` (high < 0) and ``from_here`` (it and everything above helps).
    confidence_level : float
    note : str
    certain : bool
        Whether the gains have intervals; a law without a bootstrap has none.
    """

    _picture: ClassVar[str] = "threshold"

    threshold: float | Mapping[str, float]
    joint: float
    by: str
    control: str
    table: pd.DataFrame
    confidence_level: float = 0.95
    note: str = ""
    extent: Mapping[str, float] = field(default_factory=dict)
    certain: bool = True

    def to_frame(self) -> pd.DataFrame:
        """Return `table`."""
        return self.table.copy()

    def summary(self) -> str:
        """Say from where on passages help, one line per task."""
        each = self.threshold if isinstance(self.threshold, Mapping) else {"": self.threshold}
        lines = [f"{name + ': ' if name else ''}{self._sentence(value, name)}" for name, value in each.items()]
        if isinstance(self.threshold, Mapping):
            lines.append(f"all tasks together: {self._sentence(self.joint, '')}")
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def _sentence(self, value: float, task: str) -> str:
        unit, over = _UNITS[self.by], f" over {self.control}" if self.control else " by a store"
        if math.isnan(value):
            span = f"{self.extent['low']:.3g} to {self.extent['high']:.3g} {unit}" if self.extent else ""
            where = f"in the range {'measured' if self.control else 'looked at'} ({span})" if span else "in range"
            return f"no threshold {where}: no gain{over} that is certain from there on"
        first = bool(self.extent) and value <= self.extent["low"] * (1 + 1e-9)
        helps = f"{self._passages()} help{over}" if self.control else "a store helps"
        text = f"{helps} from {'at most ' if first else ''}{value:.3g} {unit} on"
        return text if self.certain else f"{text} by the fitted law (no interval: rs.bootstrap(fit) gives one)"

    def _passages(self) -> str:
        """Say which passages: gold ones may help where retrieved ones do not."""
        of = set(self.table["of"]) if "of" in self.table else set()
        kind = {"oracle": "gold ", "retrieved": "retrieved "}.get(of.pop(), "") if len(of) == 1 else ""
        return f"{kind}passages"


def reading_threshold(
    results_or_fit: pd.DataFrame | Subject,
    *,
    control: str = "random",
    condition: str | None = None,
    by: By = "N",
    N: ArrayLike | None = None,
    D_over_N: ArrayLike | None = None,
    R: ArrayLike | None = None,
    min_gain: float = 0.0,
    higher_is_better: bool | None = None,
    confidence_level: float = 0.95,
    hit_rate: HitRateLike = None,
) -> Threshold:
    r"""Find where retrieval starts to help: the smallest N (or D, D/N, steps) from which on every gain is certain.

    From a results table, the gain of a trained model is the difference between two conditions of the same checkpoint,
    signed so that positive helps: gold passages (or retrieved ones where a task has no gold) against ``control``:
    a *random passage*, because a model that cannot read gains from any text, and because the noise of a training seed
    cancels in the pair. Conditions are never mixed. The interval is Student's t over the trained models at one value of
    ``by``; with one model only, its standard errors are used if the table has them, and there is no interval otherwise.

    From a fit the gain is :math:`L(N, D, 0) - L(N, D, R)`, from a bootstrap with its percentile interval. A law that
    reads (``reading``) has its threshold as a parameter, :math:`D_0 (N / N_{ref})^c`: the D at which half of the skill
    is there. Additive laws (log1p, power, hill, rpower) have the same gain for every N by construction: fit
    ``interaction``, ``log_ratio`` or ``multiplicative`` to ask this question.

    Parameters
    ----------
    results_or_fit : DataFrame, ManifoldFit, Bootstrap, Comparison, or (law, parameters)
    control : str
        The condition of the table that gains are measured against: "random", or "closed-book". A table without a column
        ``condition`` is compared with its rows at R = 0, with a warning.
    condition : str, optional
        The condition that is asked about; by default "oracle" where a task has it, else "retrieved".
    by : "N", "D", "D_over_N" or "steps"
        What the threshold is in; steps need a column ``batch_tokens``.
    N, D_over_N, R : array-like, optional
        For a fit: the model sizes (default: those of its data), the data per parameter (default: 20, within the D of
        the data), and the store (default: the largest of its data). With ``by="D"`` or ``"D_over_N"`` one N (default:
        the typical one), and several D_over_N (default: the D of the data).
    min_gain : float
        The gain that counts, in the unit of the metric: 0 asks where anything is gained for certain, half of the
        largest gain where reading has set in.
    higher_is_better : bool, optional
        For a table; by default `ragscale.results.higher_is_better` says it.
    confidence_level : float
    hit_rate : HitRateCurve, callable of R, number or table, optional
        h(R), for a fit of a law that reads it.

    Returns
    -------
    Threshold

    Raises
    ------
    ConfigError, ResultsError
        When arguments or the table are wrong, or nothing can be compared.

    References
    ----------
    Small models that do not use even gold passages: arXiv 2603.11513.

    Examples
    --------
    >>> import ragscale as rs
    >>> found = rs.reading_threshold(rs.datasets.load("ragscale-gpu"), by="D")
    >>> found.by, found.control
    ('D', 'random')
    """
    problems = []
    if not isinstance(by, str) or by not in _UNITS:
        problems.append(f"by = {by!r} must be one of {', '.join(map(repr, _UNITS))}")
    if not isinstance(confidence_level, (int, float)) or not 0 < confidence_level < 1:
        problems.append(f"confidence_level = {confidence_level!r} must be in (0, 1)")
    if isinstance(min_gain, bool) or not isinstance(min_gain, (int, float)) or not min_gain >= 0:
        problems.append(f"min_gain = {min_gain!r} must be a number of at least 0, in the unit of the metric")
    refuse(problems, "reading_threshold")
    if isinstance(results_or_fit, tuple) or hasattr(results_or_fit, "theta") or hasattr(results_or_fit, "fits"):
        found = surface(results_or_fit, hit_rate=hit_rate)
        return _from_fit(found, by, {"N": N, "D_over_N": D_over_N, "R": R}, confidence_level, min_gain)
    if N is not None or R is not None:
        raise ConfigError("reading_threshold: N and R are for a fit; filter the table instead")
    table = validate(cast(pd.DataFrame, results_or_fit))
    return _from_results(
        table,
        by,
        control=control,
        condition=condition,
        higher=higher_is_better,
        level=confidence_level,
        least=min_gain,
    )


def _from_results(
    table: Any, by: str, *, control: str, condition: str | None, higher: bool | None, level: float, least: float
) -> Threshold:
    def rises(metric: str, rows: pd.DataFrame) -> bool:
        return is_rising(rows) if higher is None else bool(higher)

    gains = checkpoint_gains(table, treated=condition, control=control, rises=rises)
    rows: Any = _mark(gain_intervals(gains, by, level), by, least)
    one_metric = "metric" not in gains or len(set(gains["metric"])) == 1
    named = ["task"] if "task" in rows and one_metric else [c for c in ("task", "metric") if c in rows]
    groups = rows.groupby(named, sort=True) if named else [(("",), rows)]
    found = {" / ".join(map(str, key)): _first(group, by) for key, group in groups}
    together = (
        _first(_mark(gain_intervals(joint_gains(gains), by, level), by, least), by) if len(found) > 1 else math.nan
    )
    certain = not rows["low"].isna().all()
    note = (
        ""
        if certain
        else f"no {_UNITS[by]} with two trained models or standard errors: no gain has an interval, and none is certain"
    )
    return Threshold(
        threshold=found if len(found) > 1 else next(iter(found.values())),
        joint=together if len(found) > 1 else next(iter(found.values())),
        by=by,
        control=control if "condition" in table else "no store",
        table=rows,
        confidence_level=level,
        note=note,
        extent={"low": float(rows[by].min()), "high": float(rows[by].max())},
        certain=certain,
    )


def _mark(rows: Any, by: str, least: float, *, certain: bool = True) -> Any:
    """Say of every row whether it helps, hurts, and whether everything above it helps too.

    A measured gain without an interval does neither; one of a law without replicates goes by its sign.
    """
    names = [c for c in ("task", "metric") if c in rows]
    rows = rows.sort_values([*names, by], ignore_index=True)
    rows["helps"] = (rows["low"] if certain else rows["gain"]) > least
    rows["hurts"] = (rows["high"] if certain else rows["gain"]) < 0
    rows["from_here"] = False
    groups = rows.groupby(names, sort=False).indices if names else {"": np.arange(len(rows))}
    for index in groups.values():
        helps = rows["helps"].to_numpy()[index]
        rows.loc[index, "from_here"] = np.logical_and.accumulate(helps[::-1])[::-1]
    return rows


def _first(rows: Any, by: str) -> float:
    """Return the smallest value from which on everything helps, NaN if the largest does not."""
    good = rows[rows["from_here"]]
    return float(good[by].min()) if len(good) else math.nan


def _from_fit(found: Surface, by: str, asked: dict[str, Any], level: float, least: float) -> Threshold:
    problems: list[str] = []
    N, D_over_N, R = asked["N"], asked["D_over_N"], asked["R"]
    sizes, stores = found.measured("N"), found.measured("R")
    if by == "steps":
        problems.append("by='steps' is for a table with a column batch_tokens, not for a fit")
    if not sizes.size and (N is None or R is None):
        problems.append("a pair (law, parameters) has no data: give N and R")
    refuse(problems, "reading_threshold")
    measured = found.measured("D")
    along = by != "N" and D_over_N is None and measured.size and not hasattr(found.law, "threshold")
    if N is None:
        N = np.unique(sizes)
        N = N[np.argmin(np.abs(np.log(N) - np.log(sizes).mean()))] if along else N
    R = float(stores.max()) if R is None and stores.size else (0.0 if R is None else R)
    given = counts(problems, allow_zero=("R",), N=N, R=R, D_over_N=20.0 if D_over_N is None else D_over_N)
    if not problems and along:
        if given["N"].size > 1:
            problems.append(f"by={by!r} needs one N, or D_over_N with each")
        given["D_over_N"] = np.unique(measured) / given["N"].ravel()[0]
    elif not problems and D_over_N is None and measured.size:
        given["D_over_N"] = np.clip(20.0 * given["N"], measured.min(), measured.max()) / given["N"]
    refuse(problems, "reading_threshold")
    n, ratio, r = (np.ravel(a) for a in np.broadcast_arrays(given["N"], given["D_over_N"], given["R"]))
    if by == "D" and hasattr(found.law, "threshold"):
        return _of_reading(found, n, level)

    def decide(part: Surface) -> dict[str, np.ndarray]:
        theta = part.stacked()
        return {"gain": part.law.loss(n, ratio * n, 0 * r, theta) - part.law.loss(n, ratio * n, r, theta)}

    gain = found.pooled(decide).stacked["gain"]
    tail = (1 - level) / 2
    low, high = np.quantile(gain[1:], [tail, 1 - tail], axis=0) if len(gain) > 1 else np.full((2, len(n)), np.nan)
    frame = pd.DataFrame({"N": n, "D": ratio * n, "D_over_N": ratio, "R": r, "gain": gain[0], "low": low, "high": high})
    if frame[by].duplicated().any():
        raise ConfigError(f"reading_threshold: by={by!r} has repeated values; vary {by} only")
    certain = len(gain) > 1
    rows: Any = _mark(frame.assign(n=len(gain) - 1), by, least, certain=certain)
    note = found.doubt
    if note:  # a law whose gain cannot be negative finds one in anything
        rows[["helps", "from_here"]] = False
    value = _first(rows, by)
    if not note and by == "N" and not found.law.gain_depends_on_N:
        note = f"the law {found.law.name!r} has the same gain for every N by construction"
    extent = {"low": float(rows[by].min()), "high": float(rows[by].max())}
    return Threshold(
        threshold=value,
        joint=value,
        by=by,
        control="",
        table=rows,
        confidence_level=level,
        note=note,
        extent=extent,
        certain=certain,
    )


def _of_reading(found: Surface, n: np.ndarray, level: float) -> Threshold:
    """Return the threshold of a law that has one as a parameter, per N; at the typical N as the answer."""
    sizes = np.unique(np.concatenate([n, [np.exp(np.log(n).mean())]]))
    stacked = np.atleast_2d(found.law.threshold(found.stacked(), sizes))
    tail = (1 - level) / 2
    low, high = (
        np.quantile(stacked[1:], [tail, 1 - tail], axis=0) if len(stacked) > 1 else np.full((2, len(sizes)), np.nan)
    )
    rows = pd.DataFrame({"N": sizes, "D": stacked[0], "D_low": low, "D_high": high, "n": len(stacked) - 1})
    typical = float(stacked[0][np.argmin(np.abs(np.log(sizes) - np.log(n).mean()))])
    data = found.measured("D")
    note = ""
    if data.size and not np.min(data) <= typical <= np.max(data):
        note = f"{typical:.3g} lies outside the D that were measured, {data.min():.3g} to {data.max():.3g}"
    note = "; ".join(filter(None, [note, found.doubt]))
    value = math.nan if note else typical
    return Threshold(
        threshold=value,
        joint=value,
        by="D",
        control="",
        table=rows,
        confidence_level=level,
        note=note,
        certain=len(stacked) > 1,
    )
