"""Objects whose arguments stay as they were constructed: what `describe` says is what every search does."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from ragscale.errors import ImmutableError

_inside = threading.local()


class Sealed:
    """A base class: attributes that hold constructor arguments cannot be set after construction.

    A change would reach some of what was derived from them and not the rest. The methods that a subclass writes may
    set what they like (an index is built, a model is loaded on first use): they run within `unsealed`.
    """

    _sealed: frozenset[str] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _then_sealed(vars(cls)["__init__"])

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_change(name)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_change(name)
        object.__delattr__(self, name)

    def _refuse_change(self, name: str) -> None:
        if name in self._sealed and id(self) not in getattr(_inside, "objects", ()):
            kind = type(self).__name__
            raise ImmutableError(
                f"{name} of this {kind} cannot be changed after construction: what was derived from it would not "
                f"follow. Make a new one, {kind}(..., {name}=...), and give it the same passages or texts"
            )


def _then_sealed(init: Any) -> Any:
    """Wrap a constructor so that the object is sealed when the outermost one has ended."""

    @functools.wraps(init)
    def constructor(self: Sealed, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self).__init__ is constructor:
            object.__setattr__(self, "_sealed", frozenset(_names(self)))

    return constructor


@contextmanager
def unsealed(one: Sealed) -> Generator[None]:
    """Let the methods of a subclass set attributes, in this thread."""
    objects = _inside.__dict__.setdefault("objects", [])
    objects.append(id(one))
    try:
        yield
    finally:
        objects.remove(id(one))


def _names(made: Any) -> set[str]:
    """Return the attributes to seal: constructor arguments, and all that a class of this package keeps openly."""
    owner = next(kind for kind in type(made).__mro__ if "__init__" in vars(kind))
    public = {name for name in vars(made) if not name.startswith("_")}
    if owner.__module__.startswith("ragscale."):
        return public
    arguments: set[str] = set()
    for kind in type(made).__mro__:
        if "__init__" in vars(kind) and kind is not object:
            arguments.update(inspect.signature(kind.__init__).parameters)
    return public & arguments
