"""The formulas of the built-in laws, written a second time, and what decisions ask of them in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from ragscale.errors import ConfigError
from ragscale.fitting import (
    EffectiveData,
    Hill,
    Interaction,
    Log1p,
    LogRatio,
    Multiplicative,
    Parameter,
    Power,
    ScalingLaw,
    Theta,
)
from ragscale.fitting.laws._additive import middle
from ragscale.fitting.laws._base import Chinchilla, separable_optimum
from ragscale.fitting.laws._coverage import Coverage
from ragscale.fitting.laws._gains import GAINS
from ragscale.fitting.laws._law import check_counts
from ragscale.fitting.laws._reading import Reading

BASE = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 410.0, "beta": 0.28}
N, D = np.array([1e8, 1e9, 2e10]), np.array([2e9, 5e10, 1e12])
STORES = np.array([0.0, 1e6, 3e8, 2e9, 1e12])

WRITTEN = {
    "log1p": (lambda x, t: math.log(1 + t["eta"] * x), {"eta": 2e-9}),
    "power": (lambda x, t: 1 - (1 + x / t["R0"]) ** -t["gamma"], {"gamma": 0.7, "R0": 3e8}),
    "hill": (lambda x, t: x ** t["n"] / (x ** t["n"] + t["K"] ** t["n"]), {"K": 2e9, "n": 1.6}),
    "rpower": (lambda x, t: x ** t["g"], {"g": 0.4}),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_gain_is_its_formula_and_nothing_without_a_store(name: str):
    formula, values = WRITTEN[name]
    found = GAINS[name].value(STORES, Theta(values))
    np.testing.assert_allclose(found, [formula(x, values) for x in STORES], rtol=1e-6, atol=1e-15)
    assert found[0] == 0.0
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("name", WRITTEN)
def test_slopes_and_rates_are_differences_of_the_formula(name: str):
    formula, values = WRITTEN[name]
    gain = GAINS[name]
    x = STORES[1:]
    for parameter, slope in gain.slopes(x, Theta(values)).items():
        h = 1e-6 * values[parameter]
        up, down = ({**values, parameter: values[parameter] + s * h} for s in (1, -1))
        expected = [(formula(one, up) - formula(one, down)) / (2 * h) for one in x]
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-9 / values[parameter])
    expected = [(formula(one * 1.0001, values) - formula(one * 0.9999, values)) / (2e-4 * one) for one in x[:-1]]
    np.testing.assert_allclose(gain.rate(x[:-1], Theta(values)), expected, rtol=1e-4)
    for unit in (1.0, 1e8):
        stores = x[:-1] * unit
        log_rate, bend = gain.log_rate(unit, Theta(values))(stores)
        np.testing.assert_allclose(np.exp(log_rate) * unit, gain.rate(stores / unit, Theta(values)), rtol=1e-9)
        moved = [gain.log_rate(unit, Theta(values))(stores * np.exp(s * 1e-5))[0] for s in (1, -1)]
        np.testing.assert_allclose(bend + 0 * stores, (moved[0] - moved[1]) / 2e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["power", "hill"])
def test_half_of_a_saturating_gain_is_at_its_half_point(name: str):
    formula, values = WRITTEN[name]
    half = GAINS[name].half_point(Theta(values))
    assert formula(half, values) == pytest.approx(0.5)
    assert formula(1e30, values) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "values", "concave"),
    [
        ("log1p", {"eta": 1.0}, True), ("power", {"gamma": 5.0, "R0": 1.0}, True), ("hill", {"K": 1.0, "n": 1.0}, True),
        ("hill", {"K": 1.0, "n": 1.01}, False), ("rpower", {"g": 1.0}, True), ("rpower", {"g": 1.01}, False),
        ("hill", {"K": 1.0, "n": np.array([0.5, 1.5])}, False),
    ],
)  # fmt: skip
def test_gains_are_concave_up_to_an_exponent_of_one(name: str, values: dict[str, Any], concave: bool):
    assert GAINS[name].is_concave(Theta(values)) is concave
    assert (GAINS[name].half_point(Theta(values)) is None) == (name in {"log1p", "rpower"})


def test_no_gain_has_no_slope_where_the_first_token_is_infinitely_steep():
    theta = Theta({"g": 0.5})
    np.testing.assert_array_equal(GAINS["rpower"].sized_rate(0.0, np.array([0.0, 1.0]), theta), [0.0, 0.0])
    assert GAINS["rpower"].sized_rate(2.0, np.array([0.0]), theta)[0] == np.inf


# Laws -----------------------------------------------------------------------------------------------------------------


def base(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return 1.7 + 400 / n**0.34 + 410 / d**0.28


SHAPES: dict[str, tuple[ScalingLaw, dict[str, float], Any]] = {
    "chinchilla": (Chinchilla(), {}, lambda n, d, r: base(n, d)),
    "log1p": (Log1p(), {"C": 0.05, "eta": 1e-9}, lambda n, d, r: base(n, d) - 0.05 * np.log(1 + 1e-9 * r)),
    "power": (Power(R0=1e9), {"C": 0.2, "gamma": 0.8}, lambda n, d, r: base(n, d) - 0.2 * (1 - (1 + r / 1e9) ** -0.8)),
    "hill": (Hill(), {"C": 0.2, "K": 2e9}, lambda n, d, r: base(n, d) - 0.2 * r / (r + 2e9)),
    "log_ratio": (LogRatio(), {"C": 0.05, "eta": 2.0}, lambda n, d, r: base(n, d) - 0.05 * np.log(1 + 2.0 * r / n)),
    "interaction": (
        Interaction(h="hill", scale_D=True),
        {"C": 20.0, "nu": 0.2, "mu": 0.05, "K": 2e9},
        lambda n, d, r: base(n, d) - 20.0 * n**-0.2 * d**-0.05 * r / (r + 2e9),
    ),
    "effective_data": (EffectiveData(), {"eta": 0.3}, lambda n, d, r: base(n, d + 0.3 * r)),
    "multiplicative": (
        Multiplicative(h="hill"),
        {"C": 0.3, "K": 2e9},
        lambda n, d, r: 1.7 + (base(n, d) - 1.7) * (1 - 0.3 * r / (r + 2e9)),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_law_is_its_formula(name: str):
    law, own, formula = SHAPES[name]
    n, d, r = (x.ravel() for x in np.meshgrid(N, D, STORES, indexing="ij"))
    np.testing.assert_allclose(law.loss(n, d, r, {**BASE, **own}), formula(n, d, r), rtol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_its_slopes_are_differences_of_the_formula(name: str):
    law, own, formula = SHAPES[name]
    counts = [x.ravel() for x in np.meshgrid(N, D, STORES[1:-1], indexing="ij")]
    for axis, slope in enumerate(law.gradient(*counts, {**BASE, **own})):
        step = 1e-4 * counts[axis]
        up, down = ([c + s * step if i == axis else c for i, c in enumerate(counts)] for s in (1, -1))
        expected = (formula(*up) - formula(*down)) / (2 * step)
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-9 / counts[axis].min())


@pytest.mark.parametrize("name", SHAPES)
def test_slopes_of_columns_are_differences_of_columns(name: str):
    law: Any = SHAPES[name][0]
    values = dict(law.theta({**BASE, **SHAPES[name][1]}))
    n, d, r = (x.ravel() for x in np.meshgrid(N, D, STORES, indexing="ij"))
    columns = law._columns(Theta(values), n, d, r)
    both = law._columns_and_slopes(Theta(values), n, d, r)
    slopes = law._column_slopes(Theta(values), n, d, r)
    assert {parameter for _, parameter in slopes} <= {p.name for p in law.parameters} - set(columns)
    for (column, parameter), slope in slopes.items():
        h = 1e-6 * (abs(values[parameter]) or 1.0)
        up, down = (law._columns(Theta({**values, parameter: values[parameter] + s * h}), n, d, r) for s in (1, -1))
        expected = (up[column] - down[column]) / (2 * h)
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-7 * np.abs(expected).max())
        np.testing.assert_allclose(both[1][column, parameter] + 0 * slope, slope, rtol=1e-12)
    for column, value in columns.items():
        np.testing.assert_allclose(both[0][column], value, rtol=1e-12)


@pytest.mark.parametrize("name", ["power", "hill", "interaction", "multiplicative"])
def test_the_limit_of_a_gain_is_what_an_endless_store_brings(name: str):
    law, own, formula = SHAPES[name]
    complete = law.theta({**BASE, **own})
    limit = law._gain_limit(N, D, complete)
    assert limit is not None
    np.testing.assert_allclose(limit, formula(N, D, 0.0) - formula(N, D, 1e300), rtol=1e-9)


def test_endless_stores_are_endless_data_under_effective_data():
    theta = EffectiveData().theta({**BASE, "eta": 0.3})
    np.testing.assert_allclose(EffectiveData()._gain_limit(N, D, theta), 410 / D**0.28, rtol=1e-12)
    assert EffectiveData()._constant_exchange_rate(theta) == 0.3


# Laws that know what was shown ----------------------------------------------------------------------------------------

GOLD = {"gold": 1.5, "gold_N": 0.02, "gold_D": 0.1, "other": -0.2, "other_N": 0.01, "other_D": -0.03}
SKILL = {"D0": 1.2e10, "c": 0.2, "k": 3.0, "leap": 0.1, "gold": 1.5, "other": -0.2}


def covered(n, d, r, h):
    log_n, log_d = np.log(n / 1e6), np.log(d / 1e6)
    hit, miss = (np.where((r > 0) | (h > 0), x, 0.0) for x in (h, 1 - h))
    return base(n, d) - hit * (1.5 + 0.02 * log_n + 0.1 * log_d) - miss * (-0.2 + 0.01 * log_n - 0.03 * log_d)


def read(n, d, r, h):
    skill = 1 / (1 + (1.2e10 * (n / 1e9) ** 0.2 / d) ** 3)
    shown = (r > 0) | (h > 0)
    return base(n, d) - skill * (0.1 + shown * (h * 1.5 + (1 - h) * -0.2))


@pytest.mark.parametrize(
    ("law", "own", "formula"),
    [(Coverage(), GOLD, covered), (Reading(N_ref=1e9), SKILL, read)],
    ids=["coverage", "reading"],
)
def test_a_law_of_hits_is_its_formula_with_its_slopes(law: Any, own: dict[str, float], formula: Any):
    n, d, r = (x.ravel() for x in np.meshgrid(N, D, STORES, indexing="ij"))
    theta = {**BASE, **own}
    for h in (np.zeros_like(n), np.full_like(n, 0.3), np.where(r == 0, 1.0, 0.4)):
        np.testing.assert_allclose(law.loss(n, d, r, theta, hit_rate=h), formula(n, d, r, h), rtol=1e-12)
        slopes = law.at(hit_rate=h).gradient(n, d, r, theta)
        for axis, slope in enumerate(slopes[:2]):
            step = [1e-4 * c if i == axis else 0 * c for i, c in enumerate((n, d))]
            up, down = (formula(n + s * step[0], d + s * step[1], r, h) for s in (1, -1))
            np.testing.assert_allclose(slope, (up - down) / (2 * step[axis]), rtol=1e-4, atol=1e-9 / (n, d)[axis].min())
        assert (np.asarray(slopes[2]) == 0).all()  # with a fixed hit rate the store itself is worth nothing


def test_with_a_curve_a_store_is_worth_the_hits_that_it_adds():
    for law, own, formula in ((Coverage(), GOLD, covered), (Reading(N_ref=1e9), SKILL, read)):
        curve = law.at(hit_rate=lambda r: r / (r + 1e9))
        at = 2e9, 3e10, np.array([1e8, 1e9, 5e9])
        h = 1e-5 * at[2]
        up, down = (formula(*at[:2], at[2] + s * h, (at[2] + s * h) / (at[2] + s * h + 1e9)) for s in (1, -1))
        np.testing.assert_allclose(curve.gradient(*at, {**BASE, **own})[2], (up - down) / (2 * h), rtol=1e-3)


@pytest.mark.parametrize("name", ["log1p", "log_ratio"])
def test_a_gain_without_bound_has_no_limit(name: str):
    law, own, _ = SHAPES[name]
    assert law._gain_limit(N, D, law.theta({**BASE, **own})) is None


def test_an_offset_is_no_part_of_what_grows():
    law = Hill(offset=True)
    theta = law.theta({**BASE, "C": 0.2, "K": 2e9, "n": 1.0, "offset": 0.05})
    limit = law._gain_limit(N, D, theta)
    np.testing.assert_allclose(limit, 0.2 - 0.05, rtol=1e-9)
    plain = Hill().loss(N, D, 1e9, {**BASE, "C": 0.2, "K": 2e9})
    given_theta = {**BASE, "C": 0.2, "K": 2e9, "offset": 0.05}
    np.testing.assert_allclose(law.loss(N, D, 1e9, given_theta), plain + 0.05)
    np.testing.assert_allclose(law.loss(N, D, 0.0, given_theta), base(N, D))


@settings(max_examples=40)
@given(
    alpha=st.floats(0.05, 1.0),
    beta=st.floats(0.05, 1.0),
    a=st.floats(0.1, 3.0),
    b=st.floats(0.1, 3.0),
    log_c=st.floats(40, 60),
)
def test_the_best_size_of_a_computation_is_where_a_search_finds_it(alpha, beta, a, b, log_c):
    compute = math.exp(log_c)
    theta = Theta({"alpha": alpha, "beta": beta, "A": a * 1e9**alpha, "B": b * 1e10**beta})
    n = float(separable_optimum(np.array(compute), theta))

    def loss(x: float) -> float:
        return a * math.exp(-alpha * (x - math.log(1e9))) + b * math.exp(
            -beta * (log_c - math.log(6) - x - math.log(1e10))
        )

    found = minimize_scalar(loss, bounds=(math.log(n) - 3, math.log(n) + 3), method="bounded", options={"xatol": 1e-10})
    assert math.log(n) == pytest.approx(found.x, abs=1e-4)


@np.errstate(divide="ignore")
def test_the_data_for_a_loss_give_it_and_below_the_floor_none_do():
    theta = Chinchilla().theta(BASE)
    d = Chinchilla()._data_for(N, base(N, D), theta)
    np.testing.assert_allclose(d, D, rtol=1e-9)
    floor = 1.7 + 400 / N**0.34
    assert np.isinf(Chinchilla()._data_for(N, floor - 1e-9, theta)).all()
    assert np.isinf(Chinchilla()._data_for(N, floor - 0.1, theta)).all()


@pytest.mark.parametrize(
    ("law", "depends"),
    [
        (Log1p(), False),
        (Hill(), False),
        (LogRatio(), True),
        (Interaction(), True),
        (Multiplicative(), True),
        (Chinchilla(), False),
    ],
)
def test_laws_say_whether_the_gain_depends_on_the_model(law: ScalingLaw, depends: bool):
    assert law.gain_depends_on_N is depends


# What falls away where a variable never changes -----------------------------------------------------------------------


def test_a_term_of_one_size_goes_into_the_constant_unless_that_is_held():
    assert Log1p()._without("N") == {"A": 0.0, "alpha": 0.5}
    assert Log1p(fixed={"E": 1.0})._without("N") == {"A": None, "alpha": 0.5}
    assert Log1p()._without("D") == {"B": 0.0, "beta": 0.5}
    assert Interaction(scale_D=True)._without("N") == {"A": 0.0, "alpha": 0.5, "nu": 0.0}
    assert Interaction(scale_D=True)._without("D") == {"B": 0.0, "beta": 0.5, "mu": 0.0}
    assert Interaction()._without("D") == {"B": 0.0, "beta": 0.5}
    assert Multiplicative(fixed={"A": 0.0})._without("D") == {"E": 0.0, "B": None, "beta": 0.5}


def test_with_two_stores_the_shape_is_held_in_the_middle_and_the_size_stays():
    held = Log1p()._without("R", 1e9)
    assert held is not None
    assert held["C"] is None
    assert held["eta"] == pytest.approx(1e-9)  # the middle of e^-9 to e^9, per typical store
    hill = Hill()._without("R", 1e9)
    assert hill == {"C": None, "K": pytest.approx(1e9)}
    assert LogRatio()._without("R", 1e9) is None


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Parameter("x", 1e-4, 1e4, log=True), 1.0),
        (Parameter("x", 1e-4, 1e4, log=True, start=(1.0, 100.0)), 10.0),
        (Parameter("x", 0.0, 3.0), 1.5),
        (Parameter("x", 0.0, 3.0, start=(1.0, 2.0)), 1.5),
    ],
)
def test_the_middle_of_a_range_is_geometric_where_it_is_searched_so(parameter: Parameter, value: float):
    assert middle(parameter) == pytest.approx(value)


@pytest.mark.parametrize(
    ("stores", "scale"), [([0.0, 1e9, 4e9], 1e9), ([0, 4e8, 4e8], 1e9), ([2e6, 3e6], 1e6), ([0.0], 1e9)]
)
def test_power_takes_the_power_of_ten_next_to_the_typical_store(stores: list[float], scale: float):
    one = np.ones(len(stores))
    law = Power()._resolve(one, one, np.array(stores))
    assert law.fixed["R0"] == scale
    assert "R0" not in Power(R0="free")._resolve(one, one, np.array(stores)).fixed
    assert Power(R0=7.0)._resolve(one, one, np.array(stores)).fixed["R0"] == 7.0


# Parameters, options and counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "value"),
    [("", 1.0), ("N", 2.0), ("D", 3.0), ("R", 5.0), ("1/R", 0.2), ("/R", 0.2), ("N/R", 0.4), ("R/D", 5 / 3)],
)
def test_a_unit_is_a_ratio_of_typical_counts(unit: str, value: float):
    parameter = Parameter("x", 0.5, 4.0, unit=unit)
    typical = {"N": 2.0, "D": 3.0, "R": 5.0}
    assert parameter.unit_value(typical) == pytest.approx(value)
    assert parameter.bounds(typical) == pytest.approx((0.5 * value, 4.0 * value))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "2x"}, "is no identifier"),
        ({"name": "x", "lower": 2.0, "upper": 1.0}, "lower = 2.0 is above upper = 1.0"),
        ({"name": "x", "lower": 0.0, "log": True}, "log=True needs lower > 0"),
        ({"name": "x", "unit": "M"}, "unit = 'M' must be"),
    ],
)
def test_parameters_that_cannot_be_are_named(options: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        Parameter(**options)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Log1p(fixed={"gamma": 1.0}), "fixed parameter 'gamma' does not exist: the parameters are E, A"),
        (lambda: Log1p(fixed={"E": math.nan}), "fixed parameter 'E' = nan is not finite"),
        (lambda: Log1p(tie={"beta": "nu"}), "cannot tie 'beta' to 'nu'"),
        (lambda: Log1p(tie=True, fixed={"beta": 0.3}), "do not fix it too"),
        (lambda: Log1p(tie={"beta": "alpha", "alpha": "E"}), "tie to a free parameter"),
        (lambda: Power(R0="wide"), "R0 = 'wide' must be a number of tokens, 'free' or None"),  # type: ignore[arg-type]
        (lambda: Hill(exponent="steep"), "exponent = 'steep' must be a number or 'free'"),  # type: ignore[arg-type]
        (lambda: Interaction(h="rpower"), "h = 'rpower' must be"),  # type: ignore[arg-type]
    ],
)
def test_options_that_cannot_be_are_named(make: Any, said: str):
    with pytest.raises(ConfigError, match=said):
        make()


@pytest.mark.parametrize(
    "law",
    [
        Log1p(offset=True, tie=True),
        Power(R0="free"),
        Power(R0=3e8),
        Hill(exponent="free"),
        Hill(exponent=2.0),
        Interaction(h="hill", exponent="free", scale_D=True),
        Multiplicative(h="power", R0="free"),
        Multiplicative(h="power", R0=5.0),
    ],
    ids=repr,
)
def test_options_build_the_same_law_again(law: ScalingLaw):
    again = type(law)(**law.options())
    assert again == law
    assert hash(again) == hash(law)
    assert ScalingLaw.from_dict(law.to_dict()) == law
    assert [p.name for p in again.free] == [p.name for p in law.free]
    assert law.replace(fixed={"E": 1.0}) != law
    with pytest.raises(AttributeError, match="immutable"):
        law.offset = True


def test_what_is_tied_and_fixed_is_filled_in_and_nothing_is_guessed():
    law = Log1p(tie=True, fixed={"E": 1.5})
    theta = law.theta({"A": 1.0, "alpha": 0.3, "B": 2.0, "C": 0.1, "eta": 1.0})
    assert (theta.E, theta.beta) == (1.5, 0.3)
    with pytest.raises(ConfigError, match=r"missing: C, eta; unknown: gamma"):
        law.theta({"A": 1.0, "alpha": 0.3, "B": 2.0, "gamma": 1.0})
    with pytest.raises(AttributeError, match="read-only"):
        theta.E = 2.0
    with pytest.raises(AttributeError, match="no parameter 'nu'; there are E, A"):
        theta.nu


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((0, 1, 0), "N must be finite and positive, got 0.0"),
        ((1, -1, 0), "D must be finite and positive"),
        ((1, 1, -1), "R must be finite and not negative"),
        ((1, 1, math.inf), "R must be finite"),
        (("much", 1, 0), "N is not numeric"),
        (([1, 2], [1, 2, 3], 0), r"shapes \(2,\), \(3,\), \(\) do not broadcast"),
        (("much", [1, 2], [1, 2, 3]), "N is not numeric"),
    ],
)
def test_counts_that_cannot_be_are_named(counts: Any, said: str):
    with pytest.raises(ConfigError, match=said):
        check_counts(*counts)


def test_counts_of_whole_numbers_do_not_overflow():
    n, d, _ = check_counts(np.int64(4e18), np.int64(4e18), 0)
    assert float(n * d) == pytest.approx(1.6e37)


def test_slopes_without_a_closed_form_are_differences_also_where_the_store_is_empty():
    class Plain(ScalingLaw):
        parameters = (Parameter("E", 0, 10),)

        def _loss(self, n, d, r, theta):
            return theta.E + n**-0.3 + d**-0.2 - 0.1 * np.log1p(r / 1e9)

    at = np.array([1e8, 1e9]), np.array([1e10, 1e11]), np.array([0.0, 2e9])
    found = Plain().gradient(*at, {"E": 1.0})
    expected = -0.3 * at[0] ** -1.3, -0.2 * at[1] ** -1.2, -0.1 / (1e9 + at[2])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7)
    empty = Plain().gradient(1e8, 1e9, 0.0, {"E": 1.0})[2]
    assert float(empty) == pytest.approx(
        -0.1 / 1e9, rel=1e-3
    )  # in steps of a share of D where there is no store at all
