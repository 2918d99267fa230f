"""Put the units together: validation, pool, passages from the end backward, and the manifest that vouches for all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ragscale._extras import require
from ragscale._files import OwnedFolder, disk_errors, value_digest, write_json
from ragscale.errors import SplitError
from ragscale.splitting._decontamination import NgramIndex
from ragscale.splitting._pieces import START_ANEW, finished_piece
from ragscale.splitting._tokenizers import SplitTokenizer
from ragscale.splitting._units import COMPRESSION_LEVEL, FRAME, ROW

SCHEMA, VERSION = "ragscale.split", 1
SHARD_BYTES = 1 << 28
PARTS = (
    "contaminated.jsonl.zst",
    "documents.jsonl.zst",
    "dropped.jsonl.zst",
    "passages",
    "rejects.jsonl",
    "tokenizer",
    "tokens",
    "validation",
)
"""What a split consists of, beside its manifest."""

POOL_FRAME = np.dtype(
    [
        ("shard", "<u4"),
        ("rows", "<u4"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("first_row", "<u8"),
        ("new_tokens_before", "<u8"),
        ("tokens_before", "<u8"),
    ]
)


@dataclass(frozen=True, slots=True)
class Part:
    """The documents [start, stop) of one unit, which are tokens [token_start, token_stop) of it."""

    unit: Path
    start: int
    stop: int
    token_start: int
    token_stop: int


def needed_units(stats: Iterable[dict[str, Any]], enough: int | None) -> list[dict[str, Any]]:
    """Take units in order until they hold ``enough`` tokens."""
    taken, total = [], 0
    for entry in stats:
        taken.append(entry)
        total += entry["tokens"]
        if enough is not None and total >= enough:
            break
    return taken


def assemble(
    out: OwnedFolder,
    work: Path,
    *,
    units: list[Path],
    stats: list[dict[str, Any]],
    config: dict[str, Any],
    corpus: dict[str, Any],
) -> dict[str, Any]:
    """Write the finished split into the folder ``out`` and return its manifest, which comes last."""
    with disk_errors(work):
        return _assembled(out, work, units=units, stats=stats, config=config, corpus=corpus)


def _assembled(
    out: OwnedFolder,
    work: Path,
    *,
    units: list[Path],
    stats: list[dict[str, Any]],
    config: dict[str, Any],
    corpus: dict[str, Any],
) -> dict[str, Any]:
    for unit in units:
        if finished_piece(unit) is None:
            raise SplitError(f"{unit} is damaged, its files are not as they were: {START_ANEW}")
    validation, pool = _divide(units, config["validation_tokens"], config["max_tokens"])
    tokenizer = SplitTokenizer.load(work / "tokenizer")
    dtype = config["dtype"]
    final = work / "final"
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    tokenizer.save(final / "tokenizer")
    n_documents, n_tokens = _write_tokens(pool, final / "tokens", dtype)
    n_validation_documents, n_validation = _write_tokens(validation, final / "validation", dtype)
    passages = _write_passages(pool, final / "passages")
    _write_lines((line for part in pool for line in _document_lines(part)), final / "documents.jsonl.zst")
    _write_lines(
        (line for part in validation for line in _document_lines(part)), final / "validation" / "documents.jsonl.zst"
    )
    _write_lines((line for unit in units for line in _lines(unit / "dropped.jsonl")), final / "dropped.jsonl.zst")
    _write_lines(
        (line for unit in units for line in _lines(unit / "contaminated.jsonl")), final / "contaminated.jsonl.zst"
    )
    dropped: dict[str, int] = {}
    for entry in stats:
        for reason, count in entry["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
    kept = sum(entry["documents"] for entry in stats)
    manifest = {
        "seed": config["seed"],
        "n_tokens": n_tokens,
        "n_documents": n_documents,
        "validation": {
            "n_tokens": config["validation_tokens"],
            "n_documents": n_validation_documents,
            "n_tokens_on_disk": n_validation,
        },
        "passages": {"size": config["size"], "overlap": config["overlap"], **passages},
        "tokenizer": {
            "digest": tokenizer.digest,
            "vocab_size": config["vocab_size"],
            "eos_token": tokenizer.eos_token,
            "eos_id": config["eos_id"],
            "dtype": dtype,
            "shard_bytes": SHARD_BYTES,
        },
        "corpus": {
            **corpus,
            "dropped": dict(sorted(dropped.items())),
            "beyond_max_tokens": corpus["documents"] - sum(dropped.values()) - n_documents - n_validation_documents,
            "kept_characters": sum(entry["characters"] for entry in stats),
        },
        "settings": {k: config[k] for k in ("max_tokens", "deduplicate", "decontaminate")},
        "contamination": _contamination(work, stats),
        "files": {
            str(path.relative_to(final)): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(final.rglob("*"))
            if path.is_file()
        },
    }
    assert kept >= n_documents + n_validation_documents
    _write_rejects(work, final)
    manifest["digest"] = value_digest(manifest)
    for path in sorted(final.iterdir()):
        out.put(path, path.name)
    write_json(out.path / "manifest.json", manifest, schema=SCHEMA, version=VERSION, seal=False)  # has its own digest
    return manifest


def _divide(units: list[Path], validation_tokens: int, max_tokens: int | None) -> tuple[list[Part], list[Part]]:
    """Cut the permutation into validation documents and pool documents, both whole."""
    validation: list[Part] = []
    pool: list[Part] = []
    in_validation = in_pool = 0
    for unit in units:
        ends = np.concatenate([[0], np.cumsum(np.fromfile(unit / "lengths.bin", dtype="<u8"))]).astype(np.int64)
        first = 0
        if in_validation < validation_tokens:
            first = min(int(np.searchsorted(ends, validation_tokens - in_validation)), len(ends) - 1)
            validation.append(Part(unit, 0, first, 0, int(ends[first])))
            in_validation += int(ends[first])
        last = len(ends) - 1
        if max_tokens is not None:
            last = int(np.searchsorted(ends, ends[first] + max_tokens - in_pool, side="right")) - 1
        if last > first:
            pool.append(Part(unit, first, last, int(ends[first]), int(ends[last])))
            in_pool += int(ends[last] - ends[first])
        if last < len(ends) - 1:
            break
    if in_validation < validation_tokens:
        raise SplitError(
            f"validation_tokens={validation_tokens:,} is more than the whole corpus, which has {in_validation:,} tokens"
        )
    if not in_pool:
        raise SplitError(
            f"no tokens left for the pool: {in_validation:,} went to validation, max_tokens={max_tokens}; "
            f"ask for less validation or give more documents"
        )
    return validation, pool


def _write_tokens(parts: list[Part], directory: Path, dtype: str) -> tuple[int, int]:
    """Write tokens in shards and the offsets of documents; returns how many of each."""
    directory.mkdir()
    itemsize = np.dtype(dtype).itemsize
    n_documents = total = 0
    shards = _Shards(directory, "bin")
    with open(directory / "offsets.bin", "wb") as offsets:
        np.zeros(1, dtype="<u8").tofile(offsets)
        for part in parts:
            lengths = np.fromfile(part.unit / "lengths.bin", dtype="<u8")[part.start : part.stop]
            (total + np.cumsum(lengths, dtype=np.uint64)).astype("<u8").tofile(offsets)
            n_documents += len(lengths)
            total += int(lengths.sum())
            with open(part.unit / "tokens.bin", "rb") as file:
                file.seek(part.token_start * itemsize)
                left = (part.token_stop - part.token_start) * itemsize
                while left:
                    block = file.read(min(left, 1 << 22))
                    if not block:
                        raise SplitError(f"{part.unit / 'tokens.bin'} is damaged, it is too short: {START_ANEW}")
                    shards.write(block)
                    left -= len(block)
    shards.close()
    return n_documents, total


class _Shards:
    """Write bytes to numbered files of at most `SHARD_BYTES`."""

    def __init__(self, directory: Path, suffix: str) -> None:
        self.directory, self.suffix = directory, suffix
        self.number, self.position = 0, 0
        self._file = self._open()

    def _next(self) -> None:
        self._file.close()
        self.number, self.position = self.number + 1, 0
        self._file = self._open()

    def _open(self) -> IO[bytes]:
        return open(self.directory / f"{self.number:05d}.{self.suffix}", "wb")

    def write(self, data: bytes) -> None:
        """Write data, in pieces where a shard is full."""
        while data:
            if self.position == SHARD_BYTES:
                self._next()
            room = SHARD_BYTES - self.position
            self._file.write(data[:room])
            self.position += min(len(data), room)
            data = data[room:]

    def write_whole(self, data: bytes) -> tuple[int, int]:
        """Write data in one piece; returns the shard and where it starts there."""
        if self.position and self.position + len(data) > SHARD_BYTES:
            self._next()
        start = self.position
        self._file.write(data)
        self.position += len(data)
        return self.number, start

    def close(self) -> None:
        self._file.close()


def _write_passages(pool: list[Part], directory: Path) -> dict[str, int]:
    """Write the passages of the pool from its end backward, and the index of frames."""
    directory.mkdir()
    shards = _Shards(directory, "jsonl.zst")
    n_rows = new_tokens = tokens = 0
    with open(directory / "rows.bin", "wb") as counts, open(directory / "frames.bin", "wb") as frames:
        for part in reversed(pool):
            for data, rows in _frames(part):
                shard, start = shards.write_whole(data)
                entry = (shard, len(rows), start, len(data), n_rows, new_tokens, tokens)
                np.array([entry], dtype=POOL_FRAME).tofile(frames)
                rows.tofile(counts)
                n_rows += len(rows)
                new_tokens += int(rows["n_new_tokens"].sum())
                tokens += int(rows["n_tokens"].sum())
    shards.close()
    return {"n_passages": n_rows, "n_passage_tokens": tokens}


def _frames(part: Part) -> Iterator[tuple[bytes, NDArray[Any]]]:
    """Yield the frames of a part, last first; a frame that reaches over the part's ends is cut to it."""
    index = np.fromfile(part.unit / "frames.bin", dtype=FRAME)
    counts = np.fromfile(part.unit / "rows.bin", dtype=ROW)
    end = int(np.fromfile(part.unit / "lengths.bin", dtype="<u8").sum())
    first_row = 0
    with open(part.unit / "passages.jsonl.zst", "rb") as file:
        for frame in index:
            rows = counts[first_row : first_row + int(frame["rows"])]
            first_row += len(rows)
            ends = end - np.concatenate([[0], np.cumsum(rows["n_new_tokens"], dtype=np.int64)])
            end = int(ends[-1])
            inside = (ends[:-1] <= part.token_stop) & (ends[1:] >= part.token_start)
            if not inside.any():
                continue
            file.seek(int(frame["offset"]))
            data = file.read(int(frame["size"]))
            if len(data) != int(frame["size"]):
                raise SplitError(f"{file.name} is damaged, it is too short: {START_ANEW}")
            if not inside.all():
                zstandard = require("zstandard", "split")
                lines = zstandard.ZstdDecompressor().decompress(data).split(b"\n")
                text = b"".join(line + b"\n" for line, keep in zip(lines, inside, strict=False) if keep)
                data, rows = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(text), rows[inside]
            yield data, rows


