"""Kill what writes, with SIGKILL at random moments, start it again at once, and look whether anything was lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = [f"{random.Random(i).getrandbits(24):x}" for i in range(3000)]

SPLIT = """
import sys
import ragscale as rs
from ragscale.splitting import _order, _units
_order.RUN_BYTES, _units.UNIT_BYTES = 60_000, 60_000
paths = [f"{sys.argv[1]}/c{i}.jsonl" for i in range(4)]
print("begin", flush=True)
print(rs.split_corpus(paths, sys.argv[2], tokenizer=f"{sys.argv[1]}/tokenizer", n_workers=3, progress=False).digest)
"""


def _tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"rejects.jsonl", ".ragscale.lock"}
    }


def kill_splits(folder: Path, n: int, seed: int = 0, n_documents: int = 4000) -> dict[str, Any]:
    """Kill the parent of three workers, and nobody else, as often as asked; the next run begins at once."""
    import ragscale as rs

    draw = random.Random(seed)
    for i in range(4):
        rows = [{"id": f"{i}-{j}", "text": " ".join(draw.choices(WORDS, k=60))} for j in range(n_documents // 4)]
        (folder / f"c{i}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rs.splitting.train_tokenizer(["low lower"] * 5, 300).save_pretrained(folder / "tokenizer")

    def start(out: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SPLIT, str(folder), str(folder / out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start("undisturbed") as process:
        assert process.stdout is not None
        process.stdout.readline()
        begin = time.monotonic()
        _, errors = process.communicate()
        took = time.monotonic() - begin
    assert process.returncode == 0, errors
    killed = lost = crashed = 0
    out = 0
    while killed < n:
        with start(f"killed{out}") as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.random() * took)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            _, errors = process.communicate()
        if process.returncode == -signal.SIGKILL:
            killed += 1
            continue
        crashed += process.returncode != 0
        lost += process.returncode == 0 and _tree(folder / f"killed{out}") != _tree(folder / "undisturbed")
        out += 1
    with start(f"killed{out}") as process:
        _, errors = process.communicate()
    crashed += process.returncode != 0
    lost += process.returncode == 0 and _tree(folder / f"killed{out}") != _tree(folder / "undisturbed")
    return {"kills": killed, "lost": lost + crashed, "last error": errors[-300:] if crashed else ""}


SAVE = """
import random, sys
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever
draw = random.Random(0)
words = "apple pear paris london river house tree green".split()
passages = [Passage(str(i), " ".join(draw.choices(words, k=12)), 12, str(i)) for i in range(300)]
retriever = BM25Retriever().index(passages)
while True:
    retriever.save(sys.argv[1] + "/index")
    print("saved", flush=True)
"""

APPEND = """
import sys
from ragscale.results import append
for i in range(100000):
    append({"N": [1e9] * 3, "D": [2e10 + 1e6 * i] * 3, "R": [0.0, 1e9, 2e9], "value": [3.0, 2.0, 1.0]}, sys.argv[1])
    print(i, flush=True)
"""


def kill_saves(folder: Path, n: int, seed: int = 0) -> dict[str, Any]:
    """Kill a process that saves over a good index again and again; load the index each time."""
    from ragscale.errors import RagscaleError
    from ragscale.retrieval import Retriever

    draw, lost = random.Random(seed), 0
    for _ in range(n):
        _kill([SAVE, str(folder)], 2, draw.random() * 0.15)
        try:
            lost += Retriever.load(folder / "index").n_passages != 300
        except RagscaleError:
            lost += 1
    return {"kills": n, "lost": lost}


def kill_appends(folder: Path, n: int, seed: int = 0) -> dict[str, Any]:
    """Kill a process that appends three rows at a time; no batch that was reported done may be missing or double."""
    from ragscale.results import read

    draw, lost = random.Random(seed), 0
    for i in range(n):
        path = folder / f"results{i}.{('jsonl', 'csv')[i % 2]}"
        done = int(_kill([APPEND, str(path)], 5, draw.random() * 0.05)[-1]) + 1
        lost += len(read(path)) not in (3 * done, 3 * done + 3)
    return {"kills": n, "lost": lost}


def _kill(command: list[str], after_lines: int, seconds: float) -> list[str]:
    with subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after_lines)]
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        return [*lines, *process.stdout.readlines()]


KILLS: dict[str, Callable[..., dict[str, Any]]] = {
    "split with 3 workers, parent killed": kill_splits,
    "index saved over": kill_saves,
    "rows appended": kill_appends,
}
