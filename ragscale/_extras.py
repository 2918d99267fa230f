"""Optional dependencies: import one, or say what to install."""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ragscale.errors import CheckpointError, MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or raise with the command that installs it.

    Parameters
    ----------
    module : str
        Dotted name of the module, e.g. ``"matplotlib.pyplot"``.
    extra : str
        The extra of ragscale that brings it, e.g. ``"plot"``.

    Raises
    ------
    MissingExtraError
        When the module, or something that it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"'{error.name}' is needed here and is not installed: pip install 'ragscale[{extra}]'", name=error.name
        ) from error


def call_plotting(function: str, *arguments: Any, **options: Any) -> Any:
    """Call a function of `ragscale.plotting` by name: how a result in a lower layer draws itself."""
    return getattr(importlib.import_module("ragscale.plotting"), function)(*arguments, **options)


def from_pretrained(kind: Any, name: str | os.PathLike[str], *, failure: str | None = None, **options: Any) -> Any:
    """Load a model or tokenizer by name or folder; Python code that comes with it is never run, and nobody is asked.

    Parameters
    ----------
    kind : class
        With a classmethod ``from_pretrained``, or one that takes the name (``SentenceTransformer``).
    name : str or path
    failure : str, optional
        How the message begins; by default "no model could be loaded from" the name.
    **options
        Passed on.

    Raises
    ------
    CheckpointError
        When there is none, it cannot be loaded, or it needs its own code.
    """
    load = getattr(kind, "from_pretrained", kind)
    try:
        return load(os.fspath(name), trust_remote_code=False, **options)
    except (MissingExtraError, MemoryError):
        raise
    except Exception as error:  # files of other people fail in any way: OSError, KeyError, TypeError, safetensors' own
        code = "trust_remote_code" in str(error) or "custom code" in str(error)
        advice = (
            "it brings Python code of its own, which is never run from here; if you trust it, load it yourself and "
            "give the object"
            if code
            else f"{type(error).__name__}: {error}"
        )
        failure = failure or f"no model could be loaded from {os.fspath(name)!r}"
        raise CheckpointError(f"{failure}: {advice}") from error


def load_dataset(*arguments: Any, **options: Any) -> Any:
    """Call ``datasets.load_dataset`` so that no loading script is run, whatever the version."""
    datasets = require("datasets", "all")
    if int(datasets.__version__.partition(".")[0]) < 4:  # later versions run no scripts at all
        options["trust_remote_code"] = False
    return datasets.load_dataset(*arguments, **options)


def text_backend(tokenizer: Any) -> Any:
    """Return the ``tokenizers.Tokenizer`` of a tokenizer that reads a text as text, or None if it has none.

    A passage, prompt or document that spells ``<|endoftext|>`` is encoded as those characters, in training and
    evaluation alike: only the library itself can end a text. The tokenizer that was given is not changed.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "encode_batch_fast") or not hasattr(backend, "to_str"):
        return None
    known = _backends.get(id(backend))
    if known is not None and known[0] is backend and known[1] == backend.get_vocab_size():
        return known[2]
    try:
        copied = type(backend).from_str(backend.to_str())
    except Exception:  # noqa: BLE001 - the bindings raise bare Exception for parts written in Python
        return None
    copied.encode_special_tokens = True
    copied.no_truncation()
    copied.no_padding()
    if len(_backends) >= _MOST_BACKENDS:
        _backends.clear()
    _backends[id(backend)] = (backend, backend.get_vocab_size(), copied)
    return copied


_MOST_BACKENDS = 8
_backends: dict[int, tuple[Any, int, Any]] = {}


@contextmanager
def without_progress_bars() -> Generator[None]:
    """Keep transformers from drawing a bar for every small model that it reads."""
    logging = require("transformers.utils.logging", "train")
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
