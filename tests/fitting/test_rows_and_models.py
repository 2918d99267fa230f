"""Which rows a law reads, which of them are one experiment, and what they can say: rule by rule, on small tables."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragscale.errors import ConfigError, FitError, ResultsError, ResultsWarning
from ragscale.fitting import Chinchilla, Hill, Log1p
from ragscale.fitting._conditions import as_hit_rate, conditions, measured_curve, rows_for
from ragscale.fitting._determined import (
    UNKNOWN,
    drop_undetermined,
    fill_unknown,
    other_values,
    redundant,
    refuse_unseen,
    unseen,
)
from ragscale.fitting._experiments import EXPERIMENT, clusters, experiments, group_rows, merged, warn_of_checkpoints
from ragscale.fitting._unexplained import advice, unexplained
from ragscale.fitting.laws._reading import Reading

# Conditions -----------------------------------------------------------------------------------------------------------


def table(*conditions_: Any, R: Any = None, **columns: Any) -> pd.DataFrame:
    count = len(conditions_)
    stores = [0.0 if c in {"closed-book", None} else 1e9 for c in conditions_] if R is None else R
    frame = pd.DataFrame(
        {"N": np.geomspace(1e8, 1e9, count), "D": 1e10, "R": stores, "value": np.linspace(3, 2, count)}
    )
    return frame.assign(condition=list(conditions_), **columns)


@pytest.mark.parametrize(
    ("given_", "R", "kind"),
    [
        ("closed-book", 0, "closed-book"), ("Closed Book ", 0, "closed-book"), ("closed_book", 0, "closed-book"),
        ("none", 0, "closed-book"), ("No Retrieval", 0, "closed-book"), ("gold", 0, "oracle"),
        ("oracle", 1e9, "oracle"),
        ("random", 0, "random"), ("retrieved", 1e9, "retrieved"), ("BM25", 1e9, "bm25"), (None, 1e9, "retrieved"),
        (None, 0, "closed-book"), (np.nan, 1e9, "retrieved"),
    ],
)  # fmt: skip
def test_a_condition_is_what_the_table_calls_it_or_what_the_store_says(given_: Any, R: float, kind: str):
    rows = table("closed-book", "retrieved").assign(condition=[given_, "closed-book"], R=[R, 0.0])
    assert conditions(rows).tolist() == [kind, "closed-book"]


def test_without_a_column_the_store_says_it():
    rows = table("a", "b", R=[0.0, 1.0]).drop(columns="condition")
    assert conditions(rows).tolist() == ["closed-book", "retrieved"]


def test_a_smooth_law_reads_closed_book_and_retrieved_rows_and_says_what_it_left():
    rows = table("closed-book", "retrieved", "gold", "random", "random", R=[5.0, 1e9, 0.0, 0.0, 0.0])
    kept, where, left = rows_for(rows, Log1p())
    assert where.tolist() == [True, True, False, False, False]
    assert kept["R"].tolist() == [0.0, 1e9]  # nothing was shown to a closed book, whatever R says
    assert left == "1 oracle, 2 random rows left out: the law 'log1p' does not know what was shown"
    assert rows_for(rows.iloc[:2], Log1p())[2] == ""


def test_gold_rows_alone_stand_for_a_store_and_two_controls_are_refused():
    assert rows_for(table("closed-book", "gold"), Log1p())[1].all()
    with pytest.raises(ResultsError, match="knows no gold and no random passages"):
        rows_for(table("closed-book", "gold", "random"), Log1p())
    with pytest.raises(ResultsError, match=r"holds 2 kinds of retrieval \(bm25, dense\)"):
        rows_for(table("closed-book", "bm25", "dense"), Log1p())


def test_a_law_that_reads_gets_gold_rows_and_random_ones_only_where_nothing_was_retrieved():
    rows = table("closed-book", "retrieved", "gold", "random", R=[0, 1e9, 0, 0], hit_rate=[np.nan, 0.4, np.nan, 0.9])
    kept, where, left = rows_for(rows, Reading())
    assert where.tolist() == [True, True, True, False]
    assert kept["hit_rate"].tolist() == [0.0, 0.4, 1.0]  # gold holds the answer where nobody says how often
    assert left.startswith("1 random rows left out: the law 'reading' learns what a passage without the answer does")
    kept, where, _ = rows_for(rows[rows["condition"] != "retrieved"], Reading())
    assert where.all()
    assert kept["hit_rate"].tolist() == [0.0, 1.0, 0.0]  # a random passage holds none, whatever was measured
    assert kept["R"].tolist() == [0.0, 0.0, 1e10]  # and was shown: as large a store as the training


def test_rates_that_are_none_are_named_by_their_row():
    rows = table("closed-book", "retrieved", "retrieved", hit_rate=[0.0, 1.4, np.nan])
    with pytest.raises(ResultsError) as caught:
        rows_for(rows, Reading())
    assert "2 rows have none in [0, 1], the first at N = 3.16228e+08, D = 1e+10, R = 1e+09" in str(caught.value)
    with pytest.raises(FitError, match="hit_rate is 0 in every row"):
        rows_for(rows.assign(hit_rate=0.0), Reading())


def test_a_curve_of_hit_rates_is_that_of_retrieved_rows():
    rows = table("closed-book", "retrieved", "retrieved", "gold", R=[0, 1e8, 1e9, 0], hit_rate=[0.0, 0.3, 0.6, 1.0])
    curve = measured_curve(rows)
    assert curve is not None
    assert [float(curve(r)) for r in (1e8, 1e9)] == pytest.approx([0.3, 0.6], abs=0.05)
    assert measured_curve(rows.drop(columns="hit_rate")) is None
    assert measured_curve(rows.assign(hit_rate=[0, 1.2, 0.6, 1])) is None
    assert measured_curve(rows.query("R == 0")) is None


def test_a_hit_rate_is_taken_as_it_is_or_as_a_table():
    half = np.array([0.5])
    for value in (None, 0.5, half, len):
        assert as_hit_rate(value) is value
    curve = as_hit_rate(pd.DataFrame({"R": [1e8, 1e9], "hit_rate": [0.2, 0.4]}))
    assert float(curve(1e9)) == pytest.approx(0.4, abs=0.05)


# Experiments ----------------------------------------------------------------------------------------------------------


def runs(**columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"N": [1e8, 1e8, 1e8, 2e8], "D": [1e9, 1e9, 2e9, 1e9], "R": [0.0, 1e9, 0.0, 0.0], "value": 1.0}
    )
    return frame.assign(**columns)


@pytest.mark.parametrize(
    ("columns", "by", "groups"),
    [
        ({}, ("N", "D", "seed"), [0, 0, 1, 2]),
        ({"seed": [0, 1, 0, 0]}, ("N", "D", "seed"), [0, 1, 2, 3]),
        ({EXPERIMENT: [7, 7, 7, 3]}, ("N", "D", "seed"), [0, 0, 0, 1]),
        ({EXPERIMENT: [7, 7, 7, 3]}, ("N",), [0, 0, 0, 1]),
        ({EXPERIMENT: [7, 7, 7, 3]}, ("R",), [0, 1, 0, 0]),  # any other by is taken by its word
        ({"seed": [0, np.nan, 0, 0]}, ("seed",), [0, 1, 0, 0]),  # a gap is a value of its own
    ],
)
def test_what_is_one_experiment(columns, by, groups):
    assert clusters(runs(**columns), by).tolist() == groups


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ConfigError) as caught:
        clusters(runs(**{EXPERIMENT: 1}), ("N", "days"))
    assert "'days', no column of the results; their columns are N, D, R, value" in str(caught.value)
    assert EXPERIMENT not in str(caught.value)


def test_cells_that_hold_lists_are_compared_by_how_they_print():
    rows = pd.DataFrame({"x": [[1, 2], [1, 2], [3], "a"]})
    assert group_rows(rows, ["x"]).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("columns", "by", "found"),
    [
        ({}, (), None),
        ({"run": ["a", "a", "a", "b"]}, (), [0, 0, 0, 1]),
        ({"run": ["a", None, "a", "b"]}, (), None),  # a gap: N, D and seed say it
        ({"lr": [1, 1, 2, 1]}, ("lr",), [0, 0, 1, 2]),  # tells apart in addition to N and D
        ({"group": ["a", "a", "b", "c"]}, ("group",), [0, 0, 1, 2]),
        ({"job": ["a", "a", "a", "b"]}, ("job",), [0, 0, 0, 1]),  # one N for each job: it names runs
        ({"job": ["a", "a", "b", "c"], "run": ["r", "r", "r", "s"]}, ("job",), [0, 0, 1, 2]),
    ],
)
def test_runs_are_experiments_and_by_adds_to_them(columns, by, found):
    got = experiments(runs(**columns), by)
    assert (None if got is None else got.tolist()) == found


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25))
def test_experiments_that_share_an_average_become_one(pairs: list[tuple[int, int]]):
    experiment, group = (np.unique(column, return_inverse=True)[1] for column in zip(*pairs, strict=True))
    found = merged(experiment, group)
    # by hand: join sets until nothing changes
    sets = [{("e", e), ("g", g)} for e, g in zip(experiment, group, strict=True)]
    changed = True
    while changed:
        changed = False
        for i, one in enumerate(sets):
            for other in sets[i + 1 :]:
                if one & other and one != other:
                    one.update(other)
                    other.update(one)
                    changed = True
    for i, j in np.ndindex(len(found), len(found)):
        same = any({("g", i), ("g", j)} <= one for one in sets)
        assert (found[i] == found[j]) == same


def said_of(tokens: list[float]) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_checkpoints(pd.DataFrame({"N": 1e8, "D": tokens}))
    return "".join(str(one.message) for one in caught if issubclass(one.category, ResultsWarning))


@pytest.mark.parametrize(
    ("tokens", "suspect"),
    [
        ([1e9 * i for i in range(1, 8)], False),
        ([1e9 * i for i in range(1, 9)], True),  # eight at even steps
        (np.geomspace(1e9, 1e11, 8).tolist(), False),
        (np.geomspace(1e9, 1e11, 11).tolist(), False),
        (np.geomspace(1e9, 1e11, 12).tolist(), True),  # twelve of any kind
    ],
)
def test_many_tokens_of_one_size_are_suspected_to_be_checkpoints(tokens: list[float], suspect: bool):
    said = said_of(tokens)
    assert bool(said) == suspect
    if suspect:
        assert f"N = 1e+08 has {len(tokens)} values of D and there is no column 'run'" in said


# What the rows cannot show --------------------------------------------------------------------------------------------


def counts(n: Any, d: Any, r: Any = 0.0) -> pd.DataFrame:
    return pd.DataFrame({"N": n, "D": d, "R": r}, index=range(np.size(d)), dtype=float)


FOUR = [1e9, 4e9, 1.6e10, 6.4e10]


@pytest.mark.parametrize(
    ("rows", "variables", "names"),
    [
        (counts(1e8, FOUR), ("N", "D"), ["N"]),
        (counts([1e8, 1.04e8, 1e8, 1e8], FOUR), ("N", "D"), ["N"]),  # within 5 % is one size
        (counts([1e8, 1.06e8, 1e8, 1e8], FOUR), ("N", "D"), []),
        (counts(FOUR, 1e10 + 0 * np.array(FOUR)), ("N", "D"), ["D"]),
        (counts(FOUR, 20 * np.array(FOUR)), ("N", "D"), ["D"]),
        (counts(FOUR, 20 * np.array(FOUR)), ("N",), []),
        (counts(FOUR, np.array(FOUR) ** 1.1), ("N", "D"), ["D"]),
        (counts(FOUR, np.array(FOUR) * [20, 60, 20, 60]), ("N", "D"), []),
        (counts(FOUR, FOUR[::-1]), ("N", "D"), []),
        (counts(FOUR, FOUR[::-1], [0, 1e9, 0, 1e9]), ("N", "D", "R"), ["R"]),
        (counts(FOUR, FOUR[::-1], [0, 1e9, 2e9, 1e9]), ("N", "D", "R"), []),
        (counts(FOUR, FOUR[::-1], [0, 1e9, 0, 1e9]), ("N", "D"), []),
    ],
)
def test_variables_whose_effect_no_row_shows(rows: pd.DataFrame, variables: tuple[str, ...], names: list[str]):
    assert list(unseen(rows, variables)) == names


def test_the_reason_is_said_with_its_numbers():
    assert unseen(counts(1e8, FOUR), ("N", "D"))["N"].endswith("every row has N = 1e+08")
    assert unseen(counts(UNKNOWN, FOUR), ("N", "D"))["N"].endswith("the table does not give it")
    assert unseen(counts(FOUR, 20 * np.array(FOUR)), ("N", "D"))["D"].startswith("D = 20 N in every row")
    assert unseen(counts(FOUR, np.array(FOUR) ** 1.3), ("N", "D"))["D"].startswith("D rises with N in every row")
    stores = unseen(counts(FOUR, FOUR[::-1], [0, 1e9, 0, 1e9]), ("N", "D", "R"))["R"]
    assert stores.startswith("R is 0 or 1e+09 in every row")


def test_a_sweep_of_stores_needs_no_model():
    sweep = pd.DataFrame({"R": [0.0, 1e9], "value": [3.0, 2.5]})
    filled = fill_unknown(sweep)
    assert (filled["N"] == UNKNOWN).all()
    assert (filled["D"] == UNKNOWN).all()
    assert "D" not in fill_unknown(sweep.assign(R=1e9))
    assert fill_unknown(sweep.assign(N=1e8, D=1e9))["N"].tolist() == [1e8] * 2
    assert "N" not in fill_unknown(sweep, N="size")  # the user says that there is a column for it


def test_terms_that_nothing_determines_are_dropped_unless_the_user_holds_a_part():
    rows = counts(1e8, FOUR)
    law, dropped = drop_undetermined(Chinchilla(), rows)
    assert dropped == ("A", "alpha")
    assert law.fixed == {"A": 0.0, "alpha": 0.5}
    held, none = drop_undetermined(Chinchilla(fixed={"alpha": 0.3}), rows)
    assert none == ()
    assert held.fixed == {"alpha": 0.3}
    two = counts(FOUR, FOUR[::-1], [0, 1e9, 0, 1e9])
    hill, dropped = drop_undetermined(Hill(), two)
    assert dropped == ("C", "K")
    assert hill.fixed["K"] == pytest.approx(1e9)
    assert "C" not in hill.fixed


@pytest.mark.parametrize(
    ("jacobian", "open_"),
    [
        ([[1.0, 2, 3], [1, 0, 1]], [False, False]),
        ([[1.0, 2, 3], [2, 4, 6]], [True, True]),
        ([[1.0, 2, 3], [0, 0, 0]], [False, True]),
        ([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]], [True, True, True, False]),
        ([[1.0, 2, 3], [1e-140, 2e-140, 3.1e-140]], [False, False]),  # the size of a slope says nothing
    ],
)
def test_parameters_that_can_move_together_are_open(jacobian, open_):
    assert redundant(np.array(jacobian, dtype=float)).tolist() == open_


def test_predictions_where_nothing_is_known_are_refused_and_others_given():
    rows = counts(1e8, FOUR)
    why = unseen(rows, ("N", "D"))
    refuse_unseen(rows, why, {"N": 1.04e8, "D": 1e12})
    with pytest.raises(FitError, match=r"no prediction at N = 1.2e\+08, D = 1e\+10: what another N does"):
        refuse_unseen(rows, why, {"N": 1.2e8, "D": 1e10})
    with pytest.raises(FitError, match=r", \.\.\.: "):
        refuse_unseen(rows, why, {"N": [1e8, 1.2e8], "D": 1e10})
    assert other_values(rows, why, {"N": 1.08e8}) == []
    assert other_values(rows, why, {"N": [1e8, 1.2e8], "D": 1e15}) == [why["N"]]
    assert other_values(rows, why, {"N": "large"}) == []


@pytest.mark.parametrize(("power", "on_line", "off"), [(1.0, 20e10, 30e10), (1.3, 1e10**1.3, 1.2 * 1e10**1.3)])
def test_along_a_line_of_sizes_and_tokens_predictions_are_given(power: float, on_line: float, off: float):
    rows = counts(FOUR, np.array(FOUR) ** power * (20 if power == 1 else 1))
    why = unseen(rows, ("N", "D"))
    refuse_unseen(rows, why, {"N": 1e10, "D": on_line})
    with pytest.raises(FitError, match="what D does cannot be told from what N does"):
        refuse_unseen(rows, why, {"N": 1e10, "D": off})


# Columns that nobody asked for ----------------------------------------------------------------------------------------


def test_columns_in_which_rows_of_one_cell_differ_are_named_with_their_values():
    rows = runs(lr=[1e-3, 1e-3, 2e-3, 1e-3], note=["a", "b", "c", "d"])
    assert unexplained(rows) == {}  # every row is a cell of its own
    twice = pd.concat([rows, rows.assign(lr=[5e-3, 1e-3, 2e-3, 1e-3], note=["a", "b", "c", "d"])], ignore_index=True)
    assert unexplained(twice) == {"lr": [1e-3, 5e-3]}
    assert unexplained(twice, ["lr"]) == {}
    assert unexplained(twice.rename(columns={"lr": "chance"})) == {}  # what is measured along with a value
    many = pd.concat([rows.iloc[:1].assign(n_shot=i) for i in range(9)], ignore_index=True)
    assert unexplained(many)["n_shot"] == [0, 1, 2, 3]


def test_the_advice_can_be_typed_as_it_stands():
    assert "rs.results.select(results, n_shot=5)" in advice({"n_shot": [5, 0]})
    assert "rs.results.select(results, filter='strict')" in advice({"filter": ["strict", "loose"]})
    assert "**{'learning rate': 0.1}" in advice({"learning rate": [0.1]})
    both = advice({"a": [1, 2], "b": ["x"]})
    assert "differ in 'a' (1, 2); 'b' (x)" in both
    assert "by='a'" in both
