"""The base class of every encoder: texts in, one vector each out, the same vector whatever else is in the batch."""

from __future__ import annotations

import copy
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragscale._files import (
    check_digest,
    check_fields,
    damaged,
    file_digests,
    read_json,
    recover_folder,
    value_digest,
    whole_folder,
    write_json,
)
from ragscale._scripts import all_whole
from ragscale.errors import CheckpointError, ConfigError, RagscaleError
from ragscale.retrieval._base import bound_arguments, class_named, is_json, name_of
from ragscale.retrieval._sealed import Sealed, unsealed

Kind = Literal["passage", "query"]
Vectors = NDArray[np.float32]

_SCHEMA, _VERSION = "ragscale.encoder", 1
_DESCRIPTION = "encoder.json"
_FIELDS = {"class": str, "arguments": dict, "digest": str}


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of the texts did not fit into the encoder's window.

    Parameters
    ----------
    n_texts, n_truncated : int
        Texts encoded, and how many of them were cut.
    n_tokens, n_tokens_lost : int
        Tokens of all texts before cutting, and how many the encoder never saw.
    """

    n_texts: int = 0
    n_truncated: int = 0
    n_tokens: int = 0
    n_tokens_lost: int = 0

    def __add__(self, other: Truncation) -> Truncation:
        return Truncation(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Truncation) -> Truncation:
        return Truncation(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Encoder(Sealed, ABC):
    """Turn texts into vectors whose inner products say how well a passage answers a query.

    A subclass writes `dim` and `_encode`. An encoder with something to learn from texts also writes `is_fitted` and
    `_fit`, and keeps what it learned with `_save` and `_load`. The constructor should only keep its arguments: they
    are recorded and stored with an index.

    A text's vector must depend on that text alone. Batches of changing shape change the last bits of a neural
    network's output; then a search for one query need not equal the same query in a batch. `check_encoder` tests it.

    Examples
    --------
    >>> class Letters(Encoder):
    ...     dim = 26
    ...
    ...     def _encode(self, texts, kind):
    ...         return [[text.count(chr(97 + i)) for i in range(26)] for text in texts]
    >>> Letters().encode(["abba", "cab"])[:, :3]
    array([[2., 2., 0.],
           [1., 1., 1.]], dtype=float32)
    """

    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._arguments = bound_arguments(cls, args, kwargs)
        return self

    # What a subclass writes

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of a vector."""

    @abstractmethod
    def _encode(self, texts: Sequence[str], kind: Kind) -> ArrayLike:
        """Return one vector per text, shape (n_texts, dim); there is at least one text."""

    def _fit(self, texts: Sequence[str]) -> None:
        """Learn from texts (at least one); by default there is nothing to learn."""

    @property
    def is_fitted(self) -> bool:
        """Whether the encoder can encode; False before `fit` for one that learns."""
        return True

    def _fingerprint(self) -> dict[str, Any]:
        """Return JSON-able values that differ whenever vectors would; by default the constructor's arguments."""
        unknown = sorted(name for name, value in self._arguments.items() if not is_json(value))
        if unknown:
            raise ConfigError(
                f"{type(self).__name__} holds {', '.join(unknown)}, which cannot be written as JSON: "
                "define _fingerprint() to return values that identify it, or its vectors cannot be cached or saved"
            )
        return dict(self._arguments)

    def _save(self, directory: Path) -> None:
        """Write what `_fit` learned into an existing directory; by default nothing."""

    def _load(self, directory: Path) -> None:
        """Read what `_save` wrote."""

    # What a user calls

    def encode(self, texts: str | Sequence[str], kind: Kind = "passage") -> Vectors:
        """Encode texts.

        Parameters
        ----------
        texts : str or sequence of str
            One text gives one row.
        kind : {"passage", "query"}
            Which side of the search; many encoders prompt queries differently.

        Returns
        -------
        ndarray of float32, shape (n_texts, dim)

        Raises
        ------
        ConfigError
            When a text is no string, the encoder is not fitted, or it returned something else than finite vectors.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        wrong = [f"text {i} is a {type(text).__name__}" for i, text in enumerate(texts) if not isinstance(text, str)]
        if wrong:
            raise ConfigError(f"texts must be strings: {'; '.join(wrong[:10])}")
        if kind not in {"passage", "query"}:
            raise ConfigError(f"kind must be 'passage' or 'query', got {kind!r}")
        if not self.is_fitted:
            raise ConfigError(f"this {type(self).__name__} has not learned from any text yet: call fit(texts) first")
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        with unsealed(self):
            vectors = _as_floats(self._encode(all_whole(texts), kind), type(self).__name__)
        if vectors.shape != (len(texts), self.dim):
            raise ConfigError(
                f"{type(self).__name__} returned vectors of shape {vectors.shape}, expected ({len(texts)}, {self.dim})"
            )
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise ConfigError(f"{type(self).__name__} returned a vector that is not finite for {texts[row][:80]!r}")
        return vectors

    def encode_passages(self, texts: str | Sequence[str]) -> Vectors:
        """Encode texts as passages, shape (n_texts, dim)."""
        return self.encode(texts, "passage")

    def encode_queries(self, texts: str | Sequence[str]) -> Vectors:
        """Encode texts as queries, shape (n_texts, dim)."""
        return self.encode(texts, "query")

    def fit(self, texts: Iterable[str]) -> Self:
        """Learn from texts, where there is something to learn; return the encoder itself."""
        if isinstance(texts, str):
            raise ConfigError(f"texts must be several texts, got one: give [{texts[:40]!r}]")
        texts = list(texts)
        if not texts:
            raise ConfigError("there is no text to fit on")
        with unsealed(self):
            self._fit(texts)
        return self

    def fitted(self, texts: Iterable[str]) -> Self:
        """Return the encoder itself if it is fitted, else a copy that learned from the texts."""
        return self if self.is_fitted else copy.copy(self).fit(texts)

    def truncation(self, kind: Kind = "passage") -> Truncation:
        """Return how much of all texts of this kind encoded so far was cut off; by default nothing is counted."""
        return Truncation()

    def state(self) -> Any:
        """Return something cheap that differs when the vectors of a loaded encoder would; by default nothing changes.

        An index compares it before every search.
        """
        return None

    @property
    def digest(self) -> str:
        """SHA-256 that names this encoder: equal digests mean equal vectors, up to the machine's rounding."""
        return value_digest({"class": name_of(type(self)), **self._fingerprint()})

    def describe(self) -> dict[str, Any]:
        """Return the encoder's kind, dimensions and arguments, and how much text was cut off if it counts that."""
        arguments = {name: value for name, value in self._arguments.items() if is_json(value)}
        return {"encoder": type(self).__name__, "dim": self.dim, "parameters": arguments}

    @property
    def is_storable(self) -> bool:
        """Whether `save` works: every argument of the constructor can be written as JSON."""
        return all(is_json(value) for value in self._arguments.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the constructor's arguments, what was learned, and the digest into a directory."""
        if not self.is_storable:
            names = sorted(name for name, value in self._arguments.items() if not is_json(value))
            raise ConfigError(f"{type(self).__name__} cannot be saved: {', '.join(names)} cannot be written as JSON")
        directory = Path(path)
        recover_folder(directory)
        with whole_folder(directory, ours=_saved_files(directory)) as folder:
            self._save(folder)
            description = {
                "class": name_of(type(self)),
                "arguments": self._arguments,
                "digest": self.digest,
                "files": file_digests(folder),
            }
            write_json(folder / _DESCRIPTION, description, schema=_SCHEMA, version=_VERSION, seal=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an encoder that `save` wrote, and check that it still is the same one.

        Raises
        ------
        CheckpointError
            When its files are damaged, or its weights are no longer those it was saved with.
        """
        directory = Path(path)
        recover_folder(directory)
        description = read_json(directory / _DESCRIPTION, schema=_SCHEMA, version=_VERSION, fields=_FIELDS)
        files = description.get("files", {})
        check_fields({"files": files}, {"files": dict}, name=str(directory / _DESCRIPTION))
        for name, digest in files.items():
            check_digest(directory / name, str(digest))
        kind = class_named(cls, description["class"], directory)
        signature = inspect.signature(kind)
        with damaged(directory):
            known = signature.parameters
            arguments = {name: value for name, value in description["arguments"].items() if name in known}
            bound = _by_position(signature, arguments)
            self = kind(*bound.args, **bound.kwargs)
            with unsealed(self):
                self._load(directory)
        if self.digest != description["digest"]:
            raise CheckpointError(
                f"{directory}: the encoder has changed since it was saved (digest {self.digest[:12]}, "
                f"then {description['digest'][:12]}): its vectors no longer belong to this index"
            )
        return self


def _saved_files(directory: Path) -> set[str]:
    try:
        description = read_json(directory / _DESCRIPTION, schema=_SCHEMA, version=_VERSION, fields=_FIELDS)
    except RagscaleError:
        return {_DESCRIPTION}
    return {_DESCRIPTION, *(description.get("files") or {})}


def _as_floats(vectors: Any, name: str) -> Vectors:
    try:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} returned no vectors of numbers, one for each text: {error}") from error


def _by_position(signature: inspect.Signature, arguments: dict[str, Any]) -> inspect.BoundArguments:
    ordered = {name: arguments[name] for name in signature.parameters if name in arguments}
    return inspect.BoundArguments(signature, ordered)


def unit_length(vectors: NDArray[Any]) -> Vectors:
    """Scale each row to length 1, row by row in float64; a row of zeros stays."""
    wide = np.asarray(vectors, dtype=np.float64)
    length = np.sqrt((wide * wide).sum(axis=-1, keepdims=True))
    return (wide / np.where(length > 0, length, 1.0)).astype(np.float32)
