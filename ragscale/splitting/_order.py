"""The permutation: a keyed hash of every document, and runs of documents sorted by it on disk.

The corpus is read once. Documents gather in memory up to `RUN_BYTES`, are sorted by key and written as a *run*: one
data file, and one index row per document. Every later stage reads a range of keys from all runs, so nothing ever
holds more than one range, and neither the order of the input nor its shards nor the number of workers is seen in
what comes out.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragscale.passages import Document
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
    return hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=16).digest()


def scatter(records: Iterable[tuple[int, Document | Reject]], name: str, directory: Path, seed: int) -> dict[str, Any]:
    """Write one shard of the corpus as runs sorted by key; a shard is there whole or not at all.

    Returns
    -------
    dict
        Counts of documents, bytes and rejects, and the shard's fingerprint (independent of the order of documents).
    """
    finished = directory / "stats.json"
    if finished.is_file():
        return json.loads(finished.read_text(encoding="utf-8"))
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    run: list[tuple[bytes, bytes, bytes, int]] = []
    n_documents = n_bytes = n_runs = pending = fingerprint = 0
    reasons: dict[str, int] = {}
    with open(temporary / "rejects.jsonl", "w", encoding="utf-8") as rejects:
        for line, record in records:
            reject = record if isinstance(record, Reject) else check_document(record, name, line)
            if reject is not None:
                reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
                row = {"file": reject.file, "line": reject.line, "reason": reject.reason, "detail": reject.detail}
                rejects.write(json.dumps(row) + "\n")
                continue
            assert isinstance(record, Document)
            data = pack(record)
            fingerprint += int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "big")
            run.append((document_key(record.id, seed), text_digest(record.text), data, line))
            n_documents += 1
            n_bytes += len(data)
            pending += len(data)
            if pending >= RUN_BYTES:
                _write_run(temporary, n_runs, run)
                n_runs, pending = n_runs + 1, 0
                run.clear()
    if run:
        _write_run(temporary, n_runs, run)
    stats = {
        "name": name,
        "documents": n_documents,
        "bytes": n_bytes,
        "rejects": reasons,
        "fingerprint": f"{fingerprint % 2**128:032x}",
    }
    (temporary / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(temporary, directory)
    return stats


def scatter_shard(source: Source, shard: str, directory: Path, seed: int) -> dict[str, Any]:
    """Scatter one shard of a source (what a worker is asked to do)."""
    return scatter(source.records(shard), shard, directory, seed)


def scatter_iterable(documents: Iterable[Any], directory: Path, seed: int) -> dict[str, Any]:
    """Scatter any iterable as one shard."""
    return scatter(iterate_records(documents), "<documents>", directory, seed)


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
        self.indexes = sorted(directory.glob("*/run-*.index"))

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
