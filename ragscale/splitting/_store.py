"""The retrieval store: the suffix of the permutation as passages from the end backward, or its prefix forward."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from ragscale._extras import require
from ragscale._files import check_digest
from ragscale.errors import SplitError
from ragscale.passages import Passage
from ragscale.splitting._assemble import POOL_FRAME
from ragscale.splitting._units import ROW

CACHED_FRAMES = 16


class _View(Sequence[Passage], ABC):
    """Rows ``_start`` to ``_stop`` of a list; a slice of neighbours is again such a view."""

    _start: int
    _stop: int

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, index: int) -> Passage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Passage]: ...
    def __getitem__(self, index: int | slice) -> Passage | Sequence[Passage]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._part(self._start + start, self._start + max(start, stop))
            return [self[i] for i in range(start, stop, step)]
        if not -len(self) <= index < len(self):
            raise IndexError(f"passage {index} of {len(self)}")
        return self._at(self._start + index % len(self))

    def first(self, n: int) -> Self:
        """Return the first n passages as a view."""
        return self._part(self._start, self._start + n)

    @abstractmethod
    def _at(self, row: int) -> Passage:
        """Return a passage by its row in the whole list."""

    @abstractmethod
    def _part(self, start: int, stop: int) -> Self:
        """Return the view of these rows of the whole list."""


class Passages(_View):
    """Passages on disk that read like a list; a slice of neighbours is again such a view.

    Passages lie in frames of at most 256 that are compressed apart: reading one costs one frame, reading on costs
    nothing more, and a prefix of the list is a prefix of the files.
    """

    def __init__(
        self, directory: Path, start: int = 0, stop: int | None = None, *, digests: Mapping[str, str] | None = None
    ) -> None:
        self._directory, self._digests = directory, dict(digests or {})
        self._check("frames.bin", "rows.bin")
        self._frames = np.fromfile(directory / "frames.bin", dtype=POOL_FRAME)
        self._total = int(self._frames["first_row"][-1] + self._frames["rows"][-1]) if len(self._frames) else 0
        self._start, self._stop = start, self._total if stop is None else stop
        self._cache: OrderedDict[int, list[bytes]] = OrderedDict()

    def _at(self, row: int) -> Passage:
        frame = int(np.searchsorted(self._frames["first_row"], row, side="right")) - 1
        return _passage(self._lines(frame)[row - int(self._frames["first_row"][frame])])

    def _part(self, start: int, stop: int) -> Self:
        return type(self)(self._directory, start, stop, digests=self._digests)

    def _check(self, *names: str) -> None:
        for path in (self._directory / name for name in names):
            if str(path) in self._digests:
                check_digest(path, self._digests[str(path)], error=SplitError)

    def __iter__(self) -> Iterator[Passage]:
        row = self._start
        while row < self._stop:
            frame = int(np.searchsorted(self._frames["first_row"], row, side="right")) - 1
            first = int(self._frames["first_row"][frame])
            lines = self._lines(frame)[row - first : self._stop - first]
            yield from map(_passage, lines)
            row += len(lines)

    @property
    def n_tokens(self) -> NDArray[np.int64]:
        """Tokens of each passage, (n_passages,), without reading any text."""
        return self._rows()["n_tokens"].astype(np.int64)

    @property
    def n_new_tokens(self) -> NDArray[np.int64]:
        """Unique tokens that each passage adds, (n_passages,), without reading any text."""
        return self._rows()["n_new_tokens"].astype(np.int64)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the stored rows, which also say at which token of its document a passage starts."""
        for frame in range(len(self._frames)):
            first = int(self._frames["first_row"][frame])
            if first < self._stop and first + int(self._frames["rows"][frame]) > self._start:
                lines = self._lines(frame)[max(self._start - first, 0) : self._stop - first]
                yield from map(json.loads, lines)

    def _rows(self) -> NDArray[Any]:
        return np.fromfile(self._directory / "rows.bin", dtype=ROW, count=len(self), offset=self._start * ROW.itemsize)

    def _lines(self, number: int) -> list[bytes]:
        if number not in self._cache:
            frame = self._frames[number]
            name = f"{int(frame['shard']):05d}.jsonl.zst"
            self._check(name)
            with open(self._directory / name, "rb") as file:
                file.seek(int(frame["offset"]))
                data = file.read(int(frame["size"]))
            text = require("zstandard", "split").ZstdDecompressor().decompress(data)
            self._cache[number] = text.split(b"\n")[:-1]
            if len(self._cache) > CACHED_FRAMES:
                self._cache.popitem(last=False)
        return self._cache[number]

    def prefix(self, n_new_tokens: int) -> tuple[int, int, int]:
        """Return (passages, unique tokens, tokens) of the longest prefix with at most this many unique tokens."""
        if not len(self._frames):
            return 0, 0, 0
        frame = int(np.searchsorted(self._frames["new_tokens_before"], n_new_tokens, side="right")) - 1
        entry = self._frames[frame]
        first = int(entry["first_row"])
        rows = np.fromfile(
            self._directory / "rows.bin", dtype=ROW, count=int(entry["rows"]), offset=first * ROW.itemsize
        )
        unique = int(entry["new_tokens_before"]) + np.cumsum(rows["n_new_tokens"], dtype=np.int64)
        n = int(np.searchsorted(unique, n_new_tokens, side="right"))
        tokens = int(entry["tokens_before"]) + int(rows["n_tokens"][:n].sum(dtype=np.int64))
        return first + n, int(unique[n - 1]) if n else int(entry["new_tokens_before"]), tokens

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def __repr__(self) -> str:
        return f"Passages({len(self):,} of {self._total:,})"


