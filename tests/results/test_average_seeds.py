"""Averaging over seeds: the mean, and a standard error that does not forget the questions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ragscale.results import average_seeds


def seeds(table: pd.DataFrame, n: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.concat(
        [table.assign(seed=s, run=f"run-{s}", value=table["value"] + rng.normal(0, 0.01, len(table))) for s in range(n)]
    )


def test_mean_and_standard_error_agree_with_pandas_groupby(table):
    rows = seeds(table)
    averaged = average_seeds(rows)
    groups = rows.groupby(["N", "R"])["value"]
    np.testing.assert_allclose(averaged["value"], groups.mean(), rtol=1e-14)
    np.testing.assert_allclose(averaged["stderr"], groups.sem(), rtol=1e-12)
    assert list(averaged["n_seeds"]) == [3] * 4
    assert not {"seed", "run"} & set(averaged.columns)


def test_question_noise_is_shared_by_the_seeds_and_does_not_shrink(table):
    averaged = average_seeds(seeds(table, 100).assign(stderr=0.5))
    assert (averaged["stderr"] >= 0.5).all()
    assert (averaged["stderr_seeds"] < 0.01).all()
    np.testing.assert_allclose(averaged["stderr"] ** 2, 0.25 + averaged["stderr_seeds"] ** 2)


def test_one_seed_keeps_its_own_standard_error(table):
    averaged = average_seeds(table.assign(stderr=[0.1, 0.2, 0.3, np.nan]))
    np.testing.assert_array_equal(averaged["stderr"], [0.1, 0.2, 0.3, np.nan])
    assert averaged["stderr_seeds"].isna().all()
    np.testing.assert_array_equal(averaged["value"], table["value"])


def test_the_order_of_rows_does_not_matter(table):
    rows = seeds(table)
    shuffled = average_seeds(rows.sample(frac=1, random_state=1)).sort_values(["N", "R"], ignore_index=True)
    pd.testing.assert_frame_equal(shuffled, average_seeds(rows).sort_values(["N", "R"], ignore_index=True))


def test_tasks_conditions_and_own_columns_are_never_mixed(table):
    rows = pd.concat([seeds(table).assign(task=t, prompt=p) for t in ("a", "b") for p in ("x", "y")])
    averaged = average_seeds(rows)
    assert len(averaged) == 16
    assert averaged.groupby(["task", "prompt"]).size().eq(4).all()


def test_unequal_numbers_of_seeds_are_counted(table):
    averaged = average_seeds(seeds(table).iloc[:-1])
    assert list(averaged["n_seeds"]) == [3, 3, 3, 2]


@pytest.mark.parametrize("column", ["n_examples", "flops"])
def test_counts_are_averaged(table, column):
    rows = seeds(table, 2)
    rows[column] = np.repeat([10.0, 30.0], 4)
    assert average_seeds(rows)[column].eq(20).all()
