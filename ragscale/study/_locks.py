"""Locks that the system drops when a process ends, however it ends; on POSIX and on Windows."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ragscale._files import Busy, locked
from ragscale.errors import ConfigError, FileError


@contextmanager
def only_run(root: Path) -> Generator[None]:
    """Hold the study's lock.

    Raises
    ------
    ConfigError
        When another run holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        if not _lock(descriptor):
            raise ConfigError(f"another run of the study in {root} is going on: wait for it, or stop it")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def only_worker(folder: Path) -> Generator[None]:
    """Hold a job's lock; wait for a worker that outlived its killed run, whose work is then taken over."""
    with locked(folder / ".lock"):
        yield


def is_held(path: Path) -> bool:
    """Tell whether some process holds a job's lock now."""
    if not path.exists():
        return False
    try:
        with locked(path, wait=False):
            return False
    except (Busy, FileError):
        return True


def _lock(descriptor: int) -> bool:
    """Take a lock that ends with the descriptor; return whether it was taken."""
    try:
        import fcntl
    except ImportError:
        return _lock_windows(descriptor)
    try:
        # unlike flock it is the process's own: workers that are forked meanwhile, and outlive it, do not share it
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_windows(descriptor: int) -> bool:
    import msvcrt

    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined] - of Windows alone
    except OSError:
        return False
    return True
