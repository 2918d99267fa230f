"""The laws of the literature in `fit_manifold`, and Chinchilla's three approaches, on made and on real tables."""

from __future__ import annotations

import functools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from ragscale import datasets, plotting
from ragscale.errors import ResultsError, ResultsWarning
from ragscale.fitting import ManifoldFit, bootstrap, fit_manifold, laws

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e8, 1e10, 6), np.geomspace(2e9, 1e12, 8)))


def made(law, theta, seed=0, noise=2e-3):
    """Return a table that the law generates, with the further columns that it reads."""
    rng = np.random.default_rng(seed)
    draw = {
        "U": lambda: np.minimum(D, rng.choice([1e9, 1e10, 1e11], len(D))),
        "loss": lambda: rng.uniform(1.3, 3.0, len(D)),
        "n_samples": lambda: rng.choice([1.0, 2, 8, 64], len(D)),
        "k": lambda: rng.choice([0.0, 1, 5, 20, 100], len(D)),
        "n_shot": lambda: rng.choice([0.0, 1, 4, 16], len(D)),
        "n_iterations": lambda: rng.choice([1.0, 2, 3], len(D)),
    }
    columns = {name: draw[name]() for name in law.further_columns}
    clean = law.loss(N, D, 0.0, theta, **columns)
    value = clean * np.exp(noise * rng.standard_normal(len(D)))
    return pd.DataFrame({"N": N, "D": D, "R": 0.0, "value": value, **columns}), clean


def published(law, name):
    return dict(law.published[name].parameters)


CASES = [
    (laws.KaplanN(), published(laws.KaplanN, "kaplan")),
    (laws.KaplanD(), published(laws.KaplanD, "kaplan")),
    (laws.KaplanC(), published(laws.KaplanC, "kaplan")),
    (laws.Kaplan(), published(laws.Kaplan, "kaplan")),
    (laws.DataConstrained(tie=True), published(laws.DataConstrained, "c4")),
    (laws.Overtraining(), published(laws.Overtraining, "c4")),
    (laws.LossToError(), published(laws.LossToError, "c4")),
    (laws.DirectCompute(chance=0.25), {"A": 0.8, "alpha": 0.2}),
    (laws.DirectDownstream(chance=0.25), {"A": 0.3, "alpha": 0.4, "B": 0.8, "beta": 0.3}),
    (laws.PassAtK(), {"A": 2.0, "alpha": -0.15, "beta": -0.2, "delta": -0.01}),
    (laws.LossToAccuracy(), {"floor": 0.25, "ceiling": 0.9, "k": 4.0, "L0": 1.9}),
    (laws.BrokenPowerLaw(), {"a": 1.5, "b": 300.0, "c0": 0.25, "c1": 0.3, "d1": 5e10, "f1": 0.2}),
    (laws.PassUntil(), {"c": 4.0, "alpha": 0.3}),
    (laws.InferenceScaling(), {"a_doc": 0.3, "a_shot": 0.1, "a_iter": 0.2, "c": -1.0}),
]


@functools.cache
def fitted(name):
    """The table that a law made, what it made without noise, and the fit: shared, since some laws take seconds."""
    law, theta = next(case for case in CASES if case[0].name == name)
    table, clean = made(law, theta)
    return table, clean, fit_manifold(table, law)


@pytest.mark.parametrize("law", [law for law, _ in CASES], ids=[law.name for law, _ in CASES])
def test_a_fit_recovers_the_surface_that_made_the_table(law, tmp_path):
    table, clean, fit = fitted(law.name)
    assert fit.converged
    assert fit.link.name == "identity"
    columns = {name: table[name] for name in law.further_columns}
    np.testing.assert_allclose(fit.predict(N, D, 0.0, **columns), clean, rtol=0.01)
    # no parameters do better than the fitted ones, those that made the table included
    residual = np.abs(np.log(clean / table["value"].to_numpy()))
    rho = np.where(residual <= 1e-3, residual**2 / 2, 1e-3 * (residual - 5e-4))
    assert fit.objective <= rho.sum() * (1 + 1e-9)
    fit.to_json(tmp_path / "fit.json")
    again = ManifoldFit.from_json(tmp_path / "fit.json")
    assert (again.predict(N, D, 0.0, **columns) == fit.predict(N, D, 0.0, **columns)).all()


