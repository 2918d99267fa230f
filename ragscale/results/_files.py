"""Results tables on disk: .jsonl, .csv and .parquet, whole or absent even when a run is killed."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ragscale._extras import require
from ragscale._files import atomic_write
from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results._table import validate

_SUFFIXES = (".jsonl", ".csv", ".parquet")
_TEXT_COLUMNS = ("task", "metric", "retriever", "condition", "split", "run")


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a results table by its suffix and validate it.

    Parameters
    ----------
    path : path
        A ``.jsonl``, ``.csv`` or ``.parquet`` file. A CSV carries no types: its text columns (task, metric, retriever,
        condition, split, run) are read as text, others as numbers if all their cells are; the other formats keep types.

    Returns
    -------
    DataFrame
        The canonical table, see `validate`.

    Raises
    ------
    ResultsError
        When the suffix is unknown, the file is no table, or the table has problems.
    FileNotFoundError
        When there is no such file.

    Warns
    -----
    ResultsWarning
        When a ``.jsonl`` ends in half a row: a run was killed while it wrote. The half row is left out.
    """
    path = Path(path)
    frame = _READERS[_suffix(path)](path)
    try:
        return validate(frame)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from error


def write(results: Any, path: str | os.PathLike[str]) -> None:
    """Validate a results table and write it by suffix: the file is the old one or the whole new one, never half.

    Parameters
    ----------
    results : DataFrame, or anything that `validate` accepts
    path : path
        A ``.jsonl``, ``.csv`` or ``.parquet`` file; numbers come back bit for bit from each of them.

    Raises
    ------
    ResultsError
        When the table has problems, the suffix is unknown, or a cell cannot be written in that format.
    """
    path = Path(path)
    suffix = _suffix(path)
    content = _encode(validate(results), suffix)
    with atomic_write(path) as file:
        file.write(content)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ResultsError(f"{path}: the suffix {path.suffix!r} is not one of {', '.join(_SUFFIXES)}")
    return suffix


def _read_jsonl(path: Path) -> pd.DataFrame:
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                warnings.warn(
                    f"{path} ends in half a row (line {number}), left by a run that was killed; it is left out",
                    ResultsWarning,
                    stacklevel=4,
                )
                continue
            raise ResultsError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ResultsError(f"{path}, line {number} is a JSON {type(row).__name__}, expected one object per row")
        rows.append(row)
    return pd.DataFrame(rows)


def _read_csv(path: Path) -> pd.DataFrame:
    """Read with Python's own parser: pandas' does not give every float back exactly, and takes "NA" for a gap."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except (ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
        raise ResultsError(f"{path} is not a CSV table: {error}") from error
    uneven = [i for i, row in enumerate(rows, start=2) if len(row) != len(header)]
    if uneven:
        listed = ", ".join(map(str, uneven[:5])) + (", ..." if len(uneven) > 5 else "")
        raise ResultsError(f"{path}: lines {listed} do not have {len(header)} cells, as the header has")
    cells = zip(*rows, strict=True) if rows else ((),) * len(header)
    columns = [_parsed(name, column) for name, column in zip(header, cells, strict=True)]
    return pd.concat(columns, axis=1) if columns else pd.DataFrame()


def _parsed(name: str, column: Sequence[str]) -> pd.Series:
    cells = [cell or None for cell in column]
    if name not in _TEXT_COLUMNS:
        for convert, dtype in ((int, "int64"), (float, "float64")):
            try:
                values = [None if c is None else convert(c) for c in cells]
                return pd.Series(values, name=name, dtype=dtype)
            except (ValueError, TypeError, OverflowError):  # text, a gap among integers, or beyond int64
                continue
    return pd.Series(cells, name=name, dtype=object)


def _read_parquet(path: Path) -> pd.DataFrame:
    arrow = require("pyarrow", "parquet")
    with open(path, "rb"):
        pass
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (arrow.ArrowException, ValueError, OSError) as error:
        raise ResultsError(f"{path} is not a parquet table: {error}") from error


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}


def _encode(table: pd.DataFrame, suffix: str) -> bytes:
    if suffix == ".jsonl":
        return _to_jsonl(table)
    buffer = io.BytesIO()
    try:
        if suffix == ".csv":
            table.to_csv(buffer, index=False, encoding="utf-8", lineterminator="\n")
        else:
            arrow = require("pyarrow", "parquet")
            try:
                _without_attrs(table).to_parquet(buffer, index=False, engine="pyarrow")
            except arrow.ArrowException as error:
                raise ResultsError(f"a cell cannot be written as parquet: {error}") from error
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"a cell cannot be written as {suffix[1:]}: {error}") from error
    return buffer.getvalue()


def _without_attrs(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    table.attrs = {}
    return table


def _to_jsonl(table: pd.DataFrame) -> bytes:
    columns = [str(c) for c in table.columns]
    lists = [table.iloc[:, i].astype(object).to_list() for i in range(len(columns))]
    lines = []
    for row in zip(*lists, strict=True):
        cells = {c: None if _is_missing(v) else v for c, v in zip(columns, row, strict=True)}
        try:
            lines.append(json.dumps(cells, default=_plain, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ResultsError(f"a cell of the row {cells!r:.200} cannot be written as JSON: {error}") from error
    return ("\n".join(lines) + "\n").encode()


def _is_missing(cell: Any) -> bool:
    return (
        cell is None
        or cell is pd.NA
        or cell is pd.NaT
        or (isinstance(cell, (float, np.floating)) and bool(np.isnan(cell)))
    )


def _plain(cell: Any) -> Any:
    if isinstance(cell, np.generic):
        return cell.item()
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    if isinstance(cell, (pd.Timestamp, os.PathLike)):
        return str(cell)
    raise TypeError(f"{type(cell).__name__} is not JSON")
