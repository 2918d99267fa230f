"""Read a table from a file or a folder of parts, as it stands there: .csv, .jsonl or .parquet."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pandas as pd

from ragscale._extras import require
from ragscale._files import disk_errors
from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results._csv import read_csv

SUFFIXES = (".jsonl", ".csv", ".parquet")


def suffix_of(path: Path) -> str:
    """Return the suffix that says how a table is written, or refuse it."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ResultsError(
            f"{path}: the suffix {path.suffix!r} is not one of {', '.join(SUFFIXES)}: read it with pandas and give the "
            "DataFrame"
        )
    return suffix


def read_frame(path: Path) -> pd.DataFrame:
    """Return what stands in a file, or in all parts of a folder that Spark, Dask or Polars wrote.

    Raises
    ------
    ResultsError
        When the suffix is unknown, the file is no table, or a folder has no parts or parts with other columns.
    FileNotFoundError
        When there is no such file.
    """
    with disk_errors(path, "read"):
        if path.is_dir():
            return _read_parts(path)
        return READERS[suffix_of(path)](path)


def _read_parts(folder: Path) -> pd.DataFrame:
    """Join the parts of one table in the order of their names; hidden files and ``_SUCCESS`` are none."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and not _is_hidden(f.relative_to(folder))]
    parts = [f for f in files if f.suffix.lower() in READERS or f.suffix.lower() == ".json"]
    if not parts or len(parts) < len(files):
        other = next((f.name for f in files if f not in parts), None)
        raise ResultsError(
            f"{folder} is a folder that is no table in parts, such as part-00000.csv or .parquet"
            + (f" (it holds {other})" if other else " (it is empty)")
            + ": give the file of the table"
        )
    kinds = sorted({f.suffix.lower() for f in parts})
    nested = [f for f in parts if f.parent != folder]
    if len(kinds) > 1 or (nested and kinds != [".parquet"]):
        what = f"files of {', '.join(kinds)}" if len(kinds) > 1 else f"{nested[0].relative_to(folder)} in a subfolder"
        raise ResultsError(f"{folder} holds {what}: a table has parts of one kind in one folder; give its file")
    if kinds == [".parquet"]:
        return _read_parquet(folder)  # names of subfolders such as seed=0 are a column
    tables = [READERS.get(part.suffix.lower(), _read_jsonl)(part) for part in parts]
    filled = [(part, table) for part, table in zip(parts, tables, strict=True) if len(table.columns)]
    for part, table in filled[1:]:
        if kinds == [".csv"] and list(table.columns) != list(filled[0][1].columns):
            raise ResultsError(
                f"{part} has the columns {', '.join(map(str, table.columns))}, and {filled[0][0].name} has "
                f"{', '.join(map(str, filled[0][1].columns))}: write every part with the same header"
            )
    return pd.concat([table for _, table in filled], ignore_index=True) if filled else pd.DataFrame()


def _is_hidden(path: Path) -> bool:
    return any(name.startswith((".", "_")) for name in path.parts)


def _read_jsonl(path: Path) -> pd.DataFrame:
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
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
                    stacklevel=5,
                )
                continue
            raise ResultsError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ResultsError(f"{path}, line {number} is a JSON {type(row).__name__}, expected one object per row")
        rows.append(row)
    return pd.DataFrame(rows)


def _read_parquet(path: Path) -> pd.DataFrame:
    arrow = require("pyarrow", "parquet")
    if not path.is_dir():
        with open(path, "rb"):
            pass
    try:
        return pd.read_parquet(os.fspath(path), engine="pyarrow")
    except (arrow.ArrowException, ValueError, OSError) as error:
        raise ResultsError(f"{path} is not a parquet table: {error}") from error


READERS = {".jsonl": _read_jsonl, ".csv": read_csv, ".parquet": _read_parquet}
