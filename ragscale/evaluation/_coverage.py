"""Is the answer there? Answer strings looked for in passages, as whole words, whatever case, accents and articles.

Short answers occur by chance ("May", "one"): coverage is an upper bound of evidence, and is compared with the same
share for unrelated passages (the condition ``"random"``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from ragscale.evaluation._tasks import Example
from ragscale.passages import Passage
from ragscale.results import HitRateCurve, hit_rate_curve

__all__ = ["HitRateCurve", "hit_rate_curve"]

_ARTICLES = ("the", "a", "an")
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return the words of a text: lower case, accents off, everything but letters and digits between them.

    Examples
    --------
    >>> words("The Café's 3rd door")
    ['the', 'cafe', 's', '3rd', 'door']
    """
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return _WORD.findall(text.lower())


def answer_words(answer: str) -> tuple[str, ...]:
    """Return the words of an answer without a leading article."""
    found = words(answer)
    return tuple(found[1:] if len(found) > 1 and found[0] in _ARTICLES else found)


def answers_of(example: Example) -> tuple[str, ...]:
    """Return the strings whose presence counts as evidence; none for yes/no questions."""
    if {choice.lower() for choice in example.choices} == {"no", "yes"}:
        return ()
    return tuple(answer for answer in example.answers if answer.lower() not in ("yes", "no"))


def contains_answer(example: Example, text: str) -> bool:
    """Whether one of the accepted answers occurs in a text as a sequence of whole words."""
    answers = answers_of(example)
    if example.answer_type == "regex":
        return any(re.search(answer, text, re.IGNORECASE) for answer in answers)
    line = f" {' '.join(words(text))} "
    return any(f" {' '.join(pattern)} " in line for pattern in map(answer_words, answers) if pattern)


def first_passage_with_answer(examples: Sequence[Example], passages: Iterable[Passage]) -> np.ndarray:
    """Return for every question the row of the first passage that holds one of its answers.

    The passages are read once for all questions. Because every smaller store is a prefix of the list, the answer is in
    a store exactly if this row is.

    Returns
    -------
    ndarray of int64, shape (n_questions,)
        -1 where no passage holds an answer.
    """
    rows = np.full(len(examples), -1, dtype=np.int64)
    by_first_word: dict[str, dict[tuple[str, ...], set[int]]] = {}
    patterns: dict[int, list[re.Pattern[str]]] = {}
    for question, example in enumerate(examples):
        if example.answer_type == "regex":
            patterns[question] = [re.compile(answer, re.IGNORECASE) for answer in answers_of(example)]
            continue
        for answer in filter(None, map(answer_words, answers_of(example))):
            by_first_word.setdefault(answer[0], {}).setdefault(answer, set()).add(question)
    for row, passage in enumerate(passages):
        if not by_first_word and not patterns:
            break
        line = words(passage.text)
        for place, word in enumerate(line):
            wanted = by_first_word.get(word)
            if not wanted:
                continue
            found = [answer for answer in wanted if tuple(line[place : place + len(answer)]) == answer]
            for answer in found:
                for question in wanted.pop(answer):
                    if rows[question] < 0:
                        rows[question] = row
            if not wanted:
                del by_first_word[word]
        for question in [q for q, found in patterns.items() if any(p.search(passage.text) for p in found)]:
            rows[question] = row
            del patterns[question]
    return rows
