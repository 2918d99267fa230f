"""Text to terms, as Lucene's English analyzer does it: split, lower case, stop words, stem."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from ragscale._extras import require
from ragscale._scripts import spaced
from ragscale.errors import ConfigError

# fmt: off
LUCENE_STOP_WORDS = (
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of",
    "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
)
# fmt: on

# The word boundaries of Unicode Standard Annex 29, as far as they matter to a search engine: a full stop or apostrophe
# joins two letters, a full stop or comma two digits; every ideograph and emoji is a word; marks belong to their letter;
# superscripts and fractions are no letters. Unlike the Annex, which leaves them to a dictionary, every character of
# Thai, Khmer, katakana and the other scripts without spaces is a word: a run of them would be found by nobody.
_JOINED = "(?:(?:(?<=[^\\W\\d_])['.:\u00b7](?=[^\\W\\d_])|(?<=\\d)['.,;](?=\\d)){word}+)*"
_ASCII = re.compile(r"\w+" + _JOINED.format(word=r"\w"), re.ASCII)
_PLAIN = re.compile(r"\w+", re.ASCII)
_JOINS = re.compile(r"\w['.:,;]\w", re.ASCII)  # only then the slower expression is needed
_NO_LETTERS = "[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070\u2074-\u2079\u2080-\u2089\u2150-\u215f]"
_MARKS = (
    "\u00ad\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u200c\u200d"
)
_LETTER = rf"(?:(?!{_NO_LETTERS})[\w{_MARKS}])"
_EMOJI = "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\U0001f000-\U0001faff]"
_UNICODE = re.compile(f"{_EMOJI}|{_LETTER}+{_JOINED.format(word=_LETTER)}")
# Porter's measure is above 0; a y after a consonant is a vowel
_VOWEL_CONSONANT = re.compile(r"(?:[aeiou]|(?<=[^aeiouy])y)(?:[^aeiouy]|(?<=[aeiou])y)")
_MOST_KNOWN = 1_000_000
_APOSTROPHES = str.maketrans("\u2019\uff07", "''")


class Analyzer:
    """Turn texts into term numbers; the vocabulary grows while indexing and is fixed while searching.

    Parameters
    ----------
    stemmer : str or None
        A Snowball algorithm of PyStemmer, e.g. ``"porter"`` or ``"german"``; None keeps words as they are.
    stop_words : "lucene", a language that bm25s has a list for, iterable of str, or None
        Words to leave out, compared before stemming.
    token_pattern : str or None
        A regular expression whose matches are the words; None splits as Lucene's standard tokenizer does and strips
        the English possessive, but every character of a script without spaces (also Thai, Khmer, katakana, which
        Lucene leaves in one piece) is a word.
    """

    def __init__(self, stemmer: str | None, stop_words: str | Iterable[str] | None, token_pattern: str | None) -> None:
        self._stop_words = frozenset(_stop_words(stop_words))
        self._stem = _stemmer(stemmer)
        self._pattern = None if token_pattern is None else re.compile(token_pattern).findall
        self.vocabulary: dict[str, int] = {}
        self._known = _KnownNumbers(self._stop_words, self._stem, self.vocabulary)

    def index(self, texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Number the terms of all texts, adding new ones in order of appearance.

        Returns
        -------
        terms : ndarray of int32, shape (n_terms,)
            The term numbers of all texts, one text after the other.
        bounds : ndarray of int64, shape (n_texts + 1,)
            Text i holds ``terms[bounds[i]:bounds[i + 1]]``.
        """
        flat, ends, numbers = array("i"), array("q", [0]), _WordNumbers(self._stop_words, self._stem, self.vocabulary)
        for text in texts:
            flat.extend([numbers[word] for word in self.words(text)])
            ends.append(len(flat))
        words = np.frombuffer(flat, dtype=np.int32)
        kept = words >= 0
        n_kept = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        return words[kept], n_kept[np.frombuffer(ends, dtype=np.int64)]

    def query(self, text: str) -> list[int]:
        """Return the term numbers of a query in its order: repetitions stay, terms never indexed go."""
        known = self._known
        if len(known) > _MOST_KNOWN:
            known.clear()
        return [number for word in self.words(text) if (number := known[word]) >= 0]

    def number(self, word: str) -> int:
        """Return the term number of one of `words`, -1 for a stop word or a term never indexed."""
        return self._known[word]

    def words(self, text: str) -> list[str]:
        """Split a text into lower-case words, stop words included."""
        if self._pattern is not None:
            return self._pattern(text.lower())
        if text.isascii():
            words = (_ASCII if _JOINS.search(text) else _PLAIN).findall(text.lower())
        else:
            text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
            words = _UNICODE.findall(spaced(text.lower(), hangul=False))
        return [word.removesuffix("'s") for word in words] if "'" in text else words


class _WordNumbers(dict[str, int]):
    """The number of each word's term: -1 for a stop word or nothing but underscores, a new number for a new term."""

    def __init__(self, stop_words: frozenset[str], stem: Callable[[str], str], vocabulary: dict[str, int]) -> None:
        super().__init__(dict.fromkeys(stop_words, -1))
        self._stop_words, self._stem, self._vocabulary = stop_words, stem, vocabulary

    def __missing__(self, word: str) -> int:
        if not word.strip("_"):
            number = self[word] = -1
            return number
        number = self[word] = self._vocabulary.setdefault(self._stem(word), len(self._vocabulary))
        return number


class _KnownNumbers(_WordNumbers):
    """The number of each word's term: -1 for one that was never indexed."""

    def __missing__(self, word: str) -> int:
        known = word.strip("_") and word not in self._stop_words
        number = self[word] = self._vocabulary.get(self._stem(word), -1) if known else -1
        return number


def _stop_words(stop_words: str | Iterable[str] | None) -> Iterable[str]:
    if stop_words is None:
        return ()
    if not isinstance(stop_words, str):
        return stop_words
    if stop_words == "lucene":
        return LUCENE_STOP_WORDS
    lists = require("bm25s.stopwords", "bm25")
    short = {"english": "EN"}.get(stop_words, stop_words.upper())
    found = getattr(lists, f"STOPWORDS_{short}", None)
    if found is None:
        raise ConfigError(f"no stop words for {stop_words!r}: give 'lucene', a language of bm25s, a list, or None")
    return found


def _stemmer(name: str | None) -> Callable[[str], str]:
    if name is None:
        return _unchanged
    stemmer = require("Stemmer", "bm25")
    if name != "porter" and name not in stemmer.algorithms():
        raise ConfigError(f"no stemmer {name!r}: give one of {', '.join(stemmer.algorithms())}, or None")
    stem = stemmer.Stemmer(name).stemWord
    return _lucene_porter(stem) if name == "porter" else stem


def _unchanged(word: str) -> str:
    return word


def _lucene_porter(stem: Callable[[str], str]) -> Callable[[str], str]:
    """Return Porter's stemmer as its author revised it, which Lucene holds, from the published one of Snowball.

    Revised: words of one or two letters stay; step 2 takes -bli to -ble (published: -abli only) and -logi to -log.
    """

    def stem_as_lucene(word: str) -> str:
        if len(word) < 3:
            return word
        stemmed = stem(word)
        if stemmed.endswith("bli") and _VOWEL_CONSONANT.search(stemmed[:-3]):
            return stem(f"{stemmed[:-1]}e")
        if stemmed.endswith("logi") and _VOWEL_CONSONANT.search(stemmed[:-4]):
            return stemmed[:-1]
        return stemmed

    return stem_as_lucene
