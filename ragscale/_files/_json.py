"""One way to write JSON, with its own digest, and one to read it that trusts nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from ragscale._files._disk import disk_errors
from ragscale._files._writing import atomic_write
from ragscale.errors import CheckpointError, RagscaleError

SEAL = "content_sha256"
Kinds = type | tuple[type, ...]


def write_json(
    path: str | os.PathLike[str],
    value: dict[str, Any],
    *,
    schema: str,
    version: int,
    seal: bool = True,
    sync: bool = True,
) -> None:
    """Write a JSON object atomically, marked with what it is (``schema``) and the version of its layout.

    With ``seal`` it also carries the digest of its content, so that a change is found when it is read; leave it out
    of files that people edit. ``sync`` as for `atomic_write`.
    """
    content = {"schema": schema, "schema_version": version, **value}
    if seal:
        content[SEAL] = _content_digest(json.loads(json.dumps(content)), os.fspath(path), CheckpointError)
    with atomic_write(path, "w", sync=sync, encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(
    path: str | os.PathLike[str],
    *,
    schema: str,
    version: int,
    error: type[RagscaleError] = CheckpointError,
    fields: Mapping[str, Kinds] | None = None,
) -> dict[str, Any]:
    """Read what `write_json` wrote; another schema, a newer version or damage is an error.

    Parameters
    ----------
    path : path
        The file.
    schema, version
        What it must be, and the newest layout that is understood.
    error : type of RagscaleError
        Raised for anything wrong with the content.
    fields : mapping of str to type or types, optional
        Entries that must be there, and of which type; see `check_fields`.

    Raises
    ------
    RagscaleError
        Of type ``error``, when the file is not JSON, holds another schema, was written by a newer version, does not
        match its own digest, or lacks an entry.
    FileError
        When it cannot be read; also a FileNotFoundError when there is none.
    """
    name = os.fspath(path)
    value = load_json(path, error=error)
    found = (value.get("schema"), value.get("schema_version")) if isinstance(value, dict) else (None, None)
    if found[0] != schema:
        raise error(f"{name} holds {found[0]!r}, expected {schema!r}")
    if not isinstance(found[1], int) or isinstance(found[1], bool) or found[1] > version:
        raise error(f"{name} has layout version {found[1]!r}, this ragscale reads up to {version}: upgrade ragscale")
    seal = value.pop(SEAL, None)
    if seal is not None and seal != _content_digest(value, name, error):
        raise error(f"{name} does not match its own digest: it was changed or damaged")
    if fields is not None:
        check_fields(value, fields, name=name, error=error)
    return value


def load_json(path: str | os.PathLike[str], *, error: type[RagscaleError] = CheckpointError) -> Any:
    """Read any JSON file; what is none is an error that names it."""
    with disk_errors(path, "read"), open(path, "rb") as file:
        data = file.read()
    return parse_json(data, name=os.fspath(path), error=error)


def parse_json(data: bytes | str, *, name: str, error: type[RagscaleError] = CheckpointError) -> Any:
    """Parse JSON text; what is none, or too deeply nested to be ours, is an error that names where it stands."""
    try:
        return json.loads(data.decode("utf-8-sig") if isinstance(data, bytes) else data)
    except (ValueError, RecursionError) as problem:
        raise error(f"{name} is damaged or not JSON: {problem}") from problem


def check_fields(
    value: Any, fields: Mapping[str, Kinds], *, name: str, error: type[RagscaleError] = CheckpointError
) -> None:
    """Raise unless ``value`` is an object with these entries, naming every one that is missing or of another type.

    A whole number counts as a float; true and false count as nothing but bool.

    Examples
    --------
    >>> check_fields({"n": 1, "x": 2}, {"n": int, "x": (float, type(None))}, name="a.json")
    >>> check_fields({"n": "1"}, {"n": int, "x": float}, name="a.json")
    Traceback (most recent call last):
    ragscale.errors.CheckpointError: a.json is damaged: 'n' holds str, expected int; 'x' is missing
    """
    if not isinstance(value, dict):
        raise error(f"{name} is damaged: expected an object, got {type(value).__name__}")
    problems = []
    for field, kinds in fields.items():
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        if field not in value:
            problems.append(f"{field!r} is missing")
        elif not _is_one_of(value[field], allowed):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            problems.append(f"{field!r} holds {type(value[field]).__name__}, expected {wanted}")
    if problems:
        raise error(f"{name} is damaged: {'; '.join(problems)}")


def _is_one_of(value: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds or object in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)


@contextmanager
def damaged(path: str | os.PathLike[str], error: type[RagscaleError] = CheckpointError) -> Generator[None]:
    """Report what fails while a file's content is made into objects as damage of that file.

    For content whose every entry cannot be checked beforehand, like arrays in a library's own format. Errors of the
    library pass as they are.
    """
    try:
        with disk_errors(path, "read", error=error):
            yield
    except (RagscaleError, MemoryError):
        raise
    except Exception as problem:
        raise error(f"{os.fspath(path)} is damaged: {type(problem).__name__}: {problem}") from problem


def _content_digest(value: dict[str, Any], name: str, error: type[RagscaleError]) -> str:
    """Return the digest of parsed JSON, NaN and infinities included."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except RecursionError as problem:
        raise error(f"{name} is damaged: it is nested too deeply") from problem
    return hashlib.sha256(text.encode()).hexdigest()
