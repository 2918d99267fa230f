"""Pictures of training: loss curves of a run, and what a ladder of models reached at each D."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ragscale._extras import require
from ragscale.errors import ConfigError
from ragscale.training import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.training import Checkpoint


def loss_curves(run: Any, *, smooth: int = 5, ax: Axes | None = None) -> Axes:
    """Plot the training loss of a run: the trunk at constant rate, and every branch as it decays.

    Parameters
    ----------
    run : path or DataFrame
        The ``out`` folder of `ragscale.train`, or what `ragscale.training.read_metrics` returned.
    smooth : int
        Rows of the log to average over; 1 plots each.
    ax : Axes, optional
        Drawn on a new figure by default.
    """
    metrics: Any = run if isinstance(run, pd.DataFrame) else read_metrics(os.fspath(run))
    ax = _axes(ax)
    curves = metrics.dropna(subset=["loss"])
    branches = sorted((name for name in curves["segment"].unique() if name != "trunk"), key=lambda name: int(name[1:]))
    for name, colour in [("trunk", "0.6"), *zip(branches, _colours(len(branches)), strict=True)]:
        rows = curves[curves["segment"] == name]
        if rows.empty:
            continue
        loss = rows["loss"].rolling(smooth, min_periods=1).mean()
        label = "trunk" if name == "trunk" else f"D = {_count(int(name[1:]))}"
        ax.plot(rows["tokens"], loss, color=colour, lw=1.2, label=label, zorder=1 if name == "trunk" else 2)
    if "validation_loss" in metrics:
        points = metrics.dropna(subset=["validation_loss"])
        tokens = points["step"] * (curves["tokens"] / curves["step"]).median()
        ax.plot(tokens, points["validation_loss"], "o", color="black", ms=4, label="validation", zorder=3)
    ax.set(xlabel="tokens read", ylabel="loss (nats per token)", xscale="log")
    ax.legend(fontsize="small")
    return ax


def ladder(checkpoints: pd.DataFrame | Iterable[Checkpoint], *, ax: Axes | None = None) -> Axes:
    """Plot the validation loss of several models against D, one line per model.

    Parameters
    ----------
    checkpoints : DataFrame or iterable of Checkpoint
        A table needs the columns ``N``, ``D`` and ``validation_loss``.
    ax : Axes, optional
        Drawn on a new figure by default.

    Raises
    ------
    ConfigError
        When nothing has a validation loss.
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
    ax = _axes(ax)
    sizes = np.sort(table["N"].unique())
    for size, colour in zip(sizes, _colours(len(sizes)), strict=True):
        rows = table[table["N"] == size].groupby("D")["validation_loss"].mean()
        ax.plot(rows.index, rows, "o-", color=colour, ms=4, label=f"N = {_count(size)}")
    ax.set(xlabel="pretraining tokens D", ylabel="validation loss (nats per token)", xscale="log")
    ax.legend(fontsize="small")
    return ax


def _colours(n: int) -> list[Any]:
    viridis = require("matplotlib", "plot").colormaps["viridis"]
    return [viridis(x) for x in np.linspace(0.05, 0.85, n)]


def _count(value: float) -> str:
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    _, new = require("matplotlib.pyplot", "plot").subplots(layout="constrained")
    return new
