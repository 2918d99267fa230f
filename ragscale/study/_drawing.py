"""Figures of a report: panels side by side, drawn by functions of an Axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ragscale._extras import require
from ragscale.study._page import Page


def draw(
    page: Page, name: str, caption: str, *drawings: Callable[[Any], Any], size: tuple[float, float] = (6.6, 4.4)
) -> None:
    """Add one figure to the page, with a panel of ``size`` inches for each drawing."""
    pyplot = require("matplotlib.pyplot", "plot")
    width, height = size
    figure, axes = pyplot.subplots(1, len(drawings), figsize=(width * len(drawings), height), layout="constrained")
    try:
        for ax, drawing in zip(np.atleast_1d(axes), drawings, strict=True):
            drawing(ax)
        page.figure(figure, name, caption=caption)
    finally:
        pyplot.close(figure)
