"""No recommendation from a law that does not follow the data, nor where nothing was measured; words that fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.errors import FitError

from .conftest import known

TABLE = simulate("log1p", noise=0.01, cluster_share=0.5, rng=3)
SMALL: pd.DataFrame = TABLE[
    (TABLE["N"] < 2e9) & (TABLE["D"] / TABLE["N"]).isin([1, 5, 20, 50]) & (TABLE["R"] / TABLE["N"]).isin([0, 1, 5, 20])
].reset_index(drop=True)


def test_values_in_no_order_decide_nothing() -> None:
    shuffled = SMALL.assign(value=np.random.default_rng(1).permutation(SMALL["value"]))
    fit = rs.fit_manifold(shuffled, "log1p")
    assert not fit.describes_data
    for ask in (
        lambda: rs.optimal_allocation(fit, N=2e8, budget=5e10),
        lambda: rs.knee_point(fit, N=2e8),
        lambda: rs.exchange_rate(fit, N=2e8, D=1e9, R=1e9),
        lambda: rs.compute_optimal(fit, flops=1e20),
    ):
        with pytest.raises(FitError, match=r"this fit cannot answer.*DOES NOT DESCRIBE THE DATA.*whether retrieval"):
            ask()


def test_answers_at_chance_are_told_to_keep_their_tokens_and_nothing_about_sizes() -> None:
    chance = 0.25 + 0.01 * np.random.default_rng(0).standard_normal(len(SMALL))
    fit = rs.fit_manifold(SMALL.assign(value=chance, metric="acc"))
    assert fit.verdict.kind == "no effect"
    best = rs.optimal_allocation(fit, N=2e8, budget=5e10)
    assert best.share == 0.0
    assert fit.verdict.text in best.summary()
    with pytest.raises(FitError, match="cannot answer that"):
        rs.compute_optimal(fit, flops=1e20)


def test_a_best_size_a_thousand_times_outside_of_the_rows_is_refused() -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    assert rs.compute_optimal(fit, flops=1e21).N > 1e8
    with pytest.warns(rs.errors.ExtrapolationWarning, match="compute_optimal extrapolates"):
        assert rs.compute_optimal(fit, flops=1e25).N > 3e9
    with pytest.raises(FitError, match=r"the best N by this law is .*, more than 1000 times outside of the 3e\+07 to"):
        rs.compute_optimal(fit, flops=1e32)
    assert rs.compute_optimal(known("log1p"), flops=1e32).N > 1e12  # parameters that were given are taken by their word


def test_a_knee_below_all_rows_is_said_to_lie_below_them() -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    inside = rs.knee_point(fit, N=1e9)
    assert inside.status == "found"
    cheap = rs.knee_point(fit, N=1e9, prices={"D": 1.0, "R": 1e-6})
    assert cheap.status == "below"
    assert pytest.approx(TABLE["D"].min() / 10) == cheap.D
    with pytest.warns(rs.errors.ExtrapolationWarning, match="knee_point extrapolates"):
        assert rs.knee_point(fit, N=1e9, prices={"D": 1.0, "R": 1e-6}, min_D=1.0).D < cheap.D


def test_a_store_that_does_not_pay_is_not_said_to_be_useless() -> None:
    best = rs.optimal_allocation(known("log1p"), N=1e9, budget=2e9)
    assert best.boundary == "R=0"
    assert "a store does not pay here" in best.summary()
    assert "does not help" not in best.summary()
    dear = rs.optimal_allocation(known("log1p"), N=1e9, budget=5e10, prices=(1, 1e3)).summary()
    assert "a store does not pay here" in dear
    assert "retrieval does not help here" in rs.optimal_allocation(known("log1p", C=0.0), N=1e9, budget=2e9).summary()


def test_an_open_verdict_stands_beside_the_split() -> None:
    rows = SMALL[(SMALL["N"] == 3e7) & (SMALL["D"] < 1e9)].reset_index(drop=True)
    fit = rs.fit_manifold(rows)
    assert fit.verdict.kind == "cannot be told"
    assert fit.verdict.text in rs.optimal_allocation(fit, N=3e7, budget=6e8).summary()
