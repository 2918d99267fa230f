"""Which of seven answers is given, at each edge between two of them, and with which numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ragscale.fitting import Identity, Log1p, Parameter
from ragscale.fitting._evidence import Evidence, Paired
from ragscale.fitting._verdict import Verdict, verdict
from ragscale.fitting.laws._reading import Reading

NEEDED = 0.1


def paired(gain: float, low: float, high: float, n_models: int = 5, what: str = "gain by the largest store") -> Paired:
    return Paired(what=what, gain=gain, low=low, high=high, n_models=n_models)


def stores(*rows: tuple[float, float, float, float, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["R", "gain", "low", "high", "n_models"])


def said(
    largest: Paired | None = None, *, smallest: Paired | None = None, reads: Paired | None = None, by: Any = None
) -> Verdict:
    seen = Evidence(
        stores=stores() if by is None else by, smallest=smallest, largest=largest, reads=reads, needed=NEEDED
    )
    return verdict(SimpleNamespace(evidence=seen, law=Log1p()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gain", "low", "high", "kind"),
    [
        (0.3, 0.1, 0.5, "helps here"),
        (-0.3, -0.5, -0.1, "hurts"),
        (0.01, -0.05, 0.07, "no effect"),
        (0.0, -0.1, 0.1, "no effect"),  # an effect of as much as readers need is excluded
        (0.0, -0.101, 0.1, "cannot be told"),
        (0.1, -0.1, 0.3, "cannot be told"),
    ],
)
def test_the_largest_stores_decide_by_their_interval(gain: float, low: float, high: float, kind: str):
    found = said(paired(gain, low, high))
    assert found.kind == kind
    assert (found.gain, found.low, found.high) == (gain, low, high)
    assert np.isnan(found.threshold)
    assert found.helps == (kind == "helps here")


def test_sentences_hold_the_numbers_the_right_way_round():
    assert said(paired(0.3, 0.1, 0.5)).text == (
        "Retrieval helps here: the largest stores lower the loss by 0.3 [0.1, 0.5] (5 trained models)."
    )
    assert said(paired(-0.3, -0.5, -0.1)).text == (
        "Retrieval hurts: the largest stores raise the loss by 0.3 [0.1, 0.5] (5 trained models)."
    )
    assert said(paired(0.01, -0.05, 0.07)).text.startswith("Retrieval has no effect larger than 0.07 in loss here")
    open_ = said(paired(0.1, -0.1, 0.3)).text
    assert open_.startswith("It cannot be told whether retrieval helps: gain by the largest store: +0.1 [-0.1, +0.3]")
    assert open_.endswith("Add trained models, questions or stores.")
    assert said(None).kind == "not measured"


def test_small_stores_that_hurt_are_said_beside_large_ones_that_help():
    smallest = paired(-0.2, -0.3, -0.1, what="gain by the smallest store")
    assert said(paired(0.3, 0.1, 0.5), smallest=smallest).text.endswith(
        "(5 trained models); the smallest raise it by 0.2 [0.1, 0.3]."
    )
    harmless = paired(0.05, -0.1, 0.2, what="gain by the smallest store")
    assert "the smallest" not in said(paired(0.3, 0.1, 0.5), smallest=harmless).text


def test_where_the_largest_stores_are_open_a_sure_one_between_decides():
    middle = stores((1e6, 0.0, -0.1, 0.1, 5), (1e7, 0.4, 0.3, 0.5, 5), (1e8, 0.2, 0.1, 0.3, 5))
    found = said(paired(0.2, -0.2, 0.6), by=middle)
    assert found.kind == "helps here"
    assert "stores of 1e+07 tokens lower the loss by 0.4 [0.3, 0.5] (5 trained models)" in found.text
    assert (found.gain, found.low, found.high) == (0.4, 0.3, 0.5)


# Readers --------------------------------------------------------------------------------------------------------------


def test_where_nobody_reads_stores_have_no_say():
    found = said(paired(0.3, 0.1, 0.5), reads=paired(0.01, -0.02, 0.04, what="gold minus random passages"))
    assert found.kind == "nobody reads in this range"
    assert (
        "gold minus random passages are worth 0.01 [-0.02, 0.04] in loss, and readers gain more than 0.1" in found.text
    )


def test_no_effect_is_not_said_while_it_is_open_whether_anybody_reads():
    unsure = paired(0.3, -0.2, 0.8, what="gold minus random passages")
    found = said(paired(0.01, -0.05, 0.07), reads=unsure)
    assert found.kind == "cannot be told"
    assert found.text.startswith("It cannot be told whether anybody reads: gold minus random passages")
    sure = paired(0.5, 0.3, 0.7, what="gold minus random passages")
    assert said(paired(0.01, -0.05, 0.07), reads=sure).kind == "no effect"
    assert said(paired(0.3, 0.1, 0.5), reads=unsure).kind == "helps here"


# One model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gains", "kind"),
    [
        ([0.1, 0.2, 0.3, 0.4], "helps here"),
        ([-0.1, -0.2, -0.3, -0.4], "hurts"),
        ([0.1, 0.2, 0.3], "cannot be told"),  # three stores that agree happen by chance once in four
        ([0.1, 0.2, 0.3, -0.01], "cannot be told"),
        ([0.1, 0.2, 0.3, 0.0], "cannot be told"),
    ],
)
def test_one_model_says_something_only_where_four_stores_agree(gains: list[float], kind: str):
    by = stores(*[(1e6 * 10**i, gain, np.nan, np.nan, 1) for i, gain in enumerate(gains)])
    found = said(paired(gains[-1], np.nan, np.nan, n_models=1), by=by)
    assert found.kind == kind
    if kind != "cannot be told":
        verb = "lower" if kind == "helps here" else "raise"
        assert f"all 4 stores {verb} its loss, by 0.1 to 0.4. Whether others would gain as much" in found.text
        assert (found.low, found.high) == (min(gains), max(gains))
    else:
        assert found.text.startswith("It cannot be told from one trained model whether retrieval helps")


# Beyond a threshold ---------------------------------------------------------------------------------------------------

SIZES, TOKENS = (5e6, 2e7), (4e6, 8e6, 1.6e7, 3.2e7, 6.4e7)


def reader(
    start: float, *, c: float = 0.0, gain: float = 0.5, tokens: Any = TOKENS, noise: float = 0.001, k: float = 3.0
) -> Any:
    """A fit of models that gain beyond ``start`` tokens, and as much evidence as the verdict needs."""
    rng, rows = np.random.default_rng(0), []
    law = Reading(N_ref=1e7)
    theta = {p.name: 1.0 for p in law.parameters} | {"D0": start, "c": c, "k": k, "N_ref": 1e7}
    for n in SIZES:
        for d in tokens:
            skilled = d > start * (n / 1e7) ** c
            rows += [(n, d, 0.0, 3.0, "closed-book"), (n, d, 1e7, 3.0 - gain * skilled, "retrieved")]
    data = pd.DataFrame(rows, columns=["N", "D", "R", "value", "condition"])
    data["value"] += noise * rng.standard_normal(len(data))
    reads = paired(0.5, 0.3, 0.7, what="gold minus random passages")
    largest = paired(0.2, 0.05, 0.35)
    seen = Evidence(stores=stores(), smallest=None, largest=largest, reads=reads, needed=NEEDED)
    problem = SimpleNamespace(typical={"N": 1e7, "D": 1.6e7, "R": 1e7})
    fit = SimpleNamespace(evidence=seen, law=law, theta=SimpleNamespace(**theta), link=Identity(), problem=problem)
    fit.theta = _Values(theta)
    fit.__dict__["data"] = data
    return fit


class _Values(dict):
    """Parameters by name and by attribute, as a fit has them."""

    __getattr__ = dict.__getitem__


def test_a_threshold_inside_of_the_table_is_said_with_the_gain_beyond_it():
    found = verdict(reader(1.2e7))
    assert found.kind == "helps from D0 on"
    assert found.threshold == pytest.approx(1.2e7)
    assert "models of 1e+07 parameters begin to read at 1.2e+07 tokens; beyond, the largest stores" in found.text
    assert found.gain == pytest.approx(0.5, abs=0.01)  # of those that read, not of all


def test_a_threshold_that_moves_with_the_size_is_said_for_the_typical_one():
    assert verdict(reader(1.2e7, c=0.2)).threshold == pytest.approx(1.2e7)  # the typical size is the reference here


def test_where_all_but_the_least_trained_read_it_helps_here():
    found = verdict(reader(5e6))
    assert found.kind == "helps here"
    assert "all but the least trained models read" in found.text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"start": 4e7}, "D0 is 4e+07 to 4e+07 tokens, at the edge of what was trained"),
        ({"start": 1.2e7, "tokens": TOKENS[1:4]}, "the table has 3 values of D"),
        ({"start": 1.2e7, "c": 1.5}, "at the edge of what was trained"),
    ],
)
def test_where_reading_begins_cannot_be_told_at_the_edge(options: dict[str, Any], why: str):
    found = verdict(reader(**options))
    assert found.kind == "cannot be told"
    assert found.text.startswith("Retrieval helps the most trained models")
    assert why in found.text


def test_a_parameter_at_its_bound_does_not_say_where_reading_begins():
    steepness = next(p for p in Reading().parameters if p.name == "k")
    assert isinstance(steepness, Parameter)
    found = verdict(reader(1.2e7, k=steepness.upper))
    assert found.kind == "cannot be told"
    assert f"k = {steepness.upper:.3g} stands at its bound" in found.text


def test_readers_whom_stores_do_not_help_are_judged_by_their_own_stores():
    assert verdict(reader(1.2e7, gain=-0.5)).kind == "hurts"
    nothing = verdict(reader(1.2e7, gain=0.0, noise=0.01))
    assert nothing.kind == "no effect"


def test_a_single_reader_leaves_the_word_to_all_models():
    lonely = reader(6e7)  # beyond it only the longest training of either size
    lonely.__dict__["data"] = lonely.data[~((lonely.data["N"] == 5e6) & (lonely.data["D"] == 6.4e7))]
    found = verdict(lonely)
    assert found.text.startswith("Retrieval helps here: the largest stores lower the loss by 0.2 [0.05, 0.35]")
