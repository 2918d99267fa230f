"""Old names of arguments, which go on working for one release."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ragscale.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


def renamed(old: str, new: str, *, convert: Callable[[Any], Any] | None = None) -> Callable[[F], F]:
    """Let a function take a keyword under its old name, with a FutureWarning that says the new one.

    Parameters
    ----------
    old, new : str
    convert : callable, optional
        What makes the new argument's value of the old one's.

    Examples
    --------
    >>> import warnings
    >>> @renamed("size", "tokens")
    ... def cut(*, tokens):
    ...     return tokens
    >>> with warnings.catch_warnings(record=True) as seen:
    ...     warnings.simplefilter("always")
    ...     cut(size=3)
    3
    >>> print(seen[0].message)
    cut(size=...) is now cut(tokens=...); the old name goes in the next minor release
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            if old in options:
                name = function.__name__
                if new in options:
                    raise ConfigError(f"{name}({old}=..., {new}=...): both are the same, give {new} alone")
                warnings.warn(
                    f"{name}({old}=...) is now {name}({new}=...); the old name goes in the next minor release",
                    FutureWarning,
                    stacklevel=2,
                )
                value = options.pop(old)
                options[new] = value if convert is None else convert(value)
            return function(*arguments, **options)

        return cast(F, call)

    return decorate