class SeenPassages(_View):
    """The passages of a split from the start of the permutation on, in the order in which pretraining reads them.

    It is the list of the held-out store read from its other end. What a passage adds is counted in this direction:
    a window adds what the window before it in its document did not have.
    """

    def __init__(
        self,
        backward: Passages,
        start: int = 0,
        stop: int | None = None,
        *,
        counts: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> None:
        self._backward, self._counts = backward, counts
        self._start, self._stop = start, len(backward) if stop is None else stop

    def _at(self, row: int) -> Passage:
        passage = self._backward[len(self._backward) - 1 - row]
        return replace(passage, n_new_tokens=int(self._forward()[1][row]))

    def _part(self, start: int, stop: int) -> Self:
        return type(self)(self._backward, start, stop, counts=self._forward())  # counted once for all views

    def __iter__(self) -> Iterator[Passage]:
        return (self[i] for i in range(len(self)))

    @property
    def n_tokens(self) -> NDArray[np.int64]:
        """Tokens of each passage, (n_passages,), without reading any text."""
        return self._forward()[0][self._start : self._stop]

    @property
    def n_new_tokens(self) -> NDArray[np.int64]:
        """Unique tokens that each passage adds, (n_passages,), without reading any text."""
        return self._forward()[1][self._start : self._stop]

    def _forward(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self._counts is None:
            tokens, new = self._backward.n_tokens, self._backward.n_new_tokens
            shared = tokens - new  # with the window after it in the document, which lies before it in the list
            before = np.append(shared[1:], 0)  # with the window before it, 0 for the first of a document
            self._counts = tokens[::-1].copy(), (tokens - before)[::-1].copy()
        return self._counts

    def prefix(self, n_new_tokens: int) -> tuple[int, int, int]:
        """Return (passages, unique tokens, tokens) of the longest prefix with at most this many unique tokens."""
        unique = np.cumsum(self.n_new_tokens, dtype=np.int64)
        n = int(np.searchsorted(unique, n_new_tokens, side="right"))
        return n, int(unique[n - 1]) if n else 0, int(self.n_tokens[:n].sum(dtype=np.int64))

    def __repr__(self) -> str:
        return f"SeenPassages({len(self):,} of {len(self._backward):,})"


def _passage(line: bytes) -> Passage:
    row = json.loads(line)
    return Passage(row["id"], row["text"], row["n_tokens"], row["document_id"], row["n_new_tokens"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """R unique tokens of the permutation as passages: its last ones, or with source "seen" its first ones.

    Parameters
    ----------
    R : int
        The unique tokens that were asked for.
    passages : Passages or SeenPassages
        Listed from the end of the permutation backward (seen: from its start on): every smaller store is a prefix of
        this list.
    n_tokens : int
        Unique tokens of the store: as many as whole passages allow, at most R.
    n_passage_tokens : int
        Tokens of all passages, those in two windows counted twice.
    overlap_tokens : int
        Tokens that the store shares with the pretraining prefix it was asked to stand beside; above 0 only with
        ``allow_overlap=True`` and for a seen store.
    source : "held-out" or "seen"
        Which end of the permutation the store comes from.
    digest : str
        Identifies the passages.
    """

    R: int
    passages: Passages | SeenPassages
    n_tokens: int
    n_passage_tokens: int
    overlap_tokens: int = 0
    source: str = "held-out"
    digest: str

    @property
    def overlap_factor(self) -> float:
        """Tokens of all passages by unique tokens: 1 without overlapping windows."""
        return self.n_passage_tokens / self.n_tokens if self.n_tokens else 1.0

    @property
    def n_passages(self) -> int:
        return len(self.passages)

    @property
    def seen_share(self) -> float:
        """The part of the store that pretraining has read: 0 for a held-out store, min(1, D / R) for a seen one."""
        return self.overlap_tokens / self.n_tokens if self.n_tokens else 0.0

    def __len__(self) -> int:
        return len(self.passages)

    def row(self) -> dict[str, Any]:
        """Return what every result from this store should say of it: R, overlap, and where it comes from."""
        return {
            "R": self.n_tokens,
            "overlap_factor": self.overlap_factor,
            "overlap_tokens": self.overlap_tokens,
            "store_source": self.source,
            "seen_share": self.seen_share,
        }
