"""What every law of the literature promises: limits, signs, slopes, shapes, a way through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.fitting import Chinchilla, ScalingLaw, catalogue, laws

COLUMNS = {"U": 3e10, "loss": 0.9, "n_samples": 8.0, "k": 5.0, "n_shot": 2.0, "n_iterations": 2.0}
COLUMNS |= {"i_doc": 0.2, "i_shot": 0.05, "batch_tokens": 5e5}
ALL = [*(law() for law in laws.LAWS), laws.BrokenPowerLaw(variable="C", n_breaks=2), laws.DirectCompute(chance=0.25)]
ALL += [laws.DirectCompute(ceiling=True), laws.DirectDownstream(chance=0.25, ceiling=True)]
ALL += [laws.InferenceScaling(informativeness=True), laws.DataConstrained(tie=True), laws.BrokenPowerLaw(variable="N")]
ids = [f"{law.name}-{i}" for i, law in enumerate(ALL)]
TYPICAL = {"N": 1e9, "D": 3e10, "R": 1e10}


def draw(law: ScalingLaw, rng: np.random.Generator) -> dict[str, float]:
    """Return parameters from the middle of the range in which the fitter starts."""
    theta = {}
    for parameter in law.free:
        low, high = parameter.start or (parameter.lower, parameter.upper)
        low, high = max(low, -10.0 if not parameter.log else low), high if np.isfinite(high) else 5.0
        at = rng.uniform(0.3, 0.7)
        value = low ** (1 - at) * high**at if parameter.log else low + at * (high - low)
        theta[parameter.name] = value * parameter.unit_value(TYPICAL)
    return theta


def columns(law: ScalingLaw) -> dict[str, float]:
    return {name: COLUMNS[name] for name in law.further_columns}


@pytest.mark.parametrize("law", ALL, ids=ids)
def test_slopes_are_differences_of_the_loss(law):
    rng = np.random.default_rng(0)
    for _ in range(5):
        theta = draw(law, rng)
        n, d = 1e9 * np.exp(rng.uniform(-2, 2)), 1e11 * np.exp(rng.uniform(-2, 2))
        slopes = law.gradient(n, d, 0.0, theta, **columns(law))
        for slope, (dn, dd) in zip(slopes, ((1, 0), (0, 1)), strict=False):
            h = 1e-4
            ahead = law.loss(n * (1 + h * dn), d * (1 + h * dd), 0.0, theta, **columns(law))
            back = law.loss(n * (1 - h * dn), d * (1 - h * dd), 0.0, theta, **columns(law))
            step = 2 * h * (n if dn else d)
            expected = (ahead - back) / step
            assert slope == pytest.approx(expected, rel=1e-3, abs=1e-7 * float(np.abs(ahead)) * 2 * h / step)
        assert slopes[2] == pytest.approx(0.0)


@pytest.mark.parametrize("law", ALL, ids=ids)
def test_replicates_of_parameters_broadcast_against_rows(law):
    rng = np.random.default_rng(1)
    draws = [draw(law, rng) for _ in range(3)]
    stacked = {name: np.array([[theta[name]] for theta in draws]) for name in draws[0]}
    n, d = np.geomspace(1e8, 1e10, 4), np.geomspace(1e10, 1e12, 4)
    bound = law.at(**columns(law)) if law.further_columns else law
    together = bound._loss(n, d, np.zeros(4), law.theta(stacked)) + np.zeros((3, 4))
    apart = [law.loss(n, d, 0.0, theta, **columns(law)) for theta in draws]
    np.testing.assert_allclose(together, apart, rtol=1e-12)


@pytest.mark.parametrize("law", ALL, ids=ids)
def test_a_law_survives_json(law):
    again = ScalingLaw.from_dict(json.loads(json.dumps(law.to_dict())))
    assert again == law
    assert again.variables == law.variables
    theta = draw(law, np.random.default_rng(2))
    assert again.loss(1e9, 2e10, 0, theta, **columns(law)) == law.loss(1e9, 2e10, 0, theta, **columns(law))


@pytest.mark.parametrize("law", ALL, ids=ids)
def test_the_law_says_what_it_is(law):
    row = catalogue().loc[law.name]
    assert row["formula"] == law.formula
    assert law.formula
    assert "arXiv" in law.reference
    assert all(parameter.description for parameter in law.parameters)
    for published in getattr(law, "published", {}).values():
        assert "arXiv" in published.source


@pytest.mark.parametrize("law", [law for law in ALL if law.further_columns], ids=lambda law: law.name)
def test_a_missing_column_is_named(law):
    theta = draw(law, np.random.default_rng(3))
    with pytest.raises(ConfigError, match=law.further_columns[0]):
        law.loss(1e9, 1e10, 0, theta)
    with pytest.raises(ConfigError, match="not read"):
        law.at(**columns(law), nonsense=1.0)


def in_counts(theta):
    """Return Chinchilla's parameters from those of DataConstrained, which are stated per 1e9."""
    a, b = theta["A"] * 1e9 ** theta["alpha"], theta["B"] * 1e9 ** theta["beta"]
    return {"E": theta["E"], "A": a, "alpha": theta["alpha"], "B": b, "beta": theta["beta"]}


