"""Every law of the literature passes the public contract, and stands beside the others in `compare_laws`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ragscale import datasets
from ragscale.fitting import Chinchilla, catalogue, compare_laws, cross_validate, laws
from ragscale.testing import check_scaling_law

RANGES = {"loss": (0.4, 3.0), "n_samples": (1, 64), "k": (0, 100), "n_shot": (0, 16), "n_iterations": (1, 5)}
RANGES |= {"i_doc": (0.0, 0.4), "i_shot": (0.0, 0.2), "batch_tokens": (1e4, 1e7)}
VARIANTS = [law() for law in laws.LAWS]
VARIANTS += [laws.DataConstrained(tie=True), laws.InferenceScaling(informativeness=True), laws.PassAtK(chance=0.1)]
VARIANTS += [laws.BrokenPowerLaw(variable="C"), laws.BrokenPowerLaw(n_breaks=0)]


@pytest.mark.parametrize("law", VARIANTS, ids=repr)
def test_the_law_keeps_its_contract(law):
    checks = check_scaling_law(law, columns=RANGES)
    assert {"loss_broadcasts_over_replicates", "gradient_agrees_with_differences"} <= set(checks)


def test_all_are_in_the_catalogue_once():
    table = catalogue()
    assert table.index.is_unique
    assert {law.name for law in laws.LAWS} <= set(table.index)
    assert table.loc["data_constrained", "variables"] == "N, D, U"
    assert not table.loc[[law.name for law in laws.LAWS], "retrieval"].any()


def test_losses_are_compared_on_one_table():
    runs = datasets.load("mlfoundations_losses")
    runs = runs[(runs["corpus"] == "rpj") & (runs["task"] == "c4_val")]
    found = compare_laws(runs, ["chinchilla", "overtraining", "kaplan_c"])
    table = found.table
    assert (table["problem"] == "").all()
    # the table over-trains: a law in computation alone cannot see it
    assert table.loc["kaplan_c", "k_fold"] > 2 * table.loc["chinchilla", "k_fold"]
    assert table["k_fold"].min() < 0.02


def test_accuracies_are_compared_in_one_metric_whatever_the_law_models():
    # Chinchilla through the bounded link, the direct laws as accuracies: errors of both are points
    rng = np.random.default_rng(0)
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e8, 1e10, 6), np.geomspace(2e9, 1e12, 6)))
    theta = {"A": 0.4, "alpha": 0.4, "B": 0.8, "beta": 0.3}
    value = laws.DirectDownstream(chance=0.25).loss(n, d, 0, theta) + 0.002 * rng.standard_normal(len(n))
    table = pd.DataFrame({"N": n, "D": d, "value": value, "metric": "accuracy", "chance": 0.25})
    found = compare_laws(table, [laws.DirectDownstream(chance=0.25), Chinchilla(), laws.DirectCompute(chance=0.25)])
    fits = found.fits
    assert {fit.space for fit in fits.values()} == {"linear"}
    assert fits["direct_downstream"].link.name == "identity"
    assert fits["chinchilla"].link.name == "bounded"
    assert found.best == "direct_downstream"
    assert found.table.loc["direct_downstream", "k_fold"] < 0.004
    assert found.table.loc["direct_compute", "k_fold"] > 0.006


def test_columns_go_with_their_rows_into_the_folds():
    """Unique tokens that differ from row to row: a fold that reads those of other rows misses by much."""
    theta = laws.DataConstrained.published["c4"].parameters
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e8, 3e9, 5), np.geomspace(1e10, 3e11, 5)))
    unique = d * np.random.default_rng(0).uniform(0.02, 1.0, len(d))
    value = laws.DataConstrained().loss(n, d, 0, theta, U=unique)
    table = pd.DataFrame({"N": n, "D": d, "U": unique, "value": value, "metric": "loss"})
    held = {name: theta[name] for name in ("alpha", "beta", "r_D", "r_N")}
    aware = cross_validate(table, laws.DataConstrained(fixed=held), leave_out=4)
    mixed = table.assign(U=np.random.default_rng(1).permutation(unique))
    assert aware.error < 1e-3
    assert cross_validate(mixed, laws.DataConstrained(fixed=held), leave_out=4).error > 20 * aware.error
