"""What a decision is about: surfaces of fits, bootstraps and several laws, and how far from data they are asked."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.decisions._surface import Average, Surface, surface
from ragscale.errors import ConfigError, ExtrapolationWarning, FitError
from ragscale.fitting import Bounded, Identity
from ragscale.fitting.laws._law import Theta

from .conftest import known

ROWS = pd.DataFrame({"N": [1e8, 1e9], "D": [1e10, 1e11], "R": [0.0, 1e9], "value": [3.0, 2.5]})


def of(name: str = "log1p", data: pd.DataFrame | None = ROWS, **options) -> Surface:
    law, theta = known(name)
    return Surface(law=law, theta=law.theta(theta), data=data, **options)


def asked(found: Surface, **counts: float) -> str:
    """What is warned of at one point, empty where nothing is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.warn_beyond_data("here", **{name: np.array([value]) for name, value in counts.items()})
    return "; ".join(str(one.message) for one in caught)


# How far from the data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"N": 1e9}, ""),
        ({"N": 9.9e9}, ""),  # up to ten times is near
        ({"N": 1.1e10}, "here extrapolates: N = 1.1e+10 is 11 times beyond 1e+08 to 1e+09"),
        ({"N": 1.1e7}, ""),
        ({"N": 5e6}, "here extrapolates: N = 5e+06 is 20 times beyond 1e+08 to 1e+09"),
        ({"R": 1.0}, ""),  # R = 0 is among the data: any small store lies between two rows
        ({"R": 1e11}, "here extrapolates: R = 1e+11 is 100 times beyond 1e+09 to 1e+09"),
        ({"R": 0.0}, ""),
        ({"N": np.nan}, ""),
        ({"N": 2e10, "D": 2e12}, "N = 2e+10 is 20 times beyond 1e+08 to 1e+09; D = 2e+12 is 20 times beyond 1e+10"),
    ],
)
def test_more_than_tenfold_beyond_the_data_is_said(counts: dict[str, float], said: str):
    found = asked(of(), **counts)
    assert said in found
    assert bool(found) == bool(said)


def test_a_law_with_given_parameters_has_no_data_to_leave():
    assert asked(of(data=None), N=1e30) == ""
    assert of(data=None).measured("N").size == 0
    assert of(data=None).least_D == 1.0
    of(data=None).refuse_nowhere("here", N=np.array([1e30]))
    of(data=None).check_possible("here", np.array([-1.0]))


def test_a_recommendation_goes_no_lower_than_a_tenth_of_the_data():
    assert of().least_D == 1e9
    assert of(data=ROWS.assign(D=[3.0, 9.0])).least_D == 1.0
    assert of().measured("R").tolist() == [1e9]  # a store of 0 is no size
    assert of().measured("hit_rate").size == 0


@pytest.mark.parametrize(("n", "side"), [(1.01e12, "1.01e+12"), (0.99e5, "9.9e+04")])
def test_a_thousand_times_outside_of_the_data_nothing_is_recommended(n: float, side: str):
    of().refuse_nowhere("compute_optimal", N=np.array([0.99e12, 1.01e5, np.nan]))
    with pytest.raises(FitError) as caught:
        of().refuse_nowhere("compute_optimal", N=np.array([1e9, n]))
    for part in (
        "compute_optimal: the best N",
        side,
        "1e+08 to 1e+09",
        "set a limit (max_N)" if n > 1e9 else "set a limit (min_N)",
    ):
        assert part in str(caught.value)


def test_a_metric_that_cannot_be_is_refused_by_the_limits_of_its_link():
    losses = of(link=Identity())
    losses.check_possible("here", np.array([0.1, 2.0]))
    with pytest.raises(
        FitError, match=r"here: the fit of the law 'log1p' predicts -0\.2 there, and this metric is never 0"
    ):
        losses.check_possible("here", np.array([0.1, -0.2]))
    with pytest.raises(FitError, match="predicts 0 there"):
        losses.check_possible("here", np.array([0.0]))
    of(data=ROWS.assign(value=[-3.0, -2.5]), link=Identity()).check_possible("here", np.array([-0.2]))
    of(data=None, link=Identity()).check_possible("here", np.array([-0.2]))


