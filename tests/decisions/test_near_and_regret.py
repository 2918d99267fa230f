"""What else is nearly as good, what a split costs under other laws, how it is said, and where curves cross."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ragscale as rs
from ragscale.decisions._allocation_words import sentences
from ragscale.decisions._compare_fits import _crossing
from ragscale.decisions._knee import _first_crossing
from ragscale.decisions._near_optimal import default_within, near_optimal
from ragscale.decisions._regret import law_table
from ragscale.decisions._surface import Average, Pooled, Surface, surface
from ragscale.errors import ConfigError
from ragscale.fitting import Bounded, Parameter, ScalingLaw
from ragscale.fitting.laws._law import Theta

from .conftest import known

BUDGET = 3e10
FLAT = {"N": 1e9, "budget": BUDGET, "p_D": 1.0, "p_R": 1.0, "min_D": 1.0}


def flat(**changes: float) -> dict[str, np.ndarray]:
    return {name: np.full(1, value) for name, value in {**FLAT, **changes}.items()}


class Bowl(ScalingLaw):
    """A parabola in the store's share of three times ten to the ten tokens, lowest at .3."""

    name = "bowl of near optimal"
    parameters = (Parameter("E", 0, 10),)

    def _loss(self, n, d, r, theta):
        return theta.E + (r / BUDGET - 0.3) ** 2 + 0 * n * d


def ranges(within: float, **changes: float) -> list[dict[str, Any]]:
    return near_optimal(surface((Bowl(), {"E": 2.0})), flat(**changes), np.array([0.3 * BUDGET]), within).to_dict(
        "records"
    )


@settings(max_examples=20)
@given(st.floats(1e-4, 0.06))
def test_the_range_ends_where_the_loss_is_as_much_higher(within: float):
    (row,) = ranges(within)
    half = np.sqrt(within)
    assert row["share_low"] == pytest.approx(0.3 - half, abs=2e-3)
    assert row["share_high"] == pytest.approx(0.3 + half, abs=2e-3)
    assert row["R_low"] == pytest.approx(BUDGET * row["share_low"])
    assert row["D_high"] == pytest.approx(BUDGET * (1 - row["share_low"]))
    assert row["D_low"] == pytest.approx(BUDGET * (1 - row["share_high"]))
    assert row["within"] == within


def test_a_range_that_holds_no_store_begins_at_none():
    (row,) = ranges(0.1)
    assert (row["share_low"], row["R_low"], row["D_high"]) == (0.0, 0.0, BUDGET)
    assert row["share_high"] == pytest.approx(0.3 + np.sqrt(0.1), abs=2e-3)


def test_a_dear_store_is_smaller_for_its_share_and_limits_cut_the_range():
    (row,) = ranges(0.01, p_R=2.0, p_D=1.0)
    assert row["R_high"] == pytest.approx(0.5 * BUDGET * row["share_high"])
    (cut,) = ranges(0.01, max_R=0.35 * BUDGET, max_D=0.75 * BUDGET)
    assert cut["R_high"] == pytest.approx(0.35 * BUDGET, rel=2e-2)
    assert cut["D_high"] == pytest.approx(0.75 * BUDGET)
    (least,) = ranges(0.01, min_D=0.66 * BUDGET)
    assert least["D_low"] >= 0.66 * BUDGET * (1 - 1e-9)


def test_what_counts_as_equal_is_half_a_residual_or_a_part_of_the_value(fitted):
    best = np.array([2.0, 4.0])
    np.testing.assert_allclose(default_within(surface((Bowl(), {"E": 2.0})), best), 0.002 * best)
    fit = fitted[0]
    median = float(np.median(np.abs(fit.residuals)))
    np.testing.assert_allclose(default_within(surface(fit), best), 0.5 * median * best)
    linear = replace(fit, space="linear")
    median = float(np.median(np.abs(linear.residuals)))
    np.testing.assert_allclose(default_within(surface(linear), best), 0.5 * median)


# Regret ---------------------------------------------------------------------------------------------------------------


def members(link: Any = None) -> Surface:
    made = []
    for name, weight in (("log1p", 0.6), ("hill", 0.4)):
        law, theta = known(name)
        made.append(Surface(law=law, theta=law.theta(theta), link=link, name=name, weight=weight))
    law = Average(made)
    return Surface(law=law, theta=Theta({"weight": 1.0}), members=tuple(made), name=law.name)


