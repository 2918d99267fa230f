"""Pictures of a fitted surface: how well it fits, and what it says along one axis.

Every function takes ``ax=None`` and returns the Axes it drew on; nothing is shown, saved or changed globally.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._extras import require
from ragscale.errors import ConfigError
from ragscale.fitting._conditions import GOLD, RANDOM, conditions
from ragscale.plotting._frame import LABELS, Frame, count, from_zero, metric_label, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.fitting import Bootstrap, JointBootstrap, JointFit, ManifoldFit, Profile


def parity(fit: ManifoldFit | Bootstrap | JointFit | JointBootstrap, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Plot fitted against observed values, one colour for each N; the diagonal is a perfect fit.

    Parameters
    ----------
    fit : ManifoldFit, Bootstrap, JointFit or JointBootstrap
        A joint fit has one colour for each of its groups.
    ax : Axes, optional
        Drawn on a new figure by default.
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")
    >>> rs.plotting.parity(fit, markersize=3).get_xlabel()
    'observed loss'
    """
    frame, point = Frame(ax), parts_of(fit)[0]
    ax, groups = frame.ax, getattr(point, "fits", None)
    points = {"linestyle": "", "marker": "o", "markersize": 4, "alpha": 0.7}
    ends: list[float] = []
    for name, observed, predicted, colour in _groups(frame, point):
        ax.plot(observed, predicted, **style(kwargs, **points, color=colour, label=name))
        ends += [*observed, *predicted]
    ax.plot([min(ends), max(ends)], [min(ends), max(ends)], "-", color=frame.muted, linewidth=1, zorder=0)
    one = next(iter(groups.values())) if groups else point
    words = metric_label(one.data)
    law = one.law.name if hasattr(one, "law") else ""
    frame.label(f"observed {words}", f"fitted {words}", f"law {law}")
    frame.legend("N" if groups is None else point.over)
    return ax


def _groups(frame: Frame, point: Any) -> Any:
    """Yield the name, the observed and predicted values, and the colour of each size, or of each group."""
    if hasattr(point, "fits"):
        for i, (name, fit) in enumerate(point.fits.items()):
            yield name, _observed(fit), fit.to_frame()["predicted"].to_numpy(), f"C{i}"
        return
    observed, predicted, sizes = _observed(point), point.to_frame()["predicted"].to_numpy(), point.data["N"]
    for size, colour in frame.colours(sizes):
        rows = np.asarray(sizes == size)
        yield count(size), observed[rows], predicted[rows], colour


def residuals(fit: ManifoldFit | Bootstrap, ax: Axes | None = None, *, against: str = "D", **kwargs: object) -> Axes:
    """Plot relative residuals, in percent, against ``"N"``, ``"D"`` or ``"R"``; a trend is what the law misses.

    Parameters
    ----------
    fit : ManifoldFit or Bootstrap
    ax : Axes, optional
    against : {"N", "D", "R"}
        R = 0 is drawn at the left edge of the axis.
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        When ``against`` is another name.

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")
    >>> rs.plotting.residuals(fit, against="R").get_xlabel()
    'store R (tokens)'
    """
    if against not in {"N", "D", "R"}:
        raise ConfigError(f"residuals(against={against!r}): must be 'N', 'D' or 'R'")
    frame, point = Frame(ax), parts_of(fit)[0]
    values = np.asarray(store_of(point) if against == "R" else point.data[against], dtype=float)
    percent = 100 * (_observed(point) / point.to_frame()["predicted"].to_numpy() - 1)
    points = {"linestyle": "", "marker": "o", "markersize": 4, "alpha": 0.7}
    for size, colour in frame.colours(point.data["N"]):
        rows = np.asarray(point.data["N"] == size)
        frame.ax.plot(values[rows], percent[rows], **style(kwargs, **points, color=colour, label=count(size)))
    frame.zero()
    frame.counts("x", values)
    frame.label(against, "observed / fitted − 1 (%)")
    frame.legend("N")
    return frame.ax


