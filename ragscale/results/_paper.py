"""Import the aggregated result files of the published RAG scaling study."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results._metric_names import RISING, kind_of
from ragscale.results._path import as_path
from ragscale.results._table import validate

_COLUMNS = ("variant", "index_label", "task", "metric_key", "metric_value", "model_scale")
_FILE = re.compile(r"^aggregated_(?P<size>[\d.]+[kmbt])(?:_seed(?P<seed>\d+))?(?:_k(?P<k>\d+))?$", re.IGNORECASE)
_AMOUNT = re.compile(r"^(?P<number>\d+(?:\.\d+)?)(?P<unit>[kmbtx])(?:_?tok(?:ens)?)?$", re.IGNORECASE)
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_DEFAULT_SEED = 42  # the study's configs; only the other seeds are in the file names


def read_paper_csv(directory: str | os.PathLike[str]) -> pd.DataFrame:
    """Read ``aggregated_<size>[_seed<n>]_k<k>.csv`` files, the layout of the study's plotting scripts.

    Their columns are ``variant, index_label, task, metric_key, metric_value, model_scale``. N is the size in the file
    name (nominal: the study's own N), D = model_scale * N, and R is read from the index label: ``baseline`` is 0,
    ``728M_tok`` is 728e6 tokens, and ``2x`` is 2 N (the study's script reads ``2x`` as two tokens). Files without a
    seed are seed 42, the default of the study's configs. The study's R counts overlapping chunks, so it is larger than
    the number of unique tokens, by up to 3.5 times.

    Parameters
    ----------
    directory : path
        A folder of such files (not searched deeper), or one file.

    Returns
    -------
    DataFrame
        With ``task, metric, seed, k, condition`` (``closed-book`` for the baseline, else ``retrieved``), and ``filter``
        when a metric key names one. No standard errors: the files have none.

    Raises
    ------
    ResultsError
        Listing every file name, column, label or number that cannot be read.

    References
    ----------
    "To Memorize or to Retrieve", arXiv 2604.00715; github.com/DegenAI-Labs/RAG-Scaling-Laws,
    aggregate_plot_results.py.
    """
    directory = as_path(directory)
    files = sorted(directory.glob("aggregated_*.csv")) if directory.is_dir() else [directory]
    if not files:
        raise ResultsError(f"{directory} holds no aggregated_*.csv")
    problems: list[str] = []
    tables = [_read_file(file, problems) for file in files]
    if problems:
        raise ResultsError(
            f"{directory} cannot be read:\n" + "\n".join(f"  {i}. {p}" for i, p in enumerate(problems, 1))
        )
    tables = [t for t in tables if t is not None]
    if not tables:
        raise ResultsError(f"{directory}: the files have no rows")
    table = pd.concat(tables, ignore_index=True)
    if set(table["filter"]) == {"none"}:
        table = table.drop(columns="filter")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no row has R = 0", category=ResultsWarning)
        return validate(table)


def _read_file(file: Path, problems: list[str]) -> pd.DataFrame | None:
    match = _FILE.match(file.stem)
    if match is None:
        problems.append(f"{file.name}: the name is not aggregated_<size>[_seed<n>][_k<k>].csv, so N is unknown")
        return None
    try:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8")
    except (ValueError, OSError) as error:
        problems.append(f"{file.name} is not a CSV table: {error}")
        return None
    missing = [c for c in _COLUMNS if c not in frame.columns]
    if missing:
        problems.append(f"{file.name}: column{'s' * (len(missing) > 1)} {', '.join(missing)} missing")
        return None
    n = _tokens(match["size"], 1.0)
    rows: list[dict[str, Any]] = []
    for line, row in enumerate(frame.to_dict("records"), start=2):
        d = _tokens(str(row["model_scale"]), n)
        r = 0.0 if row["index_label"] == "baseline" else _tokens(str(row["index_label"]), n)
        value = _number(str(row["metric_value"]))
        for name, parsed in (("model_scale", d), ("index_label", r), ("metric_value", value)):
            if not np.isfinite(parsed):
                problems.append(f"{file.name}, line {line}: cannot read {name} {row[name]!r}")
        if row["variant"] not in ("baseline", "rag") or (row["variant"] == "baseline") != (r == 0):
            problems.append(
                f"{file.name}, line {line}: variant {row['variant']!r} with index_label {row['index_label']!r}, "
                "expected baseline with baseline, or rag with a store size"
            )
        metric, _, filter_name = str(row["metric_key"]).partition(",")
        rows.append(
            {
                "N": n,
                "D": d,
                "R": r,
                "value": value,
                "task": row["task"],
                "metric": metric,
                "higher_is_better": None if (kind := kind_of(metric)) is None else kind in RISING,
                "filter": filter_name or "none",
                "seed": int(match["seed"] or _DEFAULT_SEED),
                "k": int(match["k"]) if match["k"] else pd.NA,
                "condition": "closed-book" if r == 0 else "retrieved",
            }
        )
    return pd.DataFrame(rows).astype({"k": "Int64"}) if rows else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _tokens(label: str, n: float) -> float:
    """Read ``728M_tok``, ``1.5B`` or, as a multiple of ``n``, ``10x``; NaN when it is none of them."""
    match = _AMOUNT.match(label.strip())
    if match is None:
        return float("nan")
    number, unit = float(match["number"]), match["unit"].lower()
    return round(number * (n if unit == "x" else _UNITS[unit]), 3)  # 0.728b is 728,000,000 exactly
