"""What decisions say in words is true of the data: measured or not, with intervals, in the unit of the metric."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.errors import ExtrapolationWarning, FitError

from .conftest import known

pytestmark = pytest.mark.filterwarnings("ignore:the table has:ragscale.errors.IdentifiabilityWarning")

GRID = pd.DataFrame(
    [
        (n, d, r)
        for n in (1e8, 3e8, 1e9, 3e9)
        for d in (2e9, 1e10, 5e10, 2e11)
        for r in (0.0, 3e8, 1e9, 1e10, 3e10, 1e11)
    ],
    columns=["N", "D", "R"],
)
TABLE = simulate("log1p", grid=GRID, noise=0.002, rng=0)
FEW = GRID[(GRID["D"] != 5e10) & ~GRID["R"].isin([3e8, 3e10])]


def as_metric(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Write the same results as a loss, a perplexity, an accuracy, percent or a log likelihood."""
    loss = table["value"]
    share = 1 / (1 + np.exp(loss - 3))
    values = {"acc": share, "exact_match": 100 * share, "perplexity": np.exp(loss), "loglikelihood": -loss}
    return table.assign(value=values.get(name, loss), metric=name)


METRICS = ["nll_per_token", "perplexity", "acc", "exact_match", "loglikelihood"]
RISING = {"acc", "exact_match", "loglikelihood"}


@pytest.mark.parametrize("metric", METRICS)
def test_what_a_store_brings_is_said_in_the_metric_with_its_interval(metric: str) -> None:
    fit = rs.fit_manifold(as_metric(TABLE, metric), "log1p")
    best = rs.optimal_allocation(rs.bootstrap(fit, n_resamples=30, rng=0), N=1e9, budget=1e11)
    verb = "raises" if metric in RISING else "lowers"
    low, high = best.interval("improvement")
    assert f"{verb} {metric} by {best.improvement:.3g} [{low:.3g}, {high:.3g}]" in best.summary()
    assert low <= best.improvement <= high
    with_store, without = (float(fit.predict(1e9, d, r)) for d, r in ((best.D, best.R), (1e11, 0.0)))
    assert best.improvement == pytest.approx(abs(with_store - without), rel=1e-9)


@pytest.mark.parametrize("metric", ["acc"])
def test_an_average_of_laws_has_its_loss_within_its_interval(metric: str) -> None:
    fit = rs.fit_manifold(as_metric(simulate("log1p", grid=FEW, noise=0.02, rng=3), metric))
    assert len(fit.selection.weights) > 1
    best = rs.optimal_allocation(rs.bootstrap(fit, n_resamples=12, rng=0), N=1e9, budget=1e11)
    assert not best.laws.empty
    for name in ("loss", "improvement"):
        low, high = best.interval(name)
        spread = high - low
        assert low - spread <= getattr(best, name) <= high + spread, name  # in one unit, whatever the link


def test_the_best_size_of_a_computation_has_its_interval_in_the_sentence() -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    best = rs.compute_optimal(rs.bootstrap(fit, n_resamples=30, rng=0), flops=1e20)
    for name in ("N", "D"):
        low, high = best.interval(name)
        assert f"({low:.3g} to {high:.3g})" in best.summary()
    plain = rs.compute_optimal(fit, flops=1e20).summary()
    assert "(" not in plain.split(":")[0]


def test_laws_that_disagree_about_a_size_are_heard() -> None:
    fit = rs.fit_manifold(simulate("log1p", grid=FEW, noise=0.02, rng=3))
    best = rs.compute_optimal(fit, flops=1e21)
    assert set(best.laws["law"]) <= set(fit.selection.fits)
    assert len(best.laws) > 1
    assert f"{best.laws['N'].min():.3g} to {best.laws['N'].max():.3g} across {len(best.laws)} laws" in best.summary()
    assert best.regret is not None
    assert best.regret.worst == pytest.approx(best.laws["regret"].max())
    assert (best.laws["regret"] >= 0).all()


