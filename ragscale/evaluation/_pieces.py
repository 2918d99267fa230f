"""Tokens of long texts from the tokens of their pieces, which other prompts share: passages return in many of them.

Pieces begin at spaces between two words that a rule about their letters picks, so that the same passage falls into the
same pieces wherever it stands. Tokenizers that split at spaces before they merge give each piece the tokens that it has
within the text; whether this one does is checked on texts of every call, and all is encoded whole where it does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_BORDER = re.compile(r"(?<=[a-z][eo])(?= [a-z])")  # a few words apart in languages written so
_LONG = 200  # characters from which a text is cut
_CHECKED = 8  # long texts encoded whole in the first calls, fewer later
_CAUTIOUS = 3


class Pieces:
    """Encodes texts, long ones by their pieces.

    Parameters
    ----------
    encode : callable
        Texts to token ids, each text for itself.
    """

    def __init__(self, encode: Callable[[Sequence[str]], list[list[int]]]) -> None:
        self._encode = encode
        self._known: dict[str, list[int]] = {}
        self._n_calls, self.works = 0, True

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of every text."""
        long = [i for i, text in enumerate(texts) if len(text) >= _LONG] if self.works else []
        if not long:
            return self._encode(texts)
        cut = {i: _BORDER.split(texts[i]) for i in long}
        new = list(dict.fromkeys(piece for pieces in cut.values() for piece in pieces if piece not in self._known))
        sample = self._sample(long)
        short = [i for i in range(len(texts)) if i not in cut]
        found = self._encode([*new, *(texts[i] for i in short), *(texts[i] for i in sample)])
        self._known.update(zip(new, found, strict=False))
        tokens: list[list[int]] = [[] for _ in texts]
        for i, ids in zip(short, found[len(new) :], strict=False):
            tokens[i] = ids
        for i, pieces in cut.items():
            for piece in pieces:
                tokens[i] += self._known[piece]
        if [tokens[i] for i in sample] != found[len(new) + len(short) :]:
            self.works, self._known = False, {}
            return self._encode(texts)
        return tokens

    def _sample(self, long: list[int]) -> list[int]:
        """Return which of the long texts are encoded whole for comparison."""
        self._n_calls += 1
        n = _CHECKED if self._n_calls <= _CAUTIOUS else 1
        return long[:: max(1, len(long) // n)][:n]
