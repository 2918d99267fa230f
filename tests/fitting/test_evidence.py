"""What a table says of passages without any law, against the arithmetic written out."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ragscale.errors import CheckpointError
from ragscale.fitting import Bounded, Identity
from ragscale.fitting._evidence import (
    Evidence,
    Paired,
    TrainedModel,
    evidence,
    evidence_of,
    paired,
    trained_models,
)

STORES = (1e6, 1e7)


def model(
    closed: float,
    retrieved: dict[float, float] | None = None,
    *,
    gold: float = np.nan,
    random: float = np.nan,
    hits: tuple[float, ...] = (),
    d: float = 1e9,
    experiment: int = 0,
) -> TrainedModel:
    """One trained model with the latent losses given."""
    shown = retrieved or {}
    rates = np.array(hits or [np.nan] * len(shown))
    return TrainedModel(
        1e8, d, experiment, closed, gold, random, np.array(list(shown)), np.array(list(shown.values())), rates
    )


def rows(*lines: tuple[float, float, float, float, str]) -> pd.DataFrame:
    return pd.DataFrame(lines, columns=["N", "D", "R", "value", "condition"])


def interval(gains: list[float]) -> tuple[float, float]:
    """Student's 95 % interval of a mean, by scipy."""
    half = stats.t.interval(0.95, len(gains) - 1, loc=np.mean(gains), scale=stats.sem(gains))
    return float(half[0]), float(half[1])


# Gains by store -------------------------------------------------------------------------------------------------------


def test_a_gain_is_the_closed_book_minus_the_retrieved_loss_by_store_and_at_both_ends():
    models = [
        model(3.0, {1e6: 2.9, 1e7: 2.6}, experiment=0),
        model(3.3, {1e7: 2.8, 1e6: 3.1}, experiment=1),  # the order of the rows does not matter
        model(3.6, {1e6: 3.55, 1e7: 3.0}, experiment=2),
    ]
    found = evidence_of(models, needed=0.06)
    by_store = found.stores.set_index("R")
    assert list(by_store.index) == [1e6, 1e7]
    small, large = [0.1, 0.2, 0.05], [0.4, 0.5, 0.6]
    for store, gains in ((1e6, small), (1e7, large)):
        assert by_store.loc[store, "gain"] == pytest.approx(np.mean(gains))
        assert tuple(by_store.loc[store, ["low", "high"]]) == pytest.approx(interval(gains))
        assert by_store.loc[store, "n_models"] == 3
    for one, gains in ((found.smallest, small), (found.largest, large)):
        assert (one.gain, one.low, one.high, one.n_models) == pytest.approx((np.mean(gains), *interval(gains), 3))


def test_each_model_has_its_own_smallest_and_largest_store():
    models = [model(3.0, {1e6: 2.9, 1e8: 2.0}, experiment=0), model(3.0, {1e7: 2.5}, experiment=1)]
    found = evidence_of(models, needed=0.06)
    assert found.smallest.gain == pytest.approx((0.1 + 0.5) / 2)
    assert found.largest.gain == pytest.approx((1.0 + 0.5) / 2)
    assert found.stores["n_models"].tolist() == [1, 1, 1]


def test_several_rows_of_one_store_are_their_mean_and_models_without_a_pair_do_not_count():
    twice = TrainedModel(
        1e8, 1e9, 0, 3.0, np.nan, np.nan, np.array([1e6, 1e6]), np.array([2.8, 2.6]), np.full(2, np.nan)
    )
    found = evidence_of([twice, model(3.0), model(np.nan, {1e6: 2.0})], needed=0.06)
    assert found.stores["gain"].tolist() == pytest.approx([0.3])
    assert found.stores["n_models"].tolist() == [1]


def test_checkpoints_of_one_run_count_once():
    models = [model(0.0) for _ in range(3)] + [model(0.0, experiment=4)]
    found = paired("gains", models, [0.1, 0.2, 0.3, 0.8])
    assert found.gain == pytest.approx(0.5)  # the mean of .2 and .8, not of four numbers
    assert (found.low, found.high) == pytest.approx(interval([0.2, 0.8]))
    assert found.n_models == 2


def test_one_experiment_has_a_gain_and_no_interval():
    found = paired("gains", [model(0.0), model(0.0)], [0.1, 0.3])
    assert found.gain == pytest.approx(0.2)
    assert np.isnan([found.low, found.high]).all()
    assert found.n_models == 1
    assert not found.is_clear
    assert found.summary() == "gains: +0.2 (no interval), 1 trained model"


@pytest.mark.parametrize(("low", "high", "clear"), [(0.1, 0.3, True), (-0.3, -0.1, True), (-0.1, 0.3, False)])
def test_a_gain_is_clear_where_its_interval_leaves_out_zero(low: float, high: float, clear: bool):
    one = Paired(what="a", gain=(low + high) / 2, low=low, high=high, n_models=3)
    assert one.is_clear is clear
    assert one.to_frame().to_dict("records") == [
        {"what": "a", "gain": (low + high) / 2, "gain_low": low, "gain_high": high, "n_models": 3}
    ]


