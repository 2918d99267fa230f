"""Pictures of single decisions, of evaluations and of plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from ragscale.plotting._frame import LABELS, Frame, count, style
from ragscale.results._metric_words import metric_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.decisions import Estimate, Knee, Substitution, Worth
    from ragscale.evaluation import Evaluation


class Planned(Protocol):
    """What `costs` reads of a `ragscale.study.StudyPlan`."""

    @property
    def stages(self) -> pd.DataFrame: ...
    @property
    def device(self) -> str: ...


_CONDITIONS = ("closed-book", "random", "retrieved", "oracle")


def estimate(found: Estimate, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw a decision in numbers with its intervals, against the argument that varies most.

    Parameters
    ----------
    found : Estimate
    ax : Axes, optional
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> law = {"E": 1.7, "A": 406, "alpha": 0.34, "B": 411, "beta": 0.28, "C": 0.05, "eta": 1e-9}
    >>> rs.exchange_rate(("log1p", law), N=1e9, D=[1e9, 1e10], R=1e9).plot().get_xlabel()
    'pretraining D (tokens)'
    """
    return _against_arguments(Frame(ax), found.to_frame(), list(found.at), found.name, kwargs)


def knee(found: Knee, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the knee in D with its interval against N or R; hollow where it lies beyond what was looked at.

    Parameters
    ----------
    found : Knee
    ax : Axes, optional
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> law = {"E": 1.7, "A": 406, "alpha": 0.34, "B": 411, "beta": 0.28, "C": 0.05, "eta": 1e-9}
    >>> rs.knee_point(("log1p", law), N=[1e8, 1e9]).plot().get_ylabel()
    'knee D (tokens)'
    """
    frame, table = Frame(ax), found.to_frame()
    _against_arguments(frame, table, ["N", "R"], "D", kwargs)
    beyond = table[table["status"] != "found"]
    if len(beyond):
        along = _varying(table, ["N", "R"])
        hollow: dict[str, Any] = {"marker": "s", "linestyle": "", "markersize": 10, "markerfacecolor": "none"}
        frame.ax.plot(beyond[along], beyond["D"], label="not found in the range", color=frame.muted, **hollow)
        frame.legend()
    frame.ax.set_ylabel("knee D (tokens)")
    return frame.ax


def _varying(table: Any, names: list[str]) -> str:
    return max(names, key=lambda name: table[name].nunique()) if names else ""


def _against_arguments(frame: Frame, table: Any, names: list[str], value: str, kwargs: Mapping[str, object]) -> Any:
    along = _varying(table, names)
    others = [name for name in names if name != along and table[name].nunique() > 1]
    if not along:
        table, along = table.assign(element=np.arange(len(table))), "element"
    finite = np.isfinite(table[value].to_numpy(float))
    frame.label(along, LABELS.get(value, value.replace("_", " ")))
    if not finite.any():
        return frame.empty(f"no {value.replace('_', ' ')} is finite")
    groups = table.groupby(others[0]) if others else [(None, table)]
    for i, (key, rows) in enumerate(groups):
        name = None if key is None else f"{others[0]} = {count(float(key))}"
        (line,) = frame.ax.plot(rows[along], rows[value], **style(kwargs, marker="o", color=f"C{i % 10}", label=name))
        if f"{value}_low" in rows:
            frame.ax.vlines(rows[along], rows[f"{value}_low"], rows[f"{value}_high"], color=line.get_color(), lw=1)
    if along != "element":
        frame.counts("x", table[along])
    numbers = table[value].to_numpy(float)[finite]
    if (numbers > 0).all() and numbers.max() > 10 * numbers.min():
        frame.counts("y", numbers)
    frame.legend()
    return frame.ax


def substitutions(found: Substitution, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw how many pretraining tokens a store token was worth in each cell, against D/N, one colour for each N.

    Parameters
    ----------
    found : Substitution
    ax : Axes, optional
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> table = rs.datasets.simulate("hill", noise=0.01, rng=0)
    >>> rs.substitution(table, rs.fit_manifold(table, "hill")).plot().get_xlabel()
    'pretraining D/N (tokens per parameter)'
    """
    frame, table = Frame(ax), found.table
    frame.label("D_over_N", "sigma (pretraining tokens per store token)")
    known: Any = table[np.isfinite(table["sigma"])]
    if known.empty:
        return frame.empty("every cell is censored: better than any amount of data would be")
    for size, colour in frame.colours(known["N"]):
        rows = known[known["N"] == size]
        frame.ax.plot(
            rows["D_over_N"], rows["sigma"], **style(kwargs, linestyle="", marker="o", color=colour, label=count(size))
        )
    frame.zero()
    frame.counts("x", known["D_over_N"])
    frame.ax.set_yscale("symlog", linthresh=max(float(known["sigma"].abs().median()), 1e-12))
    censored = len(table) - len(known)
    frame.label("D_over_N", "sigma (pretraining tokens per store token)", f"{censored} censored" if censored else "")
    frame.legend("N")
    return frame.ax


def worth(found: Worth, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the metric with each of two retrievers against the store.

    Parameters
    ----------
    found : Worth
    ax : Axes, optional
    **kwargs
        To matplotlib, for both lines.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate_reading(row_noise=0.001, rng=0), "reading")
    >>> better = lambda R: 1 - 0.5 * (1 - fit.hit_rate(R))
    >>> rs.decisions.worth_of(better, over=fit.hit_rate, fit=fit).plot().get_xlabel()
    'store R (tokens)'
    """
    frame, table = Frame(ax), found.table
    for column, name, line in (("loss", "asked about", "-"), ("loss_over", "compared with", "--")):
        drawn = style(kwargs, marker="o", color="C0" if line == "-" else "C1", linestyle=line, label=name)
        frame.ax.plot(table["R"], table[column], **drawn)
    frame.ax.fill_between(table["R"], table["loss"], table["loss_over"], color="C0", alpha=0.12, lw=0)
    frame.counts("x", table["R"])
    frame.label("R", "predicted metric", f"N = {count(found.N)}, D = {count(found.D)}")
    frame.legend("retriever")
    return frame.ax


def evaluation(found: Evaluation, ax: Axes | None = None, *, metric: str | None = None, **kwargs: object) -> Axes:
    """Draw a metric of each task under every condition, with its standard error.

    Parameters
    ----------
    found : Evaluation
    ax : Axes, optional
    metric : str, optional
        By default the first one that `Evaluation.summary` names.
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import pandas as pd
    >>> import ragscale as rs
    >>> rows = {"N": 1e6, "D": 1e7, "R": [0, 1e6], "task": "squad", "metric": "accuracy", "value": [0.2, 0.3]}
    >>> table = pd.DataFrame(rows | {"condition": ["closed-book", "retrieved"]})
    >>> rs.evaluation.Evaluation(table, table).plot().get_xlabel()
    'accuracy (share of questions)'
    """
    from ragscale.evaluation._evaluation import main_metric

    frame = Frame(ax)
    table: Any = found.results
    if table.empty:
        return frame.empty("no question was asked")
    metric = main_metric(list(dict.fromkeys(table["metric"]))) if metric is None else metric
    table = table[table["metric"] == metric]
    tasks = list(dict.fromkeys(table["task"]))
    frame.label(metric_words(metric), "")
    kinds = _kinds(table)
    for i, (name, rows) in enumerate(kinds):
        height = np.array([tasks.index(task) for task in rows["task"]]) + 0.5 * (i - (len(kinds) - 1) / 2) / len(kinds)
        errors = rows["stderr"].to_numpy(float) if "stderr" in rows else np.full(len(rows), np.nan)
        value = rows["value"].to_numpy(float)
        drawn = style(kwargs, linestyle="", marker="o", color=f"C{i % 10}", label=name)
        frame.ax.plot(value, height, **drawn)
        frame.ax.hlines(height, value - errors, value + errors, color=drawn["color"], lw=1)
    frame.ax.set_yticks(range(len(tasks)), labels=tasks)
    frame.ax.set_ylim(len(tasks) - 0.4, -0.6)
    frame.legend()
    return frame.ax


def _kinds(table: pd.DataFrame) -> list[tuple[str, Any]]:
    """Return the rows of each condition and store, controls first, with a name for each."""
    condition: Any = table["condition"] if "condition" in table else pd.Series("all", index=table.index)
    store: Any = table["R"] if "R" in table else pd.Series(0.0, index=table.index)
    order = {name: i for i, name in enumerate(_CONDITIONS)}
    groups: Any = table.groupby([condition.rename("condition"), store.rename("R")])
    keys = sorted(groups.groups, key=lambda key: (order.get(key[0], len(order)), key[1]))
    several = condition[store > 0].nunique() < store[store > 0].nunique()
    names = [f"{kind}, R = {count(r)}" if r and several else str(kind) for kind, r in keys]
    return [(name, groups.get_group(key)) for name, key in zip(names, keys, strict=True)]


def costs(plan: Planned, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the hours of devices and of processors that each stage of a plan takes.

    Parameters
    ----------
    plan : StudyPlan
    ax : Axes, optional
    **kwargs
        To ``Axes.barh``.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import pandas as pd
    >>> import ragscale as rs
    >>> stages = pd.DataFrame({"stage": ["train", "total"], "device_hours": [2.0, 2.0], "cpu_hours": [0.0, 0.0]})
    >>> plan = rs.study.StudyPlan(cells=pd.DataFrame(), stages=stages, wall_hours=2.0, device="H100")
    >>> rs.plotting.costs(plan).get_xlabel()
    'hours'
    """
    frame = Frame(ax)
    table: Any = plan.stages[plan.stages["stage"] != "total"]
    rows = np.arange(len(table))
    left = np.zeros(len(table))
    for i, (column, name) in enumerate((("device_hours", plan.device), ("cpu_hours", "processor"))):
        hours = np.nan_to_num(table[column].to_numpy(float))
        if hours.any():
            drawn: dict[str, Any] = {"color": f"C{i}", "label": name, **kwargs}
            frame.ax.barh(rows, hours, left=left, **drawn)
            left += hours
    frame.label("hours", "")
    if not left.any():
        return frame.empty("nothing takes time in this plan")
    frame.ax.set_yticks(rows, labels=table["stage"].tolist())
    frame.ax.invert_yaxis()
    frame.legend()
    return frame.ax
