"""What the public names take is written down: a bare `Any` only where anything at all may be given."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import ragscale


def public() -> Iterator[tuple[str, object]]:
    """Yield everything that the public packages offer, once, by the dotted name of where it is first found."""
    waiting = [f"ragscale.{module.name}" for module in pkgutil.iter_modules(ragscale.__path__)]
    waiting, seen = [name for name in waiting if "._" not in name], set()
    for package in waiting:
        found = importlib.import_module(package)
        for name in getattr(found, "__all__", vars(found)):
            thing = getattr(found, name)
            if name.startswith("_") or id(thing) in seen:
                continue
            seen.add(id(thing))
            if inspect.ismodule(thing) and thing.__name__ == f"{package}.{name}":
                waiting.append(thing.__name__)
            elif callable(thing) and getattr(thing, "__module__", "").startswith(package):
                yield f"{package.removeprefix('ragscale.')}.{name}", thing


def functions(name: str, thing: object) -> Iterator[tuple[str, object]]:
    """Yield what of a public name can be called: itself, or the methods that a class of ours writes."""
    if not inspect.isclass(thing):
        yield name, thing
        return
    for method in dir(thing):
        if method.startswith("_") and method not in ("__init__", "__call__"):
            continue
        found = inspect.getattr_static(thing, method)
        found = getattr(found, "__func__", found)  # class and static methods
        written = inspect.isfunction(found) and found.__code__.co_filename != "<string>"  # not that of a dataclass
        if written and found.__module__.startswith("ragscale"):
            yield f"{name}.{method}", found


def parameters() -> Iterator[tuple[str, object]]:
    """Yield the annotation of each public parameter and field, by its dotted name; what is inherited once."""
    seen = set()
    for name, thing in public():
        for where, function in functions(name, thing):
            if function in seen:
                continue
            seen.add(function)
            for parameter in inspect.signature(function).parameters.values():
                if parameter.name not in ("self", "cls"):
                    star = {parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "*"}.get(parameter.kind, "")
                    yield f"{where}({star}{parameter.name})", parameter.annotation
        if inspect.isclass(thing) and is_dataclass(thing):
            for field in fields(thing):
                if not field.name.startswith("_") and field.init:
                    yield f"{name}.{field.name}", field.type


def bare(annotation: object) -> bool:
    """Say whether an annotation says nothing: it is missing, `Any`, or a union with `Any`."""
    if annotation is inspect.Parameter.empty:
        return True
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    while "[" in text:
        text = re.sub(r"\[[^\[\]]*\]", "", text)
    return bool({"Any", "_Any", "typing.Any"} & set(text.replace(" ", "").split("|")))


def test_no_public_parameter_is_a_bare_any():
    found = list(parameters())
    assert len(found) > 1000
    assert [name for name, annotation in found if bare(annotation)] == []


def test_a_bare_any_is_seen_wherever_it_hides():
    def function(a, b: Any, c: "int | Any", d: "list[dict[str, Any]] | None", *e: Any, f: object = 0, **g: int): ...

    annotations = {name: parameter.annotation for name, parameter in inspect.signature(function).parameters.items()}
    assert [name for name, annotation in annotations.items() if bare(annotation)] == ["a", "b", "c", "e"]
