"""Numbers that papers and their code print, reproduced from the published parameters."""

from __future__ import annotations

import numpy as np
import pytest

from ragscale import datasets
from ragscale.fitting import Chinchilla, laws


def values(law, name):
    return law.published[name].parameters


def test_two_models_of_25_billion_unique_tokens_as_the_authors_code_prints_them():
    # README of huggingface/datablations: print(scaling_law(6.34e9, 242e9, 25e9)) and (8.67e9, 178e9, 25e9)
    found = laws.DataConstrained().loss([6.34e9, 8.67e9], [242e9, 178e9], 0, values(laws.DataConstrained, "c4"), U=25e9)
    np.testing.assert_allclose(found, [2.2256440889984477, 2.2269634075087767], rtol=1e-12)


def test_the_best_number_of_epochs_for_the_budget_of_8b_parameters_and_178b_tokens():
    # the same README finds by grid search: 227B tokens, 9.1 epochs, 6.8B parameters for 25B unique tokens
    factor = np.geomspace(1 / 3, 3, 2001)
    losses = laws.DataConstrained().loss(8.67e9 / factor, 178e9 * factor, 0, values(laws.DataConstrained, "c4"), U=25e9)
    best = factor[losses.argmin()]
    assert 178 * best == pytest.approx(227, abs=1)
    assert 178 * best / 25 == pytest.approx(9.1, abs=0.05)
    assert 8.67 / best == pytest.approx(6.8, abs=0.05)


def test_four_epochs_are_almost_as_good_as_new_data():
    # arXiv 2305.16264, abstract: up to 4 epochs the change is negligible, and the value of repeating decays to nothing
    published = values(laws.DataConstrained, "c4")
    law = laws.DataConstrained()
    repeated, fresh = law.loss(8.7e9, 178e9, 0, published, U=[178e9 / 4, 178e9])
    assert 0 < repeated - fresh < 0.01 * fresh
    assert laws.effective_tokens(1e15, 1e9, published) == pytest.approx((1 + published["r_D"]) * 1e9)


@pytest.mark.parametrize(
    ("alpha", "beta", "spread", "percent"),
    [
        # results/article/extrapolation_error/extrapolation_error_data.csv of Open-Athena/scaling-law-analysis:
        # relative error in per cent of the tokens at 1e24 FLOPs, 15 sizes a computation, no noise
        (0.34, 0.28, 2, -0.326937803732719),
        (0.34, 0.28, 4, -1.301125043704300),
        (0.34, 0.28, 8, -2.902904738135434),
        (0.34, 0.28, 16, -5.100244551712022),
        (0.465, 0.155, 2, -1.674747716507073),
        (0.465, 0.155, 16, -23.116308048545221),
        (0.31, 0.31, 16, 0.0),
    ],
)
def test_the_bias_of_isoflop_parabolas_is_what_the_paper_measures(alpha, beta, spread, percent):
    factor = laws.isoflop_bias(alpha, beta, spread=spread, n_points=15)
    assert 100 * (1 / factor - 1) == pytest.approx(percent, rel=1e-8, abs=1e-8)


def test_chinchilla_optimum_has_the_intercept_and_slope_of_the_analysis_of_approach_2():
    # arXiv 2603.22339, table of the Chinchilla surface: D* exponent 0.548387, intercept -0.555357 (log10)
    best = laws.chinchilla_optimum(laws.CHINCHILLA_PUBLISHED["hoffmann"].parameters, [1e17, 1e21, 1e24])
    slope, intercept = np.polyfit(np.log10(best["flops"]), np.log10(best["D"]), 1)
    assert slope == pytest.approx(0.548387, abs=5e-7)
    assert intercept == pytest.approx(-0.555357, abs=5e-7)
    assert best["D"].iloc[-1] == pytest.approx(4.035834749563681e12, rel=1e-12)


