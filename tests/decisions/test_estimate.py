"""A decision in numbers: arithmetic as of its value, intervals of replicates, and what it says in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.decisions import Estimate
from ragscale.decisions._estimate import estimate, quantiles


def an(value, *rows, level: float = 0.95, **options) -> Estimate:
    stacked = np.asarray([value, *rows], dtype=float)
    return estimate("rate", stacked, options.pop("at", {}), level=level, **options)


@given(st.integers(1, 400), st.floats(0.5, 0.99), st.integers(0, 2**31))
def test_the_ends_are_replicates_and_leave_out_no_more_than_they_may(count: int, level: float, seed: int):
    values = np.random.default_rng(seed).standard_normal(count)
    low, high = quantiles(np.concatenate([[99.0], values]), level)  # the point has no say
    assert low in values
    assert high in values
    tail = (1 - level) / 2
    assert (values < low).mean() <= tail + 1e-12
    assert (values > high).mean() <= tail + 1e-12
    # no narrower interval of replicates keeps that promise
    assert (values <= low).mean() >= tail - 1e-12
    assert (values <= high).mean() >= 1 - tail - 1e-12


def test_a_hundred_replicates_lose_two_and_a_half_at_each_end():
    values = np.arange(1.0, 101.0)
    assert quantiles(np.concatenate([[50.0], values]), 0.95) == (3.0, 98.0)
    assert quantiles(np.concatenate([[50.0], values]), 0.80) == (10.0, 90.0)


def test_infinite_replicates_are_ends_and_not_nan():
    low, high = quantiles(np.array([1.0, *[np.inf] * 10, *range(90)]), 0.95)
    assert low == 2.0
    assert high == math.inf


def test_without_replicates_there_is_no_interval():
    found = an([1.0, 2.0])
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()
    assert found.replicates.shape == (0, 2)
    assert list(found.to_frame().columns) == ["rate"]
    assert repr(found) == "rate = [1. 2.]"


def test_arithmetic_is_that_of_the_value():
    one, two = an([1.0, 4.0]), an([2.0, 8.0])
    np.testing.assert_array_equal(one + two, [3.0, 12.0])
    np.testing.assert_array_equal(1 - one, [0.0, -3.0])
    np.testing.assert_array_equal(two / one, [2.0, 2.0])
    np.testing.assert_array_equal(np.sqrt(one), [1.0, 2.0])
    np.testing.assert_array_equal(one < two, [True, True])
    np.testing.assert_array_equal(np.asarray(one, dtype=np.float32), np.array([1, 4], np.float32))
    assert one[1] == 4.0
    assert len(one) == 2
    assert one.shape == (2,)
    assert {one: "as a key"}[one] == "as a key"


def test_a_scalar_estimate_is_a_number():
    one = an(2.5, 2.0, 3.0)
    assert float(one) == 2.5
    assert f"{one:.2f}" == "2.50"
    assert f"{one}" == "rate = 2.5 (95% interval 2.0 to 3.0)"
    assert isinstance(one.value, float)
    assert one.shape == ()


def test_the_frame_has_a_row_for_every_element_with_what_was_asked():
    found = an(
        [[1.0, 2.0], [3.0, 4.0]],
        [[0.0, 1.0], [2.0, 3.0]],
        [[2.0, 3.0], [4.0, 5.0]],
        at={"N": np.array([[1e8], [1e9]]), "D": 1e10},
        laws={"hill": np.array([[1.0, 1.5], [2.0, 2.5]])},
    )
    frame = found.to_frame()
    assert list(frame.columns) == ["N", "D", "rate", "rate_low", "rate_high", "rate[hill]"]
    assert frame["N"].tolist() == [1e8, 1e8, 1e9, 1e9]
    assert frame["D"].tolist() == [1e10] * 4
    assert frame["rate"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert frame["rate_low"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert frame["rate[hill]"].tolist() == [1.0, 1.5, 2.0, 2.5]


def test_the_sentence_names_the_point_the_interval_and_the_laws():
    laws = {"hill": np.array([1.0]), "log1p": np.array([3.0])}
    found = an([2.0], [1.5], [2.5], level=0.9, at={"N": np.array([1e9])}, laws=laws, note="to know")
    assert found.summary().splitlines() == [
        "rate at N = 1e+09 = 2 (90 % interval 1.5 to 2.5); 1 to 3 across 2 laws that fit equally well",
        "to know",
    ]
    assert repr(found) == "rate = [2.] (90% interval [1.5] to [2.5]); to know"
    one_law = an([2.0], laws={"hill": np.array([2.0])})
    assert one_law.summary() == "rate = 2"


@pytest.mark.parametrize(("count", "lines"), [(19, 19), (20, 20), (21, 21), (50, 21)])
def test_a_long_estimate_says_twenty_lines_and_how_many_more(count: int, lines: int):
    text = an(np.arange(float(count))).summary().splitlines()
    assert len(text) == lines
    if count > 20:
        assert text[-1] == f"... and {count - 20} more, see to_frame()"


def test_a_long_repr_is_cut():
    text = repr(an(np.random.default_rng(0).standard_normal(900), note="n" * 900))
    assert len(text) == 800
    assert text.endswith("…")
    assert not repr(an(1.0)).endswith("…")
