"""A picture of a split: one permutation, pretraining read from its left end, the store from its right end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._extras import require
from ragscale.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ragscale.splitting import Split

_PRETRAINING, _STORE, _UNUSED, _VALIDATION, _SHARED = "#3b6ea8", "#d9822b", (0.5, 0.5, 0.5, 0.2), "#7a9a5b", "#a03050"
_MOST_DOCUMENTS = 400


def split_layout(
    split: Split, cells: Sequence[tuple[int, int]] | None = None, ax: Axes | None = None, **kwargs: object
) -> Axes:
    """Plot the permutation of a split and below it what each cell (D, R) reads: D from the left, R from the right.

    Parameters
    ----------
    split : Split
    cells : sequence of (D, R), optional
        In tokens; by default four cells of the frontier, where D + R = T.
    ax : Axes, optional
        Drawn on a new figure by default.
    **kwargs
        To matplotlib, for the bars of the cells.

    Returns
    -------
    Axes

    Raises
    ------
    ConfigError
        When a D or R is not between 0 and T.
    """
    T = split.n_tokens
    if cells is None:
        cells = [(T - round(share * T), round(share * T)) for share in (0.1, 0.25, 0.5, 0.75)]
    wrong = [cell for cell in cells if not (0 <= cell[0] <= T and 0 <= cell[1] <= T)]
    if wrong:
        raise ConfigError(f"D and R lie between 0 and T={T:,} tokens, got {wrong}")
    if ax is None:
        ax = _new_axes(height=1.2 + 0.45 * (len(cells) + 1))
    scale, unit = _unit(T)
    _draw_documents(ax, split, scale)
    for row, (D, R) in enumerate(cells, 1):
        bars: dict[str, Any] = {"height": 0.62, **kwargs}
        trained: dict[str, Any] = {"color": _PRETRAINING, **bars}
        stored: dict[str, Any] = {"color": _STORE, **bars}
        bars.pop("color", None)
        ax.barh(-row, T * scale, color=_UNUSED, **bars)
        ax.barh(-row, D * scale, **trained)
        ax.barh(-row, R * scale, left=(T - R) * scale, **stored)
        if D + R > T:
            ax.barh(-row, (D + R - T) * scale, left=(T - R) * scale, color=_SHARED, **bars)
        for tokens, middle, name in ((D, D / 2, "D"), (R, T - R / 2, "R")):
            if tokens > 0.12 * T:
                ax.text(
                    middle * scale,
                    -row,
                    f"{name} = {tokens * scale:,.3g}",
                    ha="center",
                    va="center",
                    color="white",
                    fontsize="small",
                )
    ax.set_yticks(range(0, -len(cells) - 1, -1), ["documents", *(f"cell {i + 1}" for i in range(len(cells)))])
    ax.set(
        xlabel=f"position in the permutation ({unit})",
        title=f"One permutation of T = {T:,} tokens, read from both ends",
    )
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(left=False)
    _legend(ax, split, any(D + R < T for D, R in cells), any(D + R > T for D, R in cells))
    return ax


def _new_axes(height: float) -> Axes:
    pyplot = require("matplotlib.pyplot", "plot")
    width = 1.25 * pyplot.rcParams["figure.figsize"][0]
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def _draw_documents(ax: Axes, split: Split, scale: float) -> None:
    """Draw documents in alternating greys, neighbours joined when there are too many to see; validation before them."""
    bounds = split.pretraining(split.n_tokens).document_boundaries
    if len(bounds) > _MOST_DOCUMENTS:
        bounds = bounds[np.linspace(0, len(bounds) - 1, _MOST_DOCUMENTS).astype(int)]
    widths = np.diff(bounds) * scale
    colours = np.where(np.arange(len(widths)) % 2 == 0, "0.45", "0.75")
    ax.barh(np.zeros(len(widths)), widths, left=bounds[:-1] * scale, color=colours.tolist(), height=0.62)
    n_validation = len(split.validation)
    if n_validation:
        ax.barh(0, -n_validation * scale, color=_VALIDATION, height=0.62)


def _legend(ax: Axes, split: Split, unused: bool, shared: bool) -> None:
    patch = require("matplotlib.patches", "plot").Patch
    entries = [("pretraining: prefix of D tokens", _PRETRAINING, True), ("store: suffix of R tokens", _STORE, True)]
    entries += [("unused", _UNUSED, unused), ("in both (allow_overlap)", _SHARED, shared)]
    entries += [("validation", _VALIDATION, len(split.validation) > 0)]
    handles = [patch(color=colour, label=label) for label, colour, wanted in entries if wanted]
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.25),
        ncols=len(handles),
        frameon=False,
        fontsize="small",
    )


def _unit(n_tokens: int) -> tuple[float, str]:
    for size, name in ((1e9, "billion tokens"), (1e6, "million tokens"), (1e3, "thousand tokens")):
        if n_tokens >= size:
            return 1 / size, name
    return 1.0, "tokens"
