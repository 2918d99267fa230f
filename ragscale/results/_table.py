"""What a results table is, and every way in which one can be wrong."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ragscale._typing import ResultsLike
from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results._door import as_frame, missing_column

REQUIRED = ("N", "D", "R", "value")
"""Columns that every results table has."""

OPTIONAL = (
    "task",
    "metric",
    "seed",
    "N_total",
    "stderr",
    "n_examples",
    "k",
    "retriever",
    "condition",
    "hit_rate",
    "higher_is_better",
    "store_source",
    "seen_share",
    "batch_tokens",
    "flops",
    "split",
    "run",
)
"""Columns with a meaning that ragscale knows; any other column is kept as it is."""

MEASURED = (
    "value",
    "stderr",
    "n_examples",
    "flops",
    "hit_rate",
    "answer_in_store",
    "validation_loss",
    "n_cut",
    "n_left_out",
    "n_questions",
)  # every other column says which measurement a row is
_NUMERIC = ("N", "D", "R", "value", "N_total", "stderr", "n_examples", "flops")
_COUNTS = ("N", "D", "R", "N_total")
_NAMES = ("task", "metric", "seed", "k", "retriever", "condition", "store_source", "split", "run", "higher_is_better")
_SMALLEST_COUNT = 1e3  # 3 (billion parameters), 20 (D/N), 0.6 (billion tokens): no model or store is that small
_INT64_MAX = float(np.iinfo(np.int64).max)
_SHOWN = 4


def validate(results: ResultsLike) -> pd.DataFrame:
    """Return a canonical copy of a results table, or raise one error that lists everything wrong with it.

    The copy has N, D, R, value and the other numeric columns as float64 (products of int64 columns overflow at real
    sizes: 6.9e9 parameters times 1.4e11 tokens), the required columns first, all others kept, and a fresh index. The
    order of the rows is kept.

    Parameters
    ----------
    results : DataFrame, dict of columns, list of rows, Arrow or Polars table, or path
        Columns ``N`` (parameters), ``D`` and ``R`` (tokens) as counts, and ``value``. They may stand in a named
        index.

    Returns
    -------
    DataFrame
        The canonical copy. The argument is never changed.

    Raises
    ------
    ResultsError
        Listing every problem at once: missing columns, no rows, text or booleans where numbers belong, NaN, infinite or
        negative numbers, counts that look like billions or ratios, FLOPs that overflowed int64, and rows that claim
        different values for the same measurement.

    Warns
    -----
    ResultsWarning
        When rows repeat each other exactly, a task has rows with R > 0 but none with R = 0, so that no gain can be
        measured, or a column that only numbers the rows is left out.

    Examples
    --------
    >>> from ragscale import results
    >>> table = results.validate({"N": [10**9] * 2, "D": [2 * 10**10] * 2, "R": [0, 10**9], "value": [2.7, 2.6]})
    >>> table.dtypes.unique()
    array([dtype('float64')], dtype=object)
    >>> results.validate({"N": [1.0, 3.0], "D": [2e10, None], "R": [0, -5]})
    Traceback (most recent call last):
    ...
    ragscale.errors.ResultsError: the results table has 4 problems:
      1. column 'value' is missing; the table has N, D, R: value is what was measured
      2. column 'N': 2 of 2 values are below 1,000 (row 0: 1.0, row 1: 3.0): give counts of parameters, ...
      3. column 'D': 1 of 2 values is missing (row 1: nan): drop these rows or fill them in
      4. column 'R': 1 of 2 values is negative (row 1: -5.0): R counts tokens
    """
    frame = as_frame(results)
    problems, numbers = _find_problems(frame)
    if problems:
        raise ResultsError(_listing(problems))
    canonical = _canonical(frame, numbers)
    problems = list(_conflicts(canonical))
    if problems:
        raise ResultsError(_listing(problems))
    _warn_about(canonical)
    return canonical


def _listing(problems: list[str]) -> str:
    count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
    return f"the results table has {count}:\n" + "\n".join(f"  {i}. {p}" for i, p in enumerate(problems, start=1))


def _find_problems(frame: pd.DataFrame) -> tuple[list[str], dict[str, np.ndarray]]:
    """Check shape and cells; also return the numeric columns as float64."""
    problems: list[str] = []
    numbers: dict[str, np.ndarray] = {}
    columns = list(frame.columns)
    repeated = sorted({str(c) for c in frame.columns[frame.columns.duplicated()]})
    if repeated:
        problems.append(f"column names are repeated: {', '.join(repeated)}; rename or drop all but one of each")
    problems += [missing_column(c, columns) for c in REQUIRED if c not in columns]
    if len(frame) == 0:
        problems.append("there are no rows")
    for column in _NUMERIC:
        if column in columns and column not in repeated:
            values, unreadable = _to_float(pd.Series(frame[column]))
            problems += unreadable
            if not unreadable:
                numbers[column] = values
                problems += _number_problems(column, values)
    for column in _NAMES:
        if column in columns and column not in repeated:
            problems += _name_problems(pd.Series(frame[column]))
    if "flops" in numbers:
        problems += _overflow_problems(pd.Series(frame["flops"]), numbers)
    return problems, numbers


def _to_float(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Convert to float64; text, booleans, dates and the like are problems even where Python could convert them."""
    name = column.name
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return column.to_numpy(np.float64), []
    cells = column.astype(object).to_list()
    values = np.full(len(cells), np.nan)
    bad: list[int] = []
    for i, cell in enumerate(cells):
        if cell is None or cell is pd.NA or cell is pd.NaT:
            continue
        if isinstance(cell, (bool, np.bool_, str, bytes, complex, np.complexfloating)):
            bad.append(i)
            continue
        try:
            values[i] = float(cell)
        except OverflowError:
            values[i] = np.inf
        except (TypeError, ValueError, ArithmeticError):
            bad.append(i)
    if not bad:
        return values, []
    rows = _rows(bad, cells, _short)
    advice = _as_number(str(name), cells[bad[0]])
    return values, [f"column {name!r}: {_count(len(bad), len(cells))} not a number ({rows}): {advice}"]


