"""How much a run would teach: the linear algebra of it against the same written out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.decisions import _next_runs
from ragscale.decisions._design import MISFITS, Local, _typical, localise, misfit_columns, misfit_knots
from ragscale.decisions._next_runs import _cost, _default_target, _Plan, _weighted
from ragscale.errors import ConfigError, FitError
from ragscale.fitting import Chinchilla, Parameter, ScalingLaw
from ragscale.fitting.laws._catalogue import make_law

THETA = {"E": 1.7, "A": 406.0, "alpha": 0.34, "B": 411.0, "beta": 0.28}
NAMES = ("E", "A", "alpha", "B", "beta")
LOGARITHMIC = np.array([True, True, False, True, False])


def local(noise: float = 0.01, weight: float = 1.0, law: ScalingLaw | None = None) -> Local:
    return Local(
        law=law or Chinchilla(), theta=dict(THETA), names=NAMES, logarithmic=LOGARITHMIC, noise=noise, weight=weight
    )


def points(*pairs: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame([(n, d, 0.0) for n, d in pairs], columns=["N", "D", "R"])


def log_loss_slopes(frame: pd.DataFrame) -> np.ndarray:
    """d ln L / d (ln E, ln A, alpha, ln B, beta), in closed form."""
    n, d = frame["N"].to_numpy(), frame["D"].to_numpy()
    a, b = THETA["A"] * n ** -THETA["alpha"], THETA["B"] * d ** -THETA["beta"]
    loss = THETA["E"] + a + b
    return np.stack([THETA["E"] + 0 * n, a, -a * np.log(n), b, -b * np.log(d)], axis=1) / loss[:, None]


ROWS = points(*[(n, k * n) for n in (1e7, 3e7, 1e8) for k in (5, 20, 80)])
POOL = points((3e8, 6e9), (1e9, 2e10), (1e9, 2e11), (3e9, 6e10))
TARGET = points((1e11, 2e12))


# Coordinates ----------------------------------------------------------------------------------------------------------


def test_slopes_are_those_of_the_closed_form():
    one = local()
    found = one.jacobian(one.log_loss(ROWS))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, log_loss_slopes(ROWS), rtol=1e-6, atol=1e-9)


def test_a_step_is_a_factor_for_a_logarithmic_coordinate_and_a_sum_for_the_others():
    moved = local().moved(np.array([0.1, -0.2, 0.05, 0.0, -0.01]))
    assert moved == pytest.approx(
        {"E": 1.7 * np.exp(0.1), "A": 406 * np.exp(-0.2), "alpha": 0.39, "B": 411.0, "beta": 0.27}
    )


def test_what_is_tied_moves_along():
    tied = Local(
        law=Chinchilla(tie=True),
        theta={**THETA, "beta": 0.34},
        names=NAMES[:4],
        logarithmic=LOGARITHMIC[:4],
        noise=0.01,
    )
    moved = tied.moved(np.array([0.0, 0.0, 0.1, 0.0]))
    assert moved["alpha"] == moved["beta"] == pytest.approx(0.44)


def test_a_loss_at_or_below_zero_has_a_logarithm_all_the_same():
    value = local().log_loss(points((1e9, 1e10)))({**THETA, "E": -10.0})  # type: ignore[arg-type]
    assert float(value[0]) == pytest.approx(np.log(1e-12))


def test_the_prior_is_wide_for_sizes_and_narrow_for_exponents():
    np.testing.assert_allclose(local().prior() ** -0.5, [1.5, 1.5, 0.15, 1.5, 0.15])


# Local estimates ------------------------------------------------------------------------------------------------------


def measured(noise: float, seed: int = 0) -> pd.DataFrame:
    grid = points(*[(n, k * n) for n in np.geomspace(1e7, 1e9, 6) for k in (5, 20, 80, 320)])
    rng = np.random.default_rng(seed)
    value = THETA["E"] + THETA["A"] * grid["N"] ** -THETA["alpha"] + THETA["B"] * grid["D"] ** -THETA["beta"]
    return grid.assign(value=value * np.exp(noise * rng.standard_normal(len(grid))), metric="loss")


def test_noise_is_that_of_the_residuals_with_the_degrees_of_freedom_left():
    table = measured(0.02)
    found = localise(make_law("chinchilla"), table, {"loss": "least_squares"})
    residual = np.asarray(rs.fit_manifold(table, "chinchilla", loss="least_squares").residuals)
    assert found.noise == pytest.approx(np.sqrt((residual**2).sum() / (24 - 5)))
    assert found.names == NAMES
    assert found.logarithmic.tolist() == LOGARITHMIC.tolist()
    assert found.theta["alpha"] == pytest.approx(0.34, abs=0.1)


def test_noise_is_never_less_than_that_between_two_seeds():
    assert localise(make_law("chinchilla"), measured(0.0), {}).noise == 0.003


def test_what_the_table_cannot_determine_stands_at_typical_values():
    one_size = measured(0.001).query("N < 2e7")
    found = localise(make_law("chinchilla"), one_size, {})
    assert all(np.isfinite(list(found.theta.values())))
    two_rows = measured(0.001).iloc[:2]
    typical = localise(make_law("chinchilla"), two_rows, {})
    assert typical.theta["alpha"] == 0.34
    assert typical.theta["beta"] == 0.3


def test_typical_parameters_pass_through_the_middle_of_the_table():
    table = measured(0.0)
    for name in ("chinchilla", "log1p", "hill"):
        law = make_law(name)
        law = law._resolve(*(table[c].to_numpy(float) for c in "NDR"))
        theta = _typical(law, table.assign(R=np.tile([0.0, 1e9], 12)))
        assert theta["E"] == pytest.approx(0.6 * table["value"].min())
        middle = [np.exp(np.log(table[c]).mean()) for c in "ND"]
        free = {key: value for key, value in theta.items() if key not in law.fixed}
        assert float(law.loss(*middle, 0.0, free)) == pytest.approx(float(table["value"].median()), rel=1e-9)
        if "C" in theta:
            assert theta["C"] == pytest.approx(0.02 * float(table["value"].median()))


def test_a_law_without_a_finite_loss_at_typical_parameters_is_refused():
    class Nowhere(ScalingLaw):
        name = "nowhere"
        parameters = (Parameter("E", 0, 10),)

        def _loss(self, n, d, r, theta):
            return np.full(np.broadcast_shapes(n.shape, d.shape), np.nan)

    with pytest.raises(FitError, match="the law 'nowhere' has no finite loss at typical parameters"):
        _typical(Nowhere(), measured(0.0))


# What a law misses ----------------------------------------------------------------------------------------------------


def test_a_misfit_grows_with_the_root_of_the_distance_and_is_shared_by_runs_of_one_scale():
    knots = {name: np.arange(0.0, 13.0) for name in "ND"}  # a factor e each
    e = np.exp(1.0)
    runs = {"N": e ** np.array([0.0, 5.0, 12.0]), "D": e ** np.array([2.0, 12.0, 12.0])}
    columns = misfit_columns(runs, {"N": e**12, "D": e**12}, knots, 0.004)
    covariance = columns @ columns.T / 0.004**2
    # a Brownian path in ln N and one in ln D, counted from the target: variance is distance
    np.testing.assert_allclose(np.diag(covariance), [12.0 + 10.0, 7.0, 0.0], atol=1e-9)
    assert covariance[0, 1] == pytest.approx(7.0)  # the way that both have to go
    assert columns.shape[1] == sum(len(edges) - 1 for edges in knots.values())


def test_runs_on_either_side_of_the_target_share_no_misfit():
    knots = {"N": np.arange(0.0, 9.0), "D": np.arange(0.0, 3.0)}
    runs = {"N": np.exp([1.0, 7.0]), "D": np.exp([1.0, 1.0])}
    sides = misfit_columns(runs, {"N": np.exp(4.0), "D": np.exp(1.0)}, knots, 0.01)
    assert (sides @ sides.T)[0, 1] == 0.0
    assert (sides @ sides.T)[0, 0] == pytest.approx(3 * 0.01**2)


@pytest.mark.parametrize("factor", [1.0, 3.0, 1e3, 1e6])
def test_knots_are_about_a_factor_e_apart_and_hold_all_that_occurs(factor: float):
    knots = misfit_knots([points((1e7, 1e9)), points((1e7 * factor, 1e9))])
    edges = knots["N"]
    assert edges[0] < np.log(1e7) <= np.log(1e7 * factor) < edges[-1]
    assert np.diff(edges).max() < 1.5
    assert len(edges) >= 2


# The plan -------------------------------------------------------------------------------------------------------------


def plan(*, laws: list[Local] | None = None, pool: pd.DataFrame = POOL, rows: pd.DataFrame = ROWS) -> _Plan:
    return _Plan(laws or [local()], rows, pool, TARGET, "loss")


def written(order: list[int], noise: float = 0.01) -> float:
    """The variance of ln L at the target: g' (P + J'J / s^2)^-1 g, with the misfit as further coordinates."""
    slope = log_loss_slopes(TARGET)
    knots = misfit_knots([ROWS, POOL, TARGET])
    middle = {name: float(TARGET[name].iloc[0]) for name in ("N", "D")}
    total = 0.0
    for misfit in MISFITS:
        runs = pd.concat([ROWS, POOL.iloc[order]])
        further = misfit_columns({c: runs[c].to_numpy() for c in "ND"}, middle, knots, misfit)
        design = np.hstack([log_loss_slopes(runs), further]) / noise
        prior = np.concatenate([[1.5**-2, 1.5**-2, 0.15**-2, 1.5**-2, 0.15**-2], np.ones(further.shape[1])])
        g = np.concatenate([slope[0], np.zeros(further.shape[1])])
        total += g @ np.linalg.solve(np.diag(prior) + design.T @ design, g) / len(MISFITS)
    return float(total)


@pytest.mark.parametrize("order", [[], [0], [2], [0, 1, 2, 3]])
def test_the_variance_is_the_quadratic_form(order: list[int]):
    assert plan().variance(order) == pytest.approx(written(order), rel=1e-5)


def test_every_run_teaches_and_more_noise_leaves_more_open():
    one = plan()
    values = [one.variance(order) for order in ([], [0], [0, 1], [0, 1, 2])]
    assert (np.diff(values) < 0).all()
    assert plan(laws=[local(noise=0.05)]).variance([]) > one.variance([])


def test_the_first_choice_is_the_largest_relative_drop_for_its_cost():
    cost = 6 * (POOL["N"] * POOL["D"]).to_numpy()
    one = plan()
    rate = [(1 - written([i]) / written([])) / cost[i] for i in range(len(POOL))]
    assert one.choose(cost, np.inf, 1) == [int(np.argmax(rate))]


def test_choices_go_on_until_the_money_or_the_number_is_used_up():
    cost = np.array([1.0, 2.0, 4.0, 8.0])
    one = plan()
    assert sorted(one.choose(cost, 15.0, 9)) == [0, 1, 2, 3]
    assert len(one.choose(cost, 15.0, 2)) == 2
    assert one.choose(cost, 0.5, 9) == []
    few = one.choose(cost, 6.0, 9)
    assert cost[few].sum() <= 6.0
    assert 3 not in few


def test_laws_count_by_their_weights():
    both = plan(laws=[local(weight=0.75), local(noise=0.05, weight=0.25)])
    expected = 0.75 * plan().variance([1]) + 0.25 * plan(laws=[local(noise=0.05)]).variance([1])
    assert both.variance([1]) == pytest.approx(expected, rel=1e-9)


def test_weights_fall_with_the_noise_that_a_law_leaves():
    noises = (0.01, 0.01, 0.011, 0.02)
    found = _weighted([local(noise=noise) for noise in noises])
    weight = np.array(noises) ** -20.0
    assert [one.weight for one in found] == pytest.approx(weight / weight.sum())
    assert _weighted([]) == []


# Costs and targets ----------------------------------------------------------------------------------------------------


def test_a_run_costs_six_n_d_and_a_further_store_of_it_a_millionth_of_the_cheapest():
    pool = pd.concat([POOL, points((1e7, 5e7))], ignore_index=True)
    cost = _cost(ROWS, pool)
    six = 6 * pool["N"] * pool["D"]
    np.testing.assert_allclose(cost[:4], six[:4])
    assert cost[4] == pytest.approx(1e-6 * six.min())


def test_the_target_is_the_largest_computation_or_the_largest_budget():
    pool = pd.DataFrame({"N": [1e9, 1e8], "D": [1e10, 2e11], "R": [5e10, 0.0]})
    loss = _default_target(ROWS, pool, "loss")
    assert loss[["N", "D"]].to_numpy().tolist() == [[1e8, 2e11]]
    share = _default_target(ROWS, pool, "share")
    assert share[["N", "D", "R"]].to_numpy().tolist() == [[1e9, 1e11, 1e11]]
    larger = _default_target(points((1e12, 1e13)), pool, "share")
    assert larger[["N", "D", "R"]].to_numpy().tolist() == [[1e12, 5e12, 5e12]]


def test_shown_costs_are_nothing_for_stores_and_whole_for_runs():
    table = rs.datasets.simulate("log1p", noise=0.005, rng=0)
    model = table[["N", "D"]].drop_duplicates().iloc[[0]]
    pool = pd.concat([model.assign(R=5e9), model.assign(N=2.5e9, R=0.0)], ignore_index=True)
    cheapest = 6 * float(model["N"].iloc[0]) * float(model["D"].iloc[0])
    found = rs.next_runs(table, pool, budget_flops=1e25, law="log1p")
    by_store = dict(zip(found.runs["R"], found.cost, strict=True))
    assert by_store[5e9] == 0.0
    assert by_store[0.0] == pytest.approx(6 * 2.5e9 * float(model["D"].iloc[0]))
    assert cheapest > 0


def test_the_cheapest_run_of_all_is_no_store():
    one = points((2.5e9, 1e11))
    found = rs.next_runs(measured(0.001), one, budget_flops=1e25, law="chinchilla")
    assert found.cost.tolist() == [6 * 2.5e9 * 1e11]


def test_the_laws_of_auto_are_those_that_the_columns_allow():
    table = measured(0.001)
    names = [law.name for law in _next_runs._laws("auto", table, POOL)]
    assert names == ["chinchilla"]
    stores = [law.name for law in _next_runs._laws("auto", table.assign(R=1e9), POOL)]
    assert "chinchilla" not in stores
    assert {"log1p", "hill", "power"} <= set(stores)
    assert [law.name for law in _next_runs._laws(["hill", Chinchilla()], table, POOL)] == ["hill", "chinchilla"]


def test_another_column_of_values_is_read():
    table = measured(0.001)
    renamed = table.rename(columns={"value": "perplexity_free_loss"})
    one = rs.next_runs(renamed, POOL, budget_flops=1e22, law="chinchilla", value="perplexity_free_loss")
    other = rs.next_runs(table, POOL, budget_flops=1e22, law="chinchilla")
    pd.testing.assert_frame_equal(one.runs, other.runs)
    assert one.deviation_after == other.deviation_after


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"candidates": 3}, "candidates needs the columns N and D; missing: N, D"),
        ({"at": POOL[["N"]]}, "at needs the columns N and D; missing: D"),
        ({"candidates": POOL.assign(N=-1.0)}, "candidates.N must be finite and positive"),
        ({"candidates": POOL.assign(R=-1.0)}, "candidates.R must be finite and not negative"),
        ({"batch": True}, "batch = True must be a whole number of at least 1"),
        ({"batch": 2.5}, "batch = 2.5 must be a whole number"),
        ({"goal": "money"}, "goal = 'money' must be 'loss' or 'share'"),
    ],
)
def test_wrong_arguments_are_said(change: dict, said: str):
    arguments = {"candidates": POOL, "budget_flops": 1e22, "law": "chinchilla", **change}
    with pytest.raises(ConfigError, match=said):
        rs.next_runs(measured(0.01), **arguments)


def test_the_goal_is_said_in_words():
    table = measured(0.001)
    loss = rs.next_runs(table, POOL, budget_flops=1e22, law="chinchilla").summary()
    assert "the standard deviation of the predicted loss (relative) is expected to go from" in loss
    many = pd.concat([POOL.assign(N=POOL["N"] * (1 + 0.01 * i)) for i in range(5)], ignore_index=True)
    found = rs.next_runs(table, many, budget_flops=1e30, law="chinchilla")
    assert len(found) == len(many) - 1  # one of them was made already
    assert f"... and {len(found) - 12} more" in found.summary()
