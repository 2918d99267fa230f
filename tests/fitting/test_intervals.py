"""Intervals: finite or refused, wide enough for few models, the same whatever the block of weights; weights as said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.errors import ConfigError, FitError
from ragscale.fitting import _resampling as resampling
from ragscale.fitting._intervals import conformal_factor, ends, finite, logarithm
from ragscale.fitting._table import row_weights


@pytest.fixture(scope="module")
def fit() -> rs.ManifoldFit:
    return rs.fit_manifold(simulate("log1p", noise=0.01, cluster_share=0.5, rng=0), "log1p")


# Ends ----------------------------------------------------------------------------------------------------------------


def test_ends_are_quantiles_and_infinite_replicates_count() -> None:
    values = np.random.default_rng(0).standard_normal((1000, 3))
    low, high = ends(values, 0.95)
    assert np.allclose(low, np.quantile(values, 0.025, axis=0), rtol=1e-12)
    assert np.allclose(high, np.quantile(values, 0.975, axis=0), rtol=1e-12)
    values[:10] = -np.inf
    low, _ = ends(values, 0.95)
    assert np.isfinite(low).all()
    values[:30] = -np.inf
    assert np.isneginf(ends(values, 0.95)[0]).all()
    values[0, 0] = np.nan
    with pytest.raises(FitError, match="1 replicates are not numbers"):
        ends(values, 0.95)


def test_logarithms_of_what_is_not_positive_are_very_low() -> None:
    with np.errstate(all="raise"):
        found = logarithm(np.array([np.e, 0.0, -3.0, np.nan]))
    assert found[0] == 1.0
    assert np.isneginf(found[1:3]).all()
    assert np.isnan(found[3])


def test_an_interval_is_finite_or_refused() -> None:
    low, high = finite(np.array([-2.0, -np.inf, 1.0]), np.array([1.0, 2.0, 3.0]), 0.0)
    assert low.tolist() == [0.0, 0.0, 1.0]
    assert high.tolist() == [1.0, 2.0, 3.0]
    for bad in (np.nan, np.inf, 0.0, -1.0):
        with pytest.raises(FitError, match="no finite interval at 1 of 2 points"):
            finite(np.array([0.0, 1.0]), np.array([bad, 2.0]), 0.0)
    with pytest.raises(FitError, match="no finite interval"):
        finite(np.array([-np.inf]), np.array([1.0]), -np.inf)


@pytest.mark.parametrize("seed", [500, 504, 505])
def test_an_extrapolation_of_an_interaction_is_finite(seed: int) -> None:
    sizes = np.geomspace(3e7, 3e9, 6)
    cells = [(n, n * d, n * r) for n in sizes for d in (1, 4, 10, 25, 50) for r in (0, 1, 5, 20)]
    table = simulate("interaction", grid=pd.DataFrame(cells, columns=["N", "D", "R"]), noise=0.01, cluster_share=0.7,
                     rng=seed)  # fmt: skip
    boot = rs.bootstrap(rs.fit_manifold(table, "interaction"), n_resamples=20, rng=0)
    low, high = boot.interval(6e9, 1.5e11, 6e10, kind="extrapolation")
    assert 0 <= low < high < np.inf


def test_replicates_below_zero_end_at_zero() -> None:
    table = simulate("rpower", noise=0.02, rng=0)
    boot = rs.bootstrap(rs.fit_manifold(table, "rpower"), n_resamples=60, rng=0)
    store = np.geomspace(1e10, 1e30, 40)
    replicates = boot.predict(3e9, 2e10, store)
    at = int(np.argmax((replicates <= 0).mean(axis=0) > 0.1))
    assert 0.1 < (replicates[:, at] <= 0).mean() < 0.9
    low, high = boot.interval(3e9, 2e10, store[at])
    assert low == 0.0
    assert 0 < high < np.inf
    with pytest.raises(FitError, match="no finite interval"):
        boot.interval(3e9, 2e10, 1e60)


def test_intervals_are_percentiles_of_the_replicates(fit: rs.ManifoldFit) -> None:
    boot = rs.bootstrap(fit, n_resamples=400, confidence_level=0.9, rng=0)
    low, high = np.quantile(boot.theta.alpha, [0.05, 0.95])
    assert boot.params.loc["alpha", "low"] == pytest.approx(low, rel=1e-12)
    assert boot.params.loc["alpha", "high"] == pytest.approx(high, rel=1e-12)
    surface = np.log(boot.predict(1e9, 2e10, 1e9))
    interval = np.log(np.array(boot.interval(1e9, 2e10, 1e9)))
    assert interval == pytest.approx(np.quantile(surface, [0.05, 0.95]), rel=1e-12)


# Few rows ------------------------------------------------------------------------------------------------------------


def test_the_conformal_factor_counts_the_new_point() -> None:
    ratios = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    assert conformal_factor(ratios, 0.95) == 96.0  # ceil(101 * 0.95)
    assert conformal_factor(ratios, 0.9) == 91.0
    assert conformal_factor(ratios[:10], 0.95) == ratios[:10].max()
    inside = [conformal_factor(x[:-1], 0.8) >= x[-1] for x in np.random.default_rng(1).exponential(size=(4000, 10))]
    assert np.mean(inside) >= 0.79


# Resampling ----------------------------------------------------------------------------------------------------------


def test_blocks_of_weights_change_nothing(fit: rs.ManifoldFit, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rs.bootstrap(fit, n_resamples=23, rng=5)
    monkeypatch.setattr(resampling, "_WEIGHTS", 5 * 336)
    parts = rs.bootstrap(fit, n_resamples=23, rng=5)
    for name in whole.theta:
        assert np.allclose(parts.theta[name], whole.theta[name], rtol=1e-6)
    assert np.allclose(parts.objective, whole.objective, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_resamples": "many"}, "n_resamples = 'many'"),
        ({"n_resamples": 2.5}, r"n_resamples = 2\.5"),
        ({"n_resamples": True}, "n_resamples = True"),
        ({"confidence_level": "95%"}, "confidence_level = '95%'"),
        ({"confidence_level": 95}, "confidence_level = 95"),
        ({"confidence_level": float("nan")}, "confidence_level = nan"),
        ({"by": 3}, "by = 3"),
        ({"by": []}, r"by = \[\]"),
        ({"by": [1, 2]}, r"by = \[1, 2\]"),
        ({"by": "size"}, "by = 'size'"),
        ({"rng": "seed"}, "rng = 'seed'"),
        ({"rng": -1}, "rng = -1"),
        ({"n_resamples": None, "rng": -1}, "n_resamples = None.*rng = -1"),
    ],
)
def test_wrong_arguments_are_named(fit: rs.ManifoldFit, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rs.bootstrap(fit, **{"n_resamples": 3, **options})
    with pytest.raises(ConfigError, match="fit is a DataFrame"):
        rs.bootstrap(fit.data)  # type: ignore[arg-type]


# Weights -------------------------------------------------------------------------------------------------------------


def test_weights_are_inverse_variances() -> None:
    table = pd.DataFrame({"N": 1e9, "D": 1e10, "R": 0.0, "value": [0.5, 0.9, 0.99], "n_examples": [100.0, 100.0, 400.0],
                          "stderr": [0.1, 0.2, 0.4]})  # fmt: skip
    identity = rs.fitting.Identity()
    weight, _ = row_weights(table, identity, "binomial", "linear")
    p = (table["n_examples"] * table["value"] + 1) / (table["n_examples"] + 2)
    expected = table["n_examples"] / (p * (1 - p))
    assert weight == pytest.approx((expected / expected.mean()).to_numpy(), rel=1e-12)
    assert weight[2] > weight[1] > weight[0]
    linear, _ = row_weights(table, identity, "stderr", "linear")
    assert linear / linear[0] == pytest.approx([1.0, 1 / 4, 1 / 16], rel=1e-12)
    logarithmic, _ = row_weights(table, identity, "stderr", "log")  # of ln y: stderr / y
    assert logarithmic / logarithmic[0] == pytest.approx([1.0, (1.8 / 2) ** 2, (1.98 / 4) ** 2], rel=1e-12)
