"""Two procedures compared by their laws: differences, crossings, and draws that are shared where the models are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import ConfigError, ResultsError

GRID = pd.DataFrame([(n, k * n) for n in np.geomspace(1e7, 3e9, 8) for k in (5, 10, 20, 40, 80)], columns=["N", "D"])


def table(E: float, A: float, B: float, noise: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    value = E + A * GRID["N"] ** -0.34 + B * GRID["D"] ** -0.28
    return GRID.assign(value=value * np.exp(noise * rng.standard_normal(len(GRID))), metric="loss")


@pytest.fixture(scope="module")
def fits():
    return {
        "slow start": rs.fit_manifold(table(1.6, 700, 700, 0.002, 0), "chinchilla"),
        "quick start": rs.fit_manifold(table(1.75, 406, 411, 0.002, 1), "chinchilla"),
    }


def test_the_crossing_is_where_the_frontiers_meet(fits):
    found = rs.compare_fits(fits, compute=np.geomspace(1e17, 1e25, 41))
    (row,) = found.crossing.to_dict("records")
    n = np.geomspace(1e5, 1e13, 4001)

    def frontier(E, A, B, c):
        return (E + A * n**-0.34 + B * (c / 6 / n) ** -0.28).min()

    budgets = np.geomspace(1e17, 1e25, 4001)
    gaps = [frontier(1.6, 700, 700, c) - frontier(1.75, 406, 411, c) for c in budgets]
    exact = budgets[np.argmin(np.abs(gaps))]
    assert row["compute_low"] < exact < row["compute_high"]
    assert np.log(row["compute"] / exact) == pytest.approx(0, abs=0.5)
    assert (row["better_below"], row["better_above"]) == ("quick start", "slow start")
    assert "cross at" in found.summary()


def test_parameters_differ_with_intervals(fits):
    rows = rs.compare_fits(fits).parameters.set_index("parameter")
    assert rows.loc["E", "difference"] == pytest.approx(-0.15, abs=0.05)
    assert rows.loc["E", "difference_low"] < -0.15 < rows.loc["E", "difference_high"]
    assert rows.loc["E", "difference"] == pytest.approx(rows.loc["E", "value_first"] - rows.loc["E", "value_second"])


def test_a_table_with_the_procedure_in_a_column(fits):
    both = pd.concat(
        [table(1.6, 700, 700, 0.002, 0).assign(corpus="a"), table(1.75, 406, 411, 0.002, 1).assign(corpus="b")]
    )
    found = rs.compare_fits(both, over="corpus", law="chinchilla")
    assert found.names == ("a", "b")
    given = rs.compare_fits({"a": fits["slow start"], "b": fits["quick start"]})
    pd.testing.assert_frame_equal(found.curve, given.curve)


def test_shared_models_are_drawn_together():
    rng = np.random.default_rng(5)
    shared = 0.05 * rng.standard_normal(len(GRID))
    base = table(1.7, 406, 411, 0.0, 0)
    first = base.assign(value=base["value"] * np.exp(shared))
    second = base.assign(value=(base["value"] - 0.02) * np.exp(shared))
    pair = {
        name: rs.fit_manifold(rows, "chinchilla", loss="least_squares") for name, rows in (("a", first), ("b", second))
    }
    at = pd.DataFrame({"N": [1e9], "D": [2e10]})
    row = rs.compare_fits(pair, at=at).curve.iloc[0]
    assert row["difference"] == pytest.approx(0.02, abs=0.003)
    assert row["difference_low"] > 0  # twenty times smaller than the noise of either
    apart = rs.bootstrap(pair["b"], n_resamples=200, rng=99)
    alone = rs.compare_fits({"a": pair["a"], "b": apart}, at=at).curve.iloc[0]
    assert alone["difference_high"] - alone["difference_low"] > 3 * (row["difference_high"] - row["difference_low"])


def test_equal_procedures_cannot_be_told_apart():
    pair = {
        name: rs.fit_manifold(table(1.7, 406, 411, 0.01, seed), "chinchilla") for name, seed in (("a", 1), ("b", 2))
    }
    assert "cannot be told apart" in rs.compare_fits(pair).summary()


def test_scores_are_better_when_higher():
    def score(shift: float) -> pd.DataFrame:
        loss = table(1.7 + shift, 406, 411, 0.001, 3)
        return loss.assign(value=1 / (1 + np.exp(2 * loss["value"] - 5)), metric="acc")

    pair = {name: rs.fit_manifold(score(s), "chinchilla", link="bounded") for name, s in (("good", 0.0), ("bad", 0.1))}
    found = rs.compare_fits(pair)
    assert found.higher_is_better
    assert "good is better than bad" in found.summary()


def test_what_cannot_be_compared_is_refused(fits):
    with pytest.raises(ConfigError, match="at least two"):
        rs.compare_fits({"a": fits["slow start"]})
    with pytest.raises(ConfigError, match="over="):
        rs.compare_fits(table(1.7, 406, 411, 0, 0))
    with pytest.raises(ResultsError, match="no column"):
        rs.compare_fits(table(1.7, 406, 411, 0, 0), over="corpus")
    with pytest.raises(ConfigError, match="no fits"):
        rs.compare_fits({"a": 1, "b": 2})
    with pytest.raises(ConfigError, match="columns N and D"):
        rs.compare_fits(fits, at=pd.DataFrame({"N": [1e9]}))
