"""h(R): a curve through what the retriever found, drawn anew with its questions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragscale.errors import ConfigError, ResultsError
from ragscale.evaluation import hit_rate_curve as again
from ragscale.fitting.laws._columns import FunctionsOfR
from ragscale.results import HitRateCurve, hit_rate_curve
from ragscale.results._hit_rate_shapes import isotonic

STEPS = {1e6: 0.04, 4e6: 0.07, 8e6: 0.10, 1.2e7: 0.14, 1.6e7: 0.14, 2e7: 0.15, 2.4e7: 0.24, 3.2e7: 0.40, 4.8e7: 0.49}


def nested_hits(n=400, seed=0):
    """Return samples in which a question that a store answers is answered by every larger one."""
    rng = np.random.default_rng(seed)
    first = np.exp(rng.normal(np.log(2e7), 1.5, n))
    rows = [(f"q{i}", r, int(first[i] <= r), "retrieved") for i in range(n) for r in STEPS]
    return pd.DataFrame(rows, columns=["id", "R", "hit", "condition"])


def test_the_curve_passes_through_rates_that_rise():
    curve = hit_rate_curve(STEPS)
    np.testing.assert_allclose(curve(list(STEPS)), list(STEPS.values()), rtol=1e-12)
    assert curve.kind == "monotone"


def test_it_is_proportional_below_and_flat_beyond():
    curve = hit_rate_curve(STEPS)
    np.testing.assert_allclose(curve([0.0, 1e5, 5e5]), [0.0, 0.004, 0.02], rtol=1e-12)
    np.testing.assert_allclose(curve([1e8, 1e12]), 0.49)
    assert "flat" in curve.note
    assert "20 or more" in curve.note
    assert curve.derivative(1e9) == 0.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(0, 5))
def test_it_never_falls_and_stays_a_share(rates, seed):
    curve = hit_rate_curve(dict(zip(list(STEPS), rates, strict=False)), n_questions=50)
    r = np.sort(np.concatenate([[0.0], np.geomspace(1e4, 1e9, 200)]))
    for one in (curve, curve.draw(seed)):
        h = one(r)
        assert np.all(np.diff(h) >= -1e-12)
        assert h.min() >= 0
        assert h.max() <= 1 + 1e-12


def test_isotonic_rates_are_the_closest_that_do_not_fall():
    given_rates = np.array([[0.1, 0.5, 0.3, 0.2, 0.9]])
    weight = np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    found = isotonic(given_rates, weight)[0]
    np.testing.assert_allclose(found, [0.1, 0.325, 0.325, 0.325, 0.9])
    rng = np.random.default_rng(0)
    best = (weight * (found - given_rates[0]) ** 2).sum()
    for _ in range(200):
        other = np.sort(np.clip(found + rng.normal(0, 0.05, 5), 0, 1))
        assert (weight * (other - given_rates[0]) ** 2).sum() >= best - 1e-12


@pytest.mark.parametrize("kind", ["monotone", "hill"])
def test_slopes_agree_with_differences(kind):
    curve = hit_rate_curve(STEPS, n_questions=600, kind=kind)
    r = np.array([3e5, 1.7e6, 1.1e7, 2.2e7, 4e7])
    numeric = (curve(r * (1 + 1e-6)) - curve(r * (1 - 1e-6))) / (2e-6 * r)
    np.testing.assert_allclose(curve.derivative(r), numeric, rtol=1e-4)


def test_a_hill_curve_is_taken_only_where_its_deviance_passes():
    r = np.geomspace(1e5, 1e9, 20)
    smooth = dict(zip(r, 0.6 * r**0.8 / (r**0.8 + 2e7**0.8), strict=True))
    curve = hit_rate_curve(smooth, n_questions=500)
    assert curve.kind == "hill"
    assert curve.deviance < 1e-3
    np.testing.assert_allclose(curve(r), list(smooth.values()), rtol=1e-3)
    stepped = hit_rate_curve(STEPS, n_questions=600)
    assert stepped.kind == "monotone"
    assert stepped.deviance > 40
    assert stepped.degrees == 6
    assert hit_rate_curve(smooth, n_questions=500, kind="monotone").kind == "monotone"


def test_draws_spread_as_the_questions_do():
    samples = nested_hits()
    table = samples.groupby("R", as_index=False)["hit"].mean().rename(columns={"hit": "hit_rate"})
    resampled = hit_rate_curve(table, samples=samples, kind="monotone").draws(2000, 0)
    stepped = hit_rate_curve(table, n_questions=400, kind="monotone").draws(2000, 0)
    for r, rate in zip(table["R"], table["hit_rate"], strict=True):
        expected = np.sqrt(rate * (1 - rate) / 400)
        for draws in (resampled, stepped):
            assert draws(np.array([r])).std() == pytest.approx(expected, rel=0.08, abs=5e-4)
    # one question counts in every store, so neighbours move together
    together = np.corrcoef(resampled(np.array([2e7, 2.4e7])).T)[0, 1]
    assert together > 0.8
    assert np.corrcoef(stepped(np.array([2e7, 2.4e7])).T)[0, 1] == pytest.approx(together, abs=0.05)


def test_the_same_seed_draws_the_same_curve():
    curve = hit_rate_curve(STEPS, n_questions=100)
    assert curve.draw(3)(2e7) == curve.draw(3)(2e7) != curve.draw(4)(2e7)
    assert hit_rate_curve(STEPS).draw(0)(2e7) == hit_rate_curve(STEPS)(2e7)


@pytest.mark.parametrize("kind", ["monotone", "hill"])
def test_draws_are_indexed_as_parameters_are(kind):
    curve = hit_rate_curve(STEPS, n_questions=200, kind=kind)
    draws = curve.draws(5, 0).with_first(curve)
    r = np.array([3e6, 2e7])
    every = draws(r)
    assert every.shape == (6, 2)
    np.testing.assert_allclose(every[0], curve(r))
    np.testing.assert_allclose(draws[2:4](r), every[2:4])
    np.testing.assert_allclose(draws[np.array([1, 5]), 0](r), [every[1, 0], every[5, 1]])
    assert draws.derivative(r).shape == (6, 2)


def test_own_functions_of_the_store_can_differ_between_replicates():
    several = FunctionsOfR([lambda r: 0.1 + 0 * r, lambda r: r / 1e8])
    np.testing.assert_allclose(several(np.array([1e7, 5e7])), [[0.1, 0.1], [0.1, 0.5]])
    np.testing.assert_allclose(several[1:](np.array([1e7])), [[0.1]])
    np.testing.assert_allclose(several.derivative(np.array([1e7])), [[0.0], [1e-8]], atol=1e-15)


def test_rates_are_taken_from_any_table_that_has_them():
    rows = [("closed-book", 0, np.nan, 300), ("oracle", 0, 1.0, 300)]
    rows += [("retrieved", r, h, 300) for r, h in STEPS.items()] + [("random", r, 0.0, 300) for r in STEPS]
    table = pd.DataFrame(rows, columns=["condition", "R", "hit_rate", "n_examples"])
    both = pd.concat([table.assign(task="a"), table.assign(task="b", hit_rate=table["hit_rate"] / 2)])
    np.testing.assert_allclose(hit_rate_curve(table, kind="monotone")(2e7), 0.15)
    np.testing.assert_allclose(hit_rate_curve(both, task="b", kind="monotone")(2e7), 0.075)
    assert again is hit_rate_curve
    with pytest.raises(ResultsError, match=r"'task' holds 2 values \(a, b\)"):
        hit_rate_curve(both)
    with pytest.raises(ResultsError, match="task = 'c'"):
        hit_rate_curve(both, task="c")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"R": [1e6, 2e6], "hit_rate": [0.1, 1.2]}, "1 of 2 retrieved rows have no hit_rate"),
        ({"R": [1e6], "rate": [0.1]}, "rates by store are numbers"),
        (pd.DataFrame({"R": [1e6], "rate": [0.1]}), "needs the columns R and hit_rate"),
        (pd.DataFrame({"R": [0.0], "hit_rate": [0.1]}), "no retrieved rows"),
        (3.0, "expected a table"),
    ],
)
def test_what_is_no_curve_is_refused(source, words):
    with pytest.raises(ResultsError, match=words):
        hit_rate_curve(source)
    with pytest.raises(ConfigError, match="kind = 'spline'"):
        hit_rate_curve(STEPS, kind="spline")


def test_a_curve_is_kept_in_a_file(tmp_path):
    curve = hit_rate_curve(nested_hits().groupby("R", as_index=False)["hit"].mean().rename(columns={"hit": "hit_rate"}),
                           samples=nested_hits())  # fmt: skip
    curve.to_json(tmp_path / "h.json")
    kept = HitRateCurve.from_json(tmp_path / "h.json")
    assert kept(2.3e7) == curve(2.3e7)
    assert kept.draw(1)(2.3e7) == curve.draw(1)(2.3e7)
    assert list(curve.to_frame()) == ["R", "hit_rate", "observed", "n_questions"]
    assert "hit rate" in repr(curve)
