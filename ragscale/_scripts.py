"""Scripts that are written without spaces between words: there a character is what a word is elsewhere."""

from __future__ import annotations

import re

# Han and its radicals, kana, bopomofo; Hangul, whose particles cling to the word; Thai, Lao, Tibetan, Burmese, Khmer,
# Tai Le to Tai Tham, Balinese, Javanese, Yi; and what Unicode keeps of them elsewhere.
_RANGES = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u1950-\u19df\u19e0-\u19ff\u1a20-\u1aaf"
    "\u1b00-\u1b7f\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b\u3040-\u30fa\u30fc-\u312f\u3130-\u318f"
    "\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\ua980-\ua9df\ua9e0-\ua9ff\uaa60-\uaadf"
    "\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
WITHOUT_SPACES = re.compile(f"[{_RANGES}]")


def spaced(text: str) -> str:
    """Put spaces around every character of a script that is written without them; leave all other text alone.

    Examples
    --------
    >>> spaced("in 東京 now").split()
    ['in', '東', '京', 'now']
    """
    return text if text.isascii() else WITHOUT_SPACES.sub(r" \g<0> ", text)
