"""Tokens of a text of any length in bounded memory: a long one is cut where that provably changes no token nearby.

An ``Encoding`` of the tokenizers library takes some 350 bytes for each token. A long text is therefore encoded piece by
piece, and of each piece only the token ids and where each begins are kept, 8 bytes together. A cut is taken at white
space (or, in writing without spaces, between two other characters) only if the characters around it give the same
tokens whether they are encoded in one or in two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONG_CHARACTERS = 1 << 17
PIECE_CHARACTERS = 1 << 15
_PIECES_AT_ONCE = 4
_AROUND = 256
_TRIES = 48


class PiecewiseEncoding:
    """The tokens of a long text, with as much of the interface of ``tokenizers.Encoding`` as passages need."""

    def __init__(self, ids: NDArray[np.uint32], starts: NDArray[np.uint32]) -> None:
        self.ids, self._starts = ids, starts

    def __len__(self) -> int:
        return len(self.ids)

    def token_to_chars(self, token: int) -> tuple[int, int]:
        """Return where a token begins, and where the next one does."""
        following = self._starts[token + 1] if token + 1 < len(self) else self._starts[token] + 1
        return int(self._starts[token]), int(following)


def encode(backend: Any, text: str) -> Any:
    """Return the encoding of a text without special tokens: of the tokenizers library, or piece by piece.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
    text : str

    Returns
    -------
    tokenizers.Encoding or PiecewiseEncoding
        Both have ``ids``, a length and ``token_to_chars``.
    """
    if len(text) <= LONG_CHARACTERS:
        return backend.encode(text, add_special_tokens=False)
    ids, starts = [], []
    pieces = list(_pieces(backend, text))
    for first in range(0, len(pieces), _PIECES_AT_ONCE):
        some = pieces[first : first + _PIECES_AT_ONCE]
        encodings = backend.encode_batch([text[start:end] for start, end in some], add_special_tokens=False)
        for (start, _), encoding in zip(some, encodings, strict=True):
            ids.append(np.array(encoding.ids, dtype=np.uint32))
            starts.append(np.array([offset[0] for offset in encoding.offsets], dtype=np.uint32) + np.uint32(start))
        del encodings
    return PiecewiseEncoding(np.concatenate(ids), np.concatenate(starts))


def encode_all(backend: Any, texts: Sequence[str]) -> list[Any]:
    """Return the encoding of each text; the short ones are encoded together."""
    short = [i for i, text in enumerate(texts) if len(text) <= LONG_CHARACTERS]
    together = backend.encode_batch([texts[i] for i in short], add_special_tokens=False)
    found = dict(zip(short, together, strict=True))
    return [found[i] if i in found else encode(backend, text) for i, text in enumerate(texts)]


def text_blocks(text: str, size: int = 1 << 18) -> Iterator[str]:
    """Yield a text in blocks of about so many characters that begin at white space, so that no word is cut."""
    start = 0
    while len(text) - start > size:
        end = start + size
        while end < len(text) and not text[end].isspace():
            end += 1
        yield text[start:end]
        start = end
    yield text[start:]


def _pieces(backend: Any, text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while len(text) - start > 2 * PIECE_CHARACTERS:
        cut = _cut(backend, text, start + PIECE_CHARACTERS)
        if cut is None:  # a tokenizer that looks far: right before small
            break
        yield start, cut[0]
        start = cut[1]
    yield start, len(text)


def _cut(backend: Any, text: str, near: int) -> tuple[int, int] | None:
    """Return where a piece may end and the next begin, at or after ``near``."""
    for place in _places(text, near):
        low, high = max(place - _AROUND, 0), min(place + _AROUND, len(text))
        whole = backend.encode(text[low:high], add_special_tokens=False)
        for end, start in ((place, place), (place, place + 1), (place + 1, place + 1)):
            if start > place and not text[place].isspace():
                break
            if _same(backend, text, whole, low, end, start, high):
                return end, start
    return None


def _places(text: str, near: int) -> Iterator[int]:
    """Yield places to try: single white space between other characters, then any place."""
    tried = 0
    for place in range(near, min(near + PIECE_CHARACTERS // 2, len(text) - 1)):
        if text[place].isspace() and not text[place - 1].isspace() and not text[place + 1].isspace():
            yield place
            tried += 1
            if tried >= _TRIES:
                break
    yield from range(near, min(near + _TRIES, len(text) - 1))


def _same(backend: Any, text: str, whole: Any, low: int, end: int, start: int, high: int) -> bool:  # noqa: PLR0917
    left, right = backend.encode_batch([text[low:end], text[start:high]], add_special_tokens=False)
    if left.ids + right.ids != whole.ids:
        return False
    begins = [offset[0] for offset in left.offsets] + [offset[0] + start - low for offset in right.offsets]
    return all(
        one == offset[0] or text[low + min(one, offset[0]) : low + max(one, offset[0])].isspace()
        for one, offset in zip(begins, whole.offsets, strict=True)
    )
