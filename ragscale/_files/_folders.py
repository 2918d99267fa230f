"""Folders that are either whole or absent, and that replace an older one without a moment in which neither is there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from ragscale._files._disk import disk_errors
from ragscale._files._writing import attempt_name, sync_directory
from ragscale.errors import FileError, RagscaleError

_LEFT_BEHIND = r"\.{name}\.\d+-[0-9a-f]{{8}}\.{ending}"


@contextmanager
def whole_folder(
    path: Path,
    *,
    ours: Iterable[str] | None = None,
    error: type[RagscaleError] = FileError,
    size: int | None = None,
    advice: str = "",
) -> Generator[Path]:
    """Give an empty folder beside ``path`` to fill; it takes that name when the block ends well.

    Whoever looks, or is killed, finds the old folder or the whole new one.

    Parameters
    ----------
    path : Path
        The folder; one that is there is replaced.
    ours : iterable of str, optional
        The files below an older folder that the library wrote. All others are the user's: they are carried over.
        Without it the whole of an older folder counts as ours.
    error, size, advice
        As for `disk_errors`.
    """
    temporary = attempt_name(path)
    with disk_errors(path, error=error, size=size, advice=advice):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            if path.is_dir() and ours is not None:
                _carry_over(path, temporary, set(ours))
            for file in temporary.rglob("*"):
                _sync(file)
            sync_directory(temporary)
            replace_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Let the folder ``new`` take the name ``path``; an older folder of that name goes."""
    recover_folder(path)
    if not path.exists():
        os.replace(new, path)
    elif _exchange(new, path):
        shutil.rmtree(new, ignore_errors=True)
    else:
        # between the two renames nothing has the name: `recover_folder` finds the old one if we are killed there
        aside = attempt_name(path).with_suffix(".old")
        os.rename(path, aside)
        os.rename(new, path)
        shutil.rmtree(aside, ignore_errors=True)
    sync_directory(path.parent)


def recover_folder(path: Path) -> None:
    """Give a folder its name back whose replacement was killed between two renames; else do nothing."""
    if path.exists():
        return
    aside = _left_behind(path, "old")
    if len(aside) == 1:
        with contextlib.suppress(OSError):
            os.rename(aside[0], path)


def remove_leftovers(path: Path) -> None:
    """Remove what killed attempts at writing ``path`` left beside it; call it only where no other attempt can run."""
    for left in _left_behind(path, "tmp") + (_left_behind(path, "old") if path.exists() else []):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _left_behind(path: Path, ending: str) -> list[Path]:
    pattern = re.compile(_LEFT_BEHIND.format(name=re.escape(path.name), ending=ending))
    with contextlib.suppress(OSError):
        return sorted(entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name))
    return []


def _carry_over(old: Path, new: Path, ours: set[str]) -> None:
    for file in old.rglob("*"):
        name = file.relative_to(old)
        if file.is_dir() and not file.is_symlink():
            continue
        if name.as_posix() not in ours and not (new / name).exists():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, new / name, follow_symlinks=False)


def _sync(file: Path) -> None:
    if file.is_file():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        first, second = os.fsencode(os.path.abspath(one)), os.fsencode(os.path.abspath(other))
        if sys.platform == "linux":
            return libc.renameat2(-100, first, -100, second, 2) == 0  # AT_FDCWD, RENAME_EXCHANGE
        if sys.platform == "darwin":
            return libc.renamex_np(first, second, 2) == 0  # RENAME_SWAP
    return False
