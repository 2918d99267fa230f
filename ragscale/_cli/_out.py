"""Text for people, on standard output."""

from __future__ import annotations

import sys
from typing import Any


def say(text: Any) -> None:
    """Write one text and a line end."""
    sys.stdout.write(f"{text}\n")


def say_table(frame: Any, *, columns: list[str] | None = None, empty: str = "") -> None:
    """Write a table without its index; long texts are cut to the width of the screen's cells."""
    if len(frame) == 0:
        if empty:
            say(empty)
        return
    shown = frame[columns] if columns is not None else frame
    say(shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}", max_colwidth=70))
