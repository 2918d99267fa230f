"""The walk along a budget line: its coordinates, its ends, and every search against the plain sum it minimises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragscale.decisions import _split
from ragscale.decisions._split import Line, best_split
from ragscale.fitting.laws._law import Theta

from .conftest import BUMPY, known

ONE = np.ones(1)


def split(name_or_pair, budget=5e10, *, n=1e9, p_d=1.0, p_r=1.0, min_d=1.0, **limits):
    law, theta = known(name_or_pair) if isinstance(name_or_pair, str) else name_or_pair
    columns = Theta({key: np.full((1, 1), value) for key, value in law.theta(theta).items()})
    arrays = {key: np.full(1, value) for key, value in limits.items()}
    r, d, boundary = best_split(
        law, columns, N=np.full(1, n), budget=np.full(1, budget), p_D=p_d * ONE, p_R=p_r * ONE,
        min_D=np.full(1, min_d), **arrays,
    )  # fmt: skip
    return float(r[0, 0]), float(d[0, 0]), str(boundary[0, 0])


@np.errstate(all="ignore")
def line(name: str = "log1p", *, budget=5e10, p_d=1.0, p_r=1.0, min_d=1.0, max_d=np.inf, max_r=np.inf) -> Line:
    law, theta = known(name)
    columns = Theta({key: np.full((1, 1), value) for key, value in law.theta(theta).items()})
    return Line(law, columns, [np.full(1, x) for x in (1e9, budget, p_d, p_r, min_d, max_d, max_r)])


# Coordinates ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(z=st.floats(-39, 39), budget=st.floats(1e3, 1e15), p_d=st.floats(0.01, 100), p_r=st.floats(0.01, 100))
def test_every_place_on_the_line_spends_the_whole_budget(z, budget, p_d, p_r):
    d, r = line(budget=budget, p_d=p_d, p_r=p_r).counts(np.full((1, 1), z))
    assert float(p_d * d[0, 0] + p_r * r[0, 0]) == pytest.approx(budget, rel=1e-12)
    assert float(np.log(p_r * r[0, 0] / (p_d * d[0, 0]))) == pytest.approx(z, abs=1e-9)


@settings(max_examples=40)
@given(min_d=st.floats(1e3, 4e10), max_d=st.floats(1e3, 4.9e10), max_r=st.floats(1e3, 4.9e10), p_r=st.floats(0.1, 10))
def test_limits_stand_where_their_counts_are_reached(min_d, max_d, max_r, p_r):
    here = line(min_d=min_d, max_d=max_d, max_r=max_r, p_r=p_r)
    assert float(here.counts(here.z_min_d)[0][0]) == pytest.approx(min(min_d, max_d), rel=1e-9)
    assert float(here.counts(here.z_max_d)[0][0]) == pytest.approx(max_d, rel=1e-9)
    assert float(here.counts(here.z_max_d - 1.0)[0][0]) == pytest.approx(max_d, rel=1e-9)  # the rest goes to waste
    if max_r < 5e10 / p_r:
        assert float(here.counts(here.z_max_r)[1][0]) == pytest.approx(max_r, rel=1e-9)
    else:
        assert here.z_max_r[0] == np.inf
    assert here.z_high[0] == min(here.z_min_d[0], here.z_max_r[0])


def test_limits_that_do_not_bind_lie_at_the_ends():
    here = line(min_d=6e10, max_d=6e10, max_r=6e10)
    assert here.z_min_d[0] == -np.inf  # not even all of the budget reaches min_D
    assert here.z_max_d[0] == -np.inf
    assert here.z_max_r[0] == np.inf


# The three ways to the optimum ----------------------------------------------------------------------------------------


def plain(pair, budget, n, price, lowest=1.0) -> float:
    """The lowest loss over 4,001 splits."""
    law, theta = pair
    r = np.concatenate([[0.0], np.geomspace(1e-3, budget / price * (1 - 1e-9), 4_000)])
    d = np.maximum(budget - price * r, lowest)
    keep = d >= lowest
    return float(np.min(law.loss(n, d[keep], r[keep], theta)))


@settings(max_examples=40)
@given(
    name=st.sampled_from(["log1p", "power", "hill", "rpower", "log_ratio", "interaction", "multiplicative"]),
    budget=st.floats(1e8, 1e13),
    price=st.floats(0.05, 20),
)
def test_newton_and_the_search_over_all_stationary_points_agree(name, budget, price):
    law, theta = known(name)
    columns = Theta({key: np.full((1, 1), value) for key, value in law.theta(theta).items()})
    with np.errstate(all="ignore"):
        here = Line(law, columns, [np.full(1, x) for x in (1e9, budget, 1.0, price, 1.0, np.inf, np.inf)])
        r, d, boundary = here.optimum()
        other_r, other_d, other = here._against_no_store(here._by_search())
    loss, searched = (float(law.loss(1e9, one[0, 0], two[0, 0], theta)) for one, two in ((d, r), (other_d, other_r)))
    assert loss == pytest.approx(searched, rel=1e-12)
    assert loss <= plain((law, theta), budget, 1e9, price) * (1 + 1e-12)
    assert boundary[0, 0] == other[0, 0]


@pytest.mark.parametrize(
    ("eta", "price", "end"), [(0.3, 0.29, "D=min"), (0.3, 0.31, "R=0"), (3.0, 2.9, "D=min"), (3.0, 3.1, "R=0")]
)
def test_a_constant_worth_ends_where_it_exceeds_its_price(eta, price, end):
    r, d, boundary = split(known("effective_data", eta=eta), p_r=price, min_d=1e6)
    assert boundary == end
    assert (d, r) == (pytest.approx(1e6 if end == "D=min" else 5e10), pytest.approx((5e10 - 1e6) / price if r else 0))


def test_a_constant_worth_still_fills_the_store_where_data_are_short():
    r, d, boundary = split(known("effective_data", eta=0.3), max_D=2e10)
    assert (d, r, boundary) == (pytest.approx(2e10), pytest.approx(3e10), "D=max")
    r, d, boundary = split(known("effective_data", eta=3.0), max_R=1e9)
    assert (d, r, boundary) == (pytest.approx(4.9e10), pytest.approx(1e9), "R=max")


@pytest.mark.parametrize("size", [1e-10, 1e-9, 1e-8])
def test_a_store_of_a_billionth_of_the_budget_is_as_exact_as_any(size):
    """Where the first token is infinitely steep every gain has a store, however small; it balances at the prices."""
    law, theta = known("rpower", C=size)
    r, d, boundary = split((law, theta), 1e9)
    assert boundary == "interior"
    assert r / 1e9 < 1e-5
    _, slope_d, slope_r = law.gradient(1e9, d, r, theta)
    assert float(slope_r / slope_d) == pytest.approx(1.0, rel=1e-9)


def test_a_law_without_a_store_spends_everything_on_pretraining():
    assert split("chinchilla") == (0.0, 5e10, "R=0")
    assert split("chinchilla", p_d=2.0) == (0.0, 2.5e10, "R=0")
    assert split("chinchilla", max_D=1e10) == (0.0, 1e10, "R=0")


def test_no_store_wins_a_tie():
    assert split(known("log1p", C=0.0)) == (0.0, 5e10, "R=0")


def test_a_limit_on_the_store_at_zero_leaves_none():
    assert split("log1p", max_R=0.0) == (0.0, 5e10, "R=0")


def test_the_interior_holds_where_no_limit_binds_and_each_limit_has_its_name():
    free_r, free_d, boundary = split("log1p")
    assert boundary == "interior"
    assert split("log1p", max_R=free_r * 1.01, max_D=free_d * 1.01, min_d=free_d * 0.99)[2] == "interior"
    assert split("log1p", max_R=free_r * 0.99)[2] == "R=max"
    assert split("log1p", max_D=free_d * 0.99)[2] == "D=max"
    assert split("log1p", min_d=free_d * 1.01)[2] == "D=min"


def test_a_store_that_is_best_arbitrarily_small_is_called_so():
    """A gain that jumps to its full size with the first token: nothing more than that token is worth anything."""
    from ragscale.fitting import Parameter, ScalingLaw

    class Jump(ScalingLaw):
        parameters = (Parameter("E", 0, 10), Parameter("b", 0, 10))

        def _loss(self, n, d, r, theta):
            return theta.E + theta.b * (d / 1e9) ** -0.5 - 0.1 * (r > 0)

    r, d, boundary = split((Jump(), {"E": 2.0, "b": 0.4}))
    assert boundary == "R=min"
    assert 0 < r < 1e-6 * 5e10
    assert d == pytest.approx(5e10)


def test_blocks_of_replicates_and_cells_change_nothing(monkeypatch):
    law, theta = known("hill")
    rng = np.random.default_rng(0)
    columns = Theta(
        {key: value * np.exp(0.05 * rng.standard_normal((7, 1))) for key, value in law.theta(theta).items()}
    )
    arguments = {
        "N": np.full(5, 1e9), "budget": np.geomspace(1e9, 1e12, 5), "p_D": np.ones(5), "p_R": np.ones(5),
        "min_D": np.ones(5), "max_R": np.geomspace(1e8, 1e11, 5),
    }  # fmt: skip
    whole = best_split(law, columns, **arguments)
    rows = {**arguments, "N": np.full((7, 5), 1e9), "budget": np.tile(arguments["budget"], (7, 1))}
    monkeypatch.setattr(_split, "_CHUNK", 3)
    for cut in (arguments, rows):
        r, d, boundary = best_split(law, columns, **cut)
        np.testing.assert_allclose(r, whole[0], rtol=1e-9, atol=1.0)
        np.testing.assert_allclose(d, whole[1], rtol=1e-9)
        np.testing.assert_array_equal(boundary[:, 1:], whole[2][:, 1:])


# The search -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(budget=st.floats(1e9, 1e13), price=st.floats(0.2, 5), max_d=st.floats(1e9, 1e13), max_r=st.floats(1e8, 1e13))
def test_waves_of_gain_under_any_limits_are_no_worse_than_a_fine_grid(budget, price, max_d, max_r):
    law, theta = BUMPY
    max_d = min(max_d, budget)
    r, d, _ = split(BUMPY, budget, p_r=price, max_D=max_d, max_R=max_r)
    assert r <= max_r * (1 + 1e-12)
    assert d <= max_d * (1 + 1e-12)
    assert d + price * r <= budget * (1 + 1e-12)
    stores = np.concatenate([[0.0], np.geomspace(1.0, min(max_r, (budget - 1.0) / price), 5_000)])
    grid = law.loss(1e9, np.minimum(budget - price * stores, max_d), stores, theta)
    assert float(law.loss(1e9, d, r, theta)) <= grid.min() + 1e-9


@np.errstate(all="ignore")
def test_the_refinement_goes_to_the_minimum_of_its_bracket():
    law, theta = BUMPY
    columns = Theta({key: np.full((1, 1), value) for key, value in law.theta(theta).items()})
    here = Line(law, columns, [np.full(1, x) for x in (1e9, 1e11, 1.0, 1.0, 1.0, np.inf, np.inf)])
    z = np.linspace(-8, 4, 4001)
    d, r = (np.ravel(x) for x in here.counts(z[:, None]))
    f = np.ravel(law.loss(1e9, d, r, theta))
    low = np.flatnonzero((f[1:-1] < f[:-2]) & (f[1:-1] < f[2:])) + 1
    assert len(low) >= 2
    for i in low:
        s = m = np.zeros(1, dtype=int)
        found = here._refine(s, m, z[i - 1 : i], z[i : i + 1], z[i + 1 : i + 2])
        assert z[i - 1] < found[0] < z[i + 1]
        step = 1e-6
        around = [float(here._at(s, m, found + h)[0]) for h in (-step, 0.0, step)]
        slope = abs(around[2] - around[0]) / (2 * step)
        assert slope < 1e-6


def test_a_searched_optimum_at_a_limit_stands_exactly_there():
    eager = (BUMPY[0], {**BUMPY[1], "height": 5.0})  # gains so large that nothing but a limit stops the store
    free_r, free_d, _ = split(eager)
    for limits, boundary in (({"min_d": free_d * 1.3}, "D=min"), ({"max_R": free_r * 0.9}, "R=max")):
        r, d, found = split(eager, **limits)
        assert found == boundary
        assert (d if boundary == "D=min" else r) == pytest.approx(next(iter(limits.values())), rel=1e-14)


def test_a_loss_that_is_not_a_number_is_never_chosen():
    from ragscale.fitting import Parameter, ScalingLaw

    class Broken(ScalingLaw):
        parameters = (Parameter("E", 0, 10),)

        def _loss(self, n, d, r, theta):
            loss = theta.E + (d / 1e9) ** -0.5 - 0.2 * np.log1p(r / 1e9)
            return np.where((r > 1e9) & (r < 1e10), np.nan, loss)

    r, d, _ = split((Broken(), {"E": 2.0}))
    assert np.isfinite([r, d]).all()
    stores = np.concatenate([np.geomspace(1, 1e9, 5000), np.geomspace(1e10, 4.99e10, 5000)])
    best = np.nanmin(2.0 + ((5e10 - stores) / 1e9) ** -0.5 - 0.2 * np.log1p(stores / 1e9))
    assert 2.0 + (d / 1e9) ** -0.5 - 0.2 * np.log1p(r / 1e9) <= best + 1e-6
