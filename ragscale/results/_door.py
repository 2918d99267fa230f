"""The one door for tables: whatever holds rows becomes a DataFrame, or is refused with what to call."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ragscale._typing import ResultsLike
from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results._metric_names import kind_of
from ragscale.results._read import read_frame

_CALLS = {
    "toPandas": "toPandas()",  # Spark
    "compute": "compute()",  # Dask
    "collect": "collect()",  # a lazy Polars frame
    "to_pandas": "to_pandas()",
    "to_dataframe": "to_dataframe()",  # xarray, BigQuery
    "get_dataframe": "get_dataframe()",  # a W&B table
    "df": "df()",  # DuckDB
}
_SAFE = ("to_pandas", "to_dataframe", "get_dataframe", "df")  # in memory already
_COUNTERS = frozenset({"index", "row", "rows", "row_id", "rowid", "row_number", "rownames", "id", "idx", "i", "#"})
_LIKELY = {
    "N": "n params n_params num_params parameters n_parameters num_parameters model_size model_params size "
    "params_count param_count non_embedding_params active_params N_total",
    "D": "d tokens n_tokens num_tokens train_tokens training_tokens tokens_seen n_train_tokens pretraining_tokens "
    "total_tokens dataset_size data_size",
    "R": "r store store_size store_tokens n_store_tokens datastore datastore_size datastore_tokens retrieval_tokens "
    "retrieval_store index_size index_tokens knowledge_base_size corpus_size n_retrieval_tokens",
    "value": "loss val_loss valid_loss eval_loss test_loss train_loss final_loss metric_value score y result",
}


_SOUNDS_LIKE = {
    "N": (r"(^|_)n?params?(_|$)|parameters", r"(^|_)per(_|$)"),
    "D": (
        r"(^|_)tokens?(_|$)",
        r"store|retriev|index|corpus|knowledge|vocab|batch|seq|context|(^|_)(per|max|new)(_|$)",
    ),
}


def as_frame(results: ResultsLike) -> pd.DataFrame:
    """Return what was given as a DataFrame with text column names and a fresh index, or say why it is no table.

    Counts that stand in a named index become columns; columns that only number the rows are dropped with a warning.
    """
    frame = _columns_of_index(_to_pandas(results))
    frame.columns = [c if isinstance(c, str) else str(c) for c in frame.columns]
    frame.attrs = dict(getattr(results, "attrs", {})) if isinstance(results, (pd.DataFrame, pd.Series)) else {}
    return _without_row_numbers(_without_halves(frame))


def _without_halves(frame: pd.DataFrame) -> pd.DataFrame:
    """Widen half floats, which pandas can neither sort nor group by."""
    halves = [i for i, dtype in enumerate(frame.dtypes) if dtype == np.float16]
    if halves:
        frame = frame.copy()
        for i in halves:
            frame.isetitem(i, frame.iloc[:, i].astype(np.float64))
    return frame


def _to_pandas(results: Any) -> pd.DataFrame:
    if isinstance(results, (str, os.PathLike)):
        return _read(results)
    if isinstance(results, pd.Series):
        return results.to_frame(results.name if results.name is not None else "value")
    if isinstance(results, pd.DataFrame):
        return results.copy()
    kind = type(results)
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    found = next((call for call in _CALLS if callable(getattr(results, call, None))), None)
    if found and not isinstance(results, (dict, list, tuple, np.ndarray)):
        advice = f"a {name} is no pandas DataFrame; give results.{_CALLS[found]}"
        if found not in _SAFE:
            raise ResultsError(advice)
        try:
            made = getattr(results, found)()
        except Exception as error:
            raise ResultsError(f"{advice} (called here it failed: {type(error).__name__}: {error})") from error
        if isinstance(made, pd.DataFrame):
            return made
        raise ResultsError(advice)
    try:
        return pd.DataFrame(results)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ResultsError(
            "expected a table (DataFrame, dict of columns, list of rows, Arrow or Polars table, or the path of a "
            f"file), got {kind.__name__}: {error}"
        ) from error


def _read(path: Any) -> pd.DataFrame:
    path = Path(os.fspath(path) if not isinstance(path, bytes) else os.fsdecode(path))
    if not os.path.lexists(path) and not path.suffix:
        raise ResultsError(f"{str(path)!r} is no table, and no file of that name exists to read with rs.results.read")
    return read_frame(path)


def _columns_of_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn named levels of the index into columns, but for one that only numbers the rows."""
    levels = list(frame.index.names)
    kept = [name for name in levels if name is not None and name not in frame.columns]
    if len(levels) == 1 and kept and kept[0] not in _LIKELY and _counts_rows(pd.Series(frame.index)):
        kept = []
    moved = frame.reset_index(level=[i for i, name in enumerate(levels) if name in kept]) if kept else frame
    return moved.reset_index(drop=True)