CLOSED = TABLE[TABLE["R"] == 0].reset_index(drop=True)


@pytest.mark.parametrize("law", ["auto", "chinchilla"])
@pytest.mark.parametrize("rows", [CLOSED, CLOSED.drop(columns="R")], ids=["R = 0", "no column R"])
def test_a_store_that_nobody_measured_is_not_called_useless(rows: pd.DataFrame, law: str) -> None:
    fit = rs.fit_manifold(rows, law)
    best = rs.optimal_allocation(fit, N=1e9, budget=1e11)
    assert best.boundary == "R=0"
    assert "what a store is worth is not in these results" in best.summary()
    assert "does not help" not in best.summary()
    for ask in (
        lambda: rs.exchange_rate(fit, N=1e9, D=1e10, R=1e9),
        lambda: rs.knee_point(fit, N=1e9),
        lambda: rs.critical_store(fit, N=1e9, D=1e10, max_R=1e10),
    ):
        with pytest.raises(FitError, match="no row of these results has a store"):
            ask()
    assert (
        rs.knee_point(fit, N=1e9, definition="gain_fraction", fraction=0.5).status == "found"
    )  # which is not about a store
    assert np.isnan(rs.reading_threshold(fit).threshold)


@pytest.mark.parametrize("law", ["log1p", "effective_data"])
@pytest.mark.parametrize(
    ("value", "metric"), [(2.5, "nll_per_token"), (0.25, "acc"), (0.0, "acc"), (12.0, "perplexity")]
)
def test_values_that_are_all_alike_decide_nothing(law: str, value: float, metric: str) -> None:
    fit = rs.fit_manifold(TABLE.assign(value=value, metric=metric), law)
    assert fit.summary().startswith(f"EVERY VALUE IS {value:g}")
    for ask in (
        lambda: rs.exchange_rate(fit, N=1e9, D=1e10, R=1e9),
        lambda: rs.optimal_allocation(fit, N=1e9, budget=1e11),
        lambda: rs.compute_optimal(fit, flops=1e20),
        lambda: rs.knee_point(fit, N=1e9),
    ):
        with pytest.raises(FitError, match="EVERY VALUE IS"):
            ask()


NOISE = np.random.default_rng(7)
OPEN = GRID[(GRID["D"] < 1e11) & (GRID["N"] < 1e9) & (GRID["R"] < 2e10)].reset_index(drop=True)
OPEN = OPEN.assign(
    value=1.7
    + 400 * OPEN["N"] ** -0.34
    + 410 * OPEN["D"] ** -0.28
    + 0.6 * np.where(OPEN["R"] > 0, NOISE.standard_normal(6)[OPEN.groupby(["N", "D"]).ngroup()], 0)
    + 0.02 * NOISE.standard_normal(len(OPEN))
)


def test_what_cannot_be_told_stands_beside_every_number_about_a_store() -> None:
    fit = rs.fit_manifold(OPEN, "log1p")
    assert fit.verdict.kind == "cannot be told"
    for found in (
        rs.exchange_rate(fit, N=3e8, D=1e10, R=1e9),
        rs.knee_point(fit, N=3e8),
        rs.critical_store(fit, N=3e8, D=1e10),
        rs.optimal_allocation(fit, N=3e8, budget=2e10),
        rs.reading_threshold(fit),
    ):
        assert fit.verdict.text in found.summary()
    assert np.isnan(rs.reading_threshold(rs.bootstrap(fit, n_resamples=20, rng=0)).threshold)


def test_a_threshold_from_a_law_without_replicates_says_that_it_has_no_interval() -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    point = rs.reading_threshold(fit)
    assert not point.certain
    assert "no interval" in point.summary()
    sure = rs.reading_threshold(rs.bootstrap(fit, n_resamples=20, rng=0))
    assert sure.certain
    assert "no interval" not in sure.summary()
    assert sure.threshold == point.threshold == 1e8


