"""Import the result files of the lm-evaluation-harness."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results._table import validate


def read_lm_eval(
    path: str | os.PathLike[str], *, N: float, D: float, R: float, groups: bool = False, **columns: Any
) -> pd.DataFrame:
    """Read what ``lm_eval --output_path`` wrote for one model and one store.

    Parameters
    ----------
    path : path
        A ``results_<date>.json`` or a folder that holds some (at any depth). Of several files the newest that has a
        task gives its rows, by the date in the name, which lm-eval writes.
    N, D, R : float
        Parameters of the model, its training tokens, and the tokens of the store it retrieved from. lm-eval knows none
        of them.
    groups : bool
        Also return the averages over groups of tasks (``mmlu``, ...). Off by default: they repeat their members.
    **columns
        Further columns with one value for all rows: ``seed=42, N_total=..., k=5, retriever="bm25"``.

    Returns
    -------
    DataFrame
        One row per task, metric and filter: ``value``, ``stderr`` (NaN where lm-eval has none), ``n_examples``,
        ``n_shot``, ``higher_is_better``, and ``filter`` where a task has any (``"acc,none"`` becomes metric ``acc``).

    Raises
    ------
    ResultsError
        When there is no such file, it is not an lm-eval result, or N, D, R are no counts.

    Warns
    -----
    ResultsWarning
        When older files of the folder were left out.
    """
    reserved = sorted({"task", "metric", "value", "stderr", "filter"} & columns.keys())
    if reserved:
        raise ResultsError(f"{', '.join(reserved)} come from the file and cannot be given: drop these arguments")
    path = Path(path)
    rows: dict[str, list[dict[str, Any]]] = {}
    superseded = 0
    for file in _files(path):
        content = _load(file)
        for task, task_rows in _task_rows(content, groups, file):
            superseded += task in rows
            rows.setdefault(task, task_rows)
    if superseded:
        warnings.warn(
            f"{path} holds several results of {superseded} task{'s' if superseded > 1 else ''}; the newest is taken",
            ResultsWarning,
            stacklevel=2,
        )
    table = pd.DataFrame([row for task_rows in rows.values() for row in task_rows])
    if table.empty:
        raise ResultsError(
            f"{path} holds no metric of any task{'' if groups else ' (groups=True adds group averages)'}"
        )
    if set(table["filter"]) == {"none"}:
        table = table.drop(columns="filter")
    try:
        table = table.assign(N=N, D=D, R=R, **columns)
    except ValueError as error:
        raise ResultsError(f"N, D, R and further columns take one value each: {error}") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no row has R = 0", category=ResultsWarning)
        return validate(table)


def _files(path: Path) -> list[Path]:
    """List result files, newest first."""
    if path.is_dir():
        files = sorted(path.rglob("results_*.json"), key=lambda p: (p.name, str(p)), reverse=True)
        if not files:
            raise ResultsError(f"{path} holds no results_*.json: give the folder that lm_eval --output_path wrote")
        return files
    if not path.is_file():
        raise ResultsError(f"{path} does not exist")
    return [path]


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise ResultsError(f"{file} is not an lm-eval result file: it has no 'results' of tasks")
    return content


def _task_rows(content: dict[str, Any], groups: bool, file: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    members = _mapping(content, "group_subtasks")
    for task, metrics in content["results"].items():
        if not isinstance(metrics, dict):
            raise ResultsError(f"{file}: results of task {task!r} are a {type(metrics).__name__}, expected metrics")
        if members.get(task) and not groups:
            continue
        samples = _mapping(_mapping(content, "n-samples"), task).get("effective", metrics.get("sample_len"))
        rises = _mapping(_mapping(content, "higher_is_better"), task)
        rows = []
        for key, value in metrics.items():
            metric, _, filter_name = key.partition(",")
            if not _is_number(value) or metric.endswith("_stderr") or metric in ("sample_len", "alias", "name"):
                continue
            stderr = metrics.get(f"{metric}_stderr" + (f",{filter_name}" if filter_name else ""))
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": filter_name or "none",
                    "value": value,
                    "stderr": stderr if _is_number(stderr) else float("nan"),
                    "n_examples": samples if _is_number(samples) else float("nan"),
                    "n_shot": _mapping(content, "n-shot").get(task),
                    "higher_is_better": rises.get(metric),
                }
            )
        if rows:
            yield task, rows


def _mapping(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
