"""What all pictures share: axes, inks that stand out on any background, axes of counts, legends beside the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ragscale._extras import require
from ragscale.results._metric_words import metric_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {
    "N": "model size N (parameters)",
    "D": "pretraining D (tokens)",
    "R": "store R (tokens)",
    "budget": "budget T = D + R (tokens)",
    "D_over_N": "pretraining D/N (tokens per parameter)",
    "steps": "training steps",
    "compute": "compute (FLOPs)",
    "share": "share of the store R/T",
}
_MOST_NAMES = 12
Background = Literal["light", "dark", "any"]
_TICKS = ((0.5, range(1, 10)), (0.8, (1, 2, 3, 5, 7)), (2.2, (1, 2, 5)))  # up to so many decades; beyond: powers of ten


class Frame:
    """Axes that were given, or new ones, with the inks that can be seen on them.

    Nothing is set globally, and what ``rcParams`` say of size, colours and fonts stays.

    Parameters
    ----------
    ax : matplotlib Axes, optional
    """

    def __init__(self, ax: Axes | None = None) -> None:
        self.own = ax is None
        self.ax: Axes = require("matplotlib.pyplot", "plot").subplots(layout="constrained")[1] if ax is None else ax
        self.ink = self.ax.xaxis.label.get_color()
        self.background: Background = background(self.ax)
        self.muted = {"light": "0.4", "dark": "0.65", "any": "0.5"}[self.background]

    def colours(self, sizes: ArrayLike) -> list[tuple[float, Any]]:
        """Pair every distinct size with a colour that can be seen on these axes."""
        return size_colours(sizes, background=self.background)

    def shades(self) -> Any:
        """Return the colour map in ``rcParams``, cut to what can be seen on these axes."""
        mpl, colours = require("matplotlib", "plot"), require("matplotlib.colors", "plot")
        return colours.ListedColormap(
            mpl.colormaps[mpl.rcParams["image.cmap"]](np.linspace(*_ENDS[self.background], 256))
        )

    def zero(self, y: float = 0.0) -> None:
        """Draw the level that values are compared with."""
        self.ax.axhline(y, color=self.muted, linewidth=0.8, zorder=0)

    def mark(self, x: float, **style: Any) -> None:
        """Draw a place on the axis as a dashed line."""
        drawn: dict[str, Any] = {"color": self.muted, "linewidth": 0.8, "linestyle": "--", "zorder": 0, **style}
        self.ax.axvline(x, **drawn)

    def label(self, x: str, y: str, title: str = "") -> None:
        """Label both axes: a name of `LABELS`, or words."""
        self.ax.set_xlabel(LABELS.get(x, x))
        self.ax.set_ylabel(LABELS.get(y, y))
        if title:
            self.ax.set_title(title)

    def counts(self, axis: str, values: ArrayLike) -> None:
        """Make an axis logarithmic, written 30M, with room for zero where some value is zero."""
        which = self.ax.xaxis if axis == "x" else self.ax.yaxis
        scale, limits = (
            (self.ax.set_xscale, self.ax.set_xlim) if axis == "x" else (self.ax.set_yscale, self.ax.set_ylim)
        )
        found = np.asarray(values, dtype=float).ravel()
        found = found[np.isfinite(found)]
        positive = found[found > 0]
        if not positive.size:
            return
        ticker = require("matplotlib.ticker", "plot")
        if (found == 0).any():
            scale("symlog", linthresh=float(positive.min()) / 2)
            limits(-float(positive.min()) / 10)
            ticks = [0.0, *powers(float(positive.min()), float(positive.max()))]
            which.set_major_locator(ticker.FixedLocator(ticks))
        else:
            scale("log")
            decades = np.log10(positive.max() / positive.min())
            subs = next((tuple(ticks) for most, ticks in _TICKS if decades < most), (1,))
            which.set_major_locator(ticker.LogLocator(base=10, subs=subs, numticks=9))
        which.set_minor_formatter(ticker.NullFormatter())
        which.set_major_formatter(ticker.FuncFormatter(lambda value, _: count(value)))

    def percent(self, axis: str = "y") -> None:
        """Write shares of an axis in percent, from 0 to 100."""
        which = self.ax.yaxis if axis == "y" else self.ax.xaxis
        which.set_major_formatter(require("matplotlib.ticker", "plot").PercentFormatter(1.0))
        (self.ax.set_ylim if axis == "y" else self.ax.set_xlim)(-0.03, 1.03)

    def legend(self, title: str = "", **options: Any) -> None:
        """Name what was drawn: beside the data on new axes, where it covers least on given ones."""
        handles, names = self.ax.get_legend_handles_labels()
        unique = dict(zip(names, handles, strict=True))
        if not unique or set(unique) == {""}:
            return
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0} if self.own else {}
        size = {"fontsize": "small", "title_fontsize": "small", "ncols": 1 + (len(unique) - 1) // _MOST_NAMES}
        drawn: dict[str, Any] = {"title": title or None, **size, **place, **options}
        self.ax.legend(list(unique.values()), list(unique), **drawn)

    def empty(self, why: str) -> Axes:
        """Say in the middle of the axes why nothing is drawn, and return them."""
        self.ax.text(0.5, 0.5, why, transform=self.ax.transAxes, ha="center", va="center", wrap=True, color=self.muted)
        self.ax.set(xticks=[], yticks=[])
        return self.ax


_ENDS: dict[str, tuple[float, float]] = {"light": (0.0, 0.85), "dark": (0.35, 1.0), "any": (0.32, 0.82)}


def background(ax: Axes) -> Background:
    """Say what axes are drawn on; "any" where they are seen through, as on a page that follows the reader's setting."""
    return _background(ax.get_facecolor(), ax.figure.get_facecolor())


