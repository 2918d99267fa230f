"""Which documents are left out of the permutation because another one stands for them.

Two sorts on disk decide it: by key, to find ids that occur twice, and by digest, to find texts that do. Of equal
texts the document with the smallest key stays. A range of keys or digests is handled at a time, so memory does not
grow with the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragscale._files import disk_errors
from ragscale.splitting._order import INDEX, Runs, sort_order, unpack
from ragscale.splitting._pieces import finish_piece, finished_piece, piece, read_work

DOCUMENTS_PER_RANGE = 1 << 20
SAME_ID, SAME_TEXT, NEAR_TEXT = 1, 2, 3
REASONS = {SAME_ID: "duplicate id", SAME_TEXT: "exact duplicate", NEAR_TEXT: "near duplicate"}
DROP = np.dtype([("key", "<u8"), ("key_low", "<u8"), ("reason", "<u8")])


class Drops:
    """The keys left out, in files by key range, written whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bits = int((directory / "bits").read_text()) if (directory / "bits").is_file() else 0

    def between(self, low: int, high: int) -> NDArray[Any]:
        """Return the drops with low <= key < high, in no order."""
        first, last = low >> (64 - self.bits) if self.bits else 0, (high - 1) >> (64 - self.bits) if self.bits else 0
        parts = [np.fromfile(path, DROP) for path in self._files(range(first, last + 1)) if path.is_file()]
        drops = np.concatenate([np.empty(0, DROP), *parts])
        inside = (drops["key"] >= np.uint64(low)) & (drops["key"] <= np.uint64(high - 1))
        return drops[inside]

    def _files(self, numbers: range) -> Iterator[Path]:
        return (self.directory / f"{number:05d}.drops" for number in numbers)


def key_ranges(bits: int) -> list[tuple[int, int]]:
    """Return the bounds of the ``2**bits`` equal ranges of the 64-bit key space."""
    width = 1 << (64 - bits)
    return [(i * width, (i + 1) * width) for i in range(1 << bits)]


def find_duplicates(runs: Runs, directory: Path, n_documents: int, *, exact: bool) -> Drops:
    """Decide which documents go: all but one of each id, and (``exact``) all but one of each text."""
    if finished_piece(directory) is None:
        with piece(directory) as temporary, disk_errors(directory):
            bits = max(0, (n_documents // DOCUMENTS_PER_RANGE).bit_length())
            (temporary / "bits").write_text(str(bits))
            _find_same_ids(runs, temporary, bits, exact=exact)
            _find_same_texts(temporary, bits)
            finish_piece(temporary, {})
    return Drops(directory)


def _find_same_ids(runs: Runs, temporary: Path, bits: int, *, exact: bool) -> None:
    (temporary / "duplicate-ids.jsonl").touch()
    for low, high in key_ranges(bits):
        parts = list(runs.rows(low, high))
        rows = np.concatenate([np.empty(0, INDEX), *(part for _, part in parts)])
        run = np.repeat(np.arange(len(parts)), [len(part) for _, part in parts])
        order = sort_order(rows)
        rows, run = rows[order], run[order]
        again = same_as_before(rows, "key", "key_low")
        _list_same_ids(temporary / "duplicate-ids.jsonl", [path for path, _ in parts], run[again], rows[again])
        _append(temporary, bits, "key", "drops", drop_rows(rows[again], SAME_ID))
        if exact:
            _append(temporary, bits, "digest", "digests", rows[~again][["key", "key_low", "digest", "digest_low"]])


def _find_same_texts(temporary: Path, bits: int) -> None:
    for path in sorted(temporary.glob("*.digests")):
        rows = np.fromfile(path, _DIGESTS)
        rows = rows[np.lexsort((rows["key_low"], rows["key"], rows["digest_low"], rows["digest"]))]
        again = same_as_before(rows, "digest", "digest_low")
        _append(temporary, bits, "key", "drops", drop_rows(rows[again], SAME_TEXT))
        path.unlink()


_DIGESTS = np.dtype([("key", "<u8"), ("key_low", "<u8"), ("digest", "<u8"), ("digest_low", "<u8")])


def same_as_before(rows: NDArray[Any], *fields: str) -> NDArray[np.bool_]:
    """Mark the rows of a sorted table that equal their predecessor in all these fields."""
    again = np.zeros(len(rows), dtype=bool)
    if len(rows) > 1:
        again[1:] = np.logical_and.reduce([rows[field][1:] == rows[field][:-1] for field in fields])
    return again


def drop_rows(rows: NDArray[Any], reason: int) -> NDArray[Any]:
    """Return drops for these index rows."""
    drops = np.empty(len(rows), dtype=DROP)
    drops["key"], drops["key_low"], drops["reason"] = rows["key"], rows["key_low"], reason
    return drops


def _list_same_ids(file: Path, runs: list[Path], run: NDArray[np.int64], rows: NDArray[Any]) -> None:
    """Write where the second and later documents of an id stand."""
    with open(file, "a", encoding="utf-8") as listing:
        for number, row in zip(run.tolist(), rows, strict=True):
            path = runs[number]
            with open(path.with_suffix(".data"), "rb") as data:
                data.seek(int(row["offset"]))
                document = unpack(data.read(int(row["length"])))
            shard = read_work(path.parent / "stats.json")["stats"]["name"]
            entry = {"file": shard, "line": int(row["line"]), "reason": REASONS[SAME_ID], "detail": document.id}
            listing.write(json.dumps(entry) + "\n")


def _append(directory: Path, bits: int, field: str, suffix: str, rows: NDArray[Any]) -> None:
    """Add rows to the files of their ranges."""
    number = (rows[field] >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(rows), np.int64)
    rows = np.ascontiguousarray(rows).astype(_DIGESTS if suffix == "digests" else DROP)
    for n in np.unique(number):
        with open(directory / f"{n:05d}.{suffix}", "ab") as file:
            rows[number == n].tofile(file)


def survivors(rows: NDArray[Any], drops: NDArray[Any]) -> NDArray[np.uint64]:
    """Return for each sorted index row 0 where the document stays, else the reason why it goes.

    A duplicate id drops the second of two equal keys, every other reason the one document that has the key.
    """
    reasons = np.zeros(len(rows), dtype=np.uint64)
    again = same_as_before(rows, "key", "key_low")
    reasons[again] = SAME_ID
    drops = drops[drops["reason"] != SAME_ID]
    if len(drops) and len(rows):
        order = np.lexsort((drops["key_low"], drops["key"]))
        drops = drops[order]
        pairs = np.dtype([("key", ">u8"), ("key_low", ">u8")])
        wanted, have = np.empty(len(rows), pairs), np.empty(len(drops), pairs)
        for field in ("key", "key_low"):
            wanted[field], have[field] = rows[field], drops[field]
        at = np.searchsorted(have.view("S16").ravel(), wanted.view("S16").ravel())
        hit = at < len(drops)
        hit[hit] = have[at[hit]] == wanted[hit]
        reasons[hit & ~again] = drops["reason"][at[hit & ~again]]
    return reasons