def test_the_corrected_chinchilla_fit_recommends_about_twenty_tokens_per_parameter():
    # arXiv 2404.10102: its fit agrees with approaches 1 and 2 (about 20); the published values of approach 3 do not
    at = 5.76e23
    new = laws.chinchilla_optimum(laws.CHINCHILLA_PUBLISHED["besiroglu"].parameters, at)
    old = laws.chinchilla_optimum(laws.CHINCHILLA_PUBLISHED["hoffmann"].parameters, at)
    assert 15 < new["tokens_per_parameter"].iloc[0] < 25
    assert old["tokens_per_parameter"].iloc[0] > 50
    assert new["N"].iloc[0] == pytest.approx(70e9, rel=0.1)


def test_the_optimum_is_the_least_loss_on_the_line_of_equal_computation():
    published = laws.CHINCHILLA_PUBLISHED["besiroglu"].parameters
    best = laws.chinchilla_optimum(published, 1e22)
    n = np.geomspace(0.1, 10, 4001) * best["N"].iloc[0]
    losses = Chinchilla().loss(n, 1e22 / (6 * n), 0, published)
    assert n[losses.argmin()] == pytest.approx(best["N"].iloc[0], rel=2e-3)
    assert losses.min() == pytest.approx(best["loss"].iloc[0], rel=1e-9)


def test_kaplan_exponents_double_what_the_paper_says_they_do():
    # arXiv 2001.08361, section 1.2: doubling N multiplies the loss by 2^-alpha_N = 0.95
    law, published = laws.KaplanN(), values(laws.KaplanN, "kaplan")
    one, two = law.loss([1e9, 2e9], 1, 0, published)
    assert two / one == pytest.approx(0.95, abs=0.002)
    # equation 4.3/4.4: to keep overfitting away data must grow as N^(alpha_N/alpha_D) = N^0.74
    joint = values(laws.Kaplan, "kaplan")
    assert joint["alpha_N"] / joint["alpha_D"] == pytest.approx(0.74, abs=0.005)
    excess = [
        float(laws.Kaplan().loss(n, 5e3 * n**0.74, 0, joint) / laws.Kaplan().loss(n, 1e60, 0, joint))
        for n in (1e7, 1e9, 1e11)
    ]
    assert np.ptp(excess) < 0.002
    assert excess[0] == pytest.approx(1.02, abs=0.02)


def test_the_break_of_four_digit_addition_is_where_figure_4_shows_it():
    # arXiv 2210.14891, figure 4 (right): flat above 2 until about 400 examples, then down to about 0.5 near 800
    law = laws.BrokenPowerLaw()
    loss = law.loss(1, [144, 400, 600, 800, 1000], 0, values(law, "addition"))
    assert loss[1] > 1.9
    assert 0.5 < loss[3] < 0.95
    # straight from the authors' formula, written out for one break
    p = values(law, "addition")
    x = np.array([144.0, 400, 600, 800, 1000])
    written = p["a"] + p["b"] * x ** -p["c0"] * (1 + (x / p["d1"]) ** (1 / p["f1"])) ** (-p["c1"] * p["f1"])
    np.testing.assert_allclose(loss, written, rtol=1e-12)


def test_broken_power_law_of_figure_1_decomposes_into_its_segments():
    # make_figure_1 of the authors: three breaks; far from every break one power law each
    theta = {"a": 1e-3, "b": 4.66e3, "c0": 0.05, "c1": 0.49, "d1": 3e6, "f1": 1.1, "c2": -0.811, "d2": 1e14}
    theta |= {"f2": 1.425, "c3": 2.1, "d3": 2e20, "f3": 0.05}
    law = laws.BrokenPowerLaw(n_breaks=3)
    for x, slope in ((1e-3, -0.05), (1e26, -(0.05 + 0.49 - 0.811 + 2.1))):
        low, high = law.loss(1, [x, 1.01 * x], 0, theta) - 1e-3
        assert np.log(high / low) / np.log(1.01) == pytest.approx(slope, abs=2e-3)