@pytest.mark.parametrize("law", [law for law, _ in CASES], ids=[law.name for law, _ in CASES])
def test_resampling_summaries_and_plots_take_every_law(law):
    table, clean, fit = fitted(law.name)
    assert law.name in fit.summary()
    resampled = bootstrap(fit, n_resamples=40, rng=0)
    columns = {name: table[name] for name in law.further_columns}
    interval = resampled.interval(N, D, 0.0, **columns)
    inside = (interval.low <= clean) & (clean <= interval.high)
    assert inside.mean() > 0.6  # 40 resamples of 48 rows; far from it where rows and columns fell apart
    for axes in (plotting.parity(fit), plotting.residuals(fit)):
        assert axes.get_xlabel()
        plt.close("all")


def test_a_law_with_nine_parameters_is_fitted_to_better_than_the_noise():
    letters = {"a1": -0.12, "b1": 0.4, "alpha": 0.12, "a2": 88.0, "b2": -6.3, "beta": -0.1, "a3": -0.02, "b3": -0.1}
    table, clean = made(laws.Farseer(), laws.farseer_parameters(letters | {"gamma": 0.17}))
    fit = fit_manifold(table, laws.Farseer())
    np.testing.assert_allclose(fit.predict(N, D), clean, rtol=0.01)


def test_a_ceiling_is_found_where_the_curve_bends(tmp_path):
    truth = {"A": 0.8, "alpha": 0.3, "E": 0.25}
    table, _ = made(laws.DirectCompute(chance=0.25, ceiling=True), truth)
    fit = fit_manifold(table, laws.DirectCompute(chance=0.25, ceiling=True))
    assert fit.theta["E"] == pytest.approx(0.25, abs=0.05)
    without = fit_manifold(table, laws.DirectCompute(chance=0.25))
    assert fit.objective < 0.5 * without.objective
    end = 0.25 + 0.75 * np.exp(-fit.theta["E"])
    assert fit.law.loss(1e15, 1e18, 0, fit.theta) == pytest.approx(end, abs=1e-3)
    assert without.law.loss(1e15, 1e18, 0, without.theta) > end + 0.05
    fit.to_json(tmp_path / "fit.json")
    assert ManifoldFit.from_json(tmp_path / "fit.json").law == fit.law


def test_names_of_laws_are_known():
    table, _ = made(laws.Overtraining(), published(laws.Overtraining, "c4"))
    assert fit_manifold(table, "overtraining").law == laws.Overtraining()
    assert fit_manifold(table, "kaplan").objective > fit_manifold(table, "overtraining").objective


SURFACE = laws.CHINCHILLA_PUBLISHED["hoffmann"].parameters


def isoflops(spread=16.0, n_points=15, noise=0.0, seed=0):
    """Return the design of arXiv 2603.22339: five computations, sizes evenly around the best one."""
    best = laws.chinchilla_optimum(SURFACE, np.geomspace(1e17, 1e21, 5))
    factors = np.geomspace(1 / spread, spread, n_points)
    n = (best["N"].to_numpy()[:, None] * factors).ravel()
    d = np.repeat(best["flops"], n_points).to_numpy() / (6 * n)
    value = SURFACE["E"] + SURFACE["A"] * n ** -SURFACE["alpha"] + SURFACE["B"] * d ** -SURFACE["beta"]
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"N": n, "D": d, "value": value * np.exp(noise * rng.standard_normal(len(n)))})


