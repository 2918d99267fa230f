"""Pictures of what a surface says about a budget: contours with the best splits, shares, exchange rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ragscale.decisions import exchange_rate, optimal_allocation
from ragscale.plotting._fits import parts_of, store_of
from ragscale.plotting._frame import Frame, count, metric_label, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.fitting import Bootstrap, ManifoldFit

_INSIDE = 0.03  # of an axis: how far from its edge a marker of "no store" stands


def contours(
    fit: ManifoldFit | Bootstrap,
    ax: Axes | None = None,
    *,
    N: float,
    budgets: Sequence[float] | np.ndarray = (),
    D: tuple[float, float] | None = None,
    R: tuple[float, float] | None = None,
    **kwargs: object,
) -> Axes:
    """Plot iso-loss lines over (D, R) for one N, with lines of equal budget D + R and the best split of each budget.

    Parameters
    ----------
    fit : ManifoldFit or Bootstrap
    ax : Axes, optional
    N : float
        Model size, parameters.
    budgets : sequence of float
        Budgets T in tokens, each drawn as the dotted line D + R = T with its optimum; by default five within the plot.
    D, R : (low, high), optional
        Ranges in tokens; by default those of the data.
    **kwargs
        To ``Axes.contour``: ``levels``, ``cmap``, ``linewidths``.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")
    >>> rs.plotting.contours(fit, N=1e9, levels=8).get_xlabel()
    'pretraining D (tokens)'
    """
    frame, point = Frame(ax), parts_of(fit)[0]
    ax = frame.ax
    tokens, store = np.asarray(point.data["D"], dtype=float), np.asarray(store_of(point), dtype=float)
    positive = store[store > 0]
    frame.label("D", "R", f"{metric_label(point.data)} at N = {count(N)}")
    if R is None and np.unique(positive).size < 2:
        return frame.empty("fewer than two store sizes were measured:\ngive R=(low, high) to draw beyond them")
    d_range, r_range = D or (tokens.min(), tokens.max()), R or (positive.min(), positive.max())
    frame.counts("x", d_range)
    frame.counts("y", r_range)
    ax.set(xlim=d_range, ylim=r_range)
    shades = {} if "colors" in kwargs else {"cmap": frame.shades()}
    drawn: dict[str, Any] = {"levels": 14, "linewidths": 1, **shades, **kwargs}
    d, r = np.geomspace(*d_range, 120), np.geomspace(*r_range, 120)
    lines = ax.contour(d, r, point.predict(N, d[None, :], r[:, None]), **drawn)
    ax.clabel(lines, fontsize="x-small", fmt="%.3g")
    low, high = d_range[0] + r_range[0], d_range[1] + r_range[1]
    totals = np.asarray(budgets if len(budgets) else np.geomspace(low * 2, high / 1.5, 5), dtype=float)
    for total in totals:
        on_line = np.geomspace(d_range[0], min(d_range[1], total * (1 - 1e-6)), 300)
        ax.plot(on_line, total - on_line, ":", color=frame.muted, lw=1)
        seen = on_line[(total - on_line <= r_range[1]) & (total - on_line >= r_range[0])]
        if seen.size:
            at = (seen[0], total - seen[0])
            ax.annotate(
                f"T = {count(total)}",
                at,
                xytext=(3, -3),
                textcoords="offset points",
                fontsize="x-small",
                color=frame.muted,
                va="top",
                clip_on=True,
            )
    _best_splits(frame, point, N, totals, r_range)
    frame.legend()
    return ax


def _best_splits(frame: Frame, fit: Any, N: float, totals: np.ndarray, r_range: tuple[float, float]) -> None:
    """Draw the best split of each budget; one without a store stands just inside the lower edge."""
    ax = frame.ax
    curve = optimal_allocation(fit, N=N, budget=np.geomspace(totals.min(), totals.max(), 60))
    best = optimal_allocation(fit, N=N, budget=totals)
    edge = r_range[0] * (r_range[1] / r_range[0]) ** _INSIDE
    red = "tab:red"
    ax.plot(curve.D, np.maximum(curve.R, r_range[0]), "-", color=red, lw=1.5)
    best_D, best_R = np.asarray(best.D), np.asarray(best.R)
    with_store = r_range[0] < best_R
    if with_store.any():
        ax.plot(best_D[with_store], best_R[with_store], "o", color=red, ms=5, label="best split")
    if not with_store.all():
        corner = best_D[~with_store]
        ax.plot(corner, np.full(corner.shape, edge), "v", color=red, ms=7, label="best: no store")


def allocation(
    fit: ManifoldFit | Bootstrap, ax: Axes | None = None, *, N: ArrayLike, budgets: ArrayLike, **kwargs: object
) -> Axes:
    """Plot the best share of the store, R / (D + R), against the budget, a curve for each N.

    Parameters
    ----------
    fit : ManifoldFit or Bootstrap
        A bootstrap adds bands.
    ax : Axes, optional
    N : sequence of float
        Model sizes, parameters. Additive laws give the same curve for each.
    budgets : sequence of float
        Budgets T, tokens.
    **kwargs
        To matplotlib, for the curves.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")
    >>> rs.plotting.allocation(fit, N=1e9, budgets=[1e9, 1e10]).get_ylabel()
    'best share of the store (%)'
    """
    frame, totals = Frame(ax), np.asarray(budgets, dtype=float)
    for size, colour in frame.colours(np.asarray(N, dtype=float)):
        best = optimal_allocation(fit, N=size, budget=totals)
        drawn = style(kwargs, linestyle="-", color=colour, linewidth=1.6, label=count(size))
        frame.ax.plot(totals, 100 * np.asarray(best.share), **drawn)
        if best.replicates:
            low, high = best.interval("share")
            ends = (100 * np.asarray(low), 100 * np.asarray(high))
            frame.ax.fill_between(totals, *ends, color=drawn["color"], alpha=0.18, lw=0)
    frame.counts("x", totals)
    frame.ax.set_ylim(-2, 102)
    frame.label("budget", "best share of the store (%)")
    frame.legend("N")
    return frame.ax


def exchange(fit: ManifoldFit | Bootstrap, ax: Axes | None = None, *, R: float, **kwargs: object) -> Axes:
    """Plot the exchange rate against D/N: the pretraining tokens that one more store token replaces.

    Parameters
    ----------
    fit : ManifoldFit or Bootstrap
    ax : Axes, optional
    R : float
        Store size at which the rate is taken, tokens.
    **kwargs
        To matplotlib, for the curves.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")
    >>> rs.plotting.exchange(fit, R=1e9).get_xlabel()
    'pretraining D/N (tokens per parameter)'
    """
    frame, point = Frame(ax), parts_of(fit)[0]
    ax, data = frame.ax, point.data
    rates = []
    for size, colour in frame.colours(data["N"]):
        tokens = np.asarray(data.loc[data["N"] == size, "D"], dtype=float)
        grid = np.geomspace(tokens.min(), tokens.max(), 80)
        rate = np.asarray(exchange_rate(point, N=size, D=grid, R=R).value)
        rates.append(rate)
        ax.plot(grid / size, rate, **style(kwargs, color=colour, linewidth=1.6, label=count(size)))
    frame.label("D_over_N", f"exchange rate at R = {count(R)}\n(pretraining tokens per store token)")
    if not (np.concatenate(rates) > 0).any():
        return frame.empty("no store token replaces a pretraining token under this law")
    ax.axhline(1, color=frame.muted, lw=1, ls=":", label="one for one")
    frame.counts("x", data["D"] / data["N"])
    ax.set_yscale("log")
    frame.legend("N")
    return ax