@pytest.mark.parametrize(
    ("trained_on", "published", "mean_error"), [("c4_original", "c4", 0.02), ("rpj", "redpajama", 0.02)]
)
def test_published_overtraining_laws_predict_the_authors_own_runs(trained_on, published, mean_error):
    runs = datasets.load("mlfoundations_losses")
    runs = runs[(runs["corpus"] == trained_on) & (runs["task"] == "c4_val")]
    predicted = laws.Overtraining().loss(runs["N"], runs["D"], 0, values(laws.Overtraining, published))
    relative = predicted / runs["value"].to_numpy() - 1
    assert np.abs(relative).mean() < mean_error
    assert abs(relative.mean()) < 0.005


def test_compute_allocation_model_ranks_documents_above_shots_above_nothing():
    # arXiv 2410.04343, section 4.4 (1): documents help more than examples; table 8
    p = values(laws.InferenceScaling, "gemini_1.5_flash")
    law = laws.InferenceScaling(informativeness=True, sigmoid=laws.PUBLISHED_SIGMOID)
    at = {"n_iterations": 1, "i_doc": 0.2, "i_shot": 0.05}
    base, more_documents, more_shots = (
        float(law.loss(1, 1, 0, p, k=k, n_shot=m, **at)) for k, m in ((10, 4), (100, 4), (10, 40))
    )
    assert base < more_shots < more_documents
    # sigma of appendix F at the linear predictor, by hand
    x = (0.325 - 0.067 * 0.2) * np.log(10.01) + (0.101 - 0.008 * 0.05) * np.log(4.01) + 0.177 * np.log(1.01) - 0.730
    assert base == pytest.approx(3.30 / (1 + np.exp(-1.81 * (x + 0.46))) - 2.18, rel=1e-12)


def test_best_performance_is_nearly_linear_in_the_logarithm_of_the_context():
    # arXiv 2410.04343, table 1, IterDRAG, F1 of MuSiQue; section 4.3: linear up to a million tokens, then less
    budgets, f1 = [16e3, 32e3, 128e3, 1e6, 5e6], [17.5, 23.1, 28.0, 34.3, 35.0]
    intercept, slope, r_squared = laws.performance_line(budgets[:4], f1[:4])
    assert r_squared > 0.95
    assert 8 < slope < 10
    assert f1[4] < intercept + slope * np.log10(5e6)


def test_pass_rate_of_humaneval_is_below_one_try_but_resolved():
    # arXiv 2310.03262: rates of order 1e-5 are measured by sampling; the estimate is successes / tries
    found = laws.success_rate(200_000, 2)
    assert found.rate == 1e-5
    assert found.lower < 1e-5 < found.upper


def test_direct_law_is_the_papers_equation_in_flops():
    law, theta, c = laws.DirectCompute(), {"A": 0.7, "alpha": 0.2}, 6 * 3e9 * 4e11
    printed = {"A": 0.7 * 1e21**0.2, "alpha": 0.2}  # -log Q = A / C^alpha
    assert law.loss(3e9, 4e11, 0, theta) == pytest.approx(np.exp(-printed["A"] / c**0.2), rel=1e-12)
    theta = {"A": 2.0, "alpha": -0.15, "beta": -0.3, "delta": -0.01}
    k = 16
    log_c = np.log(c)
    log_a = np.log(2.0) - theta["alpha"] * np.log(1e21)
    beta = theta["beta"] - theta["delta"] * np.log(1e21)
    right = log_a + theta["alpha"] * log_c + beta * np.log(k) + theta["delta"] * log_c * np.log(k)
    found = laws.PassAtK().loss(3e9, 4e11, 0, theta, n_samples=k)
    assert np.log(-np.log(found)) == pytest.approx(right, rel=1e-12)