@pytest.mark.parametrize(("spread", "tokens_at_1e24"), [(2, 4.022640080071175e12), (16, 3.829997307632958e12)])
def test_approach_2_misses_as_the_paper_says_and_says_so(spread, tokens_at_1e24):
    # extrapolation_error_data.csv of Open-Athena/scaling-law-analysis, surface "Chinchilla", column inferred_D
    found = laws.chinchilla_approach_2(isoflops(spread))
    assert found.predict(1e24)["D"].iloc[0] == pytest.approx(tokens_at_1e24, rel=1e-6)
    assert found.b == pytest.approx(0.548387, abs=1e-6)
    assert found.bias_N == pytest.approx(laws.isoflop_bias(0.34, 0.28, spread=spread, n_points=15), rel=1e-4)
    assert found.bias_a == pytest.approx(0.0, abs=1e-5)
    true = laws.chinchilla_optimum(SURFACE, 1e24)["D"].iloc[0]
    assert found.corrected is not None
    assert found.corrected.predict(1e24)["D"].iloc[0] == pytest.approx(true, rel=1e-3)


def test_the_bias_is_known_in_noisy_rows_too():
    found = laws.chinchilla_approach_2(isoflops(8.0, noise=1e-3))
    assert found.bias_N == pytest.approx(laws.isoflop_bias(0.34, 0.28, spread=8, n_points=15), rel=0.02)


def test_approach_3_finds_the_optimum_in_closed_form():
    found = laws.chinchilla_approach_3(isoflops(8.0, noise=1e-3))
    assert found.a == pytest.approx(0.28 / 0.62, abs=0.01)
    assert found.a + found.b == pytest.approx(1.0)
    true = laws.chinchilla_optimum(SURFACE, 1e22)["N"].iloc[0]
    assert found.predict(1e22)["N"].iloc[0] == pytest.approx(true, rel=0.1)


def test_approach_1_follows_the_envelope_of_training_curves():
    n = np.geomspace(1e7, 1e11, 33)
    n, flops = (axis.ravel() for axis in np.meshgrid(n, np.geomspace(1e18, 1e22, 81)))
    d = flops / (6 * n)
    value = SURFACE["E"] + SURFACE["A"] * n ** -SURFACE["alpha"] + SURFACE["B"] * d ** -SURFACE["beta"]
    found = laws.chinchilla_approach_1(pd.DataFrame({"N": n, "D": d, "value": value}))
    assert found.a == pytest.approx(0.28 / 0.62, abs=0.01)
    best = laws.chinchilla_optimum(SURFACE, 1e20)
    assert found.predict(1e20)["N"].iloc[0] == pytest.approx(best["N"].iloc[0], rel=0.1)


def test_tables_of_runs_that_cannot_be_are_named():
    runs = isoflops()
    for approach in (laws.chinchilla_approach_1, laws.chinchilla_approach_2, laws.chinchilla_approach_3):
        with pytest.raises(ResultsError, match="the table is empty"):
            approach(runs.iloc[:0])
        with pytest.raises(ResultsError, match="needs the columns D"):
            approach(runs.drop(columns="D"))
        with pytest.raises(ResultsError, match="N must be positive and finite, got -1"):
            approach(runs.assign(N=-1.0))
        with pytest.raises(ResultsError, match="value holds what is not finite"):
            approach(runs.assign(value=np.nan))


def test_computations_without_a_minimum_are_named():
    table = isoflops(4.0)
    budget = np.repeat(np.arange(5), 15)
    one_sided = (budget == 2) & (np.tile(np.arange(15), 5) > 4)
    with pytest.warns(ResultsWarning, match="leaves out 1 computations"):
        found = laws.chinchilla_approach_2(table[~one_sided])
    assert len(found.budgets) == 4
    with pytest.raises(ResultsError, match="value"):
        laws.chinchilla_approach_2(table.drop(columns="value"))
    with pytest.raises(ResultsError, match="at least two sizes"):
        laws.chinchilla_approach_1(table.iloc[:1])
    with pytest.raises(ResultsError, match="positive"):
        laws.chinchilla_approach_3(table.assign(N=-1.0))


