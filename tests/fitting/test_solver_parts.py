"""The parts of the solver against the plain way: numpy and scipy one system at a time, differences, brute force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, nnls

from ragscale.datasets import simulate
from ragscale.errors import ConfigError, FitError
from ragscale.fitting import (
    Bounded,
    Chinchilla,
    Hill,
    Identity,
    Link,
    Log,
    Log1p,
    Multiplicative,
    Objective,
    ScalingLaw,
)
from ragscale.fitting._fit_table import settle
from ragscale.fitting._prepare import prepare
from ragscale.fitting.solver._coordinates import Coordinates
from ragscale.fitting.solver._grid import Grid, _local_minima
from ragscale.fitting.solver._linear import nonnegative, solve
from ragscale.fitting.solver._newton import newton_system
from ragscale.fitting.solver._problem import Problem
from ragscale.fitting.solver._projection import project, projection_system
from ragscale.fitting.solver._rows import Table
from ragscale.fitting.solver._search import no_objective
from ragscale.fitting.solver._solution import Solution, distinct, join
from ragscale.fitting.solver._starts import linearised, scattered_starts, starts
from ragscale.fitting.solver._state import State

TYPICAL = {"N": 1e9, "D": 3e10, "R": 1e9}
ROWS = prepare(simulate("log1p", noise=0.01, rng=0)).iloc[::5].reset_index(drop=True)


def problem_of(law: ScalingLaw, *, rows: pd.DataFrame = ROWS, **options: Any) -> Problem:
    return settle(rows, law, **options).problem


# Small linear systems -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_systems_are_solved_as_one_by_one(k: int):
    rng = np.random.default_rng(k)
    root = rng.normal(size=(40, k, k)) * 10.0 ** rng.uniform(-6, 6, (40, k, 1))  # parameters of any size
    matrix = root @ root.transpose(0, 2, 1)
    right = rng.normal(size=(40, k)) * np.sqrt(np.einsum("pii->pi", matrix))
    found = solve(matrix.transpose(1, 2, 0), right.T).T
    residual = np.einsum("pij,pj->pi", matrix, found) - right
    assert np.abs(residual / np.sqrt(np.einsum("pii->pi", matrix))).max() < 1e-6


def test_a_singular_system_has_no_finite_solution():
    singular = np.array([[1.0, 1.0], [1.0, 1.0]])[:, :, None]
    assert not np.isfinite(solve(singular, np.array([[1.0], [2.0]]))).all()
    both = np.concatenate([singular, np.eye(2)[:, :, None]], axis=2)
    found = solve(both, np.array([[1.0, 3.0], [2.0, 4.0]]))
    np.testing.assert_allclose(found[:, 1], [3.0, 4.0])


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_coefficients_that_may_not_be_negative_are_those_of_nnls(seed: int, k: int):
    rng = np.random.default_rng(seed)
    design, y = rng.normal(size=(6, 12, k)), rng.normal(size=(6, 12))
    gram = np.einsum("pni,pnj->ijp", design, design)
    right = np.einsum("pni,pn->ip", design, y)
    found = nonnegative(gram, right, np.zeros(k, dtype=bool))
    for i in range(6):
        np.testing.assert_allclose(found[:, i], nnls(design[i], y[i])[0], atol=1e-8)
    signed = np.arange(k) == 0
    found = nonnegative(gram, right, signed)
    low = np.where(signed, -np.inf, 0.0)
    for i in range(6):
        expected = lsq_linear(design[i], y[i], bounds=(low, np.inf), tol=1e-12).x
        values = [float(((design[i] @ c - y[i]) ** 2).sum()) for c in (found[:, i], expected)]
        assert values[0] <= values[1] + 1e-8


def test_equal_columns_share_their_coefficient():
    gram = np.full((2, 2, 1), 4.0)
    found = nonnegative(gram, np.array([[8.0], [8.0]]), np.zeros(2, dtype=bool))
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(2.0, rel=1e-6)


# Coordinates ----------------------------------------------------------------------------------------------------------


def place_of(law: ScalingLaw, link: Link | None = None) -> Coordinates:
    linear = frozenset({"E", "A", "B", "C"} & {p.name for p in law.parameters})
    return Coordinates(law, link or Identity(), linear, TYPICAL)


def test_parameters_are_in_the_order_of_coefficients_then_searched_ones():
    place = place_of(Log1p())
    assert [p.name for p in place.coefficients] == ["E", "A", "B", "C"]
    assert [p.name for p in place.nonlinear] == ["alpha", "beta", "eta"]
    assert (place.k, place.m, place.l) == (4, 3, 0)
    assert place.lower.tolist() == pytest.approx([0.01, 0.01, math.log(1e-9) - 9])  # the logarithm, per typical store
    assert place.upper.tolist() == pytest.approx([2.0, 2.0, math.log(1e-9) + 9])
    assert not place.signed.any()
    assert not place.limited
    assert place_of(Log1p(), Bounded(direction="up")).signed.tolist() == [True, False, False, False]
    assert place_of(Multiplicative()).k == 4  # C of a share is bounded by 1
    assert place_of(Multiplicative()).limited


def test_what_is_held_is_no_coordinate_and_what_is_tied_follows():
    place = place_of(Log1p(tie=True, fixed={"E": 1.5, "eta": 1e-9}))
    assert [p.name for p in place.coefficients] == ["A", "B", "C"]
    assert [p.name for p in place.nonlinear] == ["alpha"]
    assert place.constant == {"E": 1.5}
    u = np.array([[0.3], [0.4]])
    theta = place.theta(np.ones((2, 3)), u, np.full((2, 3), 0.5))
    assert theta["E"].tolist() == [1.5, 1.5]
    assert theta["A"].tolist() == [2.0, 2.0]  # a normalised coefficient over the size of its column
    assert theta["beta"].tolist() == theta["alpha"].tolist() == [0.3, 0.4]
    assert theta["eta"].tolist() == [1e-9, 1e-9]
    assert place.owner("A") == 0
    assert place.owner("E") == -1
    with pytest.raises(ConfigError, match="cannot tie 'alpha' to 'A': one is a coefficient, the other is not"):
        place_of(Log1p(tie={"alpha": "A"}))


@pytest.mark.parametrize("law", [Log1p(), Hill(exponent="free"), Log1p(tie=True), Multiplicative(h="hill")], ids=repr)
def test_a_position_and_its_parameters_are_the_same_point(law: ScalingLaw):
    problem = problem_of(law)
    rng = np.random.default_rng(0)
    low, high = np.array(problem.start).T
    u = low + (high - low) * rng.random((1, len(low)))
    c = rng.random((1, problem.k))
    theta = {name: float(value[0]) for name, value in problem.theta(c, u, problem.sizes(u)).items()}
    again = problem.position(theta)
    np.testing.assert_allclose(again[0], c, rtol=1e-10)
    np.testing.assert_allclose(again[1], u, rtol=1e-10)
    n, d, r = (ROWS[name].to_numpy(float) for name in "NDR")
    latent = problem.latent(problem.columns(u, slopes=False), c)[0]
    own = {name: value for name, value in theta.items() if name not in law.fixed | law.tied}
    np.testing.assert_allclose(latent, problem.law.loss(n, d, r, own), rtol=1e-10)


def test_bounds_of_coefficients_go_with_the_size_of_their_columns():
    place = place_of(Multiplicative())
    size = np.array([[2.0, 3.0, 4.0, 5.0]])
    low, high = place.coefficient_bounds(size)
    assert low.tolist() == [[0.0] * 4]
    assert np.isinf(high[0, :3]).all()
    assert high[0, 3] == 5.0  # C <= 1


def test_typical_counts_are_geometric_means_of_stores_that_are_not_empty():
    one = np.ones(3)
    table = Table(np.array([1e8, 1e9, 1e10]), np.array([1e9, 1e9, 8e9]), np.array([0.0, 1e6, 1e8]), one, one)
    assert table.typical == pytest.approx({"N": 1e9, "D": 2e9, "R": 1e7})
    assert table.take(np.array([0])).typical["R"] == pytest.approx(1e9)  # no store at all: as many tokens as D
    some = Table(one, one, one, one, one, {"U": np.array([1.0, 2.0, 3.0])}).take(np.array([2, 0]))
    assert some.further["U"].tolist() == [3.0, 1.0]


# Slopes and Hessians --------------------------------------------------------------------------------------------------

CASES = [
    (Log1p(), {"delta": 0.01}),
    (Log1p(), {"loss": "least_squares", "space": "linear"}),
    (Hill(exponent="free"), {"loss": "quantile", "delta": 0.02, "tau": 0.3}),
    (Multiplicative(h="hill"), {"delta": 0.01}),
    (Chinchilla(), {"link": "log", "delta": 0.01}),
    (Log1p(), {"link": Bounded("free", "free", direction="down"), "space": "linear", "loss": "least_squares"}),
]


def state_of(law: ScalingLaw, options: dict[str, Any], seed: int = 0) -> tuple[Problem, State]:
    rows = ROWS
    if options.get("link") == "log":
        rows = ROWS.assign(value=np.exp(ROWS["value"]), metric="perplexity")
    problem = problem_of(law, rows=rows, **options)
    rng = np.random.default_rng(seed)
    low, high = np.array(problem.start).T
    u = low + (high - low) * rng.uniform(0.3, 0.7, (2, len(low)))
    weight = np.broadcast_to(rng.uniform(0.5, 2.0, len(rows)), (2, len(rows)))
    extra = u[0, problem.m :]
    target, omega = linearised(problem, extra)
    c = project(problem, problem.columns(u, slopes=False), omega * weight, target) * 1.01 + 1e-3
    return problem, State(problem, c, u, weight, np.zeros(2))


def value_at(problem: Problem, p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    c, u = p[:, : problem.k], p[:, problem.k :]
    return problem.value(problem.residual(problem.latent(problem.columns(u, slopes=False), c), u), weight)


@pytest.mark.parametrize(("law", "options"), CASES, ids=lambda value: getattr(value, "name", None))
def test_the_jacobian_is_that_of_the_residual(law: ScalingLaw, options: dict[str, Any]):
    problem, state = state_of(law, options)
    p = np.hstack([state.c, state.u])
    jacobian = state.jacobian()
    for i in range(p.shape[1]):
        h = 1e-6 * max(abs(p[0, i]), 1e-2)
        ends = []
        for sign in (1, -1):
            moved = p.copy()
            moved[:, i] += sign * h
            c, u = moved[:, : problem.k], moved[:, problem.k :]
            ends.append(problem.residual(problem.latent(problem.columns(u, slopes=False), c), u))
        expected = (ends[0] - ends[1]) / (2 * h)
        np.testing.assert_allclose(jacobian[:, i], expected, rtol=2e-4, atol=1e-6 * np.abs(expected).max() + 1e-9)


@pytest.mark.parametrize(("law", "options"), CASES, ids=lambda value: getattr(value, "name", None))
def test_newtons_system_is_the_slope_and_the_curvature_of_the_objective(law: ScalingLaw, options: dict[str, Any]):
    problem, state = state_of(law, options)
    gradient, hessian, scale = newton_system(state)
    p = np.hstack([state.c, state.u])
    steps = 1e-5 * np.maximum(np.abs(p[0]), 1e-2)

    def at(*moves: tuple[int, float]) -> np.ndarray:
        moved = p.copy()
        for i, share in moves:
            moved[:, i] += share * steps[i]
        return value_at(problem, moved, state.weight)

    for i in range(p.shape[1]):
        slope = (at((i, 1.0)) - at((i, -1.0))) / (2 * steps[i])
        np.testing.assert_allclose(gradient[:, i], slope, rtol=1e-3, atol=1e-5 * np.abs(gradient).max())
    if problem.objective.loss == "least_squares":  # elsewhere rows that cross delta bend the differences
        for i in range(p.shape[1]):
            bend = (newton_at(problem, state, p, i, steps[i]) - newton_at(problem, state, p, i, -steps[i])) / (
                2 * steps[i]
            )
            size = np.sqrt(np.abs(scale[:, i, None] * scale))
            np.testing.assert_allclose(hessian[:, i] / size, bend / size, atol=2e-3)
    assert (scale >= 0).all()
    np.testing.assert_allclose(hessian, hessian.transpose(0, 2, 1), rtol=1e-4, atol=1e-6 * np.abs(hessian).max())


def newton_at(problem: Problem, state: State, p: np.ndarray, i: int, step: float) -> np.ndarray:
    moved = p.copy()
    moved[:, i] += step
    other = State(problem, moved[:, : problem.k], moved[:, problem.k :], state.weight, state.value)
    return newton_system(other)[0]


@pytest.mark.parametrize(("law", "options"), CASES[:3], ids=lambda value: getattr(value, "name", None))
def test_the_projected_system_has_the_slope_of_the_objective_itself(law: ScalingLaw, options: dict[str, Any]):
    _, state = state_of(law, options)
    gradient, hessian, omega, _ = projection_system(state)
    exact = newton_system(state)[0][:, : gradient.shape[1]]
    np.testing.assert_allclose(gradient, exact, rtol=1e-6, atol=1e-9 * np.abs(exact).max())
    assert (np.linalg.eigvalsh(hessian) > 0).all()
    assert (omega > 0).all()


# Grids and starts -----------------------------------------------------------------------------------------------------


def test_minima_on_a_grid_have_no_lower_neighbour_and_the_best_comes_first():
    lack = np.random.default_rng(0).random((6, 7, 5))
    found = _local_minima(lack, 100)
    values = lack.reshape(-1)[found]
    assert (np.diff(values) >= 0).all()
    assert found[0] == np.argmin(lack)
    for flat in range(lack.size):
        i, j, k = np.unravel_index(flat, lack.shape)
        around = lack[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2, max(k - 1, 0) : k + 2]
        assert (flat in found) == (lack[i, j, k] == around.min())
    assert len(_local_minima(lack, 3)) == 3
    assert _local_minima(np.array(5.0), 8).tolist() == [0]
    with_gaps = np.where(lack > 0.9, np.inf, lack)
    assert np.isfinite(with_gaps.reshape(-1)[_local_minima(with_gaps, 100)]).all()


@pytest.mark.parametrize("law", [Chinchilla(), Log1p(), Hill(fixed={"E": 1.5})], ids=repr)
def test_a_grid_solves_for_the_coefficients_at_every_point(law: ScalingLaw):
    problem = problem_of(law)
    target, omega = linearised(problem, np.empty(0))
    grid = Grid(problem, np.empty(0))
    c, u = grid.minima(target, omega, 5)
    columns = problem.columns(u, slopes=False)
    goal = target if columns.rest is None else target - columns.rest
    for i in range(len(u)):
        root = np.sqrt(omega)
        expected = nnls((columns.phi[i] * root).T, np.broadcast_to(goal, (len(u), len(root)))[i] * root)[0]
        np.testing.assert_allclose(c[i], expected, rtol=1e-4, atol=1e-6 * expected.max())
    lacks = ((problem.latent(columns, c) - target) ** 2 * omega).sum(axis=1)
    assert (np.diff(lacks) >= -1e-12).all()
    # no point of the grid is better than the first
    mesh = np.stack([axis.ravel() for axis in np.meshgrid(*grid.axes, indexing="ij")], axis=1)
    some = mesh[np.random.default_rng(0).choice(len(mesh), min(len(mesh), 300), replace=False)]
    others = problem.columns(some, slopes=False)
    best = project(problem, others, np.broadcast_to(omega, (len(some), len(omega))), target)
    values = ((problem.latent(others, best) - target) ** 2 * omega).sum(axis=1)
    assert lacks[0] <= np.nanmin(values) * (1 + 1e-9)


def test_axes_of_a_grid_are_even_in_what_is_searched_and_dense_near_zero_exponents():
    axes = Grid(problem_of(Log1p()), np.empty(0)).axes
    assert [len(axis) for axis in axes] == [14] * 3
    np.testing.assert_allclose(np.diff(np.log(axes[0])), np.diff(np.log(axes[0]))[0])  # .02 to 2 in equal factors
    assert (axes[0][0], axes[0][-1]) == pytest.approx((0.02, 2.0))
    np.testing.assert_allclose(np.diff(axes[2]), np.diff(axes[2])[0])  # a logarithm already
    assert [len(axis) for axis in Grid(problem_of(Chinchilla()), np.empty(0)).axes] == [24, 24]
    coarse = Grid(problem_of(Log1p()), np.empty(0), coarse=True).axes  # over the same range
    assert [len(axis) for axis in coarse] == [8] * 3
    np.testing.assert_allclose([axis[[0, -1]] for axis in coarse], [axis[[0, -1]] for axis in axes])


def test_starts_lie_within_bounds_and_rows_of_weight_zero_have_no_say():
    problem = problem_of(Log1p())
    weight = np.where(np.arange(len(ROWS)) % 3, 1.0, 0.0)
    ((_, u),) = starts(problem, weight[None])
    assert (u >= problem.lower).all()
    assert (u <= problem.upper).all()
    assert len(u) <= 16
    wild = ROWS.assign(value=np.where(weight > 0, ROWS["value"], 9.0))
    ((_, same),) = starts(problem_of(Log1p(), rows=wild), weight[None])
    np.testing.assert_allclose(same, u, rtol=1e-12)
    _, many = scattered_starts(problem, weight)
    assert len(many) >= 32
    assert (many >= np.array(problem.start)[:, 0] - 1e-9).all()


# Solutions ------------------------------------------------------------------------------------------------------------


def ends_at(values: list[float], u: list[float] | None = None) -> Solution:
    count = len(values)
    places = np.array(u if u is not None else np.arange(count), dtype=float)[:, None]
    return Solution(np.zeros((count, 1)), places, np.array(values), np.arange(count) % 2 == 0)


def test_equal_ends_are_one_and_the_best_comes_first():
    found = distinct(ends_at([3.0, 1.0, 1.0 + 1e-12, np.inf, 2.0, np.nan]))
    assert found.value.tolist() == [1.0, 2.0, 3.0]
    assert found.u.ravel().tolist() == [1.0, 4.0, 0.0]
    near = distinct(ends_at([1.0, 1.0 + 1e-8, 1.0 + 2e-8], [0.5, 0.501, 0.9]))
    assert near.u.ravel().tolist() == [0.5, 0.9]  # as good, and elsewhere
    assert len(distinct(ends_at(list(np.arange(1.0, 60.0)))).value) == 20
    assert len(distinct(ends_at([np.inf])).value) == 0


def test_batches_are_joined_taken_from_and_put_into():
    both = join(ends_at([1.0, 2.0]), ends_at([3.0]))
    assert both.value.tolist() == [1.0, 2.0, 3.0]
    both.put(np.array([1]), ends_at([9.0], [7.0]))
    assert both.take(np.array([1])).value.tolist() == [9.0]
    assert both.u.ravel().tolist() == [0.0, 7.0, 0.0]


def test_a_table_without_a_finite_objective_is_said_with_its_range():
    error = no_objective(problem_of(Chinchilla()))
    assert isinstance(error, FitError)
    low, high = ROWS["value"].min(), ROWS["value"].max()
    assert f"({len(ROWS)} rows, values {low:g} to {high:g})" in str(error)


def test_an_objective_that_is_not_finite_is_infinite_and_its_weights_count():
    problem = problem_of(Chinchilla(), loss="least_squares")
    r = np.full((2, len(ROWS)), 0.1)
    r[1, 0] = np.nan
    weight = np.full((1, len(ROWS)), 2.0)
    assert problem.value(r, weight).tolist() == pytest.approx([len(ROWS) * 2.0 * 0.005, np.inf])
    assert Objective("least_squares").rho(np.array([0.1])) == pytest.approx(0.005)
    assert problem.with_observations(np.full((3, len(ROWS)), 2.0)).part(slice(0, 2)).table.y.shape == (2, len(ROWS))
    assert problem.part(slice(0, 2)) is problem
    assert problem.weighted(np.zeros(len(ROWS))).table.weight.sum() == 0.0
    perplexities = ROWS.assign(value=np.exp(ROWS["value"]), metric="perplexity")
    assert isinstance(problem_of(Chinchilla(), rows=perplexities).link, Log)
