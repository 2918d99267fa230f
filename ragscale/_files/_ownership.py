"""Whose files these are: a folder lists what the library put there, and nothing else in it is ever touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ragscale._files._disk import disk_errors
from ragscale._files._json import read_json, write_json
from ragscale.errors import FileError, RagscaleError

MARK = ".ragscale.json"
_SCHEMA, _VERSION = "ragscale.folder", 1


class OwnedFolder:
    """A folder that may hold files of the user's beside ours: only names that were claimed are ours.

    Parameters
    ----------
    path : Path
        The folder.
    kind : str
        What is made there, e.g. "split".
    error : type of RagscaleError
        Raised when a name is not ours.
    """

    def __init__(self, path: Path, kind: str, *, error: type[RagscaleError] = FileError) -> None:
        self.path, self.kind, self.error = path, kind, error

    def names(self) -> set[str]:
        """Return the names that were claimed."""
        if not (self.path / MARK).is_file():
            return set()
        mark = read_json(self.path / MARK, schema=_SCHEMA, version=_VERSION, error=self.error, fields={"names": list})
        return set(map(str, mark["names"])) if mark.get("kind") == self.kind else set()

    def claim(self, names: Iterable[str]) -> None:
        """Take names of the folder for the library, before anything of that name is made.

        Raises
        ------
        RagscaleError
            When something that was not claimed before has one of the names.
        """
        ours, wanted = self.names(), set(names)
        foreign = sorted(name for name in wanted - ours if os.path.lexists(self.path / name))
        if foreign:
            raise self.error(
                f"{self.path} holds {', '.join(foreign)}, which ragscale did not write and does not overwrite: "
                f"choose another folder, or move what is there"
            )
        if wanted - ours:
            write_json(
                self.path / MARK,
                {"kind": self.kind, "names": sorted(ours | wanted)},
                schema=_SCHEMA,
                version=_VERSION,
            )

    def remove(self, name: str) -> None:
        """Remove a file or folder that was claimed; what is not there is no error."""
        target = self.path / name
        if os.path.lexists(target) and name not in self.names():
            raise self.error(
                f"{target} was not written by ragscale and is not removed: move it, or choose another folder"
            )
        with disk_errors(target, error=self.error):
            _remove(target)

    def put(self, source: Path, name: str) -> None:
        """Move ``source`` to a claimed name, in the place of an older one of ours."""
        self.remove(name)
        with disk_errors(self.path / name, error=self.error):
            os.replace(source, self.path / name)

    def release(self) -> None:
        """Remove the list: something else, like a manifest, now says what is ours."""
        with disk_errors(self.path, error=self.error):
            (self.path / MARK).unlink(missing_ok=True)


def mark_ours(path: Path, kind: str, *, error: type[RagscaleError] = FileError) -> None:
    """Make a folder that is the library's as a whole, or take one that is marked already or empty.

    Raises
    ------
    RagscaleError
        When the folder holds something and bears no mark of this kind.
    """
    if is_ours(path, kind):
        return
    with disk_errors(path, error=error):
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise error(f"{path} holds files that ragscale did not write: give a new or empty folder")
    write_json(path / MARK, {"kind": kind, "names": []}, schema=_SCHEMA, version=_VERSION)


def is_ours(path: Path, kind: str) -> bool:
    """Tell whether `mark_ours` marked the folder with this kind."""
    try:
        return read_json(path / MARK, schema=_SCHEMA, version=_VERSION).get("kind") == kind
    except RagscaleError:
        return False


def remove_ours(path: Path, kind: str, *, error: type[RagscaleError] = FileError) -> None:
    """Remove a folder that bears our mark; what is not there is no error, what is not ours is one."""
    if not os.path.lexists(path):
        return
    if not is_ours(path, kind):
        raise error(f"{path} was not made by ragscale and is not removed: move it, or choose another folder")
    with disk_errors(path, error=error):
        _remove(path)


def _remove(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