def test_two_stages_recover_the_accuracy_that_made_the_table():
    theta = {"floor": 0.25, "ceiling": 0.95, "k": 4.0, "L0": 0.9}
    loss = 0.4 + 1.2e3 * N**-0.4 + 6e2 * D**-0.35
    accuracy = laws.LossToAccuracy().loss(1, 1, 0, theta, loss=loss)
    two = laws.fit_two_stage(pd.DataFrame({"N": N, "D": D, "loss": loss, "value": accuracy}))
    np.testing.assert_allclose(two.predict(N, D), accuracy, rtol=1e-4)
    with pytest.raises(ResultsError, match="task_loss"):
        laws.fit_two_stage(pd.DataFrame({"N": N, "D": D, "value": accuracy}), loss="task_loss")


# Real tables ---------------------------------------------------------------------------------------------------------


def test_repetition_constants_of_the_paper_come_out_of_its_runs():
    runs = datasets.load("datablations")
    runs = runs[(runs["U"] >= 1e9) & ~runs["run"].str.contains("dedup|perplex|opt")]
    fit = fit_manifold(runs[["N", "D", "U", "value", "run"]], laws.DataConstrained(tie=True))
    paper = published(laws.DataConstrained, "c4")
    assert fit.theta["r_D"] == pytest.approx(paper["r_D"], rel=0.1)
    assert fit.theta["r_N"] == pytest.approx(paper["r_N"], rel=0.2)
    assert fit.theta["alpha"] == pytest.approx(paper["alpha"], abs=0.015)
    assert fit.theta["E"] == pytest.approx(paper["E"], abs=0.05)


@pytest.mark.parametrize(("trained_on", "name"), [("c4_original", "c4"), ("rpj", "redpajama")])
def test_overtraining_exponent_of_the_paper_comes_out_of_its_runs(trained_on, name):
    runs = datasets.load("mlfoundations_losses")
    runs = runs[(runs["corpus"] == trained_on) & (runs["task"] == "c4_val")]
    fit = fit_manifold(runs[["N", "D", "value", "run"]], "overtraining")
    paper = published(laws.Overtraining, name)
    assert fit.theta["eta"] == pytest.approx(paper["eta"], abs=0.025)
    assert fit.theta["E"] == pytest.approx(paper["E"], abs=0.25)


def test_approach_3_on_the_extracted_chinchilla_runs_is_the_published_replication(shared_data):
    runs = pd.read_csv(shared_data / "results" / "chinchilla_epoch.csv").rename(columns={"loss": "value"})
    found = laws.chinchilla_approach_3(runs[runs["epoch_excluded"] == 0])
    paper = laws.CHINCHILLA_PUBLISHED["besiroglu"].parameters
    for name in ("E", "alpha", "beta"):
        assert found.fit.theta[name] == pytest.approx(paper[name], rel=0.01)
    assert 15 < found.predict(5.76e23)["tokens_per_parameter"].iloc[0] < 25


def test_two_stages_on_the_ladder_predict_its_largest_models():
    ladder = datasets.load("olmo_ladder")
    ladder = ladder[ladder["task"] == "hellaswag_val_rc_5shot"]
    table = ladder.pivot(index=["N", "D", "run"], columns="metric", values="value").reset_index()
    table = table.rename(columns={"bits_per_byte": "loss", "accuracy_len_norm": "value"})
    large = table["N"] * table["D"] > np.quantile(table["N"] * table["D"], 0.8)
    two = laws.fit_two_stage(table[~large].reset_index(drop=True))
    assert np.abs(two.predict(table["N"][large], table["D"][large]) - table["value"][large]).mean() < 0.03
