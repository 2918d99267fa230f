"""Characters: scripts that are written without spaces between words, and halves that are no characters at all."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Thai and Lao, Tibetan, Burmese, Khmer, Tai Le to Tai Tham, Balinese, Sundanese, Han and its radicals, kana, bopomofo,
# Yi, Javanese, Tai Viet; and what Unicode keeps of them elsewhere.
_RANGES = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u19e0-\u19ff\u1a20-\u1aaf\u1b00-\u1bbf"
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b\u3040-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\ua4cf\ua980-\ua9df\ua9e0-\ua9ff\uaa60-\uaadf\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
# Korean has spaces, but its particles cling to the word: an answer is rarely a whole word of a sentence.
_HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc"

WITHOUT_SPACES = re.compile(f"[{_RANGES}{_HANGUL}]")
_WITHOUT_HANGUL = re.compile(f"[{_RANGES}]")


def spaced(text: str, *, hangul: bool = True) -> str:
    """Put spaces around every character of a script that is written without them; leave all other text alone.

    Parameters
    ----------
    text : str
    hangul : bool
        Part the syllables of Korean too.

    Examples
    --------
    >>> spaced("in 東京 now").split()
    ['in', '東', '京', 'now']
    """
    script, table = (WITHOUT_SPACES, _SPACED) if hangul else (_WITHOUT_HANGUL, _SPACED_WITHOUT_HANGUL)
    return text if text.isascii() or not script.search(text) else text.translate(table)


class _Spaced(dict[int, int | str]):
    """The table of `str.translate`, filled as characters are met: three times as fast as a substitution."""

    def __init__(self, script: re.Pattern[str]) -> None:
        super().__init__()
        self.script = script

    def __missing__(self, code: int) -> int | str:
        self[code] = f" {chr(code)} " if self.script.match(chr(code)) else code
        return self[code]


_SPACED, _SPACED_WITHOUT_HANGUL = _Spaced(WITHOUT_SPACES), _Spaced(_WITHOUT_HANGUL)


def broken_character(text: str) -> int:
    """Return the place of the first half character (lone surrogate) of a text, -1 if there is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return -1


def all_whole(texts: Sequence[str]) -> list[str]:
    """Return texts with `whole_characters`; one look at all of them together where nothing is broken."""
    return list(texts) if broken_character("".join(texts)) < 0 else [whole_characters(text) for text in texts]


def whole_characters(text: str) -> str:
    """Return a text with every half character (lone surrogate) replaced: no tokenizer takes one."""
    if broken_character(text) < 0:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
