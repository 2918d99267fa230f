"""Is the answer there? Answer strings looked for in passages, as whole words, whatever case, accents and articles.

Scripts without spaces between words are matched character by character. Short answers occur by chance ("May", "one"):
coverage is an upper bound of evidence, and is compared with the same share for unrelated passages (the condition
``"random"``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache

import numpy as np

from ragscale._scripts import spaced
from ragscale.evaluation import _patterns
from ragscale.evaluation._tasks import Example
from ragscale.passages import Passage
from ragscale.results import HitRateCurve, hit_rate_curve

__all__ = ["HitRateCurve", "hit_rate_curve"]

NOT_FOUND, UNKNOWN = -1, -2

_ARTICLES = ("the", "a", "an")
_WORD = re.compile(r"\w+")
_ASCII_WORDS = {i: chr(i).lower() if _WORD.match(chr(i)) else " " for i in range(128)}
# Accents over Latin, Greek and Cyrillic letters; points and harakat, which Hebrew and Arabic writers leave out.
_OPTIONAL_MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")


def words(text: str) -> list[str]:
    """Return the words of a text: lower case, accents off, everything but letters, marks and digits between them.

    Examples
    --------
    >>> words("The Café's 3rd door")
    ['the', 'cafe', 's', '3rd', 'door']
    >>> words("東京（Tokyo）は")
    ['東', '京', 'tokyo', 'は']
    """
    if text.isascii():
        return text.translate(_ASCII_WORDS).split()
    bare = _OPTIONAL_MARKS.sub("", unicodedata.normalize("NFKD", text))
    line = unicodedata.normalize("NFKC", bare).lower()
    line = spaced(line)
    mark, word_with_marks = _marks()
    return (word_with_marks if mark.search(line) else _WORD).findall(line)


def _line(found: Sequence[str]) -> str:
    """Return words as one text, in which an answer's line stands exactly if its words do, one after another."""
    return f" {' '.join(found)} "


@cache
def _marks() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what matches a mark, and a word with marks: Hindi's vowel signs are part of a word, not of ``\\w``."""
    marks = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")
    return re.compile(f"[{marks}]"), re.compile(f"(?:\\w|[{marks}])+")


@lru_cache(maxsize=65_536)
def answer_words(answer: str) -> tuple[str, ...]:
    """Return the words of an answer without a leading article."""
    found = words(answer)
    return tuple(found[1:] if len(found) > 1 and found[0] in _ARTICLES else found)


def answers_of(example: Example) -> tuple[str, ...]:
    """Return the strings whose presence counts as evidence; none for yes/no questions."""
    if {choice.lower() for choice in example.choices} == {"no", "yes"}:
        return ()
    answers = example.answers
    if not answers and example.answer_index is not None:
        answers = example.choices[example.answer_index : example.answer_index + 1]
    return tuple(answer for answer in answers if answer.lower() not in ("yes", "no"))


def can_be_found(example: Example) -> bool:
    """Whether presence of an answer can be told: there is one, and it has a word (``"?!"`` and ``"$"`` have none)."""
    answers = answers_of(example)
    return bool(answers) and (example.answer_type == "regex" or any(map(answer_words, answers)))


def contains_answer(example: Example, text: str) -> bool | None:
    """Whether one of the accepted answers occurs in a text as a sequence of whole words.

    None where a pattern took too long to tell.
    """
    answers = answers_of(example)
    if example.answer_type == "regex":
        return _patterns.search(answers, text)
    line = _line(words(text))
    return any(_line(pattern) in line for pattern in map(answer_words, answers) if pattern)


def first_passage_with_answer(examples: Sequence[Example], passages: Iterable[Passage]) -> np.ndarray:
    """Return for every question the row of the first passage that holds one of its answers.

    The passages are read once for all questions. Because every smaller store is a prefix of the list, the answer is in
    a store exactly if this row is.

    Returns
    -------
    ndarray of int64, shape (n_questions,)
        -1 where no passage holds an answer, -2 where a pattern took too long to tell.
    """
    rows = np.full(len(examples), NOT_FOUND, dtype=np.int64)
    by_first_word: dict[str, dict[str, set[int]]] = {}
    patterns: dict[int, tuple[str, ...]] = {}
    for question, example in enumerate(examples):
        if example.answer_type == "regex":
            patterns[question] = answers_of(example)
            continue
        for answer in filter(None, map(answer_words, answers_of(example))):
            by_first_word.setdefault(answer[0], {}).setdefault(_line(answer), set()).add(question)
    for row, passage in enumerate(passages):
        if not by_first_word and not patterns:
            break
        if by_first_word:
            _take_words(by_first_word, words(passage.text), row, rows)
        for question, found in [(q, _patterns.search(p, passage.text)) for q, p in patterns.items()]:
            if found is not False:
                rows[question] = UNKNOWN if found is None else row
                del patterns[question]
    return rows


def _take_words(by_first_word: dict[str, dict[str, set[int]]], found: list[str], row: int, rows: np.ndarray) -> None:
    """Note which questions have an answer among these words, and look for those answers no more."""
    first_words = by_first_word.keys() & found
    line = _line(found) if first_words else ""
    for word in first_words:
        wanted = by_first_word[word]
        for answer in [answer for answer in wanted if answer in line]:
            for question in wanted.pop(answer):
                if rows[question] < 0:
                    rows[question] = row
        if not wanted:
            del by_first_word[word]