def test_farseer_is_the_papers_equation_for_any_letters():
    letters = {"a1": -0.12, "b1": 0.4, "alpha": 0.12, "a2": 88.0, "b2": -6.3, "beta": -0.1, "a3": -0.02, "b3": -0.1}
    letters["gamma"] = 0.17
    n, d = np.meshgrid(np.geomspace(1e8, 1e11, 5), np.geomspace(1e9, 1e13, 5))
    u = np.exp(letters["a3"] * n ** letters["gamma"] + letters["b3"])
    b = np.exp(letters["a2"] * n ** letters["beta"] + letters["b2"])
    a = np.exp(letters["a1"] * n ** letters["alpha"] + letters["b1"])
    found = laws.Farseer().loss(n, d, 0, laws.farseer_parameters(letters))
    np.testing.assert_allclose(found, u + b * d**-a, rtol=1e-10)


def test_farseers_printed_letters_miss_the_authors_own_runs():
    # arXiv 2506.10972: e^(-.021 N^.169 - .091) + e^(88.01 N^-.1 - 6.287) D^-e^(-.124 N^.123 + .424)
    letters = values(laws.Farseer, "letters")
    assert laws.Farseer().loss(1e9, 1e11, 0, letters) == pytest.approx(0.49857, abs=5e-6)
    runs = datasets.load("farseer")
    off = laws.Farseer().loss(runs["N"], runs["D"], 0, letters) / runs["value"].to_numpy() - 1
    assert 100 * np.abs(off).mean() == pytest.approx(2.4, abs=0.05)
    assert (off < 0).mean() > 0.99  # all to one side: a shift of the letters, not noise of the runs


def farseers_objective(runs, theta):
    """Return the sum of Huber's loss (delta 1e-3) of log residuals, written out."""
    off = np.abs(np.log(laws.Farseer().loss(runs["N"], runs["D"], 0, theta) / runs["value"]))
    return np.where(off <= 1e-3, off**2 / 2, 1e-3 * (off - 5e-4)).sum()


def test_farseers_refit_predicts_the_seven_largest_runs_from_the_others():
    refit = values(laws.Farseer, "farseer_refit")
    runs = datasets.load("farseer").query("part == 'test'")
    seen = runs["value"].to_numpy()
    off = laws.Farseer().loss(runs["N"], runs["D"], 0, refit) / seen - 1
    assert 100 * np.abs(off).mean() < 0.40
    spread = ((seen - seen.mean()) ** 2).sum()
    assert 1 - ((off * seen) ** 2).sum() / spread > 0.93  # arXiv 2604.22753 prints .91 for all of the data


def test_farseers_refit_is_a_minimum_over_the_404_runs():
    refit = dict(values(laws.Farseer, "farseer_refit"))
    runs = datasets.load("farseer").query("part == 'train'")
    best = farseers_objective(runs, refit)
    assert best == pytest.approx(3.88725e-4, rel=1e-5)
    assert best < 0.05 * farseers_objective(runs, values(laws.Farseer, "letters"))
    for name, value in refit.items():
        for step in (-1e-3, 1e-3):
            assert farseers_objective(runs, refit | {name: value + step}) > best


def test_shannon_is_one_over_the_capacity_of_the_channel():
    theta = {"a": 0.05, "alpha": 0.1, "b": 30, "beta": 0.4, "c": 1e-3, "gamma": 0.5, "d": 0.02, "delta": 0.6}
    n, t = 2.8, 300.0
    noise = 1e-3 * (n * t) ** 0.5 + 0.02 * t**0.6 + 1
    capacity = 0.05 * n**0.1 * np.log2(1 + 30 * t**0.4 / noise)
    assert laws.Shannon().loss(2.8e9, 3e11, 0, theta) == pytest.approx(1 / capacity, rel=1e-12)


def test_loss_to_accuracy_is_the_ladders_sigmoid():
    # arXiv 2412.04403, eq. 2: a / (1 + exp(-k (L - L0))) + b
    a, k, l0, b = -0.71, 3.2, 0.9, 0.97
    loss = np.linspace(0.2, 2.5, 9)
    found = laws.LossToAccuracy().loss(1, 1, 0, {"floor": a + b, "ceiling": b, "k": k, "L0": l0}, loss=loss)
    np.testing.assert_allclose(found, a / (1 + np.exp(-k * (loss - l0))) + b, rtol=1e-12)