def _without_row_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop what ``to_csv`` makes of an index, and named row counters: they would tell equal rows apart."""
    numbers = [
        i
        for i, name in enumerate(frame.columns)
        if (_is_index_name(name) and _are_integers(frame.iloc[:, i]))
        or (name.strip().lower() in _COUNTERS and _counts_rows(frame.iloc[:, i]))
    ]
    if not numbers or len(numbers) == len(frame.columns):
        return frame
    names = ", ".join(repr(frame.columns[i]) for i in numbers)
    warnings.warn(
        f"column {names} only numbers the rows and is left out: rows are not told apart by it "
        "(to_csv(index=False) does not write it)",
        ResultsWarning,
        stacklevel=4,
    )
    kept = frame.iloc[:, [i for i in range(len(frame.columns)) if i not in numbers]]
    kept = kept.copy()
    kept.attrs = dict(frame.attrs)
    return kept


def _is_index_name(name: str) -> bool:
    return re.fullmatch(r"|Unnamed: \d+(\.\d+)*|level_\d+|__index_level_\d+__|index", name.strip()) is not None


def _are_integers(column: pd.Series) -> bool:
    return len(column) > 0 and _as_integers(column) is not None


def _counts_rows(column: pd.Series) -> bool:
    numbers = _as_integers(column)
    return numbers is not None and len(numbers) > 1 and numbers[0] in (0, 1) and bool((np.diff(numbers) == 1).all())


def _as_integers(column: pd.Series) -> np.ndarray | None:
    if pd.api.types.is_bool_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(column.dtype):
        return None
    try:
        numbers = column.to_numpy(np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all() else None


def likely(target: str, columns: Any) -> list[str]:
    """Return the columns that are probably meant by N, D, R or value."""
    names = [str(c) for c in columns]
    known = set(_LIKELY[target].split())
    plain = {name: re.sub(r"[^a-z0-9]+", "_", re.sub(r"\(.*\)", "", name).strip().lower()).strip("_") for name in names}
    found = [name for name in names if name != target and plain[name] in known | {target.lower()}]
    if target in _SOUNDS_LIKE:
        sounds, but = _SOUNDS_LIKE[target]
        found += [n for n in names if n not in (*found, "N_total") and re.search(sounds, plain[n])]
        found = [n for n in found if not re.search(but, plain[n])]
    if target == "R":
        found += [n for n in names if n not in found and re.search(r"store|retriev\w*_(size|tokens)", plain[n])]
        found = [n for n in found if n not in ("retriever", "store_source", "answer_in_store")]
    if target == "value":
        found += [n for n in names if n not in (*found, "metric", "hit_rate", "validation_loss") and kind_of(n)]
    return found


_TELLS_APART = {
    "N": "model model_name model_id name arch architecture size_name",
    "D": "step steps global_step n_steps iteration iterations iter epoch epochs checkpoint ckpt",
}


def speaks_of(target: str, frame: pd.DataFrame) -> list[str]:
    """Return the columns that say something of N or D in a table without a column of that name.

    They may be that column under another name, or tell models or checkpoints apart of which N or D would be needed.
    """
    known = set(_TELLS_APART[target].split())
    plain = {str(c): re.sub(r"[^a-z0-9]+", "_", str(c).strip().lower()).strip("_") for c in frame.columns}
    apart = [c for c, name in plain.items() if name in known and int(pd.Series(frame[c]).astype(str).nunique()) > 1]
    return list(dict.fromkeys([*likely(target, frame.columns), *apart]))


def missing_column(target: str, columns: Any) -> str:
    """Say that N, D, R or value is missing, what there is, and what to do."""
    names = [str(c) for c in columns]
    advice = {
        "N": "N counts the model's parameters",
        "D": "D counts the tokens it was pretrained on",
        "R": "if nothing was retrieved, say so: results.assign(R=0)",
        "value": "value is what was measured",
    }[target]
    found = likely(target, [n for n in names if n not in _LIKELY])
    if found:
        advice = f"is it {found[0]!r}? Then rename it, or say {target}={found[0]!r} to fit_manifold" + (
            f"; {advice}" if target == "R" else ""
        )
    return f"column {target!r} is missing; the table has {', '.join(names) or 'no columns'}: {advice}"
