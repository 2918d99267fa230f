"""SHA-256 of files, folders and values, and the check that a file still is what it was."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from ragscale._files._disk import disk_errors
from ragscale.errors import CheckpointError, RagscaleError

_SETTLED = 2_000_000_000  # nanoseconds: two changes in one tick of a file system's clock look like one
_VERIFIED: dict[tuple[str, int, int, int], str] = {}


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with disk_errors(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, or of the names and digests of all files below a directory."""
    path = Path(path)
    if not path.is_dir():
        return file_digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return value_digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])


def file_digests(directory: Path) -> dict[str, str]:
    """Return {path below the directory: SHA-256} of all files in it."""
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    return {file.relative_to(directory).as_posix(): file_digest(file) for file in files}


def check_size(path: Path, size: int, *, error: type[RagscaleError] = CheckpointError) -> None:
    """Raise unless there is a file of exactly this many bytes."""
    if not path.is_file():
        raise error(f"{path} is missing")
    with disk_errors(path, "read", error=error):
        found = path.stat().st_size
    if found != size:
        raise error(f"{path} is damaged: it has {found:,} bytes, {size:,} were written")


def check_digest(path: Path, digest: str, *, error: type[RagscaleError] = CheckpointError) -> None:
    """Raise unless the file has this SHA-256; a file is read once, and again only after it was touched."""
    if not path.is_file():
        raise error(f"{path} is missing")
    with disk_errors(path, "read", error=error):
        status = path.stat()
        key = (os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns)
        if _VERIFIED.get(key) != digest:
            if file_digest(path) != digest:
                raise error(f"{path} is damaged: it does not match its digest {digest[:12]}")
            if time.time_ns() - status.st_mtime_ns > _SETTLED:
                _VERIFIED[key] = digest


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def value_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value in hexadecimal, independent of key order."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
