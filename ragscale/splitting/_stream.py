"""A stretch of tokens that lies in memory-mapped shards and reads like one array."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragscale._files import check_digest
from ragscale.errors import SplitError


class TokenStream:
    """Tokens in one fixed order, array-like, with the places where documents start.

    Slices and integer arrays give NumPy arrays, an integer gives an int; ``len`` is exact. Shards are memory-mapped
    when first read, in whichever process reads, so a stream can be sent to data-loader workers at no cost; those of
    a split are checked against their digests then.

    Attributes
    ----------
    digest : str
        Identifies the tokens: two streams with one digest hold the same.
    eos_id, vocab_size : int or None
        Of the tokenizer, where known.
    """

    def __init__(
        self,
        shards: Sequence[tuple[str | Path | NDArray[Any], int]],
        length: int,
        *,
        dtype: str = "<u2",
        offsets: str | Path | ArrayLike | None = None,
        digest: str,
        digests: Mapping[str, str] | None = None,
        eos_id: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self._digests = dict(digests or {})
        self._shards = [(shard if isinstance(shard, np.ndarray) else str(shard), int(n)) for shard, n in shards]
        self._ends = np.cumsum([0, *(n for _, n in self._shards)], dtype=np.int64)
        if length > self._ends[-1]:
            raise SplitError(f"the shards hold {self._ends[-1]} tokens, fewer than the {length} of the stream")
        self._length = int(length)
        self._offsets = offsets
        self._maps: dict[int, NDArray[Any]] = {}
        self.dtype = np.dtype(dtype)
        self.digest = digest
        self.eos_id = eos_id
        self.vocab_size = vocab_size

    @classmethod
    def from_array(
        cls,
        array: ArrayLike,
        offsets: ArrayLike | None = None,
        digest: str | None = None,
        *,
        eos_id: int | None = None,
        vocab_size: int | None = None,
    ) -> TokenStream:
        """Make a stream of tokens that lie in an array, a memory map included.

        Parameters
        ----------
        array : array-like of int, (n,)
            The token ids.
        offsets : array-like of int, (number of documents + 1,), optional
            Where documents start, from 0, and last the length of the array. Without it, documents end at each
            ``eos_id`` when that is given; else the whole is one document.
        digest : str, optional
            Identifies the tokens; by default the SHA-256 of their values.

        Examples
        --------
        >>> stream = TokenStream.from_array([5, 6, 0, 7, 0], eos_id=0)
        >>> stream[1:4], stream.document_boundaries
        (array([6, 0, 7]), array([0, 3, 5]))
        """
        array = np.asarray(array)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise SplitError(f"tokens must be a flat array of integers, got shape {array.shape} of {array.dtype}")
        if offsets is None and eos_id is not None:
            ends = np.flatnonzero(array == eos_id) + 1
            offsets = np.unique(np.concatenate([[0], ends, [len(array)]]))
        if offsets is not None:
            offsets = np.asarray(offsets, dtype=np.int64)
            if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(array) or np.any(np.diff(offsets) < 0):
                raise SplitError(f"offsets must rise from 0 to the number of tokens {len(array)}, got {offsets}")
        if digest is None:
            digest = hashlib.sha256(np.ascontiguousarray(array, dtype="<i8").tobytes()).hexdigest()
        return cls(
            [(array, len(array))],
            len(array),
            dtype=array.dtype.str,
            offsets=offsets,
            digest=digest,
            eos_id=eos_id,
            vocab_size=vocab_size,
        )

    def __len__(self) -> int:
        return self._length

    @property
    def shape(self) -> tuple[int]:
        return (self._length,)

    @property
    def ndim(self) -> int:
        return 1

    @property
    def size(self) -> int:
        return self._length

    @property
    def document_boundaries(self) -> NDArray[np.int64]:
        """Where documents start, (n_documents + 1,): the first is 0, the last is ``len``, even inside a document."""
        if self._offsets is None:
            return np.unique(np.array([0, self._length], dtype=np.int64))
        offsets = None
        if isinstance(self._offsets, str | Path):
            self._check(str(self._offsets))
            offsets = np.memmap(self._offsets, dtype="<u8", mode="r")
        offsets = np.asarray(self._offsets) if offsets is None else offsets
        inside = offsets[: np.searchsorted(offsets, self._length, side="left")]
        return np.append(inside, self._length).astype(np.int64)

    def _map(self, shard: int) -> NDArray[Any]:
        if shard not in self._maps:
            source, n = self._shards[shard]
            if isinstance(source, str):
                self._check(source)
                source = np.memmap(source, dtype=self.dtype, mode="r", shape=(n,))
            self._maps[shard] = source
        return self._maps[shard]

    def _check(self, path: str) -> None:
        if path in self._digests:
            check_digest(Path(path), self._digests[path], error=SplitError)

    def _range(self, start: int, stop: int) -> NDArray[Any]:
        if stop <= start:
            return np.empty(0, dtype=self.dtype)
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right") - 1
        pieces = [
            self._map(s)[max(start - self._ends[s], 0) : min(stop - self._ends[s], self._shards[s][1])]
            for s in range(first, last + 1)
        ]
        return np.array(pieces[0]) if len(pieces) == 1 else np.concatenate(pieces)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            start, stop, step = key.indices(self._length)
            if step == 1:
                return self._range(start, stop)
            key = np.arange(start, stop, step)
        if np.ndim(key) == 0:
            index = int(key)
            if not -self._length <= index < self._length:
                raise IndexError(f"token {index} of a stream of {self._length}")
            index %= self._length
            return int(self._range(index, index + 1)[0])
        index = np.asarray(key)
        if index.dtype == bool:
            if index.shape != self.shape:
                raise IndexError(f"a mask of shape {index.shape} for a stream of {self._length} tokens")
            index = np.flatnonzero(index)
        index = index.astype(np.int64)
        if index.size and (index.min() < -self._length or index.max() >= self._length):
            raise IndexError(f"tokens {index.min()}..{index.max()} of a stream of {self._length}")
        index = np.where(index < 0, index + self._length, index)
        shard = np.searchsorted(self._ends, index, side="right") - 1
        values = np.empty(index.shape, dtype=self.dtype)
        for s in np.unique(shard):
            values[shard == s] = self._map(int(s))[index[shard == s] - self._ends[s]]
        return values

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self._length, 65536):
            yield from self._range(start, min(start + 65536, self._length)).tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a TokenStream cannot become an array without copying: it is memory-mapped")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def __repr__(self) -> str:
        return f"TokenStream({self._length:,} tokens, digest {self.digest[:12]})"
