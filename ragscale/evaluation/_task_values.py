"""Tasks, questions and templates out of plain values, as they stand in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ragscale.errors import ConfigError
from ragscale.evaluation._example import Example
from ragscale.evaluation._prompts import PromptTemplate
from ragscale.evaluation._tasks import Task


def task_from(value: Mapping[str, Any]) -> Task:
    """Build a task from what ``dataclasses.asdict`` made of one; what does not fit is a ConfigError."""
    parts = dict(value)
    try:
        for name in ("examples", "shots"):
            parts[name] = tuple(example_from(item) for item in parts.get(name, ()))
        if "template" in parts:
            parts["template"] = template_from(parts["template"])
        return Task(**parts)
    except TypeError as error:
        raise ConfigError(f"a task given whole cannot be read: {error}") from None


def example_from(value: Mapping[str, Any]) -> Example:
    """Build a question from its fields; lists become tuples where they were."""
    tuples = {item.name for item in fields(Example) if "tuple" in str(item.type)}
    arguments: dict[str, Any] = {name: tuple(item) if name in tuples else item for name, item in value.items()}
    return Example(**arguments)


def template_from(value: Any) -> PromptTemplate:
    """Build a template from its fields, or take one as it is."""
    if isinstance(value, PromptTemplate):
        return value
    try:
        return PromptTemplate(**value)
    except TypeError:
        known = ", ".join(item.name for item in fields(PromptTemplate))
        raise ConfigError(f"template = {value!r} must hold arguments of PromptTemplate: {known}") from None
