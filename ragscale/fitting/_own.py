"""Fields of results that hand out copies."""

from __future__ import annotations

from typing import Any, Generic, Protocol, Self, TypeVar, overload


class _Copies(Protocol):
    def copy(self) -> Any: ...


T = TypeVar("T", bound=_Copies)


class Own(Generic[T]):
    """A field of a frozen dataclass, a frame or dictionary: a copy goes in and copies come out.

    Whoever edits what a result returned edits nothing else. `peek` reads without copying, for code of this library
    that only looks.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:  # a dataclass asks its class for a default: there is none
            raise AttributeError(self.name)
        return instance.__dict__[self.name].copy()

    def __set__(self, instance: object, value: T) -> None:
        instance.__dict__[self.name] = value.copy()


def peek(instance: object, name: str) -> Any:
    """Return a field of kind `Own` itself, only to look at it."""
    return instance.__dict__[name]
