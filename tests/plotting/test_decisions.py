"""Every result that promises a picture has one, and the pictures of decisions show what they are of."""

import warnings

import matplotlib as mpl
import matplotlib.pyplot
import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.results import Result

mpl.use("Agg")


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    mpl.pyplot.close("all")


def subclasses(cls: type) -> list[type]:
    return [one for child in cls.__subclasses__() for one in (child, *subclasses(child))]


def test_every_promised_picture_exists():
    for module in (rs.fitting, rs.decisions, rs.evaluation, rs.results, rs.study):
        for name in module.__all__:
            getattr(module, name)
    promised = {cls.__name__: cls._picture for cls in subclasses(Result) if cls._picture}
    assert {"Allocation", "Threshold", "NextRuns", "FitComparison", "ManifoldFit", "Bootstrap"} <= set(promised)
    for name, picture in promised.items():
        assert callable(getattr(rs.plotting, picture)), name


@pytest.fixture(scope="module")
def fit():
    return rs.fit_manifold(rs.datasets.simulate("hill", noise=0.01, rng=0), "hill")


def test_splits_show_one_line_for_each_size_and_their_ranges(fit):
    best = rs.optimal_allocation(fit, N=np.array([[1e8], [1e9]]), budget=[1e10, 3e10, 5e10])
    ax = best.plot()
    assert len(ax.get_lines()) == 2
    assert ax.get_xlabel() == "budget (tokens)"
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), best.share[0])


def test_a_threshold_shows_its_gains_and_its_place():
    table = rs.datasets.load("ragscale-gpu")
    found = rs.reading_threshold(table, by="D")
    ax = found.plot()
    assert len(ax.get_lines()) == len(set(found.table["task"])) + 2
    assert ax.get_ylabel() == "gain over random"


def test_compared_fits_and_chosen_runs_are_drawn(fit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = rs.fit_manifold(rs.datasets.simulate("hill", noise=0.01, rng=1), "hill")
        ax = rs.compare_fits({"a": fit, "b": other}, n_resamples=20).plot()
    assert ax.get_legend_handles_labels()[1] == ["a minus b"]
    pool = pd.DataFrame([(n, d) for n in (1e8, 1e9) for d in (1e10, 1e11)], columns=["N", "D"])
    chosen = rs.next_runs(fit.data[["N", "D", "R", "value"]], pool, budget_flops=1e22, law="hill")
    assert len(chosen.plot().texts) == len(chosen)