# Whether anybody reads ------------------------------------------------------------------------------------------------


def test_gold_is_compared_with_random_passages_where_both_were_measured():
    models = [
        model(3.0, gold=2.0, random=3.1, experiment=0),
        model(3.0, gold=2.2, random=3.0, experiment=1),
        model(3.0, gold=1.0, experiment=2),  # no random passage: nothing to compare with
    ]
    reads = evidence_of(models, needed=0.06).reads
    assert reads.what == "gold minus random passages"
    assert reads.gain == pytest.approx((1.1 + 0.8) / 2)
    assert reads.n_models == 2


def test_the_most_trained_models_are_asked_until_there_are_three():
    models = [model(3.0, gold=3.0 - g, random=3.0, d=d, experiment=i) for i, (d, g) in enumerate(
        [(1e9, 0.0), (1e9, 0.0), (2e9, 0.3), (4e9, 0.5), (4e9, 0.7)])]  # fmt: skip
    assert evidence_of(models, needed=0.06).reads.gain == pytest.approx((0.3 + 0.5 + 0.7) / 3)
    three_at_the_top = [*models, model(3.0, gold=2.4, random=3.0, d=4e9, experiment=9)]
    assert evidence_of(three_at_the_top, needed=0.06).reads.gain == pytest.approx((0.5 + 0.7 + 0.6) / 3)


def test_without_gold_the_loss_of_a_hit_is_the_slope_over_stores():
    h = np.array([0.2, 0.5, 0.9])
    models = [
        model(3.0, dict(zip((1e6, 1e7, 1e8), 2.9 - slope * h, strict=True)), hits=tuple(h), experiment=i)
        for i, slope in enumerate((1.0, 1.4))
    ]
    reads = evidence_of(models, needed=0.06).reads
    assert reads.what == "hits minus misses"
    assert reads.gain == pytest.approx(1.2)


@pytest.mark.parametrize("hits", [(0.4, 0.4), (0.0, 0.0), (np.nan, 0.5)])
def test_hit_rates_that_do_not_vary_say_nothing_about_reading(hits: tuple[float, float]):
    models = [model(3.0, {1e6: 2.9, 1e7: 2.5}, hits=hits, experiment=i) for i in range(3)]
    assert evidence_of(models, needed=0.06).reads is None


def test_an_unknown_hit_rate_is_left_out_of_the_slope():
    one = model(3.0, {1e6: 2.8, 1e7: 99.0, 1e8: 2.2}, hits=(0.2, np.nan, 0.8))
    assert evidence_of([one], needed=0.06).reads.gain == pytest.approx(1.0)


def reads(gain: float, low: float, high: float) -> Evidence:
    one = Paired(what="gold minus random passages", gain=gain, low=low, high=high, n_models=5)
    return Evidence(stores=pd.DataFrame(), smallest=None, largest=None, reads=one, needed=0.1)


@pytest.mark.parametrize(
    ("gain", "low", "high", "somebody", "nobody"),
    [
        (0.50, 0.20, 0.80, True, False),
        (0.50, 0.10, 0.90, False, False),  # the lower end must be above what is needed
        (0.05, 0.01, 0.09, False, True),
        (0.05, -0.09, 0.19, False, True),  # the upper end may be up to twice of it
        (0.05, -0.11, 0.21, False, False),
        (0.11, 0.03, 0.19, False, False),
    ],
)
def test_readers_and_those_who_surely_do_not_read(gain, low, high, somebody, nobody):
    found = reads(gain, low, high)
    assert found.somebody_reads is somebody
    assert found.nobody_reads is nobody


def test_where_reading_was_not_measured_nothing_is_said_of_it():
    nothing = dataclasses.replace(reads(0.5, 0.2, 0.8), reads=None)
    assert not nothing.somebody_reads
    assert not nothing.nobody_reads
    assert nothing.summary() == "no trained model was evaluated both with and without a passage"
    assert nothing.to_frame().empty


# Any store ------------------------------------------------------------------------------------------------------------


def stores_with(chance: float, count: int, models: int = 4, sign: float = 1.0) -> Evidence:
    """Stores of which the first has a one-sided chance of ``chance`` under no effect, the others gain nothing."""
    t = stats.t.isf(chance, models - 1)
    half = stats.t.ppf(0.975, models - 1)
    gain = np.array([sign * t, *[0.0] * (count - 1)])
    table = pd.DataFrame({"R": 1e6 * np.arange(1, count + 1), "gain": gain, "low": gain - half, "high": gain + half})
    return Evidence(stores=table.assign(n_models=models), smallest=None, largest=None, reads=None, needed=0.1)


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_of_many_stores_one_must_be_surer_to_count(count: int):
    """Bonferroni: one-sided 2.5 % over all stores."""
    assert stores_with(0.025 / count * 0.98, count).helps
    assert not stores_with(0.025 / count * 1.02, count).helps
    assert stores_with(0.025 / count * 0.98, count, sign=-1.0).hurts
    assert not stores_with(0.025 / count * 1.02, count, sign=-1.0).hurts
    assert not stores_with(0.025 / count * 0.98, count, sign=-1.0).helps


