"""Decisions refuse where the rows say nothing about what they turn on, and answer where they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import load, simulate
from ragscale.errors import FitError, ResultsError


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return simulate("log1p", noise=0.005, rng=0)


def _ask(subject: Any) -> dict[str, Any]:
    return {
        "allocation": lambda: rs.optimal_allocation(subject, N=1e9, budget=5e10),
        "compute": lambda: rs.compute_optimal(subject, flops=1e21),
        "exchange": lambda: rs.exchange_rate(subject, N=1e9, D=2e10, R=1e9),
        "knee": lambda: rs.knee_point(subject, N=1e9, budget=5e10),
        "store": lambda: rs.critical_store(subject, N=1e9, D=2e10),
    }


def _sweep(**changes: Any) -> pd.DataFrame:
    store = np.array([0, 1e8, 3e8, 1e9, 3e9, 1e10, 3e10])
    value = 3.0 - 0.4 * store / (store + 1e9)
    return pd.DataFrame({"N": 1e9, "D": 2e10, "R": store, "value": value, **changes})


def test_a_store_sweep_of_one_model_decides_about_the_store_alone() -> None:
    fit = rs.fit_manifold(_sweep(), "hill")
    asked = _ask(fit)
    for name in ("allocation", "compute", "exchange", "knee"):
        with pytest.raises(FitError, match="these results cannot answer that: what another"):
            asked[name]()
    assert float(np.ravel(np.asarray(asked["store"]()))[0]) == pytest.approx(9e9, rel=0.05)
    with pytest.raises(FitError, match="every row has N = 1e"):
        rs.critical_store(fit, N=3e9, D=2e10)


@pytest.mark.parametrize("part", ["valid", "test"])
def test_the_retro_table_as_bundled_answers_nothing_about_training(part: str) -> None:
    rows = load("retro_table4").query("model == 'retro_wikitext103' and split == @part")
    fit = rs.fit_manifold(rows)
    for name, ask in _ask(fit).items():
        with pytest.raises(FitError, match="the table does not give it"):
            ask()
        assert name


@pytest.mark.parametrize("shots", [0, 1, 5])
def test_the_massiveds_table_as_bundled_says_what_its_one_model_gains(shots: int) -> None:
    table = load("massiveds_mmlu")
    with pytest.raises(ResultsError, match="'n_shot' \\(0, 1, 5\\): choose one"):
        rs.fit_manifold(table)
    fit = rs.fit_manifold(table[table["n_shot"] == shots])
    assert "Retrieval helps in the one model that was trained: all 6 stores" in str(fit.verdict)
    assert "Whether others would gain as much is not known" in fit.summary()
    assert set(fit.unseen) >= {"N", "D"}
    for name in ("allocation", "compute", "exchange", "knee"):
        with pytest.raises(FitError, match="the table does not give it"):
            _ask(fit)[name]()


def test_one_size_decides_at_that_size_only(table: pd.DataFrame) -> None:
    size = float(table["N"].unique()[3])
    one = table[table["N"] == size]
    fit = rs.fit_manifold(one, "log1p")
    best = rs.optimal_allocation(fit, N=size, budget=2e10)
    whole = rs.optimal_allocation(rs.fit_manifold(table, "log1p"), N=size, budget=2e10)
    assert float(best.share) == pytest.approx(float(whole.share), abs=0.15)
    with pytest.raises(FitError, match="what another N does"):
        rs.optimal_allocation(fit, N=[size, 2 * size], budget=2e10)
    with pytest.raises(FitError, match="what another N does"):
        rs.compute_optimal(fit, flops=1e21)


def test_data_in_step_with_size_decide_nothing_about_either() -> None:
    n = np.logspace(7.7, 9.5, 10)
    rows = pd.DataFrame({"N": n, "D": 20 * n, "value": 1.69 + 406.4 * n**-0.34 + 410.7 * (20 * n) ** -0.28})
    fit = rs.fit_manifold(rows, "chinchilla")
    with pytest.warns(rs.errors.IdentifiabilityWarning):
        boot = rs.bootstrap(fit, n_resamples=5, rng=0)
    for subject in (fit, boot):
        with pytest.raises(FitError, match="D = 20 N in every row"):
            rs.compute_optimal(subject, flops=1e21)


def test_two_stores_do_not_say_how_a_gain_grows(table: pd.DataFrame) -> None:
    two = table[table["R"].isin([0, 6e10])]
    fit = rs.fit_manifold(two, "log1p")
    for name in ("allocation", "exchange", "knee", "store"):
        with pytest.raises(FitError, match="add a third store size"):
            _ask(fit)[name]()
    assert float(rs.compute_optimal(fit, flops=1e21).N) > 0  # without a store the shape does not matter


def test_a_law_without_a_store_does_not_say_that_stores_do_not_help(table: pd.DataFrame) -> None:
    fit = rs.fit_manifold(table, "chinchilla")
    assert fit.verdict.kind == "helps here"
    for ask in (
        lambda: rs.optimal_allocation(fit, N=1e9, budget=5e10),
        lambda: rs.knee_point(fit, N=1e9),
        lambda: rs.exchange_rate(fit, N=1e9, D=1e10, R=1e9),
        lambda: rs.optimal_allocation(rs.bootstrap(fit, n_resamples=20, rng=0), N=1e9, budget=5e10),
    ):
        with pytest.raises(FitError, match=r"'chinchilla' has no term for a store.*Retrieval helps.*law='log1p'"):
            ask()
    assert rs.compute_optimal(fit, flops=1e20).N > 1e7  # which is not about a store
    nothing = rs.fit_manifold(simulate("chinchilla", noise=0.002, rng=0), "chinchilla")
    assert nothing.verdict.kind == "no effect"
    best = rs.optimal_allocation(nothing, N=1e9, budget=5e10)
    assert best.share == 0.0
    assert nothing.verdict.text in best.summary()
    closed = rs.fit_manifold(table[table["R"] == 0], "chinchilla")
    assert rs.optimal_allocation(closed, N=1e9, budget=5e10).boundary == "R=0"


def test_three_rows_of_one_store_are_no_reason_to_spend_everything_on_pretraining() -> None:
    rows = load("knnlm_table3").query("split == 'dev'")
    fit = rs.fit_manifold(rows)
    assert "cannot be told from one trained model" in fit.summary()
    with pytest.raises(FitError, match=r"no term for a store, and these results have stores\. It cannot be told"):
        rs.optimal_allocation(fit, N=float(fit.data["N"].iloc[0]), budget=2.87e9)
