"""Pictures of decisions: splits with their near-optimal ranges, thresholds, compared procedures, chosen runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale.plotting._fits import _axes, size_colours

if TYPE_CHECKING:
    from ragscale.decisions import Allocation, FitComparison, NextRuns, Threshold

_UNITS = {"N": "parameters N", "D": "pretraining tokens D", "D_over_N": "tokens per parameter D/N", "steps": "steps"}


def splits(best: Allocation, ax: Any = None, **kwargs: Any) -> Any:
    """Draw the best store share of each budget, its interval as a bar and near-optimal ranges as a band.

    Parameters
    ----------
    best : Allocation
    ax : matplotlib axes, optional
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    matplotlib axes
    """
    ax = _axes(ax)
    frame: Any = best.to_frame()
    along = "budget" if frame["budget"].nunique() >= frame["N"].nunique() else "N"
    other = "N" if along == "budget" else "budget"
    near: Any = best.near_optimal
    for value, colour in size_colours(frame[other]):
        mine = frame[frame[other] == value].sort_values(along)
        ax.plot(mine[along], mine["share"], **{"marker": "o", "color": colour, "label": f"{value:.3g}", **kwargs})
        if "share_low" in mine:
            ax.vlines(mine[along], mine["share_low"], mine["share_high"], color=colour, linewidth=1.0)
        if len(near):
            ranges = near[near[other] == value]
            ax.vlines(ranges[along], ranges["share_low"], ranges["share_high"], color=colour, linewidth=6.0, alpha=0.25)
    ax.set(xscale="log", ylim=(-0.03, 1.03), ylabel="share of the store")
    ax.set_xlabel(f"budget ({best.budget_unit})" if along == "budget" else "parameters N")
    ax.legend(title=other, fontsize="small")
    return ax


def threshold(found: Threshold, ax: Any = None, **kwargs: Any) -> Any:
    """Draw the gain with its interval against what the threshold is in, one line per task, and the threshold.

    Parameters
    ----------
    found : Threshold
    ax : matplotlib axes, optional
    **kwargs
        To matplotlib, for the lines.

    Returns
    -------
    matplotlib axes
    """
    ax = _axes(ax)
    table: Any = found.table
    if "gain" not in table:  # of a law: the threshold itself, against N
        ax.plot(table["N"], table["D"], **{"marker": "o", **kwargs})
        ax.fill_between(table["N"], table["D_low"], table["D_high"], alpha=0.2)
        ax.set(xscale="log", yscale="log", xlabel=_UNITS["N"], ylabel="D from which models read")
        return ax
    groups = table.groupby("task") if "task" in table else [("", table)]
    for name, rows in groups:
        (line,) = ax.plot(rows[found.by], rows["gain"], **{"marker": "o", "label": str(name), **kwargs})
        ax.fill_between(rows[found.by], rows["low"], rows["high"], color=line.get_color(), alpha=0.15)
    ax.axhline(0.0, color="0.5", linewidth=0.8)
    if np.isfinite(found.joint):
        ax.axvline(found.joint, color="0.5", linewidth=0.8, linestyle="--")
    ax.set(xscale="log", xlabel=_UNITS[found.by], ylabel=f"gain over {found.control or 'no store'}")
    if "task" in table:
        ax.legend(fontsize="small")
    return ax


def compared_fits(found: FitComparison, ax: Any = None, **kwargs: Any) -> Any:
    """Draw the difference of each pair with its interval against compute, and where they cross.

    Parameters
    ----------
    found : FitComparison
    ax : matplotlib axes, optional
    **kwargs
        To matplotlib, for the lines.

    Returns
    -------
    matplotlib axes
    """
    ax = _axes(ax)
    curve: Any = found.curve
    along = "compute" if "compute" in curve else "D"
    for (first, second), rows in curve.groupby(["first", "second"], sort=False):
        (line,) = ax.plot(rows[along], rows["difference"], **{"label": f"{first} minus {second}", **kwargs})
        ax.fill_between(rows[along], rows["difference_low"], rows["difference_high"], color=line.get_color(), alpha=0.2)
    for place in found.crossing["compute"].dropna():
        ax.axvline(place, color="0.5", linewidth=0.8, linestyle="--")
    ax.axhline(0.0, color="0.5", linewidth=0.8)
    ax.set(xscale="log", ylabel="difference of the metric")
    ax.set_xlabel("compute (FLOPs)" if along == "compute" else _UNITS["D"])
    ax.legend(fontsize="small")
    return ax


def next_runs(found: NextRuns, ax: Any = None, **kwargs: Any) -> Any:
    """Draw the chosen runs over N and D; the numbers say in which order they were chosen.

    Parameters
    ----------
    found : NextRuns
    ax : matplotlib axes, optional
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    matplotlib axes
    """
    ax = _axes(ax)
    runs: Any = found.runs
    ax.scatter(runs["N"], runs["D"], **kwargs)
    for order, (n, d) in enumerate(zip(runs["N"], runs["D"], strict=True), start=1):
        ax.annotate(str(order), (n, d), textcoords="offset points", xytext=(4, 4), fontsize="x-small")
    ax.set(xscale="log", yscale="log", xlabel=_UNITS["N"], ylabel=_UNITS["D"])
    ax.set_title(f"{len(runs)} runs, {found.cost.sum():.2g} FLOPs" if len(runs) else "no run fits the budget")
    return ax
