"""Code of the user's own in a study: found, told apart by its source, and imported the same way in every process."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import logging
import sys
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ragscale._files import file_digest
from ragscale.errors import ConfigError
from ragscale.study._retrievers import RetrieverSpec, names_in, resolve

_LOG = logging.getLogger("ragscale")
_loaded: dict[str, str] = {}  # module -> digest of the source that this process runs


def own_code(spec: RetrieverSpec) -> list[dict[str, str]]:
    """Return the user's modules that a retriever runs: name, file, digest of the source, root for imports.

    These are the modules of the classes and their bases, and whatever those import from beside them. A module whose
    file has changed since it was imported is imported anew. A class of a notebook or of the running script stands for
    itself.

    Raises
    ------
    ConfigError
        When a name cannot be imported, or its source cannot be read.
    """
    found: dict[str, dict[str, str]] = {}
    for dotted in names_in(spec.value):
        if dotted.partition(":")[0].partition(".")[0] == "ragscale":
            continue
        target = resolve(dotted)
        kinds = [kind for kind in inspect.getmro(target) if inspect.isclass(target)] if inspect.isclass(target) else []
        for name in [target.__module__, *(kind.__module__ for kind in kinds)]:
            if name == "__main__":
                found[f"__main__:{target.__qualname__}"] = _of_main(target)
            elif not _is_foreign(name):
                _collect(sys.modules[name], found)
    return [found[name] for name in sorted(found)]


def digest_of(code: list[dict[str, str]]) -> list[list[str]]:
    """Return what counts in a job's key: names and digests, not places."""
    return [[entry["module"], entry["digest"]] for entry in code]


def import_own(code: list[dict[str, str]]) -> None:
    """Import the user's modules in this process, from the files that they had where the study was started.

    Raises
    ------
    ConfigError
        When a module is missing here, or its source is another.
    """
    for entry in code:
        name, path, digest = entry["module"], Path(entry["file"]), entry["digest"]
        if name == "__main__":
            if "__main__" not in sys.modules or not _has(sys.modules["__main__"], entry["name"]):
                raise ConfigError(
                    f"{entry['name']} is defined in a notebook or in the running script, where no other process finds "
                    "it: write it to a file such as mine.py (%%writefile in a notebook) and give 'mine:"
                    f"{entry['name']}'"
                )
            continue
        if entry["root"] not in sys.path:
            sys.path.append(entry["root"])
        if name in sys.modules and _loaded.get(name) != digest and _file_of(sys.modules[name]) is not None:
            _refresh(sys.modules[name])
        elif name not in sys.modules:
            try:
                importlib.import_module(name)
            except ImportError:
                _from_file(name, path)
        here = _file_of(sys.modules[name])
        if here is None or file_digest(here) != digest:
            raise ConfigError(
                f"module {name!r} of the retriever is another one here ({here}) than where the study was started "
                f"({path}): its source must be the same for every worker; run the study again"
            )
        _loaded[name] = digest


def _collect(module: ModuleType, found: dict[str, dict[str, str]]) -> None:
    """Add a module and those that it uses from the same root."""
    path = _file_of(module)
    if path is None or module.__name__ in found:
        return
    _refresh(module)
    root = path.parent
    for _ in range(module.__name__.count(".") + (path.name == "__init__.py")):
        root = root.parent
    digest = file_digest(path)
    _loaded[module.__name__] = digest
    found[module.__name__] = {
        "module": module.__name__,
        "file": str(path.resolve()),
        "digest": digest,
        "root": str(root.resolve()),
    }
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        used = sys.modules.get(name) if isinstance(name, str) else None
        if used is None or used.__name__ == "__main__":
            continue
        file = _file_of(used)
        installed = {"site-packages", "dist-packages"} & set(root.parts)
        if installed and used.__name__.partition(".")[0] != module.__name__.partition(".")[0]:
            continue
        if file is not None and root in file.parents and not _is_foreign(used.__name__):
            _collect(used, found)


def _of_main(target: Any) -> dict[str, str]:
    try:
        source = inspect.getsource(target)
    except (OSError, TypeError) as error:
        raise ConfigError(
            f"the source of {target.__qualname__} cannot be read ({error}), so a change in it would not be seen: write "
            "it to a file such as mine.py"
        ) from None
    digest = hashlib.sha256(source.encode()).hexdigest()
    return {"module": "__main__", "name": target.__qualname__, "file": "", "root": "", "digest": digest}


def _refresh(module: ModuleType) -> None:
    """Import a module anew when its file says something else than what this process runs."""
    path = _file_of(module)
    if path is None or not _is_stale(module, path):
        return
    _LOG.warning("%s changed after it was imported: importing it anew from %s", module.__name__, path)
    importlib.invalidate_caches()
    importlib.reload(module)


def _is_stale(module: ModuleType, path: Path) -> bool:
    """Tell whether functions of a module are others than those its file would define."""
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except (OSError, SyntaxError, ValueError):
        return False
    defined = _codes(code)
    for value in list(vars(module).values()):
        members = vars(value).values() if inspect.isclass(value) and value.__module__ == module.__name__ else [value]
        for member in members:
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if not isinstance(function, FunctionType) or function.__module__ != module.__name__:
                continue
            ours = function.__code__
            if ours.co_filename == str(path) or Path(ours.co_filename).name == path.name:
                there = defined.get(ours.co_qualname)
                if there is None or not _same_code(ours, there):
                    return True
    return file_digest(path) != _loaded.get(module.__name__, file_digest(path))


def _codes(code: CodeType) -> dict[str, CodeType]:
    found = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found[constant.co_qualname] = constant
            found |= _codes(constant)
    return found


def _same_code(one: CodeType, other: CodeType) -> bool:
    """Compare what is computed, not where it stands."""
    if (one.co_code, one.co_names, one.co_varnames) != (other.co_code, other.co_names, other.co_varnames):
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    pairs = zip(one.co_consts, other.co_consts, strict=True)
    return all(_same_code(a, b) if isinstance(a, CodeType) and isinstance(b, CodeType) else a == b for a, b in pairs)


def _from_file(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path) if path.exists() else None
    if spec is None or spec.loader is None:
        raise ConfigError(f"module {name!r} of the retriever is neither importable here nor at {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file and file.endswith(".py") and Path(file).exists() else None


def _is_foreign(name: str) -> bool:
    """Tell whether a module is ragscale's own, of the standard library, or compiled."""
    top = name.partition(".")[0]
    return top in {"ragscale", "builtins"} or top in sys.stdlib_module_names or top in _COMMON


_COMMON = frozenset({"numpy", "scipy", "pandas", "torch", "transformers", "faiss", "bm25s", "numba", "sklearn"})


def _has(module: ModuleType, name: str) -> bool:
    target: Any = module
    for part in name.split("."):
        target = getattr(target, part, None)
    return target is not None
