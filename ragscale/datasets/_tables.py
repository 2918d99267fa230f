"""Bundled tables: numbers that others published, with their source, units and licence."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from ragscale import results
from ragscale.errors import ConfigError

_TABLES = resources.files("ragscale.datasets") / "tables"


@cache
def _registry() -> dict[str, dict[str, Any]]:
    return json.loads((_TABLES / "registry.json").read_text(encoding="utf-8"))["tables"]


def list() -> pd.DataFrame:
    """List the bundled tables.

    Returns
    -------
    DataFrame
        Indexed by name: ``title, rows, canonical`` (whether it has N, D, R and value), ``licence, source, reference``.
        Only tables under MIT, Apache-2.0 or CC-BY-4.0 (cite ``reference``), and plain figures printed in papers, are
        bundled.

    Examples
    --------
    >>> from ragscale import datasets
    >>> datasets.list().loc["gemstones", "licence"]
    'MIT'
    """
    columns = ["title", "rows", "canonical", "licence", "source", "commit", "reference"]
    return pd.DataFrame({c: {name: entry[c] for name, entry in _registry().items()} for c in columns}).rename_axis(
        "name"
    )


def load(name: str) -> pd.DataFrame:
    """Load a bundled table.

    Parameters
    ----------
    name : str
        A name from `list`.

    Returns
    -------
    DataFrame
        Where the source states N and D, a results table with ``N, D, R, value`` (R = 0 where nothing was retrieved) and
        further columns; else (``attrs["canonical"]`` is False) the published columns. ``attrs`` has ``name, title,
        source, commit, reference, licence, units, notes``.

    Raises
    ------
    ConfigError
        When no table has that name.

    Examples
    --------
    >>> from ragscale import datasets
    >>> table = datasets.load("datablations")
    >>> table[["N", "D", "R", "value"]].shape, table.attrs["licence"]
    ((296, 4), 'Apache-2.0')
    """
    registry = _registry()
    if name not in registry:
        close = difflib.get_close_matches(str(name), registry, n=1)
        hint = f", did you mean {close[0]!r}?" if close else "."
        raise ConfigError(f"there is no table {name!r}{hint} The tables are: {', '.join(registry)}")
    entry = registry[name]
    with (_TABLES / entry["file"]).open("r", encoding="utf-8") as file:
        table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    if entry["canonical"]:
        table = results.validate(table if "R" in table else table.assign(R=0.0))
    table.attrs = {"name": name, **{k: v for k, v in entry.items() if k not in ("file", "rows")}}
    return table
