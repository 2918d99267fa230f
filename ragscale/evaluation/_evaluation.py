"""What `evaluate` returns: results, samples and how they came about, kept on disk to the last bit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from ragscale._files import check_digest, damaged, file_digests, read_json, whole_folder, write_json
from ragscale.errors import CheckpointError, RagscaleError, ResultsError
from ragscale.results._result import Result, decode, encode

_SCHEMA, _VERSION = "ragscale-evaluation", 2
_CARD = "evaluation.json"
_TABLES = ("results", "samples")
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogatepass", "newline": "\n"}


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result):
    """What `evaluate` returns.

    Attributes
    ----------
    results : DataFrame
        Rows of the results table: ``N, D, R, value, task, metric, seed, stderr, n_examples, k, retriever, condition,
        chance, query, n_shot, hit_rate, answer_in_store, n_cut, prompts, higher_is_better`` and ``N_total``.
    samples : DataFrame
        One row per question, condition and store size, from which every metric can be computed anew.
    info : mapping
        The settings, and how the model was scored.
    """

    results: pd.DataFrame
    samples: pd.DataFrame
    info: Mapping[str, Any] = field(default_factory=dict)

    _picture: ClassVar[str] = "evaluation"
    _absent: ClassVar[Mapping[str, str]] = {
        "to_json": "a row for each question belongs into a folder: save(directory) and load(directory), to the bit"
    }

    def summary(self) -> str:
        """Say what was asked, and the first metric of every task under each condition."""
        tasks = list(dict.fromkeys(self.results["task"])) if len(self.results) else []
        head = f"{_counted(len(self.results), 'result')} from {_counted(len(self.samples), 'sample')}"
        lines = [f"{head} of {self.info['model']}" if "model" in self.info else head]
        for task in tasks[:12]:
            rows = self.results.loc[self.results["task"] == task]
            metric = main_metric(list(dict.fromkeys(rows["metric"])))
            rows = rows.loc[rows["metric"] == metric]
            shown = [f"{_where(row)} {row['value']:.3g}" for _, row in rows.iterrows()]
            more = f", and {len(shown) - 6} more" if len(shown) > 6 else ""
            lines.append(f"{task}: {metric} {', '.join(shown[:6])}{more}")
        if len(tasks) > 12:
            lines.append(f"and {len(tasks) - 12} more tasks")
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """Return the rows of the results table."""
        return self.results.reset_index(drop=True)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``results.jsonl``, ``samples.jsonl`` and ``evaluation.json``, from which `load` restores every bit.

        The directory holds the old evaluation or the whole new one, whatever happens; files of your own stay.

        Raises
        ------
        ResultsError
            When a column cannot be restored as it is, such as one of categories.
        FileError
            When the disk is full or may not be written to.
        """
        directory = Path(directory)
        tables = {name: getattr(self, name) for name in _TABLES}
        card = {
            "info": encode(dict(self.info)),
            "columns": {name: _columns(name, frame) for name, frame in tables.items()},
            "index": {name: _index(frame) for name, frame in tables.items()},
        }
        with whole_folder(directory, ours={_CARD, *(f"{name}.jsonl" for name in _TABLES)}) as folder:
            for name, frame in tables.items():
                with open(folder / f"{name}.jsonl", "w", **_TEXT) as file:
                    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(frame))
            card["files"] = file_digests(folder)
            write_json(folder / _CARD, card, schema=_SCHEMA, version=_VERSION)
        return directory

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Evaluation:
        """Read what `save` wrote: equal frames, types of columns included.

        Raises
        ------
        CheckpointError
            When a file is missing, was changed or is of a layout without the types of columns.
        """
        directory = Path(directory)
        if not (directory / _CARD).exists():
            raise CheckpointError(f"{directory} holds no saved evaluation ({_CARD} is missing)")
        card = read_json(directory / _CARD, schema=_SCHEMA, version=_VERSION)
        if not all(isinstance(card.get(name), dict) for name in ("info", "columns", "index", "files")):
            raise CheckpointError(
                f"{directory} was saved by an older ragscale, without the types of columns: read "
                f"{directory / 'results.jsonl'} with ragscale.results.read"
            )
        try:
            for name, digest in card["files"].items():
                check_digest(directory / name, digest)
            frames = {name: _frame(directory / f"{name}.jsonl", card, name) for name in _TABLES}
            info = decode(card["info"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, RagscaleError):
                raise
            raise CheckpointError(f"{directory} is damaged: {type(error).__name__}: {error}") from error
        return cls(frames["results"], frames["samples"], info)


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def main_metric(metrics: list[str]) -> str:
    """Return the metric of a task that is shown where there is room for one."""
    preferred = ("accuracy", "exact_match", "nll_per_byte", "bits_per_byte")
    return next((name for name in preferred if name in metrics), metrics[0])


def _where(row: Any) -> str:
    size = f" R={row['R']:.3g}" if row.get("R") else ""
    return f"{row.get('condition', '')}{size}".strip() or "all"


def _columns(name: str, frame: pd.DataFrame) -> list[list[str]]:
    """Return name and type of every column; refuse what would not come back."""
    if not frame.columns.is_unique or not all(isinstance(column, str) for column in frame.columns):
        raise ResultsError(f"{name} must have columns with different names of text, got {list(frame.columns)[:20]}")
    bad = [
        f"{column!r} ({dtype})"
        for column, dtype in frame.dtypes.items()
        if str(dtype) not in ("str", "object", "bool") and getattr(dtype, "kind", "") not in ("i", "u", "f")
    ]
    if bad:
        raise ResultsError(f"{name} has columns that cannot be kept exactly: {', '.join(bad)}; convert them first")
    return [[str(column), str(dtype)] for column, dtype in frame.dtypes.items()]


def _index(frame: pd.DataFrame) -> Any:
    if isinstance(frame.index, pd.RangeIndex) and frame.index.equals(pd.RangeIndex(len(frame))):
        return None
    if isinstance(frame.index, pd.MultiIndex):
        raise ResultsError("a table with several index levels cannot be kept exactly: reset_index() first")
    return {"values": encode(frame.index.to_list()), "dtype": str(frame.index.dtype), "name": encode(frame.index.name)}


def _rows(frame: pd.DataFrame) -> Iterable[dict[str, Any]]:
    columns = {str(name): _cells(column) for name, column in frame.items()}
    for row in range(len(frame)):
        yield {name: cells[row] for name, cells in columns.items()}


def _cells(column: pd.Series) -> list[Any]:
    """Return the cells for JSON; in a column of floats or text NaN is null, in one of objects it is told from None."""
    cells = column.tolist()
    if str(column.dtype) == "object":
        return [encode(cell) for cell in cells]
    if str(column.dtype) == "str" or column.dtype.kind == "f":
        return [None if missing else cell for cell, missing in zip(cells, column.isna().tolist(), strict=True)]
    return cells


def _frame(path: Path, card: Mapping[str, Any], name: str) -> pd.DataFrame:
    with damaged(path), open(path, **_TEXT) as file:
        rows = [json.loads(line) for line in file]
    kept = card["index"][name]
    index = pd.RangeIndex(len(rows))
    if kept is not None:
        index = pd.Index(decode(kept["values"]), dtype=kept["dtype"], name=decode(kept["name"]))
    columns = {
        column: pd.Series(
            [decode(row[column]) if dtype == "object" else row[column] for row in rows], dtype=dtype, index=index
        )
        for column, dtype in card["columns"][name]
    }
    return pd.DataFrame(columns, index=index)
