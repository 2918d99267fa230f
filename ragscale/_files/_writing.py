"""Files that are either whole or absent: every attempt has a name of its own and takes the real one at its end."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ragscale._files._disk import disk_errors


def attempt_name(path: Path) -> Path:
    """Return a name beside ``path`` that no other attempt has: of no other process, and no other time."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], mode: str = "wb", *, sync: bool = True, **open_options: Any
) -> Generator[IO[Any]]:
    """Open a temporary file beside ``path`` that takes its place only when the block ends well.

    A reader, or a run that was killed, sees either the old file or the whole new one. The data is synced to disk
    before the rename; without ``sync`` only a kill is survived, not a power cut. On an exception the temporary file
    is removed and ``path`` is untouched.

    Raises
    ------
    FileError
        When the disk is full, read-only or not ours to write to.
    """
    path = Path(path)
    if path.is_symlink():
        path = Path(os.path.realpath(path))  # the file that is meant, not the link to it
    temporary = attempt_name(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, mode, **open_options) as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    if sync:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut, where the file system allows to sync a directory."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
