"""Where retrieval starts to help, with confidence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale import fitting
from ragscale.decisions import Threshold
from ragscale.errors import ConfigError, IdentifiabilityWarning, ResultsError

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
    table = pd.DataFrame(rows, columns=["N", "D", "R", "value", "seed"])
    return table.assign(condition=np.where(table["R"] > 0, "retrieved", "closed-book"), metric="loss")


def over_closed_book(table: pd.DataFrame, **options) -> Threshold:
    return rs.reading_threshold(table, control="closed-book", **options)


def test_the_smallest_model_that_gains_is_found_and_smaller_ones_are_hurt():
    table = over_closed_book(readers())
    assert table.threshold == 3e8
    assert list(table.table["helps"]) == [False] * 3 + [True] * 3
    assert list(table.table["hurts"]) == [True] * 3 + [False] * 3
    assert list(table.table["from_here"]) == [False] * 3 + [True] * 3
    assert table.table["gain"].iloc[-1] == pytest.approx(0.1, abs=0.02)
    assert "from 3e+08 parameters on" in table.summary()


def test_noise_does_not_pass_for_a_gain():
    grid = pd.DataFrame(
        [(n, k * n, r) for n in SIZES for k in (5, 10, 20, 40) for r in (0, 1e9, 1e10)], columns=list("NDR")
    )
    worlds = [rs.datasets.simulate("chinchilla", grid=grid, noise=0.02, rng=i).assign(task=f"{i}") for i in range(25)]
    with pytest.warns(IdentifiabilityWarning, match="no column 'condition'"):
        found = rs.reading_threshold(pd.concat(worlds, ignore_index=True).assign(metric="loss"))
    false_alarms = int(found.table["helps"].sum())
    assert found.table["task"].nunique() == 25
    assert false_alarms <= 0.05 * 25 * len(SIZES)  # 2.5% are expected, one side of a 95% interval


def test_no_gain_anywhere_is_an_answer():
    table = over_closed_book(readers(start=1e12))
    assert np.isnan(table.threshold)
    assert not table.table["helps"].any()


def test_direction_comes_from_the_metric_or_from_the_user():
    rising = readers(sign=1.0)
    assert over_closed_book(rising.assign(metric="acc")).threshold == 3e8
    assert over_closed_book(rising.assign(metric="wins"), higher_is_better=True).threshold == 3e8
    assert over_closed_book(readers().assign(metric="perplexity")).threshold == 3e8
    with pytest.raises(ResultsError, match="is a higher 'wins' better"):
        over_closed_book(rising.assign(metric="wins"))


def test_tasks_have_their_own_thresholds():
    both = pd.concat([readers().assign(task="a"), readers(start=5e8).assign(task="b")])
    assert over_closed_book(both).threshold == {"a": 3e8, "b": 1e9}


def test_by_data_per_parameter():
    rows = readers()
    rows["D"] = rows["N"] / 1e6 * 1e9
    rows["N"] = 1e9
    assert over_closed_book(rows, by="D_over_N").threshold == pytest.approx(300)


def test_one_checkpoint_uses_its_standard_errors_or_has_no_interval():
    one = readers(seeds=1, noise=0.0)
    sure = over_closed_book(one.assign(stderr=0.01))
    assert sure.threshold == 3e8
    unsure = over_closed_book(one.assign(stderr=0.2))
    assert not unsure.table["helps"].any()
    assert over_closed_book(one).table["low"].isna().all()


def test_from_a_law_the_threshold_is_where_the_gain_pays_for_the_insertion():
    law = fitting.Interaction(offset=True)
    subject = known("interaction", law, nu=-0.3, C=0.05 * 1e9**-0.3, offset=0.1)
    sizes = np.geomspace(1e7, 1e10, 31)
    table = rs.reading_threshold(subject, N=sizes, R=1e10)
    t = subject[1]
    exact = (0.1 / (t["C"] * np.log1p(t["eta"] * 1e10))) ** (1 / 0.3)
    assert table.threshold == sizes[sizes > exact][0]


def test_a_bootstrap_asks_for_confidence(fitted):
    fit, bootstrap = fitted
    table = rs.reading_threshold(bootstrap)
    assert list(table.table["N"]) == sorted(fit.data["N"].unique())
    assert (table.table["low"] <= table.table["gain"]).all()
    assert table.table["helps"].all()
    assert (table.table["n"] == 200).all()
    ratios = rs.reading_threshold(bootstrap, by="D_over_N", N=1e9, D_over_N=[1, 5, 20])
    assert list(ratios.table["D_over_N"]) == [1, 5, 20]


@pytest.mark.parametrize(
    "arguments", [{"by": "R"}, {"confidence_level": 1.5}, {"N": 1e9}, {"N": [1e9, 1e9], "R": 1e9}, {"R": 1e9}]
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ConfigError):
        rs.reading_threshold(known("log1p"), **arguments)


def test_a_table_without_pairs_is_refused():
    with pytest.raises(ResultsError, match="no rows of condition 'retrieved'"):
        over_closed_book(readers().query("R == 0").assign(condition="closed-book"))
    with pytest.raises(ConfigError, match="are for a fit"):
        over_closed_book(readers(), N=1e9)


def conditions(gains: dict[str, float], seed: int = 0, skill=lambda n, d: 1.0) -> pd.DataFrame:
    """Twelve models with the given gains over the closed book, all times what the models' skill makes of them."""
    rng, rows = np.random.default_rng(seed), []
    for n in (5e6, 1e7, 2e7):
        for d in (15e6, 30e6, 60e6, 90e6):
            closed = 5 - 0.1 * np.log(n * d) + 0.05 * rng.standard_normal()
            rows.append((n, d, 0, closed, "closed-book"))
            for condition, gain in gains.items():
                stores = (3e6, 1e7) if condition == "retrieved" else (0,)
                value = closed - gain * (skill(n, d) if condition == "oracle" else 1.0)
                rows += [(n, d, r, value + 0.01 * rng.standard_normal(), condition) for r in stores]
    return pd.DataFrame(rows, columns=["N", "D", "R", "value", "condition"]).assign(task="t", metric="nll_per_token")