def test_one_trained_model_at_each_size_makes_no_gain_certain() -> None:
    rows = TABLE[TABLE["D"] == 5e10].assign(metric="nll_per_token")
    with pytest.warns(rs.errors.IdentifiabilityWarning):
        found = rs.reading_threshold(rows)
    assert np.isnan(found.threshold)
    assert "none is certain" in found.summary()
    assert not found.table["helps"].any()


def test_a_split_far_beyond_the_rows_says_so_in_its_own_words_and_is_refused_further_out() -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    with pytest.warns(ExtrapolationWarning):
        far = rs.optimal_allocation(fit, N=1e9, budget=1e13).summary()
    assert re.search(r"This extrapolates: .*R = .* times beyond", far)
    with pytest.raises(FitError, match="more than 10000 times outside"):
        rs.optimal_allocation(fit, N=1e9, budget=1e17)
    with pytest.warns(ExtrapolationWarning):
        assert rs.optimal_allocation(fit, N=1e9, budget=1e17, max_D=1e13, max_R=1e12).boundary == "R=max"
    assert rs.optimal_allocation(known("log1p"), N=1e9, budget=1e17).share > 0  # given parameters are taken as they are


def test_a_knee_is_looked_for_within_a_thousand_times_the_rows() -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    dear = rs.knee_point(fit, N=1e9, prices={"D": 1.0, "R": 1e9})
    assert dear.status == "above"
    assert pytest.approx(2e14) == dear.D
    boot: Any = rs.bootstrap(fit, n_resamples=20, rng=0)
    assert "interval beyond 2e+14" in rs.knee_point(boot, N=1e9, prices={"D": 1.0, "R": 1e9}).summary()
    assert "interval below 2e+08" in rs.knee_point(boot, N=1e9, prices={"D": 1.0, "R": 1e-9}).summary()


def test_a_knee_about_which_the_laws_contradict_each_other_cannot_be_told() -> None:
    knee = rs.decisions.Knee(
        definition="exchange",
        meaning="m",
        N=1e9,
        R=0.0,
        D=1e8,
        D_over_N=0.1,
        loss=2.0,
        low=5e8,
        high=1e14,
        status="below",
        found_share=0.2,
        looked_at=(1e8, 1e14),
    )
    assert "cannot be told, interval 5e+08 to beyond 1e+14" in knee.summary()


def test_what_stores_were_worth_has_an_interval_over_trained_models() -> None:
    found = rs.substitution(TABLE, rs.fit_manifold(TABLE, "log1p"))
    assert found.n_models == 16
    assert found.median_low <= found.median_sigma <= found.median_high
    assert f"{found.median_low:.3g} to {found.median_high:.3g}, 16 trained models" in found.summary()
    nothing = simulate("chinchilla", grid=GRID, noise=0.01, rng=1)
    lost = rs.substitution(nothing, rs.fit_manifold(nothing, "chinchilla")).summary()
    assert "cannot be told from nothing" in lost
    one = TABLE[(TABLE["N"] == 1e9) & (TABLE["D"] == 1e10)]
    assert "no interval from 1 trained model" in rs.substitution(one, rs.fit_manifold(TABLE, "log1p")).summary()


def test_a_store_that_is_excluded_or_comes_late_is_not_called_useless() -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    none = rs.optimal_allocation(fit, N=1e9, budget=1e11, max_R=0)
    assert none.store == "excluded"
    assert "max_R leaves no store" in none.summary()
    late = rs.optimal_allocation(known("hill", rs.fitting.Hill(exponent=4.0), C=0.2, K=5e9), N=1e9, budget=[1e9, 1e12])
    assert list(late.boundary) == ["R=0", "interior"]
    assert late.store[0] == "helps"
    assert "a store does not pay here; spend everything on pretraining" in late.summary().splitlines()[0]
    nothing = rs.optimal_allocation(known("log1p", C=0.0), N=1e9, budget=1e10)
    assert nothing.store == "does not help"


