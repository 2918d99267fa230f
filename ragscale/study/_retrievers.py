"""The retriever of a study: an object, a class or a dotted path, in a form that can be stored and built elsewhere."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import operator
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import FunctionType
from typing import Any

from ragscale._files import canonical_json
from ragscale.errors import ConfigError, MissingExtraError

_OURS = "ragscale.retrieval"
_FACTORY, _NAME, _POSITIONAL = "factory", "name", "*"
KINDS = ("bm25", "lsa", "hybrid")


@dataclass(frozen=True, slots=True)
class RetrieverSpec:
    """How a study's retriever is built, as JSON: ``{"factory": "module:Class", ...arguments}``, nested as needed."""

    text: str

    @classmethod
    def of(cls, given: Any) -> RetrieverSpec:
        """Return the retriever that a configuration names: nothing is imported that is not imported yet.

        Parameters
        ----------
        given : Retriever, class, "module:Class" or mapping
            An object counts by its class and the constructor's arguments.

        Raises
        ------
        ConfigError
            When it is none of these, or an argument cannot be stored.
        """
        from ragscale.retrieval import Retriever

        if isinstance(given, RetrieverSpec):
            return given
        if isinstance(given, Retriever):
            return cls(canonical_json(_stored(given, "retriever")))
        if inspect.isclass(given) or inspect.isfunction(given):
            _check_factory(given, _dotted(given, "retriever"))
            return cls(canonical_json({_FACTORY: _dotted(given, "retriever")}))
        if isinstance(given, str):
            given = {"kind": given} if given in KINDS else {_FACTORY: given}
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"retriever = {given!r} must be a Retriever, a class, 'package.module:Class', or a dictionary"
            )
        return cls(canonical_json(_from_dict(dict(given))))

    @property
    def value(self) -> dict[str, Any]:
        """The JSON value."""
        return json.loads(self.text)

    @property
    def factory(self) -> str:
        """``module:name`` of the class, or of the function that makes the retriever."""
        return self.value[_FACTORY]

    @property
    def is_own(self) -> bool:
        """Whether code from outside ragscale takes part."""
        return any(not _is_ours(name) for name in names_in(self.value))

    def build(self) -> Any:
        """Return a new retriever that has indexed nothing.

        Raises
        ------
        ConfigError
            When a name cannot be imported, is no class of a retriever, or does not take these arguments.
        """
        from ragscale.retrieval import Retriever

        built = _built(self.value)
        if not isinstance(built, Retriever):
            raise ConfigError(f"retriever factory {self.factory!r} gave a {type(built).__name__}, not a Retriever")
        return built

    def kind(self) -> Any:
        """Return the class that loads what was saved: `Retriever` itself for a function that makes one."""
        from ragscale.retrieval import Retriever

        found = resolve(self.factory)
        _check_factory(found, self.factory)
        return found if inspect.isclass(found) else Retriever

    def __str__(self) -> str:
        arguments = {name: item for name, item in self.value.items() if name != _FACTORY}
        short = self.factory.rpartition(":")[2] if _is_ours(self.factory) else self.factory
        return f"{short}({', '.join(f'{name}={_short(item)}' for name, item in arguments.items())})"


