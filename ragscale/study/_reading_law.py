"""Whether a grid can show reading at all: the D at which models of its batches begin to use a passage."""

from __future__ import annotations

import math
from collections.abc import Iterable

# D0 = 10^5.7 sqrt(rows of a batch x tokens of a row), copying heads on natural text: arXiv 2511.16893
_EXPONENT = 5.7
# what we measured lies below that law: at a third on natural text (ragscale-gpu, 13M tokens at batches of 8,192), and
# the earliest of 60 runs in the invented world at a hundredth (docs/studies/when-models-begin-to-read.md)
_NATURAL, _INVENTED = 3.0, 100.0
_CLEARLY = 3.0  # below what was measured; the earliest of 60 runs needs no further margin


def published_threshold(batch_tokens: int) -> float:
    """Return the tokens at which copying heads form, by the published law.

    References
    ----------
    arXiv 2511.16893: T sqrt(B C) with T = 10^5.7 on natural text, B rows a batch, C tokens a row, whatever N.

    Examples
    --------
    >>> f"{published_threshold(8192):.3g}"
    '4.54e+07'
    """
    return 10**_EXPONENT * math.sqrt(batch_tokens)


def all_below_reading(grid: Iterable[tuple[int, int]], *, invented: bool) -> str:
    """Return a warning where every D lies clearly below the D at which models of its batch begin to read, else "".

    Parameters
    ----------
    grid : iterable of (D, tokens of a batch)
        Tokens of every checkpoint.
    invented : bool
        Whether the text is the invented world, which models learn to read sooner than natural text.
    """
    factor = _INVENTED if invented else _NATURAL * _CLEARLY
    checkpoints = list(grid)
    if not checkpoints or any(tokens >= published_threshold(batch) / factor for tokens, batch in checkpoints):
        return ""
    tokens, batch = max(checkpoints, key=lambda one: one[0] / math.sqrt(one[1]))
    law = published_threshold(batch)
    measured = (
        "in the invented world the earliest of 60 runs began at a hundredth of that"
        if invented
        else "on natural text we measured a third of that (ragscale-gpu)"
    )
    return (
        "all D of this study lie below the D at which models of its batches begin to read, so retrieval will look "
        f"worthless whatever the retriever: for D = {tokens:,} at batches of {batch:,} tokens the law of copying "
        f"heads, 10^{_EXPONENT} sqrt(rows x row length) (arXiv 2511.16893), says {law:.2g} tokens, and {measured}. "
        "Raise D, or take smaller batches (the threshold goes with their root)"
    )
