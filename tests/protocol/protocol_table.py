"""The protocol of results as a table, object by method; run this file to write it into the docs."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import ragscale
from ragscale.results import Result

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "protocol.md"
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"
METHODS = ("repr", "summary", "_repr_html_", "to_frame", "to_latex", "to_json", "save", "plot")


def public_names() -> dict[str, object]:
    """Return everything that a public package of the library offers, by its dotted name."""
    found = {}
    for module in pkgutil.iter_modules(ragscale.__path__):
        if not module.name.startswith("_"):
            package = importlib.import_module(f"ragscale.{module.name}")
            names = getattr(package, "__all__", None) or [
                name for name, value in vars(package).items() if getattr(value, "__module__", "") == package.__name__
            ]
            found |= {f"{module.name}.{name}": getattr(package, name) for name in names if not name.startswith("_")}
    return found


def results() -> dict[str, type[Result]]:
    """Return every public result by its dotted name, that of its own package."""
    return {
        name: value
        for name, value in public_names().items()
        if inspect.isclass(value) and issubclass(value, Result) and value is not Result
        if value.__module__.startswith(f"ragscale.{name.split('.')[0]}.")
    }


def has(kind: type[Result], method: str) -> bool:
    """Say whether a kind of result has a method."""
    if method == "plot":
        return bool(kind._picture) and "plot" not in kind._absent
    return method not in kind._absent and hasattr(kind, "__repr__" if method == "repr" else method)


def rows() -> str:
    """Return the table, and below it the reasons for what is deliberately absent."""
    head = ("result", *(f"`{name}`" for name in METHODS))
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    reasons = []
    for name, kind in sorted(results().items()):
        cells = ["yes" if has(kind, method) else "" for method in METHODS]
        lines.append(f"| {{class}}`~ragscale.{name}` | " + " | ".join(cells) + " |")
        reasons += [f"- `{kind.__name__}.{method}`: {why}." for method, why in sorted(kind._absent.items())]
    return "\n".join([*lines, "", "What is deliberately absent:", "", *reasons])


def page(text: str) -> str:
    """Return the page with the table put in."""
    before, after = text.split(BEGIN, maxsplit=1)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{rows()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
