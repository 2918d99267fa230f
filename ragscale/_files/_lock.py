"""One lock for every platform: between processes, freed by the system when its holder dies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ragscale._files._disk import disk_errors
from ragscale.errors import RagscaleError


class Busy(RagscaleError):
    """Another process holds the lock."""


@contextmanager
def locked(path: str | os.PathLike[str], *, wait: bool = True, keep: bool = True) -> Generator[None]:
    """Hold the lock file ``path`` for the block.

    Parameters
    ----------
    path : path
        The lock file; made if need be, and never written to.
    wait : bool
        Wait for another holder; else raise `Busy` at once.
    keep : bool
        Leave the empty file there; else the last holder removes it (safe: whoever waits looks whether it still is the
        file that has the name).

    Raises
    ------
    Busy
        When another process, or another block of this one, holds it and ``wait`` is False.
    FileError
        When the file cannot be made.
    """
    import filelock

    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except filelock.Timeout as error:
            raise Busy(f"{path} is held by another process") from error
    try:
        yield
    finally:
        if not keep:
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()
