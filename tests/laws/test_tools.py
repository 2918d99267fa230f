"""Tools beside the laws: repeat or retrieve, context budgets, success rates."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ragscale import datasets
from ragscale.errors import ConfigError, ExtrapolationWarning
from ragscale.fitting import Log1p, fit_manifold, laws

PUBLISHED = dict(laws.DataConstrained.published["c4"].parameters)


class Store:
    """What a fit with a store predicts, from given parameters."""

    def __init__(self, gain: float, eta: float = 1e-9) -> None:
        base = {name: PUBLISHED[name] for name in ("E", "alpha", "beta")}
        base |= {name: PUBLISHED[name] * 1e9 ** base[power] for name, power in (("A", "alpha"), ("B", "beta"))}
        self.theta = base | {"C": gain, "eta": eta}

    def predict(self, N, D, R):
        return Log1p().loss(N, D, R, self.theta)


def test_without_a_gain_everything_is_trained_on():
    split = laws.repeat_or_retrieve(PUBLISHED, Store(0.0), N=1e9, D=2e10, pool=2e10)
    assert split.boundary == "all trained"
    assert split.epochs == pytest.approx(1.0)
    assert split.loss == pytest.approx(split.loss_all_trained)


def test_a_store_makes_repeating_worth_it():
    split = laws.repeat_or_retrieve(PUBLISHED, Store(0.05), N=1e9, D=2e10, pool=2e10)
    assert split.boundary == "interior"
    assert split.epochs > 1.5
    assert pytest.approx(2e10 - split.unique) == split.R
    assert split.loss < split.loss_all_trained


@given(st.floats(0.001, 0.3), st.floats(1e-11, 1e-7), st.floats(1e9, 1e12), st.floats(0.2, 8.0))
def test_the_split_is_the_best_of_a_brute_search(gain, eta, d, share):
    store, pool = Store(gain, eta), share * d
    if d / 64 > pool:
        return
    split = laws.repeat_or_retrieve(PUBLISHED, store, N=1e9, D=d, pool=pool)
    unique = np.geomspace(d / 64, min(d, pool), 4001)
    fresh = laws.effective_tokens(d, unique, PUBLISHED)
    left = np.maximum(pool - unique, 0)
    brute = laws.DataConstrained().loss(1e9, d, 0, PUBLISHED, U=unique) - (
        store.predict(1e9, fresh, 0.0) - store.predict(1e9, fresh, left)
    )
    assert split.loss <= brute.min() + 1e-12
    assert split.unique <= min(d, pool)


def test_cases_broadcast_and_come_as_a_table():
    split = laws.repeat_or_retrieve(PUBLISHED, Store(0.02), N=[[1e8], [1e9]], D=2e10, pool=[1e10, 4e10, 1e11])
    assert split.loss.shape == (2, 3)
    frame = split.to_frame()
    assert len(frame) == 6
    # a larger corpus never hurts: what is not needed can be left in the store
    assert (np.diff(split.loss, axis=1) < 0).all()


def test_a_corpus_that_is_too_small_is_refused():
    with pytest.raises(ConfigError, match="max_epochs"):
        laws.repeat_or_retrieve(PUBLISHED, Store(0.02), N=1e9, D=1e12, pool=1e9)
    with pytest.raises(ConfigError, match="pool must be positive"):
        laws.repeat_or_retrieve(PUBLISHED, Store(0.02), N=1e9, D=1e12, pool=0)


THETA = {"a_doc": 0.3, "a_shot": 0.1, "a_iter": 0.2, "c": -1.0}


@given(st.floats(-0.2, 0.8), st.floats(-0.2, 0.8), st.floats(-0.2, 0.8), st.floats(150, 1e6), st.floats(0.0, 8.0))
def test_the_setting_is_the_best_that_fits(a_doc, a_shot, a_iter, budget, per_shot):
    law, theta = laws.InferenceScaling(), {"a_doc": a_doc, "a_shot": a_shot, "a_iter": a_iter, "c": -1.0}
    length = laws.ContextLength(documents_per_shot=per_shot)
    found = laws.best_inference_setting(law, theta, budget=budget, length=length)
    best = -np.inf
    for k in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        for m in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256):
            n = np.arange(1, 6)
            value = law.loss(1, 1, 0, theta, k=k, n_shot=m, n_iterations=n)
            fits = n * (100 + 128 * k + m * (100 + per_shot * 128)) <= budget
            best = max(best, value[fits].max(initial=-np.inf))
    assert found.performance[0] == pytest.approx(best, rel=1e-12)
    assert found.tokens[0] <= budget


def test_more_context_never_hurts_and_ties_go_to_the_shorter_prompt():
    law = laws.InferenceScaling()
    found = laws.best_inference_setting(law, THETA, budget=np.geomspace(200, 5e6, 30))
    assert (np.diff(found.performance) >= 0).all()
    assert len(found.to_frame()) == 30
    flat = laws.best_inference_setting(law, dict.fromkeys(THETA, 0.0), budget=1e6)
    assert (flat.k[0], flat.n_shot[0], flat.n_iterations[0]) == (0, 0, 1)


def test_a_budget_below_the_question_is_refused():
    with pytest.raises(ConfigError, match="nothing fits"):
        laws.best_inference_setting(laws.InferenceScaling(), THETA, budget=50)
    with pytest.raises(ConfigError, match="shift"):
        laws.InferenceScaling(shift=0.0).loss(1, 1, 0, THETA, k=0, n_shot=1, n_iterations=1)


@pytest.mark.parametrize("successes", [1, 2, 10])
def test_the_interval_of_a_success_rate_covers_at_least_as_often_as_it_says(successes):
    rng = np.random.default_rng(successes)
    tries = rng.negative_binomial(successes, 0.003, size=20_000) + successes
    found = laws.success_rate(tries, successes, confidence_level=0.9)
    covered = ((found.lower <= 0.003) & (found.upper >= 0.003)).mean()
    assert 0.895 <= covered <= 0.93
    if successes > 1:
        assert found.unbiased.mean() == pytest.approx(0.003, rel=0.05)


def test_the_interval_is_the_exact_one():
    # invert the tails of the negative binomial, as scipy has them (failures before the successes)
    found = laws.success_rate(50, 3)
    assert stats.nbinom.cdf(50 - 3, 3, float(found.lower)) == pytest.approx(0.025, rel=1e-6)
    assert stats.nbinom.sf(50 - 3 - 1, 3, float(found.upper)) == pytest.approx(0.025, rel=1e-6)
    assert laws.success_rate(3, 3).upper == 1.0


def test_tries_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="tries"):
        laws.success_rate(1, 2)
    with pytest.raises(ConfigError, match="successes"):
        laws.success_rate(10, 0)
    for tries in (1.5, [3.0, 2.5]):  # whole numbers, however many
        with pytest.raises(ConfigError, match="tries must be whole numbers"):
            laws.success_rate(tries, 1)
    with pytest.raises(ConfigError, match="successes must be whole numbers"):
        laws.success_rate(10, [1.0, 1.5])
    with pytest.raises(ConfigError, match="confidence_level = 1"):
        laws.success_rate(10, 1, confidence_level=1)


def test_only_an_answer_far_outside_the_stores_data_warns():
    table = datasets.simulate("log1p", noise=0.002, rng=0)
    store = fit_manifold(table, "log1p")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = laws.repeat_or_retrieve(PUBLISHED, store, N=1e9, D=2e10, pool=2e10)
    assert inside.boundary == "interior"
    with pytest.warns(ExtrapolationWarning):
        laws.repeat_or_retrieve(PUBLISHED, store, N=1e9, D=2e10, pool=1e15)