def test_models_that_gain_as_much_by_a_random_passage_do_not_read():
    table = conditions({"oracle": 0.1, "random": 0.1, "retrieved": 0.1})
    found = rs.reading_threshold(table)
    assert np.isnan(found.threshold)
    assert "no threshold in the range measured (5e+06 to 2e+07 parameters)" in found.summary()
    assert over_closed_book(table).threshold == 5e6  # which is why the random passage is the control


def test_conditions_are_never_mixed():
    hurt = conditions({"oracle": 0.4, "retrieved": -0.05, "random": -0.1})
    assert over_closed_book(hurt, condition="retrieved").table["gain"].to_numpy() == pytest.approx(-0.05, abs=0.02)
    assert rs.reading_threshold(hurt).table["gain"].to_numpy() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ResultsError, match="no rows of condition 'random'"):
        rs.reading_threshold(conditions({"oracle": 0.4}))
    with pytest.raises(ResultsError, match="'helpful'"):
        rs.reading_threshold(hurt, condition="helpful")


def test_a_threshold_in_tokens_and_in_steps():
    table = conditions({"oracle": 1.0, "random": 0.0}, skill=lambda n, d: float(d > 45e6))
    assert rs.reading_threshold(table, by="D").threshold == 60e6
    assert rs.reading_threshold(table.assign(batch_tokens=6e3), by="steps").threshold == 1e4
    with pytest.raises(ConfigError, match="batch_tokens"):
        rs.reading_threshold(table, by="steps")


def test_tasks_together_have_a_joint_threshold():
    early = conditions({"oracle": 1.0, "random": 0.0}, skill=lambda n, d: float(d > 20e6)).assign(task="early")
    late = conditions({"oracle": 1.0, "random": 0.0}, skill=lambda n, d: float(d > 70e6)).assign(task="late")
    found = rs.reading_threshold(pd.concat([early, late]), by="D")
    assert found.threshold == {"early": 30e6, "late": 90e6}
    assert found.joint == 30e6
    assert "all tasks together" in found.summary()


def test_checkpoints_of_one_run_count_once():
    table = conditions({"oracle": 0.3, "random": 0.0})
    runs = table.assign(run=table["N"].map(lambda n: f"run {n:g}"))
    assert rs.reading_threshold(runs, by="N").table["n"].tolist() == [1, 1, 1]
    assert rs.reading_threshold(table, by="N").table["n"].tolist() == [4, 4, 4]


def test_a_threshold_survives_a_file(tmp_path):
    found = rs.reading_threshold(conditions({"oracle": 0.3, "random": 0.0}), by="D")
    found.to_json(tmp_path / "threshold.json")
    assert Threshold.from_json(tmp_path / "threshold.json").summary() == found.summary()


def test_a_gain_that_counts_moves_the_threshold():
    table = conditions({"oracle": 1.0, "random": 0.0}, skill=lambda n, d: d / 90e6)
    assert rs.reading_threshold(table, by="D").threshold == 15e6
    assert rs.reading_threshold(table, by="D", min_gain=0.5).threshold == 60e6
    with pytest.raises(ConfigError, match="min_gain"):
        rs.reading_threshold(table, by="D", min_gain=-1)


def test_a_law_that_reads_has_its_threshold_as_a_parameter():
    table = rs.datasets.load("ragscale-gpu")
    fit = rs.fit_manifold(table[table["task"] == "squad"], law="reading")
    found = rs.reading_threshold(fit, by="D")
    np.testing.assert_allclose(found.table["D"], fit.law.threshold(fit.theta, found.table["N"].to_numpy()))
    assert 1.0e7 < found.threshold < 1.5e7
    rows = table[table["task"] == "squad"]
    assert rs.reading_threshold(rows, by="D", min_gain=0.9).threshold == 16e6