def _background(axes: Any, figure: Any) -> Background:
    to_rgba = require("matplotlib.colors", "plot").to_rgba
    face = to_rgba(axes)
    colour = face if face[3] >= 0.5 else to_rgba(figure)
    if colour[3] < 0.5:
        return "any"
    return "dark" if float(np.dot(colour[:3], (0.299, 0.587, 0.114))) < 0.5 else "light"


def style(kwargs: Mapping[str, object], **defaults: Any) -> dict[str, Any]:
    """Return the keywords of a line, those that were given in place of the defaults; short names (lw, ms) are known."""
    cbook, lines = require("matplotlib.cbook", "plot"), require("matplotlib.lines", "plot")
    return {**defaults, **cbook.normalize_kwargs(kwargs, lines.Line2D)}


def size_colours(sizes: ArrayLike, *, background: Background | None = None) -> list[tuple[float, Any]]:
    """Pair every distinct size, ascending, with a colour of the colour map in ``rcParams``.

    The map is cut where its colours would be lost: its light end on a light background, its dark end on a dark one.

    Parameters
    ----------
    sizes : array-like
        Model sizes, repeated or not.
    background : {"light", "dark", "any"}, optional
        By default that of the current style.

    Returns
    -------
    list of (float, RGBA)

    Examples
    --------
    >>> from ragscale.plotting import size_colours
    >>> [float(size) for size, colour in size_colours([3e7, 1e7, 3e7])]
    [10000000.0, 30000000.0]
    """
    mpl = require("matplotlib", "plot")
    shown: Background | None = background
    if shown is None:
        shown = _background(mpl.rcParams["axes.facecolor"], mpl.rcParams["figure.facecolor"])
    unique = np.unique(np.asarray(sizes, dtype=float))
    shades = mpl.colormaps[mpl.rcParams["image.cmap"]](np.linspace(*_ENDS[shown], len(unique)))
    return list(zip(unique, shades, strict=True))


def count(value: float) -> str:
    """Write a count for people: 30M, 1.2B."""
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if 1e16 > abs(value) >= scale * (1 - 1e-9):
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def powers(low: float, high: float) -> Iterable[float]:
    """Return at most six powers of ten over a range, evenly spaced."""
    exponents = np.arange(np.ceil(np.log10(low) - 1e-9), np.floor(np.log10(high) + 1e-9) + 1)
    return (10.0 ** exponents[:: 1 + (len(exponents) - 1) // 6]).tolist()


def metric_label(table: Any) -> str:
    """Return the metric of a results table in words, with its unit; "loss" where there is none or there are several."""
    names = table["metric"].unique() if "metric" in table else []
    return metric_words(str(names[0])) if len(names) == 1 else "loss"


def from_zero(values: ArrayLike) -> np.ndarray:
    """Return 0 and then a log grid over the positive values."""
    found = np.asarray(values, dtype=float)
    positive = found[found > 0]
    return np.array([0.0]) if positive.size == 0 else np.r_[0.0, np.geomspace(positive.min() / 10, positive.max(), 80)]