FALLING = [laws.KaplanN(), laws.KaplanD(), laws.KaplanC(), laws.Kaplan(), laws.DataConstrained(), laws.Overtraining()]
FALLING += [laws.StepsAndBatch(), laws.StepsBatchPowers()]
RISING = [laws.DirectCompute(), laws.DirectDownstream(), laws.SingleStep(), laws.PassUntil(), laws.PassAtK()]


@given(st.integers(0, 10_000), st.floats(1.0, 100.0), st.floats(1.0, 100.0))
def test_more_parameters_and_more_tokens_never_hurt(seed, more_n, more_d):
    rng = np.random.default_rng(seed)
    for law in (*FALLING, *RISING):
        theta = draw(law, rng)
        if law.name == "pass_at_k":
            theta["delta"] = 0.0
        sign = 1 if law in FALLING else -1
        unique = {"U": 1e9 * rng.uniform(1, 200)} if law.name == "data_constrained" else columns(law)
        small = law.loss(1e9, 1e10, 0, theta, **unique)
        large = law.loss(1e9 * more_n, 1e10 * more_d, 0, theta, **unique)
        assert sign * large <= sign * small * (1 + 1e-12) + (1e-12 if sign < 0 else 0)


@given(st.integers(0, 10_000))
def test_accuracies_stay_between_chance_and_one(seed):
    rng = np.random.default_rng(seed)
    for law in (laws.DirectCompute(chance=0.25), laws.DirectDownstream(chance=0.25), laws.PassAtK(chance=0.25)):
        found = law.loss(np.geomspace(1e5, 1e14, 10), 1e10, 0, draw(law, rng), **columns(law))
        assert (found >= 0.25).all()
        assert (found <= 1.0).all()


def test_kaplan_has_the_limits_of_its_two_power_laws():
    kaplan = laws.Kaplan.published["kaplan"].parameters
    theta = laws.kaplan_published(kaplan)
    one = {"N_c": theta["N_c"], "alpha_N": theta["alpha_N"]}
    other = {"D_c": theta["D_c"], "alpha_D": theta["alpha_D"]}
    assert laws.Kaplan().loss(1e8, 1e30, 0, kaplan) == pytest.approx(laws.KaplanN().loss(1e8, 1, 0, one), rel=1e-6)
    assert laws.Kaplan().loss(1e40, 1e9, 0, kaplan) == pytest.approx(laws.KaplanD().loss(1, 1e9, 0, other), rel=1e-6)


@pytest.mark.parametrize("law", [laws.KaplanN, laws.KaplanD, laws.KaplanC])
def test_a_power_of_one_variable_takes_an_offset(law):
    theta = dict(law.published["kaplan"].parameters)
    plain, shifted = (
        law().loss(1e9, 1e10, 1e9, theta),
        law(offset=True).loss(1e9, 1e10, [0, 1e9], theta | {"offset": 0.2}),
    )
    assert shifted.tolist() == pytest.approx([float(plain), float(plain) + 0.2])


