"""Predictions for checkpoints that exist use what their closed book has shown."""

import numpy as np
import pytest

from ragscale import fit_manifold
from ragscale.datasets import simulate_reading
from ragscale.errors import ConfigError
from ragscale.fitting import Reading


@pytest.fixture(scope="module")
def table():
    return simulate_reading(rng=0, model_noise=0.02, row_noise=0.001)


@pytest.fixture(scope="module")
def fit(table):
    seen = table[(table["condition"] != "retrieved") | (table["R"] < 1e7)]
    return fit_manifold(seen, Reading(c=0.2, leap=False), hit_rate=table.attrs["hit_rate"])


def test_the_effect_of_training_is_taken_from_the_closed_book(table, fit):
    unseen = table[(table["condition"] == "retrieved") & (table["R"] > 1e7)]
    errors = [
        np.abs(fit.predict(unseen["N"], unseen["D"], unseen["R"], at_checkpoint=known) / unseen["value"] - 1).mean()
        for known in (False, True)
    ]
    assert errors[1] < 0.3 * errors[0]


def test_without_a_store_it_is_the_measured_value(table, fit):
    closed = table[table["condition"] == "closed-book"]
    found = fit.predict(closed["N"], closed["D"], 0.0, at_checkpoint=True)
    np.testing.assert_allclose(found, closed["value"], rtol=6e-3)
    plain = fit.predict(closed["N"], closed["D"], 0.0)
    assert np.abs(found / closed["value"] - 1).mean() < 0.25 * np.abs(plain / closed["value"] - 1).mean()


def test_a_model_that_was_never_trained_has_no_effect_of_its_own(fit):
    with pytest.raises(ConfigError, match=r"there is none of N = 1e\+07, D = 2.4e\+07"):
        fit.predict(1e7, 2.4e7, 1e6, at_checkpoint=True)


@pytest.mark.parametrize("law", ["log1p", "chinchilla"])
def test_every_law_can_use_it(table, law):
    fit = fit_manifold(table, law)
    found = fit.predict(1.1e7, [1.6e7, 2.4e7], 1e6, at_checkpoint=True)
    assert np.all(found != fit.predict(1.1e7, [1.6e7, 2.4e7], 1e6))
