"""Figures of a report: a panel for each function of an Axes, in inks that follow the reader's light or dark setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ragscale._extras import require
from ragscale.study._page import INK, Page

_STYLE = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    "legend.framealpha": 0.0,
    "font.size": 10,
}


def draw(
    page: Page, name: str, caption: str, *drawings: Callable[[Any], Any], size: tuple[float, float] = (5.2, 3.8)
) -> None:
    """Add one figure to the page: a panel of ``size`` inches for each drawing, side by side where there is room."""
    pyplot = require("matplotlib.pyplot", "plot")
    figures = []
    try:
        with pyplot.rc_context(_STYLE):
            for drawing in drawings:
                figure, ax = pyplot.subplots(figsize=size, layout="constrained")
                figures.append(figure)
                drawing(ax)
            page.figure(figures, name, caption=caption)
    finally:
        for figure in figures:
            pyplot.close(figure)
