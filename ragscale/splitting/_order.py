"""The permutation: a keyed hash of every document, and runs of documents sorted by it on disk.

The corpus is read once. Documents gather in memory up to `RUN_BYTES`, are sorted by key and written as a *run*: one
data file, and one index row per document. Every later stage reads a range of keys from all runs, so nothing ever
holds more than one range, and neither the order of the input nor its shards nor the number of workers is seen in
what comes out.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ragscale._files import disk_errors
from ragscale._long_texts import text_blocks
from ragscale.errors import SplitError
from ragscale.passages import Document
from ragscale.splitting._pieces import START_ANEW, finish_piece, finished_piece, piece
from ragscale.splitting._sources import Reject, Source, check_document, iterate_records

RUN_BYTES = 16 << 20
BUCKET_BITS = 12
INDEX = np.dtype(
    [
        ("key", "<u8"),
        ("key_low", "<u8"),
        ("digest", "<u8"),
        ("digest_low", "<u8"),
        ("offset", "<u8"),
        ("length", "<u8"),
        ("line", "<u8"),
    ]
)
_HEADER = struct.Struct("<4I")


def document_key(id: str, seed: int) -> bytes:
    """Return the 128-bit keyed hash that gives a document its place: BLAKE2b of the id, keyed with the seed."""
    return hashlib.blake2b(id.encode(), digest_size=16, key=str(seed).encode()).digest()


def text_digest(text: str) -> bytes:
    """Return the 128-bit digest under which texts count as exact duplicates: case and white space do not matter."""
    digest, between = hashlib.blake2b(digest_size=16), b""
    for block in text_blocks(text):
        words = " ".join(block.lower().split()).encode()
        if words:
            digest.update(between)
            digest.update(words)
            between = b" "
    return digest.digest()


def scatter(records: Iterable[tuple[int, Document | Reject]], name: str, directory: Path, seed: int) -> dict[str, Any]:
    """Write one shard of the corpus as runs sorted by key; a shard is there whole or not at all.

    Returns
    -------
    dict
        Counts of documents, bytes and rejects, and the shard's fingerprint (independent of the order of documents).
    """
    known = finished_piece(directory)
    if known is not None:
        return known
    with piece(directory) as temporary:
        writer = _Runs(temporary, seed)
        with open(temporary / "rejects.jsonl", "w", encoding="utf-8") as rejects:
            stats = count(records, name, writer.add, rejects)
        writer.close()
        finish_piece(temporary, stats)
    return stats


def count(
    records: Iterable[tuple[int, Document | Reject]],
    name: str,
    add: Callable[[Document, bytes, int], None] | None = None,
    rejects: IO[str] | None = None,
) -> dict[str, Any]:
    """Read a shard and return its counts; hand each usable document, packed and with its line, to ``add``."""
    n_documents = n_bytes = fingerprint = 0
    reasons: dict[str, int] = {}
    first: dict[str, Any] | None = None
    for line, record in records:
        reject = record if isinstance(record, Reject) else check_document(record, name, line)
        if reject is not None:
            reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
            row = {"file": reject.file, "line": reject.line, "reason": reject.reason, "detail": reject.detail}
            first = first or row
            if rejects is not None:
                with disk_errors(rejects.name):
                    rejects.write(json.dumps(row) + "\n")
            continue
        assert isinstance(record, Document)
        data = pack(record)
        fingerprint += int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "big")
        n_documents += 1
        n_bytes += len(data)
        if add is not None:
            add(record, data, line)
    return {
        "name": name,
        "documents": n_documents,
        "bytes": n_bytes,
        "rejects": reasons,
        "first_reject": first,
        "fingerprint": f"{fingerprint % 2**128:032x}",
    }


def scatter_shard(source: Source, shard: str, directory: Path, seed: int) -> dict[str, Any]:
    """Scatter one shard of a source (what a worker is asked to do)."""
    return scatter(source.records(shard), shard, directory, seed)


def scatter_iterable(documents: Iterable[Any], directory: Path, seed: int) -> dict[str, Any]:
    """Scatter any iterable as one shard."""
    return scatter(iterate_records(documents), "<documents>", directory, seed)


def count_shard(source: Source, shard: str) -> dict[str, Any]:
    """Count one shard of a source and write nothing."""
    return count(source.records(shard), shard)


def count_iterable(documents: Iterable[Any]) -> dict[str, Any]:
    """Count any iterable as one shard and write nothing."""
    return count(iterate_records(documents), "<documents>")


def pack(document: Document) -> bytes:
    """Return the document as bytes; `unpack` is the inverse."""
    parts = [part.encode() for part in (document.id, document.title, document.source, document.text)]
    return _HEADER.pack(*map(len, parts)) + b"".join(parts)


def unpack(data: bytes | memoryview) -> Document:
    """Return the document of bytes that `pack` made."""
    lengths = _HEADER.unpack_from(data)
    view, at, parts = memoryview(data), _HEADER.size, []
    for length in lengths:
        parts.append(str(view[at : at + length], "utf-8"))
        at += length
    id, title, source, text = parts
    return Document(id, text, title, source)


class _Runs:
    """Gathers documents and writes them as runs of about `RUN_BYTES`."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.seed = directory, seed
        self._run: list[tuple[bytes, bytes, bytes, int]] = []
        self._pending = self._number = 0

    def add(self, document: Document, data: bytes, line: int) -> None:
        self._run.append((document_key(document.id, self.seed), text_digest(document.text), data, line))
        self._pending += len(data)
        if self._pending >= RUN_BYTES:
            self.close()

    def close(self) -> None:
        if self._run:
            with disk_errors(self.directory):
                _write_run(self.directory, self._number, self._run)
        self._number, self._pending = self._number + 1, 0
        self._run.clear()