def test_stores_of_a_single_model_have_no_say_in_whether_any_helps():
    alone = stores_with(1e-6, 3, models=4)
    one_model = dataclasses.replace(alone, stores=alone.stores.assign(n_models=1))
    assert alone.helps
    assert not one_model.helps


def test_the_largest_store_alone_is_judged_by_its_own_interval():
    base = stores_with(0.5, 3)
    largest = Paired(what="gain by the largest store", gain=0.2, low=0.01, high=0.39, n_models=4)
    assert dataclasses.replace(base, largest=largest).helps
    worse = dataclasses.replace(largest, gain=-0.2, low=-0.39, high=-0.01)
    assert dataclasses.replace(base, largest=worse).hurts
    assert not dataclasses.replace(base, largest=worse).helps


# From a table ---------------------------------------------------------------------------------------------------------


def test_rows_of_a_table_become_models_by_their_condition_and_store():
    table = rows(
        (1e8, 1e9, 0, 3.0, "closed-book"),
        (1e8, 1e9, 0, 3.2, "closed-book"),
        (1e8, 1e9, 1e6, 2.5, "retrieved"),
        (1e8, 1e9, 1e6, 2.0, "gold"),
        (1e8, 1e9, 0, 3.4, "random"),
        (2e8, 1e9, 1e7, 2.2, "retrieved"),
    ).assign(hit_rate=[np.nan, np.nan, 0.4, 1.0, 0.0, "0.7"])
    first, second = trained_models(table, Identity())
    assert (first.n, first.d, first.closed, first.gold, first.random) == pytest.approx((1e8, 1e9, 3.1, 2.0, 3.4))
    assert first.stores.tolist() == [1e6]
    assert first.retrieved.tolist() == [2.5]
    assert first.hits.tolist() == [0.4]
    assert np.isnan([second.closed, second.gold, second.random]).all()
    assert second.hits.tolist() == [0.7]


def test_seeds_and_runs_are_models_of_their_own():
    table = rows(*[(1e8, 1e9, r, 3.0 - r / 1e7, c) for r, c in ((0, "closed-book"), (1e6, "retrieved"))] * 2)
    assert len(trained_models(table, Identity())) == 1
    assert len(trained_models(table.assign(seed=[0, 0, 1, 1]), Identity())) == 2
    assert len(trained_models(table.assign(run=["a", "a", "b", "b"]), Identity())) == 2


def test_what_reading_must_be_worth_is_a_share_of_the_loss_or_a_tenth_of_a_logit():
    pair = [(n, 1e9, r, value, c) for n, closed in ((1e8, 4.0), (2e8, 5.0), (4e8, 9.0))
            for r, value, c in ((0, closed, "closed-book"), (1e6, closed - 1, "retrieved"))]  # fmt: skip
    assert evidence(rows(*pair), Identity()).needed == pytest.approx(0.02 * 5.0)
    scores = rows(*pair).assign(value=lambda frame: 1 / (1 + frame["value"]))
    assert evidence(scores, Bounded(direction="up")).needed == pytest.approx(0.1)
    nothing_closed = rows(*[line for line in pair if line[2] > 0])
    assert evidence(nothing_closed, Identity()).needed == pytest.approx(0.02)


# As a result ----------------------------------------------------------------------------------------------------------


def full() -> Evidence:
    models = [model(3.0 + 0.1 * i, {1e6: 2.9, 1e7: 2.5 + 0.1 * i}, gold=2.0, random=3.0 + 0.05 * i, experiment=i)
              for i in range(3)]  # fmt: skip
    return evidence_of(models, needed=0.06)


def test_evidence_says_reading_first_and_then_the_largest_and_the_smallest_store():
    lines = full().summary().splitlines()
    starts = [line.split(":")[0] for line in lines]
    assert starts == ["gold minus random passages", "gain by the largest store", "gain by the smallest store"]
    assert lines[0].endswith("(readers gain more than 0.06)")
    assert full().to_frame()["what"].tolist() == starts


def test_evidence_survives_a_file_and_damaged_ones_are_refused():
    whole = full()
    plain = json.loads(json.dumps(whole.to_dict()))
    back = Evidence.from_dict(plain)
    assert back.summary() == whole.summary()
    pd.testing.assert_frame_equal(back.stores, whole.stores)
    assert back.needed == whole.needed
    damaged = [[key, "much" if key == "gain" else value] for key, value in plain["largest"]["$map"]]
    with pytest.raises(CheckpointError, match="the evidence, largest"):
        Evidence.from_dict({**plain, "largest": {"$map": damaged}})
    with pytest.raises(CheckpointError, match="needed"):
        Evidence.from_dict({**plain, "needed": None})
    text = dataclasses.replace(whole, stores=whole.stores.assign(gain="much"))
    with pytest.raises(CheckpointError, match="its stores hold what is no number"):
        Evidence.from_dict(text.to_dict())


def test_editing_the_stores_that_are_handed_out_edits_nothing():
    whole = full()
    handed = whole.stores
    handed["gain"] = 0.0
    assert (whole.stores["gain"] > 0).all()
