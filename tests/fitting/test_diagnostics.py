"""What is said of a fit before it is believed: every threshold, and the numbers against their formulas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import ragscale as rs
from ragscale.fitting import ManifoldFit, ScalingLaw, fit_manifold, retrieval_effect
from ragscale.fitting._diagnostics import _robust_spread, _tradeoff_findings
from ragscale.fitting._misfit import Pattern, parity_slope, patterns, verdict

# Parity ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.0, 1.5))
def test_the_slope_of_a_parity_plot_is_that_of_weighted_least_squares(seed: int, slope: float):
    rng = np.random.default_rng(seed)
    y, w = rng.standard_normal(40), rng.uniform(0.5, 2.0, 40)
    predicted = slope * y + 0.3
    residual = predicted - y
    distance = np.abs(residual)
    near = distance <= max(np.quantile(distance, 0.9), 5 * np.median(distance))
    expected = np.polyfit(y[near], predicted[near], 1, w=np.sqrt(w[near]))[0]
    assert parity_slope(y, residual, w) == pytest.approx(expected, abs=1e-9)


def test_a_tenth_of_wild_rows_does_not_turn_the_slope():
    y = np.linspace(0.0, 1.0, 50)
    residual = np.where(np.arange(50) % 10 == 9, 50.0, 1e-3)
    assert parity_slope(y, residual, np.ones(50)) == pytest.approx(1.0, abs=1e-6)


def test_observations_that_do_not_vary_have_the_slope_of_a_good_fit():
    assert parity_slope(np.full(9, 2.0), np.linspace(-1, 1, 9), np.ones(9)) == 1.0
    assert parity_slope(np.linspace(0, 1, 9), np.zeros(9), np.zeros(9)) == 1.0


@pytest.mark.parametrize(
    ("slope", "at_bounds", "n_free", "describes"),
    [
        (0.81, 5, 5, True),
        (0.79, 0, 5, True),
        (0.79, 1, 5, True),  # one parameter at its bound happens
        (0.79, 2, 5, False),
        (0.79, 2, 6, False),
        (0.79, 2, 7, True),  # two of seven are less than a third
        (0.51, 0, 5, True),
        (0.49, 0, 5, False),
        (-0.2, 0, 5, False),
    ],
)
def test_a_law_describes_the_data_where_predictions_follow_them(slope, at_bounds, n_free, describes):
    text, odd = verdict(slope, at_bounds, n_free, [], "log")
    assert (text == "") == describes
    assert odd == []
    if not describes:
        assert f"move {max(slope, 0):.0%} as much" in text
        assert (f"{at_bounds} of {n_free} parameters stand at their bounds" in text) == bool(at_bounds)
        assert text.endswith("Do not decide with it.")


def test_a_pattern_is_said_in_percent_or_in_the_unit_of_the_metric():
    found = [Pattern("D", 0.4, 1e9, -0.02, 1e11, 0.03)]
    (relative,) = verdict(1.0, 0, 5, found, "log")[1]
    assert "Residuals go with D (40% of their variance)" in relative
    assert "too much at D = 1e+11 (+3 %) and too little at 1e+09 (-2 %)" in relative
    (absolute,) = verdict(1.0, 0, 5, found, "linear")[1]
    assert "too much at D = 1e+11 (+0.03) and too little at 1e+09 (-0.02)" in absolute
    assert "residuals go with D. Do not" in verdict(0.1, 0, 5, found, "log")[0]


# Patterns -------------------------------------------------------------------------------------------------------------


def grid(stores: tuple[float, ...] = (0.0, 1e9, 1e10)) -> pd.DataFrame:
    n, d, r = (x.ravel() for x in np.meshgrid([1e8, 3e8, 1e9, 3e9], [1e10, 3e10, 1e11, 3e11], stores, indexing="ij"))
    return pd.DataFrame({"N": n, "D": d, "R": r})


def cluster_of(table: pd.DataFrame) -> np.ndarray:
    return table.groupby(["N", "D"]).ngroup().to_numpy()


def noise(table: pd.DataFrame, seed: int = 0) -> np.ndarray:
    return 0.01 * np.random.default_rng(seed).standard_normal(len(table))


@pytest.mark.parametrize("name", ["N", "D", "R"])
def test_residuals_that_rise_with_a_variable_are_found_with_their_ends(name: str):
    table = grid()
    level = table[name].rank(method="dense").to_numpy() - 1.0
    (found,) = patterns(table, noise(table) + 0.03 * (level - level.mean()), cluster_of(table))
    assert found.variable == name
    assert found.share > 0.5
    assert (found.low_at, found.high_at) == (table[name].min(), table[name].max())
    assert found.low < 0 < found.high


def test_noise_shows_no_pattern():
    table = grid()
    assert sum(bool(patterns(table, noise(table, seed), cluster_of(table))) for seed in range(40)) == 0


def test_what_models_differ_in_is_no_pattern_along_their_stores():
    table = grid()
    own = np.random.default_rng(1).standard_normal(16)[cluster_of(table)]
    assert "R" not in [one.variable for one in patterns(table, own + noise(table), cluster_of(table))]


def test_two_values_of_a_variable_are_too_few_for_a_pattern():
    table = grid(stores=(0.0, 1e9))
    rising = noise(table) + 0.1 * (table["R"] > 0)
    assert "R" not in [one.variable for one in patterns(table, rising, cluster_of(table))]


def test_of_many_values_eighths_stand_for_levels():
    n = np.geomspace(1e7, 1e10, 80)
    table = pd.DataFrame({"N": n, "D": 1e10, "R": 0.0})
    (found,) = patterns(table, noise(table) + 0.02 * np.log(n / 1e8), np.arange(80))
    assert found.variable == "N"
    assert n[0] < found.low_at < n[10]
    assert n[-11] < found.high_at < n[-1]


def test_a_single_wild_row_makes_no_pattern():
    table = grid()
    residual = noise(table)
    residual[0] = 100.0
    assert patterns(table, residual, cluster_of(table)) == []


# Does retrieval help, by the metric -----------------------------------------------------------------------------------


def pairs(changes: list[float], level: float = 3.0, metric: str = "loss") -> pd.DataFrame:
    rows = [(1e8 * (i + 1), 1e10, r, level + 0.1 * i + (change if r else 0.0))
            for i, change in enumerate(changes) for r in (0.0, 1e9)]  # fmt: skip
    return pd.DataFrame(rows, columns=["N", "D", "R", "value"]).assign(metric=metric)


def test_the_change_is_the_mean_over_models_with_students_interval():
    changes = [-0.1, -0.2, -0.15, -0.3]
    found = retrieval_effect(pairs(changes), "linear")
    low, high = stats.t.interval(0.95, 3, loc=np.mean(changes), scale=stats.sem(changes))
    assert (found.change, found.low, found.high) == pytest.approx((np.mean(changes), low, high))
    assert (found.verdict, found.n_models) == ("helps", 4)
    relative = retrieval_effect(pairs(changes))
    assert relative.change == pytest.approx(np.mean([np.log1p(c / (3 + 0.1 * i)) for i, c in enumerate(changes)]))


@pytest.mark.parametrize(
    ("changes", "metric", "said"),
    [
        ([-0.1, -0.2, -0.15], "loss", "helps"),
        ([0.1, 0.2, 0.15], "loss", "hurts"),
        ([0.1, 0.2, 0.15], "acc", "helps"),
        ([-0.1, -0.2, -0.15], "acc", "hurts"),
        ([-0.1, 0.2, -0.15], "loss", "cannot be told"),
        ([-0.001, 0.002, -0.001], "loss", "does not help"),  # surely within 2 %
        ([-0.009, 0.012, -0.011], "acc", "cannot be told"),
        ([-0.1], "loss", "not measured"),
    ],
)
def test_the_verdict_goes_by_the_interval_and_the_direction_of_the_metric(changes, metric, said):
    found = retrieval_effect(pairs(changes, level=0.5, metric=metric), "linear")
    assert found.verdict == said
    words = {
        "helps": "Retrieval helps here",
        "hurts": "Retrieval hurts here",
        "does not help": "Retrieval does not help here: its effect is nearly zero",
        "cannot be told": "Whether retrieval helps cannot be told",
        "not measured": "One trained model was evaluated",
    }
    assert words[said] in found.summary()


def test_gold_and_random_passages_are_no_store():
    plain = pairs([-0.1, -0.2, -0.15]).assign(
        condition=lambda frame: np.where(frame["R"] > 0, "retrieved", "closed-book")
    )
    more = pd.concat([plain, plain.query("R > 0").assign(condition="gold", value=0.1)], ignore_index=True)
    assert retrieval_effect(more).change == retrieval_effect(plain).change


def test_models_without_a_pair_say_nothing():
    found = retrieval_effect(pairs([-0.1, -0.2]).query("R > 0"))
    assert (found.verdict, found.n_models) == ("not measured", 0)
    assert found.summary().startswith("Whether retrieval helps is not measured")
    assert np.isnan(found.to_frame()["change"]).all()


# Findings -------------------------------------------------------------------------------------------------------------


def table_of(sizes: int, tokens: int, *, sigma: float = 0.005, seed: int = 0) -> pd.DataFrame:
    n, k = (x.ravel() for x in np.meshgrid(np.geomspace(3e7, 1e10, sizes), np.geomspace(2, 200, tokens), indexing="ij"))
    value = 1.7 + 400 * n**-0.34 + 410 * (k * n) ** -0.28
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"N": n, "D": k * n, "R": 0.0, "value": value * np.exp(sigma * rng.standard_normal(len(n)))})


def texts(fit: ManifoldFit) -> dict[str, str]:
    return {finding.topic: finding.text for finding in fit.diagnostics.findings}


@pytest.mark.parametrize(
    ("sizes", "tokens", "few_models", "few_sizes"),
    [(4, 4, True, True), (5, 4, False, True), (6, 4, False, False), (6, 3, True, False)],
)
def test_few_models_and_few_sizes_are_said(sizes, tokens, few_models, few_sizes):
    found = texts(fit_manifold(table_of(sizes, tokens), "chinchilla"))
    assert ("few models" in found) == few_models
    assert ("few sizes" in found) == few_sizes
    if few_models:
        assert found["few models"] == f"Only {sizes * tokens} trained models: intervals are rough below 20."
    if few_sizes:
        assert f"rest on {sizes} values of N: at least 6" in found["few sizes"]


def test_counts_that_rise_together_are_named():
    table = table_of(8, 3)
    together = table.assign(D=20 * table["N"] * np.tile([0.9, 1.0, 1.1], 8))
    found = texts(fit_manifold(together, "chinchilla"))
    assert "D and N rise together in this table" in found["design"]
    assert "Vary D at fixed N" in found["design"]
    assert "design" not in texts(fit_manifold(table, "chinchilla"))


@pytest.mark.parametrize(("r", "said"), [(0.94, False), (0.96, True), (-0.96, True)])
def test_a_trade_off_begins_at_a_correlation_of_95_percent(r: float, said: bool):
    names = ["A", "alpha"]
    found = _tradeoff_findings(pd.DataFrame([[1.0, r], [r, 1.0]], names, names), 10.0)
    assert bool(found) == said
    if said:
        assert found[0].text.startswith(f"A and alpha trade off (correlation {r:+.3f})")


@pytest.mark.parametrize(("condition", "said"), [(9e3, False), (1.1e4, True)])
def test_nearly_redundant_parameters_are_said(condition: float, said: bool):
    found = _tradeoff_findings(pd.DataFrame([[1.0]], ["A"], ["A"]), condition)
    assert [finding.topic for finding in found] == (["condition"] if said else [])


def test_rows_far_from_the_surface_are_counted_by_a_robust_spread():
    table = table_of(6, 5)
    table.loc[3, "value"] *= 1.5
    fit = fit_manifold(table, "chinchilla")
    spread = _robust_spread(fit.residuals)
    assert texts(fit)["outliers"].startswith("1 of 30 rows lie more than 5 of these")
    assert f"robust standard deviation of {spread:.3g} (relative)" in texts(fit)["residuals"]
    assert "outliers" not in texts(fit_manifold(table_of(6, 5), "chinchilla", delta="auto"))


@settings(max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=60))
def test_a_robust_spread_is_the_smaller_of_two_and_never_zero(values: list[float]):
    r = np.array(values)
    spread = _robust_spread(r)
    quartiles = (np.quantile(r, 0.75) - np.quantile(r, 0.25)) / 1.349
    assert spread == pytest.approx(max(min(r.std(), quartiles), 1e-12))


# Numbers of a model that is linear, where textbooks have them ---------------------------------------------------------


@pytest.fixture(scope="module")
def straight(line: ScalingLaw) -> tuple[ManifoldFit, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    n = np.repeat(np.geomspace(1e7, 1e10, 12), 4)
    d = np.tile([1e9, 2e9, 4e9, 8e9], 12)
    cluster = np.repeat(np.arange(24), 2)  # runs of two rows
    y = 5.0 - 0.2 * np.log(n / 1e8) + 0.05 * rng.standard_normal(48) + 0.1 * rng.standard_normal(24)[cluster]
    table = pd.DataFrame({"N": n, "D": d, "R": 0.0, "value": y, "run": [f"r{c}" for c in cluster]})
    fit = fit_manifold(table, line, loss="least_squares", link="identity", space="linear")
    design = np.stack([np.ones(48), np.log(n / 1e8)], axis=1)
    return fit, design, y, cluster


def test_estimates_and_clustered_errors_are_the_textbooks(straight):
    fit, design, y, cluster = straight
    bread = np.linalg.inv(design.T @ design)
    beta = bread @ design.T @ y
    score = np.stack([design[cluster == c].T @ (y - design @ beta)[cluster == c] for c in range(24)])
    correction = 24 / 23 * 47 / 46
    error = np.sqrt(np.diag(correction * bread @ (score.T @ score) @ bread))
    params = fit.params
    np.testing.assert_allclose(params["value"], beta, rtol=1e-9)
    np.testing.assert_allclose(params["stderr"], error, rtol=1e-6)
    half = stats.t.ppf(0.975, 24 - 2) * error
    np.testing.assert_allclose(params["low"], beta - half, rtol=1e-6)
    np.testing.assert_allclose(params["high"], beta + half, rtol=1e-6)
    assert not params["at_bound"].any()


def test_leverage_sums_to_the_number_of_parameters(straight):
    fit, design, _, cluster = straight
    hat = np.diag(design @ np.linalg.inv(design.T @ design) @ design.T)
    np.testing.assert_allclose(fit.diagnostics.leverage, np.bincount(cluster, weights=hat), rtol=1e-8)
    assert float(fit.diagnostics.leverage.sum()) == pytest.approx(2.0)
    assert fit.diagnostics.n_clusters == 24


def test_condition_and_correlation_are_those_of_the_design(straight):
    fit, design, y, cluster = straight
    scaled = design / np.linalg.norm(design, axis=0)
    singular = np.linalg.svd(scaled, compute_uv=False)
    assert fit.diagnostics.condition == pytest.approx(singular[0] / singular[-1], rel=1e-6)
    bread = np.linalg.inv(design.T @ design)
    residual = y - design @ bread @ design.T @ y
    score = np.stack([design[cluster == c].T @ residual[cluster == c] for c in range(24)])
    covariance = bread @ (score.T @ score) @ bread
    expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert fit.diagnostics.correlation.loc["E", "slope"] == pytest.approx(expected, rel=1e-6)
    assert np.diag(fit.diagnostics.correlation) == pytest.approx(1.0)


def test_findings_are_lines_of_which_warnings_are_marked():
    found = rs.fit_manifold(table_of(4, 4), "chinchilla").diagnostics
    lines = found.summary().splitlines()
    assert len(lines) == len(found.findings) == len(found.to_frame())
    for line, finding in zip(lines, found.findings, strict=True):
        assert line == f"- {'! ' if finding.level == 'warning' else ''}{finding.text}"
    assert list(found.topics()) == list(dict.fromkeys(found.to_frame()["topic"]))
    assert found.describes_data == (found.misfit == "")
