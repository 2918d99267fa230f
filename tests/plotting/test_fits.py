"""Plots draw what was fitted, on the axes they are given, with labelled axes, and change nothing else."""

import numpy as np
import pytest

import ragscale as rs
from ragscale.errors import ConfigError

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

from ragscale import plotting  # noqa: E402 - after the backend is chosen


@pytest.fixture(scope="module")
def fit():
    return rs.fit_manifold(rs.datasets.simulate("interaction", noise=0.01, rng=0), law="interaction")


@pytest.fixture(scope="module")
def boot(fit):
    return rs.bootstrap(fit, n_resamples=40, rng=0)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


DRAWINGS = {
    "parity": lambda fit, boot, ax: plotting.parity(fit, ax=ax),
    "residuals": lambda fit, boot, ax: plotting.residuals(fit, against="R", ax=ax),
    "slices along R": lambda fit, boot, ax: plotting.slices(boot, along="R", ax=ax),
    "slices along D": lambda fit, boot, ax: plotting.slices(fit, along="D", ax=ax),
    "contours": lambda fit, boot, ax: plotting.contours(fit, N=1e9, ax=ax),
    "allocation": lambda fit, boot, ax: plotting.allocation(boot, N=[1e9], budgets=[1e9, 1e10, 4e10], ax=ax),
    "exchange": lambda fit, boot, ax: plotting.exchange(fit, R=1e9, ax=ax),
    "profile": lambda fit, boot, ax: plotting.profile(rs.fitting.profile(fit, "alpha", n_points=5), ax=ax),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_plot_draws_on_the_given_axes_and_labels_them(name, fit, boot):
    before = dict(mpl.rcParams)
    _, ax = plt.subplots()
    drawn = DRAWINGS[name](fit, boot, ax)
    assert drawn is ax
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.lines or ax.collections
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == [1]
    ax.figure.canvas.draw()


def test_parity_shows_every_row_once(fit):
    ax = plotting.parity(fit)
    points = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() == "o"])
    np.testing.assert_allclose(np.sort(points), np.sort(fit.data["value"]))


def test_slices_draw_the_predicted_curve(fit):
    ax = plotting.slices(fit, along="D")
    curve = next(line for line in ax.lines if line.get_linestyle() == "-" and line.get_marker() == "None")
    smallest = fit.data["N"].min()
    np.testing.assert_allclose(curve.get_ydata(), fit.predict(smallest, curve.get_xdata(), 0.0))


def test_allocation_draws_the_best_shares(fit):
    budgets = [1e9, 1e10, 4e10]
    ax = plotting.allocation(fit, N=[1e9], budgets=budgets)
    best = rs.optimal_allocation(fit, N=1e9, budget=budgets)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * best.share)


def test_bands_appear_only_with_a_bootstrap(fit, boot):
    assert not plotting.slices(fit, along="R").collections
    assert len(plotting.slices(boot, along="R").collections) == fit.data["N"].nunique()


def test_the_interactive_surface_holds_the_measured_points(fit):
    pytest.importorskip("plotly")
    figure = plotting.surface(fit, N=1e9, n_points=8)
    assert figure.data[0].z.shape == (8, 8)
    assert len(figure.data[1].x) == (fit.data["N"] == 1e9).sum()


def test_bands_end_where_the_metric_does(boot, monkeypatch):
    predict = type(boot).predict
    monkeypatch.setattr(type(boot), "predict", lambda self, *counts: predict(self, *counts) - 100.0)
    ax = plotting.slices(boot, along="D")
    assert {path.vertices[:, 1].min() for band in ax.collections for path in band.get_paths()} == {0.0}


def test_slices_show_cells_of_a_store_and_no_controls():
    table = rs.datasets.simulate_reading(D=[4e6, 64e6], model_noise=0.3, rng=0)
    fit = rs.fit_manifold(table, "reading")
    for along in ("R", "D"):
        ax = plotting.slices(fit, along=along)
        points = {tuple(xy) for line in ax.lines if line.get_linestyle() == "None" for xy in line.get_xydata()}
        chosen = table[table["condition"].isin(["oracle", "random"])]
        assert len(points) > 3
        assert not points & set(zip(chosen[along], chosen["value"], strict=True))


@pytest.mark.parametrize(
    "call", [lambda fit: plotting.residuals(fit, against="T"), lambda fit: plotting.slices(fit, along="N")]
)
def test_unknown_axes_are_refused_by_name(call, fit):
    with pytest.raises(ConfigError, match="must be"):
        call(fit)
