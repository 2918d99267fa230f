"""Arguments of decisions: what is a count, what is a price, and what is said of what is neither."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ragscale as rs
from ragscale.decisions import Costs
from ragscale.decisions._arguments import counts, flatten, read_prices, refuse, scalar
from ragscale.errors import ConfigError


def problems_of(allow_zero: tuple[str, ...] = (), **values: Any) -> list[str]:
    problems: list[str] = []
    counts(problems, allow_zero=allow_zero, **values)
    return problems


@pytest.mark.parametrize(
    "value", [1, 1.5, np.int64(10**12), np.float32(2.0), [1, 2], (3.0,), np.arange(1, 4), "7", 10**30]
)
def test_numbers_and_what_reads_as_one_are_counts(value: Any):
    if isinstance(value, str):
        assert "is not numeric" in problems_of(N=value)[0]
        return
    problems: list[str] = []
    found = counts(problems, N=value)["N"]
    assert problems == []
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.asarray(value, dtype=float))


@pytest.mark.parametrize(
    "value",
    [
        True,
        [True, False],
        "many",
        None,
        1j,
        b"1",
        np.datetime64("2020-01-01"),
        np.timedelta64(1, "s"),
        {},
        [[1], [1, 2]],
    ],
)
def test_what_is_no_number_is_named_with_its_value(value: Any):
    (said,) = problems_of(N=value)
    assert said.startswith("N = ")
    assert "is not numeric" in said


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -math.inf])
def test_no_count_is_negative_or_infinite(value: float):
    assert problems_of(N=value) == [f"N must be finite and positive, got {value:g}"]
    assert problems_of(("R",), R=value) == [f"R must be finite and not negative, got {value:g}"]
    assert problems_of(N=[1.0, value, 3.0]) == [f"N must be finite and positive, got {value:g}"]


def test_zero_is_a_store_and_no_model():
    assert problems_of(N=0.0) == ["N must be finite and positive, got 0"]
    assert problems_of(("R",), R=0.0) == []


def test_all_problems_are_listed_at_once():
    said = problems_of(N="x", D=-1, R=[])
    assert [line.split()[0] for line in said] == ["N", "D", "R"]
    assert said[2] == "R is empty"


def test_shapes_that_do_not_broadcast_name_the_axis_to_add():
    (said,) = problems_of(N=[1, 2], D=[1, 2, 3])
    assert said.startswith("shapes do not broadcast: N (2,), D (3,)")
    assert "np.asarray(N)[:, None]" in said
    (deeper,) = problems_of(N=np.ones((2, 2)), D=np.ones((3, 3)))
    assert "for every combination" not in deeper
    assert problems_of(N=[[1], [2]], D=[1, 2, 3]) == []


def test_flat_arguments_remember_their_shape():
    flat, shape = flatten({"N": np.array([[1.0], [2.0]]), "D": np.array([10.0, 20.0, 30.0]), "R": np.array(0.0)})
    assert shape == (2, 3)
    assert flat["N"].tolist() == [1, 1, 1, 2, 2, 2]
    assert flat["D"].tolist() == [10, 20, 30] * 2
    assert flat["R"].tolist() == [0] * 6


def test_one_error_holds_all_problems_and_none_raises_nothing():
    refuse([], "knee_point")
    with pytest.raises(ConfigError, match=r"^knee_point: a; b$"):
        refuse(["a", "b"], "knee_point")


def test_what_has_no_axes_comes_back_as_a_scalar():
    assert isinstance(scalar(np.array("found")), str)
    assert isinstance(scalar(np.array(1.0)), float)
    np.testing.assert_array_equal(scalar(np.array([1.0, 2.0])), [1.0, 2.0])


@pytest.mark.parametrize(
    ("given_", "read"),
    [
        (None, (1, 1)),
        ((2, 3), (2, 3)),
        ([2, 3], (2, 3)),
        ({"D": 2}, (2, 1)),
        ({"R": 3}, (1, 3)),
        ({"R": 3, "D": 2}, (2, 3)),
    ],
)
def test_prices_are_of_a_pretraining_token_first(given_: Any, read: tuple[float, float]):
    problems: list[str] = []
    assert read_prices(given_, problems) == read
    assert problems == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [((1, 2, 3), "must be a pair"), (5, "must be a pair"), ({"d": 2, "R": 1}, "prices are for 'D' and 'R', not d")],
)
def test_other_prices_are_refused(wrong: Any, said: str):
    problems: list[str] = []
    read_prices(wrong, problems)
    assert said in problems[0]


# Prices out of money --------------------------------------------------------------------------------------------------

MONEY = st.floats(1e-12, 1e-3)


@given(flop=MONEY, kept=MONEY, query=MONEY, months=st.floats(0, 60), queries=st.floats(0, 1e9), n=st.floats(1e6, 1e12))
def test_prices_are_what_training_storing_and_asking_cost(flop, kept, query, months, queries, n):
    costs = Costs(training_flop=flop, storage_token_month=kept, query=query, months=months, queries=queries,
                  training_token=0.5, store_token=0.25)  # fmt: skip
    prices = costs.prices(N=n)
    assert prices["D"] == pytest.approx(6 * n * flop + 0.5)
    assert prices["R"] == pytest.approx(months * kept + queries * query + 0.25)


def test_a_year_is_paid_for_by_default_and_nothing_else():
    prices = Costs(training_flop=1e-18, storage_token_month=1e-9).prices(N=[1e9, 2e9])
    assert prices["R"] == pytest.approx(12e-9)
    np.testing.assert_allclose(prices["D"], [6e-9, 12e-9])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"training_flop": 0.0, "storage_token_month": 1.0}, "training_flop must be finite and positive"),
        ({"training_flop": 1.0, "storage_token_month": -1.0}, "storage_token_month must be finite and not negative"),
        ({"training_flop": 1.0, "storage_token_month": 1.0, "months": math.nan}, "months must be"),
        ({"training_flop": 1.0, "storage_token_month": 1.0, "queries": -5}, "queries must be"),
        ({"training_flop": 1.0, "storage_token_month": 1.0, "store_token": -5}, "store_token must be"),
    ],
)
def test_costs_that_cannot_be_are_named(arguments: dict[str, float], said: str):
    with pytest.raises(ConfigError, match=said):
        Costs(**arguments)


def test_a_store_that_costs_nothing_has_no_price():
    free = Costs(training_flop=1e-18, storage_token_month=0.0)
    with pytest.raises(ConfigError, match="a store token costs nothing"):
        free.prices(N=1e9)
    with pytest.raises(ConfigError, match="N must be finite and positive"):
        Costs(training_flop=1e-18, storage_token_month=1.0).prices(N=-1)


def test_dearer_storage_buys_a_smaller_store():
    law = ("log1p", {"E": 1.7, "A": 406, "alpha": 0.34, "B": 411, "beta": 0.28, "C": 0.05, "eta": 1e-9})
    stores = [
        rs.optimal_allocation(law, N=1e9, budget=5000, prices=Costs(
            training_flop=1.4e-18, storage_token_month=2.5e-9, months=months).prices(N=1e9)).R
        for months in (6, 12, 24, 48)
    ]  # fmt: skip
    assert all(later < sooner for sooner, later in pairwise(stores))
