"""Where documents come from: files of several kinds, data sets, any iterable; what is unusable is named, not lost."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragscale._extras import require
from ragscale.errors import ConfigError, SplitError
from ragscale.passages import Document

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".ndjson", ".json")
TEXT_SUFFIXES = (".txt", ".md")


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that cannot be a document: where it stands and why."""

    file: str
    line: int
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Source:
    """Documents in shards that can be read apart, by several workers or again after a kill.

    Iterating gives the documents; `records` also gives what was rejected.

    Parameters
    ----------
    shards : tuple of str
        One name per shard, usually a file.
    read : callable
        ``read(shard, **options)`` yields `Document` or `Reject` with line numbers; a module-level function.
    options : dict
        Passed to ``read``.
    """

    shards: tuple[str, ...]
    read: Callable[..., Iterator[tuple[int, Document | Reject]]]
    options: dict[str, Any] = field(default_factory=dict)

    def records(self, shard: str) -> Iterator[tuple[int, Document | Reject]]:
        """Yield (line, document or reject) of one shard."""
        yield from self.read(shard, **self.options)

    def __iter__(self) -> Iterator[Document]:
        for shard in self.shards:
            for _, record in self.records(shard):
                if isinstance(record, Document):
                    yield record

    def fingerprint(self) -> str:
        """Tell whether the files are still the same, by name, size and time of change."""
        parts = []
        for shard in self.shards:
            stat = os.stat(shard) if os.path.exists(shard) else None
            parts.append((shard, stat.st_size if stat else None, stat.st_mtime_ns if stat else None))
        return hashlib.sha256(repr((parts, sorted(self.options.items(), key=str))).encode()).hexdigest()


def read_jsonl(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    text: str = "text",
    id: str = "id",
    title: str = "title",
    source: str = "source",
) -> Source:
    """Read JSON Lines, plain, ``.gz`` or ``.zst``: one object a line, whose fields the keywords name.

    A record without an id takes the digest of its text as id. A folder means all its JSON Lines files.
    """
    return Source(
        _files(paths, JSONL_SUFFIXES), _read_jsonl, {"text": text, "id": id, "title": title, "source": source}
    )


def read_parquet(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    text: str = "text",
    id: str = "id",
    title: str = "title",
    source: str = "source",
) -> Source:
    """Read Parquet files, a batch of rows at a time; the keywords name the columns (only ``text`` must exist)."""
    return Source(
        _files(paths, (".parquet",)), _read_parquet, {"text": text, "id": id, "title": title, "source": source}
    )


def read_text(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Source:
    """Read text files, one document each, named by its path below the folder that was given."""
    root = os.fspath(paths) if isinstance(paths, str | os.PathLike) and Path(paths).is_dir() else None
    return Source(_files(paths, TEXT_SUFFIXES), _read_text, {"root": root})


def read_huggingface(
    dataset: Any,
    *,
    name: str | None = None,
    split: str = "train",
    text: str = "text",
    id: str = "id",
    title: str = "title",
    source: str = "source",
) -> Iterator[tuple[int, Document | Reject]] | Iterable[Document]:
    """Read a Hugging Face data set: a hub name (streamed), the path of one saved to disk, or a loaded object."""
    return _HuggingFace(dataset, name, split, {"text": text, "id": id, "title": title, "source": source})


def read_datatrove_tokens(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], tokenizer: Any, *, token_size: int | None = None
) -> Source:
    """Read token shards that datatrove's ``DocumentTokenizer`` wrote (``.ds`` with ``.ds.index``).

    The tokens are decoded with the tokenizer that made them; a document's id is its file name and number.
    """
    from ragscale.splitting._tokenizers import as_split_tokenizer

    tokenizer = as_split_tokenizer(tokenizer)
    options = {"tokenizer": tokenizer.json, "eos_token": tokenizer.eos_token, "token_size": token_size}
    return Source(_files(paths, (".ds",)), _read_datatrove, options)


