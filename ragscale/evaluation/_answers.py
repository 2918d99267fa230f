"""Generated answers against accepted ones: exact match, F1 and containment, as SQuAD normalises.

Scripts without spaces between words (Chinese, Japanese, Thai, Khmer, ...) are compared by characters, and their
punctuation goes as the ASCII one does.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from ragscale._scripts import WITHOUT_SPACES, spaced
from ragscale.evaluation import _patterns

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """Lower-case, drop ASCII punctuation and the articles a, an, the, squeeze white space (Rajpurkar et al. 2016).

    A text that holds characters of a script without spaces is brought to one width (NFKC), loses all punctuation,
    and gets a space around each such character.

    Examples
    --------
    >>> normalise("The  Eiffel Tower!")
    'eiffel tower'
    >>> normalise("東京タワー。")
    '東 京 タ ワ ー'
    """
    if not text.isascii() and WITHOUT_SPACES.search(text):
        wide = unicodedata.normalize("NFKC", text)
        text = spaced("".join(c for c in wide if unicodedata.category(c)[0] not in "PC"))
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str], *, regex: bool = False) -> float:
    """Return 1.0 if the prediction equals any accepted answer after normalisation (or fully matches a pattern).

    NaN where a pattern took too long to tell.
    """
    if regex:
        return _as_score(_patterns.fullmatch(answers, prediction.strip()))
    return float(any(normalise(prediction) == normalise(answer) for answer in answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the best F1 of the prediction's words over all accepted answers; words count as often as they occur.

    Examples
    --------
    >>> round(f1("in Paris, France", ["Paris"]), 2)
    0.5
    """
    return max((_f1(normalise(prediction).split(), normalise(answer).split()) for answer in answers), default=0.0)


def _f1(predicted: list[str], accepted: list[str]) -> float:
    if not predicted or not accepted:
        return float(predicted == accepted)
    shared = sum((Counter(predicted) & Counter(accepted)).values())
    return 2 * shared / (len(predicted) + len(accepted))


def contains(prediction: str, answers: Sequence[str], *, regex: bool = False) -> float:
    """Return 1.0 if the prediction holds any accepted answer as whole words after normalisation.

    NaN where a pattern took too long to tell.
    """
    if regex:
        return _as_score(_patterns.search(answers, prediction))
    text = f" {normalise(prediction)} "
    return float(any(f" {normalise(answer)} " in text for answer in answers if normalise(answer)))


def _as_score(found: bool | None) -> float:
    return float("nan") if found is None else float(found)
