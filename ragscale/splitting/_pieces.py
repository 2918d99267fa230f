"""Pieces of a split's work, each a folder: made under a name of its own, whole or not at all, and checked when used."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragscale._files import attempt_name, check_digest, disk_errors, file_digests, read_json, write_json
from ragscale.errors import RagscaleError, SplitError

START_ANEW = "delete the folder .work of the split and run split_corpus again"
_SCHEMA, _VERSION = "ragscale.split-work", 1
_STATS = "stats.json"


def finished_piece(directory: Path) -> dict[str, Any] | None:
    """Return what `finish_piece` noted, or None where there is no such piece or its files are not as noted."""
    try:
        noted = read_work(directory / _STATS)
        for name, digest in noted["files"].items():
            check_digest(directory / name, digest)
        return noted["stats"]
    except (OSError, RagscaleError, LookupError, AttributeError, TypeError):
        return None


@contextmanager
def piece(directory: Path) -> Generator[Path]:
    """Give an empty folder that takes the name ``directory`` at the end, unless another attempt was faster."""
    temporary = attempt_name(directory)
    try:
        with disk_errors(temporary):
            temporary.mkdir()  # and no folders above it: they are gone when the run is over for which this is made
        yield temporary
        with disk_errors(directory):
            _take_name(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def finish_piece(temporary: Path, stats: dict[str, Any]) -> None:
    """Note the counts of a piece and the digests of its files, last of all."""
    write_work(temporary / _STATS, {"stats": stats, "files": file_digests(temporary)})


def remove_attempts(work: Path) -> None:
    """Remove the attempts of runs that were killed."""
    for left in [*work.glob(".*.tmp"), *work.glob("*/.*.tmp")]:
        shutil.rmtree(left, ignore_errors=True)


def read_work(path: Path) -> dict[str, Any]:
    """Read a file that `write_work` wrote."""
    return read_json(path, schema=_SCHEMA, version=_VERSION, error=SplitError)


def write_work(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object of the work in progress, which a power cut may cost."""
    write_json(path, value, schema=_SCHEMA, version=_VERSION, sync=False)


def _take_name(temporary: Path, directory: Path) -> None:
    for _ in range(3):
        with contextlib.suppress(OSError):
            os.rename(temporary, directory)
            return
        if finished_piece(directory) is not None:
            return
        shutil.rmtree(directory, ignore_errors=True)
    os.rename(temporary, directory)
