"""Optional dependencies: import one, or say what to install."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ragscale.errors import MissingExtraError


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


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for every small model that it reads."""
    logging = require("transformers.utils.logging", "train")
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
