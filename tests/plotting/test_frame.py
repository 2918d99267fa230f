"""What all pictures share: sizes and colours of the user, ticks that can be read, and words where there is nothing."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest

import ragscale as rs
from ragscale.plotting._frame import Frame, count, powers, size_colours
from ragscale.results._metric_words import metric_words

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


def test_new_axes_take_the_size_and_style_that_were_set():
    with plt.rc_context({"figure.figsize": (3, 2), "image.cmap": "plasma", "lines.linewidth": 3}):
        frame = Frame()
        assert tuple(frame.ax.figure.get_size_inches()) == (3, 2)
        (_, colour), *_ = size_colours([1e6, 1e9])
        assert colour == pytest.approx(mpl.colormaps["plasma"](0.0))


def test_small_sizes_can_be_seen_in_the_dark():
    with plt.style.context("dark_background"):
        frame = Frame()
        assert frame.background == "dark"
        (_, colour), *_ = frame.colours([1e6, 1e9])
        assert np.dot(colour[:3], (0.299, 0.587, 0.114)) > 0.3
    assert Frame().background == "light"
    with plt.rc_context({"axes.facecolor": "none", "figure.facecolor": "none"}):
        assert Frame().background == "any"


@pytest.mark.parametrize(("values", "least"), [((4e8, 9e8), 3), ((1e8, 3e9), 4), ((1e6, 1e12), 5), ((0, 1e6, 1e9), 3)])
def test_ticks_are_counts_that_do_not_collide(values, least):
    frame = Frame()
    frame.ax.plot(values, np.arange(len(values)))
    frame.counts("x", values)
    frame.ax.figure.canvas.draw()
    low, high = frame.ax.get_xlim()
    texts = [t for t in frame.ax.get_xticklabels() if t.get_text() and low <= t.get_position()[0] <= high]
    names = [t.get_text() for t in texts]
    assert len(names) >= least
    assert len(set(names)) == len(names)
    assert not frame.ax.get_xticklabels(minor=True) or not any(
        t.get_text() for t in frame.ax.get_xticklabels(minor=True)
    )
    boxes = sorted((t.get_window_extent().x0, t.get_window_extent().x1) for t in texts)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(boxes)), names


def test_counts_and_powers():
    assert [count(x) for x in (0, 30e6, 1.25e9, 2e12, 7)] == ["0", "30M", "1.25B", "2T", "7"]
    assert list(powers(2e3, 5e6)) == [1e4, 1e5, 1e6]
    assert len(list(powers(1, 1e30))) <= 7


def test_a_legend_stands_beside_the_data_on_new_axes_and_inside_given_ones():
    frame = Frame()
    frame.ax.plot([1, 2], [1, 2], label="a")
    frame.legend("N")
    assert frame.ax.get_legend().get_bbox_to_anchor().x0 > frame.ax.get_window_extent().x1
    _, given = plt.subplots()
    inside = Frame(given)
    inside.ax.plot([1, 2], [1, 2], label="a")
    inside.legend()
    given.figure.canvas.draw()
    assert given.get_window_extent().contains(*given.get_legend().get_window_extent().min)


def test_an_empty_picture_says_why():
    fit = rs.fit_manifold(rs.datasets.simulate("chinchilla", noise=0.01, rng=0), "chinchilla")
    ax = rs.plotting.contours(fit, N=1e9)
    if (fit.data["R"] > 0).any():
        fit = rs.fit_manifold(fit.data[fit.data["R"] == 0][["N", "D", "R", "value"]], "chinchilla")
        ax = rs.plotting.contours(fit, N=1e9)
    assert "fewer than two store sizes" in ax.texts[0].get_text()


def test_contour_labels_lie_on_lines_that_are_already_logarithmic():
    fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.0, rng=0), "log1p")
    ax = rs.plotting.contours(fit, N=1e9)
    (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    labels = [t for t in ax.texts if t.get_text().replace(".", "").isdigit()]
    assert len(labels) >= 5
    places = np.array([t.get_position() for t in labels])
    assert ((places[:, 0] >= low) & (places[:, 0] <= high)).all()
    spread = np.ptp(np.log(places[:, 0])) / np.log(high / low), np.ptp(np.log(places[:, 1])) / np.log(top / bottom)
    assert max(spread) > 0.4, "labels computed on a linear scale crowd into one corner"


def test_metrics_have_words_with_units():
    assert metric_words("nll_per_token") == "loss (nats per token)"
    assert metric_words("own_metric") == "own metric"
