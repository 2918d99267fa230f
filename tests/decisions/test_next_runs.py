"""Which runs to make next: they fit the budget, they teach what was asked, and they beat chance."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import ConfigError

LAW = {"E": 1.7, "A": 406.0, "alpha": 0.34, "B": 411.0, "beta": 0.28}


def loss(frame: pd.DataFrame, rng: np.random.Generator | None = None) -> pd.DataFrame:
    value = LAW["E"] + LAW["A"] * frame["N"] ** -LAW["alpha"] + LAW["B"] * frame["D"] ** -LAW["beta"]
    noise = 0 if rng is None else 0.003 * rng.standard_normal(len(frame))
    return frame.assign(value=value * np.exp(noise), metric="loss")


POOL = pd.DataFrame(
    [(n, d) for n in np.geomspace(3e7, 3e9, 9) for d in np.geomspace(5e8, 5e11, 10)], columns=["N", "D"]
).assign(label=lambda frame: [f"run {i}" for i in range(len(frame))])
COST = 6 * POOL["N"] * POOL["D"]
TARGET = pd.DataFrame({"N": [1e10], "D": [1e12]})


@pytest.fixture(scope="module")
def pilot():
    """Twelve runs whose three D are so close that no law can be determined."""
    grid = pd.DataFrame([(n, d) for n in (3e7, 6e7, 1.2e8, 2.4e8) for d in (5e8, 5.5e8, 6e8)], columns=["N", "D"])
    return loss(grid, np.random.default_rng(0))


def test_the_budget_is_kept_and_rows_come_back_unchanged(pilot):
    found = rs.next_runs(pilot, POOL, budget_flops=1e21, goal="loss", at=TARGET)
    assert 0 < found.cost.sum() <= 1e21
    merged = found.to_frame().merge(POOL, on=["N", "D", "label"])
    assert len(merged) == len(found) > 0
    assert not found.runs.duplicated().any()
    assert found.deviation_after < found.deviation_before
    assert "runs for" in found.summary()


def test_what_the_pilot_lacks_is_asked_for(pilot):
    found = rs.next_runs(pilot, POOL, budget_flops=3e20, goal="loss", at=TARGET)
    assert found.runs["D"].max() > 50 * pilot["D"].max()


def test_chosen_runs_predict_better_than_runs_drawn_by_chance(pilot):
    rng = np.random.default_rng(1)
    truth = float(loss(TARGET)["value"].iloc[0])

    def error(chosen: pd.DataFrame) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = pd.concat([pilot, loss(chosen[["N", "D"]], rng)], ignore_index=True)
            fit = rs.fit_manifold(table, "chinchilla", delta="auto")
            return abs(float(fit.predict(1e10, 1e12)) / truth - 1)

    budget = 0.02 * COST.sum()
    chosen = rs.next_runs(pilot, POOL, budget_flops=budget, goal="loss", at=TARGET, law="chinchilla").to_frame()
    ours = np.median([error(chosen) for _ in range(5)])
    theirs = []
    for seed in range(15):
        order = np.random.default_rng(seed).permutation(len(POOL))
        kept = order[np.cumsum(COST.to_numpy()[order]) <= budget]
        theirs.append(error(POOL.iloc[kept]) if len(kept) else 1.0)
    assert ours < 0.7 * np.median(theirs)


def test_batches_are_prefixes_of_what_a_run_teaches(pilot):
    few = rs.next_runs(pilot, POOL, budget_flops=1e21, at=TARGET, batch=3)
    assert len(few) == 3


def test_stores_of_a_trained_model_cost_next_to_nothing():
    results = rs.datasets.simulate("log1p", noise=0.005, rng=0)
    models = results[["N", "D"]].drop_duplicates()
    stores = pd.concat([models.assign(R=r) for r in (3e8, 3e9, 3e10)])
    more = pd.concat([stores, pd.DataFrame({"N": [3e9], "D": [3e11], "R": [0.0]})], ignore_index=True)
    found = rs.next_runs(results, more, budget_flops=1e18, goal="share", law=["log1p", "hill"], batch=5)
    assert len(found) == 5
    assert found.cost.sum() == 0
    assert (found.runs["R"] > 0).all()


def test_runs_that_are_in_the_results_are_not_made_again(pilot):
    found = rs.next_runs(pilot, pilot[["N", "D"]], budget_flops=1e22, at=TARGET)
    assert len(found) == 0
    assert "no candidate" in found.summary()


def test_wrong_arguments_are_named(pilot):
    with pytest.raises(ConfigError, match="missing: D"):
        rs.next_runs(pilot, POOL[["N"]], budget_flops=1e21)
    with pytest.raises(ConfigError, match=r"budget_flops.*goal.*batch"):
        rs.next_runs(pilot, POOL, budget_flops=-1, goal="truth", batch=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'accuracy' is no column"):
        rs.next_runs(pilot, POOL, budget_flops=1e21, value="accuracy")
    with pytest.raises(ConfigError, match="also reads U"):
        rs.next_runs(pilot.assign(U=1e9), POOL, budget_flops=1e21, law="data_constrained")
