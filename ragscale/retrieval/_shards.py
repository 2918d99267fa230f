"""Indexes over consecutive runs of passages, each built and saved alone, searched as the one index that they make up.

A score must not notice where the runs end. A dense score depends on one passage alone; a BM25 score on the store's
statistics too, which are the sums of those of the runs. So the best of all are among the best of each, and the hits are
those of one index, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ragscale._files import read_json, recover_folder
from ragscale.errors import CheckpointError, ConfigError
from ragscale.passages import Passage
from ragscale.retrieval._base import DESCRIPTION, FIELDS, SCHEMA, VERSION, Retriever, check_files
from ragscale.retrieval._bm25 import BM25Retriever
from ragscale.retrieval._dense import Answer, DenseRetriever
from ragscale.retrieval._dense_exact import ordered
from ragscale.retrieval._embeddings import embed_queries

_KINDS = {"BM25Retriever": BM25Retriever, "DenseRetriever": DenseRetriever}
_QUERIES_AT_ONCE = 512


def why_not_in_shards(retriever: Retriever) -> str:
    """Return why the hits of a retriever's shards would not be those of one index; empty where they are.

    Examples
    --------
    >>> why_not_in_shards(BM25Retriever())
    ''
    """
    if type(retriever) is BM25Retriever:
        return ""
    if type(retriever) is not DenseRetriever:
        return f"{type(retriever).__name__} cannot be indexed in shards: BM25Retriever and DenseRetriever can"
    if not retriever.encoder.is_fitted:
        return f"{type(retriever.encoder).__name__} learns from all passages: fit it first, or leave out shards"
    if not retriever.encoder.is_storable:
        return f"{type(retriever.encoder).__name__} cannot be saved with a shard"
    if retriever.spec.lower() != "flat":
        return f"index={retriever.spec!r} learns from all passages, only 'flat' has shards that answer as one index"
    return ""


class _Unread(Sequence[Passage]):
    """Passages of an index that is searched by rows: their number, and no text."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Passage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Passage]: ...
    def __getitem__(self, index: int | slice) -> Any:
        raise ConfigError("this shard was opened without its passages: they are those of the split")


def search_shards(
    paths: Sequence[Path], queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]
) -> list[Answer]:
    """Search saved indexes over consecutive passages as one index over all.

    One shard is in memory (mapped) at a time.

    Parameters
    ----------
    paths : sequence of path
        What `Retriever.save` wrote, in the order of their passages; those may have been left out.
    queries : sequence of str
    k : int
    n_passages_per_store : sequence of int
        Increasing counts over all shards, from 1.

    Returns
    -------
    list of (rows, scores)
        One for each store, (n_queries, k), padded with -1 and -inf; rows count over all shards.

    Raises
    ------
    CheckpointError
        When a shard is damaged, or they are of several kinds.
    """
    descriptions = [_description(path) for path in paths]
    for path, described in zip(paths, descriptions, strict=True):
        check_files(path, described["files"])
    kinds = {described["class"].rpartition(":")[2] for described in descriptions}
    if len(kinds) != 1 or not kinds <= set(_KINDS):
        raise CheckpointError(f"{paths[0].parent} holds shards of {', '.join(sorted(kinds))}: they cannot be searched")
    shards = _Shards(paths, descriptions, _KINDS[kinds.pop()])
    stores = np.asarray(n_passages_per_store, dtype=np.int64)
    search = _search_bm25 if shards.kind is BM25Retriever else _search_dense
    return search(shards, list(queries), k, stores)


def _description(path: Path) -> dict[str, Any]:
    recover_folder(path)
    if not (path / DESCRIPTION).exists():
        raise CheckpointError(f"{path} holds no saved retriever ({DESCRIPTION} is missing)")
    return read_json(path / DESCRIPTION, schema=SCHEMA, version=VERSION, fields=FIELDS)