@pytest.mark.parametrize("link", [None, Bounded(direction="up")], ids=["loss", "score"])
def test_regret_is_the_metric_lost_under_each_law_by_hand(link: Any):
    found = members(link)
    budgets = np.array([1e10, 1e11])
    best = rs.optimal_allocation(found, N=1e9, budget=budgets)
    rows = best.laws.set_index(["law", "budget"])
    regrets = np.zeros((2, 2))
    gains = np.zeros((2, 2))
    for i, member in enumerate(found.members):
        pair = (member.law, dict(member.theta))
        sign = 1.0 if link is None else -1.0
        for j, budget in enumerate(budgets):
            own = rs.optimal_allocation(pair, N=1e9, budget=float(budget))
            lowest, here, none = (
                sign * float(member.metric(member.law.loss(1e9, d, r, member.theta)))
                for d, r in ((own.D, own.R), (best.D[j], best.R[j]), (budget, 0.0))
            )
            regrets[i, j], gains[i, j] = here - lowest, none - lowest
            assert rows.loc[(member.name, budget), "regret"] == pytest.approx(here - lowest, abs=1e-12)
            assert rows.loc[(member.name, budget), "share"] == pytest.approx(own.share, abs=1e-9)
            assert rows.loc[(member.name, budget), "loss"] == pytest.approx(sign * lowest, rel=1e-12)
            assert rows.loc[(member.name, budget), "weight"] == pytest.approx(member.weight)
    assert (regrets >= -1e-12).all()
    expected = np.array([0.6, 0.4]) @ regrets
    worst = regrets.max(axis=0)
    at = int(np.argmax(worst))
    gained = (np.array([0.6, 0.4]) @ gains)[at]
    assert best.regret is not None
    assert best.regret.expected == pytest.approx(expected.max(), abs=1e-12)
    assert best.regret.worst == pytest.approx(worst.max(), abs=1e-12)
    assert best.regret.expected_percent == pytest.approx(100 * expected[at] / gained, abs=1e-6)
    assert best.regret.worst_percent == pytest.approx(100 * worst[at] / gained, abs=1e-6)


def test_where_no_store_gains_a_regret_has_no_percentage():
    law, theta = known("log1p", C=0.0)
    made = [Surface(law=law, theta=law.theta(theta), name=name, weight=0.5) for name in ("a", "b")]
    average = Average(made)
    found = Surface(law=average, theta=Theta({"weight": 1.0}), members=tuple(made), name=average.name)
    best = rs.optimal_allocation(found, N=1e9, budget=1e10)
    assert best.regret is not None
    assert best.regret.worst == 0.0
    assert np.isnan(best.regret.worst_percent)


def test_one_law_has_no_table_of_regrets():
    table, regret = law_table(surface(known("hill")), Pooled({}, {}), flat(), np.ones(1), np.ones(1))
    assert table.empty
    assert regret is None


# Words ----------------------------------------------------------------------------------------------------------------


def allocation(**options: Any) -> rs.decisions.Allocation:
    arguments = {"N": 1e9, "budget": 5e10, **options}
    return rs.optimal_allocation(arguments.pop("subject", known("log1p")), **arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "of the budget); lowers the loss by "),
        ({"max_R": 1e9}, "; the store is as large as it may be"),
        ({"max_D": 1e10}, "; pretraining data is the limit"),
        ({"min_D": 4.9e10}, "; all that may goes to the store"),
        ({"budget": 2e9}, "a store does not pay here; spend everything on pretraining (its first token replaces "),
        ({"subject": known("log1p", C=0.0)}, "retrieval does not help here; spend everything on pretraining"),
        ({"subject": known("chinchilla")}, "retrieval does not help here; spend everything on pretraining"),
    ],
)
def test_the_sentence_names_the_split_and_its_limit(options: dict[str, Any], words: str):
    (line,) = sentences(allocation(**options))
    assert line.startswith(f"N = 1e+09, {options.get('budget', 5e10):.3g} tokens: ")
    assert words in line


def test_the_share_and_its_replicates_are_said():
    best = allocation()
    text = f"pretrain on {best.D:.3g} tokens, retrieve from {best.R:.3g} ({100 * best.share:.1f}% of the budget)"
    assert text in sentences(best)[0]
    shares = {"interior": 0.7, "R=0": 0.2, "D=min": 0.1}
    said = sentences(replace(best, boundary_share=shares))[0]
    assert said.endswith("[replicates: 20% with no retrieval at all, 10% at D=min]")
    nothing = allocation(budget=2e9)
    said = sentences(replace(nothing, boundary_share={"R=0": 0.9, "interior": 0.1}))[0]
    assert said.endswith("[replicates: 10% with some retrieval]")
    assert "[replicates" not in sentences(replace(nothing, boundary_share={"R=0": 1.0}))[0]


