"""A study's configuration in a file: JSON or YAML, written by hand or by `StudyConfig.write`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ragscale._extras import require
from ragscale.errors import CheckpointError, ConfigError

SCHEMA = "ragscale-study"
VERSION = 2


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings in a file.

    Raises
    ------
    ConfigError
        When it is no JSON or YAML of a dictionary; a key that stands twice is an error too.
    CheckpointError
        When a newer ragscale wrote it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file cannot be read: {error}") from error
    if path.suffix.lower() in {".yaml", ".yml"}:
        value = _yaml(text)
    else:
        try:
            value = json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"this is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"the file must hold the arguments of StudyConfig by name, got a {type(value).__name__}")
    if "schema" not in value:
        return value
    if value["schema"] != SCHEMA:
        raise ConfigError(f"the file holds {value['schema']!r}, expected {SCHEMA!r}")
    version = value.get("schema_version")
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(f"{path} has layout version {version!r}, this ragscale reads up to {VERSION}: upgrade it")
    if not isinstance(value.get("config"), dict):
        raise ConfigError("the file has no 'config'")
    return value["config"]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands twice")
    return dict(pairs)


def _yaml(text: str) -> Any:
    """Read YAML with numbers as people write them: PyYAML takes 5e6 for a text, and the last of two equal keys."""
    yaml = require("yaml", "study")

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any) -> Any:
        loader.flatten_mapping(node)
        return _once(
            [(loader.construct_object(k, deep=True), loader.construct_object(v, deep=True)) for k, v in node.value]
        )

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    try:
        return yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"this is not YAML: {error}") from None
