"""What a fit hands out beside its parameters: distances, frames, units, limits, profiles, backtests, replicates."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import ragscale as rs
from ragscale.errors import ConfigError, ExtrapolationWarning, FitError, IdentifiabilityWarning
from ragscale.fitting import (
    Bounded,
    Chinchilla,
    Hill,
    Interaction,
    Log1p,
    ManifoldFit,
    Multiplicative,
    Power,
    ScalingLaw,
    backtest,
    fit_manifold,
    profile,
)
from ragscale.fitting._result import unit_factors
from ragscale.fitting.laws._law import Theta

TRUTH = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 410.0, "beta": 0.28}


def table(sigma: float = 0.005, stores: tuple[float, ...] = (0.0, 1e9, 1e10), seed: int = 0) -> pd.DataFrame:
    n, k, r = (x.ravel() for x in np.meshgrid(np.geomspace(3e7, 3e9, 5), [2.0, 10, 50, 200], stores, indexing="ij"))
    value = 1.7 + 400 * n**-0.34 + 410 * (k * n) ** -0.28 - 0.08 * np.log1p(r / 1e9)
    rng = np.random.default_rng(seed)
    value = value * np.exp(sigma * rng.standard_normal(len(n)))
    return pd.DataFrame({"N": n, "D": k * n, "R": r, "value": value, "metric": "loss"})


@pytest.fixture(scope="module")
def fit() -> ManifoldFit:
    return fit_manifold(table(), "log1p")


# Distance from the data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "ratios"),
    [
        ((1e9, 1e10, 1e9), (1.0, 1.0, 1.0)),
        ((3e10, 1e10, 0.0), (10.0, 1.0, 1.0)),
        ((3e6, 1e10, 0.0), (10.0, 1.0, 1.0)),
        ((1e9, 1.2e13, 5e10), (1.0, 20.0, 5.0)),
        ((1e9, 3e6, 1.0), (1.0, 20.0, 1.0)),  # R = 0 is among the rows: any small store lies between two
    ],
)
def test_how_far_counts_lie_outside_of_the_rows(fit: ManifoldFit, counts: Any, ratios: Any):
    (row,) = fit.extrapolation(*counts).to_dict("records")
    assert tuple(row[name] for name in "NDR") == pytest.approx(ratios)
    assert row["ratio"] == max(row[name] for name in "NDR")


def test_a_law_without_a_store_has_no_distance_along_it():
    plain = fit_manifold(table(stores=(0.0,)), "chinchilla")
    found = plain.extrapolation([1e9, 3e10], 1e10, 1e20)
    assert list(found.columns) == ["N", "D", "ratio"]
    assert found["ratio"].tolist() == pytest.approx([1.0, 10.0])


@pytest.mark.parametrize(("n", "warns"), [(2.9e10, False), (3.1e10, True), (3.1e6, False), (2.9e6, True)])
def test_more_than_ten_times_beyond_warns(fit: ManifoldFit, n: float, warns: bool):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit.predict(n, 1e10, 0.0)
    said = [str(one.message) for one in caught if issubclass(one.category, ExtrapolationWarning)]
    assert bool(said) == warns
    if warns:
        assert "N 10.3 times beyond its range" in said[0]


# Frames ---------------------------------------------------------------------------------------------------------------


def test_a_grid_is_crossed_and_a_table_is_taken_row_by_row(fit: ManifoldFit):
    crossed = fit.to_frame({"N": [1e8, 1e9], "D": 1e10, "R": [0.0, 1e9]})
    assert crossed[["N", "D", "R"]].to_numpy().tolist() == [
        [1e8, 1e10, 0.0], [1e8, 1e10, 1e9], [1e9, 1e10, 0.0], [1e9, 1e10, 1e9],
    ]  # fmt: skip
    np.testing.assert_allclose(crossed["predicted"], fit.predict(crossed["N"], crossed["D"], crossed["R"]))
    rows = fit.to_frame(pd.DataFrame({"N": [1e8], "D": [1e10], "label": ["mine"]}))
    assert rows["R"].tolist() == [0.0]
    assert rows["label"].tolist() == ["mine"]
    fitted = fit.to_frame()
    residual = np.log(fitted["predicted"]) - np.log(fitted["value"])
    np.testing.assert_allclose(fitted["residual"], residual, atol=1e-12)
    np.testing.assert_allclose(fit.residuals, residual, atol=1e-12)


def test_slopes_of_the_metric_go_through_the_link():
    scores = table().assign(value=lambda frame: 1 / (1 + np.exp(frame["value"] - 3)), metric="acc")
    fit = fit_manifold(scores, "log1p", link=Bounded(0.0, 1.0))
    at = 1e9, 2e10, 2e9
    for axis, slope in enumerate(fit.gradient(*at)):
        h = 1e-4 * at[axis]
        up, down = ([c + s * h if i == axis else c for i, c in enumerate(at)] for s in (1, -1))
        assert float(slope) == pytest.approx(float(fit.predict(*up) - fit.predict(*down)) / (2 * h), rel=1e-5)
    assert float(fit.gradient(*at)[2]) > 0  # a store helps a score upwards


# Units ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    st.sampled_from(
        [Log1p(), Power(R0="free"), Hill(exponent="free"), Interaction(h="hill", scale_D=True), Multiplicative()]
    ),
    st.sampled_from([1e3, 1e6, 1e9, 7.0]),
    st.integers(0, 2**31),
)
def test_a_law_in_other_units_is_the_same_surface(law: ScalingLaw, unit: float, seed: int):
    rng = np.random.default_rng(seed)
    own = {"C": 0.05, "eta": 1e-9, "gamma": 0.8, "R0": 1e9, "K": 2e9, "n": 1.3, "nu": 0.1, "mu": 0.05}
    theta = {p.name: TRUTH.get(p.name, own.get(p.name, 0.0)) for p in law.parameters if p.name not in law.fixed}
    factors = unit_factors(law, law.theta(theta), unit)
    there = {name: value * factors[name] for name, value in theta.items()}
    fixed = {name: value * factors[name] for name, value in law.fixed.items()}
    n, d, r = 10 ** rng.uniform([[8], [10], [8]], [[11], [13], [11]], (3, 20))
    here = law.loss(n, d, r, theta)
    np.testing.assert_allclose(law.replace(fixed=fixed).loss(n / unit, d / unit, r / unit, there), here, rtol=1e-9)


def test_parameters_in_billions_are_scaled_with_their_intervals(fit: ManifoldFit):
    counts, billions = fit.params, fit.params_in(1e9)
    columns = ["value", "stderr", "low", "high"]
    expected = counts.loc["A", columns].astype(float) * 1e9**-fit.theta.alpha
    np.testing.assert_allclose(billions.loc["A", columns].astype(float), expected)
    assert billions.loc["eta", "value"] == pytest.approx(1e9 * counts.loc["eta", "value"])
    assert billions.loc["alpha", "value"] == counts.loc["alpha", "value"]
    with pytest.raises(ConfigError, match="unit = 0 must be positive"):
        fit.params_in(0)


# Limits ---------------------------------------------------------------------------------------------------------------


def test_the_lowest_value_is_that_of_the_link_or_zero_where_all_are_positive(fit: ManifoldFit):
    assert fit.lowest == 0.0
    assert dataclasses.replace(fit, link=Bounded(0.25, 1.0, direction="up")).lowest == 0.25
    negative = dataclasses.replace(fit, data=fit.data.assign(value=-1.0))
    assert negative.lowest == -np.inf


def test_a_prediction_below_the_lowest_value_is_refused_with_its_place(fit: ManifoldFit):
    sunk = dataclasses.replace(fit, theta=Theta({**fit.theta, "E": -5.0}))
    with pytest.raises(
        FitError, match=r"predicts -\d.* at N = 1e\+09, D = 1e\+10, R = 0, and the metric is never below 0"
    ):
        sunk.predict([1e9, 1e8], 1e10, 0.0)
    assert float(sunk.latent(1e9, 1e10, 0.0)) < 0  # the formula itself is evaluated anywhere


# Profiles: a model that is linear has a parabola ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight(line: ScalingLaw) -> ManifoldFit:
    rng = np.random.default_rng(3)
    n = np.repeat(np.geomspace(1e7, 1e10, 12), 3)
    d = np.tile([1e9, 2e9, 4e9], 12)
    y = 5.0 - 0.2 * np.log(n / 1e8) + 0.05 * rng.standard_normal(36)
    rows = pd.DataFrame({"N": n, "D": d, "R": 0.0, "value": y, "metric": "loss"})
    return fit_manifold(rows, line, loss="least_squares", link="identity", space="linear")


@pytest.mark.parametrize("name", ["E", "slope"])
@pytest.mark.parametrize("level", [0.68, 0.95])
def test_the_profile_of_a_straight_line_is_a_parabola_with_the_ends_of_wald(
    straight: ManifoldFit, name: str, level: float
):
    found = profile(straight, name, confidence_level=level, n_points=9)
    error = straight.params.loc[name, "stderr"]
    half = np.sqrt(stats.chi2.ppf(level, 1)) * error
    assert found.low == pytest.approx(found.value - half, rel=1e-3)
    assert found.high == pytest.approx(found.value + half, rel=1e-3)
    curve = found.curve
    assert len(curve) == 9
    x = np.log(straight.data["N"] / 1e8).to_numpy()
    design = np.stack([np.ones(36), x], axis=1)
    inverse = np.linalg.inv(design.T @ design)[0 if name == "E" else 1, 0 if name == "E" else 1]
    rise = 0.5 * (curve["value"] - found.value) ** 2 / inverse
    np.testing.assert_allclose(curve["objective"] - straight.objective, rise, rtol=1e-5, atol=1e-12)
    slope = np.polyfit(curve["value"], curve["root"], 1)[0]
    assert slope * error == pytest.approx(1.0, rel=1e-3)  # the signed root counts standard errors
    assert found.threshold == pytest.approx(straight.objective + 0.5 * half**2 / inverse, rel=1e-4)
    assert f"{100 * level:g} % profile interval" in found.summary()


def test_a_profile_ends_at_the_bound_of_its_parameter():
    flat = fit_manifold(table(sigma=0.05, stores=(0.0, 1e9)).iloc[:24], Chinchilla())
    found = profile(flat, "alpha", n_points=5)
    low, high = Chinchilla().parameters[2].lower, Chinchilla().parameters[2].upper
    assert low <= found.low < found.value < found.high <= high
    assert found.curve["value"].between(low, high).all()
    for name, said in (("eta", "parameter 'eta' is not free; the free ones are E, A, alpha, B, beta"),):
        with pytest.raises(ConfigError, match=said):
            profile(flat, name)


# Backtests ------------------------------------------------------------------------------------------------------------


def test_a_backtest_predicts_the_rows_of_more_compute_from_those_of_less():
    rows = table(stores=(0.0,), sigma=0.01)
    more = pd.concat([rows, rows.assign(N=rows["N"] * 1.3, D=rows["D"] * 1.7)], ignore_index=True)
    fit = fit_manifold(more, "chinchilla")
    found = backtest(fit, n_resamples=30, origins=(0.5, 0.75), horizon=0.25)
    assert found.origins["n_train"].tolist() == [20, 30]
    assert found.origins["n_test"].tolist() == [10, 10]
    assert found.n_points == 20
    weights = found.origins["n_test"]
    assert found.coverage == pytest.approx(np.average(found.origins["coverage"], weights=weights))
    assert f"Prediction intervals held {found.coverage:.0%} of 20 rows of more compute" in found.summary()
    pd.testing.assert_frame_equal(found.to_frame(), found.origins)
    with pytest.raises(FitError, match=r"a backtest needs 10 rows before its first origin; the table has 40 in all"):
        backtest(fit, n_resamples=5, origins=(0.1,))


# Replicates -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def boot(fit: ManifoldFit) -> rs.fitting.Bootstrap:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        return rs.bootstrap(fit, n_resamples=60, rng=0)


def test_parameters_of_replicates_are_their_quantiles_and_spreads(fit: ManifoldFit, boot: rs.fitting.Bootstrap):
    found = boot.params
    for name in ("E", "alpha", "C", "eta"):
        values = np.asarray(boot.theta[name])
        assert found.loc[name, "value"] == fit.theta[name]
        assert found.loc[name, "stderr"] == pytest.approx(values.std(ddof=1))
        assert tuple(found.loc[name, ["low", "high"]]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    frame = boot.to_frame()
    assert list(frame.columns[:3]) == ["parameter", "value", "stderr"]
    assert {"value_low", "value_high"} <= set(frame.columns)
    assert list(boot.replicates.columns) == [*boot.theta, "objective"]
    assert len(boot.replicates) == 60
    assert boot.summary().startswith("60 resamples of trained models, by N, D, seed: log1p, 95 % intervals")


def test_an_interval_of_the_surface_is_that_of_the_replicates(boot: rs.fitting.Bootstrap):
    at = np.array([1e9, 3e8]), np.array([2e10, 1e10]), np.array([0.0, 2e9])
    low, high = boot.interval(*at)
    values = boot.predict(*at)
    assert values.shape == (60, 2)
    np.testing.assert_allclose(np.log([low, high]), np.quantile(np.log(values), [0.025, 0.975], axis=0))
    again = boot.interval(*at, kind="prediction")
    np.testing.assert_array_equal(again.low, boot.interval(*at, kind="prediction").low)  # always the same draws
    assert (again.high - again.low > high - low).all()


@pytest.mark.parametrize(
    ("sizes", "tokens", "said"),
    [
        (5, 3, "15 trained models (below 20) and 5 values of N (below 6)"),
        (5, 5, "the table has 5 values of N (below 6)"),
        (6, 3, "the table has 18 trained models (below 20)"),
        (6, 4, ""),
    ],
)
def test_few_models_or_sizes_are_said_of_a_bootstrap(sizes: int, tokens: int, said: str):
    n, k = (x.ravel() for x in np.meshgrid(np.geomspace(3e7, 3e9, sizes), np.geomspace(2, 200, tokens), indexing="ij"))
    rows = pd.DataFrame({"N": n, "D": k * n, "R": 0.0, "value": 1.7 + 400 * n**-0.34 + 410 * (k * n) ** -0.28})
    fit = fit_manifold(rows.assign(metric="loss"), "chinchilla")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rs.bootstrap(fit, n_resamples=2, rng=0)
    messages = [str(one.message) for one in caught if issubclass(one.category, IdentifiabilityWarning)]
    assert bool(messages) == bool(said)
    if said:
        assert said in messages[0]
