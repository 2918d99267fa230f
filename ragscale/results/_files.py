"""Results tables on disk: .jsonl, .csv and .parquet, whole or absent even when a run is killed."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import numpy as np
import pandas as pd

from ragscale._extras import require
from ragscale._files import atomic_write
from ragscale._typing import ResultsLike
from ragscale.errors import ResultsError
from ragscale.results._path import as_path
from ragscale.results._read import read_frame, suffix_of
from ragscale.results._table import validate


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a results table by its suffix and validate it.

    Parameters
    ----------
    path : path
        A ``.jsonl``, ``.csv`` or ``.parquet`` file, or a folder of such parts as Spark and Dask write. A CSV carries no
        types: its text columns (task, metric, retriever, condition, split, run, store_source) are read as text, others
        as numbers; the other formats keep types. Semicolons or tabs with decimal commas, byte order marks and any
        line ends are understood.

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

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> import ragscale as rs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rs.results.write(pd.DataFrame({"N": [1e6], "D": [1e7], "R": [0], "value": [3.2]}), f"{folder}/table.csv")
    ...     rs.results.read(f"{folder}/table.csv")["value"].tolist()
    [3.2]
    """
    path = as_path(path, "a table in memory needs no reading, rs.results.validate checks it")
    frame = read_frame(path)
    try:
        return validate(frame)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from error


def write(results: ResultsLike, path: str | os.PathLike[str]) -> None:
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

    Examples
    --------
    >>> import tempfile
    >>> import ragscale as rs
    >>> table = rs.datasets.simulate("log1p", noise=0.01, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rs.results.write(table, f"{folder}/table.jsonl")
    ...     len(rs.results.read(f"{folder}/table.jsonl")) == len(table)
    True
    """
    path = as_path(path)
    suffix = suffix_of(path)
    content = encode_table(validate(results), suffix)
    with atomic_write(path) as file:
        file.write(content)


def encode_table(table: pd.DataFrame, suffix: str) -> bytes:
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
