"""Where documents come from: files of several kinds, data sets, any iterable; what is unusable is named, not lost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ragscale._extras import load_dataset, require
from ragscale._files import damaged
from ragscale.errors import ConfigError, SplitError
from ragscale.passages import Document
from ragscale.splitting._opening import MAX_LINE_BYTES, LineTooLong, open_binary, read_lines

if TYPE_CHECKING:
    from ragscale.splitting._tokenizers import TokenizerSource


_WRAP = {
    str: '; wrap each text, ragscale.Document("its id", text)',
    dict: "; make each one a ragscale.Document(id=..., text=...), or give a file of them to read_jsonl",
}
_BATCH_BYTES = 16 << 20
_LONGEST_NAME = 255
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
        return _only_documents(record for shard in self.shards for _, record in self.records(shard))

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
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Source:
    """Read JSON Lines, plain, ``.gz`` or ``.zst``: one object a line, whose fields the keywords name.

    A record without an id takes the digest of its text as id. A folder means all its JSON Lines files. A line of more
    than ``max_line_bytes`` is rejected unread, so that a small compressed file cannot fill the memory. A file that
    cannot be read to its end is a SplitError.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ragscale.splitting import read_jsonl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.jsonl").write_text('{"id": "d1", "text": "The sea rises."}\\n')
    ...     [document.text for document in read_jsonl(folder)]
    ['The sea rises.']
    """
    options = {"text": text, "id": id, "title": title, "source": source, "max_line_bytes": max_line_bytes}
    return Source(_files(paths, JSONL_SUFFIXES), _read_jsonl, options)


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
    """Read text files, one document each, named by its path below the folder that was given.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ragscale.splitting import read_text
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_text("The sea rises.")
    ...     [document.text for document in read_text(folder)]
    ['The sea rises.']
    """
    root = os.fspath(paths) if isinstance(paths, str | os.PathLike) and Path(paths).is_dir() else None
    return Source(_files(paths, TEXT_SUFFIXES), _read_text, {"root": root})


def read_huggingface(
    dataset: str | os.PathLike[str] | Iterable[Any],
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
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    tokenizer: TokenizerSource,
    *,
    token_size: int | None = None,
) -> Source:
    """Read token shards that datatrove's ``DocumentTokenizer`` wrote (``.ds`` with ``.ds.index``).

    The tokens are decoded with the tokenizer that made them; a document's id is its file name and number.
    """
    from ragscale.splitting._tokenizers import as_split_tokenizer

    tokenizer = as_split_tokenizer(tokenizer)
    options = {"tokenizer": tokenizer.json, "eos_token": tokenizer.eos_token, "token_size": token_size}
    return Source(_files(paths, (".ds",)), _read_datatrove, options)


Documents: TypeAlias = (
    "Source | str | os.PathLike[str] | Iterable[Document | str | os.PathLike[str] | tuple[int, Document | Reject]]"
)
"""A source, paths of files, or documents."""


def as_source(documents: Documents) -> Source | Iterable[Any]:
    """Take a source, paths of files, or any iterable of documents."""
    given: Any = [documents] if isinstance(documents, str | os.PathLike) else documents
    if isinstance(given, list | tuple) and given and all(isinstance(one, str | os.PathLike) for one in given):
        return _source_by_suffix([Path(one) for one in given])
    if isinstance(given, Iterable):
        return given
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
        if len(os.fsencode(path.name)) > _LONGEST_NAME:
            raise ConfigError(
                f"{str(path)[:80]!r}... is no path, it is too long: if these are texts, wrap each one, "
                'ragscale.Document("its id", text)'
            )
        if path.is_dir():
            found += sorted(str(file) for file in path.rglob("*") if file.is_file() and file.name.endswith(suffixes))
        elif path.is_file():
            found.append(str(path))
        else:
            raise ConfigError(
                f"no such file or folder: {str(path)[:200]!r}. Strings are paths: if these are texts, wrap each one, "
                'ragscale.Document("its id", text)'
            )
    if not found:
        raise ConfigError(f"no files ending in {', '.join(suffixes)} in {paths}")
    return tuple(found)


def _read_jsonl(shard: str, max_line_bytes: int, **fields: str) -> Iterator[tuple[int, Document | Reject]]:
    for line, raw in read_lines(shard, max_line_bytes):
        if isinstance(raw, LineTooLong):
            yield line, Reject(shard, line, "line too long", str(raw))
        elif raw.strip():
            record = _json_document(shard, line, raw, fields)
            if isinstance(record, Reject) and _is_torn(record) and not raw.endswith(b"\n"):
                raise SplitError(
                    f"{shard} ends in the middle of line {line} ({record.detail}): if it was cut short, copy or "
                    "download it again; if the line is wrong as it stands, mend or remove it"
                )
            yield line, record


def _is_torn(reject: Reject) -> bool:
    """Tell whether the end of a line may be missing."""
    return reject.reason in ("broken JSON", "wrong encoding") and not reject.detail.startswith("expected an object")


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
    with damaged(shard, SplitError), parquet.ParquetFile(shard, page_checksum_verification=True) as file:
        columns = [column for column in dict.fromkeys(fields.values()) if column in file.schema_arrow.names]
        if fields["text"] not in columns:
            raise SplitError(f"{shard} has no column {fields['text']!r}; it has {file.schema_arrow.names}")
        sizes = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        largest = max((group.total_byte_size // max(group.num_rows, 1) for group in sizes), default=1)
        line = 0
        for batch in file.iter_batches(batch_size=min(max(_BATCH_BYTES // max(largest, 1), 1), 256), columns=columns):
            for record in batch.to_pylist():
                line += 1
                yield line, _document(shard, line, record, fields)
        if line != file.metadata.num_rows:
            raise SplitError(f"{shard} is damaged: it gave {line} of its {file.metadata.num_rows} rows")


def _read_text(shard: str, root: str | None) -> Iterator[tuple[int, Document | Reject]]:
    name = os.path.relpath(shard, root) if root else shard
    with open_binary(shard) as file:
        data = file.read(MAX_LINE_BYTES + 1)
    if len(data) > MAX_LINE_BYTES:
        yield 1, Reject(shard, 1, "file too long", f"more than {MAX_LINE_BYTES:,} bytes")
        return
    try:
        yield 1, Document(name.replace(os.sep, "/"), data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        yield 1, Reject(shard, 1, "wrong encoding", str(error))


def _read_datatrove(
    shard: str, tokenizer: str, eos_token: str, token_size: int | None
) -> Iterator[tuple[int, Document | Reject]]:
    import numpy as np

    backend = require("tokenizers", "split").Tokenizer.from_str(tokenizer)
    eos_id, vocab_size = backend.token_to_id(eos_token), 1 + max(backend.get_vocab().values())
    if not os.path.isfile(shard + ".index"):
        raise SplitError(f"{shard} has no index beside it: {shard}.index is missing")
    with damaged(shard + ".index", SplitError):
        ends = np.fromfile(shard + ".index", dtype="<u8")
        if os.path.getsize(shard + ".index") % 8 or np.any(ends[1:] < ends[:-1]):
            raise SplitError(f"{shard}.index is damaged: it does not hold rising 64-bit numbers")
    size = token_size or (os.path.getsize(shard) // int(ends[-1]) if len(ends) and ends[-1] else 2)
    if size not in (2, 4) or (len(ends) and os.path.getsize(shard) != size * int(ends[-1])):
        raise SplitError(
            f"{shard} and its index disagree: {os.path.getsize(shard)} bytes, {ends[-1] if len(ends) else 0} tokens"
        )
    tokens = np.memmap(shard, dtype=f"<u{size}", mode="r") if len(ends) else np.empty(0, "<u2")
    for number, (start, end) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        ids = tokens[start:end]
        ids = ids[:-1] if len(ids) and ids[-1] == eos_id else ids
        if len(ids) and int(ids.max()) >= vocab_size:
            raise SplitError(f"{shard} holds token {ids.max()}, which is not one of the tokenizer's {vocab_size}")
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
        if not isinstance(self.dataset, str | os.PathLike):
            return self._part(self.dataset)
        datasets, path = require("datasets", "all"), Path(self.dataset)
        try:
            if path.is_dir() and ((path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()):
                return self._part(datasets.load_from_disk(str(path)))
            return load_dataset(str(self.dataset), self.name, split=self.split, streaming=True)
        except (OSError, ValueError, LookupError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"the data set {str(self.dataset)!r} cannot be read: {type(error).__name__}: {error}"
            ) from error

    def _part(self, loaded: Any) -> Any:
        """Return one part of what may be several, as `load_dataset` without ``split`` gives them."""
        if not isinstance(loaded, Mapping):
            return loaded
        if self.split not in loaded:
            raise ConfigError(
                f"the data set has no part {self.split!r}: choose with split= one of {', '.join(map(repr, loaded))}"
            )
        return loaded[self.split]

    def records(self) -> Iterator[tuple[int, Document | Reject]]:
        label = str(self.dataset) if isinstance(self.dataset, str | os.PathLike) else type(self.dataset).__name__
        loaded = self._open()
        if isinstance(self.dataset, str | os.PathLike):
            with damaged(label, SplitError):
                yield from self._documents(label, loaded)
        else:
            yield from self._documents(label, loaded)

    def _documents(self, label: str, loaded: Any) -> Iterator[tuple[int, Document | Reject]]:
        for line, record in enumerate(loaded, 1):
            if not isinstance(record, Mapping):
                raise ConfigError(f"row {line} of the data set is {type(record).__name__}, expected fields by name")
            yield line, _document(label, line, dict(record), self.fields)

    def __iter__(self) -> Iterator[Document]:
        return _only_documents(record for _, record in self.records())


def _only_documents(records: Iterable[Document | Reject]) -> Iterator[Document]:
    """Yield the documents; if there is none because all were rejected, raise and quote the first."""
    first: Reject | None = None
    found = False
    for record in records:
        if isinstance(record, Document):
            found = True
            yield record
        else:
            first = first or record
    if first is not None and not found:
        raise SplitError(
            f"no record can be read as a document. The first is {first.file}, line {first.line}: {first.reason}, "
            f"{first.detail}"
        )


def iterate_records(documents: Iterable[Any]) -> Iterator[tuple[int, Document | Reject]]:
    """Yield (number, record) of any iterable; what is no Document is an error in the caller's code, so it raises."""
    if isinstance(documents, _HuggingFace):
        yield from documents.records()
        return
    for line, record in enumerate(documents, 1):
        if not isinstance(record, Document | Reject):
            how = _WRAP.get(type(record), "")
            raise ConfigError(
                f"documents must give ragscale.Document, item {line} is {type(record).__name__}: "
                f"{str(record)[:80]!r}{how}"
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