def test_in_flops_the_share_is_of_the_tokens():
    best = rs.compute_optimal(known("log1p"), flops=1e22, R=[0.0, 1e10])
    none, some = sentences(best)
    assert none == f"N = {best.N[0]:.3g}, 1e+22 FLOPs: pretrain on {best.D[0]:.3g} tokens, no store"
    assert f"({100 * best.share[1]:.1f}% of the tokens)" in some


def test_twenty_budgets_are_said_and_all_are_in_the_frame():
    best = allocation(budget=np.geomspace(1e10, 1e12, 25))
    assert len(best.summary().splitlines()) == 20
    assert len(best.to_frame()) == 25


@pytest.mark.parametrize("within", [0, -1.0, "small"])
def test_a_tolerance_is_a_positive_number(within: Any):
    with pytest.raises(ConfigError, match=r"within = .* must be a positive number"):
        allocation(within=within)


def test_an_interval_is_there_for_what_has_replicates(fitted):
    drawn = rs.optimal_allocation(fitted[1], N=1e9, budget=5e10)
    low, high = drawn.interval("R")
    ordered = np.sort(drawn.replicates["R"])
    assert low in ordered[4:6]  # 2.5 % of 200 lie below or at the end
    assert high in ordered[193:196]
    with pytest.raises(ConfigError, match="no interval of 'gain'; there are: N, D, R, share, loss"):
        drawn.interval("gain")


# Crossings ------------------------------------------------------------------------------------------------------------


def crossing(curve: list[float], *, rises: bool = False, replicates: Any = ()) -> dict[str, Any]:
    points = pd.DataFrame({"compute": 10.0 ** np.arange(18, 18 + len(curve))})
    rows = np.array([curve, *replicates], dtype=float)
    return _crossing(points, rows, rises, {"first": "a", "second": "b"}, 0.9)


def test_a_crossing_lies_between_its_neighbours_by_a_straight_line_in_log_compute():
    found = crossing([1.0, 3.0, -1.0])
    assert np.log10(found["compute"]) == pytest.approx(19.75)
    assert (found["better_below"], found["better_above"]) == ("b", "a")
    up = crossing([1.0, 3.0, -1.0], rises=True)
    assert (up["better_below"], up["better_above"]) == ("a", "b")


def test_the_last_of_several_crossings_counts_and_none_is_none():
    assert np.log10(crossing([1.0, -1.0, 1.0])["compute"]) == pytest.approx(19.5)
    never = crossing([1.0, 2.0, 3.0])
    assert np.isnan(never["compute"])
    assert (never["better_below"], never["better_above"]) == ("b", "b")


def test_replicates_that_cross_give_the_interval_and_their_share():
    rows = [[1.0, -1.0, -1.0], [1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [3.0, -1.0, -1.0]]
    found = crossing([1.0, -1.0, -1.0], replicates=rows)
    assert found["share"] == 0.75
    low, high = np.quantile(10 ** np.array([18.5, 19.5, 18.75]), [0.05, 0.95])
    assert (found["compute_low"], found["compute_high"]) == pytest.approx((low, high))
    one = crossing([1.0, -1.0, -1.0], replicates=rows[2:])
    assert np.isnan(one["compute_low"])  # one crossing has no spread


def test_points_without_compute_have_no_crossing():
    found = _crossing(pd.DataFrame({"N": [1e8]}), np.ones((3, 1)), False, {"first": "a", "second": "b"}, 0.95)
    assert np.isnan(found["compute"])


@pytest.mark.parametrize(
    ("function", "at", "status"),
    [
        (lambda x: x - 2.0, 2.0, "found"),
        (lambda x: np.sin(x + 4.0), 2 * np.pi - 4.0, "found"),  # the first of several
        (lambda x: np.sin(x + 1.0), 2 * np.pi - 1.0, "found"),  # positive at first: what counts is the turn after it
        (lambda x: -1.0 + 0 * x, 10.0, "above"),
        (lambda x: 1.0 + 0 * x, 0.0, "below"),
    ],
)
def test_the_first_turn_from_negative_to_positive(function: Any, at: float, status: str):
    d, found = _first_crossing(function, np.array([0.0]), np.array([10.0]))
    assert found[0] == status
    assert float(np.log(d[0])) == pytest.approx(at, abs=1e-9)
