"""What the files of a study hold: digests kept in its directory, so that a large corpus is read once."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from ragscale._files import path_digest, read_json, write_json
from ragscale.errors import CheckpointError

_SCHEMA, _VERSION = "ragscale-study-contents", 1


class Contents:
    """Digests of files and folders, by path, size and time.

    A file that is gone keeps the digest that it had: a study whose corpus lies elsewhere by now still knows what was
    done with it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "contents.json"
        self._known: dict[str, Any] = {}
        self._new = False
        with contextlib.suppress(FileNotFoundError, CheckpointError, KeyError):  # a copy of what can be read again
            self._known = read_json(self._path, schema=_SCHEMA, version=_VERSION)["files"]

    def of(self, given: str) -> Any:
        """Return [name, digest] for a path, and what is no path as it is."""
        path = Path(given)
        key = os.path.abspath(path)
        if not path.exists():
            return [path.name, self._known[key]["digest"]] if key in self._known else given
        mark = _mark(path)
        if self._known.get(key, {}).get("mark") != mark:
            self._known[key] = {"mark": mark, "digest": path_digest(path)}
            self._new = True
        return [path.name, self._known[key]["digest"]]

    def knows(self, given: str) -> bool:
        """Tell whether a file is there, or was."""
        return Path(given).exists() or os.path.abspath(given) in self._known

    def save(self) -> None:
        """Keep what was read, where the study's directory exists."""
        if self._new and self._path.parent.is_dir():
            try:
                write_json(self._path, {"files": self._known}, schema=_SCHEMA, version=_VERSION)
            except (OSError, CheckpointError):
                return  # a study that may only be read is read without
            self._new = False


def _mark(path: Path) -> list[Any]:
    """Return what changes when a file, or a file of a folder, is written anew."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [[str(f.relative_to(path)), s.st_size, s.st_mtime_ns] for f in files for s in (f.stat(),)]
