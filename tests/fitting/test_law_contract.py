"""Laws: the contract, closed forms against differences, options, units, own laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import ConfigError, FitError
from ragscale.fitting import (
    Hill,
    Interaction,
    Log1p,
    Multiplicative,
    Parameter,
    Power,
    ScalingLaw,
    SeparableLaw,
    Theta,
    catalogue,
    fit_manifold,
)
from ragscale.fitting.laws._catalogue import BUILT_IN
from ragscale.testing import check_scaling_law

VARIANTS: list[ScalingLaw] = [
    *(law() for law in BUILT_IN),
    Hill(exponent="free"),
    Power(R0="free"),
    Power(R0=2e9),
    Interaction(h="hill", scale_D=True, exponent="free"),
    Interaction(h="power"),
    Multiplicative(h="hill"),
    Multiplicative(h="power"),
    Log1p(offset=True, tie=True, fixed={"E": 1.5}),
]


class Logarithmic(ScalingLaw):
    """An own law: nothing but parameters and a formula."""

    parameters = (
        Parameter("E", 0, 10),
        Parameter("A", 0, np.inf),
        Parameter("alpha", 0.01, 2),
        Parameter("b", 0, 1),
    )

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        return theta.E + theta.A * n**-theta.alpha - theta.b * np.log1p(r / d)


class Bent(ScalingLaw):
    """An own law with nothing linear in it."""

    parameters = (
        Parameter("scale", 1e2, 1e16, log=True, start=(1e4, 1e12)),
        Parameter("exponent", 0.02, 1.0, log=True),
    )
    variables = ("N",)

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        return (theta.scale / n) ** theta.exponent


@pytest.mark.parametrize("law", VARIANTS, ids=repr)
def test_every_built_in_law_keeps_the_contract(law: ScalingLaw) -> None:
    ran = check_scaling_law(law)
    assert "gradient_agrees_with_differences" in ran
    assert "a_fit_finds_the_surface_again" in ran or law.offset


@pytest.mark.parametrize("law", [Logarithmic, Bent], ids=["Logarithmic", "Bent"])
def test_an_own_law_of_one_formula_keeps_the_contract(law: type[ScalingLaw]) -> None:
    assert "a_fit_finds_the_surface_again" in check_scaling_law(law)


def test_a_plain_formula_is_taken_apart_into_its_linear_parameters(plane: pd.DataFrame) -> None:
    fit = fit_manifold(plane.assign(R=plane["D"] * (np.arange(24) % 7), value=2.0 + plane["N"] ** -0.2), Logarithmic())
    assert {p.name for p in fit.problem.coefficients} == {"E", "A", "b"}


def test_a_separable_law_and_the_same_formula_as_a_plain_one_fit_alike(make_surface: Any) -> None:
    class Plain(ScalingLaw):
        name = "plain_log1p"
        parameters = Log1p.parameters

        def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
            base = theta.E + theta.A * n**-theta.alpha + theta.B * d**-theta.beta
            return base - theta.C * np.log1p(theta.eta * r)

    table = make_surface()
    assert fit_manifold(table, Plain()).objective == pytest.approx(fit_manifold(table, "log1p").objective, rel=1e-9)


@pytest.mark.parametrize("law", VARIANTS, ids=repr)
def test_retrieval_gains_nothing_without_a_store(law: ScalingLaw) -> None:
    resolved = law._resolve(np.array([1e9]), np.array([1e10]), np.array([1e9]))
    values = {"E": 1.5, "A": 400.0, "alpha": 0.34, "B": 400.0, "beta": 0.28, "C": 0.1, "eta": 1e-9, "gamma": 0.5}
    values |= {"R0": 1e9, "K": 1e9, "n": 1.0, "g": 0.3, "nu": 0.1, "mu": 0.0, "offset": 0.3}
    free = {p.name: values[p.name] for p in resolved.free}
    base = values["E"] + 400 * 1e9**-0.34 + 400 * 1e10 ** -(0.34 if law.tied else 0.28)
    assert float(resolved.loss(1e9, 1e10, 0, free)) == pytest.approx(base, rel=1e-12)


@given(
    n=st.floats(1e6, 1e12),
    d=st.floats(1e7, 1e13),
    r=st.floats(1e6, 1e12),
    more=st.floats(1.01, 100),
    which=st.sampled_from(range(len(BUILT_IN))),
)
def test_more_of_anything_never_hurts(n: float, d: float, r: float, more: float, which: int) -> None:
    law = BUILT_IN[which]()._resolve(np.array([n]), np.array([d]), np.array([r]))
    values = {"E": 5.0, "A": 400.0, "alpha": 0.34, "B": 400.0, "beta": 0.28, "C": 1e-3, "eta": 1e-3, "gamma": 0.5}
    values |= {"K": 1e9, "n": 1.0, "g": 0.3, "nu": 0.0, "mu": 0.0}
    theta = {p.name: values[p.name] for p in law.free}
    here = law.loss(n, d, r, theta)
    assert law.loss(n * more, d, 0, theta) <= law.loss(n, d, 0, theta)
    assert law.loss(n, d * more, r, theta) <= here
    assert law.loss(n, d, r * more, theta) <= here


def test_limits_join_the_laws() -> None:
    base = {"E": 1.5, "A": 400.0, "alpha": 0.34, "B": 400.0, "beta": 0.28}
    n, d, r = 1e9, 2e10, np.array([0.0, 1e8, 1e9])
    flat = Log1p().loss(n, d, r, {**base, "C": 1e5, "eta": 1e-15})  # eta -> 0: linear in R
    linear = Log1p().loss(n, d, 0, {**base, "C": 0.0, "eta": 1.0}) - 1e5 * 1e-15 * r
    assert np.allclose(flat, linear, rtol=1e-6)
    gamma = 1e-7  # gamma -> 0 with C gamma fixed: log1p with eta = 1/R0
    power = Power(R0=1e9).loss(n, d, r, {**base, "C": 0.1 / gamma, "gamma": gamma})
    assert np.allclose(power, Log1p().loss(n, d, r, {**base, "C": 0.1, "eta": 1e-9}), rtol=1e-6)
    interaction = Interaction().loss(n, d, r, {**base, "C": 0.1, "nu": 0.0, "eta": 1e-9})
    assert np.array_equal(interaction, Log1p().loss(n, d, r, {**base, "C": 0.1, "eta": 1e-9}))


def test_int64_counts_do_not_overflow() -> None:
    big = np.array([6_900_000_000], dtype=np.int64)
    theta = {"E": 1.0, "A": 1e9, "alpha": 1.0, "B": 1e9, "beta": 1.0, "C": 0.1, "nu": 1.0, "eta": 1e-9}
    loss = Interaction().loss(big, big * 20, big, theta)
    assert loss == pytest.approx(Interaction().loss(6.9e9, 1.38e11, 6.9e9, theta))


def test_theta_is_read_only_and_names_what_is_missing() -> None:
    theta = Log1p().theta({"E": 1, "A": 1, "alpha": 0.3, "B": 1, "beta": 0.3, "C": 0, "eta": 1})
    with pytest.raises(AttributeError, match="read-only"):
        theta.E = 2.0
    with pytest.raises(AttributeError, match="no parameter 'gamma'; there are E, A"):
        _ = theta.gamma
    with pytest.raises(ConfigError, match=r"missing: C, eta; unknown: zeta"):
        Log1p().loss(1e9, 1e9, 0, {"E": 1, "A": 1, "alpha": 0.3, "B": 1, "beta": 0.3, "zeta": 1})


def test_wrong_options_are_all_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        Log1p(fixed={"gamma": 1.0, "E": np.nan}, tie={"beta": "delta"})
    for part in ("'gamma' does not exist", "'E' = nan is not finite", "cannot tie 'beta' to 'delta'"):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match="h = 'cubic'"):
        Interaction(h="cubic")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="log=True needs lower > 0"):
        Parameter("x", 0, 1, log=True)


def test_a_law_is_immutable_and_comes_back_from_its_dictionary() -> None:
    for law in VARIANTS:
        assert ScalingLaw.from_dict(law.to_dict()) == law
        with pytest.raises(AttributeError, match="immutable"):
            law.fixed = {}
    with pytest.raises(FitError, match="import the module that defines it"):
        ScalingLaw.from_dict({"name": "never_heard_of", "options": {}})


def test_the_catalogue_lists_formula_and_source_of_every_law() -> None:
    table = catalogue()
    assert set(table.index) >= {law.name for law in BUILT_IN}
    assert (table["formula"].str.len() > 5).all()
    assert (table["reference"].str.len() > 5).all()
    assert not table.loc["chinchilla", "retrieval"]


@pytest.mark.parametrize(
    ("body", "promise"),
    [
        (lambda n, d, r, t: t.E.sum() + t.A.sum() * n**-0.3 if np.ndim(t.E) else t.E + t.A * n**-0.3, "shape"),
        (lambda n, d, r, t: t.E + t.A / (r * 0), "inf"),
        (lambda n, d, r, t: t.E + t.A * (r > 0), "jumps"),
        (lambda n, d, r, t: t.E + t.A * np.random.default_rng().random(n.shape), "another value|each other"),
    ],
)
def test_the_check_names_the_broken_promise(body: Any, promise: str) -> None:
    class Broken(ScalingLaw):
        parameters = (Parameter("E", 0, 10), Parameter("A", 0, 10))

        def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
            return body(n, d, r, theta)

    with pytest.raises(AssertionError, match=promise), np.errstate(all="ignore"):
        check_scaling_law(Broken)


def test_the_check_finds_a_wrong_gradient_and_wrong_slopes() -> None:
    class WrongGradient(Log1p):
        name = "wrong_gradient"

        def _gradient(self, n: Any, d: Any, r: Any, theta: Theta) -> Any:
            dn, dd, dr = super()._gradient(n, d, r, theta)
            return dn, 1.1 * dd, dr

    class WrongSlopes(SeparableLaw):
        name = "wrong_slopes"
        parameters = (Parameter("E", 0), Parameter("A", 0), Parameter("alpha", 0.01, 2))
        variables = ("N",)

        def _columns(self, theta: Theta, n: Any, d: Any, r: Any) -> dict[str, Any]:
            return {"E": np.ones_like(n), "A": n**-theta.alpha}

        def _column_slopes(self, theta: Theta, n: Any, d: Any, r: Any) -> dict[tuple[str, str], Any]:
            return {("A", "alpha"): n**-theta.alpha * np.log(n)}

    with pytest.raises(AssertionError, match="dL/dD"):
        check_scaling_law(WrongGradient)
    with pytest.raises(AssertionError, match="column of A against alpha"):
        check_scaling_law(WrongSlopes)


class _Bounded(ScalingLaw):
    """A law of its own whose coefficient has an upper bound."""

    name = "bounded_coefficient"
    variables = ("D",)
    parameters = (Parameter("E", 0, 10), Parameter("A", 0, 1e5), Parameter("a", 0.01, 2))

    def _loss(self, n, d, r, theta):
        return theta.E + theta.A * d**-theta.a


def test_coefficients_stay_within_the_bounds_of_the_law():
    assert "a_fit_finds_the_surface_again" in check_scaling_law(_Bounded)
    d = np.geomspace(1e8, 1e11, 40)
    inside = pd.DataFrame(
        {"N": 1e9, "D": d, "R": 0.0, "value": 1.7 + 400 * d**-0.3, "run": np.arange(40), "metric": "loss"}
    )
    assert fit_manifold(inside, _Bounded()).theta["A"] == pytest.approx(400, rel=1e-4)
    beyond = inside.assign(value=1.7 + 3e6 * d**-0.6)
    fit = fit_manifold(beyond, _Bounded())
    assert fit.theta["A"] <= 1e5 * (1 + 1e-9)
    assert fit.params.loc["A", "at_bound"]
