"""Sigma and kappa: the paper's convention reproduced, with what it gets wrong, and the corrected one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale import fitting
from ragscale.errors import ConfigError, ResultsError

from .conftest import known

GRID = pd.DataFrame(
    [(n, n * k, r) for n in (1e8, 1e9) for k in (5, 20, 80) for r in (0, 1e8, 1e9, 1e10)], columns=list("NDR")
)


@pytest.mark.parametrize("convention", ["corrected", "paper"])
def test_a_constant_exchange_rate_is_recovered_exactly_without_noise(convention):
    subject = known("effective_data", eta=0.3)
    table = rs.substitution(
        rs.datasets.simulate("effective_data", {"eta": 0.3}, GRID, noise=0), subject, convention=convention
    ).table
    np.testing.assert_allclose(table["sigma"], 0.3, rtol=1e-6)
    np.testing.assert_allclose(table["multiplier"], 1 + 0.3 * table["R"] / table["D"], rtol=1e-6)
    assert len(table) == (18 if convention == "corrected" else 6)
    assert set(table["status"]) == {"ok"}


def test_where_the_curve_misses_the_baseline_only_the_corrected_sigma_stays_right():
    table = rs.datasets.simulate("effective_data", {"eta": 0.3, "E": 2.0}, GRID, noise=0)
    off = known("effective_data", eta=0.3, E=2.02)  # the curve is too high everywhere by 0.02
    paper = rs.substitution(table, off, convention="paper").table["sigma"]
    corrected = rs.substitution(table, off).table["sigma"]
    assert corrected.between(0.15, 0.6).all()
    assert paper.max() > 2


def the_papers_curve():
    """The SciQ curve of figure 2, per 1e9 units in the paper, here in counts."""
    p = rs.datasets.load("paper_figure2_fit").set_index("parameter")["value"]
    theta = {
        "E": p["L0"],
        "A": p["A"] * 1e9 ** p["alpha"],
        "alpha": p["alpha"],
        "B": p["B"] * 1e9 ** p["beta"],
        "beta": p["beta"],
    }
    return fitting.Chinchilla(), theta


def test_without_any_retrieval_the_papers_convention_still_finds_substitution():
    """The digitised SciQ baselines against the paper's own curve: pretend that a store of 10 N changed nothing."""
    baseline = rs.datasets.load("paper_figure2")[["N", "D", "R", "value"]]
    nothing = pd.concat([baseline, baseline.assign(R=10 * baseline["N"])])
    paper = rs.substitution(nothing, the_papers_curve(), convention="paper").table
    positive = paper[paper["sigma"] > 0]
    assert 37 <= len(positive) <= 39
    slope, intercept = np.polyfit(np.log(positive["D_over_N"]), np.log(positive["sigma"]), 1)
    assert 0.6 <= slope <= 1.2
    assert 3.9 <= np.exp(-intercept / slope) <= 5.2  # the paper's crossover, 4.14, out of no effect at all
    corrected = rs.substitution(nothing, the_papers_curve()).table
    finite = corrected[corrected["status"] != "baseline censored"]
    np.testing.assert_array_equal(finite["sigma"], 0)
    np.testing.assert_array_equal(corrected["kappa"], 0)
    assert len(corrected) == 55


def test_kappa_is_the_drop_per_billion_store_tokens():
    figure = rs.datasets.load("paper_figure1")
    curve = ("chinchilla", {"E": 0.5, "A": 1e3, "alpha": 0.5, "B": 1e3, "beta": 0.3})
    level = figure.assign(value=figure["value"] + 9.0)
    table = rs.substitution(level, curve).table.set_index(["N", "R"])
    assert table.loc[(30e6, 30e6), "kappa"] == pytest.approx(0.584 / 0.03)
    assert table.loc[(3e9, 6e9), "kappa"] == pytest.approx(0.060 / 6)


def test_negative_and_censored_values_are_kept_and_the_paper_drops_them():
    subject = known("chinchilla")
    law, theta = subject
    floor = theta["E"] + theta["A"] * 1e9 ** -theta["alpha"]
    base = float(law.loss(1e9, 2e10, 0, theta))
    results = pd.DataFrame(
        {"N": 1e9, "D": 2e10, "R": [0, 1e9, 2e9, 3e9], "value": [base, base + 0.05, floor - 0.01, base - 0.05]}
    )
    table = rs.substitution(results, subject).table.set_index("R")
    assert list(table["status"]) == ["negative", "censored", "ok"]
    assert table.loc[1e9, "sigma"] < 0
    assert table.loc[1e9, "kappa"] < 0
    assert table.loc[2e9, "sigma"] == np.inf
    assert table.loc[3e9, "sigma"] > 0
    paper = rs.substitution(results, subject, convention="paper")
    assert len(paper.table) == 0  # the best store is the censored one, and it is dropped
    assert paper.dropped == 1
    below = rs.substitution(results.assign(value=results["value"] - base + floor), subject)
    assert set(below.table["status"]) == {"baseline censored"}


def test_any_law_can_be_inverted_not_only_the_built_in_base():
    class Own(fitting.ScalingLaw):
        parameters = (fitting.Parameter("E", 0, 10),)

        def _loss(self, n, d, r, theta):
            return theta.E + 300 * (d + 0.5 * r) ** -0.3 + n**-0.2

    results = rs.datasets.simulate(Own(), {"E": 1.0}, GRID, noise=0)
    np.testing.assert_allclose(rs.substitution(results, (Own(), {"E": 1.0})).table["sigma"], 0.5, rtol=1e-6)
    best = results.assign(value=np.where(results["R"] > 0, 0.5, results["value"]))
    assert set(rs.substitution(best, (Own(), {"E": 1.0})).table["status"]) == {"censored"}


def test_a_bootstrap_gives_the_uncertainty_of_the_curve(fitted):
    results = rs.datasets.simulate("log1p", noise=0.01, rng=1)
    table = rs.substitution(results, fitted[1]).table
    finite = np.isfinite(table["sigma"]) & np.isfinite(table["sigma_high"])
    assert (table["sigma_low"] <= table["sigma_high"])[finite].all()
    assert ((table["sigma_low"] <= table["sigma"]) & (table["sigma"] <= table["sigma_high"]))[finite].mean() > 0.9


def test_a_higher_is_better_metric_gains_upwards():
    results = rs.datasets.simulate("log1p", noise=0)
    score = results.assign(value=1 / (1 + np.exp(results["value"] - 2.5)), metric="acc")
    fit = rs.fit_manifold(score, law="log1p", link="bounded")
    table = rs.substitution(score, fit).table
    assert (table["kappa"] > 0).all()
    assert (table.loc[table["status"] == "ok", "sigma"] > 0).all()


def test_what_cannot_be_compared_is_refused():
    subject = known("log1p")
    results = rs.datasets.simulate("log1p", noise=0)
    with pytest.raises(ConfigError, match="convention = 'mine'"):
        rs.substitution(results, subject, convention="mine")  # type: ignore[arg-type]
    with pytest.raises(ResultsError, match="no such pair"):
        rs.substitution(results[results["R"] == 0], subject)
    with pytest.raises(ResultsError, match="missing"):
        rs.substitution(results.drop(columns="value"), subject)
    twice = pd.concat([results.assign(prompt="a"), results.assign(prompt="b", value=results["value"] + 1)])
    with pytest.raises(ResultsError, match="differ in value, prompt"):
        rs.substitution(twice, subject)
