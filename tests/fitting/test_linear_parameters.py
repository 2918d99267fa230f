"""What the solver finds out about a law by trying it: which parameters are coefficients, and columns as functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.fitting import Hill, Log1p, Parameter, ScalingLaw
from ragscale.fitting.laws._columns import FunctionsOfR, as_column, slope_of
from ragscale.fitting.solver._linear_parameters import columns_by_loss, linear_names, probe_value

N = np.array([1e8, 1e9, 1e10, 1e9])
D = np.array([1e10, 1e10, 1e11, 1e12])
R = np.array([0.0, 1e9, 1e10, 3e8])
TYPICAL = {"N": 1e9, "D": 3e10, "R": 1e9}


class Plain(ScalingLaw):
    """Four coefficients and two exponents."""

    name = "plain of linear parameters"
    parameters = (
        Parameter("E", 0, 10),
        Parameter("A", 0, np.inf),
        Parameter("alpha", 0.01, 2),
        Parameter("b", -1, 1),
        Parameter("c", 0, 1),
        Parameter("eta", 1e-3, 1e3, log=True, unit="1/R"),
    )

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Any) -> Any:
        return theta.E + theta.A * n**-theta.alpha + theta.b * np.log(d) - theta.c * np.log1p(theta.eta * r)


class StoreOnly(ScalingLaw):
    """A loss that is zero wherever no store was read."""

    name = "store only of linear parameters"
    parameters = (Parameter("C", 0, 1), Parameter("eta", 1e-3, 1e3, log=True, unit="1/R"))

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Any) -> Any:
        return theta.C * np.log1p(theta.eta * r)


class Product(ScalingLaw):
    """Each of a and b enters linearly, both together do not."""

    name = "product of linear parameters"
    parameters = (Parameter("a", 0, 10), Parameter("b", 0, 10))

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Any) -> Any:
        return 1.0 + theta.a * theta.b * n**-0.1 + theta.a


class Fragile(ScalingLaw):
    """A law that cannot be evaluated where its parameter is 0."""

    name = "fragile of linear parameters"
    parameters = (Parameter("E", 0, 10), Parameter("K", 0.1, 10))

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Any) -> Any:
        if theta.K == 0:
            raise ZeroDivisionError("K is 0")
        return theta.E + r / theta.K


@pytest.mark.parametrize(
    ("law", "names"),
    [
        (Plain(), {"E", "A", "b", "c"}),
        (Plain(offset=True), {"E", "A", "b", "c", "offset"}),
        (StoreOnly(), {"C"}),  # rows at which nothing happens say nothing against it
        (Product(), {"a"}),
        (Fragile(), {"E"}),
        (Log1p(), {"E", "A", "B", "C"}),
        (Hill(exponent="free", offset=True), {"E", "A", "B", "C", "offset"}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_coefficients_are_found_together(law: ScalingLaw, names: set[str]):
    assert linear_names(law, N, D, R, TYPICAL) == names


def test_a_loss_is_the_sum_of_its_columns_times_coefficients_and_the_rest():
    values = {"alpha": 0.3, "eta": 1e-9}
    columns = columns_by_loss(Plain(), frozenset({"E", "A", "b", "c"}), values, (N, D, R))
    assert set(columns) == {"E", "A", "b", "c"}  # nothing is left over
    theta = {"E": 1.5, "A": 40.0, "b": -0.02, "c": 0.1}
    total = sum(theta[name] * columns[name] for name in theta)
    np.testing.assert_allclose(total, Plain().loss(N, D, R, {**theta, **values}), rtol=1e-12)
    held = columns_by_loss(Plain(), frozenset({"E", "A"}), {**values, "b": -0.02, "c": 0.1}, (N, D, R))
    total = 1.5 * held["E"] + 40.0 * held["A"] + held["(rest)"]
    np.testing.assert_allclose(total, Plain().loss(N, D, R, {**theta, **values}), rtol=1e-12)
    none = columns_by_loss(Plain(), frozenset(), {**theta, **values}, (N, D, R))
    assert set(none) == {"(rest)"}


@settings(max_examples=40)
@given(st.floats(0.0, 1.0), st.sampled_from([
    Parameter("x", 0.0, 10.0), Parameter("x"), Parameter("x", 5.0, 50.0), Parameter("x", -50.0, -5.0),
    Parameter("x", 1e-6, 1e6, log=True, unit="R"), Parameter("x", 0.0, 9.0, start=(1.0, 2.0)),
    Parameter("x", 1e-9, 1e9, log=True, start=(10.0, 1e3), unit="N"),
]))  # fmt: skip
def test_a_law_is_tried_inside_of_its_bounds(share: float, parameter: Parameter):
    low, high = parameter.bounds(TYPICAL)
    value = probe_value(parameter, TYPICAL, share)
    assert low * (1 - 1e-12) <= value <= high * (1 + 1e-12) or (low < 0 and low <= value <= high)
    if parameter.start:
        unit = parameter.unit_value(TYPICAL)
        start, end = (one * unit for one in parameter.start)
        expected = start * (end / start) ** share if parameter.log else start + share * (end - start)
        assert value == pytest.approx(expected)


# Columns that are functions of the store ------------------------------------------------------------------------------


def double(r: np.ndarray) -> np.ndarray:
    return 2.0 * np.asarray(r)


def square(r: np.ndarray) -> np.ndarray:
    return np.asarray(r) ** 2


def test_several_functions_stand_like_replicates_of_parameters():
    both = as_column("hit_rate", [double, square])
    assert isinstance(both, FunctionsOfR)
    r = np.array([1.0, 3.0, 10.0])
    np.testing.assert_array_equal(both(r), [2 * r, r**2])
    np.testing.assert_allclose(both.derivative(r), [[2, 2, 2], [2, 6, 20]], rtol=1e-6)
    np.testing.assert_array_equal(both[(1, 0)](r), r**2)  # one of them, for all stores
    np.testing.assert_array_equal(both[np.array([1, 1, 0])](r), [r**2, r**2, 2 * r])


@pytest.mark.parametrize("r", [0.0, 0.5, 1.0, 1e9])
def test_a_slope_is_the_functions_own_or_a_difference(r: float):
    assert float(slope_of(square, r)) == pytest.approx(2 * r, rel=1e-6, abs=2e-4)
    assert float(slope_of(np.polynomial.Polynomial([0, 0, 1]).deriv(), r)) == pytest.approx(2.0, rel=1e-6)

    class Known:
        def __call__(self, at: np.ndarray) -> np.ndarray:
            return np.asarray(at) ** 2

        def derivative(self, at: np.ndarray) -> np.ndarray:
            return 7.0 + 0 * np.asarray(at)

    assert float(slope_of(Known(), r)) == 7.0


def test_columns_are_numbers_or_functions():
    assert as_column("U", double) is double
    assert as_column("U", [1, 2]).dtype == np.float64
    with pytest.raises(ConfigError, match="column 'U' must be numbers or a function of R"):
        as_column("U", "many")
    with pytest.raises(ConfigError, match="column 'U' must be numbers or a function of R"):
        as_column("U", [double, 3])


class Reads(ScalingLaw):
    """Reads a further column."""

    name = "reads of linear parameters"
    variables = ("N", "D", "R", "hit_rate")
    parameters = (Parameter("E", 0, 10), Parameter("b", 0, 1))

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Any) -> Any:
        return theta.E - theta.b * self.column("hit_rate", r)


def test_a_law_reads_its_column_where_it_is_given():
    theta = {"E": 3.0, "b": 0.5}
    law = Reads()
    assert law.further_columns == ("hit_rate",)
    np.testing.assert_allclose(law.loss(N, D, R, theta, hit_rate=[0, 0.2, 0.4, 1]), [3, 2.9, 2.8, 2.5])
    np.testing.assert_allclose(law.at(hit_rate=lambda r: r / 1e10).loss(N, D, R, theta), 3 - 0.5 * R / 1e10)
    with pytest.raises(ConfigError, match="reads the column 'hit_rate' of the results"):
        law.loss(N, D, R, theta)
    for columns, said in (
        ({}, "column 'hit_rate' is missing"),
        ({"hit_rate": 0.5, "U": 1.0}, "column 'U' is not read by the law"),
        ({"hit_rate": np.nan}, "column 'hit_rate' holds values that are not finite"),
    ):
        with pytest.raises(ConfigError, match=said):
            law.at(**columns)


def test_replicates_have_functions_of_their_own():
    theta = {"E": np.full((2, 1), 3.0), "b": np.full((2, 1), 0.5)}
    law = Reads().at(hit_rate=[lambda r: 0 * r, lambda r: 1 + 0 * r])
    np.testing.assert_allclose(law.loss(N, D, R, theta), [[3.0] * 4, [2.5] * 4])
    point = {"E": 3.0, "b": 0.5}
    np.testing.assert_allclose(law.take((1, 0)).loss(N, D, R, point), 2.5)
    plain = Reads().at(hit_rate=0.5)
    assert plain.take((1, 0)) is plain
    np.testing.assert_array_equal(plain.column_slope("hit_rate", R), 0.0)
