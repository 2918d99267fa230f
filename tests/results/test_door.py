"""Whatever holds a table is read as the same table, or refused with what to call."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results import select, validate, write


def _same(found: pd.DataFrame, table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, validate(table), check_column_type=False, check_dtype=False)


def test_everything_that_holds_rows_is_read(table, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    write(table, tmp_path / "t.jsonl")
    things = [
        table.to_dict("records"),
        (row for row in table.to_dict("records")),
        {name: table[name].to_numpy() for name in table},
        table.to_records(index=False),
        arrow.Table.from_pandas(table, preserve_index=False),
        arrow.Table.from_pandas(table, preserve_index=False).to_batches()[0],
        str(tmp_path / "t.jsonl"),
        tmp_path / "t.jsonl",
        table.set_index(["N", "D", "R"]),
        table.set_index("N"),
        table.set_index(np.arange(10, 10 + len(table))),
    ]
    for thing in things:
        _same(validate(thing)[list(validate(table).columns)], table)


def test_polars_frames_are_read(table):
    polars = pytest.importorskip("polars")
    _same(validate(polars.from_pandas(table)), table)
    with pytest.raises(ResultsError, match=r"collect\(\)"):
        validate(polars.from_pandas(table).lazy())


def test_a_grouped_series_is_read(table):
    means = table.groupby(["N", "D", "R"])["value"].mean()
    assert validate(means)["value"].tolist() == means.tolist()
    assert list(validate(means.rename(None)).columns) == ["N", "D", "R", "value"]


@pytest.mark.parametrize(("method", "call"), [("toPandas", r"toPandas\(\)"), ("compute", r"compute\(\)")])
def test_frames_that_live_elsewhere_are_refused_with_what_to_call(method, call):
    kind = type("Frame", (), {method: lambda self: None})
    with pytest.raises(ResultsError, match=call):
        validate(kind())


@pytest.mark.parametrize(
    "name", ["", "Unnamed: 0", "Unnamed: 0.1", "index", "level_0", "__index_level_0__", "row", "id"]
)
def test_a_column_that_numbers_the_rows_is_left_out_and_said(table, name):
    numbered = table.copy()
    numbered.insert(0, name, np.arange(len(table)))
    with pytest.warns(ResultsWarning, match="only numbers the rows"):
        _same(validate(numbered), table)


def test_a_column_that_only_looks_like_an_index_stays(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "index" in validate(table.assign(index="flat"))
        assert "id" in validate(table.assign(id=[7, 7, 9, 9]))
        assert "seed" in validate(table.assign(seed=range(4)))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"value": "loss"}, r"'value' is missing.*is it 'loss'.*value='loss'"),
        ({"value": "hellaswag/acc_norm"}, r"value='hellaswag/acc_norm'"),
        ({"R": "store_tokens"}, r"R='store_tokens'.*results\.assign\(R=0\)"),
        ({"R": "R "}, r"R='R '"),
        ({"N": "n_params", "D": "tokens"}, r"N='n_params'[\s\S]*D='tokens'"),
    ],
)
def test_a_missing_column_names_the_likely_one(table, columns, expected):
    with pytest.raises(ResultsError, match=expected):
        validate(table.rename(columns=columns))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("190M", "190e6 for '190M'"),
        ("1.5B", "1.5e9"),
        ("2T tokens", "2e12"),
        ("5x", "a ratio, multiply by N"),
        ("1.5e9", r"results\.astype\(\{'D': float\}\)"),
        ("N/A", "drop these rows"),
    ],
)
def test_sizes_as_text_say_how_to_write_them(table, cell, expected):
    table["D"] = table["D"].astype(object)
    table.at[1, "D"] = cell
    with pytest.raises(ResultsError, match=expected):
        validate(table)


def test_gaps_in_names_are_no_type_error(table):
    for gap in (None, np.nan, pd.NA):
        table["task"] = pd.Series(["qa", "qa", gap, gap], dtype=object)
        validate(table)
        with pytest.warns(ResultsWarning, match="no row has R = 0"):
            validate(table[table["R"] > 0])


@pytest.mark.parametrize(("name", "values"), [("store_source", ["none", "held-out", "seen"]), ("k", [0, 1, 3])])
def test_what_a_store_gave_is_chosen_and_the_closed_book_stays(name, values):
    rows = pd.DataFrame({"N": 1e6, "D": 1e9, "R": [0, 1e6, 1e6], "value": [3.0, 2.0, 1.0], name: values})
    assert select(rows, **{name: values[2]})["value"].tolist() == [3.0, 1.0]
    lost = rows.assign(**{name: [np.nan, *values[1:]]})
    assert select(lost, **{name: values[1]})["value"].tolist() == [3.0, 2.0]
    stored = rows.assign(R=1e6, D=[1e9, 2e9, 3e9])
    with pytest.warns(ResultsWarning, match="no row has R = 0"):
        assert select(stored, **{name: values[1]})["value"].tolist() == [2.0], "a row from a store says which"


def test_select_gives_one_surface_and_names_what_there_is(table):
    many = pd.concat([table.assign(metric=m, task=t) for m in ("acc", "nll") for t in ("a", "b")], ignore_index=True)
    many["condition"] = np.where(many["R"] > 0, "retrieved", "closed-book")
    gold = many[many["R"] > 0].assign(condition="oracle")
    many = pd.concat([many, gold])
    one = select(many, metric="acc", task="a")
    assert (set(one["metric"]), set(one["task"]), len(one)) == ({"acc"}, {"a"}, 4)
    assert len(select(many, metric="acc", task="a", conditions=None)) == 6
    assert len(select(many, metric="acc", task="a", conditions="oracle")) == 2
    mean = select(many, metric="acc")
    assert (set(mean["task"]), len(mean)) == ({"mean"}, 4)
    with pytest.raises(ResultsError, match=r"metric='f1'.*metric: acc, nll"):
        select(many, metric="f1")
    with pytest.raises(ResultsError, match="no column 'n_shot'"):
        select(many, metric="acc", n_shot=5)
    with pytest.raises(ResultsError, match="2 metrics"):
        select(many, task="a")


def test_a_mean_over_tasks_takes_only_cells_with_every_task(table):
    both = pd.concat([table.assign(task="a"), table.iloc[1:].assign(task="b", value=table["value"] + 1)])
    assert select(both)["value"].tolist() == pytest.approx((table["value"].iloc[1:] + 0.5).tolist())


def test_half_floats_are_widened():
    table = pd.DataFrame(
        {"N": [1e8, 1e9], "D": [2e9, 2e10], "R": [0.0, 0.0], "value": [3.0, 2.5], "temperature": [0.5, 1.0]}
    )
    halves = table.astype({"temperature": "float16", "value": "float16"})
    assert validate(halves)["temperature"].tolist() == [0.5, 1.0]


SWEEP = pd.DataFrame({"R": [0.0, 1e8, 1e9, 1e10], "value": [3.0, 2.9, 2.8, 2.7]})


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("params", [1e8, 2e8, 4e8, 8e8], "N='params'"),
        ("Params (B)", [1.0, 1.0, 1.0, 1.0], r"N='Params \(B\)'"),
        ("n_params_non_embedding", [1e8, 2e8, 4e8, 8e8], "N='n_params_non_embedding'"),
        ("model", ["a", "b", "a", "b"], "'model' tells models apart"),
        ("Model Name", ["70m", "160m", "410m", "1b"], "'Model Name' tells models apart"),
        ("tokens", [1e9, 2e9, 4e9, 8e9], "D='tokens'"),
        ("D_tokens", [1e9, 2e9, 4e9, 8e9], "D='D_tokens'"),
        ("train tokens", [1e9, 2e9, 4e9, 8e9], "D='train tokens'"),
        ("global_step", [1, 2, 3, 4], "'global_step' tells checkpoints apart.*steps times tokens per step"),
        ("epoch", [1, 2, 3, 4], "'epoch' tells checkpoints apart"),
    ],
)
def test_a_column_that_speaks_of_models_or_data_is_not_passed_over(name: str, values: list, said: str) -> None:
    with pytest.raises(ResultsError, match=said):
        rs.fit_manifold(SWEEP.assign(**{name: values}))


def test_what_says_nothing_of_models_leaves_a_sweep_of_stores_one_model() -> None:
    plain = rs.fit_manifold(SWEEP)
    beside = {
        "retriever": "bm25",
        "k": 1,
        "model": "one",
        "index_tokens": SWEEP["R"],
        "tokens_per_second": [1, 2, 3, 4],
    }
    assert rs.fit_manifold(SWEEP.assign(**beside)).theta == plain.theta
    twice = pd.concat([SWEEP, SWEEP.assign(value=SWEEP["value"] + 1)])
    with pytest.raises(ResultsError, match="columns not in the results table: N = 'N', D = 'D'"):
        rs.fit_manifold(twice)


@pytest.mark.parametrize(
    ("cell", "column", "said"),
    [
        ("1,300,000,000", "N", "1300000000 for '1,300,000,000'"),
        ("26.000.000.000", "D", "26000000000 for"),
        ("1 000 000", "R", "1000000 for"),
        ("61.2%", "value", r"61\.2 for '61\.2%'"),
        ("61,2 %", "value", r"61\.2 for"),
        ("0.61±0.01", "value", "a column stderr"),
        ("0.61 +/- 0.01", "value", "a column stderr"),
        ("n/a", "value", r"numbers such as 2\.71"),
        ("n/a", "N", "numbers such as 190e6"),
    ],
)
def test_a_number_in_words_is_told_how_to_be_written(cell: str, column: str, said: str) -> None:
    row = {"N": 1e9, "D": 1e10, "R": 0.0, "value": 2.5, column: cell}
    with pytest.raises(ResultsError, match=said):
        rs.results.validate([row])
