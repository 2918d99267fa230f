"""Near-duplicates: datasketch's MinHash signatures and banding, joined by sorting on disk instead of a table in memory.

datasketch makes the signatures and chooses bands and rows for the threshold. Its LSH index would hold every document
in a dictionary; the same candidates come from sorting one band at a time, with about 40 bytes a document in memory.
"""

from __future__ import annotations

import hashlib
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragscale._extras import require
from ragscale._files import disk_errors
from ragscale.splitting._decontamination import words
from ragscale.splitting._duplicates import DROP, NEAR_TEXT, Drops, same_as_before, survivors
from ragscale.splitting._order import Runs, unpack
from ragscale.splitting._pieces import finish_piece, finished_piece, piece
from ragscale.splitting._workers import WorkerPool

SHINGLE_WORDS = 5
N_PERMUTATIONS = 128
ALL_PAIRS_UP_TO = 32
_BASE = np.uint64(0x9E3779B97F4A7C15)


def ngram_hashes(text: str, n: int) -> NDArray[np.uint64]:
    """Return 64-bit hashes of the n-grams of words of a text; a shorter text counts as one n-gram."""
    return ngrams(word_numbers(text), n)


def word_numbers(text: str) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each word of a text, in order."""
    found = words(text)
    codes = {word: hashlib.blake2b(word.encode(), digest_size=8).digest() for word in dict.fromkeys(found)}
    return np.frombuffer(b"".join([codes[word] for word in found]), dtype="<u8")


def ngrams(numbers: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Return hashes of the n-grams of what `word_numbers` gave."""
    n = min(n, len(numbers))
    if n == 0:
        return np.empty(0, dtype=np.uint64)
    value = np.zeros(len(numbers) - n + 1, dtype=np.uint64)
    for i in range(n):
        value = (value ^ numbers[i : len(numbers) - n + 1 + i]) * _BASE
        value ^= value >> np.uint64(31)
    return value


def signature(text: str) -> Any:
    """Return the datasketch MinHash of the set of 5-word shingles of a text."""
    minhash = require("datasketch", "split").MinHash(num_perm=N_PERMUTATIONS, seed=1, hashfunc=int)
    shingles = np.unique(ngram_hashes(text, SHINGLE_WORDS) >> np.uint64(32))
    for start in range(0, len(shingles), 8192):
        minhash.update_batch(shingles[start : start + 8192].tolist())
    return minhash


def make_signatures(work: Path, number: int, low: int, high: int) -> None:
    """Write keys and signatures of the documents of one unit that no exact duplicate stands for."""
    target = work / "signatures" / f"{number:06d}"
    if finished_piece(target) is not None:
        return
    with piece(target) as temporary, disk_errors(target):
        rows, packed = Runs(work / "scatter").documents(low, high)
        reasons = survivors(rows, Drops(work / "drops").between(low, high))
        with open(temporary / "signatures", "wb") as file:
            for data, reason in zip(packed, reasons.tolist(), strict=True):
                if not reason:
                    signature(unpack(data).text).hashvalues.astype("<u8").tofile(file)
        kept = rows[reasons == 0]
        np.column_stack([kept["key"], kept["key_low"]]).astype("<u8").tofile(temporary / "keys")
        finish_piece(temporary, {"documents": len(kept)})


def find_near_duplicates(work: Path, units: list[tuple[int, int]], threshold: float, pool: WorkerPool) -> None:
    """Decide which documents a near-duplicate with a smaller key stands for."""
    target = work / "near"
    if finished_piece(target) is not None:
        return
    (work / "signatures").mkdir(exist_ok=True)
    for _ in pool.map(make_signatures, ((work, number, low, high) for number, (low, high) in enumerate(units))):
        pass
    folders = [work / "signatures" / f"{number:06d}" for number in range(len(units))]
    tables = _Signatures([folder / "signatures" for folder in folders])
    keys = [np.fromfile(folder / "keys", dtype="<u8").reshape(-1, 2) for folder in folders]
    cluster = clusters(tables, threshold)
    late = np.flatnonzero(cluster != np.arange(len(tables)))
    joined = np.concatenate([np.empty((0, 2), "<u8"), *keys])[late]
    drops = np.empty(len(late), dtype=DROP)
    drops["key"], drops["key_low"], drops["reason"] = joined[:, 0], joined[:, 1], NEAR_TEXT
    with piece(target) as temporary, disk_errors(target):
        (temporary / "bits").write_text("0")
        drops.tofile(temporary / "00000.drops")
        finish_piece(temporary, {})
    shutil.rmtree(work / "signatures", ignore_errors=True)


class _Signatures:
    """The signatures of all documents in the order of keys, memory-mapped."""

    def __init__(self, paths: list[Path]) -> None:
        self.tables = [
            np.memmap(path, dtype="<u8", mode="r").reshape(-1, N_PERMUTATIONS) for path in paths if path.stat().st_size
        ]
        self.starts = np.cumsum([0, *(len(table) for table in self.tables)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def band(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Return one hash per document of its signature's columns [start, stop)."""
        value = np.zeros(len(self), dtype=np.uint64)
        for first, table in zip(self.starts, self.tables, strict=False):
            part = np.zeros(len(table), dtype=np.uint64)
            for column in range(start, stop):
                part = (part ^ table[:, column]) * _BASE
                part ^= part >> np.uint64(31)
            value[first : first + len(table)] = part
        return value

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the signatures of these documents."""
        values = np.empty((len(numbers), N_PERMUTATIONS), dtype=np.uint64)
        which = np.searchsorted(self.starts, numbers, side="right") - 1
        for table in np.unique(which):
            values[which == table] = self.tables[table][numbers[which == table] - self.starts[table]]
        return values


def clusters(signatures: _Signatures, threshold: float) -> NDArray[np.int64]:
    """Return for each document the first of its cluster: documents joined by pairs that are alike enough."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(signatures)
    bands = require("datasketch", "split").MinHashLSH(threshold=threshold, num_perm=N_PERMUTATIONS)
    edges = [np.empty((0, 2), dtype=np.int64)]
    for band in range(bands.b):
        pairs = _candidates(signatures.band(band * bands.r, (band + 1) * bands.r))
        for start in range(0, len(pairs), 4096):
            block = pairs[start : start + 4096]
            alike = (signatures.rows(block[:, 0]) == signatures.rows(block[:, 1])).mean(axis=1) >= threshold
            edges.append(block[alike])
    pairs = np.concatenate(edges)
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    first = np.full(n, n, dtype=np.int64)
    np.minimum.at(first, label, np.arange(n))
    return first[label]


def _candidates(band: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return pairs of documents with one band hash: all pairs of a small group, first and next of a large one."""
    order = np.argsort(band, kind="stable")
    rows = np.empty(len(band), dtype=[("band", "<u8")])
    rows["band"] = band[order]
    starts = np.flatnonzero(~same_as_before(rows, "band"))
    sizes = np.diff(np.append(starts, len(band)))
    pairs: list[tuple[int, int]] = []
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        group = order[start : start + size].tolist()
        if size <= ALL_PAIRS_UP_TO:
            pairs += [(a, b) for i, a in enumerate(group) for b in group[i + 1 :]]
        else:
            pairs += [(group[0], b) for b in group[1:]] + list(pairwise(group[1:]))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
