"""What a passage brings to each trained model, against pairs counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ragscale as rs
from ragscale.decisions._checkpoint_gains import checkpoint_gains, gain_intervals, joint_gains
from ragscale.decisions._reading_threshold import _mark
from ragscale.errors import ConfigError, IdentifiabilityWarning, ResultsError

from .conftest import known


def falls(metric: str, rows: pd.DataFrame) -> bool:
    return False


def rises(metric: str, rows: pd.DataFrame) -> bool:
    return metric == "acc"


def table(*lines: tuple[float, float, float, str, float], **columns) -> pd.DataFrame:
    return pd.DataFrame(lines, columns=["N", "D", "R", "condition", "value"]).assign(**columns)


PAIRS = table(
    (1e8, 1e9, 0, "closed-book", 3.0),
    (1e8, 1e9, 0, "random", 3.1),
    (1e8, 1e9, 1e6, "retrieved", 2.8),
    (1e8, 1e9, 1e7, "retrieved", 2.4),
    (2e8, 4e9, 0, "closed-book", 2.5),
    (2e8, 4e9, 0, "random", 2.6),
    (2e8, 4e9, 1e6, "retrieved", 2.4),
)


def test_a_gain_is_the_mean_over_stores_against_the_control_of_the_same_model():
    over_random = checkpoint_gains(PAIRS, treated=None, control="random", rises=falls)
    assert over_random["gain"].tolist() == pytest.approx([3.1 - 2.6, 2.6 - 2.4])
    over_closed = checkpoint_gains(PAIRS, treated=None, control="closed-book", rises=falls)
    assert over_closed["gain"].tolist() == pytest.approx([3.0 - 2.6, 2.5 - 2.4])
    assert over_closed["of"].tolist() == ["retrieved"] * 2
    assert over_closed["D_over_N"].tolist() == [10.0, 20.0]


def test_gold_passages_come_before_retrieved_ones_unless_asked():
    gold = pd.concat([PAIRS, table((1e8, 1e9, 0, "oracle", 2.0))])
    first = checkpoint_gains(gold, treated=None, control="random", rises=falls)
    assert first[["of", "gain"]].to_dict("records") == [{"of": "oracle", "gain": pytest.approx(1.1)}]
    asked = checkpoint_gains(gold, treated="retrieved", control="random", rises=falls)
    assert asked["of"].tolist() == ["retrieved"] * 2


def test_a_rising_metric_gains_upwards():
    both = pd.concat([PAIRS.assign(metric="loss"), PAIRS.assign(metric="acc")])
    gains = checkpoint_gains(both, treated=None, control="closed-book", rises=rises).set_index(["metric", "N"])["gain"]
    assert gains["loss", 1e8] == pytest.approx(0.4)
    assert gains["acc", 1e8] == pytest.approx(-0.4)


def test_the_error_of_a_pair_is_that_of_both_and_no_smaller_for_several_stores():
    known_errors = PAIRS.assign(stderr=[0.3, 0.3, 0.4, 0.4, 0.1, 0.1, 0.2])
    errors = checkpoint_gains(known_errors, treated=None, control="random", rises=falls)["error"]
    assert errors.tolist() == pytest.approx([0.5, np.hypot(0.1, 0.2)])
    assert checkpoint_gains(PAIRS, treated=None, control="random", rises=falls)["error"].isna().all()


def test_seeds_runs_and_batches_are_models_of_their_own():
    for column in ("seed", "run", "split"):
        twice = pd.concat([PAIRS.assign(**{column: "a"}), PAIRS.assign(**{column: "b"})])
        assert len(checkpoint_gains(twice, treated=None, control="random", rises=falls)) == 4
    steps = checkpoint_gains(PAIRS.assign(batch_tokens=3e6), treated=None, control="random", rises=falls)["steps"]
    assert steps.tolist() == [333.0, 1333.0]


def test_a_model_without_its_pair_is_left_out_and_none_at_all_is_refused():
    alone = PAIRS[~((PAIRS["N"] == 1e8) & (PAIRS["condition"] == "random"))]
    assert checkpoint_gains(alone, treated=None, control="random", rises=falls)["N"].tolist() == [2e8]
    never = table((1e8, 1e9, 0, "random", 3.0), (2e8, 1e9, 1e6, "retrieved", 2.0))
    with pytest.raises(ResultsError, match="no checkpoint has rows of both conditions"):
        checkpoint_gains(never, treated=None, control="random", rises=falls)


def test_every_task_that_lacks_a_condition_is_named():
    lacking = PAIRS[PAIRS["condition"] != "random"]
    both = pd.concat([lacking.assign(task="squad"), lacking.assign(task="nq")])
    with pytest.raises(ResultsError) as caught:
        checkpoint_gains(both, treated=None, control="random", rises=falls)
    for part in ("task 'nq' has no rows of condition 'random'", "task 'squad'", "control='closed-book'"):
        assert part in str(caught.value)
    one_good = pd.concat([lacking.assign(task="squad"), PAIRS.assign(task="nq")])
    assert set(checkpoint_gains(one_good, treated=None, control="random", rises=falls)["task"]) == {"nq"}


def test_without_conditions_the_control_is_no_store_and_that_is_said():
    plain = PAIRS[PAIRS["condition"] != "random"].drop(columns="condition")
    with pytest.warns(IdentifiabilityWarning, match="no column 'condition'"):
        found = checkpoint_gains(plain, treated=None, control="random", rises=falls)
    assert found["gain"].tolist() == pytest.approx([0.4, 0.1])


# Intervals ------------------------------------------------------------------------------------------------------------


def gains(*values: float, **columns) -> pd.DataFrame:
    return pd.DataFrame({"N": 1e8, "D": 1e9, "of": "retrieved", "gain": values, "error": np.nan}).assign(**columns)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_the_interval_is_students_over_models(level: float):
    values = [0.1, 0.3, 0.35, 0.2]
    (row,) = gain_intervals(gains(*values), "N", level).to_dict("records")
    low, high = stats.t.interval(level, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (row["gain"], row["low"], row["high"], row["n"]) == pytest.approx((np.mean(values), low, high, 4))


def test_one_model_alone_has_the_interval_of_its_questions():
    (row,) = gain_intervals(gains(0.3).assign(error=0.1), "N", 0.9).to_dict("records")
    low, high = stats.norm.interval(0.9, 0.3, 0.1)
    assert (row["low"], row["high"], row["n"]) == pytest.approx((low, high, 1))
    (unknown,) = gain_intervals(gains(0.3), "N", 0.9).to_dict("records")
    assert np.isnan(unknown["low"])


def test_checkpoints_of_a_run_are_one_and_a_gap_in_the_runs_makes_rows_count():
    one = gain_intervals(gains(0.1, 0.2, 0.9, run=["a", "a", "b"]), "N", 0.95).iloc[0]
    assert one["n"] == 2
    assert one["gain"] == pytest.approx((0.15 + 0.9) / 2)
    rows = gain_intervals(gains(0.1, 0.2, 0.9, run=["a", None, "b"]), "N", 0.95).iloc[0]
    assert rows["n"] == 3
    assert rows["gain"] == pytest.approx(0.4)


def test_every_value_has_its_row_by_task():
    every = pd.concat([gains(0.1, 0.2, task="a"), gains(0.4, task="b"), gains(0.5, task="b").assign(N=2e8)])
    found = gain_intervals(every, "N", 0.95)
    assert found[["task", "N", "n"]].to_numpy().tolist() == [["a", 1e8, 2], ["b", 1e8, 1], ["b", 2e8, 1]]
    with pytest.raises(ConfigError, match="needs a column batch_tokens"):
        gain_intervals(every, "steps", 0.95)


def test_over_tasks_each_model_has_the_mean_of_its_gains():
    every = pd.concat([gains(0.1, 0.3, task="a", seed=[0, 1]), gains(0.5, 0.9, task="b", seed=[0, 1])])
    found = joint_gains(every.assign(D_over_N=10.0, error=0.2))
    assert found["gain"].tolist() == pytest.approx([0.3, 0.6])
    assert found["error"].tolist() == pytest.approx([0.2, 0.2])


# From where on --------------------------------------------------------------------------------------------------------


def marked(
    low: list[float], gain: list[float] | None = None, least: float = 0.0, *, certain: bool = True
) -> pd.DataFrame:
    middle = low if gain is None else gain
    rows = pd.DataFrame({"N": [1e7 * 2**i for i in range(len(low))], "gain": middle, "low": low})
    return _mark(rows.assign(high=rows["gain"] + 0.1).sample(frac=1.0, random_state=0), "N", least, certain=certain)


@pytest.mark.parametrize(
    ("low", "from_here"),
    [
        ([-1, 1, 1], [False, True, True]),
        ([1, -1, 1], [False, False, True]),  # what helps below a size that it does not help is no threshold
        ([1, 1, 1], [True, True, True]),
        ([1, 1, -1], [False, False, False]),
        ([0, 1, 1], [False, True, True]),  # at the least gain itself nothing is certain
    ],
)
def test_everything_above_the_threshold_must_help(low: list[float], from_here: list[bool]):
    assert marked(low)["from_here"].tolist() == from_here


def test_a_measured_gain_without_an_interval_is_not_certain_and_one_of_a_law_goes_by_its_sign():
    nothing = [np.nan] * 3
    assert not marked(nothing, [-0.1, 0.1, 0.2])["helps"].any()
    assert marked([np.nan, 0.1, 0.2], [0.1, 0.1, 0.2])["helps"].tolist() == [False, True, True]
    assert marked(nothing, [-0.1, 0.1, 0.2], certain=False)["helps"].tolist() == [False, True, True]
    assert marked(nothing, [0.1, 0.3, 0.6], least=0.3, certain=False)["helps"].tolist() == [False, False, True]
    assert marked(nothing, [-0.1, 0.1, 0.2], certain=False)["hurts"].tolist() == [True, False, False]


def test_what_is_below_zero_for_certain_hurts():
    rows = _mark(pd.DataFrame({"N": [1, 2], "gain": [-0.2, -0.2], "low": [-0.4, -0.4], "high": [-0.1, 0.1]}), "N", 0.0)
    assert rows["hurts"].tolist() == [True, False]


# From a law -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log1p", "interaction", "log_ratio", "multiplicative", "effective_data"])
def test_from_a_law_every_gain_is_the_difference_of_two_losses(name: str):
    law, theta = known(name)
    sizes, ratio, store = np.array([1e8, 1e9, 1e10]), 30.0, 5e9
    found = rs.reading_threshold((law, theta), N=sizes, D_over_N=ratio, R=store)
    expected = law.loss(sizes, ratio * sizes, 0, theta) - law.loss(sizes, ratio * sizes, store, theta)
    np.testing.assert_allclose(found.table["gain"], expected, rtol=1e-12)
    np.testing.assert_allclose(found.table["D"], ratio * sizes)
    assert ("the same gain for every N by construction" in found.note) == (name == "log1p")
    assert found.threshold == 1e8
    assert "at most 1e+08 parameters" in found.summary()


def test_a_law_that_reads_has_its_threshold_at_the_geometric_middle_of_the_sizes():
    law = rs.fitting.Reading(N_ref=1e7)
    table = rs.datasets.simulate_reading(rng=0)
    theta = {**{p.name: 1.0 for p in law.parameters}, **table.attrs["params"], "D0": 3e8, "c": 0.5}
    theta = {name: theta[name] for name in (p.name for p in law.parameters)}
    found = rs.reading_threshold((law, theta), by="D", N=[1e6, 1e7, 1e10], R=1e7, hit_rate=0.5)
    middle = (1e6 * 1e7 * 1e10) ** (1 / 3)
    assert found.threshold == pytest.approx(3e8 * (middle / 1e7) ** 0.5, rel=1e-9)
    by_size = found.table.set_index("N")["D"]
    np.testing.assert_allclose(by_size[[1e6, 1e7, 1e10]], 3e8 * (np.array([1e6, 1e7, 1e10]) / 1e7) ** 0.5, rtol=1e-9)
    assert found.table["n"].tolist() == [0] * 4
    assert np.isnan(found.table["D_low"]).all()


def test_a_threshold_outside_of_the_table_cannot_be_told():
    rows = rs.datasets.simulate_reading({"D0": 1.2e7}, rng=0, model_noise=0.005, row_noise=0.002)
    fit = rs.fit_manifold(rows, "reading")
    found = rs.reading_threshold(fit, by="D")
    low, high = rows["D"].min(), rows["D"].max()
    assert found.note == ""
    assert low <= found.threshold <= high
    # models so large that they would read long after the most training that was measured
    far = rs.reading_threshold(fit, by="D", N=[1e30])
    assert np.isnan(far.threshold)
    assert far.note.endswith(f"lies outside the D that were measured, {low:.3g} to {high:.3g}")
