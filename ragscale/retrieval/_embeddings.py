"""Encode many texts in blocks, each kept on disk under a digest of what it holds, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from ragscale._files import atomic_write, value_digest
from ragscale.errors import ConfigError, TruncationWarning
from ragscale.retrieval._encoder import Encoder, Kind, Truncation, Vectors

Track = Callable[[Iterable[int]], Iterator[int]]


def embed(
    encoder: Encoder,
    texts: Sequence[str],
    kind: Kind = "passage",
    *,
    cache: str | os.PathLike[str] | None = None,
    block_size: int = 4096,
    track: Track | None = None,
) -> tuple[Vectors, Truncation]:
    """Encode texts block by block, taking from the cache the blocks that it holds.

    A block's file is named by a digest of the encoder, the kind and the block's texts, so nothing stale is ever
    read, a prefix of the texts reuses all its full blocks, and any number of corpora share one cache. The name also
    carries a digest of the vectors: a damaged file is encoded anew.

    Parameters
    ----------
    encoder : Encoder
        What to encode with.
    texts : sequence of str
        What to encode; read one block at a time.
    kind : {"passage", "query"}
        Which side of the search.
    cache : path, optional
        The directory; nothing is kept without it.
    block_size : int
        Texts per block: the most work that an interruption loses.
    track : callable, optional
        Wraps the iteration over block starts, for a progress bar.

    Returns
    -------
    vectors : ndarray of float32, shape (n_texts, dim)
    truncation : Truncation
        How much of these texts the encoder cut off, in this run or when a block was written.
    """
    if block_size < 1:
        raise ConfigError(f"block_size must be at least 1, got {block_size}")
    starts = range(0, len(texts), block_size)
    vectors = np.empty((len(texts), encoder.dim), np.float32)
    directory = None if cache is None else Path(cache) / encoder.digest[:16]
    truncation = Truncation()
    for start in starts if track is None else track(starts):
        block = list(texts[start : start + block_size])
        encoded, cut = _encoded(encoder, block, kind) if directory is None else _cached(encoder, block, kind, directory)
        vectors[start : start + len(block)] = encoded
        truncation += cut
    return vectors, truncation


def embed_queries(encoder: Encoder, queries: Sequence[str]) -> Vectors:
    """Encode queries, and say in numbers what the encoder did not read of them."""
    before = encoder.truncation("query")
    vectors = encoder.encode_queries(queries)
    warn_about_truncation(encoder.truncation("query") - before, "queries")
    return vectors


def warn_about_truncation(cut: Truncation, what: str) -> None:
    """Say in numbers what an encoder did not read."""
    if cut.n_truncated:
        warnings.warn(
            f"{cut.n_truncated} of {cut.n_texts} {what} are longer than the encoder reads: it never saw "
            f"{cut.n_tokens_lost} of {cut.n_tokens} tokens; cut {what} shorter or choose another encoder",
            TruncationWarning,
            stacklevel=6,
        )


def _encoded(encoder: Encoder, block: list[str], kind: Kind) -> tuple[Vectors, Truncation]:
    before = encoder.truncation(kind)
    return encoder.encode(block, kind), encoder.truncation(kind) - before


def _cached(encoder: Encoder, block: list[str], kind: Kind, directory: Path) -> tuple[Vectors, Truncation]:
    key = value_digest([encoder.digest, kind, [hashlib.sha256(_utf8(text)).hexdigest() for text in block]])[:32]
    for path in sorted(directory.glob(f"{key}-*.npz")):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:32] == path.stem.partition("-")[2]:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                return stored["vectors"], Truncation(*stored["truncation"].tolist())
        path.unlink(missing_ok=True)
    vectors, truncation = _encoded(encoder, block, kind)
    buffer = io.BytesIO()
    np.savez(buffer, vectors=vectors, truncation=astuple(truncation))
    data = buffer.getvalue()
    with atomic_write(directory / f"{key}-{hashlib.sha256(data).hexdigest()[:32]}.npz") as file:
        file.write(data)
    return vectors, truncation


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
