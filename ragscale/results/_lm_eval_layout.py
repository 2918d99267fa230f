"""What stands in one result file of the lm-evaluation-harness, whichever version since 0.3 wrote it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ragscale.errors import ResultsError
from ragscale.results._metric_names import RISING, kind_of

_DATE = re.compile(r"(\d{4}-\d\d-\d\dT[\d\-:.]+?)\.json$")
_MODEL_KEYS = ("pretrained", "model", "path", "engine", "model_id")
_MADE_OF = ("revision", "subfolder", "peft", "delta")  # another checkpoint or adapter is another model
_NO_METRIC = {"sample_len", "alias", "name", "samples", "sample_count"}
_ALL = "all"  # the average over tasks in files of the leaderboard


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultFile:
    """One file: its content, the model that it says it is of ("" where it does not), and when it was written."""

    path: Path
    content: dict[str, Any]
    model: str
    date: str

    def rows(self, groups: bool) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield each task with its rows; averages over groups of tasks only if asked for."""
        for task, metrics in self.content["results"].items():
            if not isinstance(metrics, dict):
                raise ResultsError(
                    f"{self.path}: results of task {task!r} are a {type(metrics).__name__}, expected metrics"
                )
            if groups or not self._is_group(task):
                rows = list(self._rows_of(task, metrics))
                if rows:
                    yield task, rows

    def _is_group(self, task: str) -> bool:
        members = mapping(self.content, "group_subtasks").get(task)
        if members or task in mapping(self.content, "groups"):
            return True
        return task == _ALL and any("|" in name for name in self.content["results"])

    def _rows_of(self, task: str, metrics: dict[str, Any]) -> Iterator[dict[str, Any]]:
        samples = mapping(mapping(self.content, "n-samples"), task).get("effective", metrics.get("sample_len"))
        counts, rises = mapping(metrics, "sample_count"), mapping(mapping(self.content, "higher_is_better"), task)
        for key, value in metrics.items():
            metric, _, filter_name = key.partition(",")
            if not is_number(value) or metric.endswith("_stderr") or metric in _NO_METRIC:
                continue
            stderr: Any = metrics.get(f"{metric}_stderr" + (f",{filter_name}" if filter_name else ""))
            n: Any = counts.get(key, samples)
            kind, told = kind_of(metric), rises.get(metric)
            yield {
                "task": task,
                "metric": metric,
                "filter": filter_name or "none",
                "value": value,
                "stderr": stderr if is_number(stderr) and math.isfinite(stderr) else float("nan"),
                "n_examples": n if is_number(n) and n > 0 else float("nan"),
                "n_shot": self._n_shot(task),
                "higher_is_better": told if isinstance(told, bool) else None if kind is None else kind in RISING,
            }

    def _n_shot(self, task: str) -> Any:
        for found in (
            mapping(self.content, "n-shot").get(task),
            mapping(mapping(self.content, "configs"), task).get("num_fewshot"),
            mapping(self.content, "config").get("num_fewshot"),
        ):
            if is_number(found):
                return found
        return None


def load(path: Path, *, only_if_it_is_one: bool = False) -> ResultFile | None:
    """Read one file; with ``only_if_it_is_one`` other JSON gives None instead of an error.

    Raises
    ------
    ResultsError
        When the file is no lm-eval result.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if only_if_it_is_one:
            return None
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        if only_if_it_is_one:
            return None
        raise ResultsError(f"{path} is not an lm-eval result file: it has no 'results' of tasks")
    if only_if_it_is_one and not {"versions", "config", "configs", "n-shot", "config_general"} & content.keys():
        return None
    return ResultFile(path=path, content=content, model=_model(content), date=_date(path, content))


def _model(content: dict[str, Any]) -> str:
    """Return the model and checkpoint that a file names; names that lm-eval drew at random count as none."""
    config = mapping(content, "config")
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    if isinstance(arguments, dict) and arguments:
        given = {key.strip(): str(value) for key, value in arguments.items() if value is not None}
        name = next((given[key] for key in _MODEL_KEYS if key in given), "")
        return " ".join([name, *(f"{key}={given[key]}" for key in _MADE_OF if key in given)]).strip()
    if config:
        return ""
    general = mapping(content, "config_general")
    name = content.get("model_name", general.get("model_name"))
    return name if isinstance(name, str) else ""


def _date(path: Path, content: dict[str, Any]) -> str:
    found = _DATE.search(path.name)
    if found:
        return found[1].replace(":", "-")
    date: Any = content.get("date")
    if is_number(date) and 0 < date < 1e11:
        return datetime.fromtimestamp(date, tz=UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    return ""


def mapping(content: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an entry that should be a mapping, an empty one where it is none."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Tell whether a JSON value is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