@given(st.floats(1e7, 1e11), st.floats(1e8, 1e13))
def test_data_constrained_with_new_tokens_and_enough_of_them_is_chinchilla(n, d):
    theta = dict(laws.DataConstrained.published["c4"].parameters)
    base = in_counts(theta)
    plain = Chinchilla().loss(n, d, 0, base)
    best_n = laws.chinchilla_optimum(base, 6 * n * d)["N"].iloc[0]
    ours = laws.DataConstrained().loss(n, d, 0, theta, U=d)
    if n <= best_n:
        assert ours == pytest.approx(plain, rel=1e-12)
    else:
        assert ours >= plain * (1 - 1e-12)
    many = theta | {"r_D": 1e4, "r_N": 1e4}
    assert laws.DataConstrained().loss(n, d, 0, many, U=d / 3) == pytest.approx(plain, rel=2e-2)


@given(st.floats(1e6, 1e12), st.floats(1e7, 1e14))
def test_kaplan_is_the_papers_equation_in_its_letters(n, d):
    n_c, a_n, d_c, a_d = 6.4e13, 0.076, 1.8e13, 0.103
    written = ((n_c / n) ** (a_n / a_d) + d_c / d) ** a_d
    assert laws.Kaplan().loss(n, d, 0, laws.kaplan_parameters(n_c, a_n, d_c, a_d)) == pytest.approx(written, rel=1e-12)


def test_repeating_is_never_better_than_new_tokens_and_has_an_end():
    theta = laws.DataConstrained.published["c4"].parameters
    unique = np.geomspace(1e8, 1e11, 40)
    losses = laws.DataConstrained().loss(1e9, 1e11, 0, theta, U=unique)
    assert (np.diff(losses) < 0).all()
    assert laws.effective_tokens(1e20, 1e9, theta) == pytest.approx((1 + theta["r_D"]) * 1e9)


@given(st.floats(0.02, 0.4), st.floats(0.5, 2.5), st.floats(50, 500), st.floats(50, 500))
def test_overtraining_is_chinchilla_with_equal_exponents(eta, e, a, b):
    found = laws.Overtraining().loss(2e9, 7e10, 0, {"E": e, "a": a, "b": b, "eta": eta})
    same = {"E": e, "A": a * 6**-eta, "alpha": 2 * eta, "B": b * 6**-eta, "beta": 2 * eta}
    assert found == pytest.approx(Chinchilla().loss(2e9, 7e10, 0, same), rel=1e-12)
    n = np.geomspace(1e6, 1e12, 20001)
    losses = laws.Overtraining().loss(n, 1e21 / (6 * n), 0, {"E": e, "a": a, "b": b, "eta": eta})
    ratio = 1e21 / (6 * n[losses.argmin()] ** 2)
    expected = laws.best_ratio({"a": a, "b": b, "eta": eta})
    if 0 < losses.argmin() < len(n) - 1:
        assert ratio == pytest.approx(expected, rel=5e-3)


def test_a_break_of_no_change_is_no_break():
    theta = {"a": 1.0, "b": 30.0, "c0": 0.2}
    without = laws.BrokenPowerLaw(n_breaks=0).loss(1, np.geomspace(1e6, 1e12, 7), 0, theta)
    theta |= {"c1": 0.0, "d1": 1e9, "f1": 0.4}
    np.testing.assert_allclose(laws.BrokenPowerLaw().loss(1, np.geomspace(1e6, 1e12, 7), 0, theta), without, rtol=1e-13)
    with pytest.raises(ConfigError, match="R = 0"):
        laws.BrokenPowerLaw(variable="R").loss(1, 1, 0, theta)
    with pytest.raises(ConfigError, match="n_breaks"):
        laws.BrokenPowerLaw(n_breaks=-1)


def test_farseer_without_curvature_is_chinchilla_without_a_floor():
    zero = {"gamma": 0.0, "beta": 0.0, "alpha": 0.0, "s1": 0.0, "s2": 0.0}
    theta = zero | {"t3": np.log(0.5), "s3": -0.3, "t2": np.log(400.0), "t1": np.log(0.28)}
    n, d = np.meshgrid(np.geomspace(1e7, 1e11, 5), np.geomspace(1e9, 1e13, 5))
    same = {"E": 0.0, "A": 0.5 * 1e9**0.3, "alpha": 0.3, "B": 400.0, "beta": 0.28}
    np.testing.assert_allclose(laws.Farseer().loss(n, d, 0, theta), Chinchilla().loss(n, d, 0, same), rtol=1e-7)


