"""Pictures of comparisons and checks: laws, folds, backtests, parameters, what passages do without any law."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale.plotting._frame import Frame, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.fitting import Bootstrap, Calibration, Comparison, CrossValidation, Evidence, JointBootstrap

_WORST = 60.0  # differences of the criterion beyond this are drawn at the edge: the weight is 1e-13


def comparison(found: Comparison, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw how much worse than the best each law is; filled points are laws that the data cannot tell apart.

    Parameters
    ----------
    found : Comparison
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
    >>> found = rs.compare_laws(table, ["log1p", "hill"])
    >>> rs.plotting.comparison(found).get_yticklabels()[0].get_text() == found.best
    True
    """
    frame = Frame(ax)
    table: Any = found.table[found.table["delta_aicc"].notna()]
    frame.label("AICc above the best law (points; lower is better)", "")
    if table.empty:
        return frame.empty("no law could be fitted to this table")
    worse = np.minimum(table["delta_aicc"].to_numpy(float), _WORST)
    tied, rows = table["tied"].to_numpy(bool), np.arange(len(table))
    for group, face, name in ((tied, None, "cannot be told from the best"), (~tied, "none", "worse")):
        if group.any():
            drawn = style(kwargs, linestyle="", marker="o", color="C0", label=name)
            drawn |= {"markerfacecolor": face} if face else {}
            frame.ax.plot(worse[group], rows[group], **drawn)
    for row, weight in zip(rows, table["weight"].to_numpy(float), strict=True):
        if weight >= 0.01:
            at, shift = (worse[row], row), (6, 4)
            frame.ax.annotate(f"weight {weight:.2f}", at, xytext=shift, textcoords="offset points", fontsize="x-small")
    frame.mark(2.0)
    frame.ax.set_yticks(rows, labels=[str(name) for name in table.index])
    frame.ax.invert_yaxis()
    frame.ax.margins(0.08)
    frame.legend()
    return frame.ax


def cross_validation(found: CrossValidation, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the error of each fold that was left out as a bar, and its bias as a point.

    Parameters
    ----------
    found : CrossValidation
    ax : Axes, optional
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> found = rs.cross_validate(rs.datasets.simulate("hill", noise=0.01, rng=0), "hill", leave_out="N")
    >>> rs.plotting.cross_validation(found).get_xlabel()
    'left out: N'
    """
    frame, table = Frame(ax), found.table
    scale, unit = (100.0, "%") if found.space == "log" else (1.0, "units of the metric")
    rows = np.arange(len(table))
    drawn = style(kwargs, linestyle="", marker="o", color=frame.ink, markersize=4, label="bias (signed)")
    frame.ax.bar(rows, scale * table["error"].to_numpy(float), color="C0", alpha=0.5, label="error (absolute)")
    frame.ax.plot(rows, scale * table["bias"].to_numpy(float), **drawn)
    names = [f"{fold:.3g}" if isinstance(fold, (int, float)) else str(fold) for fold in table["fold"].tolist()]
    frame.ax.set_xticks(rows, labels=names, rotation=45 if max(map(len, names)) * len(names) > 48 else 0)
    frame.zero()
    frame.label(f"left out: {found.leave_out}", f"error of prediction ({unit})", f"law {found.law}")
    frame.legend()
    return frame.ax


def calibration(found: Calibration, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the share of larger runs that prediction intervals held, by the rows that the law was fitted to.

    Parameters
    ----------
    found : Calibration
    ax : Axes, optional
    **kwargs
        To matplotlib, for the line.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("hill", noise=0.01, rng=0), "hill")
    >>> rs.fitting.backtest(fit, n_resamples=20).plot().get_xlabel()
    'rows of least compute that were fitted'
    """
    frame, table = Frame(ax), found.origins
    frame.ax.plot(table["n_train"], table["coverage"], **style(kwargs, marker="o", color="C0"))
    frame.zero(found.coverage)
    frame.percent()
    frame.label(
        "rows of least compute that were fitted",
        "later rows inside their interval",
        f"intervals must be {found.factor:.3g} times as wide",
    )
    return frame.ax


def evidence(found: Evidence, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the gain by a store within trained models, with its interval, against the store; no law is involved.

    Parameters
    ----------
    found : Evidence
    ax : Axes, optional
    **kwargs
        To matplotlib, for the line.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("hill", noise=0.01, rng=0), "hill")
    >>> rs.plotting.evidence(fit.evidence).get_xlabel() if fit.evidence else 'store R (tokens)'
    'store R (tokens)'
    """
    frame, table = Frame(ax), found.stores
    frame.label("R", "gain by the store (latent loss)")
    if table.empty:
        return frame.empty("no trained model was evaluated\nboth with and without a store")
    (line,) = frame.ax.plot(table["R"], table["gain"], **style(kwargs, marker="o", color="C0"))
    known = table["low"].notna()
    frame.ax.vlines(table["R"][known], table["low"][known], table["high"][known], color=line.get_color(), lw=1)
    frame.zero()
    frame.counts("x", table["R"])
    return frame.ax


def parameters(boot: Bootstrap | JointBootstrap, ax: Axes | None = None, **kwargs: object) -> Axes:
    """Draw the interval of each parameter in percent of its estimate.

    Parameters
    ----------
    boot : Bootstrap or JointBootstrap
    ax : Axes, optional
    **kwargs
        To matplotlib, for the points.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import ragscale as rs
    >>> fit = rs.fit_manifold(rs.datasets.simulate("hill", noise=0.01, rng=0), "hill")
    >>> rs.plotting.parameters(rs.bootstrap(fit, n_resamples=20, rng=0)).get_ylabel()
    ''
    """
    frame = Frame(ax)
    table: Any = boot.params
    table = table[(table["stderr"] > 0) & (table["value"] != 0)]
    frame.label("percent of the estimate", "")
    if table.empty:
        return frame.empty("no parameter has an interval")
    value, low, high = (table[name].to_numpy(float) for name in ("value", "low", "high"))
    rows = np.arange(len(table))
    drawn = style(kwargs, linestyle="", marker="o", color="C0")
    frame.ax.plot(np.full(len(rows), 100.0), rows, **drawn)
    ends = np.sort([100 * low / value, 100 * high / value], axis=0)
    frame.ax.hlines(rows, *ends, color=drawn["color"])
    names = [" ".join(name) if isinstance(name, tuple) else str(name) for name in table.index]
    frame.ax.set_yticks(rows, labels=names)
    frame.ax.invert_yaxis()
    positive = ends[ends > 0]
    if (ends > 0).all() and positive.max() / positive.min() > 10:
        frame.ax.set_xscale("log")
    frame.mark(100.0)
    return frame.ax
