"""Checkpoints of one run are one experiment; where nothing says so, the warning names the column that may."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import ResultsWarning

SIZES = np.array([5.3e7, 6.4e7, 1.6e8, 2.1e8, 3.2e8, 4.8e8])
RUNS = pd.DataFrame(
    [(n, d, f"run{i}") for i, n in enumerate(SIZES) for d in np.linspace(2e8, 4.4e9, 20)], columns=["N", "D", "run"]
)
RUNS["value"] = (1.7 + 400 * RUNS["N"] ** -0.34 + 410 * RUNS["D"] ** -0.28) * np.exp(
    0.005 * np.random.default_rng(0).standard_normal(6)[RUNS["run"].str[3:].astype(int)]
)


@pytest.mark.parametrize("name", ["run_id", "wandb_name", "model", "Experiment", "trial number"])
def test_the_warning_names_the_column_that_may_tell_runs_apart(name: str) -> None:
    renamed = RUNS.rename(columns={"run": name})
    with pytest.warns(ResultsWarning, match=f"there is no column 'run'.*by='{name}'"):
        rs.fit_manifold(renamed, "chinchilla")
    assert rs.fit_manifold(renamed, "chinchilla", by=name).diagnostics.n_clusters == 6


def test_gaps_in_the_runs_are_said_to_be_there() -> None:
    gappy = RUNS.assign(run=RUNS["run"].where(np.arange(len(RUNS)) % 7 > 0))
    with pytest.warns(ResultsWarning, match="'run' has gaps in 18 of 120 rows"):
        rs.fit_manifold(gappy, "chinchilla")


def test_where_nothing_tells_runs_apart_no_column_is_made_up() -> None:
    with pytest.warns(ResultsWarning, match=r"by='\.\.\.'"):
        rs.fit_manifold(RUNS.drop(columns="run").assign(step=np.tile(np.arange(20), 6)), "chinchilla")


@pytest.mark.parametrize("runs", [RUNS["run"], RUNS["run"].str[3:].astype(int), RUNS["run"].astype("category")])
def test_runs_of_any_type_count_as_experiments(runs: pd.Series) -> None:
    assert rs.fit_manifold(RUNS.assign(run=runs), "chinchilla").diagnostics.n_clusters == 6
