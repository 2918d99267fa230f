"""Damage every kind of file that the library writes or reads, use it, and count what happens.

    python tests/fuzz/harness.py --inputs 1000 --kills 20 --out benchmarks/results/files.json

An input counts as *refused* (a RagscaleError), *the same* (the damage made no difference), or as one of the faults:
*raw* (an exception that is not the library's), *silent* (another answer without a word, where the file carries
digests) and *slow* (no answer within the time limit).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import kills
from artefacts import ARTEFACTS, Artefact
from mangling import mangle_file, seed_of

from ragscale.errors import RagscaleError

SECONDS = 30
FAULTS = ("raw", "silent", "slow")


class _Slow(BaseException):
    pass


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: Any) -> None:
        raise _Slow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(artefact: Artefact, folder: Path, want: Any, on_purpose: bool) -> tuple[str, str]:
    """Use a damaged artefact; returns what happened, and more of it where that is a fault."""
    try:
        with time_limit(SECONDS):
            found = artefact.use(folder)
    except RagscaleError as error:
        return "refused", str(error)
    except _Slow:
        return "slow", f"no answer in {SECONDS} s"
    except Exception as error:  # noqa: BLE001 - that it is no RagscaleError is the finding
        return "raw", f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-4)}"
    if found == want:
        return "same", ""
    if artefact.certain and not on_purpose:
        return "silent", "another answer than before"
    return "different", ""


def fuzz(artefact: Artefact, folder: Path, n: int, seed: int = 0) -> tuple[Counter[str], list[dict[str, str]]]:
    """Damage one file of an artefact at a time, ``n`` times; returns the counts and the faults."""
    whole, work = folder / "whole", folder / "work"
    whole.mkdir(parents=True)
    counts: Counter[str] = Counter()
    faults: list[dict[str, str]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        artefact.make(whole)
        shutil.copytree(whole, work)
        want = artefact.use(work)
        files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
        for i in range(n):
            draw = seed_of(artefact.name, seed, i)
            shutil.rmtree(work)
            shutil.copytree(whole, work)
            name = draw.choice(files)
            how, on_purpose = mangle_file(work / name, draw)
            what, detail = outcome(artefact, work, want, on_purpose)
            counts[what] += 1
            if what in FAULTS:
                faults.append({"file": str(name), "how": how, "input": str(i), "what": what, "detail": detail})
    return counts, faults


def run(n: int, n_kills: int, seed: int) -> dict[str, Any]:
    """Do all of it and return the table."""
    rows, faults = [], []
    with tempfile.TemporaryDirectory(prefix="ragscale-fuzz-") as place:
        for artefact in ARTEFACTS:
            begin = time.monotonic()
            counts, found = fuzz(artefact, Path(place) / artefact.name.replace(" ", "-"), n, seed)
            faults += [{"artefact": artefact.name, **fault} for fault in found]
            rows.append({"artefact": artefact.name, "inputs": n, **counts, "seconds": time.monotonic() - begin})
            print(json.dumps(rows[-1]), flush=True)  # noqa: T201
        for name, kill in kills.KILLS.items():
            (Path(place) / name).mkdir()
            rows.append({"artefact": name, **kill(Path(place) / name, n_kills, seed)})
            print(json.dumps(rows[-1]), flush=True)  # noqa: T201
    return {"rows": rows, "faults": faults}


def as_markdown(result: dict[str, Any]) -> str:
    columns = ["inputs", "refused", "same", "different", *FAULTS, "kills", "lost"]
    lines = ["| artefact | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {row['artefact']} | " + " | ".join(str(row.get(column, "")) for column in columns) + " |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=300, help="damaged files of each kind")
    parser.add_argument("--kills", type=int, default=20, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="where the table goes, .json; a .md is written beside")
    arguments = parser.parse_args()
    result = run(arguments.inputs, arguments.kills, arguments.seed)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(as_markdown(result))
    for fault in result["faults"]:
        print(json.dumps(fault, indent=1))  # noqa: T201
    lost = sum(row.get("lost", 0) for row in result["rows"])
    sys.exit(1 if result["faults"] or lost else 0)


if __name__ == "__main__":
    main()
