"""The base class of every retriever: one index over the largest store answers every smaller one.

A store of R tokens is the longest prefix of the indexed passages whose unique tokens add up to at most R.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragscale._counts import as_count, as_counts
from ragscale._files import (
    atomic_write,
    damaged,
    disk_errors,
    file_digest,
    file_digests,
    locked,
    read_json,
    recover_folder,
    remove_leftovers,
    whole_folder,
    write_json,
)
from ragscale.errors import CheckpointError, ConfigError, NotIndexedError, RagscaleError
from ragscale.passages import Passage
from ragscale.retrieval._checked import as_passages, check_passages, checked_hits
from ragscale.retrieval._hits import Hits
from ragscale.retrieval._sealed import Sealed, unsealed

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Item = TypeVar("Item")

SCHEMA, VERSION = "ragscale.retriever", 1
_MOST_HITS = 1 << 31  # 24 GiB of rows and scores
DESCRIPTION, _PASSAGES = "retriever.json", "passages.jsonl"
FIELDS = {
    "class": str,
    "arguments": dict,
    "missing_arguments": list,
    "n_passages": int,
    "passages_digest": str,
    "files": dict,
}
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogatepass", "newline": "\n"}


class Retriever(Sealed, ABC):
    """Find the passages that help to answer a query.

    A subclass writes `_index` and `_search`; everything else (checks, order, padding, stores of every size, saving)
    is done here. The constructor should only keep its arguments: they are recorded, and a retriever is copied and
    loaded by calling the constructor with them again. They cannot be set afterwards (`ImmutableError`), except by
    the methods that a subclass writes.

    Examples
    --------
    >>> import numpy as np
    >>> class Overlap(Retriever):
    ...     def _index(self, passages):
    ...         self.words = [set(passage.text.split()) for passage in passages]
    ...
    ...     def _search(self, queries, k):
    ...         shared = [[len(words & set(query.split())) or -np.inf for words in self.words] for query in queries]
    ...         return top_k(shared, k)
    >>> from ragscale.retrieval import top_k
    >>> store = [Passage("a", "red fish", 2, "a"), Passage("b", "blue fish", 2, "b"), Passage("c", "blue sky", 2, "c")]
    >>> retriever = Overlap().index(store)
    >>> retriever.search("blue fish", k=2).ids
    array([[1, 0]])
    >>> {R: hits.ids.tolist() for R, hits in retriever.search("blue fish", k=2, store_tokens=[0, 2, 6]).items()}
    {0: [[-1, -1]], 2: [[0, -1]], 6: [[1, 0]]}
    """

    _arguments: dict[str, Any]
    _passages: Sequence[Passage] | None = None
    _cumulative_tokens: NDArray[np.int64]
    _prefixes: dict[int, Retriever]
    _progress: bool = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._arguments = bound_arguments(cls, args, kwargs)
        return self

    # What a subclass writes

    @abstractmethod
    def _index(self, passages: Sequence[Passage]) -> None:
        """Build the index over passages (at least one), replacing what was there."""

    @abstractmethod
    def _search(self, queries: Sequence[str], k: int) -> tuple[ArrayLike, ArrayLike]:
        """Return (rows, scores), each (n_queries, at most k): higher is better, -1 or a score of -inf pads.

        ``k`` is at least 1 and at most `n_passages`. Which of several equal scores are returned must not depend on
        ``k``: `top_k` selects so.
        """

    def _search_nested(
        self, queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]
    ) -> Sequence[tuple[ArrayLike, ArrayLike] | Hits]:
        """Return what an index over each prefix alone would: one (rows, scores) per store.

        ``n_passages_per_store`` holds increasing counts, from 1 to `n_passages`. The default indexes each prefix
        once, on demand, and keeps it: right for every retriever, and as dear as it sounds.
        """
        return [self._prefix(n)._search(queries, min(k, n)) for n in n_passages_per_store]

    def _save(self, directory: Path) -> None:
        """Write the index into an existing directory; by default nothing, and loading indexes anew."""

    def _load(self, directory: Path) -> None:
        """Read what `_save` wrote; `passages` are set. By default: index them."""
        self._index(self.passages)

    def _save_arguments(self, directory: Path) -> dict[str, Any]:
        """Return the constructor's arguments as JSON-able values; others may be written into the directory."""
        return {name: value for name, value in self._arguments.items() if is_json(value)}

    @classmethod
    def _load_arguments(cls, directory: Path, stored: dict[str, Any]) -> dict[str, Any]:
        """Turn what `_save_arguments` returned back into arguments of the constructor."""
        return stored

    def _describe(self) -> dict[str, Any]:
        """Return what this kind of retriever adds to `describe`, e.g. ``{"bytes": 1024}``."""
        return {}

    # What a user calls

    def index(self, passages: Iterable[Passage] | Iterable[str], *, progress: bool = False) -> Self:
        """Index passages in store order, so that every smaller store is a prefix.

        Parameters
        ----------
        passages : iterable of Passage, Store, or iterable of str
            At least one, with unique ids. A sequence that is not a list is kept as it is (it may be memory-mapped).
            Plain strings become passages whose ids are their places, ``"0", "1", ...``, of as many tokens as they
            have words (characters in scripts without spaces).
        progress : bool
            Show a progress bar.

        Returns
        -------
        Retriever
            The retriever itself.

        Raises
        ------
        ConfigError
            When there is no passage, or one is neither a `Passage` nor a string like the others, or repeats an id.

        Examples
        --------
        >>> from ragscale.retrieval import BM25Retriever
        >>> retriever = BM25Retriever().index(["A red fish.", "Blue."])
        >>> retriever.passages[1], retriever.n_tokens
        (Passage(id='1', text='Blue.', n_tokens=1, document_id='1', n_new_tokens=1), 4)
        """
        kept = as_passages(passages)
        self._passages, self._prefixes, self._progress = None, {}, progress
        cumulative = check_passages(kept)
        self._set_passages(kept, cumulative)
        try:
            with unsealed(self):
                self._index(kept)
        except BaseException:
            self._passages = None
            raise
        finally:
            self._progress = False
        return self

    @overload
    def search(
        self, queries: str | Sequence[str], k: int = 10, *, store_tokens: None = None, progress: bool = False
    ) -> Hits: ...

    @overload
    def search(
        self, queries: str | Sequence[str], k: int = 10, *, store_tokens: int | Sequence[int], progress: bool = False
    ) -> dict[int, Hits]: ...

    def search(
        self,
        queries: str | Sequence[str],
        k: int = 10,
        *,
        store_tokens: int | Sequence[int] | None = None,
        progress: bool = False,
    ) -> Hits | dict[int, Hits]:
        """Return the k best passages for each query, over the whole index or over stores of several sizes.

        Parameters
        ----------
        queries : str or sequence of str
            One query gives hits with one row.
        k : int
            Hits per query; padded when the store holds fewer.
        store_tokens : int or sequence of int, optional
            Store sizes R in unique tokens: the store is the longest prefix of the passages that holds at most R.
            R = 0 is the empty store.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Hits or dict of int to Hits
            `Hits` over all passages; with ``store_tokens`` one per R, each equal to what an index over that store
            alone would return.

        Raises
        ------
        NotIndexedError
            When nothing was indexed yet.
        """
        passages = self.passages
        texts = _check_queries(queries)
        k = as_count("k", k, least=1)
        self._progress = progress
        try:
            if store_tokens is None:
                return self._hits(texts, k, [len(passages)])[len(passages)]
            return self._search_stores(texts, k, store_tokens)
        finally:
            self._progress = False

    def _search_stores(self, texts: list[str], k: int, store_tokens: int | Sequence[int]) -> dict[int, Hits]:
        sizes = as_counts("store_tokens", store_tokens)
        n_in_store = {size: self.n_passages_in_store(size) for size in sizes}
        found = self._hits(texts, k, sorted(set(n_in_store.values())))
        return {size: found[n] for size, n in n_in_store.items()}

    def _hits(self, texts: Sequence[str], k: int, counts: Sequence[int]) -> dict[int, Hits]:
        """Return the hits over the first n passages for each n of increasing counts: the checked side of a search."""
        if len(texts) * k * max(1, len(counts)) > _MOST_HITS:
            raise ConfigError(
                f"k={k:,} hits for {len(texts):,} queries and {len(counts)} stores do not fit into memory: lower k "
                f"(the index holds {self.n_passages:,} passages), or search fewer queries at a time"
            )
        found = {n: _no_hits(len(texts), k) for n in counts}
        filled = [n for n in counts if n > 0]
        if not filled or not texts:
            return found
        with unsealed(self):
            if filled == [self.n_passages]:
                answers: Any = [self._search(texts, min(k, self.n_passages))]
            else:
                answers = self._search_nested(texts, min(k, filled[-1]), filled)
        name = type(self).__name__
        answers = list(answers) if isinstance(answers, Iterable) else answers
        if not isinstance(answers, list) or len(answers) != len(filled):
            got = f"{len(answers)} answers" if isinstance(answers, list) else f"a {type(answers).__name__}"
            raise ConfigError(f"{name}._search_nested returned {got} for {len(filled)} stores, expected one for each")
        for n, answer in zip(filled, answers, strict=True):
            found[n] = checked_hits(answer, name=name, n_queries=len(texts), k=k, n_passages=n)
        return found

    def n_passages_in_store(self, store_tokens: int) -> int:
        """Return how many passages the store of R tokens holds: the longest prefix with at most R unique tokens."""
        self._require_index()
        return int(np.searchsorted(self._cumulative_tokens, store_tokens, side="right"))

    @property
    def passages(self) -> Sequence[Passage]:
        """The indexed passages in store order; ``Hits.ids`` are rows of it."""
        return self._require_index()

    @property
    def n_passages(self) -> int:
        """Number of indexed passages."""
        return len(self._require_index())

    @property
    def n_tokens(self) -> int:
        """Unique tokens of the indexed passages: the largest R this index can serve."""
        self._require_index()
        return int(self._cumulative_tokens[-1])

    @property
    def n_tokens_served(self) -> int:
        """The largest R whose store this index surely holds.

        A store of R tokens is the longest run of passages with at most R: it usually ends a little below R, by less
        than one passage. So does an index over exactly that store.
        """
        self._require_index()
        longest = int(np.diff(self._cumulative_tokens, prepend=0).max())
        return self.n_tokens + longest - 1

    def describe(self) -> dict[str, Any]:
        """Return what is indexed and how: kind, passages, tokens, bytes where known, parameters."""
        return {
            "retriever": type(self).__name__,
            "n_passages": self.n_passages,
            "n_tokens": self.n_tokens,
            "parameters": {name: _short(value) for name, value in self._arguments.items()},
            **self._describe(),
        }

    def save(self, path: str | os.PathLike[str], *, store_passages: bool = True) -> None:
        """Write the retriever into a directory: constructor arguments, index, passages, and a digest of each file.

        It is written beside and takes the directory's name when it is complete: until then, and after a kill or a
        full disk, a retriever that was saved there before is there as it was. Files of your own stay.

        Parameters
        ----------
        path : path
            The directory; made if missing. One that holds files but no retriever is an error.
        store_passages : bool
            False writes the digest of the passages only; `load` must then be given the same passages.

        Raises
        ------
        ConfigError
            When the directory holds other files.
        FileError
            When the disk is full or may not be written to.
        """
        passages = self._require_index()
        directory = Path(path)
        lock = directory.with_name(f".{directory.name}.lock")
        with disk_errors(directory), locked(lock, keep=False):
            recover_folder(directory)
            remove_leftovers(directory)
            if directory.exists() and any(directory.iterdir()) and not (directory / DESCRIPTION).exists():
                raise ConfigError(f"{directory} holds other files; give a new or empty directory")
            with whole_folder(directory, ours=_saved_files(directory)) as folder:
                self._write(folder, passages if store_passages else None)

    def _write(self, folder: Path, stored: Sequence[Passage] | None) -> None:
        """Fill an empty folder with everything that `load` reads, and last the description of it all."""
        with unsealed(self):
            arguments = self._save_arguments(folder)
            self._save(folder)
        if stored is not None:
            with atomic_write(folder / _PASSAGES, "w", **_TEXT) as file:
                file.writelines(json.dumps(_fields(passage), ensure_ascii=False) + "\n" for passage in stored)
        description = {
            "class": name_of(type(self)),
            "arguments": arguments,
            "missing_arguments": sorted(set(self._arguments) - set(arguments)),
            "n_passages": self.n_passages,
            "n_tokens": self.n_tokens,
            "passages_digest": passages_digest(self.passages),
            "files": file_digests(folder),
        }
        write_json(folder / DESCRIPTION, description, schema=SCHEMA, version=VERSION)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, passages: Iterable[Passage] | None = None, **arguments: object
    ) -> Self:
        """Read a retriever that `save` wrote.

        Parameters
        ----------
        path : path
            The directory.
        passages : iterable of Passage, optional
            The indexed passages, where they were not stored (or to share them in memory); their digest is checked.
        **arguments
            Constructor arguments that could not be stored (functions, models), or that shall differ.

        Raises
        ------
        CheckpointError
            When files are missing or changed, the passages differ, or another class wrote them.
        """
        directory = Path(path)
        recover_folder(directory)
        if not (directory / DESCRIPTION).exists():
            raise CheckpointError(f"{directory} holds no saved retriever ({DESCRIPTION} is missing)")
        description = read_json(directory / DESCRIPTION, schema=SCHEMA, version=VERSION, fields=FIELDS)
        kind = class_named(cls, description["class"], directory)
        check_files(directory, description["files"])
        missing = [name for name in description["missing_arguments"] if name not in arguments]
        if missing:
            raise CheckpointError(
                f"{directory}: {', '.join(missing)} could not be stored with the index; "
                f"load it with {kind.__name__}.load(path, {', '.join(f'{name}=...' for name in missing)})"
            )
        kept = _read_passages(directory) if passages is None else as_passages(passages)
        if passages_digest(kept) != description["passages_digest"]:
            raise CheckpointError(
                f"{directory} was indexed over {description['n_passages']} other passages than the {len(kept)} given: "
                "index and passages do not belong together"
            )
        return kind._opened(directory, description["arguments"], arguments, kept, _cumulative(kept))

    @classmethod
    def _opened(
        cls,
        directory: Path,
        stored: dict[str, Any],
        given: dict[str, Any],
        passages: Sequence[Passage],
        cumulative: NDArray[np.int64],
    ) -> Self:
        """Construct what was saved and read its index, over passages that are known to be those of the index."""
        with damaged(directory):
            self = cls._restore(directory, stored, given, passages)
        self._prefixes = {}
        self._set_passages(passages, cumulative)
        with unsealed(self), damaged(directory):
            self._load(directory)
        return self

    @classmethod
    def _restore(
        cls, directory: Path, stored: dict[str, Any], given: dict[str, Any], passages: Sequence[Passage]
    ) -> Self:
        """Construct what was saved; a retriever made of others loads those here, over the same passages."""
        return cls._construct({**cls._load_arguments(directory, stored), **given})

    # Helpers for subclasses

    def _track(self, items: Iterable[Item], *, what: str, total: int | None = None) -> Iterator[Item]:
        """Iterate with a progress bar where the caller of `index` or `search` asked for one."""
        if not self._progress:
            yield from items
            return
        from tqdm.auto import tqdm

        yield from tqdm(items, desc=what, total=total, leave=False)

    @classmethod
    def _construct(cls, arguments: Mapping[str, Any]) -> Self:
        """Call the constructor with recorded arguments."""
        signature = _signature(cls)
        unknown = sorted(set(arguments) - set(signature.parameters))
        if unknown:
            raise ConfigError(f"{cls.__name__} has no argument {', '.join(unknown)}; it takes {signature}")
        ordered = {name: arguments[name] for name in signature.parameters if name in arguments}
        bound = inspect.BoundArguments(signature, ordered)
        return cls(*bound.args, **bound.kwargs)

    def _prefix(self, n: int) -> Retriever:
        """Return an equal retriever over the first n passages alone, indexed on first use."""
        if n == self.n_passages:
            return self
        if n not in self._prefixes:
            self._prefixes[n] = self._construct(self._arguments).index(self.passages[:n])
        return self._prefixes[n]

    def _set_passages(self, passages: Sequence[Passage], cumulative: NDArray[np.int64]) -> None:
        self._passages, self._cumulative_tokens = passages, cumulative

    def _adopt(self, passages: Sequence[Passage]) -> None:
        """Take equal passages as one's own, so that retrievers over the same ones hold the same object."""
        self._passages = passages

    def _require_index(self) -> Sequence[Passage]:
        if self._passages is None:
            raise NotIndexedError(f"this {type(self).__name__} has no passages yet: call index(passages) first")
        return self._passages


