"""The split of a budget: against brute force, against closed forms, at corners, and for laws nobody foresaw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

import ragscale as rs
from ragscale import fitting
from ragscale.errors import ConfigError, ExtrapolationWarning, RagscaleError

from .conftest import BUMPY, NAMES, known

BUDGETS = np.array([1e8, 2e9, 5e10, 1e12])


def brute(law, theta, n, budget, p_d=1.0, p_r=1.0):
    """The lowest loss on a fine grid along the budget, refined by scipy around its best point, and both ends."""

    def loss(z):
        return float(law.loss(n, budget / p_d / (1 + np.exp(z)), budget / p_r / (1 + np.exp(-z)), theta))

    z = np.linspace(-20, min(20, np.log(budget / p_d - 1)), 4001)  # at least one token to train on
    on_grid = law.loss(n, budget / p_d / (1 + np.exp(z)), budget / p_r / (1 + np.exp(-z)), theta)
    best = z[np.argmin(on_grid)]
    refined = minimize_scalar(
        loss, bounds=(best - 0.02, min(best + 0.02, z[-1])), method="bounded", options={"xatol": 1e-10}
    )
    return min(refined.fun, on_grid.min(), float(law.loss(n, budget / p_d, 0.0, theta)))


def test_no_split_on_a_fine_grid_is_better(any_law):
    law, theta = any_law
    best = rs.optimal_allocation(any_law, N=np.array([[3e7], [1e9]]), budget=BUDGETS)
    for i, n in enumerate([3e7, 1e9]):
        for j, budget in enumerate(BUDGETS):
            assert best.loss[i, j] <= brute(law, theta, n, budget) + 1e-12


@settings(max_examples=80)
@given(
    name=st.sampled_from(NAMES),
    c=st.floats(1e-4, 0.5),
    scale=st.floats(0.01, 100),
    alpha=st.floats(0.05, 1.5),
    beta=st.floats(0.05, 1.5),
    n=st.floats(1e7, 1e11),
    budget=st.floats(1e7, 1e14),
    price=st.floats(0.01, 100),
)
def test_for_any_parameters_the_split_is_no_worse_than_brute_force_and_balances_at_the_prices(
    name, c, scale, alpha, beta, n, budget, price
):
    law, theta = known(name)
    theta = {**theta, "alpha": alpha, "beta": beta, "A": 0.4 * 1e9**alpha, "B": 1.2 * 1e9**beta}
    if "C" in theta:
        theta["C"] *= c / 0.05
    for key in {"eta", "K", "R0"} & theta.keys() - set(law.fixed):
        theta[key] *= scale
    # the grid goes down to 2e-9 of the budget, which may be less than the one token that is least by default
    best = rs.optimal_allocation((law, theta), N=n, budget=budget, prices=(1, price), min_D=1e-9 * budget)
    assert best.loss <= brute(law, theta, n, budget, 1.0, price) + 1e-11
    np.testing.assert_allclose(best.D + price * best.R, budget, rtol=1e-9)
    np.testing.assert_allclose(best.loss, law.loss(n, best.D, best.R, theta), rtol=1e-14)
    if best.boundary == "interior":
        assert best.exchange_rate == pytest.approx(price, rel=1e-6)
        assert best.gain > 0
    elif best.boundary == "R=0":
        assert best.R == best.share == best.gain == 0


@pytest.mark.parametrize("budget", [6e9, 5e10, 3e12])
def test_the_closed_form_of_the_logarithmic_law(budget):
    law, t = known("log1p")
    onset = (t["beta"] * t["B"] / (t["C"] * t["eta"])) ** (1 / (t["beta"] + 1))
    assert rs.optimal_allocation((law, t), N=1e9, budget=onset * 0.999).boundary == "R=0"
    assert rs.optimal_allocation((law, t), N=1e9, budget=onset * 1.001).boundary == "interior"

    def balance(d):
        return t["beta"] * t["B"] * d ** -(t["beta"] + 1) - t["C"] * t["eta"] / (1 + t["eta"] * (budget - d))

    best = rs.optimal_allocation((law, t), N=1e9, budget=budget)
    assert pytest.approx(brentq(balance, onset / 2, budget, xtol=1, rtol=1e-14), rel=1e-10) == best.D


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("power", lambda r, t: t["gamma"] * t["C"] / t["R0"] * (1 + r / t["R0"]) ** -(t["gamma"] + 1)),
        ("hill", lambda r, t: t["C"] * t["K"] / (r + t["K"]) ** 2),
        ("rpower", lambda r, t: t["C"] * t["g"] * r ** (t["g"] - 1)),
    ],
)
def test_the_first_order_conditions_of_the_other_forms(name, slope):
    law, t = known(name)
    best = rs.optimal_allocation((law, t), N=1e9, budget=5e10)
    assert best.boundary == "interior"
    assert t["beta"] * t["B"] * best.D ** -(t["beta"] + 1) == pytest.approx(slope(best.R, t), rel=1e-9)


@pytest.mark.parametrize("name", ["log1p", "power", "hill", "rpower"])
def test_additive_laws_give_every_model_size_the_same_split(name):
    best = rs.optimal_allocation(known(name), N=[[1e7], [1e9], [1e12]], budget=BUDGETS)
    assert np.ptp(best.share, axis=0).max() < 1e-12


@pytest.mark.parametrize("name", ["log_ratio", "interaction", "multiplicative"])
def test_only_laws_with_an_interaction_let_small_models_retrieve_more(name):
    best = rs.optimal_allocation(known(name), N=[1e8, 1e9, 1e10], budget=5e10)
    assert (np.diff(best.share) < -1e-3).all()


@pytest.mark.parametrize(("eta", "price", "boundary"), [(0.3, 1, "R=0"), (0.3, 0.2, "D=min"), (2.0, 1, "D=min")])
def test_a_constant_exchange_rate_ends_in_a_corner(eta, price, boundary):
    best = rs.optimal_allocation(known("effective_data", eta=eta), N=1e9, budget=5e10, prices={"R": price})
    assert best.boundary == boundary
    assert best.share == pytest.approx(0.0 if boundary == "R=0" else 1.0, abs=1e-9)


def test_every_stationary_point_of_a_users_own_law_is_searched():
    law, theta = BUMPY
    best = rs.optimal_allocation(BUMPY, N=1e9, budget=np.geomspace(1e9, 1e13, 25))
    for budget, loss in zip(best.budget, best.loss, strict=True):
        assert loss <= brute(law, theta, 1e9, budget) + 1e-12
    inside = best.boundary == "interior"
    assert inside.sum() > 15
    np.testing.assert_allclose(best.exchange_rate[inside], 1, rtol=1e-4)


def test_a_convex_start_of_the_gain_has_two_candidates_and_the_better_one_wins():
    law, theta = known("hill", fitting.Hill(exponent=4.0), C=0.2, K=5e9)
    budgets = np.geomspace(1e9, 1e12, 60)
    best = rs.optimal_allocation((law, theta), N=1e9, budget=budgets)
    for budget, loss in zip(budgets, best.loss, strict=True):
        assert loss <= brute(law, theta, 1e9, budget) + 1e-12
    assert best.boundary[0] == "R=0"
    jump = np.diff(best.share).max()
    assert jump > 0.1  # from no store at once to a large one, where a local search would be stuck


def test_a_cost_of_inserting_text_makes_no_retrieval_the_better_answer():
    law = fitting.Log1p(offset=True)
    helps = rs.optimal_allocation(known("log1p", law, offset=0.01), N=1e9, budget=5e10)
    hurts = rs.optimal_allocation(known("log1p", law, offset=0.2), N=1e9, budget=5e10)
    assert (helps.boundary, hurts.boundary) == ("interior", "R=0")
    assert hurts.R == 0
    assert hurts.D == 5e10
    assert "retrieval does not help here" in hurts.summary()
    for law_and_theta, best in ((known("log1p", law, offset=0.01), helps), (known("log1p", law, offset=0.2), hurts)):
        assert best.loss <= brute(*law_and_theta, 1e9, 5e10) + 1e-12


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"chinchilla", "effective_data"}])
def test_no_gain_has_no_slope_even_where_its_shape_is_infinitely_steep(name):
    law, theta = known(name, C=0.0)
    for slope in law.gradient(1e9, 1e10, np.array([0.0, 1e9]), theta):
        assert np.isfinite(slope).all()
    assert (np.asarray(law.gradient(1e9, 1e10, np.array([0.0, 1e9]), theta)[2]) == 0.0).all()
    assert (rs.exchange_rate((law, theta), N=1e9, D=1e10, R=[0.0, 1e9]).value == 0.0).all()
    assert rs.compute_optimal((law, theta), flops=1e20, R="free", store_flops=1e9).R == 0.0
    assert rs.knee_point((law, theta), N=1e9).status == "above"


def test_no_gain_at_all_is_an_answer_in_words_and_not_an_error():
    for subject in (known("chinchilla"), known("log1p", C=0.0)):
        best = rs.optimal_allocation(subject, N=1e9, budget=[1e9, 1e12])
        assert list(best.boundary) == ["R=0", "R=0"]
        assert best.summary().count("retrieval does not help here") == 2
        assert ("has no retrieval term" in best.summary()) == (subject[0].name == "chinchilla")


def test_caps_hold_and_are_reported():
    subject = known("log1p")
    free = rs.optimal_allocation(subject, N=1e9, budget=5e10)
    few_data = rs.optimal_allocation(subject, N=1e9, budget=5e10, max_D=2e10)
    assert (few_data.D, few_data.boundary) == (pytest.approx(2e10), "D=max")
    assert pytest.approx(3e10) == few_data.R
    small_store = rs.optimal_allocation(subject, N=1e9, budget=5e10, max_R=1e9)
    assert (small_store.R, small_store.boundary) == (pytest.approx(1e9), "R=max")
    assert pytest.approx(4.9e10) == small_store.D
    both = rs.optimal_allocation(subject, N=1e9, budget=5e10, max_D=1e10, max_R=1e9)
    assert (pytest.approx(1e10), pytest.approx(1e9)) == (both.D, both.R)  # the budget cannot all be spent
    much = rs.optimal_allocation(subject, N=1e9, budget=5e10, min_D=4.5e10)
    assert (much.D, much.boundary) == (pytest.approx(4.5e10), "D=min")
    loose = rs.optimal_allocation(subject, N=1e9, budget=5e10, max_D=1e12, max_R=1e12, min_D=1e6)
    assert loose.share == pytest.approx(free.share, rel=1e-12)
    assert rs.optimal_allocation(subject, N=1e9, budget=5e10, max_R=0).boundary == "R=0"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("max_d", "max_r"), [(1e10, 1e12), (1e10, 5e9), (1e12, 5e9)])
def test_capped_splits_are_no_worse_than_a_grid(name, max_d, max_r):
    law, theta = known(name)
    best = rs.optimal_allocation((law, theta), N=1e9, budget=5e10, max_D=max_d, max_R=max_r)
    r = np.concatenate([[0.0], np.geomspace(1, min(max_r, 5e10 - 1), 4001)])
    d = np.minimum(5e10 - r, max_d)
    assert best.loss <= law.loss(1e9, d, r, theta).min() + 1e-9
    assert max_d * (1 + 1e-12) >= best.D
    assert max_r * (1 + 1e-12) >= best.R
    assert best.D + best.R <= 5e10 * (1 + 1e-12)


def test_only_the_ratio_of_prices_matters_and_a_dearer_store_gets_less():
    subject = known("log1p")
    one = rs.optimal_allocation(subject, N=1e9, budget=5e10, prices=(1, 2))
    ten = rs.optimal_allocation(subject, N=1e9, budget=5e11, prices={"D": 10, "R": 20})
    assert (pytest.approx(ten.D), pytest.approx(ten.R)) == (one.D, one.R)
    r = rs.optimal_allocation(subject, N=1e9, budget=5e10, prices=(1, [0.5, 1, 2, 4])).R
    assert (np.diff(r) < 0).all()


def test_counting_in_other_units_changes_nothing():
    law, t = known("log1p")
    thousand = {**t, "B": t["B"] / 1e3 ** t["beta"], "eta": t["eta"] * 1e3}
    counts = rs.optimal_allocation((law, t), N=1e9, budget=BUDGETS)
    thousands = rs.optimal_allocation((law, thousand), N=1e9, budget=BUDGETS / 1e3)
    np.testing.assert_allclose(thousands.R * 1e3, counts.R, rtol=1e-9)
    np.testing.assert_allclose(thousands.loss, counts.loss, rtol=1e-12)


def test_many_at_once_equal_one_by_one_and_scalars_give_scalars(any_law):
    together = rs.optimal_allocation(any_law, N=[1e8, 1e9], budget=[[1e10], [1e11]])
    assert together.share.shape == together.boundary.shape == (2, 2)
    for i, budget in enumerate([1e10, 1e11]):
        for j, n in enumerate([1e8, 1e9]):
            one = rs.optimal_allocation(any_law, N=n, budget=budget)
            assert np.ndim(one.share) == 0
            assert isinstance(one.boundary, str)
            assert together.R[i, j] == pytest.approx(one.R, rel=1e-9)
    assert len(together.to_frame()) == 4


def test_a_bootstrap_gives_intervals_and_the_share_at_a_boundary(fitted):
    fit, bootstrap = fitted
    budgets = np.array([2e9, 5e10])
    best = rs.optimal_allocation(bootstrap, N=1e9, budget=budgets)
    point = rs.optimal_allocation(fit, N=1e9, budget=budgets)
    np.testing.assert_array_equal(best.share, point.share)
    assert best.replicates["share"].shape == (200, 2)
    low, high = best.interval("share")
    assert low[1] < best.share[1] < high[1]
    assert high[1] - low[1] < 0.3
    for s in (0, 57):
        theta = {name: float(values[s]) for name, values in bootstrap.theta.items()}
        one = rs.optimal_allocation((fit.law, theta), N=1e9, budget=budgets)
        np.testing.assert_allclose(best.replicates["share"][s], one.share, rtol=1e-9)
    frame = best.to_frame()
    assert {"share_low", "share_high", "at_boundary"} <= set(frame.columns)
    assert frame["at_boundary"].between(0, 1).all()
    assert best.boundary_share["R=0"][0] == np.mean(best.replicates["R"][:, 0] == 0)
    assert "% to" not in point.summary()
    assert "to" in best.summary()
    with pytest.raises(ConfigError, match=r"rs\.bootstrap"):
        point.interval("share")


def test_the_true_split_lies_in_the_interval(fitted):
    low, high = rs.optimal_allocation(fitted[1], N=1e9, budget=5e10).interval("share")
    truth = rs.optimal_allocation(known("log1p"), N=1e9, budget=5e10).share
    assert low <= truth <= high


def test_far_beyond_the_data_is_said(fitted):
    with pytest.warns(ExtrapolationWarning, match=r"D = .* times beyond"):
        rs.optimal_allocation(fitted[0], N=1e9, budget=1e14)


def test_the_answer_shows_in_a_notebook(fitted):
    page = rs.optimal_allocation(fitted[1], N=1e9, budget=[1e9, 5e10])._repr_html_()
    assert "<table" in page
    assert "retrieve from" in page
    assert "share_low" in page


def test_everything_wrong_with_the_arguments_is_listed():
    with pytest.raises(ConfigError) as caught:
        rs.optimal_allocation(known("log1p"), N=-1, budget="much", prices=(1, 0, 3), max_R=float("nan"))
    for part in ("N must be", "budget", "prices", "max_R"):
        assert part in str(caught.value)
    for arguments in (
        {"N": 1e9, "budget": 5.0, "min_D": 10.0},
        {"N": [1e9, 1e8], "budget": [1e9, 1e9, 1e9]},
        {"N": 1e9, "budget": 1e9, "prices": (1, 0)},
        {"N": 1e9, "budget": 1e9, "prices": {"X": 2}},
        {"N": 1e9, "budget": 1e9, "max_D": 5, "min_D": 6},
        {"N": True, "budget": 1e9},
    ):
        with pytest.raises(ConfigError):
            rs.optimal_allocation(known("log1p"), **arguments)


@pytest.mark.parametrize("subject", [None, 3, "log1p", ("log1p",), ("nope", {}), ("log1p", {"E": 1}), ("log1p", 3)])
def test_what_is_no_fit_is_refused(subject):
    with pytest.raises(RagscaleError):
        rs.optimal_allocation(subject, N=1e9, budget=1e10)


odd = st.one_of(
    st.floats(),
    st.integers(-2, 10**30),
    st.none(),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=3),
    st.booleans(),
)


@settings(max_examples=50)
@given(
    name=st.sampled_from(NAMES),
    arguments=st.fixed_dictionaries(
        {"N": odd, "budget": odd}, optional={"prices": odd, "max_D": odd, "max_R": odd, "min_D": odd}
    ),
)
def test_no_arguments_raise_anything_but_a_ragscale_error(name, arguments):
    try:
        best = rs.optimal_allocation(known(name), **arguments)
    except RagscaleError:
        return
    spent = best.prices[0] * best.D + best.prices[1] * best.R
    assert (spent <= np.asarray(best.budget) * (1 + 1e-9)).all()
    assert np.isfinite(best.R).all()
