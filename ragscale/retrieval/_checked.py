"""What goes into a retriever and what its subclass answers, checked against the contract."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ragscale._scripts import spaced
from ragscale.errors import ConfigError
from ragscale.passages import Passage
from ragscale.retrieval._hits import Hits, in_order


def as_passages(passages: Any) -> Sequence[Passage]:
    """Return passages as a sequence; strings become passages, a `Store` is read by its own list."""
    passages = getattr(passages, "passages", passages)
    if isinstance(passages, str | bytes) or not isinstance(passages, Iterable) or hasattr(passages, "columns"):
        raise ConfigError(
            f"passages must be a list of Passage or of strings, got {type(passages).__name__}"
            + (": give [text]" if isinstance(passages, str) else "")
        )
    is_kept = isinstance(passages, Sequence) and not isinstance(passages, list)
    kept: Sequence[Any] = cast(Sequence[Any], passages) if is_kept else tuple(passages)
    if len(kept) and isinstance(kept[0], str):
        return tuple(_of_text(text, row) if isinstance(text, str) else text for row, text in enumerate(kept))
    return kept


def _of_text(text: str, row: int) -> Passage:
    return Passage(str(row), text, max(1, len(spaced(text).split())), str(row))


def check_passages(passages: Sequence[Passage]) -> NDArray[np.int64]:
    """Return the cumulative unique tokens, or report every problem."""
    if not len(passages):
        raise ConfigError("there is no passage to index")
    problems, seen = [], set()
    counts = np.empty(len(passages), dtype=np.int64)
    for row, passage in enumerate(passages):
        if not isinstance(passage, Passage):
            advice = {
                "Document": ": cut it with ragscale.passages.chunk",
                "str": ": give strings alone, or passages alone",
            }
            kind = type(passage).__name__
            problems.append(f"row {row} is a {kind}, not a Passage{advice.get(kind, '')}")
            continue
        if passage.id in seen:
            problems.append(f"row {row} repeats the id {passage.id!r}")
        seen.add(passage.id)
        if not isinstance(passage.text, str):
            problems.append(f"row {row} has a text that is a {type(passage.text).__name__}")
        counts[row] = passage.n_new_tokens or 0
        if counts[row] < 0:
            problems.append(f"row {row} has n_new_tokens = {passage.n_new_tokens}")
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ConfigError(f"these passages cannot be indexed: {'; '.join(problems[:10])}{more}")
    return np.cumsum(counts)


def checked_hits(answer: Any, *, name: str, n_queries: int, k: int, n_passages: int) -> Hits:
    """Put an answer of a subclass in order; refuse what breaks the contract, naming it with the shapes."""
    expected = f"expected both ({n_queries}, at most {k})"
    extra = answer.filtered if isinstance(answer, Hits) else {}
    if not isinstance(answer, Hits) and (not isinstance(answer, Iterable) or isinstance(answer, str | dict)):
        raise ConfigError(f"{name} returned a {type(answer).__name__} instead of rows and scores, {expected}")
    parts = [answer.ids, answer.scores] if isinstance(answer, Hits) else list(answer)
    if len(parts) != 2:
        raise ConfigError(f"{name} returned {len(parts)} things instead of rows and scores, {expected}")
    rows, scores = (_array(part, name, what, expected) for part, what in zip(parts, ("rows", "scores"), strict=True))
    if rows.shape != scores.shape or rows.ndim != 2 or rows.shape[0] != n_queries:
        raise ConfigError(f"{name} returned rows {rows.shape} and scores {scores.shape}, {expected}")
    if not np.array_equal(rows, np.trunc(rows)):
        raise ConfigError(f"{name} returned rows that are no whole numbers: rows are 0 to {n_passages - 1}, or -1")
    if rows.size and (rows.max() >= n_passages or rows.min() < -1):
        raise ConfigError(
            f"{name} returned row {rows.max() if rows.max() >= n_passages else rows.min()} "
            f"from a store of {n_passages} passages: rows are 0 to {n_passages - 1}, or -1"
        )
    if np.isnan(scores).any():
        raise ConfigError(f"{name} returned a score that is not a number; give -inf to what is not a hit")
    rows, scores = in_order(rows, scores, max(k, rows.shape[1]))
    _refuse_repeated(rows, name)
    return Hits(rows[:, :k], scores[:, :k], extra)


def _array(part: Any, name: str, what: str, expected: str) -> NDArray[Any]:
    try:
        array = np.asarray(part)
    except ValueError as error:
        raise ConfigError(f"{name} returned {what} of different lengths, {expected}") from error
    if array.size and array.dtype.kind not in "iufb":
        raise ConfigError(f"{name} returned {what} of type {array.dtype} instead of numbers, {expected}")
    return array


def _refuse_repeated(rows: NDArray[np.int64], name: str) -> None:
    ordered = np.sort(rows, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        query, place = np.argwhere(twice)[0]
        raise ConfigError(f"{name} returned row {ordered[query, place]} twice for query {query}: a passage is one hit")
