"""Tokenise the permutation piece by piece: a unit is a range of keys, made whole or not at all, by any worker."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragscale._extras import require
from ragscale._files import check_fields, disk_errors
from ragscale._long_texts import encode_all
from ragscale.errors import SplitError
from ragscale.passages import Document, cut_windows
from ragscale.splitting._decontamination import NgramIndex
from ragscale.splitting._duplicates import REASONS, SAME_ID, Drops, survivors
from ragscale.splitting._order import Runs, unpack
from ragscale.splitting._pieces import finish_piece, finished_piece, piece
from ragscale.splitting._tokenizers import SplitTokenizer

UNIT_BYTES = 16 << 20
BATCH_CHARACTERS = 1 << 19
BATCH_DOCUMENTS = 256
FRAME_ROWS = 256
COMPRESSION_LEVEL = 3
FRAME = np.dtype([("offset", "<u8"), ("size", "<u8"), ("rows", "<u8")])
_COUNTS = {"documents": int, "tokens": int, "characters": int, "bytes": int, "dropped": dict, "contamination": dict}
ROW = np.dtype([("n_tokens", "<u4"), ("n_new_tokens", "<u4")])


@dataclass(frozen=True, slots=True)
class UnitTask:
    """All that a worker needs to make units; ``digest`` tells one split's settings from another's in one folder."""

    work: Path
    size: int
    overlap: int
    dtype: str
    digest: str

    @property
    def units(self) -> Path:
        return self.work / "units"


def plan_units(sizes: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Group neighbouring key ranges to units of about `UNIT_BYTES`; returns the (low, high) keys of each unit."""
    width = (1 << 64) // len(sizes)
    units, start, pending = [], 0, 0
    for i, size in enumerate(sizes.tolist()):
        if pending and pending + size > UNIT_BYTES:
            units.append((start * width, i * width))
            start, pending = i, 0
        pending += size
    return [*units, (start * width, 1 << 64)]


@functools.lru_cache(maxsize=1)
def _tools(work: Path, digest: str) -> tuple[Any, int, NgramIndex | None]:
    tokenizer = SplitTokenizer.load(work / "tokenizer")
    backend = tokenizer.backend()
    ngrams = work / "ngrams.json"
    return backend, backend.token_to_id(tokenizer.eos_token), NgramIndex.load(ngrams) if ngrams.is_file() else None


def make_unit(task: UnitTask, number: int, low: int, high: int) -> dict[str, Any]:
    """Sort, filter and tokenise the documents with low <= key < high; returns the counts of the unit."""
    directory = task.units / f"{number:06d}"
    known = finished_piece(directory)
    if known is not None:
        check_fields(known, _COUNTS, name=str(directory), error=SplitError)
        return known
    with piece(directory) as temporary, disk_errors(directory):
        stats = _UnitWriter(task, temporary).write(low, high)
        finish_piece(temporary, stats)
    return stats


