"""Renders somebody else's templates in a process of its own, which its parent limits; see `_jinja`.

Run by path, without ragscale: one JSON object on standard input, one line of JSON a record on standard output.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any


def limit(seconds: int, n_bytes: int) -> None:
    """Limit this process where the system can; the parent's clock holds everywhere."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    for name, value in (("RLIMIT_CPU", seconds), ("RLIMIT_AS", n_bytes), ("RLIMIT_CORE", 0)):
        try:
            _, hard = resource.getrlimit(getattr(resource, name))
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(getattr(resource, name), (most, hard))
        except (AttributeError, ValueError, OSError):
            continue


def replace(text: str, pattern: str, repl: str, count: int = 0) -> str:
    """The one filter that lm-eval adds to Jinja's own."""
    return re.sub(pattern, repl, text, count=count)


def main() -> None:
    """Render every template with every record."""
    task = json.load(sys.stdin)
    limit(task["seconds"], task["bytes"])
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment: Any = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = replace
    for doc in task["docs"]:
        answer: dict[str, Any] = {}
        for name, template in task["templates"].items():
            try:
                answer[name] = environment.from_string(template).render(**doc)
                if len(answer[name]) > task["longest"]:
                    answer = {"error": f"{name} gives {len(answer[name]):,} characters, at most {task['longest']:,}"}
                    break
            except Exception as error:  # noqa: BLE001 - a template fails in any way; its record is named by the parent
                answer = {"error": f"{type(error).__name__}: {error}"}
                break
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
