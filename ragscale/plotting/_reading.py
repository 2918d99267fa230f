"""Pictures of reading: h(R), and the surface with the threshold at which models begin to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError
from ragscale.plotting._frame import Frame, count, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.fitting import ManifoldFit
    from ragscale.results import HitRateCurve


def plot_hit_rate(curve: HitRateCurve, ax: Axes | None = None, *, draws: int = 100, **kwargs: object) -> Axes:
    """Plot h(R) with the rates that were measured, and the band of its draws.

    Parameters
    ----------
    curve : HitRateCurve
    ax : Axes, optional
        Drawn on a new figure by default.
    draws : int
        Draws behind the 95 % band; 0 for none.
    **kwargs
        To matplotlib, for the curve.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> rs.results.hit_rate_curve({1e6: 0.1, 1e8: 0.5}, n_questions=400).plot().get_ylabel()
    'hit rate h'
    """
    frame = Frame(ax)
    ax = frame.ax
    r = np.geomspace(curve.R[0] / 3, 3 * curve.R[-1], 300)
    (line,) = ax.plot(r, curve(r), **style(kwargs, color="C0", linewidth=1.6, label=f"h(R), {curve.kind}"))
    if draws and np.isfinite(curve.n_questions).any():
        low, high = np.quantile(curve.draws(draws, 0)(r), [0.025, 0.975], axis=0)
        ax.fill_between(r, low, high, color=line.get_color(), alpha=0.15, lw=0, label="95 % of its draws")
    ax.plot(curve.R, curve.observed, "o", color=frame.ink, ms=4, label="measured")
    ax.axvspan(curve.R[-1], r[-1], color="0.5", alpha=0.08, lw=0, label="not measured")
    frame.counts("x", r)
    ax.set(xlim=(r[0], r[-1]), ylim=(0, None))
    frame.label("R", "hit rate h")
    frame.legend()
    return ax


def reading(
    fit: ManifoldFit, ax: Axes | None = None, *, N: ArrayLike | None = None, R: float | None = None, **kwargs: object
) -> Axes:
    """Plot the gain of a store, and of gold passages, over D: where models begin to read.

    Parameters
    ----------
    fit : ManifoldFit
        Of the law ``reading``.
    ax : Axes, optional
        Drawn on a new figure by default.
    N : array-like, optional
        Sizes, one colour each; by default those of the table.
    R : float, optional
        Store in tokens; by default the largest that was measured. Gold passages are the thin lines.
    **kwargs
        To matplotlib, for the thick lines.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        When the law has no threshold.
    """
    if not hasattr(fit.law, "threshold"):
        raise ConfigError(f"reading(): the law {fit.law.name!r} has no threshold; fit law='reading'")
    frame = Frame(ax)
    ax = frame.ax
    data, law = cast(Any, fit.data), cast(Any, fit.law)
    sizes = np.unique(data["N"].to_numpy(float)) if N is None else np.atleast_1d(np.asarray(N, dtype=float))
    store = float(data["R"].max()) if R is None else float(R)
    d = np.geomspace(data["D"].min(), data["D"].max(), 200)
    gold = data[data["hit_rate"] == 1.0]
    for size, colour in frame.colours(sizes):
        with_store = fit.latent(size, d, 0.0, hit_rate=0.0) - fit.latent(size, d, store)
        with_gold = fit.latent(size, d, 0.0, hit_rate=0.0) - fit.latent(size, d, 0.0, hit_rate=1.0)
        ax.plot(d, with_store, **style(kwargs, color=colour, linewidth=1.8, label=count(size)))
        ax.plot(d, with_gold, color=colour, lw=0.8)
        start = float(law.threshold(fit.theta, np.array(size)))
        ax.axvline(start, color=colour, lw=0.8, ls=":")
        _gold_points(ax, fit, gold[gold["N"] == size], colour)
    frame.zero()
    frame.counts("x", d)
    ax.set_xlim(d[0], d[-1])
    title = f"thick: a store of {count(store)} tokens, thin: gold passages,\ndotted: half of them is realised"
    frame.label("D", "gain by passages (latent loss)")
    ax.set_title(title, fontsize="medium")
    frame.legend("N")
    return ax


def _gold_points(ax: Axes, fit: ManifoldFit, rows: Any, colour: Any) -> None:
    """Draw the measured gain of gold passages, each against its own model's closed book."""
    data: Any = fit.data
    closed = data[(data["R"] == 0) & (data["hit_rate"] == 0.0)]
    for n, d, value in rows[["N", "D", "value"]].to_numpy(float):
        mine = closed[(closed["N"] == n) & (closed["D"] == d)]["value"]
        if len(mine):
            gain = fit.link.latent(np.array([float(mine.mean())])) - fit.link.latent(np.array([value]))
            ax.plot([d], gain, "o", color=colour, ms=4)