# Stacks and members ---------------------------------------------------------------------------------------------------


def with_replicates(name: str, count: int, **options) -> Surface:
    found = of(name, **options)
    shift = 1 + 0.01 * np.arange(1, count + 1)
    return replace(found, replicates=Theta({key: value * shift for key, value in found.theta.items()}))


def test_the_point_stands_above_its_replicates():
    found = with_replicates("log1p", 3)
    stacked = found.stacked()
    assert {value.shape for value in stacked.values()} == {(4, 1)}
    np.testing.assert_allclose(stacked["E"].ravel(), found.theta["E"] * np.array([1, 1.01, 1.02, 1.03]))
    assert found.n_replicates == 3
    assert of().n_replicates == 0
    assert of().stacked()["E"].shape == (1, 1)


def test_a_constant_parameter_is_repeated_for_every_replicate():
    found = with_replicates("log1p", 3)
    rows = Theta({**found.replicates, "alpha": 0.5})
    stacked = replace(found, replicates=rows).stacked()
    np.testing.assert_array_equal(stacked["alpha"].ravel(), [found.theta["alpha"], 0.5, 0.5, 0.5])


def average(*members: Surface) -> Surface:
    law = Average(members)
    return Surface(law=law, theta=Theta({"weight": 1.0}), data=ROWS, members=members, name=law.name)


def loss_of(part: Surface) -> dict[str, np.ndarray]:
    return {"loss": np.asarray(part.law.loss(np.array([1e9]), 1e10, 1e9, part.stacked()))}


def test_replicates_of_several_laws_are_drawn_by_their_weights():
    members = (
        replace(with_replicates("log1p", 100), name="a", weight=0.7),
        replace(with_replicates("hill", 100), name="b", weight=0.299),
        replace(with_replicates("power", 100), name="c", weight=0.001),
    )
    both = average(*members)
    pooled = both.pooled(loss_of)
    stacked = pooled.stacked["loss"]
    assert len(stacked) == 1 + 70 + 30 + 1  # every law that counts has at least one
    rows = [loss_of(member)["loss"] for member in members]
    np.testing.assert_allclose(stacked[1:71], rows[0][1:71])
    np.testing.assert_allclose(stacked[71:101], rows[1][1:31])
    np.testing.assert_allclose(stacked[101:], rows[2][1:2])
    point = sum(member.weight * row[0] for member, row in zip(members, rows, strict=True))
    np.testing.assert_allclose(stacked[0], point)
    assert list(pooled.by_law("loss", ())) == ["a", "b", "c"]
    assert float(pooled.by_law("loss", ())["b"]) == pytest.approx(float(rows[1][0, 0]))
    assert both.n_replicates == 300


def test_one_law_alone_has_no_laws_beside_it():
    pooled = with_replicates("log1p", 5).pooled(loss_of)
    assert pooled.stacked["loss"].shape == (6, 1)
    assert pooled.laws == {}


def test_points_alone_have_no_replicates_to_pool():
    both = average(replace(of("log1p"), name="a", weight=0.5), replace(of("hill"), name="b", weight=0.5))
    assert both.pooled(loss_of).stacked["loss"].shape == (1, 1)


@pytest.mark.parametrize("rising", [False, True])
def test_an_average_has_the_slopes_of_what_it_averages(rising: bool):
    link = Bounded(direction="up") if rising else None
    members = [replace(of(name, link=link), name=name, weight=w) for name, w in (("log1p", 0.6), ("log_ratio", 0.4))]
    law = Average(members)
    assert law.sign == (-1.0 if rising else 1.0)
    assert law.gain_depends_on_N  # one of them does
    assert not Average(members[:1]).gain_depends_on_N
    assert law.name == "average of log1p, log_ratio"
    at = np.array([3e8, 2e9]), np.array([1e10, 5e10]), np.array([1e9, 4e9])
    value = sum(m.weight * m.metric(m.law.loss(*at, m.theta)) for m in members)
    np.testing.assert_allclose(law.loss(*at), law.sign * value, rtol=1e-14)
    for axis, slope in enumerate(law.gradient(*at)):
        step = [1e-5 * count if i == axis else 0.0 for i, count in enumerate(at)]
        up = law.loss(*(count + h for count, h in zip(at, step, strict=True)))
        down = law.loss(*(count - h for count, h in zip(at, step, strict=True)))
        np.testing.assert_allclose(slope, (up - down) / (2 * step[axis]), rtol=2e-5)


