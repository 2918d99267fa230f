"""Files that are either whole or absent: atomic writes, digests, versioned JSON."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ragscale.errors import CheckpointError


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb", **open_options: Any) -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that takes its place only when the block ends well.

    A reader, or a run that was killed, sees either the old file or the whole new one. The data is synced to disk
    before the rename. On an exception the temporary file is removed and ``path`` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, mode, **open_options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut, where the file system allows to sync a directory."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, or of the names and digests of all files below a directory."""
    path = Path(path)
    if not path.is_dir():
        return file_digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return value_digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def value_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value in hexadecimal, independent of key order."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_json(path: str | os.PathLike[str], value: dict[str, Any], *, schema: str, version: int) -> None:
    """Write a JSON object atomically, marked with what it is (``schema``) and the version of its layout."""
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump({"schema": schema, "schema_version": version, **value}, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(path: str | os.PathLike[str], *, schema: str, version: int) -> dict[str, Any]:
    """Read what `write_json` wrote; another schema, a newer version or damage is an error.

    Raises
    ------
    CheckpointError
        When the file is not JSON, holds another schema, or was written by a newer version.
    FileNotFoundError
        When there is no such file.
    """
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except ValueError as error:
        raise CheckpointError(f"{os.fspath(path)} is damaged or not JSON: {error}") from error
    found = (value.get("schema"), value.get("schema_version")) if isinstance(value, dict) else (None, None)
    if found[0] != schema:
        raise CheckpointError(f"{os.fspath(path)} holds {found[0]!r}, expected {schema!r}")
    if not isinstance(found[1], int) or found[1] > version:
        raise CheckpointError(
            f"{os.fspath(path)} has layout version {found[1]!r}, this ragscale reads up to {version}: upgrade ragscale"
        )
    return value