def as_source(documents: Any) -> Source | Iterable[Any]:
    """Take a source, paths of files, or any iterable of documents."""
    if isinstance(documents, str | os.PathLike):
        documents = [documents]
    if isinstance(documents, list | tuple) and documents and all(isinstance(d, str | os.PathLike) for d in documents):
        return _source_by_suffix([Path(d) for d in documents])
    if isinstance(documents, Iterable):
        return documents
    raise ConfigError(
        f"documents must be an iterable of Document, a source (read_jsonl, read_parquet, ...) or paths, "
        f"got {type(documents).__name__}"
    )


def _source_by_suffix(paths: list[Path]) -> Source:
    files = _files(paths, (*JSONL_SUFFIXES, ".parquet", *TEXT_SUFFIXES))
    kinds = {"parquet" if f.endswith(".parquet") else "text" if f.endswith(TEXT_SUFFIXES) else "jsonl" for f in files}
    if len(kinds) > 1:
        raise ConfigError(f"the paths hold several kinds of file ({', '.join(sorted(kinds))}): give one kind at a time")
    kind = kinds.pop()
    if kind == "text":
        return read_text(paths[0] if len(paths) == 1 else files)
    return read_parquet(files) if kind == "parquet" else read_jsonl(files)


def _files(paths: Any, suffixes: tuple[str, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for path in map(Path, [paths] if isinstance(paths, str | os.PathLike) else paths):
        if path.is_dir():
            found += sorted(str(file) for file in path.rglob("*") if file.is_file() and file.name.endswith(suffixes))
        elif path.is_file():
            found.append(str(path))
        else:
            raise ConfigError(f"no such file or folder: {path}")
    if not found:
        raise ConfigError(f"no files ending in {', '.join(suffixes)} in {paths}")
    return tuple(found)


def open_binary(path: str | os.PathLike[str]) -> io.BufferedReader | Any:
    """Open a file for reading bytes, decompressing ``.gz`` and ``.zst``."""
    path = os.fspath(path)
    if path.endswith(".gz"):
        return gzip.open(path, "rb")
    if path.endswith(".zst"):
        zstandard = require("zstandard", "split")
        reader = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(
            open(path, "rb"),  # noqa: SIM115 - closed by the reader
            read_across_frames=True,
        )
        return io.BufferedReader(reader, 1 << 20)
    return open(path, "rb")


def _read_jsonl(shard: str, **fields: str) -> Iterator[tuple[int, Document | Reject]]:
    line = 0
    try:
        with open_binary(shard) as file:
            for line, raw in enumerate(file, 1):
                if raw.strip():
                    yield line, _json_document(shard, line, raw, fields)
    except (OSError, EOFError, require("zstandard", "split").ZstdError) as error:
        if not os.access(shard, os.R_OK):
            raise
        yield line + 1, Reject(shard, line + 1, "damaged file", f"cannot be read beyond this line: {error}")


def _json_document(shard: str, line: int, raw: bytes, fields: dict[str, str]) -> Document | Reject:
    try:
        record = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Reject(shard, line, "wrong encoding", str(error))
    except (ValueError, RecursionError) as error:
        return Reject(shard, line, "broken JSON", str(error))
    if not isinstance(record, dict):
        return Reject(shard, line, "broken JSON", f"expected an object, got {type(record).__name__}")
    return _document(shard, line, record, fields)


def _document(shard: str, line: int, record: dict[str, Any], fields: dict[str, str]) -> Document | Reject:
    text = record.get(fields["text"])
    if text is None:
        return Reject(shard, line, "missing text", f"no field {fields['text']!r} among {sorted(record)[:10]}")
    if not isinstance(text, str):
        return Reject(shard, line, "missing text", f"field {fields['text']!r} holds {type(text).__name__}, not text")
    id = record.get(fields["id"])
    if id is None or id == "":
        id = "text-" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    title, source = (record.get(fields[name]) for name in ("title", "source"))
    return Document(str(id), text, "" if title is None else str(title), "" if source is None else str(source))


def _read_parquet(shard: str, **fields: str) -> Iterator[tuple[int, Document | Reject]]:
    parquet = require("pyarrow.parquet", "parquet")
    with parquet.ParquetFile(shard) as file:
        columns = [column for column in dict.fromkeys(fields.values()) if column in file.schema_arrow.names]
        if fields["text"] not in columns:
            raise SplitError(f"{shard} has no column {fields['text']!r}; it has {file.schema_arrow.names}")
        line = 0
        for batch in file.iter_batches(batch_size=256, columns=columns):
            for record in batch.to_pylist():
                line += 1
                yield line, _document(shard, line, record, fields)


def _read_text(shard: str, root: str | None) -> Iterator[tuple[int, Document | Reject]]:
    name = os.path.relpath(shard, root) if root else shard
    try:
        yield 1, Document(name.replace(os.sep, "/"), Path(shard).read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        yield 1, Reject(shard, 1, "wrong encoding", str(error))


def _read_datatrove(
    shard: str, tokenizer: str, eos_token: str, token_size: int | None
) -> Iterator[tuple[int, Document | Reject]]:
    import numpy as np

    backend = require("tokenizers", "split").Tokenizer.from_str(tokenizer)
    eos_id = backend.token_to_id(eos_token)
    ends = np.fromfile(shard + ".index", dtype="<u8")
    size = token_size or (os.path.getsize(shard) // int(ends[-1]) if len(ends) else 2)
    if size not in (2, 4) or (len(ends) and os.path.getsize(shard) != size * int(ends[-1])):
        raise SplitError(f"{shard} and its index disagree: {os.path.getsize(shard)} bytes, {ends[-1]} tokens")
    tokens = np.memmap(shard, dtype=f"<u{size}", mode="r") if len(ends) else np.empty(0, "<u2")
    for number, (start, end) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        ids = tokens[start:end]
        ids = ids[:-1] if len(ids) and ids[-1] == eos_id else ids
        text = backend.decode(ids.tolist(), skip_special_tokens=False)
        yield number + 1, Document(f"{Path(shard).name}:{number}", text, source=Path(shard).name)


@dataclass(frozen=True)
class _HuggingFace:
    """Documents of a Hugging Face data set, as an iterable that can be read again."""

    dataset: Any
    name: str | None
    split: str
    fields: dict[str, str]

    def _open(self) -> Any:
        datasets = require("datasets", "all")
        if not isinstance(self.dataset, str | os.PathLike):
            return self.dataset
        path = Path(self.dataset)
        if path.is_dir() and ((path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()):
            loaded = datasets.load_from_disk(str(path))
            return loaded[self.split] if isinstance(loaded, datasets.DatasetDict) else loaded
        return datasets.load_dataset(str(self.dataset), self.name, split=self.split, streaming=True)

    def records(self) -> Iterator[tuple[int, Document | Reject]]:
        label = str(self.dataset) if isinstance(self.dataset, str | os.PathLike) else type(self.dataset).__name__
        for line, record in enumerate(self._open(), 1):
            yield line, _document(label, line, record, self.fields)

    def __iter__(self) -> Iterator[Document]:
        for _, record in self.records():
            if isinstance(record, Document):
                yield record


def iterate_records(documents: Iterable[Any]) -> Iterator[tuple[int, Document | Reject]]:
    """Yield (number, record) of any iterable; what is no Document is an error in the caller's code, so it raises."""
    if isinstance(documents, _HuggingFace):
        yield from documents.records()
        return
    for line, record in enumerate(documents, 1):
        if not isinstance(record, Document | Reject):
            raise ConfigError(
                f"documents must give ragscale.Document, item {line} is {type(record).__name__}: {str(record)[:80]!r}"
            )
        yield line, record


def check_document(document: Document, file: str, line: int) -> Reject | None:
    """Return why a document cannot be used, or None."""
    if not isinstance(document.id, str) or not isinstance(document.text, str):
        return Reject(file, line, "wrong type", f"id and text must be str, got {type(document.id).__name__}")
    if not document.id:
        return Reject(file, line, "missing id")
    if not document.text.strip():
        return Reject(file, line, "empty text", f"document {document.id!r}")
    if "\0" in document.text or "\0" in document.id:
        return Reject(file, line, "NUL character", f"document {document.id!r}")
    try:
        (document.id + document.title + document.source + document.text).encode("utf-8")
    except UnicodeEncodeError:
        return Reject(file, line, "lone surrogate", f"document {document.id!a}")
    return None