def test_shannon_turns_up_only_where_noise_outgrows_the_signal():
    quiet = {"a": 0.1, "alpha": 0.1, "b": 20, "beta": 0.5, "c": 1e-12, "gamma": 0.1, "d": 1e-12, "delta": 0.1}
    tokens = np.geomspace(1e8, 1e15, 60)
    assert (np.diff(laws.Shannon().loss(1e9, tokens, 0, quiet)) < 0).all()
    noisy = laws.Shannon().loss(1e9, tokens, 0, quiet | {"d": 1e-4, "delta": 1.5})
    lowest = int(noisy.argmin())
    assert 0 < lowest < 59
    assert (np.diff(noisy[lowest:]) > 0).all()


def test_one_try_is_the_direct_law_and_more_tries_help():
    theta = {"A": 2.0, "alpha": -0.2, "beta": -0.3, "delta": 0.0}
    law = laws.PassAtK()
    direct = laws.DirectCompute().loss(1e9, 1e11, 0, {"A": 2.0, "alpha": 0.2})
    assert law.loss(1e9, 1e11, 0, theta, n_samples=1) == pytest.approx(direct, rel=1e-12)
    assert (np.diff(law.loss(1e9, 1e11, 0, theta, n_samples=np.array([1, 2, 4, 8, 64]))) > 0).all()


@pytest.mark.parametrize("kind", [laws.DirectCompute, laws.DirectDownstream])
def test_a_ceiling_is_where_the_accuracy_ends_and_none_is_the_law_without(kind):
    law = kind(chance=0.25, ceiling=True)
    theta = {"A": 0.8, "alpha": 0.3, "B": 0.5, "beta": 0.4}
    theta = {name: theta[name] for name in (parameter.name for parameter in kind().parameters)}
    without = kind(chance=0.25).loss(1e9, 2e10, 0, theta)
    assert law.loss(1e9, 2e10, 0, theta | {"E": 0.0}) == without
    found = law.loss([1e9, 1e40], [2e10, 1e40], 0, theta | {"E": 0.3})
    assert -np.log((found[0] - 0.25) / 0.75) == pytest.approx(0.3 - np.log((without - 0.25) / 0.75), rel=1e-12)
    assert found[1] == pytest.approx(0.25 + 0.75 * np.exp(-0.3), rel=1e-6)


def test_error_and_accuracy_move_with_the_loss():
    loss = np.linspace(0.1, 6, 30)
    error = laws.LossToError().loss(1, 1, 0, laws.LossToError.published["c4"].parameters, loss=loss)
    assert (np.diff(error) > 0).all()
    assert laws.LossToError().loss(1, 1, 0, laws.LossToError.published["c4"].parameters, loss=60.0) == pytest.approx(
        0.85
    )
    theta = {"floor": 0.25, "ceiling": 0.9, "k": 3.0, "L0": 1.0}
    accuracy = laws.LossToAccuracy().loss(1, 1, 0, theta, loss=loss)
    assert (np.diff(accuracy) < 0).all()
    assert laws.LossToAccuracy().loss(1, 1, 0, theta, loss=1.0) == pytest.approx(0.575)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: laws.DirectCompute(chance=1.0), "chance"),
        (lambda: laws.DirectCompute(ceiling=0.9), "ceiling"),  # type: ignore[arg-type]
        (lambda: laws.InferenceScaling(shift=-1.0), "shift"),
        (lambda: laws.InferenceScaling(sigmoid=(0.0, 1.0, 0.0, 0.0)), "sigmoid"),
        (lambda: laws.BrokenPowerLaw(variable="X"), "variable"),  # type: ignore[arg-type]
    ],
)
def test_options_that_cannot_work_are_refused(make, what):
    with pytest.raises(ConfigError, match=what):
        make()