class _Shards:
    """Saved shards, opened one at a time."""

    def __init__(self, paths: Sequence[Path], descriptions: list[dict[str, Any]], kind: type[Any]) -> None:
        self.paths, self.descriptions, self.kind = paths, descriptions, kind
        self.sizes = [described["n_passages"] for described in descriptions]
        self.starts = [0, *np.cumsum(self.sizes).tolist()][:-1]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, place: int) -> Any:
        """Return one shard without its passages."""
        held = _Unread(self.sizes[place])
        arguments = self.descriptions[place]["arguments"]
        return self.kind._opened(self.paths[place], arguments, {}, held, np.zeros(0, dtype=np.int64))

    def inside(self, place: int, stores: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many passages of a shard each store holds."""
        return np.clip(stores - self.starts[place], 0, self.sizes[place])


def _search_dense(shards: _Shards, queries: list[str], k: int, stores: NDArray[np.int64]) -> list[Answer]:
    answers = [_nothing(len(queries), k) for _ in stores]
    vectors = None
    for place in range(len(shards)):
        counts = shards.inside(place, stores)
        wanted = sorted({int(n) for n in counts if n})
        if not wanted:
            break
        shard: DenseRetriever = shards.open(place)
        if vectors is None:
            vectors = embed_queries(shard._encoder, queries)
        found = dict(zip(wanted, shard.search_vectors(vectors, k, n_passages=wanted), strict=True))
        for store, n in enumerate(counts.tolist()):
            if n:
                answers[store] = merged(answers[store], found[n], shards.starts[place], k)
    return answers


def _search_bm25(shards: _Shards, queries: list[str], k: int, stores: NDArray[np.int64]) -> list[Answer]:
    """Add up what the stores' statistics are in every shard, then score in each with the sums."""
    n_lengths, n_scored = np.zeros(len(stores), dtype=np.int64), np.zeros(len(stores), dtype=np.int64)
    words: list[list[str]] = []
    place_of: dict[str, int] = {}
    n_holding = np.zeros((0, len(stores)), dtype=np.int64)
    for place in range(len(shards)):
        shard: BM25Retriever = shards.open(place)
        if place == 0:
            words = [shard._analyzer.words(query) for query in queries]
            place_of = {word: i for i, word in enumerate(dict.fromkeys(w for line in words for w in line))}
            n_holding = np.zeros((len(place_of), len(stores)), dtype=np.int64)
        counts = shards.inside(place, stores)
        lengths, scored = shard._lengths_in(counts)
        n_lengths, n_scored = n_lengths + lengths, n_scored + scored
        known = [(i, n) for word, i in place_of.items() if (n := shard._analyzer.number(word)) >= 0]
        if known:
            rows, terms = (np.array(side, dtype=np.int64) for side in zip(*known, strict=True))
            n_holding[rows] += shard._holding_in(terms, counts)
    answers = [_nothing(len(queries), k) for _ in stores]
    for place in range(len(shards)):
        counts = shards.inside(place, stores)
        kept = np.flatnonzero(counts)
        if not kept.size:
            break
        shard = shards.open(place)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = slice(start, start + _QUERIES_AT_ONCE)
            known = [[(n, place_of[w]) for w in line if (n := shard._analyzer.number(w)) >= 0] for line in words[part]]
            numbers = [np.array([n for n, _ in line], dtype=np.int64) for line in known]
            rows = np.array([row for line in known for _, row in line], dtype=np.int64)
            found = shard._search_given(
                numbers, n_holding[rows][:, kept], n_lengths[kept], n_scored[kept], n_in_store=counts[kept], k=k
            )
            for store, answer in zip(kept.tolist(), found, strict=True):
                for side, new in zip(
                    answers[store], merged(_part(answers[store], part), answer, shards.starts[place], k), strict=True
                ):
                    side[part] = new
    return answers


def _nothing(n_queries: int, k: int) -> Answer:
    return np.full((n_queries, k), -1, np.int64), np.full((n_queries, k), -np.inf, np.float32)


def _part(answer: Answer, part: slice) -> Answer:
    return answer[0][part], answer[1][part]


def merged(one: Answer, other: Answer, start: int, k: int) -> Answer:
    """Return the k best of two answers; the rows of the second begin at ``start``."""
    rows = np.where(other[0] < 0, -1, other[0] + start)
    return ordered(np.concatenate([one[0], rows], axis=1), np.concatenate([one[1], other[1]], axis=1), k)