def _document_lines(part: Part) -> Iterator[str]:
    for number, line in enumerate(_lines(part.unit / "documents.jsonl")):
        if part.start <= number < part.stop:
            yield line


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", newline="\n") as file:
        yield from file


def _write_lines(lines: Iterable[str], path: Path) -> None:
    compressor = require("zstandard", "split").ZstdCompressor(level=COMPRESSION_LEVEL)
    with open(path, "wb") as file, compressor.stream_writer(file, closefd=False) as writer:
        for line in lines:
            writer.write(line.encode())


def _write_rejects(work: Path, final: Path) -> None:
    """Join the rejects of all shards; they tell how the corpus is filed, so they are not part of the digest."""
    with open(final / "rejects.jsonl", "w", encoding="utf-8") as file:
        for path in sorted((work / "scatter").glob("[0-9]*/rejects.jsonl")):
            file.writelines(_lines(path))
        file.writelines(_lines(work / "drops" / "duplicate-ids.jsonl"))


def _contamination(work: Path, stats: list[dict[str, Any]]) -> dict[str, Any]:
    if not (work / "ngrams.json").is_file():
        return {}
    index = NgramIndex.load(work / "ngrams.json")
    report = {}
    for task, questions in sorted(index.tasks.items()):
        entries = [entry["contamination"][task] for entry in stats if task in entry["contamination"]]
        hit = {number for entry in entries for number in entry["questions"]}
        report[task] = {
            "questions": len(questions),
            "questions_too_short": index.too_short[task],
            "questions_with_hits": len(hit),
            "documents_with_hits": sum(entry["documents"] for entry in entries),
        }
    return report


def _sha256(path: Path) -> str:
    """Return the digest of a finished file, once it is safe on disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_documents(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a ``*.jsonl.zst`` file."""
    zstandard = require("zstandard", "split")
    import io

    with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader:
        for line in io.BufferedReader(reader, 1 << 16):
            yield json.loads(line)