class _UnitWriter:
    """Writes the files of one unit: tokens and documents forward, passages backward."""

    def __init__(self, task: UnitTask, directory: Path) -> None:
        self.task = task
        self.directory = directory
        self.backend, self.eos_id, self.ngrams = _tools(task.work, task.digest)
        self.dropped: dict[str, int] = {}
        self.contamination: dict[str, Any] = {}
        self.lengths: list[int] = []
        self.n_characters = 0

    def write(self, low: int, high: int) -> dict[str, Any]:
        rows, packed = Runs(self.task.work / "scatter").documents(low, high)
        reasons = survivors(rows, Drops(self.task.work / "drops").between(low, high)).tolist()
        near = self.task.work / "near"
        if near.is_dir():
            late = survivors(rows, Drops(near).between(low, high)).tolist()
            reasons = [a or b for a, b in zip(reasons, late, strict=True)]
        compress = require("zstandard", "split").ZstdCompressor(level=COMPRESSION_LEVEL).compress
        blocks: list[tuple[bytes, NDArray[Any]]] = []
        with (
            open(self.directory / "tokens.bin", "wb") as tokens,
            open(self.directory / "documents.jsonl", "w", encoding="utf-8") as documents,
            open(self.directory / "dropped.jsonl", "w", encoding="utf-8") as dropped,
            open(self.directory / "contaminated.jsonl", "w", encoding="utf-8") as contaminated,
        ):
            for batch in self._batches(packed, reasons, dropped, contaminated):
                blocks += _compress_backward(self._write_batch(batch, tokens, documents, dropped), compress)
        self._write_passages(blocks)
        np.array(self.lengths, dtype="<u8").tofile(self.directory / "lengths.bin")
        return {
            "documents": len(self.lengths),
            "tokens": sum(self.lengths),
            "characters": self.n_characters,
            "bytes": sum(map(len, packed)),
            "dropped": self.dropped,
            "contamination": self.contamination,
        }

    def _write_batch(
        self, batch: list[tuple[Document, bool]], tokens: Any, documents: Any, dropped: Any
    ) -> list[tuple[str, int, int]]:
        """Write tokens and documents of a batch and return the lines of its passages.

        The encodings die with this call: keeping those of one batch while the next is encoded costs a sixth more time.
        """
        lines: list[tuple[str, int, int]] = []
        encodings = encode_all(self.backend, [document.text for document, _ in batch])
        for (document, flag), encoding in zip(batch, encodings, strict=True):
            n_tokens = len(encoding) + 1
            if n_tokens == 1:
                self._drop(dropped, document, "no tokens")
                continue
            tokens.write(np.array(encoding.ids, dtype=self.task.dtype).tobytes())
            tokens.write(np.array([self.eos_id], dtype=self.task.dtype).tobytes())
            self.lengths.append(n_tokens)
            self.n_characters += len(document.text)
            documents.write(_document_line(document, n_tokens, flag))
            lines += _passage_lines(document, encoding, n_tokens, self.task.size, self.task.overlap)
        return lines

    def _batches(
        self, packed: list[bytes], reasons: list[int], dropped: Any, contaminated: Any
    ) -> Iterator[list[tuple[Document, bool]]]:
        batch: list[tuple[Document, bool]] = []
        n_characters = 0
        for data, reason in zip(packed, reasons, strict=True):
            document = unpack(data)
            if reason:
                self._drop(dropped, document, REASONS[int(reason)])
                continue
            flag = False
            if self.ngrams is not None and (hits := self.ngrams.hits(document.text)):
                flag = True
                self._contaminated(contaminated, document, hits)
                if self.ngrams.action == "drop":
                    self._drop(dropped, document, "contaminated")
                    continue
            batch.append((document, flag))
            n_characters += len(document.text)
            if n_characters >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
                yield batch
                batch, n_characters = [], 0
        if batch:
            yield batch

    def _drop(self, file: Any, document: Document, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        if reason != REASONS[SAME_ID]:
            file.write(json.dumps({"id": document.id, "reason": reason}, ensure_ascii=False) + "\n")

    def _contaminated(self, file: Any, document: Document, hits: dict[str, dict[int, int]]) -> None:
        for task, questions in hits.items():
            row = {"id": document.id, "task": task, "questions": {str(q): n for q, n in sorted(questions.items())}}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            entry = self.contamination.setdefault(task, {"documents": 0, "questions": []})
            entry["documents"] += 1
            entry["questions"] = sorted({*entry["questions"], *questions})

    def _write_passages(self, blocks: list[tuple[bytes, NDArray[Any]]]) -> None:
        """Write the frames of the unit, its last passage first."""
        frames = np.zeros(len(blocks), dtype=FRAME)
        with (
            open(self.directory / "passages.jsonl.zst", "wb") as data,
            open(self.directory / "rows.bin", "wb") as counts,
        ):
            for i, (frame, rows) in enumerate(reversed(blocks)):
                frames[i] = data.tell(), len(frame), len(rows)
                data.write(frame)
                rows.tofile(counts)
        frames.tofile(self.directory / "frames.bin")


def _document_line(document: Document, n_tokens: int, flag: bool) -> str:
    row: dict[str, Any] = {"id": document.id, "n_tokens": n_tokens}
    if document.title:
        row["title"] = document.title
    if document.source:
        row["source"] = document.source
    if flag:
        row["contaminated"] = True
    return json.dumps(row, ensure_ascii=False) + "\n"


def _passage_lines(
    document: Document, encoding: Any, n_tokens: int, size: int, overlap: int
) -> list[tuple[str, int, int]]:
    """Return (JSON line, tokens, new tokens) of the passages of a document, in reading order.

    New tokens are counted as the store lists passages, from the last window to the first.
    """
    windows, texts = cut_windows(document.text, encoding, size, overlap)
    lines = []
    for number, ((start, end), text) in enumerate(zip(windows, texts, strict=True)):
        reach = windows[number + 1][0] if number + 1 < len(windows) else end
        row = {
            "id": f"{document.id}#{number}",
            "document_id": document.id,
            "start": start,
            "n_tokens": end - start,
            "n_new_tokens": reach - start,
            "text": text,
        }
        lines.append((json.dumps(row, ensure_ascii=False) + "\n", end - start, reach - start))
    return lines


def _compress_backward(lines: Sequence[tuple[str, int, int]], compress: Any) -> list[tuple[bytes, NDArray[Any]]]:
    """Return frames whose lines run backward; the frames themselves are still in reading order."""
    blocks = []
    for start in range(0, len(lines), FRAME_ROWS):
        part = lines[start : start + FRAME_ROWS][::-1]
        rows = np.array([(n, new) for _, n, new in part], dtype=ROW)
        blocks.append((compress("".join(line for line, _, _ in part).encode()), rows))
    return blocks
