"""A task of a study: a `Task`, a file of questions, or a name, in a form that can be stored and read elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragscale._files import canonical_json, path_digest
from ragscale.errors import ConfigError
from ragscale.evaluation import PromptTemplate, Task, load_task
from ragscale.evaluation._task_values import task_from, template_from

_ARGUMENTS = ("path_or_name", "kind", "name", "split", "limit", "template", "source")
_INLINE = "task"


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a study is asked; ``text`` is JSON: arguments of `load_task`, or the whole task."""

    text: str

    @classmethod
    def of(cls, given: Any) -> TaskSpec:
        """Return the task that a configuration names.

        Raises
        ------
        ConfigError
            For unknown keys or a template that cannot work.
        """
        if isinstance(given, TaskSpec):
            return given
        if isinstance(given, Task):
            return cls(canonical_json({_INLINE: _json(asdict(given))}))
        if isinstance(given, str | os.PathLike):
            return cls(canonical_json({"path_or_name": os.fspath(given)}))
        if not isinstance(given, Mapping):
            raise ConfigError(f"a task must be a Task, a file, a name or a dictionary, got {given!r}")
        value = {str(name): item for name, item in given.items()}
        if set(value) == {_INLINE}:
            spec = cls(canonical_json(value))
            spec.load()
            return spec
        unknown = sorted(set(value) - set(_ARGUMENTS))
        if unknown or "path_or_name" not in value:
            raise ConfigError(
                f"task {value!r} must have 'path_or_name', and may have {', '.join(_ARGUMENTS[1:])}"
                + (f"; it has {', '.join(map(repr, unknown))}" if unknown else "")
            )
        for name in ("path_or_name", "source"):
            if isinstance(value.get(name), os.PathLike):
                value[name] = os.fspath(value[name])
        if isinstance(value.get("template"), PromptTemplate):
            value["template"] = asdict(value["template"])
        if value.get("template") is not None:
            template_from(value["template"])
        limit = value.get("limit")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ConfigError(f"task {value['path_or_name']!r}: limit = {limit!r} must be a whole number of at least 1")
        try:
            return cls(canonical_json(value))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"task {value!r} cannot be written as JSON: {error}") from None

    @property
    def value(self) -> dict[str, Any]:
        """The arguments, or the whole task under ``"task"``."""
        return json.loads(self.text)

    @property
    def path(self) -> str | None:
        """The file of questions, None for a name or a task that is given whole."""
        given = self.value.get("path_or_name")
        return given if given is not None and Path(given).exists() else None

    def load(self) -> Task:
        """Return the task."""
        value = self.value
        if _INLINE in value:
            return task_from(value[_INLINE])
        template = value.pop("template", None)
        return load_task(**value, template=None if template is None else template_from(template))

    def content(self) -> Any:
        """Return what determines the questions: files by name and digest, the rest as it stands."""
        found = self.value
        for name in ("path_or_name", "source"):
            if isinstance(found.get(name), str) and Path(found[name]).exists():
                found[name] = [Path(found[name]).name, path_digest(found[name])]
        return found

    def to_dict(self) -> Any:
        """Return the shortest JSON-able form."""
        value = self.value
        return value["path_or_name"] if set(value) == {"path_or_name"} else value


def _json(value: Any) -> Any:
    """Return JSON-able values of a task; what `meta` holds beyond JSON is an error that says so."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"this Task cannot be written as JSON ({error}): write it to a file and give its path"
        ) from None
