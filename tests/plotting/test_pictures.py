"""Pictures look as they did: three sizes, two styles, compared with images kept beside this file.

``pytest tests/plotting/test_pictures.py --mpl-generate-path=tests/plotting/pictures`` draws them anew. Text is left out
and the tolerance is wide, so that another version of matplotlib or of its fonts does no harm; what is written on axes
is tested in words elsewhere.
"""

import numpy as np
import pytest

import ragscale as rs

plt = pytest.importorskip("matplotlib.pyplot")
pytest.importorskip("pytest_mpl")

SIZES = {"column": (3.3, 2.4), "screen": (6.4, 4.8), "slide": (9.0, 4.0)}
LAW = {"E": 1.7, "A": 406.0, "alpha": 0.34, "B": 411.0, "beta": 0.28, "C": 0.1, "eta": 10.0}


@pytest.fixture(scope="module")
def fit():
    return rs.fit_manifold(rs.datasets.simulate("log1p", {**LAW, "eta": 1e-9}, noise=0.0, grid="paper", rng=0), "log1p")


def looks(style, name):
    return pytest.mark.mpl_image_compare(
        baseline_dir="pictures", filename=f"{name}.png", style=style, remove_text=True, tolerance=12, backend="Agg",
        savefig_kwargs={"dpi": 50},
    )  # fmt: skip


def axes(size):
    figure, ax = plt.subplots(figsize=SIZES[size], layout="constrained")
    return figure, ax


def splits(ax):
    best = rs.optimal_allocation(("log_ratio", LAW), N=np.array([[1e8], [1e9], [1e10]]), budget=[1e9, 1e10, 1e11])
    best.plot(ax)


@looks("default", "contours-column")
def test_contours_in_a_column(fit):
    figure, ax = axes("column")
    rs.plotting.contours(fit, ax, N=1e9)
    return figure


@looks("default", "slices-screen")
def test_slices_on_a_screen(fit):
    figure, ax = axes("screen")
    rs.plotting.slices(fit, ax, along="D")
    return figure


@looks("default", "splits-slide")
def test_splits_on_a_slide():
    figure, ax = axes("slide")
    splits(ax)
    return figure


@looks("dark_background", "contours-slide-dark")
def test_contours_on_a_dark_slide(fit):
    figure, ax = axes("slide")
    rs.plotting.contours(fit, ax, N=1e9)
    return figure


@looks("dark_background", "slices-column-dark")
def test_slices_in_a_dark_column(fit):
    figure, ax = axes("column")
    rs.plotting.slices(fit, ax, along="R")
    return figure


@looks("dark_background", "splits-screen-dark")
def test_splits_on_a_dark_screen():
    figure, ax = axes("screen")
    splits(ax)
    return figure
