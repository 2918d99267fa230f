"""Pictures of decisions: splits with their near-optimal ranges, thresholds, compared procedures, chosen runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale.plotting._frame import Frame, count, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.decisions import Allocation, FitComparison, NextRuns, Threshold


def splits(best: Allocation, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the best store share of each budget, its interval as a bar and near-optimal ranges as a band.

    Parameters
    ----------
    best : Allocation
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
    >>> best = rs.optimal_allocation(("log1p", law), N=1e9, budget=[1e10, 1e11])
    >>> best.plot(color="tab:green").get_xlabel()
    'budget (tokens)'
    """
    frame = Frame(ax)
    table: Any = best.to_frame()
    along = "budget" if table["budget"].nunique() >= table["N"].nunique() else "N"
    other = "N" if along == "budget" else "budget"
    near: Any = best.near_optimal
    for value, colour in frame.colours(table[other]):
        mine = table[table[other] == value].sort_values(along)
        drawn = style(kwargs, marker="o", color=colour, label=count(value))
        frame.ax.plot(mine[along], mine["share"], **drawn)
        if "share_low" in mine:
            frame.ax.vlines(mine[along], mine["share_low"], mine["share_high"], color=drawn["color"], linewidth=1.0)
        if len(near):
            ranges = near[near[other] == value]
            low, high = ranges["share_low"], ranges["share_high"]
            frame.ax.vlines(ranges[along], low, high, color=drawn["color"], linewidth=6.0, alpha=0.25)
    frame.counts("x", table[along])
    frame.percent()
    frame.label(f"budget ({best.budget_unit})" if along == "budget" else "N", "share of the store")
    frame.legend(other if other == "N" else "budget")
    return frame.ax


def threshold(found: Threshold, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the gain with its interval against what the threshold is in, one line per task, and the threshold.

    Parameters
    ----------
    found : Threshold
    ax : Axes, optional
    **kwargs
        To matplotlib, for the lines.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> found = rs.reading_threshold(rs.datasets.load("ragscale-gpu"), by="D")
    >>> rs.plotting.threshold(found).get_ylabel()
    'gain over random'
    """
    frame = Frame(ax)
    table: Any = found.table
    if table.empty:
        frame.label(found.by, "gain")
        return frame.empty("no model was measured under both conditions")
    if "gain" not in table:  # of a law: the threshold itself, against N
        (line,) = frame.ax.plot(table["N"], table["D"], **style(kwargs, marker="o"))
        frame.ax.fill_between(table["N"], table["D_low"], table["D_high"], color=line.get_color(), alpha=0.2)
        frame.counts("x", table["N"])
        frame.counts("y", table["D"])
        frame.label("N", "D from which models read (tokens)")
        return frame.ax
    for name, rows in table.groupby("task") if "task" in table else [("", table)]:
        _band(frame, rows, found.by, ("gain", "low", "high"), style(kwargs, marker="o", label=str(name)))
    frame.zero()
    if np.isfinite(found.joint):
        frame.mark(found.joint, label="all tasks read")
    frame.counts("x", table[found.by])
    frame.label(found.by, f"gain over {found.control or 'no store'}")
    frame.legend()
    return frame.ax


def compared_fits(found: FitComparison, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the difference of each pair with its interval against compute, and where they cross.

    Parameters
    ----------
    found : FitComparison
    ax : Axes, optional
    **kwargs
        To matplotlib, for the lines.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fits = {name: rs.fit_manifold(rs.datasets.simulate("hill", noise=0.01, rng=rng), "hill")
    ...         for name, rng in (("a", 0), ("b", 1))}
    >>> rs.compare_fits(fits, n_resamples=20).plot().get_xlabel()
    'compute (FLOPs)'
    """
    frame = Frame(ax)
    curve: Any = found.curve
    along = "compute" if "compute" in curve else "D"
    ends = ("difference", "difference_low", "difference_high")
    for (first, second), rows in curve.groupby(["first", "second"], sort=False):
        _band(frame, rows, along, ends, style(kwargs, label=f"{first} minus {second}"))
    for place in found.crossing["compute"].dropna():
        frame.mark(place)
    frame.zero()
    frame.counts("x", curve[along])
    frame.label(along, "difference of the metric")
    frame.legend()
    return frame.ax


def next_runs(found: NextRuns, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the chosen runs over N and D; the numbers say in which order they were chosen.

    Parameters
    ----------
    found : NextRuns
    ax : Axes, optional
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import pandas as pd
    >>> import ragscale as rs
    >>> table = rs.datasets.simulate("hill", noise=0.01, rng=0)[["N", "D", "R", "value"]]
    >>> pool = pd.DataFrame({"N": [1e8, 1e9], "D": [1e11, 1e11]})
    >>> rs.next_runs(table, pool, budget_flops=1e21, law="hill").plot().get_xlabel()
    'model size N (parameters)'
    """
    frame = Frame(ax)
    runs: Any = found.runs
    frame.label("N", "D")
    if runs.empty:
        return frame.empty("no candidate fits the budget and teaches anything")
    frame.ax.plot(runs["N"], runs["D"], **style(kwargs, linestyle="", marker="o"))
    for order, (n, d) in enumerate(zip(runs["N"], runs["D"], strict=True), start=1):
        frame.ax.annotate(str(order), (n, d), textcoords="offset points", xytext=(4, 4), fontsize="x-small")
    frame.counts("x", runs["N"])
    frame.counts("y", runs["D"])
    frame.ax.margins(0.1)
    frame.label("N", "D", f"{len(runs)} runs, {found.cost.sum():.2g} FLOPs")
    return frame.ax


def _band(frame: Frame, rows: Any, x: str, names: tuple[str, str, str], drawn: dict[str, Any]) -> None:
    """Draw a line with its interval as a band of the same colour."""
    value, low, high = names
    (line,) = frame.ax.plot(rows[x], rows[value], **drawn)
    frame.ax.fill_between(rows[x], rows[low], rows[high], color=line.get_color(), alpha=0.15, lw=0)
