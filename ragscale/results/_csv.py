"""CSV as programs and people write it: commas or semicolons, decimal commas, byte order marks, any line ends."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ragscale.errors import ResultsError

TEXT_COLUMNS = ("task", "metric", "retriever", "condition", "split", "run", "store_source")

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")


def read_csv(path: Path) -> pd.DataFrame:
    """Read with Python's own parser: pandas' does not give every float back exactly, and takes "NA" for a gap.

    Raises
    ------
    ResultsError
        When the file is no text, its lines have different numbers of cells, or it mixes decimal points and commas.
    """
    text = _text(path)
    delimiter = separator(text)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ResultsError(f"{path} is not a CSV table: {error}") from error
    if lines and re.fullmatch(r"sep=.?", "".join(lines[0]).strip()):  # a hint for Excel, not a row
        lines = lines[1:]
    header, *rows = [row for row in lines if row] or [[]]
    uneven = [i for i, row in enumerate(rows, start=2) if len(row) != len(header)]
    if uneven:
        listed = ", ".join(map(str, uneven[:5])) + (", ..." if len(uneven) > 5 else "")
        raise ResultsError(f"{path}: lines {listed} do not have {len(header)} cells, as the header has")
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    if delimiter != ",":
        cells = _with_points(path, header, cells)
    columns = [_parsed(name, column) for name, column in zip(header, cells, strict=True)]
    return pd.concat(columns, axis=1) if columns else pd.DataFrame()


def separator(text: str) -> str:
    """Tell what separates the cells, from the header: a comma, else a semicolon or a tab."""
    first = text.lstrip().partition("\n")[0]
    if hint := re.match(r"\"?sep=([,;\t])", first):
        return hint[1]
    found = {mark: first.count(mark) for mark in ",;\t"}
    return max(found, key=lambda mark: found[mark]) if any(found.values()) else ","


def _text(path: Path) -> str:
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is not a CSV table in UTF-8 (save it as such): {error}") from error


def _with_points(path: Path, header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """Turn decimal commas into points; a column that has both is not guessed at."""
    found = []
    for name, column in zip(header, cells, strict=True):
        commas = [_DECIMAL_COMMA.fullmatch(cell.strip()) is not None for cell in column]
        points = [i for i, cell in enumerate(column) if "." in cell and not commas[i] and _is_number(cell)]
        if any(commas) and points and name not in TEXT_COLUMNS:
            first, other = commas.index(True), points[0]
            raise ResultsError(
                f"{path}: column {name!r} has decimal commas (row {first}: {column[first]!r}) and points (row {other}: "
                f"{column[other]!r}), so neither is certain: write all numbers with a decimal point"
            )
        if not any(commas) or name in TEXT_COLUMNS:
            found.append(list(column))
            continue
        pairs = zip(column, commas, strict=True)
        found.append([cell.strip().replace(",", ".") if is_decimal else cell for cell, is_decimal in pairs])
    return found


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parsed(name: str, column: Sequence[str]) -> pd.Series:
    """Read a column as integers, else floats; where most cells are numbers the others stay visible as text."""
    cells = [cell or None for cell in column]
    if name in TEXT_COLUMNS:
        return pd.Series(cells, name=name, dtype=object)
    for convert, dtype in ((int, "int64"), (float, "float64")):
        try:
            values = [None if c is None else convert(c) for c in cells]
            return pd.Series(values, name=name, dtype=dtype)
        except (ValueError, TypeError, OverflowError):  # text, a gap among integers, or beyond int64
            continue
    numeric = [c is not None and _is_number(c) for c in cells]
    if sum(numeric) * 2 > len(cells):
        mixed = [float(c) if ok and c is not None else c for c, ok in zip(cells, numeric, strict=True)]
        return pd.Series(mixed, name=name, dtype=object)
    return pd.Series(cells, name=name, dtype=object)
