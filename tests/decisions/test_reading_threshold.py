"""Where retrieval starts to help, with confidence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale import fitting
from ragscale.errors import ConfigError, ResultsError

from .conftest import known

SIZES = np.array([1e7, 3e7, 1e8, 3e8, 1e9, 3e9])


def readers(noise: float = 0.02, seeds: int = 6, start: float = 2e8, sign: float = -1.0) -> pd.DataFrame:
    """Models below ``start`` parameters lose 0.1 by retrieved text, larger ones gain 0.1."""
    rng = np.random.default_rng(0)
    rows = []
    for n in SIZES:
        for seed in range(seeds):
            base = 3.0 + rng.normal(0, 0.3)
            for r in (0, 1e9, 1e10):
                effect = 0.0 if r == 0 else (0.1 if n > start else -0.1)
                rows.append((n, 20 * n, r, base + sign * effect + rng.normal(0, noise), seed))
    return pd.DataFrame(rows, columns=["N", "D", "R", "value", "seed"])


def test_the_smallest_model_that_gains_is_found_and_smaller_ones_are_hurt():
    table = rs.reading_threshold(readers())
    assert table.attrs["threshold"] == 3e8
    assert list(table["helps"]) == [False] * 3 + [True] * 3
    assert list(table["hurts"]) == [True] * 3 + [False] * 3
    assert list(table["from_here"]) == [False] * 3 + [True] * 3
    assert table["gain"].iloc[-1] == pytest.approx(0.1, abs=0.02)
    assert table["threshold"].sum() == 1


def test_noise_does_not_pass_for_a_gain():
    grid = pd.DataFrame(
        [(n, k * n, r) for n in SIZES for k in (5, 10, 20, 40) for r in (0, 1e9, 1e10)], columns=list("NDR")
    )
    false_alarms = 0
    for seed in range(25):
        table = rs.reading_threshold(rs.datasets.simulate("chinchilla", grid=grid, noise=0.02, rng=seed))
        false_alarms += int(table["helps"].sum())
    assert false_alarms <= 0.05 * 25 * len(SIZES)  # 2.5% are expected, one side of a 95% interval


def test_no_gain_anywhere_is_an_answer():
    table = rs.reading_threshold(readers(start=1e12))
    assert np.isnan(table.attrs["threshold"])
    assert not table["helps"].any()


def test_direction_comes_from_the_metric_or_from_the_user():
    rising = readers(sign=1.0)
    assert rs.reading_threshold(rising.assign(metric="acc")).attrs["threshold"] == 3e8
    assert rs.reading_threshold(rising.assign(metric="wins"), higher_is_better=True).attrs["threshold"] == 3e8
    assert rs.reading_threshold(readers().assign(metric="perplexity")).attrs["threshold"] == 3e8
    with pytest.raises(ConfigError, match="is a higher 'wins' better"):
        rs.reading_threshold(rising.assign(metric="wins"))


def test_tasks_have_their_own_thresholds():
    both = pd.concat([readers().assign(task="a"), readers(start=5e8).assign(task="b")])
    assert rs.reading_threshold(both).attrs["threshold"] == {"a": 3e8, "b": 1e9}


def test_by_data_per_parameter():
    rows = readers()
    rows["D"] = rows["N"] / 1e6 * 1e9
    rows["N"] = 1e9
    assert rs.reading_threshold(rows, by="D_over_N").attrs["threshold"] == pytest.approx(300)


def test_one_checkpoint_uses_its_standard_errors_or_has_no_interval():
    one = readers(seeds=1, noise=0.0)
    sure = rs.reading_threshold(one.assign(stderr=0.01))
    assert sure.attrs["threshold"] == 3e8
    unsure = rs.reading_threshold(one.assign(stderr=0.2))
    assert not unsure["helps"].any()
    assert rs.reading_threshold(one)["low"].isna().all()


def test_from_a_law_the_threshold_is_where_the_gain_pays_for_the_insertion():
    law = fitting.Interaction(offset=True)
    subject = known("interaction", law, nu=-0.3, C=0.05 * 1e9**-0.3, offset=0.1)
    sizes = np.geomspace(1e7, 1e10, 31)
    table = rs.reading_threshold(subject, N=sizes, R=1e10)
    t = subject[1]
    exact = (0.1 / (t["C"] * np.log1p(t["eta"] * 1e10))) ** (1 / 0.3)
    assert table.attrs["threshold"] == sizes[sizes > exact][0]


def test_a_bootstrap_asks_for_confidence(fitted):
    fit, bootstrap = fitted
    table = rs.reading_threshold(bootstrap)
    assert list(table["N"]) == sorted(fit.data["N"].unique())
    assert (table["low"] <= table["gain"]).all()
    assert table["helps"].all()
    assert (table["n"] == 200).all()
    ratios = rs.reading_threshold(bootstrap, by="D_over_N", N=1e9, D_over_N=[1, 5, 20])
    assert list(ratios["D_over_N"]) == [1, 5, 20]


@pytest.mark.parametrize(
    "arguments", [{"by": "R"}, {"confidence_level": 1.5}, {"N": 1e9}, {"N": [1e9, 1e9], "R": 1e9}, {"R": 1e9}]
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ConfigError):
        rs.reading_threshold(known("log1p"), **arguments)


def test_a_table_without_pairs_is_refused():
    with pytest.raises(ResultsError, match="no checkpoint"):
        rs.reading_threshold(readers().query("R == 0"))
    with pytest.raises(ConfigError, match="are for a fit"):
        rs.reading_threshold(readers(), N=1e9)