WRONG = [None, 3, [1], {"a": 1}, b"x", object(), np.zeros(2), float("nan"), True]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
def test_arguments_of_a_wrong_type_are_named(wrong: Any) -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    ask = {
        "definition": lambda: rs.knee_point(fit, N=1e9, definition=wrong),
        "by": lambda: rs.reading_threshold(fit, by=wrong),
        "confidence_level": lambda: rs.reading_threshold(fit, confidence_level=wrong),
        "convention": lambda: rs.substitution(TABLE, fit, convention=wrong),
        "goal": lambda: rs.next_runs(TABLE, TABLE[["N", "D"]], budget_flops=1e20, goal=wrong, law="log1p"),
        "expected": lambda: rs.optimal_allocation(wrong, N=1e9, budget=1e10),
        "budget": lambda: rs.optimal_allocation(fit, N=1e9, budget="1e10" if isinstance(wrong, (int, list)) else wrong),
    }
    if not (isinstance(wrong, int) and wrong == 3) and wrong is not None:
        ask["within"] = lambda: rs.optimal_allocation(fit, N=1e9, budget=1e10, within=wrong)
    for name, call in ask.items():
        with pytest.raises(rs.RagscaleError, match=name):
            call()


def test_an_estimate_is_as_true_as_its_value() -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    assert rs.critical_store(fit, N=1e9, D=1e10)
    assert not rs.exchange_rate(known("log1p", C=0.0), N=1e9, D=1e10, R=1e9)


def test_a_threshold_in_data_is_looked_for_at_the_data_that_were_measured() -> None:
    fit = rs.fit_manifold(TABLE, "interaction")
    found = rs.reading_threshold(rs.bootstrap(fit, n_resamples=15, rng=0), by="D")
    assert sorted(found.table["D"]) == pytest.approx(sorted(TABLE["D"].unique()))
    assert found.table["N"].nunique() == 1
    ratios = rs.reading_threshold(fit, by="D_over_N", N=1e9)
    assert sorted(ratios.table["D"]) == pytest.approx(sorted(TABLE["D"].unique()))
    sizes = rs.reading_threshold(fit)
    assert sizes.table["D"].between(2e9, 2e11).all()  # 20 N, and no further than was trained
    assert sizes.table.set_index("N").loc[1e9, "D"] == pytest.approx(2e10)


def test_gold_passages_are_called_gold() -> None:
    rng, rows = np.random.default_rng(0), []
    for n in (1e8, 3e8, 1e9):
        for seed in range(4):
            rows += [
                (n, 20 * n, r, 3 - gain + 0.01 * rng.standard_normal(), name, seed)
                for name, gain, r in (
                    ("random", 0, 0),
                    ("oracle", 0.5, 0),
                    ("retrieved", 0.2, 1e9),
                    ("closed-book", 0, 0),
                )
            ]
    table = pd.DataFrame(rows, columns=["N", "D", "R", "value", "condition", "seed"]).assign(metric="nll_per_token")
    assert "gold passages help over random" in rs.reading_threshold(table).summary()
    assert "retrieved passages help over random" in rs.reading_threshold(table, condition="retrieved").summary()


def test_the_best_size_stays_near_the_sizes_that_were_measured() -> None:
    flat = TABLE.assign(value=TABLE["value"] - 400 * TABLE["N"] ** -0.34)  # size does nothing: the smallest is best
    best = rs.compute_optimal(rs.fit_manifold(flat, "log1p"), flops=1e19)
    assert pytest.approx(1e7) == best.N  # a tenth of the smallest
    assert best.boundary == "N=min"
    free = rs.compute_optimal(rs.fit_manifold(TABLE, "log1p"), flops=1e20, R="free", store_flops=1e9)
    assert free.D >= 2e8
    assert rs.compute_optimal(known("log1p"), flops=1e12).D >= 1e3