def names_in(value: Any) -> Iterator[str]:
    """Yield every ``module:name`` in a stored retriever."""
    if isinstance(value, list):
        for item in value:
            yield from names_in(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in {_FACTORY, _NAME} and isinstance(item, str):
                yield item
            else:
                yield from names_in(item)


def resolve(dotted: str) -> Any:
    """Import ``module:name``.

    Raises
    ------
    ConfigError
        Saying where it was looked for.
    """
    module, _, name = dotted.partition(":")
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except ImportError as error:
        raise ConfigError(
            f"retriever {dotted!r} cannot be imported: {error}. Its file must lie in the working directory or on "
            "PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"retriever {dotted!r} cannot be imported: {error}") from error


# From what is given ----------------------------------------------------------------------------------------------


def _from_dict(given: dict[str, Any]) -> dict[str, Any]:
    if ("kind" in given) == (_FACTORY in given):
        raise ConfigError(f"retriever = {given!r} needs either 'kind' or 'factory'")
    if _FACTORY in given:
        factory = given[_FACTORY]
        if not isinstance(factory, str):
            factory = _dotted(factory, "retriever")
        module, colon, name = factory.partition(":")
        if not (colon and all(part.isidentifier() for part in [*module.split("."), *name.split(".")])):
            raise ConfigError(f"retriever factory {factory!r} must be written 'package.module:Class'")
        value = {**{key: _stored(item, f"retriever {key}") for key, item in given.items()}, _FACTORY: factory}
        if all(map(_is_ours, names_in(value))):
            return _settled(value)
        return value
    kind = given.pop("kind")
    if kind not in KINDS:
        raise ConfigError(f"retriever kind {kind!r} must be {', '.join(KINDS)}, or give a 'factory'")
    arguments = {name: _stored(item, f"retriever {name}") for name, item in given.items()}
    bm25 = {_FACTORY: f"{_OURS}:BM25Retriever"}
    if kind == "bm25":
        value = {**bm25, **arguments}
    else:
        dense = {_FACTORY: f"{_OURS}:DenseRetriever", "encoder": {_FACTORY: f"{_OURS}:LsaEncoder", **arguments}}
        value = dense if kind == "lsa" else {_FACTORY: f"{_OURS}:HybridRetriever", _POSITIONAL: [bm25, dense]}
    return _settled(value)


def _settled(value: dict[str, Any]) -> dict[str, Any]:
    """Build what is all ours, so that wrong arguments are seen now, and leave out those that are defaults.

    What is not installed is seen when it is used.
    """
    try:
        return _stored(_built(value), "retriever")
    except MissingExtraError:
        return value


def _stored(value: Any, what: str) -> Any:
    """Return the JSON-able form of an argument.

    Raises
    ------
    ConfigError
        For what has none.
    """
    from ragscale.retrieval import Encoder, Retriever

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_stored(item, what) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Mapping):
        return {str(name): _stored(item, what) for name, item in value.items()}
    if isinstance(value, Retriever | Encoder):
        return _stored_call(type(value), value._arguments, what)
    if is_dataclass(value) and not isinstance(value, type):
        arguments = {item.name: getattr(value, item.name) for item in fields(value) if item.init}
        return {_FACTORY: _dotted(type(value), what), **{n: _stored(v, what) for n, v in arguments.items()}}
    if isinstance(value, functools.partial) and not value.args:
        return {_NAME: _dotted(value.func, what), "partial": _stored(value.keywords, what)}
    if inspect.isfunction(value) or inspect.isclass(value):
        return {_NAME: _dotted(value, what)}
    raise ConfigError(
        f"{what} = {value!r} cannot be stored with a study: give 'package.module:Class' of a Retriever whose "
        "constructor makes it from plain values"
    )


def _stored_call(kind: type, arguments: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return class and arguments, without those that are the constructor's defaults."""
    signature = inspect.signature(kind.__init__)
    value: dict[str, Any] = {_FACTORY: _dotted(kind, what)}
    for name, item in arguments.items():
        parameter = signature.parameters.get(name)
        if parameter is not None and parameter.kind is parameter.VAR_POSITIONAL:
            value[_POSITIONAL] = [_stored(one, f"{what} {name}") for one in item]
        elif parameter is not None and parameter.kind is parameter.VAR_KEYWORD:
            value |= {key: _stored(one, f"{what} {key}") for key, one in item.items()}
        elif parameter is None or parameter.default is parameter.empty or not _same(parameter.default, item):
            value[name] = _stored(item, f"{what} {name}")
    return value


def _same(default: Any, value: Any) -> bool:
    return default is value or (
        type(default) is type(value) and isinstance(value, bool | int | float | str) and default == value
    )


def _dotted(value: Any, what: str) -> str:
    """Return ``module:qualname`` of a class or function that can be imported."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not name or "<" in name:
        raise ConfigError(
            f"{what} = {value!r} is defined inside a function, where no other process finds it: define it at the top "
            "of a module"
        )
    public = sys.modules.get(_OURS)
    if module.startswith(f"{_OURS}.") and public is not None and getattr(public, name, None) is value:
        module = _OURS
    return f"{module}:{name}"


# Back to objects -------------------------------------------------------------------------------------------------


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return [_built(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _NAME in value and set(value) <= {_NAME, "partial"}:
        found = resolve(value[_NAME])
        _check_function(found, value[_NAME])
        return functools.partial(found, **_built(value["partial"])) if "partial" in value else found
    if _FACTORY not in value:
        return {name: _built(item) for name, item in value.items()}
    found = resolve(value[_FACTORY])
    _check_factory(found, value[_FACTORY])
    arguments = {name: _built(item) for name, item in value.items() if name not in {_FACTORY, _POSITIONAL}}
    positional = [_built(item) for item in value.get(_POSITIONAL, [])]
    try:
        inspect.signature(found.__init__ if inspect.isclass(found) else found)
        return found(*positional, **arguments)
    except TypeError as error:
        raise ConfigError(f"retriever {value[_FACTORY]!r} does not take these arguments: {error}") from error


def _check_factory(found: Any, dotted: str) -> None:
    """Refuse what neither is a class of ours to build nor is declared to make one; it is not called."""
    from ragscale.retrieval import Encoder, Retriever

    good = inspect.isclass(found) and (
        issubclass(found, Retriever | Encoder) or (is_dataclass(found) and _is_ours(dotted))
    )
    if isinstance(found, FunctionType):
        try:
            made = typing.get_type_hints(found).get("return")
        except Exception:  # noqa: BLE001 - a hint that cannot be read says nothing
            made = None
        good = inspect.isclass(made) and issubclass(made, Retriever | Encoder)
    if not good:
        raise ConfigError(
            f"retriever factory {dotted!r} is no class of a ragscale.Retriever and no function declared to make one, "
            "so it is not called: name the class, or annotate the function with '-> Retriever'"
        )


def _check_function(found: Any, dotted: str) -> None:
    """Allow functions of ragscale and of the user's own modules as arguments, none of the standard library."""
    module = dotted.partition(":")[0].partition(".")[0]
    if not callable(found) or module in sys.stdlib_module_names or module == "builtins":
        raise ConfigError(f"retriever argument {dotted!r} is no function that a retriever may be given")


def _is_ours(dotted: str) -> bool:
    return dotted.partition(":")[0].partition(".")[0] == "ragscale"


def _short(value: Any) -> str:
    if isinstance(value, dict) and _FACTORY in value:
        return value[_FACTORY].rpartition(":")[2]
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return repr(value)
