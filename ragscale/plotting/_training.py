"""Pictures of training: loss curves of a run, and what a ladder of models reached at each D."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from ragscale.errors import ConfigError
from ragscale.plotting._frame import Frame, count, style
from ragscale.training import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.training import Checkpoint


def loss_curves(
    run: str | os.PathLike[str] | pd.DataFrame, ax: Axes | None = None, *, smooth: int = 5, **kwargs: object
) -> Axes:
    """Plot the training loss of a run: the trunk at constant rate, and every branch as it decays.

    Parameters
    ----------
    run : path or DataFrame
        The ``out`` folder of `ragscale.train`, or what `ragscale.training.read_metrics` returned.
    ax : Axes, optional
        Drawn on a new figure by default.
    smooth : int
        Rows of the log to average over; 1 plots each.
    **kwargs
        To matplotlib, for the lines.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import pandas as pd
    >>> import ragscale as rs
    >>> log = pd.DataFrame({"segment": "trunk", "step": [1, 2], "tokens": [512, 1024], "loss": [5.1, 4.9]})
    >>> rs.plotting.loss_curves(log).get_ylabel()
    'loss (nats per token)'
    """
    metrics: Any = run if isinstance(run, pd.DataFrame) else read_metrics(os.fspath(run))
    frame = Frame(ax)
    ax = frame.ax
    curves = metrics.dropna(subset=["loss"])
    branches = sorted((name for name in curves["segment"].unique() if name != "trunk"), key=lambda name: int(name[1:]))
    colours = [colour for _, colour in frame.colours(range(len(branches)))]
    for name, colour in [("trunk", frame.muted), *zip(branches, colours, strict=True)]:
        rows = curves[curves["segment"] == name]
        if rows.empty:
            continue
        loss = rows["loss"].rolling(smooth, min_periods=1).mean()
        label, order = ("trunk", 1) if name == "trunk" else (f"D = {count(int(name[1:]))}", 2)
        ax.plot(rows["tokens"], loss, **style(kwargs, color=colour, linewidth=1.2, label=label, zorder=order))
    if "validation_loss" in metrics:
        points = metrics.dropna(subset=["validation_loss"])
        tokens = points["step"] * (curves["tokens"] / curves["step"]).median()
        ax.plot(tokens, points["validation_loss"], "o", color=frame.ink, ms=4, label="validation", zorder=3)
    frame.counts("x", curves["tokens"][curves["tokens"] > 0])
    frame.label("tokens read", "loss (nats per token)")
    frame.legend()
    return ax


def ladder(checkpoints: pd.DataFrame | Iterable[Checkpoint], ax: Axes | None = None, **kwargs: object) -> Axes:
    """Plot the validation loss of several models against D, one line per model.

    Parameters
    ----------
    checkpoints : DataFrame or iterable of Checkpoint
        A table needs the columns ``N``, ``D`` and ``validation_loss``.
    ax : Axes, optional
        Drawn on a new figure by default.
    **kwargs
        To matplotlib, for the lines.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        When nothing has a validation loss.

    Examples
    --------
    >>> import pandas as pd
    >>> import ragscale as rs
    >>> table = pd.DataFrame({"N": 1e6, "D": [1e7, 2e7], "validation_loss": [4.1, 3.9]})
    >>> rs.plotting.ladder(table).get_ylabel()
    'validation loss (nats per token)'
    """
    if isinstance(checkpoints, pd.DataFrame):
        table: Any = checkpoints
    else:
        table = pd.DataFrame(
            [{"N": c.n_params, "D": c.n_tokens, "validation_loss": c.validation_loss} for c in checkpoints]
        )
    table = table.dropna(subset=["validation_loss"]) if len(table) else table
    if table.empty:
        raise ConfigError("no checkpoint has a validation loss: train on a split, or give train(validation=...)")
    frame = Frame(ax)
    for size, colour in frame.colours(table["N"]):
        rows = table[table["N"] == size].groupby("D")["validation_loss"].mean()
        drawn = style(kwargs, marker="o", color=colour, markersize=4, label=f"N = {count(size)}")
        frame.ax.plot(rows.index, rows, **drawn)
    frame.counts("x", table["D"])
    frame.label("D", "validation loss (nats per token)")
    frame.legend()
    return frame.ax
