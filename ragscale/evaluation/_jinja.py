"""Templates of somebody else's task file: rendered in a sandbox, with limits on time and memory.

A sandbox keeps a template from touching the machine, not from looping for ever or asking for a text of a terabyte, so
the templates run in a process that is stopped when it takes too long.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragscale._extras import require
from ragscale.errors import TaskError

SECONDS, SECONDS_PER_RECORD = 10.0, 0.01
BYTES = 2 << 30
LONGEST = 1_000_000
_MARKS = ("{{", "{%", "{#")


def render(templates: Mapping[str, str], docs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return what each template gives for each record; ``{"error": what}`` for a record that one of them fails on.

    A template that is the name of a field is not rendered: see `value_of`.

    Raises
    ------
    TaskError
        When a template takes too long or too much memory, naming the record.
    """
    live = {name: text for name, text in templates.items() if any(mark in text for mark in _MARKS)}
    if not live:
        return [dict(templates) for _ in docs]
    require("jinja2", "lm-eval")
    done, stopped = _run(live, docs)
    if len(done) < len(docs):
        raise TaskError(
            f"record {len(done)}: its templates {', '.join(live)} {stopped}: they loop, or build a huge text. Give "
            "plain field names, or run the task with RetrievalLM"
        )
    return [{**templates, **answer} for answer in done]


def _run(templates: Mapping[str, str], docs: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, str]], str]:
    """Return the answers of the records that were finished, and what stopped the others."""
    seconds = SECONDS + SECONDS_PER_RECORD * len(docs)
    task = {
        "templates": dict(templates),
        "docs": [dict(doc) for doc in docs],
        "seconds": int(seconds),
        "bytes": BYTES,
        "longest": LONGEST,
    }
    command = [sys.executable, "-I", str(Path(__file__).with_name("_jinja_process.py"))]
    text = json.dumps(task, default=_plain)
    try:
        ended = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds, check=False)
        output, stopped = ended.stdout, f"ended the process that rendered them (exit {ended.returncode})"
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        stopped = f"took more than {seconds:.0f} s"
    whole = output[: output.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], stopped


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value of a data set: lists of arrays, the text of dates."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
