"""Gains are taken within a checkpoint, so what was evaluated where cannot pass for a gain."""

import numpy as np
import pandas as pd
import pytest

from ragscale.errors import FitError
from ragscale.fitting import Log1p
from ragscale.study._page import Page
from ragscale.study._report_evidence import (
    complete_tasks,
    controls_section,
    coverage_section,
    gains,
    predicted_gains,
    tasks_section,
)

plt = pytest.importorskip("matplotlib.pyplot")
METRIC = "nll_per_token"


def table(gain=None, tasks=("a", "b"), noise=0.0) -> pd.DataFrame:
    """Closed book falls with D; large D has fewer stores, as under D + R <= T; gains are as given."""
    gain = gain or {"retrieved": 0.2, "oracle": 0.5, "random": -0.1}
    rng = np.random.default_rng(0)
    rows = []
    for task in tasks:
        for n in (1e5, 3e5, 1e6):
            for d, stores in ((1e5, (1e4, 1e5, 1e6)), (1e6, (1e4, 1e5)), (1e7, (1e4,))):
                closed = 3 + 40 * n**-0.3 + 60 * d**-0.3
                hits = {store: 0.1 * np.log10(store) for store in stores}
                cells = [("closed-book", 0.0, 0.0, np.nan), ("oracle", 0.0, gain["oracle"], 1.0)]
                cells += [("random", store, gain["random"], 0.0) for store in stores]
                mixed = {r: h * gain["oracle"] + (1 - h) * gain["random"] for r, h in hits.items()}
                cells += [("retrieved", r, gain["retrieved"] or mixed[r], h) for r, h in hits.items()]
                for condition, store, helped, hit in cells:
                    rows.append(
                        {
                            **{"N": n, "D": d, "R": store, "task": task, "metric": METRIC, "seed": 0},
                            **{"condition": condition, "hit_rate": hit, "n_examples": 50},
                            "value": closed - helped + (noise * rng.normal() if condition == "retrieved" else 0.0),
                        }
                    )
    return pd.DataFrame(rows)


def test_gains_are_those_of_each_condition_whatever_cells_there_are():
    found = gains(table(), METRIC).groupby("condition")["gain"].agg(["min", "max"])
    for condition, gain in (("retrieved", 0.2), ("oracle", 0.5), ("random", -0.1)):
        assert found.loc[condition].to_list() == pytest.approx([gain, gain])


def test_passages_that_do_not_depend_on_the_store_count_once():
    found = gains(table(tasks=("a",)), METRIC)
    assert found["condition"].value_counts().to_dict() == {"retrieved": 18, "oracle": 9, "random": 9}


def test_a_checkpoint_without_a_closed_book_has_no_gain():
    rows = table(tasks=("a",))
    rows = rows[~((rows["condition"] == "closed-book") & (rows["D"] == 1e7))]
    assert set(gains(rows, METRIC)["D"]) == {1e5, 1e6}


def test_a_task_is_complete_when_every_condition_asked_the_same_questions():
    rows = table(tasks=("whole", "without oracle", "fewer with gold"))
    rows = rows[~((rows["task"] == "without oracle") & (rows["condition"] == "oracle"))]
    rows.loc[(rows["task"] == "fewer with gold") & (rows["condition"] == "oracle"), "n_examples"] = 40
    assert complete_tasks(rows, METRIC) == ["whole"]


def test_sections_show_the_gains(tmp_path):
    plt.switch_backend("Agg")
    page = Page("t")
    rows = table(gain={"retrieved": None, "oracle": 0.5, "random": -0.1}, noise=1e-4)
    tasks_section(page, rows, METRIC)
    controls_section(page, rows, METRIC)
    coverage_section(page, rows, METRIC, Log1p())
    page.write(tmp_path / "report.md")
    tasks = pd.read_csv(tmp_path / "report-files" / "tasks.csv")
    assert tasks["gain, oracle"].to_numpy() == pytest.approx(0.5, abs=1e-3)
    controls = pd.read_csv(tmp_path / "report-files" / "controls.csv")
    assert controls["gold over random"].to_numpy() == pytest.approx(0.6, abs=1e-3)
    text = (tmp_path / "report.md").read_text()
    assert "predicts the 18 retrieved cells with a mean error of 0.0" in text


def test_gains_follow_from_hit_rates_where_a_miss_is_like_a_random_passage():
    rows = gains(table(gain={"retrieved": None, "oracle": 0.5, "random": -0.1}), METRIC)
    cells = predicted_gains(rows)
    assert len(cells) == 2 * 3 * (2 + 1)  # two tasks, three N; every store but the smallest
    for column in ("by_random", "by_smallest"):
        assert cells[column].to_numpy() == pytest.approx(cells["gain"].to_numpy())


def test_where_a_miss_is_better_than_a_random_passage_only_the_smallest_store_tells():
    rows = table(gain={"retrieved": None, "oracle": 0.5, "random": 0.1})
    random = (rows["condition"] == "random").to_numpy()
    rows.loc[random, "value"] += 0.3  # random passages now hurt, retrieved misses still gain 0.1
    cells = predicted_gains(gains(rows, METRIC))
    assert cells["by_smallest"].to_numpy() == pytest.approx(cells["gain"].to_numpy())
    assert (cells["by_random"] < cells["gain"] - 0.1).all()


def test_without_controls_the_sections_say_so():
    rows = table()
    rows = rows[rows["condition"] != "oracle"]
    page = Page("t")
    controls_section(page, rows, METRIC)
    assert "nothing to control with" in str(page)
    with pytest.raises(FitError, match="needs all of the conditions"):
        coverage_section(page, rows, METRIC, Log1p())
