"""Seven answers to whether retrieval helps, each from a world that must give exactly it."""

import numpy as np
import pandas as pd
import pytest

from ragscale import fit_manifold
from ragscale.datasets import simulate_reading
from ragscale.fitting import Bounded, Identity
from ragscale.fitting._evidence import evidence

NOISE = {"model_noise": 0.01, "row_noise": 0.005, "n_questions": 400}


def stores_only(table):
    """Return a table that measures neither gold passages nor hit rates."""
    rows = table[table["condition"].isin(["closed-book", "retrieved"])]
    return rows.drop(columns=["hit_rate"]).reset_index(drop=True)


def gain_of(size):
    return lambda n, d, r: size * np.log1p(r / 3e6)


WORLDS = {
    "helps from D0 on": lambda seed: simulate_reading(rng=seed, **NOISE),
    "helps here": lambda seed: stores_only(simulate_reading(gain=gain_of(0.06), rng=seed, **NOISE)),
    "hurts": lambda seed: simulate_reading({"gold": 0.3, "other": -0.4}, random=-0.5, rng=seed, **NOISE),
    "no effect": lambda seed: stores_only(simulate_reading(gain=gain_of(0.0), rng=seed, **NOISE)),
    "nobody reads in this range": lambda seed: simulate_reading({"D0": 1e12, "c": 0.0}, rng=seed, **NOISE),
    "cannot be told": lambda seed: stores_only(
        simulate_reading(
            N=(1e7, 2e7), D=(1e7, 3e7), gain=gain_of(0.0), rng=seed, model_noise=0.05, row_noise=0.08
        )
    ),
    "not measured": lambda seed: stores_only(simulate_reading(rng=seed, **NOISE)).query("R == 0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WORLDS)
def test_every_world_gets_its_verdict(kind):
    law = {"helps from D0 on": "reading", "hurts": "reading", "not measured": "chinchilla"}.get(kind, "log1p")
    fit = fit_manifold(WORLDS[kind](0).reset_index(drop=True), law)
    found = fit.verdict
    assert found.kind == kind
    assert found.helps == kind.startswith("helps")
    if kind != "not measured":
        assert found.low < found.gain < found.high
    assert found.text in fit.summary()
    assert found.to_frame()["verdict"].tolist() == [kind]


def test_the_threshold_is_said_for_the_typical_size():
    found = fit_manifold(WORLDS["helps from D0 on"](0), "reading").verdict
    assert found.threshold == pytest.approx(1.2e7 * 1.2**0.2, rel=0.15)
    assert f"{found.threshold:.3g} tokens" in found.text


def test_a_world_in_which_all_have_read_all_along_helps_here():
    fit = fit_manifold(simulate_reading({"D0": 1.5e6}, rng=0, **NOISE), "reading")
    assert fit.verdict.kind == "helps here"


def test_one_model_with_many_stores_is_judged_as_one_model():
    r = np.array([0, 1e8, 3e8, 1e9, 3e9, 1e10])
    table = pd.DataFrame({"N": 1e9, "D": 2e10, "R": r, "value": 2.5 - 0.1 * np.log1p(r / 3e8)})
    found = evidence(table, Identity())
    assert found.largest.n_models == 1
    assert np.isnan(found.largest.low)
    assert not found.helps


def test_the_direction_of_the_metric_is_that_of_its_link():
    table = stores_only(simulate_reading(gain=gain_of(0.06), rng=0, **NOISE))
    made = table.assign(value=Bounded(direction="up").metric(table["value"].to_numpy()), metric="accuracy")
    fit = fit_manifold(made, "log1p")
    assert fit.verdict.kind == "helps here"
    swapped = made.assign(value=1 - made["value"], metric="error_rate", higher_is_better=False)
    assert evidence(swapped, Identity()).helps


def test_a_gate_without_gold_compares_hits_with_misses():
    table = simulate_reading(rng=0, gold=False, **NOISE)
    found = evidence(table, Identity())
    assert found.reads.what == "hits minus misses"
    assert found.somebody_reads
    assert found.reads.low < 1.5 < found.reads.high + 0.3
    with_gold = evidence(simulate_reading(rng=0, **NOISE), Identity())
    assert with_gold.reads.what == "gold minus random passages"
    assert with_gold.reads.gain == pytest.approx(1.65, rel=0.1)


def test_the_gate_says_reads_in_at_most_five_of_a_hundred_tables_without_readers():
    wrong = sum(
        evidence(simulate_reading({"D0": 1e12, "c": 0.0}, R=(1e6, 1e7), D=(8e6, 4e7), rng=seed,
                                  model_noise=0.02, row_noise=0.02), Identity()).somebody_reads
        for seed in range(60)
    )  # fmt: skip
    assert wrong <= 3


def test_two_verdicts_never_contradict_each_other_in_one_summary() -> None:
    rng, rows = np.random.default_rng(0), []
    for n in (1e8, 3e8, 1e9, 3e9):
        for d in (2e9, 1e10, 5e10):
            closed = 1.7 + 400 * n**-0.34 + 410 * d**-0.28
            for r, gain in ((0, 0.0), (1e8, -0.05), (1e9, 0.0), (1e10, 0.06)):  # small stores hurt, the largest help
                rows.append((n, d, r, closed - gain + 0.003 * rng.standard_normal()))
    fit = fit_manifold(pd.DataFrame(rows, columns=["N", "D", "R", "value"]), "log1p")
    assert fit.verdict.kind == "helps here"
    assert fit.diagnostics.retrieval.verdict != "helps"
    assert "does not help" not in fit.summary()
    assert "On average over all stores the metric changes by" in fit.summary()
    assert "the smallest raise it by 0.0" in fit.verdict.text
    low, high = (float(x) for x in fit.verdict.text.split("raise it by")[1].split("[")[1].split("]")[0].split(","))
    assert low < 0.05 < high


def test_a_store_that_helps_where_the_largest_does_not_is_said_so() -> None:
    rng, rows = np.random.default_rng(1), []
    for n in (1e8, 3e8, 1e9, 3e9):
        for d in (2e9, 1e10, 5e10):
            closed = 1.7 + 400 * n**-0.34 + 410 * d**-0.28
            for r, gain in ((0, 0.0), (1e8, 0.05), (1e9, 0.03), (1e10, 0.0)):
                rows.append((n, d, r, closed - gain + 0.005 * rng.standard_normal()))
    fit = fit_manifold(pd.DataFrame(rows, columns=["N", "D", "R", "value"]), "log1p")
    assert "stores of 1e+08 tokens lower the loss" in fit.verdict.text
    assert "by the largest it is" in fit.verdict.text
    assert "which may be nothing" in fit.verdict.text
