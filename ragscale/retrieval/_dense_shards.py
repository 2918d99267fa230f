"""Dense stores larger than memory: several indexes, searched one after the other and merged exactly."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragscale._counts import whole_or_zero
from ragscale._files import read_json, write_json
from ragscale.errors import ConfigError
from ragscale.passages import Passage
from ragscale.retrieval._base import Retriever
from ragscale.retrieval._dense import Answer, DenseRetriever, Texts
from ragscale.retrieval._embeddings import embed_queries
from ragscale.retrieval._encoder import Encoder
from ragscale.retrieval._shards import merged

_SCHEMA, _VERSION = "ragscale.dense_shards", 1


class ShardedDenseRetriever(Retriever):
    """Search several dense indexes over consecutive passages as if they were one.

    A dense score depends on one query and one passage only, so the best of all shards are among the best of each and
    the merge is exact; with flat shards the hits are those of one flat index, bit for bit.

    Parameters
    ----------
    template : DenseRetriever
        How each shard is made; itself without passages.
    shard_size : int
        Passages per shard.
    directory : path, optional
        Write each shard here as soon as it is built, and map it into memory: building then needs memory for one
        shard only.

    Examples
    --------
    >>> from ragscale.retrieval import LsaEncoder
    >>> texts = ["cats purr", "kittens and cats purr", "ships sail", "boats and ships sail"]
    >>> store = [Passage(str(i), text, 3, str(i)) for i, text in enumerate(texts)]
    >>> sharded = ShardedDenseRetriever(DenseRetriever(LsaEncoder(2)), shard_size=3).index(store)
    >>> sharded.search("a ship or ships", k=2).ids
    array([[2, 3]])
    """

    def __init__(
        self,
        template: DenseRetriever,
        *,
        shard_size: int = 1_000_000,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(template, DenseRetriever):
            raise ConfigError(f"template must be a DenseRetriever, got {template!r}")
        if whole_or_zero(shard_size) < 1:
            raise ConfigError(f"shard_size must be at least 1, got {shard_size}")
        if template.increments:
            raise ConfigError("a sharded retriever takes no increments: every shard begins a new graph already")
        self.template, self.shard_size, self.directory = template, whole_or_zero(shard_size), directory

    def _index(self, passages: Sequence[Passage]) -> None:
        self._encoder = self.template.encoder.fitted(Texts(passages))
        options = {**self.template._arguments, "encoder": self._encoder}
        self._shards: list[DenseRetriever] = []
        starts = range(0, len(passages), self.shard_size)
        for number, start in enumerate(self._track(starts, what="shards", total=len(starts))):
            held = passages[start : start + self.shard_size]
            shard = DenseRetriever._construct(options).index(held)
            if self.directory is not None:
                path = Path(self.directory) / _name(number)
                shard.save(path, store_passages=False)
                shard = DenseRetriever.load(path, passages=held, encoder=self._encoder, memory_map=True)
            self._shards.append(shard)

    def _search(self, queries: Sequence[str], k: int) -> Answer:
        return self._search_nested(queries, k, [self.n_passages])[0]

    def _search_nested(self, queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]) -> list[Answer]:
        for shard in self._shards:
            shard._require_same_encoder()
        vectors = embed_queries(self._encoder, queries)
        counts = list(n_passages_per_store)
        none: Answer = (np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32))
        answers = [none for _ in counts]
        start = 0
        for shard in self._track(self._shards, what="search", total=len(self._shards)):
            local = [min(max(n - start, 0), shard.n_passages) for n in counts]
            wanted = sorted({n for n in local if n})
            if wanted:
                found = dict(zip(wanted, shard.search_vectors(vectors, k, n_passages=wanted), strict=True))
                for i, n in enumerate(local):
                    if n:
                        answers[i] = merged(answers[i], found[n], start, k)
            start += shard.n_passages
        return answers

    def _describe(self) -> dict[str, Any]:
        shards = [shard.describe() for shard in self._shards]
        return {
            "encoder": self._encoder.describe(),
            "bytes": sum(shard["bytes"] for shard in shards),
            "is_exact": all(shard["is_exact"] for shard in shards),
            "shards": shards,
        }

    def _save_arguments(self, directory: Path) -> dict[str, Any]:
        stored = super()._save_arguments(directory)
        stored["directory"] = None
        if self._encoder.is_storable:
            self._encoder.save(directory / "encoder")
            options = self.template._arguments
            stored["template"] = {**options, "encoder": "encoder", "train": None, "cache": None, "increments": []}
        return stored

    @classmethod
    def _load_arguments(cls, directory: Path, stored: dict[str, Any]) -> dict[str, Any]:
        if "template" not in stored:
            return stored
        encoder = Encoder.load(directory / stored["template"]["encoder"])
        return {**stored, "template": DenseRetriever._construct({**stored["template"], "encoder": encoder})}

    def _save(self, directory: Path) -> None:
        for number, shard in enumerate(self._shards):
            shard.save(directory / _name(number), store_passages=False)
        write_json(directory / "shards.json", {"n_shards": len(self._shards)}, schema=_SCHEMA, version=_VERSION)

    def _load(self, directory: Path) -> None:
        n_shards = read_json(directory / "shards.json", schema=_SCHEMA, version=_VERSION)["n_shards"]
        self._encoder = self.template.encoder
        self._shards = []
        for number in range(n_shards):
            held = self.passages[number * self.shard_size : (number + 1) * self.shard_size]
            self._shards.append(DenseRetriever.load(directory / _name(number), passages=held, encoder=self._encoder))


def _name(number: int) -> str:
    return f"shard-{number:04d}"
