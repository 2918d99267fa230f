"""Model size, tokens and store under a compute budget: the closed form, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import ragscale as rs
from ragscale import fitting
from ragscale.errors import ConfigError

from .conftest import known

HOFFMANN = ("chinchilla", {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28})


def test_hoffmanns_closed_form():
    flops = np.geomspace(1e18, 1e26, 9)
    best = rs.compute_optimal(HOFFMANN, flops=flops)
    g = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / 0.62)
    np.testing.assert_allclose(best.N, g * (flops / 6) ** (0.28 / 0.62), rtol=1e-12)
    np.testing.assert_allclose(best.D, (flops / 6) ** (0.34 / 0.62) / g, rtol=1e-12)
    np.testing.assert_allclose(6 * best.N * best.D, flops, rtol=1e-12)
    assert (best.boundary == "interior").all()
    assert (best.R == 0).all()
    assert best.summary().count("no store") == 9


def test_the_search_finds_the_closed_form_too():
    closed = rs.compute_optimal(known("log1p"), flops=1e22, R=1e10)
    searched = rs.compute_optimal(known("log1p"), flops=1e22, R=1e10, inference_tokens=1e-6)
    assert pytest.approx(closed.N, rel=1e-6) == searched.N
    assert searched.loss == pytest.approx(closed.loss, rel=1e-14)


@settings(max_examples=25)
@given(
    name=st.sampled_from(["chinchilla", "log1p", "log_ratio", "interaction", "effective_data", "multiplicative"]),
    flops=st.floats(1e19, 1e25),
    inference=st.sampled_from([0.0, 1e10, 1e12]),
    store=st.sampled_from([0.0, 3e8, 3e10]),
)
def test_no_model_on_a_fine_grid_is_better_with_a_given_store(name, flops, inference, store):
    law, theta = known(name)
    c = 2e8
    best = rs.compute_optimal((law, theta), flops=flops, R=store, store_flops=c, inference_tokens=inference)
    n = np.geomspace(1e6, 1e14, 8001)
    d = (flops - c * store - 2 * n * inference) / (6 * n)
    loss = law.loss(n[d > 0], d[d > 0], store, theta)
    assert best.loss <= loss.min() + 1e-12
    spent = 6 * best.N * best.D + c * best.R + 2 * best.N * inference
    assert spent == pytest.approx(flops, rel=1e-9)


def test_the_share_is_that_of_the_store_in_all_tokens(fitted):
    best = rs.compute_optimal(known("log1p"), flops=[1e20, 1e22], R=[1e9, 3e11])
    np.testing.assert_allclose(best.share, best.R / (best.D + best.R), rtol=1e-14)
    assert ((best.share > 0) & (best.share < 1)).all()
    free = rs.compute_optimal(known("log1p"), flops=1e22, R="free", store_flops=2e9)
    assert free.share == pytest.approx(free.R / (free.D + free.R), rel=1e-14)
    drawn = rs.compute_optimal(fitted[1], flops=1e20, R=1e9)
    expected = drawn.replicates["R"] / (drawn.replicates["D"] + drawn.replicates["R"])
    np.testing.assert_allclose(drawn.replicates["share"], expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["log1p", "hill", "log_ratio", "interaction", "multiplicative", "effective_data"])
def test_a_free_store_is_no_worse_than_scipys_two_dimensional_search(name):
    law, theta = known(name)
    flops, c = 1e21, 2e9
    best = rs.compute_optimal((law, theta), flops=flops, R="free", store_flops=c)
    assert 6 * best.N * best.D + c * best.R == pytest.approx(flops, rel=1e-9)

    def loss(x):
        n, r = np.exp(np.clip(x, 0, 60))
        d = (flops - c * r) / (6 * n)
        return float(law.loss(n, d, r, theta)) if d >= 1e3 else 1e3

    starts = [(np.log(n), np.log(r)) for n in (1e8, 1e9, 1e10) for r in (1e6, 1e9, 1e11)]
    found = min(minimize(loss, s, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14}).fun for s in starts)
    closed_book = rs.compute_optimal((law, theta), flops=flops).loss
    assert best.loss <= min(found, closed_book) + 1e-10
    if best.boundary == "interior":
        assert best.exchange_rate == pytest.approx(c / (6 * best.N), rel=1e-5)


def test_a_store_without_a_price_is_filled_to_its_limit():
    best = rs.compute_optimal(known("log1p"), flops=1e21, R="free", max_R=1e11)
    assert (best.R, best.boundary) == (pytest.approx(1e11), "R=max")
    assert pytest.approx(rs.compute_optimal(known("log1p"), flops=1e21).N, rel=1e-5) == best.N


def test_serving_more_tokens_asks_for_a_smaller_model_trained_longer():
    best = rs.compute_optimal(HOFFMANN, flops=1e23, inference_tokens=[0, 1e11, 1e12, 1e13])
    assert (np.diff(best.N) < 0).all()
    assert (np.diff(best.D / best.N) > 0).all()


def test_limits_hold_and_are_reported():
    small = rs.compute_optimal(HOFFMANN, flops=1e23, max_N=1e9)
    assert (small.N, small.boundary) == (pytest.approx(1e9), "N=max")
    large = rs.compute_optimal(HOFFMANN, flops=1e19, min_N=1e9)
    assert (large.N, large.boundary) == (pytest.approx(1e9), "N=min")
    scarce = rs.compute_optimal(HOFFMANN, flops=1e23, max_D=1e11)
    assert scarce.D <= 1e11 * (1 + 1e-12)
    assert pytest.approx(1e23 / 6e11, rel=1e-6) == scarce.N


def test_a_bootstrap_gives_intervals_of_everything(fitted):
    best = rs.compute_optimal(fitted[1], flops=[1e19, 1e20], R=1e9)
    assert best.replicates["N"].shape == (200, 2)
    low, high = best.interval("N")
    assert (low < best.N).all()
    assert (high > best.N).all()
    assert "N_low" in best.to_frame()
    assert "FLOPs" in best.summary()


def test_free_replicates_equal_one_by_one(fitted):
    fit, bootstrap = fitted
    best = rs.compute_optimal(bootstrap, flops=1e20, R="free", store_flops=2e9)
    theta = {name: float(values[11]) for name, values in bootstrap.theta.items()}
    one = rs.compute_optimal((fit.law, theta), flops=1e20, R="free", store_flops=2e9)
    assert best.replicates["R"][11] == pytest.approx(one.R, rel=1e-5)
    assert best.replicates["N"][11] == pytest.approx(one.N, rel=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"flops": 0},
        {"flops": 1e20, "R": "lots"},
        {"flops": 1e20, "R": "free"},
        {"flops": 1e20, "R": 1e12, "store_flops": 1e9},
        {"flops": 1e5},
        {"flops": 1e20, "max_N": 1e3, "min_N": 1e6},
        {"flops": 1e20, "inference_tokens": -1},
    ],
)
def test_impossible_budgets_are_refused(arguments):
    with pytest.raises(ConfigError):
        rs.compute_optimal(("log1p", known("log1p")[1]), **arguments)


def test_a_users_own_law_works():
    class Own(fitting.ScalingLaw):
        parameters = (fitting.Parameter("E", 0, 10),)

        def _loss(self, n, d, r, theta):
            return theta.E + 300 * n**-0.3 + 300 * d**-0.3

    best = rs.compute_optimal((Own(), {"E": 1.0}), flops=6e20)
    assert pytest.approx(1e10, rel=1e-4) == best.N
    assert pytest.approx(1e10, rel=1e-4) == best.D
