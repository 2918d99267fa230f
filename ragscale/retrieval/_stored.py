"""Small values among a retriever's constructor arguments, as JSON: dataclasses of this package and its functions."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

from ragscale.errors import CheckpointError

_MARK = "ragscale.retrieval"


def to_json(value: Any) -> Any:
    """Return a JSON-able form, or raise TypeError for what is not ours to store."""
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, set | frozenset):
        return {_MARK: "frozenset", "items": sorted(value)}
    if isinstance(value, dict):
        return {_MARK: "dict", "items": [[key, to_json(item)] for key, item in value.items()]}
    if isinstance(value, functools.partial) and not value.args and _ours(value.func):
        return {_MARK: value.func.__name__, "partial": to_json(value.keywords)}
    if dataclasses.is_dataclass(value) and _ours(type(value)):
        fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return {_MARK: type(value).__name__, "fields": fields}
    if inspect.isfunction(value) and _ours(value):
        return {_MARK: value.__name__}
    raise TypeError(f"{value!r} cannot be stored")


def from_json(value: Any) -> Any:
    """Return what `to_json` was given (tuples come back as tuples of what they held)."""
    import ragscale.retrieval

    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    name = value.get(_MARK)
    if name == "frozenset":
        return frozenset(value["items"])
    if name == "dict":
        return {key: from_json(item) for key, item in value["items"]}
    found = getattr(ragscale.retrieval, name, None) if isinstance(name, str) else None
    if found is None:
        raise CheckpointError(f"this ragscale has no ragscale.retrieval.{name}, which the index was saved with")
    if "partial" in value:
        return functools.partial(found, **from_json(value["partial"]))
    if "fields" not in value:
        return found
    return found(**{field: from_json(item) for field, item in value["fields"].items()})


def _ours(value: Any) -> bool:
    """Tell whether a class or function is a public name of ragscale.retrieval."""
    import ragscale.retrieval

    name = getattr(value, "__qualname__", "")
    return getattr(value, "__module__", "").startswith(_MARK) and getattr(ragscale.retrieval, name, None) is value