def _write_run(directory: Path, number: int, run: list[tuple[bytes, bytes, bytes, int]]) -> None:
    run.sort(key=lambda row: row[:2])
    index = np.empty(len(run), dtype=INDEX)
    for field, hashes in (("key", [row[0] for row in run]), ("digest", [row[1] for row in run])):
        words = np.frombuffer(b"".join(hashes), dtype=">u8").reshape(-1, 2)
        index[field], index[f"{field}_low"] = words[:, 0], words[:, 1]
    index["length"] = [len(row[2]) for row in run]
    index["offset"] = np.cumsum(index["length"]) - index["length"]
    index["line"] = [row[3] for row in run]
    with open(directory / f"run-{number:05d}.data", "wb") as file:
        file.writelines(row[2] for row in run)
    index.tofile(directory / f"run-{number:05d}.index")


class Runs:
    """All runs of a corpus, read by ranges of keys (fractions of the key space in units of 2**-64)."""

    def __init__(self, directory: Path) -> None:
        self.indexes = sorted(directory.glob("[0-9]*/run-*.index"))

    def sizes(self, bits: int = BUCKET_BITS) -> NDArray[np.int64]:
        """Return the bytes of documents in each of the ``2**bits`` equal ranges of keys."""
        sizes = np.zeros(1 << bits, dtype=np.int64)
        for path in self.indexes:
            index = _open_index(path)
            for start in range(0, len(index), 1 << 20):
                rows = index[start : start + (1 << 20)]
                bucket = (rows["key"] >> np.uint64(64 - bits)).astype(np.int64)
                sizes += np.bincount(bucket, weights=rows["length"], minlength=1 << bits).astype(np.int64)
        return sizes

    def rows(self, low: int, high: int) -> Iterator[tuple[Path, NDArray[Any]]]:
        """Yield the index rows with low <= key < high, run by run."""
        for path in self.indexes:
            index = _open_index(path)
            start, stop = (_position(index["key"], bound) for bound in (low, high))
            if stop > start:
                yield path, np.array(index[start:stop])

    def documents(self, low: int, high: int) -> tuple[NDArray[Any], list[bytes]]:
        """Return the index rows and packed documents with low <= key < high, sorted by key, then digest."""
        rows, data = [], []
        for path, part in self.rows(low, high):
            start, stop = int(part["offset"][0]), int(part["offset"][-1] + part["length"][-1])
            with open(path.with_suffix(".data"), "rb") as file:
                file.seek(start)
                block = memoryview(file.read(stop - start))
            if len(block) != stop - start:
                raise SplitError(f"{path.with_suffix('.data')} is damaged, it is too short: {START_ANEW}")
            rows.append(part)
            data += [
                bytes(block[offset - start : offset - start + length])
                for offset, length in zip(part["offset"].tolist(), part["length"].tolist(), strict=True)
            ]
        if not rows:
            return np.empty(0, dtype=INDEX), []
        joined = np.concatenate(rows)
        order = sort_order(joined)
        return joined[order], [data[i] for i in order]


def sort_order(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return the order of index rows by key; equal ids (equal keys) by digest, so that the input order never shows."""
    return np.lexsort((rows["line"], rows["digest_low"], rows["digest"], rows["key_low"], rows["key"]))


def _open_index(path: Path) -> NDArray[Any]:
    return np.memmap(path, dtype=INDEX, mode="r")


def _position(keys: NDArray[Any], bound: int) -> int:
    return len(keys) if bound >= 1 << 64 else int(np.searchsorted(keys, np.uint64(bound)))
