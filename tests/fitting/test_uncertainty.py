"""Bootstrap, intervals, backtest, profile, sandwich errors, diagnostics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.errors import ConfigError, FitError, IdentifiabilityWarning
from ragscale.fitting import backtest, profile, retrieval_effect
from ragscale.fitting._resampling import refit


def test_each_replicate_is_the_optimum_of_its_own_resample() -> None:
    table = simulate("log1p", noise=0.01, outliers=0.02, rng=0)
    for delta in (1e-3, "auto"):
        fit = rs.fit_manifold(table, "log1p", delta=delta)
        weights = np.random.default_rng(0).multinomial(336, np.full(336, 1 / 336), size=4).astype(float)
        batch = refit(fit.problem, fit, weights)
        for w, value in zip(weights, batch.value, strict=True):
            drawn = table.assign(w=w)[w > 0]
            cold = rs.fit_manifold(drawn, "log1p", weights="w", delta=fit.loss.delta)
            assert value == pytest.approx(cold.objective * drawn["w"].mean(), rel=1e-8)


def test_a_bootstrap_is_reproducible_and_random() -> None:
    fit = rs.fit_manifold(simulate("log1p", noise=0.01, rng=0), "log1p")
    first, second, third = (rs.bootstrap(fit, n_resamples=20, rng=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.theta.alpha, second.theta.alpha)
    assert not np.array_equal(first.theta.alpha, third.theta.alpha)
    assert first.predict([1e9, 2e9], 2e10, 1e9).shape == (20, 2)
    assert first.predict(1e9, 2e10).shape == (20,)


def test_models_are_resampled_with_all_their_rows() -> None:
    table = simulate("log1p", noise=0.01, cluster_share=1.0, rng=0)
    fit = rs.fit_manifold(table, "log1p", delta="auto")
    by_model = rs.bootstrap(fit, n_resamples=200, rng=0).params["stderr"]
    by_row = rs.bootstrap(fit, n_resamples=200, by="rows", rng=0).params["stderr"]
    by_residual = rs.bootstrap(fit, n_resamples=100, by="residuals", rng=0).params["stderr"]
    assert by_model["alpha"] > 1.6 * by_row["alpha"]
    assert by_residual["alpha"] == pytest.approx(by_row["alpha"], rel=0.4)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    inside = []
    for seed in range(40):
        table = simulate("log1p", noise=0.01, cluster_share=0.75, rng=seed)
        truth = table.attrs["params"]
        fit = rs.fit_manifold(table, "log1p", delta="auto")
        replicates = rs.bootstrap(fit, n_resamples=80, rng=seed)
        ends = replicates.params.loc[["alpha", "beta", "C"], ["low", "high"]].to_numpy()
        loss = float(fit.law.loss(7e9, 1.4e11, 1e10, {p.name: truth[p.name] for p in fit.law.parameters}))
        ends = np.vstack([ends, replicates.interval(7e9, 1.4e11, 1e10)])
        wanted = np.array([truth["alpha"], truth["beta"], truth["C"], loss])
        inside.append((ends[:, 0] <= wanted) & (wanted <= ends[:, 1]))
    assert (np.mean(inside, axis=0) >= 0.82).all()  # 40 draws at 0.94: three standard deviations
    assert 0.88 <= np.mean(inside) <= 0.99


def test_intervals_widen_from_surface_to_measurement_to_extrapolation() -> None:
    fit = rs.fit_manifold(simulate("log1p", noise=0.01, rng=0), "log1p")
    replicates = rs.bootstrap(fit, n_resamples=200, rng=0)
    widths = [
        float(np.diff(replicates.interval(3e9, 6e10, 1e9, kind=kind))[0])
        for kind in ("confidence", "prediction", "extrapolation")
    ]
    assert widths[0] < widths[1] <= widths[2] * (1 + 1e-12)
    with pytest.raises(ConfigError, match="kind = 'wide'"):
        replicates.interval(1e9, 1e10, kind="wide")  # type: ignore[arg-type]


def test_a_backtest_widens_where_the_law_does_not_extrapolate() -> None:
    table = simulate("chinchilla", noise=0.003, rng=0).query("R == 0").reset_index(drop=True)
    drifting = table.assign(value=lambda t: t["value"] * (1 + 0.02 * np.log10(t["N"] * t["D"] / 1e17) ** 2))
    honest = backtest(rs.fit_manifold(table, "chinchilla"), n_resamples=60)
    wrong = backtest(rs.fit_manifold(drifting, "chinchilla"), n_resamples=60)
    assert wrong.factor > 1.5 * honest.factor
    assert wrong.coverage < honest.coverage
    with pytest.raises(FitError, match="a backtest needs"):
        backtest(rs.fit_manifold(table.head(5), "chinchilla"))


def test_few_models_warn(plane: pd.DataFrame) -> None:
    small = plane[plane["N"] < 1e9]
    fit = rs.fit_manifold(small, "chinchilla")
    with pytest.warns(IdentifiabilityWarning, match=r"12 trained models .* 3 values of N"):
        rs.bootstrap(fit, n_resamples=5, rng=0)
    assert {"few models", "few sizes"} <= set(fit.diagnostics.topics())


def test_wrong_bootstraps_name_all_problems(plane: pd.DataFrame) -> None:
    fit = rs.fit_manifold(plane, "chinchilla")
    with pytest.raises(ConfigError, match=r"n_resamples = 1 .*confidence_level = 2.*by = 'days'"):
        rs.bootstrap(fit, n_resamples=1, confidence_level=2, by="days")  # type: ignore[arg-type]


def test_sandwich_profile_and_bootstrap_agree() -> None:
    fit = rs.fit_manifold(simulate("log1p", noise=0.01, cluster_share=0.5, rng=4), "log1p", delta="auto")
    stderr = fit.params["stderr"]
    replicates = rs.bootstrap(fit, n_resamples=300, rng=0).params["stderr"]
    for name in ("E", "alpha", "beta", "C"):
        assert stderr[name] == pytest.approx(replicates[name], rel=0.35)
    for name in ("alpha", "C"):
        curve = profile(fit, name, n_points=7)
        assert curve.high - curve.low == pytest.approx(4 * stderr[name], rel=0.25)
        assert (np.diff(curve.curve["root"]) > 0).all()


def test_a_profile_is_never_below_the_fit_and_refuses_what_is_not_free(plane: pd.DataFrame) -> None:
    noisy = plane.assign(value=plane["value"] * np.exp(0.01 * np.random.default_rng(0).standard_normal(24)))
    fit = rs.fit_manifold(noisy, "chinchilla")
    curve = profile(fit, "beta", n_points=9)
    assert (curve.curve["objective"] >= fit.objective * (1 - 1e-9)).all()
    assert curve.low < fit.theta.beta < curve.high
    with pytest.raises(ConfigError, match="'gamma' is not free; the free ones are E, A"):
        profile(fit, "gamma")


# In words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "verdict"), [(0.08, "helps"), (0.0, "does not help"), (-0.05, "hurts")])
def test_whether_retrieval_helps_is_said_first(make_surface: Any, gain: float, verdict: str) -> None:
    fit = rs.fit_manifold(make_surface(noise=0.02, gain=gain, seed=1), "log1p")
    assert fit.diagnostics.retrieval.verdict == verdict
    assert f"Retrieval {verdict} here" in fit.summary()


def test_the_verdict_knows_which_way_a_metric_goes(make_surface: Any) -> None:
    table = make_surface(noise=0.01)
    accuracy = table.assign(value=1 / (1 + np.exp(2 * table["value"] - 5)), metric="acc")
    assert retrieval_effect(accuracy, "linear").verdict == "helps"
    assert retrieval_effect(table.query("R == 0")).verdict == "not measured"


def test_a_gain_that_is_not_there_is_fitted_as_zero_at_most(make_surface: Any) -> None:
    fit = rs.fit_manifold(make_surface(noise=0.01, gain=-0.05), "log1p")
    assert fit.theta.C == 0.0
    assert fit.params.loc["C", "at_bound"]
    assert {"no gain", "bound"} <= set(fit.diagnostics.topics())


def test_a_design_that_cannot_tell_n_from_d_is_named() -> None:
    n = np.geomspace(1e7, 1e10, 25)
    table = pd.DataFrame({"N": n, "D": 20 * n, "value": 1.7 + 400 * n**-0.34 + 410 * (20 * n) ** -0.28})
    table["value"] *= np.exp(0.01 * np.random.default_rng(0).standard_normal(25))
    diagnostics = rs.fit_manifold(table, "chinchilla").diagnostics
    assert "design" in diagnostics.topics()
    assert "D = 20 N in every row: what D does cannot be told from what N does" in str(diagnostics)


def test_a_tradeoff_between_parameters_is_named() -> None:
    table = simulate("power", noise=0.02, rng=0)
    diagnostics = rs.fit_manifold(table, rs.fitting.Power(R0="free")).diagnostics
    assert "trade-off" in diagnostics.topics()
    assert diagnostics.correlation.abs().max().max() <= 1 + 1e-9


def test_a_model_that_stands_alone_has_leverage(plane: pd.DataFrame) -> None:
    table = plane[(plane["N"] < 1e9) | (plane.index == 23)]
    leverage = rs.fit_manifold(table, "chinchilla", delta="auto").diagnostics.leverage
    assert leverage.idxmax() == len(table) - 1
