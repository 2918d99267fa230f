"""Adding rows to a table on disk: what stands there stays as it is, or the file is refused and not touched."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import warnings
from pathlib import Path

import pandas as pd

from ragscale._files import atomic_write, disk_errors, locked
from ragscale._typing import ResultsLike
from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results._csv import separator
from ragscale.results._files import encode_table
from ragscale.results._path import as_path
from ragscale.results._read import READERS, suffix_of
from ragscale.results._table import validate

_FIRST = '{"N": '  # how every row that we write begins
_TORN_PAIR = re.compile(
    r"""[{,]\s*("([^"\\]|\\.)*\\?)?$             # a name that is not closed yet
    |   [{,]\s*"([^"\\]|\\.)*"\s*:?\s*           # a whole name, and of its value:
        (  "([^"\\]|\\.)*\\?"? | [-+.0-9eE]* | [A-Za-z]* | [\[{].*[^\]}] | [\[{] )  # at most a part
        ,?\s*$""",
    re.VERBOSE | re.DOTALL,
)


def append(results: ResultsLike, path: str | os.PathLike[str]) -> None:
    """Add rows to a results table on disk, creating it if need be.

    The file is replaced as a whole, so that a kill or a full disk leaves the old one, and calling again never counts
    a row twice. What stands in it is kept byte for byte (a ``.parquet`` is encoded anew), but for half a last row
    that a killed run left behind. Appenders wait for each other.

    Parameters
    ----------
    results : DataFrame, or anything that `validate` accepts
        The new rows.
    path : path
        A ``.jsonl``, ``.csv`` or ``.parquet`` file.

    Raises
    ------
    ResultsError
        As for `write`; when the file holds anything but a results table; and when a new row gives another value for
        a measurement that is there already. The file is then unchanged.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> import ragscale as rs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for seed in (0, 1):
    ...         row = pd.DataFrame({"N": [1e6], "D": [1e7], "R": [0], "seed": [seed], "value": [3.2]})
    ...         rs.results.append(row, f"{folder}/table.jsonl")
    ...     len(rs.results.read(f"{folder}/table.jsonl"))
    2
    """
    path = as_path(path)
    suffix = suffix_of(path)
    with warnings.catch_warnings():
        # that the new rows hold no R = 0 says nothing: the file may
        warnings.filterwarnings("ignore", message="no row has R = 0", category=ResultsWarning)
        rows = validate(results)
    added = encode_table(rows, suffix)
    target = Path(os.path.realpath(path))
    with locked(target.with_name(f".{target.name}.lock"), keep=False):
        before = _content(path)
        content = added if before is None else _joined(path, suffix, before, rows, added)
        with atomic_write(path) as file:
            file.write(content)


def _content(path: Path) -> bytes | None:
    if not path.exists():
        return None
    with disk_errors(path, "read"):
        content = path.read_bytes()
    return content or None


def _joined(path: Path, suffix: str, before: bytes, rows: pd.DataFrame, added: bytes) -> bytes:
    """Return the file's new content, once it is sure that it can be read as one table."""
    if suffix == ".jsonl":
        before = _whole_rows(path, before)
        if not before.strip():
            return before + added
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)
        there = READERS[suffix](path)
        try:
            table = validate(pd.concat([there, rows], ignore_index=True))
        except ResultsError as error:
            raise ResultsError(
                f"{path}: these rows were not added, for with the {len(there)} that are there {error}"
            ) from error
    if suffix == ".jsonl":
        return before + (b"" if before.endswith(b"\n") else b"\n") + added
    return _joined_csv(path, before, rows) if suffix == ".csv" else encode_table(table, suffix)


def _whole_rows(path: Path, content: bytes) -> bytes:
    """Return the content without half a last row, if that is one of ours; anything else that is no row is refused."""
    head, newline, last = content.rpartition(b"\n")
    if not last.strip():
        return content
    try:
        json.loads(last)
    except (ValueError, RecursionError) as error:
        if not _is_torn(last):
            line = content.count(b"\n") + 1
            raise ResultsError(
                f"{path}, line {line} is no row of results ({last[:60]!r}: {error}); append leaves the file as it is: "
                "mend that line, or choose another file"
            ) from error
        return head + newline
    return content


def _is_torn(line: bytes) -> bool:
    """Tell whether a line is the beginning of a row that `write` or `append` would write, and no more than that."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return False
        text = line[: error.start].decode("utf-8")
    if not text.startswith(_FIRST):
        return _FIRST.startswith(text)
    end = len(text)
    while (end := text.rfind(', "', 0, end)) > 0:
        try:
            json.loads(text[:end] + "}")
        except (ValueError, RecursionError):
            continue
        return _TORN_PAIR.match(text[end:]) is not None
    return _TORN_PAIR.match(text) is not None


def _joined_csv(path: Path, before: bytes, rows: pd.DataFrame) -> bytes:
    """Return the file's lines as they are, and the new rows under its header; new columns are added on the right."""
    if before.startswith((b"\xff\xfe", b"\xfe\xff")) or separator(before.decode("utf-8-sig")) != ",":
        raise ResultsError(
            f"{path} is not written with commas in UTF-8, as append would write its rows: write it anew, "
            "rs.results.write(rs.results.read(old), new)"
        )
    text = before.decode("utf-8-sig")
    header = next(row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row)
    new = [column for column in rows.columns if column not in header]
    if new:
        lines = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([*lines[0], *new])
        writer.writerows([*row, *[""] * len(new)] for row in lines[1:])
        before = buffer.getvalue().encode()
    aligned = encode_table(rows.reindex(columns=[*header, *new]), ".csv").partition(b"\n")[2]
    return before + (b"" if before.endswith((b"\n", b"\r")) else b"\n") + aligned