def test_an_average_of_scores_decides_as_its_only_member_does():
    """Twice the same law is that law: nothing may depend on how many members there are or on the sign."""
    for link in (None, Bounded(direction="up")):
        one = of("hill", data=None, link=link)
        twice = average(replace(one, name="a", weight=0.5), replace(one, name="b", weight=0.5))
        twice = replace(twice, data=None)
        assert twice.members[0].rises == (link is not None)
        alone = rs.decisions.exchange_rate(one, N=1e9, D=1e10, R=1e9)
        assert rs.decisions.exchange_rate(twice, N=1e9, D=1e10, R=1e9) == pytest.approx(alone.value, rel=1e-12)


# What can be asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        (3, "got int: fit first"),
        ("log1p", "got str: fit first"),
        (("log1p", {"E": 1}, 3), "got 3 things"),
        (("log1p", 3), "are a mapping, not 3"),
        (("log1p", {**known("log1p")[1], "E": np.nan}), "parameters must be finite numbers; E are not"),
        (("log1p", {**known("log1p")[1], "E": [1.0, 2.0]}), "parameters must be finite numbers; E are not"),
        (("reading", {}), "missing|parameters"),
    ],
)
def test_what_is_no_subject_is_named(subject, said: str):
    with pytest.raises(ConfigError, match=said):
        surface(subject)


def test_a_surface_is_taken_as_it_is():
    found = of()
    assert surface(found) is found


def test_a_pair_of_a_law_that_reads_needs_its_hit_rate():
    table = rs.datasets.simulate_reading(rng=0)
    theta = dict(table.attrs["params"])
    with pytest.raises(ConfigError, match="reads the hit rate of the store: give hit_rate="):
        surface(("reading", theta))
    half = surface(("reading", theta), hit_rate=0.5)
    full = surface(("reading", theta), hit_rate=1.0)
    n, d, r = np.array([2e7]), np.array([1e9]), np.array([1e7])
    assert full.law.loss(n, d, r, full.theta) < half.law.loss(n, d, r, half.theta)
    rates = surface(("reading", theta), hit_rate={1e6: 0.5, 1e8: 0.5})  # as of a fit: a curve, not two numbers
    np.testing.assert_allclose(rates.law.loss(n, d, r, rates.theta), half.law.loss(n, d, r, half.theta))


def test_replicates_that_are_not_finite_are_left_out(fitted):
    boot = fitted[1]
    theta = {name: np.array(values, dtype=float) for name, values in boot.theta.items()}
    theta["E"][[3, 7]] = np.nan
    spoilt = replace(boot, theta=Theta(theta))
    found = surface(spoilt)
    assert found.n_replicates == boot.n_resamples - 2
    kept = np.delete(np.asarray(boot.theta["B"]), [3, 7])
    np.testing.assert_array_equal(found.stacked()["B"].ravel()[1:], kept)
    theta["E"] = np.full(boot.n_resamples, np.inf)
    with pytest.raises(FitError, match="no replicate of the bootstrap has finite parameters"):
        surface(replace(boot, theta=Theta(theta)))


def test_intervals_have_the_level_of_the_bootstrap(fitted):
    narrow = replace(fitted[1], confidence_level=0.5)
    assert surface(narrow).confidence_level == 0.5
    wide, slim = (rs.exchange_rate(boot, N=1e9, D=1e10, R=1e9) for boot in (fitted[1], narrow))
    assert wide.low < slim.low < slim.high < wide.high


def test_far_from_the_data_every_decision_warns_of_its_own_name(fitted):
    fit = fitted[0]
    for decide in (
        lambda: rs.exchange_rate(fit, N=1e14, D=1e10, R=1e9),
        lambda: rs.critical_store(fit, N=1e14, D=1e10),
        lambda: rs.knee_point(fit, N=1e14),
    ):
        with pytest.warns(ExtrapolationWarning, match=r"N = 1e\+14"):
            decide()
