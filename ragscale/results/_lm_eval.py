"""Import the result files of the lm-evaluation-harness."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results._lm_eval_layout import ResultFile, load
from ragscale.results._path import as_path
from ragscale.results._table import validate


def read_lm_eval(
    path: str | os.PathLike[str], *, N: float, D: float, R: float, groups: bool = False, **columns: object
) -> pd.DataFrame:
    """Read what ``lm_eval --output_path`` wrote for one model and one store.

    Parameters
    ----------
    path : path
        A result file of any version since 0.3, or a folder that holds some (at any depth): ``results_<date>.json``,
        ``results.json``, or any other name. Of several files the newest that has a task gives its rows, by the date in
        its name or inside.
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
        One row per task, metric and filter: ``value``, ``stderr`` and ``n_examples`` (NaN where the file has none, as
        before 0.4.3), ``n_shot``, ``higher_is_better`` (from the file, else from the metric's name), and ``filter``
        where a task has any (``"acc,none"`` becomes metric ``acc``).

    Raises
    ------
    ResultsError
        When there is no such file, it is not an lm-eval result, N, D, R are no counts, the files are of several models
        or checkpoints, or several have a task and none says when it was written.

    Warns
    -----
    ResultsWarning
        When older files of the folder, or values that are not finite, were left out.
    """
    reserved = sorted({"task", "metric", "value", "stderr", "filter"} & columns.keys())
    if reserved:
        raise ResultsError(f"{', '.join(reserved)} come from the file and cannot be given: drop these arguments")
    path = as_path(path, "read one file or folder of one model at a time, and join with pd.concat")
    rows = _finite(path, _newest(path, _files(path), groups))
    table = pd.DataFrame(rows)
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


def _files(path: Path) -> list[ResultFile]:
    """Return the result files of one model, newest first."""
    if not path.is_dir():
        if not path.is_file():
            raise ResultsError(f"{path} does not exist")
        return [file for file in (load(path),) if file]
    named = sorted(path.rglob("results*.json"))
    found = [load(file) for file in named] or [
        load(file, only_if_it_is_one=True) for file in sorted(path.rglob("*.json"))
    ]
    files = [file for file in found if file]
    if not files:
        raise ResultsError(
            f"{path} holds no results_*.json, results.json or other lm-eval result: give the folder or the file that "
            "lm_eval --output_path wrote"
        )
    _check_one_model(path, files)
    return sorted(files, key=lambda file: (file.date, str(file.path)), reverse=True)


def _check_one_model(path: Path, files: Sequence[ResultFile]) -> None:
    of_model: dict[str, Path] = {}
    for file in files:
        if file.model:
            of_model.setdefault(file.model, file.path.parent if file.path.parent != path else file.path)
    if len(of_model) > 1:
        listed = "; ".join(f"{model} in {where}" for model, where in list(of_model.items())[:6])
        raise ResultsError(
            f"{path} holds results of {len(of_model)} models, and N and D are of one: {listed}. Read each by itself"
        )
    folders = sorted({file.path.parent.relative_to(path).as_posix() for file in files})
    if len(folders) > 1 and not all(file.model for file in files):
        listed = ", ".join(folders[:6]) + (", ..." if len(folders) > 6 else "")
        warnings.warn(
            f"{path} holds results in {len(folders)} folders ({listed}), and not all files name their model: they are "
            "taken as those of one. If they are not, read each by itself",
            ResultsWarning,
            stacklevel=4,
        )


def _newest(path: Path, files: Sequence[ResultFile], groups: bool) -> list[dict[str, Any]]:
    """Return the rows of every task from the newest file that has it."""
    taken: dict[str, ResultFile] = {}
    rows: list[dict[str, Any]] = []
    superseded = 0
    for file in files:
        for task, task_rows in file.rows(groups):
            newer = taken.setdefault(task, file)
            if newer is file:
                rows += task_rows
                continue
            superseded += 1
            if not file.date:
                raise ResultsError(
                    f"{path}: {newer.path.name} and {file.path.name} both have task {task!r}, and no date says which "
                    "is newer: give the file to read"
                )
    if superseded:
        warnings.warn(
            f"{path} holds several results of {superseded} task{'s' if superseded > 1 else ''}; the newest is taken",
            ResultsWarning,
            stacklevel=3,
        )
    return rows


def _finite(path: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out metrics that are infinite or no number, and say which."""
    bad = [row for row in rows if not math.isfinite(row["value"])]
    if bad:
        listed = ", ".join(f"{row['task']} {row['metric']} = {row['value']}" for row in bad[:4])
        warnings.warn(
            f"{path}: {len(bad)} values are not finite and left out ({listed}{', ...' if len(bad) > 4 else ''})",
            ResultsWarning,
            stacklevel=3,
        )
    return [row for row in rows if math.isfinite(row["value"])]
