"""Exchange rate, knees and the critical store, against closed forms and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ragscale as rs
from ragscale import fitting
from ragscale.errors import ConfigError, ExtrapolationWarning

from .conftest import BUMPY, NAMES, known

# Exchange rate ------------------------------------------------------------------------------------------------------


@given(name=st.sampled_from(NAMES), n=st.floats(1e7, 1e11), d=st.floats(1e8, 1e13), r=st.floats(1e6, 1e13))
def test_trading_at_the_exchange_rate_leaves_the_loss_unchanged(name, n, d, r):
    law, theta = known(name)
    rate = float(rs.exchange_rate((law, theta), N=n, D=d, R=r))
    step = 1e-5 * min(r, d / max(rate, 1e-9))

    def loss(sign):
        return law.loss(n, d - sign * rate * step, r + sign * step, theta)

    gained = law.loss(n, d, r - step, theta) - law.loss(n, d, r + step, theta)
    assert abs(loss(1) - loss(-1)) <= 1e-4 * abs(gained) + 1e-14


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("log1p", lambda r, t: t["C"] * t["eta"] / (1 + t["eta"] * r)),
        ("power", lambda r, t: t["C"] * t["gamma"] / t["R0"] * (1 + r / t["R0"]) ** (-t["gamma"] - 1)),
        ("hill", lambda r, t: t["C"] * t["K"] / (r + t["K"]) ** 2),
    ],
)
def test_the_published_closed_forms(name, slope):
    law, t = known(name)
    r = np.array([0.0, 1e8, 3e9, 1e12])
    rate = rs.exchange_rate((law, t), N=1e9, D=2e10, R=r)
    np.testing.assert_allclose(rate, slope(r, t) / (t["B"] * t["beta"] * 2e10 ** (-t["beta"] - 1)), rtol=1e-12)


def test_the_constant_rate_is_constant_and_no_retrieval_is_worth_nothing():
    np.testing.assert_allclose(
        rs.exchange_rate(known("effective_data"), N=[1e8, 1e10], D=[[1e9], [1e12]], R=1e9), 0.3, rtol=1e-12
    )
    assert rs.exchange_rate(known("chinchilla"), N=1e9, D=1e10, R=1e9) == 0


def test_an_estimate_is_an_array_with_an_interval(fitted):
    rate = rs.exchange_rate(fitted[1], N=1e9, D=[1e10, 2e10], R=1e9)
    assert rate.shape == (2,)
    np.testing.assert_array_equal(2 * rate, 2 * rate.value)
    assert (rate > 0).all()
    assert ((rate.low < rate.value) & (rate.value < rate.high)).all()
    assert rate.replicates.shape == (200, 2)
    assert {"N", "D", "R", "exchange_rate", "exchange_rate_low"} <= set(rate.to_frame().columns)
    assert "<table" in rate._repr_html_()
    assert "95% interval" in repr(rate)
    plain = rs.exchange_rate(fitted[0], N=1e9, D=1e10, R=1e9)
    assert np.isnan(plain.low)
    assert float(plain) == pytest.approx(rate[0])
    with pytest.warns(ExtrapolationWarning):
        rs.exchange_rate(fitted[0], N=1e9, D=1e15, R=1e9)


def test_exchange_rate_arguments_are_checked():
    with pytest.raises(ConfigError, match=r"N must be.*R must be"):
        rs.exchange_rate(known("log1p"), N=0, D=1e10, R=-1)


# Knee ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [0.0, 1e9, 1e11])
def test_the_onset_has_its_closed_form_and_meets_the_allocation(store):
    law, t = known("log1p")
    knee = rs.knee_point((law, t), N=1e9, R=store)
    slope = t["C"] * t["eta"] / (1 + t["eta"] * store)
    assert pytest.approx((t["beta"] * t["B"] / slope) ** (1 / (t["beta"] + 1)), rel=1e-9) == knee.D
    assert knee.status == "found"
    assert rs.exchange_rate((law, t), N=1e9, D=knee.D, R=store) == pytest.approx(1, rel=1e-8)
    best = rs.optimal_allocation((law, t), N=1e9, budget=knee.D + store)
    assert pytest.approx(knee.D, rel=1e-6) == best.D


@pytest.mark.parametrize("price", [0.25, 1.0, 4.0])
def test_the_knee_is_where_the_exchange_rate_is_the_ratio_of_prices(price):
    law, t = known("log1p")
    knee = rs.knee_point((law, t), N=1e9, R=2e9, prices={"D": 1.0, "R": price})
    slope = t["C"] * t["eta"] / (1 + t["eta"] * 2e9)
    closed = (t["beta"] * t["B"] * price / slope) ** (1 / (t["beta"] + 1))  # a dear store pays later
    assert pytest.approx(closed, rel=1e-9) == knee.D
    assert rs.exchange_rate((law, t), N=1e9, D=knee.D, R=2e9) == pytest.approx(price, rel=1e-8)
    best = rs.optimal_allocation((law, t), N=1e9, budget=knee.D + price * 2e9, prices=(1.0, price))
    assert pytest.approx(knee.D, rel=1e-6) == best.D


def test_a_knee_that_is_not_there_is_said_so():
    never = rs.knee_point(known("log1p", C=0.0), N=1e9)
    assert never.status == "above"
    always = rs.knee_point(known("effective_data", eta=2.0), N=1e9)
    assert always.status == "below"
    short = rs.knee_point(known("log1p"), N=1e9, budget=1e9)
    assert (short.status, short.D) == ("above", pytest.approx(1e9))


def test_curvature_in_closed_form():
    t = known("chinchilla")[1]
    knee = rs.knee_point(known("chinchilla"), N=[1e8, 1e10], definition="curvature")
    np.testing.assert_allclose(knee.D, (np.sqrt(2) * t["beta"] * t["B"]) ** (1 / t["beta"]), rtol=1e-5)


def test_gain_fraction_in_closed_form():
    t = known("log1p")[1]
    knee = rs.knee_point(known("log1p"), N=1e9, definition="gain_fraction", fraction=0.75, min_D=1e8)
    assert pytest.approx(1e8 * 0.25 ** (-1 / t["beta"]), rel=1e-6) == knee.D
    near = rs.knee_point(known("log1p"), N=1e9, definition="gain_fraction", fraction=0.75, min_D=1e8, budget=1e10)
    assert near.D < knee.D


def test_every_knee_carries_its_definition_and_interval(fitted):
    for definition in ("exchange", "curvature", "gain_fraction"):
        knee = rs.knee_point(fitted[1], N=1e9, definition=definition)
        assert knee.definition == definition
        assert knee.low <= knee.D <= knee.high
        assert 0 <= knee.found_share <= 1
        assert knee.to_frame()["definition"].item() == definition
        assert knee.meaning in knee._repr_html_()


def test_knee_arguments_are_checked():
    with pytest.raises(ConfigError, match="definition = 'elbow' must be one of exchange, curvature, gain_fraction"):
        rs.knee_point(known("log1p"), N=1e9, definition="elbow")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs min_D"):
        rs.knee_point(known("log1p"), N=1e9, definition="gain_fraction")
    with pytest.raises(ConfigError, match="above min_D"):
        rs.knee_point(known("log1p"), N=1e9, budget=5, min_D=10)


# Critical store -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9, 0.99])
def test_critical_stores_have_their_closed_forms(q):
    hill, t = known("hill", fitting.Hill(exponent=2.0))
    assert rs.critical_store((hill, t), N=1e9, D=1e10, fraction=q) == pytest.approx(
        t["K"] * (q / (1 - q)) ** 0.5, rel=1e-9
    )
    power, t = known("power")
    expected = t["R0"] * ((1 - q) ** (-1 / t["gamma"]) - 1)
    assert rs.critical_store((power, t), N=1e9, D=1e10, fraction=q) == pytest.approx(expected, rel=1e-9)
    log, t = known("log1p")
    expected = ((1 + t["eta"] * 1e12) ** q - 1) / t["eta"]
    assert rs.critical_store((log, t), N=1e9, D=1e10, fraction=q, max_R=1e12) == pytest.approx(expected, rel=1e-9)
    data, t = known("effective_data")
    expected = 1e10 * ((1 - q) ** (-1 / t["beta"]) - 1) / t["eta"]
    assert rs.critical_store((data, t), N=1e9, D=1e10, fraction=q) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("h", ["hill", "power"])
@pytest.mark.parametrize("name", ["interaction", "multiplicative"])
def test_a_gain_that_depends_on_the_model_saturates_at_the_same_store(name, h):
    law = {"interaction": fitting.Interaction, "multiplicative": fitting.Multiplicative}[name](h=h)
    law, t = known(name, law, **({"R0": 1e9} if h == "power" else {}))
    stores = rs.critical_store((law, t), N=[1e8, 1e10], D=[[1e9], [1e11]])
    expected = t["K"] * 9 if h == "hill" else t["R0"] * (0.1 ** (-1 / t["gamma"]) - 1)
    np.testing.assert_allclose(stores, expected, rtol=1e-8)


def test_an_insertion_cost_moves_the_critical_store_and_can_remove_it():
    law = fitting.Hill(offset=True)
    cheap, t = known("hill", law, offset=0.05)
    level = (0.9 * (t["C"] - 0.05) + 0.05) / t["C"]
    assert rs.critical_store((cheap, t), N=1e9, D=1e10) == pytest.approx(t["K"] * level / (1 - level), rel=1e-8)
    nothing = rs.critical_store(known("hill", law, offset=0.5), N=1e9, D=1e10)
    assert nothing == 0
    assert "retrieval does not help here" in nothing.note
    assert "retrieval does not help here" in rs.critical_store(known("log1p", C=0.0), N=1e9, D=1e10, max_R=1e10).note


def test_an_unbounded_gain_needs_a_largest_store_and_says_which_it_took(fitted):
    with pytest.raises(ConfigError, match="give max_R"):
        rs.critical_store(known("log1p"), N=1e9, D=1e10)
    with pytest.raises(ConfigError, match="give max_R"):
        rs.critical_store(BUMPY, N=1e9, D=1e10)
    store = rs.critical_store(fitted[1], N=1e9, D=1e10)
    assert "relative to the largest store of the data, R = 6e+10" in store.note
    assert store.low < store.value < store.high


def test_a_wavy_gain_reaches_its_fraction_first_at_the_smallest_such_store():
    law, t = BUMPY
    store = float(rs.critical_store(BUMPY, N=1e9, D=1e10, max_R=1e13, fraction=0.5))
    none = law.loss(1e9, 1e10, 0, t)
    r = np.geomspace(1, 1e13, 200001)
    gain = none - law.loss(1e9, 1e10, r, t)
    first = r[np.argmax(gain >= 0.5 * gain.max())]
    assert store == pytest.approx(first, rel=1e-2)


def test_critical_store_arguments_are_checked():
    with pytest.raises(ConfigError, match=r"fraction must be in \(0, 1\)"):
        rs.critical_store(known("hill"), N=1e9, D=1e10, fraction=1.0)
