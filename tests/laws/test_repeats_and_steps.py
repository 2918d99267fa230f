"""Laws of repeated data and of steps and batch: their equations, their limits, and that a fit finds them again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.fitting import Chinchilla, fit_manifold, laws

KAPLAN = laws.StepsAndBatch.published["kaplan"].parameters
POWERS = {"E": 1.7, "A": 0.4, "alpha": 0.3, "S": 0.3, "beta": 0.5, "G": 0.02, "gamma": 0.6}
REPEATS = {"E": 1.8, "L0": 10.8, "A": 0.05, "alpha": 0.35, "B": 0.12, "beta": 0.35, "C": 0.01, "gamma": 0.3}
REPEATS |= {"delta": 0.8}


@given(st.floats(1e6, 1e11), st.floats(1e8, 1e13), st.floats(1e3, 1e8))
def test_the_loss_solves_the_papers_equations_in_their_letters(n, d, batch):
    # arXiv 2001.08361: L = (N_c/N)^.077 + (2.1e3/S_min)^.76, S_min = S / (1 + B_crit/B), B_crit = 2.1e8 L^(-1/.21)
    loss = float(laws.StepsAndBatch().loss(n, d, 0, KAPLAN, batch_tokens=batch))
    fewest = d / batch / (1 + 2.1e8 * loss ** (-1 / 0.21) / batch)
    assert loss == pytest.approx((6.5e13 / n) ** 0.077 + (2.1e3 / fewest) ** 0.76, rel=1e-9)


def test_at_the_critical_batch_steps_and_tokens_are_twice_the_fewest():
    law = laws.StepsAndBatch()
    batch = 1e6
    for _ in range(100):
        loss = float(law.loss(1e9, 1e4 * batch, 0, KAPLAN, batch_tokens=batch))
        batch = float(laws.critical_batch(KAPLAN, loss))
    tokens = 1e4 * batch
    same_steps = float(law.loss(1e9, 0.5e4 * 1e13, 0, KAPLAN, batch_tokens=1e13))  # half the steps, endless batch
    same_tokens = float(law.loss(1e9, 0.5 * tokens, 0, KAPLAN, batch_tokens=1.0))  # half the tokens, tiny batch
    assert same_steps == pytest.approx(loss, rel=1e-6)
    assert same_tokens == pytest.approx(loss, rel=1e-5)


def test_larger_batches_of_the_same_tokens_never_help_under_kaplan_and_have_a_best_under_powers():
    batch = np.geomspace(1e3, 1e8, 4001)
    assert (np.diff(laws.StepsAndBatch().loss(1e9, 1e10, 0, KAPLAN, batch_tokens=batch)) > 0).all()
    for tokens in (1e9, 1e10, 3e12):
        losses = laws.StepsBatchPowers().loss(1e9, tokens, 0, POWERS, batch_tokens=batch)
        assert 0 < losses.argmin() < 4000
        assert float(laws.best_batch(POWERS, tokens)) == pytest.approx(batch[losses.argmin()], rel=4e-3)
    with pytest.raises(ConfigError, match="G is 0"):
        laws.best_batch(POWERS | {"G": 0.0}, 1e10)


def test_powers_at_their_best_batch_are_chinchilla():
    tokens = np.geomspace(1e9, 1e13, 9)
    losses = laws.StepsBatchPowers().loss(1e9, tokens, 0, POWERS, batch_tokens=laws.best_batch(POWERS, tokens))
    exponent = 0.5 * 0.6 / (0.5 + 0.6)
    scale = (losses[0] - 2.1) * 1e9**exponent
    same = {"E": 1.7, "A": 0.4 * 1e9**0.3, "alpha": 0.3, "B": scale, "beta": exponent}
    np.testing.assert_allclose(losses, Chinchilla().loss(1e9, tokens, 0, same), rtol=1e-10)


@given(st.floats(1e6, 1e12), st.floats(1e6, 1e13), st.floats(0.001, 3.0))
def test_bounded_data_is_the_abstracts_equation_and_stays_between_its_ends(n, d, share):
    p = REPEATS
    unique = min(share, 1.0) * d
    h = p["A"] * (n / 1e9) ** -p["alpha"] + p["B"] * (d / 1e9) ** -p["beta"]
    h += p["C"] * (n / 1e9) ** p["gamma"] * (unique / 1e9) ** -p["delta"]
    found = float(laws.BoundedData().loss(n, d, 0, p, U=share * d))
    assert found == pytest.approx(p["E"] + (p["L0"] - p["E"]) * h / (1 + h), rel=1e-12)
    assert p["E"] <= found <= p["L0"]


def test_bounded_data_ends_at_knowing_nothing_starts_at_chinchilla_and_can_overfit():
    law = laws.BoundedData()
    assert law.loss(1e9, 1e10, 0, REPEATS, U=1e-6) == pytest.approx(10.8, rel=1e-4)
    few = REPEATS | {"A": 1e-4, "B": 1e-4, "C": 1e-9}
    same = {"E": 1.8, "A": 9e-4 * 1e9**0.35, "alpha": 0.35, "B": 9e-4 * 1e9**0.35, "beta": 0.35}
    gap = law.loss(1e9, 1e9, 0, few, U=1e9) - 1.8
    assert gap == pytest.approx(Chinchilla().loss(1e9, 1e9, 0, same) - 1.8, rel=1e-3)
    scarce = law.loss(np.geomspace(1e7, 1e12, 60), 1e11, 0, REPEATS, U=1e7)
    assert 0 < scarce.argmin() < 59


def test_absurd_batches_have_a_loss_all_the_same():
    """Steps far below one, or beyond all bounds: the search for parameters looks there, and must come back."""
    theta = {"L_N": 2.0, "alpha_N": 0.1, "L_S": 1e3, "alpha_S": 3.0, "B_3": 1e6, "alpha_B": 0.2}
    loss = laws.StepsAndBatch().loss(1e9, 1e10, 0, theta, batch_tokens=[1e-250, 1.0, 1e9, 1e120, 1e250])
    assert np.isfinite(loss).all()
    assert (loss >= 2.0).all()
    assert (np.diff(loss) >= 0).all()


def test_fits_find_what_made_the_table():
    rng = np.random.default_rng(0)
    n, d, b = (axis.ravel() for axis in np.meshgrid([5e7, 8e8], [2e9, 1e10, 5e10], [6e4, 2.5e5, 1e6, 4e6]))
    table = pd.DataFrame({"N": n, "D": d, "batch_tokens": b})
    for law, theta in ((laws.StepsBatchPowers(), POWERS), (laws.StepsAndBatch(), KAPLAN)):
        clean = law.loss(n, d, 0, theta, batch_tokens=b)
        made = table.assign(value=clean * np.exp(0.001 * rng.standard_normal(n.size)))
        fit = fit_manifold(made, law, by="batch_tokens", delta="auto")
        ahead = law.loss(3e9, 2e11, 0, theta, batch_tokens=[1e5, 1e6])
        np.testing.assert_allclose(fit.predict(3e9, 2e11, batch_tokens=[1e5, 1e6]), ahead, rtol=0.006)