def _as_number(name: str, cell: Any) -> str:
    """Say how a number that is written as text should be given; it is not guessed."""
    if not isinstance(cell, str):
        return "convert the column first"
    sized = re.fullmatch(r"\s*([\d.,_]+)\s*([kmbgtKMBGT])(i?[bB]|\w*params|[\s_-]*tok\w*)?\s*", cell)
    if sized:
        power = {"k": 3, "m": 6, "b": 9, "g": 9, "t": 12}[sized[2].lower()]
        return f"write counts as numbers, {sized[1]}e{power} for {cell.strip()!r}"
    if name in ("D", "R") and re.fullmatch(r"\s*[\d.,]+\s*[xX×]\s*", cell):
        return f"write counts of tokens such as 20_000_000_000 or 2e10; for {cell.strip()!r}, a ratio, multiply by N"
    bare = cell.strip()
    if re.fullmatch(r"[-+]?\d{1,3}([.,'\s_\u00a0\u202f]\d{3})+", bare) and name in (*_COUNTS, "flops", "n_examples"):
        digits = re.sub(r"\D", "", bare)
        return f"write counts without separators of thousands, {digits} for {bare!r}"
    if re.fullmatch(r"[-+]?[\d.,]+\s*%", bare):
        return f"write the number alone, {bare[:-1].strip().replace(',', '.')} for {bare!r} (percent stay percent)"
    if "±" in bare or "+-" in bare or "+/-" in bare:
        return f"write the error in a column stderr of its own, not behind the number ({bare!r})"
    try:
        float(cell)
    except ValueError:
        return f"drop these rows or fill them in with numbers such as {'190e6' if name in _COUNTS else '2.71'}"
    return f"it is text; convert it, results.astype({{{name!r}: float}})"


def _name_problems(column: pd.Series) -> Iterator[str]:
    """A name is one value: lists and the like cannot be compared."""
    if column.dtype != object:
        return
    cells = column.to_list()
    bad = [i for i, cell in enumerate(cells) if isinstance(cell, (list, dict, set, tuple, np.ndarray))]
    if bad:
        rows = _rows(bad, cells, _short)
        yield f"column {column.name!r}: {_count(len(bad), len(cells))} not one value ({rows}): give text or a number"


def _number_problems(name: str, values: np.ndarray) -> Iterator[str]:
    def problem(mask: np.ndarray, what: str, advice: str) -> str:
        rows = np.flatnonzero(mask)
        return f"column {name!r}: {_count(len(rows), len(values))} {what} ({_rows(rows, values)}): {advice}"

    nan, infinite, negative = np.isnan(values), np.isinf(values), values < 0
    optional = name not in REQUIRED
    if nan.any() and not optional:
        yield problem(nan, "missing", "drop these rows or fill them in")
    if infinite.any():
        yield problem(infinite, "infinite", "a run that diverged or was never made is left out, not infinite")
    negative &= ~infinite
    noun = {"N": "parameters", "N_total": "parameters", "D": "tokens", "R": "tokens"}.get(name)
    if noun and negative.any():
        overflow = " (an int32 or int64 product that overflowed?)" if (values < -(2.0**30)).any() else ""
        yield problem(negative, "negative", f"{name} counts {noun}{overflow}")
    if name == "stderr" and negative.any():
        yield problem(negative, "negative", "a standard error is at least 0")
    if name == "n_examples" and (values <= 0).any():
        yield problem(values <= 0, "not positive", "the number of questions that a value is the mean of")
    if noun:
        small = (values >= 0) & (values < _SMALLEST_COUNT) & ((values > 0) | (name != "R"))
        if small.any():
            verb = f"below {_SMALLEST_COUNT:,.0f}"
            unit = "multiply by 1e9 if these are billions" + (
                "" if noun == "parameters" else ", by N if these are ratios such as D/N or R/N"
            )
            yield problem(small, verb, f"give counts of {noun}, {unit}")


