"""The contract of an encoder, run on anyone's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ragscale.errors import ConfigError
from ragscale.retrieval import Encoder
from ragscale.testing._checks import run_checks

Factory = Callable[[], Encoder]

_TEXTS = [
    "wild honey in the orchard",
    "the winter market counts seven bridges, and every comet crosses the old library",
    "a fox",
    "wild honey in the orchard",
    "the harbour remembers distant thunder " * 12,
    "my neighbour paints a silver compass",
    "comet",
    "an empty theatre forgets",
    "no glacier crosses the winter market",
]
_ODD = ["", " ", "\n\t", "漢字 and Ünïcode", "🦊 🐝", "a\x00b", "\ud83d alone"]


def check_encoder(factory: Factory) -> list[str]:
    """Run the whole contract of an encoder.

    Parameters
    ----------
    factory : callable
        Takes nothing and returns a new encoder; called several times. One that learns is fitted here on a few texts
        unless it already is.

    Returns
    -------
    list of str
        The names of the checks that ran.

    Raises
    ------
    AssertionError
        At the first broken promise, naming it.

    Examples
    --------
    >>> from ragscale.retrieval import LsaEncoder
    >>> "batch_independence" in check_encoder(lambda: LsaEncoder(n_components=4))
    True
    """
    return run_checks(_CHECKS, factory)


def _ready(factory: Factory) -> Encoder:
    return factory().fitted(_TEXTS)


def _needs_fitting(factory: Factory) -> bool:
    encoder = factory()
    if encoder.is_fitted:
        return False
    try:
        encoder.encode(_TEXTS)
    except ConfigError:
        fitted = encoder.fitted(_TEXTS)
        assert fitted.is_fitted, "fit must leave the encoder fitted"
        assert not encoder.is_fitted, "fitted() must learn in a copy"
        return True
    raise AssertionError("encode before fit must raise ConfigError")


def _shape(factory: Factory) -> None:
    encoder = _ready(factory)
    assert isinstance(encoder.dim, int | np.integer), f"dim must be a whole number, got {encoder.dim!r}"
    assert encoder.dim >= 1, f"dim must be at least 1, got {encoder.dim}"
    for kind in ("passage", "query"):
        vectors = encoder.encode(_TEXTS, kind)
        assert vectors.shape == (len(_TEXTS), encoder.dim), f"{kind} vectors have shape {vectors.shape}"
        assert vectors.dtype == np.float32, f"{kind} vectors are {vectors.dtype}"
        assert vectors.any(), f"every {kind} vector is zero"
    assert encoder.encode([]).shape == (0, encoder.dim), "no text must give no vector"
    assert encoder.encode("one text").shape == (1, encoder.dim), "one text must give one vector"


def _deterministic(factory: Factory) -> None:
    encoder = _ready(factory)
    for kind in ("passage", "query"):
        first = encoder.encode(_TEXTS, kind)
        _same(encoder.encode(_TEXTS, kind), first, f"encoding {kind} texts twice")
        _same(_ready(factory).encode(_TEXTS, kind), first, f"encoding {kind} texts with a new encoder")
        _same(first[3:4], first[:1], "the same text twice in one batch")


def _batch(factory: Factory) -> None:
    encoder = _ready(factory)
    for kind in ("passage", "query"):
        whole = encoder.encode(_TEXTS, kind)
        alone = np.concatenate([encoder.encode([text], kind) for text in _TEXTS])
        _same(alone, whole, f"encoding {kind} texts alone instead of together")
        _same(encoder.encode(_TEXTS[::-1], kind)[::-1], whole, f"encoding {kind} texts in reverse order")
        _same(encoder.encode(_TEXTS * 9, kind)[-len(_TEXTS) :], whole, f"encoding {kind} texts in a large batch")


def _odd_texts(factory: Factory) -> None:
    encoder = _ready(factory)
    for text in _ODD:
        for kind in ("passage", "query"):
            assert np.isfinite(encoder.encode([text], kind)).all(), f"{text!r} must give a finite vector"


def _wrong_input(factory: Factory) -> None:
    encoder = _ready(factory)
    for arguments in ((["fine", None],), (["fine"], "document")):
        try:
            encoder.encode(*cast(Any, arguments))
        except ConfigError:
            continue
        raise AssertionError(f"encode{arguments} must raise ConfigError")


def _digest(factory: Factory) -> None:
    first, second = _ready(factory), _ready(factory)
    before = first.digest
    assert before == second.digest, "two encoders made alike must have one digest"
    first.encode(_TEXTS)
    assert first.digest == before, "encoding must not change the digest"


def _saved(factory: Factory) -> bool:
    encoder = _ready(factory)
    if not encoder.is_storable:
        return False
    with tempfile.TemporaryDirectory() as directory:
        encoder.save(directory)
        loaded = type(encoder).load(directory)
        assert loaded.digest == encoder.digest, "a loaded encoder must have the saved one's digest"
        for kind in ("passage", "query"):
            _same(loaded.encode(_TEXTS, kind), encoder.encode(_TEXTS, kind), "saving and loading")
    return True


def _same(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    if not np.array_equal(found, expected):
        row = int(np.flatnonzero((found != expected).any(axis=1))[0])
        apart = float(np.abs(found - expected).max())
        raise AssertionError(
            f"{what} changed vectors, first that of text {row}, by up to {apart:.2g}: a text's vector must depend on "
            "that text alone, to the last bit"
        )


_CHECKS: dict[str, Callable[[Factory], bool | None]] = {
    "fitting_first": _needs_fitting,
    "shape_and_type": _shape,
    "determinism": _deterministic,
    "batch_independence": _batch,
    "odd_texts": _odd_texts,
    "wrong_input": _wrong_input,
    "digest": _digest,
    "save_and_load": _saved,
}
