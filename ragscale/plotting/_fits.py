"""Pictures of a fitted surface: how well it fits, what it says, and what follows for a budget.

Every function takes ``ax=None`` and returns the Axes it drew on; nothing is shown, saved or changed globally.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ragscale._extras import require
from ragscale.decisions import exchange_rate, optimal_allocation
from ragscale.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.fitting import Bootstrap, ManifoldFit, Profile

_LABELS = {
    "N": "model size N (parameters)",
    "D": "pretraining tokens D",
    "R": "store tokens R",
}


def parity(fit: ManifoldFit, *, ax: Axes | None = None) -> Axes:
    """Plot fitted against observed values, one colour for each N; the diagonal is a perfect fit.

    Parameters
    ----------
    fit : ManifoldFit
    ax : Axes, optional
        Drawn on a new figure by default.
    """
    ax = _axes(ax)
    observed, predicted, sizes = _observed(fit), fit.to_frame()["predicted"].to_numpy(), fit.data["N"]
    for size, colour in size_colours(sizes):
        rows = np.asarray(sizes == size)
        ax.plot(observed[rows], predicted[rows], "o", color=colour, ms=4, alpha=0.7, label=_count(size))
    low, high = min(observed.min(), predicted.min()), max(observed.max(), predicted.max())
    ax.plot([low, high], [low, high], "-", color="0.4", lw=1, zorder=0)
    ax.set(xlabel=f"observed {_metric(fit)}", ylabel=f"fitted {_metric(fit)}", title=f"Law {fit.law.name}")
    ax.legend(title="N", fontsize="small")
    return ax


def residuals(fit: ManifoldFit, *, against: str = "D", ax: Axes | None = None) -> Axes:
    """Plot relative residuals, in percent, against ``"N"``, ``"D"`` or ``"R"``; a trend is what the law misses.

    Parameters
    ----------
    fit : ManifoldFit
    against : {"N", "D", "R"}
        R = 0 is drawn at the left edge of the axis.
    ax : Axes, optional

    Raises
    ------
    ConfigError
        When ``against`` is another name.
    """
    if against not in _LABELS:
        raise ConfigError(f"residuals(against={against!r}): must be 'N', 'D' or 'R'")
    ax = _axes(ax)
    values = np.asarray(_store(fit) if against == "R" else fit.data[against], dtype=float)
    predicted = fit.to_frame()["predicted"].to_numpy()
    percent = 100 * (_observed(fit) / predicted - 1)
    for size, colour in size_colours(fit.data["N"]):
        rows = np.asarray(fit.data["N"] == size)
        ax.plot(values[rows], percent[rows], "o", color=colour, ms=4, alpha=0.7, label=_count(size))
    ax.axhline(0, color="0.4", lw=1, zorder=0)
    _log_axis(ax, values)
    ax.set(xlabel=_LABELS[against], ylabel="observed / fitted − 1 (%)")
    ax.legend(title="N", fontsize="small")
    return ax


def slices(
    fit: ManifoldFit | Bootstrap,
    *,
    along: str = "R",
    tokens_per_parameter: float | None = None,
    confidence_level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Plot the surface along one axis, a curve for each N, with the measured points and, for a bootstrap, bands.

    Parameters
    ----------
    fit : ManifoldFit or Bootstrap
    along : {"R", "D"}
        Along R, at the measured D nearest to ``tokens_per_parameter`` times N; along D, at R = 0 and at the largest
        measured R (dashed).
    tokens_per_parameter : float, optional
        By default the median of D/N.
    confidence_level : float
        Of the bands.
    ax : Axes, optional
    """
    if along not in {"R", "D"}:
        raise ConfigError(f"slices(along={along!r}): must be 'R' or 'D'")
    ax = _axes(ax)
    point, boot = _parts(fit)
    data, store = point.data, np.asarray(_store(point), dtype=float)
    ratio = float(np.median(data["D"] / data["N"])) if tokens_per_parameter is None else tokens_per_parameter
    observed = _observed(point)
    for size, colour in size_colours(data["N"]):
        of_size = np.asarray(data["N"] == size)
        tokens = np.asarray(data["D"], dtype=float)
        nearest = tokens[of_size][np.argmin(np.abs(np.log(tokens[of_size] / (ratio * size))))]
        lines: list[tuple[np.ndarray, np.ndarray, np.ndarray, str]] = []
        if along == "R":
            rows = of_size & (tokens == nearest)
            grid = _from_zero(store)
            lines.append((grid, np.full_like(grid, nearest), grid, "-"))
            ax.plot(
                store[rows], observed[rows], "o", color=colour, ms=4, label=f"{_count(size)}, D = {_count(nearest)}"
            )
        else:
            for level, style, marker in ((0.0, "-", "o"), (store[of_size].max(), "--", "s")):
                rows = of_size & (store == level)
                grid = np.geomspace(tokens[of_size].min(), tokens[of_size].max(), 80)
                lines.append((grid, grid, np.full_like(grid, level), style))
                label = f"{_count(size)}, R = {_count(level)}"
                ax.plot(tokens[rows], observed[rows], marker, color=colour, ms=4, label=label)
        for x, d, r, style in lines:
            ax.plot(x, point.predict(size, d, r), style, color=colour, lw=1.5)
            if boot is not None:
                low, high = np.quantile(
                    boot.predict(size, d, r), [(1 - confidence_level) / 2, (1 + confidence_level) / 2], axis=0
                )
                ax.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    _log_axis(ax, store if along == "R" else np.asarray(data["D"], dtype=float))
    ax.set(xlabel=_LABELS[along], ylabel=_metric(point))
    ax.legend(fontsize="x-small", ncols=2 if along == "D" else 1)
    return ax


