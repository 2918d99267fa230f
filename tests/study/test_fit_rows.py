"""The rows of a study's surface: gold and random passages stay where a law can read them."""

import numpy as np
import pandas as pd
import pytest

from ragscale import results
from ragscale.study._fit_rows import rows_to_fit


def table(*, rates=True, gold_examples=100):
    """Two tasks, two D, closed book, retrieved, gold and random."""
    rows = []
    for task, shift in (("a", 0.0), ("b", 0.4)):
        for D in (1e6, 2e6):
            for condition, R, rate in (
                ("closed-book", 0, None),
                ("retrieved", 1e5, 0.2 + shift),
                ("random", 1e5, 0.0),
                ("oracle", 0, 1.0),
            ):
                row = {"N": 1e6, "D": D, "R": R, "seed": 0, "task": task, "metric": "nll", "condition": condition}
                n = gold_examples if condition == "oracle" and task == "b" else 100
                row |= {"value": 2.0, "n_examples": n, "hit_rate": rate if rates else None}
                rows.append(row)
    return pd.DataFrame(rows)


def test_the_mean_over_tasks_keeps_the_mean_of_the_hit_rates():
    mean = results.select(table(), metric="nll").groupby("condition")["hit_rate"].mean()
    assert mean["retrieved"] == pytest.approx(0.4)
    assert np.isnan(mean["closed-book"])


def test_all_conditions_stay_for_the_choice_of_a_law():
    kept = rows_to_fit(table(), metric="nll", task=None, law="auto")
    assert set(kept["condition"]) == {"closed-book", "retrieved", "random", "oracle"}
    assert set(rows_to_fit(table(), metric="nll", task="a", law="auto")["condition"]) == set(kept["condition"])


@pytest.mark.parametrize(("given", "law"), [(table(), "log1p"), (table(rates=False), "auto")])
def test_a_named_law_and_unknown_hit_rates_take_two_conditions(given, law):
    assert set(rows_to_fit(given, metric="nll", task=None, law=law)["condition"]) == {"closed-book", "retrieved"}


def test_gold_rows_of_other_questions_stay_out():
    few = table(gold_examples=13)
    assert "oracle" not in set(rows_to_fit(few, metric="nll", task=None, law="auto")["condition"])
    assert "oracle" not in set(rows_to_fit(few, metric="nll", task="b", law="auto")["condition"])
    assert "oracle" in set(rows_to_fit(few, metric="nll", task="a", law="auto")["condition"])
