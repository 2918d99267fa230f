"""What names a file or folder, or what to call instead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ragscale.errors import ResultsError


def as_path(given: Any, instead: str = "") -> Path:
    """Return a path, or say that something else was given and what takes that.

    Raises
    ------
    ResultsError
        When it is neither text nor a path.
    """
    if isinstance(given, bytes):
        return Path(os.fsdecode(given))
    if isinstance(given, (str, os.PathLike)):
        return Path(given)
    advice = f": {instead}" if instead else ""
    raise ResultsError(f"expected the path of a file, got {type(given).__name__}{advice}")
