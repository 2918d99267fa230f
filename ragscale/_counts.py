"""The one reading of a count: tokens, passages, steps, in whatever form people write whole numbers."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable
from typing import Any

from ragscale.errors import ConfigError, RagscaleError

_NUMERAL = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MOST = 2**63 - 1  # what an int64 column of a table or an offset in a file holds


def as_count(name: str, value: Any, *, least: int = 0, error: type[RagscaleError] = ConfigError) -> int:
    """Return a whole number as an int, however it is written: ``5000``, ``5e3``, ``np.int64(5000)``, ``"5e3"``.

    YAML reads ``5e3`` as text, hence the numerals. Nothing is rounded, and True is no count.

    Parameters
    ----------
    name : str
        The argument, for the message.
    value : int, whole float, numpy scalar, array or tensor of one such, or a numeral
    least : int
        The smallest that is allowed.
    error : type
        What to raise.

    Examples
    --------
    >>> as_count("D", 5e3), as_count("D", "2.5e3")
    (5000, 2500)
    """
    number = _whole(value)
    if number is None:
        raise error(f"{name} must be a whole number, got {_shown(value)}")
    if number < least:
        raise error(f"{name} must be at least {least:,}, got {_shown(value)}")
    if number > _MOST:
        raise error(f"{name} must be at most {_MOST:,}, got {_shown(value)}")
    return number


def as_counts(name: str, values: Any, *, least: int = 0, error: type[RagscaleError] = ConfigError) -> list[int]:
    """Return one count or several as a list of ints, in the order given; every wrong one is named.

    Examples
    --------
    >>> as_counts("tokens", 3e3), as_counts("tokens", (1000, 2e3))
    ([3000], [1000, 2000])
    """
    if _whole(values) is not None or not isinstance(values, Iterable) or isinstance(values, str | bytes):
        return [as_count(name, values, least=least, error=error)]
    listed = _listed(values)
    problems = []
    counts = []
    for place, value in enumerate(listed):
        try:
            counts.append(as_count(f"{name}[{place}]", value, least=least, error=error))
        except RagscaleError as problem:
            problems.append(str(problem))
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise error("; ".join(problems[:10]) + more)
    return counts


def is_number(value: Any) -> bool:
    """Whether a value is one finite real number; True is none."""
    if isinstance(value, bool | str | bytes) or type(value).__name__ in ("bool", "bool_"):
        return False
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def whole_or_same(value: Any) -> Any:
    """Return a whole number as an int and anything else as it is, for a caller that words its own problem."""
    number = None if value is None else _whole(value)
    return value if number is None else number


def whole_or_zero(value: Any) -> int:
    """Return a whole number as an int, and 0 for anything else: a count that no "at least 1" lets through."""
    number = None if value is None else _whole(value)
    return 0 if number is None else number


def _whole(value: Any) -> int | None:
    """Return the int that a value stands for, or None."""
    if isinstance(value, str):
        text = value.strip()
        if not _NUMERAL.fullmatch(text):
            return None
        try:
            return int(text)
        except ValueError:
            return _whole(float(text.replace("_", "")))
    if hasattr(value, "item") and hasattr(value, "shape"):  # NumPy scalars and arrays, torch tensors, pandas has none
        if len(value.shape):
            return None
        value = value.item()
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        return int(value) if value == int(value) else None
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return None


def _listed(values: Iterable[Any]) -> list[Any]:
    tolist = getattr(values, "tolist", None)
    listed = tolist() if callable(tolist) else list(values)
    return listed if isinstance(listed, list) else [listed]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
