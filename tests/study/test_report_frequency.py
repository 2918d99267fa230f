"""Remembered or looked up: the cut by frequency, its interval, and what the report and the answer say of it."""

import numpy as np
import pandas as pd
import pytest
from tiny_study import TINY, copy_of

from ragscale.errors import ResultsError
from ragscale.study._report_frequency import crossing, crossings, frequency_section, losses_by_question

TOLD = np.array([2, 4, 8, 16, 32, 64, 128, 256] * 5)


def table(memory, lookup, *, seeds=(0, 1), noise=0.0, worse=None):
    """Losses of 40 questions on a budget of 1,000: D = 1,000, D = 700 with R = 300, and a worse split."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in seeds:
        for D, R, of in ((1000, 0, memory), (700, 300, lookup), (500, 500, worse or (lambda told: lookup(told) + 1))):
            for number, told in enumerate(TOLD):
                value = of(told) + noise * rng.normal()
                row = {"N": 1e5, "budget": 1000.0, "seed": seed, "D": D, "R": R, "task": "all", "id": str(number)}
                rows.append({**row, "frequency": int(told), "value": value, "hit": True})
    return pd.DataFrame(rows)


def test_the_cut_lies_where_memory_begins_to_be_better():
    found = crossing(table(lambda told: 3 - 0.5 * np.log2(told), lambda told: 0.7, noise=0.05), n_resamples=100)
    assert found.frequency == pytest.approx(np.sqrt(16 * 32))
    assert (found.D, found.R) == (700, 300)
    assert found.low <= found.frequency <= found.high
    assert found.best < min(found.memory, found.lookup)
    assert found.gain == pytest.approx(found.memory - found.lookup)
    assert found.gain_low < found.gain < found.gain_high
    bins = found.bins.sort_values("frequency")
    assert (np.diff(bins["memory"]) <= 0.1).all()
    assert f"more than {found.frequency:.0f} documents" in found.sentence()


@pytest.mark.parametrize(
    ("lookup", "frequency", "words"),
    [(0.1, np.inf, "looks up facts of every frequency"), (9.0, 0.0, "remembers facts of every frequency")],
)
def test_one_way_may_be_better_for_every_fact(lookup, frequency, words):
    found = crossing(table(lambda told: 2.0, lambda told: lookup), n_resamples=50)
    assert found.frequency == frequency
    assert words in found.sentence()
    assert ("no store, of the splits" in found.sentence()) == (lookup > 2)


def test_the_interval_is_over_models_too():
    """Two seeds that disagree leave the gain open, however many questions there are."""
    one = table(lambda told: 2.0, lambda told: 0.0, seeds=(0,))
    other = table(lambda told: 2.0, lambda told: 3.0, seeds=(1,))
    found = crossing(pd.concat([one, other]), n_resamples=200)
    assert found.gain_low <= -0.9
    assert found.gain_high >= 1.9


def test_every_task_counts_alike_whatever_its_number_of_questions():
    few = table(lambda told: 2.0, lambda told: 0.0)
    few = few[few["id"].astype(int) < 4].assign(task="few", frequency=np.nan)
    found = crossing(pd.concat([table(lambda told: 2.0, lambda told: 1.0), few]), n_resamples=50)
    assert (found.gain, found.memory, found.lookup) == pytest.approx((1.5, 2.0, 0.5))
    assert found.gain_low == pytest.approx(1.5)
    assert found.bins["difference"].to_numpy() == pytest.approx(1.0)


def test_cells_that_lack_questions_are_not_compared():
    rows = table(lambda told: 2.0, lambda told: 0.0)
    lacking = rows[~((rows["seed"] == 1) & (rows["R"] == 300) & (rows["id"] == "3"))]
    with pytest.raises(ResultsError, match="lack questions"):
        crossing(lacking, n_resamples=5)


class Page:
    """Keeps what is put on it."""

    def __init__(self):
        self.said = []

    def __getattr__(self, name):
        return lambda *given, **named: self.said.append((name, given))


def test_a_study_of_the_invented_world_has_the_losses_of_its_questions(done, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    study = copy_of(done, tmp_path / "study", TINY.replace(budgets=[8_000], conditions=("closed-book",)))
    study.run(progress=False)
    results = study.results()
    losses = losses_by_question(study, 8_000.0, store_source="held-out", k=1)
    assert set(zip(losses["D"], losses["R"], strict=True)) == {(8_000, 0), (4_000, 4_000)}
    assert losses["frequency"].isna().equals(losses["task"] == "multi-hop")
    cell = losses.groupby(["task", "N", "seed", "D", "R"], as_index=False)["value"].mean()
    kept = results[(results["metric"] == "nll_per_token") & results["condition"].isin(["closed-book", "retrieved"])]
    both = cell.merge(kept, on=["task", "N", "seed", "D", "R"])
    assert len(both) == len(cell) == 12
    assert both["value_x"].to_numpy() == pytest.approx(both["value_y"].to_numpy(), rel=1e-6)
    page = Page()
    found = crossings(study, (8_000,))
    frequency_section(page, found)
    assert [name for name, _ in page.said] == ["bullets", "figure", "table"]
    assert found[0].sentence() in study.answer()


def test_without_budgets_the_section_says_so(one):
    page = Page()
    frequency_section(page, crossings(one, (10**9,)))
    assert [name for name, _ in page.said] == ["text"]
