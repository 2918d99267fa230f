"""Every malformed table gets one ResultsError that lists everything wrong with it."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import MissingFileError, RagscaleError, ResultsError, ResultsWarning
from ragscale.results import average_seeds, validate


def test_a_clean_table_comes_back_as_float64_in_the_same_order_and_is_not_changed(table):
    before = table.copy(deep=True)
    canonical = validate(table[["value", "seed", "R", "D", "N", "task", "metric"]])
    assert list(canonical.columns[:4]) == ["N", "D", "R", "value"]
    assert all(canonical[c].dtype == np.float64 for c in ("N", "D", "R", "value"))
    np.testing.assert_array_equal(canonical["value"], table["value"])
    canonical["N"] = 0.0
    pd.testing.assert_frame_equal(table, before)


def test_validating_twice_changes_nothing(table):
    once = validate(table)
    pd.testing.assert_frame_equal(validate(once), once)


def test_products_of_the_canonical_columns_do_not_overflow():
    big = pd.DataFrame({"N": [6_900_000_000], "D": [1_400_000_000_000], "R": [0], "value": [2.0]})
    assert (big["N"] * big["D"]).iloc[0] != 6.9e9 * 1.4e12  # what int64 does to it
    canonical = validate(big)
    assert (canonical["N"] * canonical["D"]).iloc[0] == pytest.approx(6.9e9 * 1.4e12, rel=1e-15)


@pytest.mark.parametrize("column", ["N", "D", "R", "value"])
def test_a_missing_column_is_named(table, column):
    with pytest.raises(ResultsError, match=f"column '{column}' is missing"):
        validate(table.drop(columns=column))


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("N", 0.3, "below 1,000"),
        ("N", 0, "below 1,000"),
        ("D", 20, "ratios such as D/N"),
        ("R", 1, "ratios such as D/N or R/N"),
        ("D", -(2**40), "overflowed"),
        ("N", -5, "negative"),
        ("R", float("nan"), "missing"),
        ("value", None, "missing"),
        ("value", float("inf"), "infinite"),
        ("D", 10**400, "infinite"),
        ("value", "2.5", "not a number"),
        ("value", True, "not a number"),
        ("value", 1 + 2j, "not a number"),
        ("N", [1, 2], "not a number"),
        ("N", pd.Timestamp("2026-01-01"), "not a number"),
    ],
)
def test_a_bad_cell_is_named_with_its_row_and_value(table, column, cell, expected):
    table[column] = table[column].astype(object)
    table.at[2, column] = cell
    with pytest.raises(ResultsError, match=expected) as caught:
        validate(table)
    assert f"column {column!r}" in str(caught.value)
    assert "row 2" in str(caught.value)


@pytest.mark.parametrize(("column", "cell"), [("stderr", -1.0), ("n_examples", 0), ("N_total", 3), ("stderr", np.inf)])
def test_optional_columns_are_checked_but_may_have_gaps(table, column, cell):
    assert validate(table.assign(**{column: np.nan}))[column].isna().all()
    with pytest.raises(ResultsError, match=column):
        validate(table.assign(**{column: cell}))


def test_everything_wrong_is_listed_at_once(table):
    table["flops"] = [-1, 2, 3, 4]
    table["D"] = [20, -3, 10**10, 10**10]
    table["R"] = ["none", 0, 0, 0]
    with pytest.raises(ResultsError) as caught:
        validate(table.drop(columns="value"))
    message = str(caught.value)
    for part in ("'value' is missing", "'D': 1 of 4 values is negative", "below 1,000", "'R'", "'flops'", "5 problems"):
        assert part in message


def test_flops_that_wrapped_around_in_int64_are_found_even_when_positive():
    table = pd.DataFrame({"N": [7 * 10**9, 10**8], "D": [2 * 10**12, 10**9], "R": 0, "value": [2.0, 3.0]})
    with np.errstate(over="ignore"):
        table["flops"] = 6 * table["N"] * table["D"]
    with pytest.raises(ResultsError, match="overflowed int64"):
        validate(table)
    table["flops"] = 6.0 * table["N"].astype(float) * table["D"]
    assert validate(table)["flops"].max() == pytest.approx(8.4e22)


def test_rows_that_contradict_each_other_are_an_error_and_a_seed_column_settles_it(table):
    again = table.assign(value=table["value"] + 0.01)
    both = pd.concat([table, again])
    with pytest.raises(ResultsError, match="4 measurements have several values"):
        validate(both)
    again["seed"] = 1
    assert len(validate(pd.concat([table, again]))) == 8


def test_a_users_own_column_tells_rows_apart(table):
    assert len(validate(pd.concat([table.assign(lr=1e-3), table.assign(lr=3e-4, value=table["value"] + 1)]))) == 8


def test_rows_that_repeat_are_kept_with_a_warning(table):
    with pytest.warns(ResultsWarning, match="4 of 8 rows repeat"):
        assert len(validate(pd.concat([table, table]))) == 8


def test_retrieval_without_a_baseline_is_a_warning_that_names_the_task(table):
    other = table[table["R"] > 0].assign(task="other")
    with pytest.warns(ResultsWarning, match="in other loss"):
        validate(pd.concat([table, other]))


def test_repeated_column_names_and_empty_tables_are_named(table):
    with pytest.raises(ResultsError, match="repeated: value"):
        validate(pd.concat([table, table[["value"]]], axis=1))
    with pytest.raises(ResultsError, match="no rows"):
        validate(table.iloc[:0])


NOT_A_TABLE = [None, 3, "results", "results.csv", "results.xlsx", object(), [1, 2], {"N": 1}, {"N": [1], "D": [1, 2]}]


@pytest.mark.parametrize("thing", NOT_A_TABLE)
def test_what_is_no_table_is_refused(thing):
    with pytest.raises((ResultsError, MissingFileError)):
        validate(thing)


def test_nullable_and_categorical_columns_are_read(table):
    table["N"] = table["N"].astype("Int64")
    table["R"] = table["R"].astype("category")
    table["value"] = table["value"].astype("Float64")
    assert validate(table)["R"].dtype == np.float64
    table.loc[0, "N"] = pd.NA
    with pytest.raises(ResultsError, match="missing"):
        validate(table)


cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=2),
    st.complex_numbers(),
    st.datetimes(),
    st.decimals(),
    st.fractions(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from([0, 1, 10**9, 2 * 10**10, 2.5]),
)
names = st.one_of(
    st.sampled_from(["N", "D", "R", "value", "seed", "task", "stderr", "flops", "n_examples", "run"]),
    st.integers(),
    st.none(),
    st.text(max_size=3),
    st.tuples(st.integers(), st.text(max_size=2)),
)


@given(
    st.lists(names, max_size=9).flatmap(
        lambda columns: st.tuples(
            st.just(columns),
            st.lists(st.lists(cells, min_size=len(columns), max_size=len(columns)), max_size=4),
        )
    ),
    st.booleans(),
)
def test_no_table_at_all_raises_anything_but_a_ragscale_error(table, force):
    columns, rows = table
    frame = pd.DataFrame(np.empty((len(rows), len(columns)), object), columns=pd.Index(columns, dtype=object))
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            frame.iat[i, j] = cell
    if force:
        frame.columns = frame.columns.to_flat_index()  # all names tuples: a MultiIndex, which takes no plain name
        frame = frame.drop(columns=[c for c in ("N", "D", "R", "value") if c in columns])
        frame = frame.assign(N=1e9, D=2e10, R=0.0, value=np.arange(len(frame)) / 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)
        for function in (validate, average_seeds):
            try:
                out = function(frame)
            except RagscaleError:
                continue
            assert np.isfinite(out[["N", "D", "R", "value"]].to_numpy()).all()
