"""With very many trained models single Newton steps stand for refits, where refits of some replicates agree."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.fitting import Bootstrap, _resampling
from ragscale.fitting._one_step import CHECKED, disagreement, one_step
from ragscale.fitting._resampling import drawn_models, independent, refit

BY = ("N", "D", "seed")


def runs(count: int, noise: float = 0.002) -> pd.DataFrame:
    """Scattered runs, each at one point, with noise."""
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7.5, 9.5, count), 10 ** rng.uniform(9, 11.5, count)
    loss = 1.7 + 400 * n**-0.34 + 410 * d**-0.28
    return pd.DataFrame({"N": n, "D": d, "value": loss * np.exp(noise * rng.normal(size=count))})


@pytest.fixture(scope="module")
def fit() -> Any:
    return rs.fit_manifold(runs(400), "chinchilla", delta="auto")


def test_steps_spread_as_refits_do_and_the_result_says_which(
    fit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    full = rs.bootstrap(fit, n_resamples=250, rng=1)
    assert full.method == "refits"
    monkeypatch.setattr(_resampling, "MANY_MODELS", 300)
    quick = rs.bootstrap(fit, n_resamples=250, rng=1)
    assert quick.method.startswith("one step each, whose spreads are within ")
    assert quick.method in quick.summary()
    np.testing.assert_allclose(quick.params["stderr"], full.params["stderr"], rtol=0.1)
    assert np.array_equal(quick.theta.alpha[:CHECKED], full.theta.alpha[:CHECKED])
    apart = np.abs(quick.theta.alpha - full.theta.alpha)[CHECKED:]
    assert 0 < apart.max() < 0.5 * full.theta.alpha.std()
    np.testing.assert_allclose(quick.objective, full.objective, rtol=5e-3)
    quick.save(tmp_path / "boot.npz")
    assert Bootstrap.load(tmp_path / "boot.npz").method == quick.method


def test_where_steps_disagree_every_replicate_is_refitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a delta of next to nothing the objective has corners everywhere, and 130 runs are too few to smooth them."""
    fit = rs.fit_manifold(runs(130), "chinchilla", delta=1e-5)
    full = rs.bootstrap(fit, n_resamples=200, rng=1)
    monkeypatch.setattr(_resampling, "MANY_MODELS", 100)
    quick = rs.bootstrap(fit, n_resamples=200, rng=1)
    assert quick.method == "refits"
    np.testing.assert_allclose(quick.theta.alpha, full.theta.alpha, rtol=1e-9)


def test_a_step_with_the_hessian_of_all_rows_would_be_noticed(fit: Any) -> None:
    group = independent(fit.data, BY)
    steps = one_step(fit, group)
    assert steps is not None
    draws = drawn_models(400, 400, CHECKED, np.random.default_rng(0))
    refits = refit(fit.problem, fit, draws[:, group] * fit.problem.table.weight)
    good = steps.replicates(draws)
    assert disagreement(fit, good, refits) < 0.1
    wide = steps.replicates(1 + 1.3 * (draws - 1))
    assert disagreement(fit, wide, refits) > 0.2
    shuffled = good.take(np.random.default_rng(1).permutation(CHECKED))  # the same spreads of the wrong resamples
    assert disagreement(fit, shuffled, refits) == np.inf


def test_a_parameter_at_its_bound_is_refitted() -> None:
    table = runs(60)
    table["value"] = 5.0 + 0.01 * np.random.default_rng(0).normal(size=len(table))  # nothing depends on N
    fit = rs.fit_manifold(table, "chinchilla", delta="auto")
    assert fit.params["at_bound"].any() or fit.undetermined
    assert one_step(fit, independent(fit.data, BY)) is None
