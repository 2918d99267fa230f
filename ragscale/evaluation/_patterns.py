"""Answers that are regular expressions of somebody else's file: searched with a limit on time.

``(a+)+$`` takes two to the power of 40 steps on forty letters in the engine of the standard library, which cannot be
stopped. The package ``regex`` can: a pattern that takes too long is given up for good, and what it would have said is
unknown (NaN in a metric), never "no".
"""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from ragscale._extras import require

SECONDS_PER_TEXT = 1.0
_SECONDS_FREE, _SECONDS_PER_CHARACTER = 5.0, 1e-6  # of all texts together: 20 times what an ordinary pattern takes
_LONGEST = 10_000
_MOST_COPIES = 100_000  # nested counts such as (a{1000}){1000} would be written out in memory
_COUNTED = re.compile(r"\{(\d+(?:,\d*)?|,\d+)\}")
_WITH_ARGUMENTS = frozenset("pPNLgxuU0123456789")
_DOTLESS = re.compile("[\u0130\u0131]")  # the engine takes these for an i, case folding does not


class AnswerPattern:
    """One pattern, compiled without regard to case.

    Attributes
    ----------
    given_up : bool
        It took too long on some text: from then on `search` and `fullmatch` return None at once.
    """

    def __init__(self, pattern: str) -> None:
        self._compiled = _compiled(pattern)
        self.literals = literals_of(pattern)
        self.given_up = False
        self._seconds = self._characters = 0.0

    def search(self, text: str) -> bool | None:
        """Whether the pattern occurs in a text; None: it took too long."""
        if self.literals and not self.given_up and not _DOTLESS.search(text):
            folded = text.casefold()
            if not any(literal in folded for literal in self.literals):
                return False
        return self._run(self._compiled.search, text)

    def fullmatch(self, text: str) -> bool | None:
        """Whether the pattern is the whole text; None: it took too long."""
        return self._run(self._compiled.fullmatch, text)

    def _run(self, match: Any, text: str) -> bool | None:
        if self.given_up:
            return None
        start = time.thread_time()
        try:
            return match(text, timeout=SECONDS_PER_TEXT) is not None
        except TimeoutError:
            self.given_up = True
            return None
        except MemoryError:
            self.given_up = True
            return None
        finally:
            self._seconds += time.thread_time() - start
            self._characters += len(text)
            if self._seconds > _SECONDS_FREE + _SECONDS_PER_CHARACTER * self._characters:
                self.given_up = True


@lru_cache(maxsize=65_536)
def answer_pattern(pattern: str) -> AnswerPattern:
    """Return the pattern, compiled once per process: what was given up stays so."""
    return AnswerPattern(pattern)


def any_of(found: Iterable[bool | None]) -> bool | None:
    """Return True if any is, else None if any is unknown, else False; stops at the first True."""
    unknown = False
    for one in found:
        if one:
            return True
        unknown = unknown or one is None
    return None if unknown else False


def search(patterns: Sequence[str], text: str) -> bool | None:
    """Whether one of the patterns occurs in a text; None where one that took too long might."""
    return any_of(answer_pattern(pattern).search(text) for pattern in patterns)


def fullmatch(patterns: Sequence[str], text: str) -> bool | None:
    """Whether one of the patterns is the whole text; None where one that took too long might be."""
    return any_of(answer_pattern(pattern).fullmatch(text) for pattern in patterns)


def given_up(patterns: Sequence[str]) -> list[str]:
    """Return those of the patterns that were given up."""
    return [pattern for pattern in patterns if answer_pattern(pattern).given_up]


def pattern_problem(pattern: str) -> str | None:
    """Return what keeps a text from being an answer's pattern, or None."""
    if len(pattern) > _LONGEST:
        return f"answer {pattern[:40]!r}... is a pattern of {len(pattern):,} characters, at most {_LONGEST:,} are read"
    copies = math.prod(max(1, *map(int, re.findall(r"\d{1,9}", counts))) for counts in _COUNTED.findall(pattern))
    if copies > _MOST_COPIES:
        return f"answer {pattern!r} repeats {copies:,} times by its counts, at most {_MOST_COPIES:,} are compiled"
    try:
        if answer_pattern(pattern).fullmatch(""):
            return f"answer {pattern!r} also matches the empty text, so it would be found everywhere: make it stricter"
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        return f"answer {pattern!r} is not a regular expression: {error}"
    return None


def _compiled(pattern: str) -> Any:
    regex = require("regex", "train")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "possible nested set": patterns of other people's files
            return regex.compile(pattern, regex.IGNORECASE)
    except regex.error as error:
        raise ValueError(str(error)) from error


def literals_of(pattern: str) -> tuple[str, ...]:
    """Return case-folded texts of which one must occur wherever the pattern does; none where that is not plain.

    Looking for one costs a hundredth of a search, and most passages hold none.

    Examples
    --------
    >>> literals_of(r"Abraham\\s+Lincoln|Honest Abe(?: L\\.)?")
    ('abraham', 'honest abe')
    >>> literals_of("19[0-9]{2}")
    ()
    """
    if re.search(r"\(\?[a-wyz^-]*x", pattern) or not pattern.isascii():
        return ()
    longest = []
    for runs in _alternatives(pattern):
        best = max(runs, key=len, default="")
        if len(best.strip()) < 3:
            return ()
        longest.append(best.casefold())
    return tuple(dict.fromkeys(longest))


def _alternatives(pattern: str) -> list[list[str]]:
    """Split at the bars outside of groups into runs of letters, digits and spaces that no quantifier touches."""
    alternatives: list[list[str]] = [[""]]
    depth, place = 0, 0
    while place < len(pattern):
        c = pattern[place]
        runs = alternatives[-1]
        if c == "\\":
            place += 1
            runs.append("")
            if pattern[place : place + 1] in _WITH_ARGUMENTS:
                return []
        elif c == "[":
            place = _end_of_set(pattern, place)
            runs.append("")
        elif c in "()":
            depth += 1 if c == "(" else -1
            runs.append("")
        elif depth == 0 and c == "|":
            alternatives.append([""])
        elif c in "?*+{":
            if c == "{":
                place = max(place, pattern.find("}", place))
            runs[-1] = runs[-1][:-1]
            runs.append("")
        elif depth == 0 and (c.isalnum() or c == " "):
            runs[-1] += c
        else:
            runs.append("")
        place += 1
    return alternatives


def _end_of_set(pattern: str, start: int) -> int:
    """Return the place of the bracket that closes a set such as ``[^]a\\]]``."""
    place = start + 1
    place += pattern[place : place + 1] == "^"
    place += pattern[place : place + 1] == "]"
    while place < len(pattern) and pattern[place] != "]":
        place += 1 + (pattern[place] == "\\")
    return place
