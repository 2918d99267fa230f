"""Memory by frequency: the law's limits, and which facts the store is better for; refused where nothing tells."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ragscale as rs
from ragscale.decisions import memory_crossing
from ragscale.errors import ConfigError, FitError
from ragscale.fitting import laws
from ragscale.testing import check_scaling_law

THETA = {"E": 0.1, "G": 2.5, "half": 30.0, "nu": 0.8, "k": 1.5, "kappa": 1.0, "P": 2.3, "M": 0.4}
LAW = laws.MemoryByFrequency(N_ref=1e6)


def table(noise: float = 0.0, seed: int = 0, **changed: float) -> pd.DataFrame:
    """Facts of seven frequencies, asked of three models with no store and with two."""
    n, r, e = (x.ravel() for x in np.meshgrid([1e5, 1e6, 1e7], [0, 1e6, 1e7], np.geomspace(1, 1000, 7)))
    clean = LAW.loss(n, 1e7, r, THETA | changed, exposures=e)
    rng = np.random.default_rng(seed)
    value = clean * np.exp(noise * rng.standard_normal(n.size))
    return pd.DataFrame({"N": n, "D": 1e7, "R": r, "exposures": e, "value": value})


@pytest.fixture(scope="module")
def fit():
    return rs.fit_manifold(table(0.01), "memory_by_frequency", delta="auto")


def written(n: float, d: float, r: float, e: float) -> float:
    """The formula of the page, by hand."""
    m = 1 / (1 + (30 * (n / 1e6) ** -0.8 / e) ** 1.5)
    h = 1 - np.exp(-e * r / d)
    return 0.1 + 2.5 * (1 - m) - (r > 0) * (2.3 * (1 - m) * h - 0.4 * (1 - h))


@given(st.floats(1e4, 1e9), st.floats(1e6, 1e12), st.floats(0, 1e12), st.floats(1e-2, 1e5))
def test_the_loss_is_the_formula_and_more_exposures_never_hurt(n, d, r, e):
    assert float(LAW.loss(n, d, r, THETA, exposures=e)) == pytest.approx(written(n, d, r, e), rel=1e-9)
    more = LAW.loss(n, d, r, THETA, exposures=[e, 2 * e, 10 * e])
    assert (np.diff(more) <= 1e-12).all()


def test_the_law_keeps_its_contract():
    for law in (LAW, laws.MemoryByFrequency(N_ref=1e6, store=False)):
        check_scaling_law(law, columns={"exposures": (0.5, 500.0)})


def test_larger_models_remember_after_fewer_exposures():
    known = LAW.known(THETA | {"N_ref": 1e6}, [1e6, 1e7], [30.0, 30.0 * 10**-0.8])
    np.testing.assert_allclose(known, 0.5)


def test_bits_are_the_entropy_of_what_is_known():
    theta = THETA | {"N_ref": 1e6}
    assert laws.bits_per_parameter(theta, N=1e6, exposures=30, n_facts=1e6, bits_per_fact=4) == pytest.approx(2.0)


def test_the_crossing_is_where_the_table_says(fit):
    found = memory_crossing(fit, N=[1e5, 1e6, 1e7], D=1e7, R=1e7)
    for n, e in zip((1e5, 1e6, 1e7), found.value, strict=True):
        truth = np.geomspace(0.01, 1e5, 40001)
        closed, stored = (np.array(LAW.loss(n, 1e7, r, THETA, exposures=truth)) for r in (0, 1e7))
        ahead = (closed - stored) - (2.6 - closed)
        expected = truth[np.flatnonzero(ahead > 0)[-1]]
        assert e == pytest.approx(expected, rel=0.1)
    assert found.note == ""
    assert (np.diff(found.value) < 0).all()


def test_intervals_hold_the_truth_and_repeat(fit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        boot = rs.bootstrap(fit, n_resamples=40, by=("N", "exposures"), rng=0)
    found = memory_crossing(boot, N=1e6, D=1e7, R=1e7)
    assert found.low < 28.4 < found.high
    assert found.low < float(found.value) < found.high


def test_a_crossing_outside_of_what_was_measured_is_not_given(fit):
    found = memory_crossing(fit, N=1e10, D=1e7, R=1e7)  # such a model knows what it has seen once
    assert np.isnan(found.value)
    assert "memory is ahead" in found.note
    assert "no crossing is determined" in found.note
    nothing = memory_crossing(fit, N=1e6, D=1e7, R=1.0)  # a store of one token shows nothing, and costs
    assert np.isnan(nothing.value)


def test_what_cannot_answer_is_refused(fit):
    closed = table()
    closed = closed[closed["R"] == 0]
    memory = rs.fit_manifold(closed, laws.MemoryByFrequency(store=False))
    assert memory.theta["half"] == pytest.approx(30 * (1e6 / memory.theta["N_ref"]) ** 0.8, rel=0.02)
    with pytest.raises(FitError, match="no row of the fit has a store"):
        memory_crossing(memory, N=1e6, D=1e7, R=1e7)
    with pytest.raises(ConfigError, match="memory_by_frequency"):
        memory_crossing("chinchilla", N=1e6, D=1e7, R=1e7)
    with pytest.raises(ConfigError, match="R"):
        memory_crossing(fit, N=1e6, D=1e7, R=-1)
