"""What a fit took from its residuals: given back by trained model, in prediction intervals and in resamples."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import linalg

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.errors import IdentifiabilityWarning
from ragscale.fitting._experiments import clusters
from ragscale.fitting._freedom import Freedom, freedom
from ragscale.fitting._joint import _freedom, _problems
from ragscale.fitting._resampling import drawn_models
from ragscale.fitting.solver._joint import JointProblem

GRID = pd.DataFrame([(n, n * d, 0.0) for n in np.geomspace(3e7, 3e9, 4) for d in (2, 10, 50)], columns=["N", "D", "R"])


def repeated(rng: int, share: float, rows: int = 4) -> pd.DataFrame:
    """Twelve trained models with some rows each, of which ``share`` of the variance is common."""
    grid = pd.concat([GRID.assign(k=k) for k in range(rows)], ignore_index=True)
    return simulate("chinchilla", grid=grid, noise=0.01, cluster_share=share, rng=rng)


def least_squares(table: pd.DataFrame) -> rs.ManifoldFit:
    return rs.fit_manifold(table, "chinchilla", by="k", loss="least_squares") if "k" in table else rs.fit_manifold(
        table, "chinchilla", loss="least_squares"
    )  # fmt: skip


def slopes(fit: rs.ManifoldFit) -> np.ndarray:
    """d ln L / d ln theta at the rows, (n, 5), by central differences."""
    n, d = (fit.data[name].to_numpy() for name in "ND")
    columns = []
    for name in ("E", "A", "alpha", "B", "beta"):
        up, down = ({**fit.theta, name: fit.theta[name] * (1 + h)} for h in (1e-5, -1e-5))
        columns.append((np.log(fit.law.loss(n, d, 0.0, up)) - np.log(fit.law.loss(n, d, 0.0, down))) / 2e-5)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("weighted", [False, True])
def test_residuals_are_those_of_the_formula(weighted: bool) -> None:
    table = repeated(3, 0.7).assign(w=lambda t: np.where(t["k"] == 0, 3.0, 1.0) if weighted else 1.0)
    fit = rs.fit_manifold(table, "chinchilla", by="k", loss="least_squares", weights="w")
    group = np.unique(table[["N", "D"]].to_numpy(), axis=0, return_inverse=True)[1].ravel()
    root = np.sqrt(fit.data["weight"].to_numpy())
    q = np.linalg.qr(slopes(fit) * root[:, None])[0]
    residual = fit.residuals * root
    expected = np.empty_like(residual)
    for c in range(12):
        mine = group == c
        inverse_root = np.real(linalg.fractional_matrix_power(np.eye(4) - q[mine] @ q[mine].T, -0.5))
        expected[mine] = inverse_root @ residual[mine]
    found = freedom(fit, group)
    assert found.residuals * root == pytest.approx(expected, rel=1e-3, abs=1e-6)
    between = sum(np.sum(q[group == c].sum(axis=0) ** 2) / 4 for c in range(12))
    assert found.degrees == pytest.approx(12 - between, rel=1e-4)


@pytest.mark.parametrize(("share", "factor"), [(0.0, 48 / 43), (0.99, 12 / 7)])
def test_the_spread_grows_by_models_where_they_share_noise_and_by_rows_where_not(share: float, factor: float) -> None:
    raw, seen = [], []
    for seed in range(10):
        fit = least_squares(repeated(seed, share))
        group = np.unique(fit.data[["N", "D"]].to_numpy(), axis=0, return_inverse=True)[1].ravel()
        seen.append(np.mean(freedom(fit, group).residuals ** 2))
        raw.append(np.mean(fit.residuals**2))
    assert np.mean(seen) / np.mean(raw) == pytest.approx(factor, rel=0.12 if share else 0.05)
    assert np.sqrt(np.mean(seen)) == pytest.approx(0.01, rel=0.25)


def test_draws_reach_beyond_the_largest_residual_and_follow_student() -> None:
    residuals = np.random.default_rng(0).standard_normal(12)
    drawn = Freedom(residuals, 5.0, 1.0).draw((20_000,), np.random.default_rng(1))
    assert np.max(drawn) > 1.5 * np.max(residuals)
    inner = np.random.default_rng(2).standard_normal(4000)
    tail = np.quantile(Freedom(inner, 5.0, 1.0).draw((200_000,), np.random.default_rng(3)), 0.975)
    assert tail == pytest.approx(2.571, rel=0.03)  # Student's quantile with 5 degrees of freedom
    normal = np.quantile(Freedom(inner, 1e6, 1.0).draw((200_000,), np.random.default_rng(3)), 0.975)
    assert normal == pytest.approx(1.96, rel=0.03)
    assert np.all(Freedom(np.zeros(5), 3.0, 1.0).draw((4, 2), np.random.default_rng(0)) == 0.0)


def test_wild_residuals_do_not_smear_the_others() -> None:
    """The width of the smoothing goes by the middle half of the residuals, not by the wildest of them."""
    calm = 0.01 * np.random.default_rng(0).standard_normal(196)
    wild = np.concatenate([calm, [1.0, -1.0, 1.0, -1.0]])
    drawn = Freedom(wild, 1e6, 1.0).draw((50_000,), np.random.default_rng(1))
    assert np.quantile(np.abs(drawn), 0.5) == pytest.approx(np.quantile(np.abs(calm), 0.5), rel=0.15)
    assert np.mean(np.abs(drawn) > 0.5) == pytest.approx(0.02, abs=0.004)
    mostly_exact = np.concatenate([np.zeros(190), 0.1 * np.ones(10)])  # no spread in the middle half: that of all
    smooth = Freedom(mostly_exact, 200.0, 1.0).draw((5_000,), np.random.default_rng(1))
    assert len(np.unique(smooth)) == 5_000
    assert np.std(smooth) == pytest.approx(np.std(mostly_exact), rel=0.1)


def test_one_replicate_has_one_spread_at_all_points() -> None:
    drawn = Freedom(np.random.default_rng(0).standard_normal(500), 2.0, 1.0).draw((2000, 50), np.random.default_rng(1))
    spread = drawn.std(axis=1)
    assert np.std(np.log(spread)) > 0.4  # 0.1 if every number had a spread of its own


def test_a_prediction_has_the_spread_of_the_models_left_over() -> None:
    few = least_squares(simulate("chinchilla", grid=GRID, noise=0.01, rng=1))
    with pytest.warns(IdentifiabilityWarning, match="12 trained models"):
        boot = rs.bootstrap(few, n_resamples=40, rng=0)
    drawn = boot._scatter((40_000,))
    spread = np.sqrt(np.sum(few.residuals**2) / (12 - 5))
    assert np.quantile(np.abs(drawn), 0.5) == pytest.approx(0.711 * spread, rel=0.15)  # Student's with 7 degrees
    low, high = boot.interval(3e8, 3e9, kind="prediction")
    inner_low, inner_high = boot.interval(3e8, 3e9)
    assert low < inner_low < inner_high < high


def test_resamples_draw_as_many_models_as_the_fit_left_unspent() -> None:
    table = simulate("log1p", noise=0.01, cluster_share=0.75, rng=0)
    squares = rs.fit_manifold(table, "log1p", loss="least_squares")
    group = clusters(squares.data)
    found = freedom(squares, group)
    assert 1.08 < found.inflation < 1.35  # 48 / (48 - 7) = 1.17
    assert 36 <= found.models_drawn(48) <= 44
    absolute = freedom(rs.fit_manifold(table, "log1p", delta=1e-5), group)
    assert absolute.models_drawn(48) == 48
    huber = freedom(rs.fit_manifold(table, "log1p", delta="auto"), group)
    assert absolute.inflation < huber.inflation < found.inflation
    assert Freedom(np.ones(3), 1.0, 50.0).models_drawn(9) == 5  # never fewer than half


def test_drawn_weights_have_mean_one_and_the_variance_of_the_models_left() -> None:
    weight = drawn_models(20, 30, 20_000, np.random.default_rng(0))
    assert weight.sum(axis=1) == pytest.approx(np.full(20_000, 30.0))
    assert weight.var() == pytest.approx(30 / 20 * (1 - 1 / 30), rel=0.02)
    assert set(np.unique(weight * 20 / 30)) <= set(range(21))


def test_residuals_drawn_for_a_resample_have_the_spread_of_the_noise() -> None:
    from ragscale.fitting._resampling import residual_resamples

    fit = least_squares(simulate("chinchilla", grid=GRID, noise=0.01, rng=2))
    problem, _ = residual_resamples(fit, 3000, np.random.default_rng(0))
    drawn = np.log(problem.table.y) - np.log(fit.to_frame()["predicted"].to_numpy())
    assert drawn.std() == pytest.approx(np.sqrt(np.sum(fit.residuals**2) / 7), rel=0.15)
    assert drawn.std() > 1.15 * fit.residuals.std()


# Several tasks ------------------------------------------------------------------------------------------------------


@cache
def jointly(shared: tuple[str, ...]) -> tuple[rs.fitting.JointFit, Freedom]:
    parts = [repeated(rng, 0.7, rows=2).assign(task=name) for rng, name in enumerate(("easy", "weak"))]
    fit = rs.fit_manifold(
        pd.concat(parts, ignore_index=True), "chinchilla", over="task", shared=shared, by="k", loss="least_squares"
    )
    every = pd.concat([part.data for part in fit.fits.values()], ignore_index=True)
    problem = JointProblem(_problems(fit.fits, every), fit.shared)
    return fit, _freedom(fit, problem, clusters(every, ("task", "N", "D")))


def test_tasks_that_share_nothing_are_given_back_what_each_lost() -> None:
    fit, found = jointly(())
    alone = np.concatenate([freedom(part, clusters(part.data, ("N", "D"))).residuals for part in fit.fits.values()])
    np.testing.assert_allclose(found.residuals, alone, rtol=1e-5, atol=1e-9)


def test_shared_parameters_are_taken_once_from_the_models_of_all_tasks() -> None:
    several, shared = jointly(())[1], jointly(("alpha", "beta"))[1]
    assert shared.degrees - several.degrees == pytest.approx(2.0, abs=1.0)  # 2 of 2 x 5 parameters
    assert shared.models_drawn(240) > several.models_drawn(240)


@pytest.mark.filterwarnings("ignore::ragscale.errors.IdentifiabilityWarning")
def test_replicates_of_several_tasks_draw_fewer_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, _ = jointly(("alpha", "beta"))

    def spread() -> float:
        return float(np.std(rs.bootstrap(fit, n_resamples=60, rng=0)["easy"].theta["alpha"]))

    fewer = spread()
    monkeypatch.setattr(Freedom, "models_drawn", lambda self, count: count)
    assert fewer > 1.02 * spread()