def contours(
    fit: ManifoldFit,
    *,
    N: float,
    budgets: Sequence[float] | np.ndarray = (),
    D: tuple[float, float] | None = None,
    R: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot iso-loss lines over (D, R) for one N, with lines of equal budget D + R and the best split of each budget.

    Parameters
    ----------
    fit : ManifoldFit
    N : float
        Model size, parameters.
    budgets : sequence of float
        Budgets T in tokens, each drawn as the line D + R = T with its optimum; by default five within the plot.
    D, R : (low, high), optional
        Ranges in tokens; by default those of the data.
    ax : Axes, optional
    """
    ax = _axes(ax)
    tokens, store = np.asarray(fit.data["D"], dtype=float), np.asarray(_store(fit), dtype=float)
    positive = store[store > 0]
    d_range = D or (tokens.min(), tokens.max())
    r_range = R or (positive.min(), positive.max())
    d, r = np.geomspace(*d_range, 120), np.geomspace(*r_range, 120)
    surface = fit.predict(N, d[None, :], r[:, None])
    lines = ax.contour(d, r, surface, levels=14, cmap="viridis", linewidths=1)
    ax.clabel(lines, fontsize=7, fmt="%.3g")
    low, high = d_range[0] + r_range[0], d_range[1] + r_range[1]
    totals = np.asarray(budgets if len(budgets) else np.geomspace(low * 2, high / 1.5, 5), dtype=float)
    for total in totals:
        on_line = np.geomspace(d_range[0], min(d_range[1], total * (1 - 1e-6)), 300)
        ax.plot(on_line, total - on_line, ":", color="0.45", lw=1)
        ax.annotate(f"T = {_count(total)}", (on_line[0], total - on_line[0]), fontsize=7, color="0.35", va="bottom")
    curve = optimal_allocation(fit, N=N, budget=np.geomspace(totals.min(), totals.max(), 60))
    best = optimal_allocation(fit, N=N, budget=totals)
    ax.plot(curve.D, np.maximum(curve.R, r_range[0]), "-", color="crimson", lw=1.5)
    with_store = r_range[0] < best.R
    ax.plot(best.D[with_store], best.R[with_store], "o", color="crimson", ms=5, label="best split")
    if not with_store.all():
        corner = best.D[~with_store]
        ax.plot(corner, np.full(corner.shape, r_range[0]), "v", color="crimson", ms=7, clip_on=False, label="no store")
    ax.set(xscale="log", yscale="log", xlim=d_range, ylim=r_range, xlabel=_LABELS["D"], ylabel=_LABELS["R"])
    ax.set_title(f"{_metric(fit)} at N = {_count(N)}")
    ax.legend(fontsize="small", loc="upper left")
    return ax


def allocation(fit: ManifoldFit | Bootstrap, *, N: ArrayLike, budgets: ArrayLike, ax: Axes | None = None) -> Axes:
    """Plot the best share of the store, R / (D + R), against the budget, a curve for each N.

    Parameters
    ----------
    fit : ManifoldFit or Bootstrap
        A bootstrap adds bands.
    N : sequence of float
        Model sizes, parameters. Additive laws give the same curve for each.
    budgets : sequence of float
        Budgets T, tokens.
    ax : Axes, optional
    """
    ax = _axes(ax)
    totals = np.asarray(budgets, dtype=float)
    for size, colour in size_colours(np.asarray(N, dtype=float)):
        best = optimal_allocation(fit, N=size, budget=totals)
        ax.plot(totals, 100 * np.asarray(best.share), "-", color=colour, lw=1.6, label=_count(size))
        if best.replicates:
            low, high = best.interval("share")
            ax.fill_between(totals, 100 * np.asarray(low), 100 * np.asarray(high), color=colour, alpha=0.18, lw=0)
    ax.set(xscale="log", xlabel="budget T = D + R (tokens)", ylabel="best share of the store (%)", ylim=(-2, 102))
    ax.legend(title="N", fontsize="small")
    return ax


def exchange(fit: ManifoldFit, *, R: float, ax: Axes | None = None) -> Axes:
    """Plot the exchange rate against D/N: the pretraining tokens that one more store token replaces.

    Parameters
    ----------
    fit : ManifoldFit
    R : float
        Store size at which the rate is taken, tokens.
    ax : Axes, optional
    """
    ax = _axes(ax)
    for size, colour in size_colours(fit.data["N"]):
        tokens = np.asarray(fit.data.loc[fit.data["N"] == size, "D"], dtype=float)
        grid = np.geomspace(tokens.min(), tokens.max(), 80)
        ax.plot(grid / size, exchange_rate(fit, N=size, D=grid, R=R).value, color=colour, lw=1.6, label=_count(size))
    ax.axhline(1, color="0.4", lw=1, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="D / N (tokens per parameter)")
    ax.set_ylabel(f"exchange rate at R = {_count(R)}\n(pretraining tokens per store token)")
    ax.legend(title="N", fontsize="small")
    return ax


def profile(profiled: Profile, *, ax: Axes | None = None) -> Axes:
    """Plot a profile: the best objective for given values of one parameter, with its interval.

    Parameters
    ----------
    profiled : Profile
        From `ragscale.fitting.profile`.
    ax : Axes, optional
    """
    ax = _axes(ax)
    ax.plot(profiled.curve["value"], profiled.curve["objective"], ".-", color="tab:blue")
    ax.axvline(profiled.value, color="0.3", lw=1)
    ax.axvspan(profiled.low, profiled.high, color="tab:blue", alpha=0.12, lw=0)
    ax.axhline(profiled.threshold, color="0.3", lw=1, ls=":")
    level = 100 * profiled.confidence_level
    ax.set(xlabel=profiled.name, ylabel="objective", title=f"{profiled.name}, {level:g} % interval shaded")
    return ax


def surface(fit: ManifoldFit, *, N: float, n_points: int = 40) -> Any:
    """Return an interactive 3-D surface of the fit over (D, R) for one N, with the points measured at that N.

    Parameters
    ----------
    fit : ManifoldFit
    N : float
        Model size, parameters.
    n_points : int
        Points of the grid along each axis.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    go = require("plotly.graph_objects", "plot")
    tokens, store = np.asarray(fit.data["D"], dtype=float), np.asarray(_store(fit), dtype=float)
    d, r = np.geomspace(tokens.min(), tokens.max(), n_points), np.linspace(0, store.max(), n_points)
    rows = np.asarray(fit.data["N"] == N)
    figure = go.Figure(
        [
            go.Surface(
                x=d, y=r, z=fit.predict(N, d[None, :], r[:, None]), opacity=0.8, colorbar={"title": _metric(fit)}
            ),
            go.Scatter3d(x=tokens[rows], y=store[rows], z=_observed(fit)[rows], mode="markers", marker={"size": 3}),
        ]
    )
    figure.update_layout(
        title=f"N = {_count(N)}",
        showlegend=False,
        scene={
            "xaxis": {"title": _LABELS["D"], "type": "log"},
            "yaxis": {"title": _LABELS["R"]},
            "zaxis": {"title": _metric(fit)},
        },
    )
    return figure


def _parts(fit: ManifoldFit | Bootstrap) -> tuple[ManifoldFit, Bootstrap | None]:
    """Return the fit, and the bootstrap where one was given."""
    return (fit.fit, fit) if hasattr(fit, "fit") else (fit, None)  # type: ignore[union-attr, return-value]


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    return require("matplotlib.pyplot", "plot").subplots(figsize=(6.4, 4.4), layout="constrained")[1]


def size_colours(sizes: Any) -> list[tuple[float, Any]]:
    """Pair every distinct size, ascending, with a colour from dark (small) to light (large).

    Parameters
    ----------
    sizes : array-like
        Model sizes, repeated or not.

    Returns
    -------
    list of (float, RGBA)
    """
    unique = np.unique(np.asarray(sizes, dtype=float))
    palette = require("matplotlib", "plot").colormaps["viridis"](np.linspace(0, 0.85, len(unique)))
    return list(zip(unique, palette, strict=True))


def _observed(fit: ManifoldFit) -> np.ndarray:
    return np.asarray(fit.data["value"], dtype=float)


def _store(fit: ManifoldFit) -> Any:
    return fit.data["R"] if "R" in fit.data else np.zeros(len(fit.data))


def _metric(fit: ManifoldFit) -> str:
    names = fit.data["metric"].unique() if "metric" in fit.data else []
    return str(names[0]) if len(names) == 1 else "loss"


def _count(value: float) -> str:
    """Write a count for people: 30M, 1.2B."""
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def _from_zero(values: np.ndarray) -> np.ndarray:
    """Return 0 and then a log grid over the positive values."""
    positive = values[values > 0]
    return np.array([0.0]) if positive.size == 0 else np.r_[0.0, np.geomspace(positive.min() / 10, positive.max(), 80)]


def _log_axis(ax: Axes, values: np.ndarray) -> None:
    """Use a log axis that has room for zero when some value is zero."""
    positive = values[values > 0]
    if positive.size and (values == 0).any():
        ax.set_xscale("symlog", linthresh=float(positive.min()) / 2)
        ax.set_xlim(left=-float(positive.min()) / 10)
    elif positive.size:
        ax.set_xscale("log")
