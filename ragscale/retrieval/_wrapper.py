"""Retrievers made of other retrievers: how they index, search, save and load their parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ragscale.errors import NotIndexedError
from ragscale.retrieval._base import Retriever
from ragscale.retrieval._hits import Hits
from ragscale.retrieval._stored import from_json, to_json

if TYPE_CHECKING:
    from ragscale.passages import Passage


class Wrapper(Retriever):
    """A retriever whose hits come from those of its parts over the same store.

    The parts are the constructor's first argument: one retriever, or several as ``*retrievers``. A part that was
    indexed over other passages before is left as it is: a copy of it is indexed here.
    """

    _part_argument = "retriever"
    _arms: tuple[Retriever, ...] = ()

    def _parts(self) -> tuple[Retriever, ...]:
        """Return the retrievers that are searched: those that were given, or the copies indexed in their place."""
        return self._arms or self._given()

    def _given(self) -> tuple[Retriever, ...]:
        parts = self._arguments[self._part_argument]
        return parts if isinstance(parts, tuple) else (parts,)

    def _index(self, passages: Sequence[Passage]) -> None:
        self._arms = tuple(self._arm(part, passages) for part in self._given())

    def _arm(self, part: Retriever, passages: Sequence[Passage]) -> Retriever:
        """Return the part if it holds these passages or none yet, else a copy over them."""
        if part._passages is None:
            return part.index(passages, progress=self._progress)
        if _equal(part._passages, passages):
            part._adopt(passages)  # indexed before, by the user or in another hybrid
            return part
        return part._construct(part._arguments).index(passages, progress=self._progress)

    def _adopt(self, passages: Sequence[Passage]) -> None:
        for part in self._parts():
            if part._passages is self._passages:
                part._adopt(passages)
        super()._adopt(passages)

    def _search(self, queries: Sequence[str], k: int) -> Any:
        return self._search_nested(queries, k, [self.n_passages])[0]

    def _part_hits(self, part: Retriever, queries: Sequence[str], k: int, counts: Sequence[int]) -> dict[int, Hits]:
        """Search one part, which must still hold the passages that this retriever was given."""
        if part._passages is not self._passages:
            raise NotIndexedError(
                f"the {type(part).__name__} in this {type(self).__name__} was indexed over other passages since; "
                f"index the {type(self).__name__} again"
            )
        part._progress = self._progress
        try:
            return part._hits(queries, k, counts)
        finally:
            part._progress = False

    def _save_arguments(self, directory: Path) -> dict[str, Any]:
        stored: dict[str, Any] = {self._part_argument: len(self._parts())}
        for i, part in enumerate(self._parts()):
            part.save(directory / f"part{i}", store_passages=False)
        for name in self._arguments.keys() - stored.keys():
            try:
                stored[name] = to_json(self._arguments[name])
            except TypeError:
                continue  # reported as a missing argument when loading
        return stored

    @classmethod
    def _restore(
        cls, directory: Path, stored: dict[str, Any], given: dict[str, Any], passages: Sequence[Passage]
    ) -> Self:
        n_parts = stored.pop(cls._part_argument)
        arguments = {name: from_json(value) for name, value in stored.items()} | given
        if cls._part_argument not in given:
            parts = [Retriever.load(directory / f"part{i}", passages=passages) for i in range(n_parts)]
            arguments[cls._part_argument] = parts[0] if cls._part_argument == "retriever" else tuple(parts)
        return cls._construct(arguments)

    def _load(self, directory: Path) -> None:
        self._index(self.passages)

    def _describe(self) -> dict[str, Any]:
        return {"parts": [part.describe() for part in self._parts()]}


def _equal(one: Sequence[Passage], other: Sequence[Passage]) -> bool:
    return one is other or (len(one) == len(other) and all(a is b or a == b for a, b in zip(one, other, strict=True)))