def passages_digest(passages: Iterable[Passage]) -> str:
    """Return the SHA-256 of passages in their order: ids, texts, token counts and documents."""
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(json.dumps(_fields(passage), ensure_ascii=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _fields(passage: Passage) -> list[Any]:
    return [passage.id, passage.text, passage.n_tokens, passage.document_id, passage.n_new_tokens]


def _read_passages(directory: Path) -> tuple[Passage, ...]:
    path = directory / _PASSAGES
    if not path.exists():
        raise CheckpointError(f"{directory} was saved without its passages: load it with load(path, passages=...)")
    with damaged(path), open(path, **_TEXT) as file:
        return tuple(Passage(*json.loads(line)) for line in file)


def _saved_files(directory: Path) -> set[str]:
    """Return the files below a directory that an earlier `save` wrote, as far as its description can still tell."""
    try:
        description = read_json(directory / DESCRIPTION, schema=SCHEMA, version=VERSION, fields=FIELDS)
    except RagscaleError:
        return {DESCRIPTION}
    return {DESCRIPTION, *description["files"]}


def check_files(directory: Path, digests: Mapping[str, str]) -> None:
    problems = []
    for name, digest in digests.items():
        if not (directory / name).exists():
            problems.append(f"{name} is missing")
        elif file_digest(directory / name) != digest:
            problems.append(f"{name} was changed")
    if problems:
        raise CheckpointError(f"{directory} is damaged: {'; '.join(problems)}")


def _cumulative(passages: Sequence[Passage]) -> NDArray[np.int64]:
    return np.cumsum(np.array([passage.n_new_tokens for passage in passages], dtype=np.int64))


def _check_queries(queries: str | Sequence[str]) -> list[str]:
    if not isinstance(queries, Iterable) or isinstance(queries, bytes):
        raise ConfigError(f"queries must be strings, got {type(queries).__name__}")
    texts = [queries] if isinstance(queries, str) else list(queries)
    wrong = [f"query {i} is a {type(text).__name__}" for i, text in enumerate(texts) if not isinstance(text, str)]
    if wrong:
        raise ConfigError(f"queries must be strings: {'; '.join(wrong[:10])}")
    return texts


def _no_hits(n_queries: int, k: int) -> Hits:
    return Hits(np.full((n_queries, k), -1), np.full((n_queries, k), -np.inf))


def _signature(cls: type) -> inspect.Signature:
    """Return the constructor's signature without self (``inspect.signature(cls)`` would show ``__new__``)."""
    if cls.__init__ is object.__init__:
        return inspect.Signature()
    signature = inspect.signature(cls.__init__)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def bound_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments by name, defaults included."""
    try:
        bound = _signature(cls).bind(*args, **kwargs)
    except TypeError:  # the constructor itself says it better; and unpickling calls with nothing
        return {}
    bound.apply_defaults()
    return dict(bound.arguments)


def is_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == (list(value) if isinstance(value, tuple) else value)
    except (TypeError, ValueError):
        return False


def _short(value: Any) -> Any:
    if is_json(value):
        return value
    return getattr(value, "__qualname__", None) or f"{type(value).__name__}(...)"


def name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def class_named(cls: type[Any], name: str, directory: Path) -> type[Any]:
    """Find the class that saved a retriever among ``cls`` and the subclasses known to this process."""
    if name.startswith("ragscale.retrieval."):
        import ragscale.retrieval

        getattr(ragscale.retrieval, name.partition(":")[2], None)  # an import makes the subclass known
    known, queue = {}, [cls]
    while queue:
        one = queue.pop()
        known[name_of(one)] = one
        queue.extend(one.__subclasses__())
    if name in known:
        return known[name]
    if inspect.isabstract(cls):
        raise CheckpointError(f"{directory} was saved by {name}, which is not loaded: import it first")
    raise CheckpointError(f"{directory} was saved by {name}, not by {name_of(cls)}: load it with that class")
