"""Latent semantic analysis: dense vectors from word counts alone, in seconds and without a download."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragscale._counts import whole_or_zero
from ragscale._extras import require
from ragscale._files import atomic_write, read_json, value_digest, write_json
from ragscale._scripts import spaced
from ragscale.errors import CheckpointError, ConfigError
from ragscale.retrieval._encoder import Encoder, Kind, Vectors, unit_length

_SCHEMA, _VERSION = "ragscale.lsa", 1


class LsaEncoder(Encoder):
    """Project TF-IDF vectors on the leading singular vectors of the term-document matrix (Deerwester et al. 1990).

    A real, if modest, dense encoder for machines without a model hub: it learns from the texts it is given. Fitted
    on given texts (`fit`) it is one fixed encoder for every store; left unfitted, `Retriever.index` fits a copy
    on all the passages it indexes, and smaller stores are searched with that same encoder.

    Parameters
    ----------
    n_components : int
        Length of a vector; with fewer texts or words than this the rest is zeros.
    ngram_range : (int, int)
        Shortest and longest word n-gram.
    min_df : int
        Drop words that occur in fewer texts.
    max_features : int or None
        Keep only the most frequent words.
    stop_words : {"english"} or None
        Words to leave out.
    seed : int
        Of the randomised singular value decomposition (Halko, Martinsson and Tropp 2011).

    References
    ----------
    Deerwester, Dumais, Furnas, Landauer, Harshman: Indexing by latent semantic analysis. JASIS 41(6), 1990.

    Examples
    --------
    >>> texts = ["cats purr", "cats and kittens", "kittens purr", "ships sail", "ships and boats", "boats sail"]
    >>> encoder = LsaEncoder(n_components=2, stop_words="english").fit(texts)
    >>> vectors = encoder.encode(texts)
    >>> bool(vectors[0] @ vectors[2] > vectors[0] @ vectors[3])
    True
    """

    def __init__(
        self,
        n_components: int = 128,
        *,
        ngram_range: tuple[int, int] = (1, 1),
        min_df: int = 1,
        max_features: int | None = None,
        stop_words: str | None = "english",
        seed: int = 0,
    ) -> None:
        if whole_or_zero(n_components) < 1:
            raise ConfigError(f"n_components must be at least 1, got {n_components}")
        self.n_components, self.ngram_range, self.min_df = whole_or_zero(n_components), ngram_range, min_df
        self.max_features, self.stop_words, self.seed = max_features, stop_words, seed
        self._vectorizer: Any = None
        self._components: NDArray[np.float64] | None = None

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.n_components

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has run."""
        return self._components is not None

    def _new_vectorizer(self, vocabulary: list[str] | None = None) -> Any:
        text = require("sklearn.feature_extraction.text", "dense")
        return text.TfidfVectorizer(
            ngram_range=tuple(self.ngram_range),
            min_df=self.min_df,
            max_features=self.max_features,
            stop_words=self.stop_words,
            sublinear_tf=True,
            token_pattern=r"(?u)\b\w+\b",
            preprocessor=_lower_and_spaced,
            vocabulary=vocabulary,
            dtype=np.float64,
        )

    def _fit(self, texts: Sequence[str]) -> None:
        vectorizer = self._new_vectorizer()
        try:
            counts = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise ConfigError(f"nothing can be learned from these {len(texts)} texts: {error}") from error
        rank = min(self.n_components, *counts.shape)
        components = np.zeros((self.n_components, counts.shape[1]))
        if rank < min(counts.shape):
            svd = require("sklearn.decomposition", "dense").TruncatedSVD(rank, random_state=self.seed)
            components[:rank] = svd.fit(counts).components_
        else:
            components[:rank] = np.linalg.svd(counts.toarray(), full_matrices=False)[2][:rank]
        # A singular vector is defined up to its sign: let its largest entry be positive.
        largest = np.take_along_axis(components, np.abs(components).argmax(axis=1, keepdims=True), axis=1)
        self._components = np.where(largest < 0, -components, components)
        self._vectorizer = vectorizer

    def _encode(self, texts: Sequence[str], kind: Kind) -> Vectors:
        assert self._components is not None
        # Sparse times dense runs row by row, so a text's vector does not depend on its neighbours.
        return unit_length(self._vectorizer.transform(texts) @ self._components.T)

    def _fingerprint(self) -> dict[str, Any]:
        learned = None
        if self._components is not None:
            words = self._vectorizer.get_feature_names_out().tolist()
            learned = [value_digest(words), *(_digest(array) for array in (self._vectorizer.idf_, self._components))]
        return {**super()._fingerprint(), "ngram_range": list(self.ngram_range), "learned": learned}

    def _save(self, directory: Path) -> None:
        if self._components is None:
            return
        words = self._vectorizer.get_feature_names_out().tolist()
        write_json(directory / "vocabulary.json", {"words": words}, schema=_SCHEMA, version=_VERSION)
        for name, array in {"idf": self._vectorizer.idf_, "components": self._components}.items():
            with atomic_write(directory / f"{name}.npy") as file:
                np.save(file, array)

    def _load(self, directory: Path) -> None:
        if not (directory / "vocabulary.json").exists():
            return
        words = read_json(directory / "vocabulary.json", schema=_SCHEMA, version=_VERSION)["words"]
        idf, components = (_read_array(directory / f"{name}.npy") for name in ("idf", "components"))
        if components.shape != (self.n_components, len(words)) or idf.shape != (len(words),):
            raise CheckpointError(f"{directory}: {len(words)} words do not fit components of shape {components.shape}")
        self._vectorizer = self._new_vectorizer(words)
        self._vectorizer.idf_ = idf
        self._components = components


def _lower_and_spaced(text: str) -> str:
    return spaced(text.lower())


def _digest(array: NDArray[Any]) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _read_array(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    try:
        with open(path, "rb") as file:
            return np.load(io.BytesIO(file.read()), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{os.fspath(path)} is missing or damaged: {error}") from error