def slices(
    fit: ManifoldFit | Bootstrap,
    ax: Axes | None = None,
    *,
    along: str = "R",
    tokens_per_parameter: float | None = None,
    confidence_level: float = 0.95,
    **kwargs: object,
) -> Axes:
    """Plot the surface along one axis, a curve for each N, with the measured points and, for a bootstrap, bands.

    Points are cells of a store: passages that were chosen with the answer, or at random, are none.

    Parameters
    ----------
    fit : ManifoldFit or Bootstrap
    ax : Axes, optional
    along : {"R", "D"}
        Along R, at the measured D nearest to ``tokens_per_parameter`` times N; along D, at R = 0 (solid) and at the
        largest measured R (dashed).
    tokens_per_parameter : float, optional
        By default the median of D/N.
    confidence_level : float
        Of the bands.
    **kwargs
        To matplotlib, for the curves.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")
    >>> rs.plotting.slices(fit, along="D").get_ylabel()
    'loss'
    """
    if along not in {"R", "D"}:
        raise ConfigError(f"slices(along={along!r}): must be 'R' or 'D'")
    frame, (point, boot) = Frame(ax), parts_of(fit)
    ax, data = frame.ax, point.data
    store, tokens, observed = np.asarray(store_of(point), float), np.asarray(data["D"], float), _observed(point)
    ratio = float(np.median(data["D"] / data["N"])) if tokens_per_parameter is None else tokens_per_parameter
    shown = ~np.isin(conditions(data), [GOLD, RANDOM]) if "R" in data else np.ones(len(data), bool)
    for size, colour in frame.colours(data["N"]):
        of_size = np.asarray(data["N"] == size)
        nearest = tokens[of_size][np.argmin(np.abs(np.log(tokens[of_size] / (ratio * size))))]
        lines: list[tuple[np.ndarray, np.ndarray, np.ndarray, str]] = []
        if along == "R":
            rows, grid = of_size & shown & (tokens == nearest), from_zero(store)
            lines.append((grid, np.full_like(grid, nearest), grid, "-"))
            ax.plot(store[rows], observed[rows], "o", color=colour, ms=4, label=f"{count(size)}, D = {count(nearest)}")
        else:
            for level, line, marker in ((0.0, "-", "o"), (store[of_size].max(), "--", "s")):
                rows, grid = (
                    of_size & shown & (store == level),
                    np.geomspace(tokens[of_size].min(), tokens[of_size].max(), 80),
                )
                lines.append((grid, grid, np.full_like(grid, level), line))
                name = count(size) if line == "-" else None
                ax.plot(tokens[rows], observed[rows], marker, color=colour, ms=4, label=name)
        for x, d, r, line in lines:
            drawn = style(kwargs, color=colour, linewidth=1.5, linestyle=line)
            ax.plot(x, point.predict(size, d, r), **drawn)
            if boot is not None:
                tail = (1 - confidence_level) / 2
                ends = np.quantile(boot.predict(size, d, r), [tail, 1 - tail], axis=0)
                low, high = np.clip(ends, point.lowest, point.highest)  # no metric goes beyond
                ax.fill_between(x, low, high, color=drawn["color"], alpha=0.18, lw=0)
    frame.counts("x", store if along == "R" else tokens)
    frame.label(along, metric_label(data))
    if along == "D" and (store > 0).any():
        for text, line, marker in (("no store", "-", "o"), ("largest store", "--", "s")):
            ax.plot([], [], linestyle=line, marker=marker, color=frame.muted, ms=4, label=text)
    frame.legend("N")
    return ax


def profile(profiled: Profile, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Plot a profile: the best objective for given values of one parameter, with its interval.

    Parameters
    ----------
    profiled : Profile
        From `ragscale.fitting.profile`.
    ax : Axes, optional
    **kwargs
        To matplotlib, for the curve.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")
    >>> rs.plotting.profile(rs.fitting.profile(fit, "alpha", n_points=5)).get_xlabel()
    'alpha'
    """
    frame = Frame(ax)
    ax, curve = frame.ax, profiled.curve
    (line,) = ax.plot(curve["value"], curve["objective"], **style(kwargs, marker=".", color="C0"))
    ax.axvline(profiled.value, color=frame.ink, lw=1)
    ax.axvspan(profiled.low, profiled.high, color=line.get_color(), alpha=0.12, lw=0)
    ax.axhline(profiled.threshold, color=frame.muted, lw=1, ls=":")
    level = 100 * profiled.confidence_level
    frame.label(profiled.name, "objective (sum over rows)", f"{profiled.name}, {level:g} % interval shaded")
    return ax


def surface(fit: ManifoldFit | Bootstrap, *, N: float, n_points: int = 40) -> Any:
    """Return an interactive 3-D surface of the fit over (D, R) for one N, with the points measured at that N.

    Parameters
    ----------
    fit : ManifoldFit or Bootstrap
    N : float
        Model size, parameters.
    n_points : int
        Points of the grid along each axis.

    Returns
    -------
    plotly.graph_objects.Figure

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")
    >>> len(rs.plotting.surface(fit, N=1e9, n_points=5).data)
    2
    """
    go = require("plotly.graph_objects", "plot")
    point = parts_of(fit)[0]
    tokens, store = np.asarray(point.data["D"], dtype=float), np.asarray(store_of(point), dtype=float)
    d, r = np.geomspace(tokens.min(), tokens.max(), n_points), np.linspace(0, store.max(), n_points)
    rows, words = np.asarray(point.data["N"] == N), metric_label(point.data)
    predicted = point.predict(N, d[None, :], r[:, None])
    figure = go.Figure(
        [
            go.Surface(x=d, y=r, z=predicted, opacity=0.8, colorbar={"title": words}),
            go.Scatter3d(x=tokens[rows], y=store[rows], z=_observed(point)[rows], mode="markers", marker={"size": 3}),
        ]
    )
    figure.update_layout(
        title=f"N = {count(N)}",
        showlegend=False,
        scene={
            "xaxis": {"title": LABELS["D"], "type": "log"},
            "yaxis": {"title": LABELS["R"]},
            "zaxis": {"title": words},
        },
    )
    return figure


def parts_of(fit: Any) -> tuple[Any, Any]:
    """Return the fit, and the bootstrap where one was given."""
    return (fit.fit, fit) if hasattr(fit, "fit") else (fit, None)


def _observed(fit: Any) -> np.ndarray:
    return np.asarray(fit.data["value"], dtype=float)


def store_of(fit: Any) -> Any:
    return fit.data["R"] if "R" in fit.data else np.zeros(len(fit.data))