def _overflow_problems(column: pd.Series, numbers: dict[str, np.ndarray]) -> Iterator[str]:
    """A product taken in int64 wraps without a word: it comes out negative, or far too small."""
    flops = numbers["flops"]
    wrong = flops < 0
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iu" and {"N", "D"} <= numbers.keys():
        with np.errstate(over="ignore", invalid="ignore"):
            wrong |= numbers["N"] * numbers["D"] > _INT64_MAX
    if wrong.any():
        rows = np.flatnonzero(wrong)
        yield (
            f"column 'flops': {_count(len(rows), len(flops))} wrong ({_rows(rows, flops)}): 6 N D overflowed int64, "
            "so compute it from float64 columns, df['N'].astype(float) * df['D'] * 6"
        )


def _count(n: int, total: int) -> str:
    return f"{n} of {total} values {'is' if n == 1 else 'are'}"


def _rows(rows: Any, values: Any, show: Any = str) -> str:
    listed = ", ".join(f"row {i}: {show(values[i])}" for i in list(rows)[:_SHOWN])
    return listed + (", ..." if len(rows) > _SHOWN else "")


def _short(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else text[:37] + "..."


def _canonical(frame: pd.DataFrame, numbers: dict[str, np.ndarray]) -> pd.DataFrame:
    order = [*REQUIRED, *(c for c in frame.columns if c not in REQUIRED)]
    canonical = pd.DataFrame(frame[order]).copy()
    for name, values in numbers.items():
        canonical[name] = values
    canonical.attrs = dict(frame.attrs)
    return canonical


def row_keys(table: pd.DataFrame, without: tuple[str, ...] = ()) -> np.ndarray:
    """Number the rows by what they are a measurement of: every column but the measured ones and ``without``."""
    key = table.drop(columns=[c for c in (*MEASURED, *without) if c in table.columns])
    for column in key.columns[[not pd.api.types.is_numeric_dtype(d) for d in key.dtypes]]:
        key[column] = key[column].map(lambda cell: cell if isinstance(cell, str) else repr(cell)).astype(object)
    return key.groupby(list(key.columns), sort=False, dropna=False).ngroup().to_numpy()


def _conflicts(table: pd.DataFrame) -> Iterator[str]:
    group, value = row_keys(table), table["value"].to_numpy()
    first = np.unique(group, return_index=True)[1]
    conflicting = np.unique(group[value != value[first][group]])
    if len(conflicting):
        rows = np.flatnonzero(group == conflicting[0])
        cell = ", ".join(f"{c}={table[c].to_numpy()[rows[0]]:g}" for c in ("N", "D", "R"))
        claim = "measurements have" if len(conflicting) > 1 else "measurement has"
        yield (
            f"{len(conflicting)} {claim} several values, the first at {cell} ({_rows(rows, value)}): add the column "
            "that tells these rows apart ('seed', 'task', 'run', ...), or keep one of them"
        )


def _warn_about(table: pd.DataFrame) -> None:
    repeats = pd.Series(row_keys(table)).duplicated()
    if repeats.any():
        warnings.warn(
            f"{repeats.sum()} of {len(table)} rows repeat an earlier one and count twice: "
            "drop_duplicates() removes them",
            ResultsWarning,
            stacklevel=3,
        )
    names = [c for c in ("task", "metric") if c in table.columns]
    label = pd.Series("" if names else "the table", index=table.index, dtype=object)
    for name in names:
        label = label + " " + table[name].astype(object).map(lambda cell: "" if _is_gap(cell) else str(cell))
    retrieving = (table["R"] > 0).to_numpy()
    label = label.str.strip()
    has_retrieval, has_baseline = set(label[retrieving]), set(label[~retrieving])
    unanchored = sorted(has_retrieval - has_baseline)
    if unanchored:
        shown = ", ".join(unanchored[:_SHOWN]) + (", ..." if len(unanchored) > _SHOWN else "")
        warnings.warn(
            f"no row has R = 0 although others have R > 0, in {shown}: without a baseline the gain of retrieval is "
            "not determined",
            ResultsWarning,
            stacklevel=3,
        )


def _is_gap(cell: Any) -> bool:
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and np.isnan(cell))
