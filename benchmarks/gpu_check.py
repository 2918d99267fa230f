"""Everything that needs a GPU, checked and timed on one in six minutes: correctness first, then speed.

    python benchmarks/gpu_check.py                        # one H100/H200; writes results/gpu_check.json and .md
    python benchmarks/gpu_check.py --tiny --device cpu    # the same code at toy sizes, so that it cannot rot

Jobs (folder `gpu/`) run in processes of their own, so that a crash, a hang or memory that runs out costs one job.
They come in waves that fit the card's memory. In a wave all jobs build and compile at once, on the CPU's cores; once
each has said that it is ready (or has failed, or was too slow) they measure one after the other, alone on the card.
After every job the results are written, so that what is cut off keeps what was measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from gpu.jobs import Job, make_jobs  # noqa: E402
from gpu.tables import environment, markdown  # noqa: E402

PREPARE_SECONDS = 105.0


@dataclass
class Child:
    """A process with one or more jobs, and the files through which it talks."""

    jobs: list[Job]
    folder: Path
    process: Any = None
    seen: int = 0
    failure: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def start(self, options: argparse.Namespace) -> None:
        self.folder.mkdir(parents=True)
        command = [sys.executable, str(HERE / "gpu_check.py"), "--device", options.device, "--child", str(self.folder)]
        command += ["--jobs", *(job.name for job in self.jobs)] + (["--tiny"] if options.tiny else [])
        environment = {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1" if options.tiny else "2", **os.environ}
        environment.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        with open(self.folder / "log", "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def poll(self) -> str:
        """Read new rows; return "working", "ready" or "ended"."""
        lines = (self.folder / "rows").read_text().splitlines() if (self.folder / "rows").exists() else []
        self.rows += [json.loads(line) for line in lines[self.seen :]]
        self.seen = len(lines)
        if self.process.poll() is not None:
            return "ended"
        return "ready" if (self.folder / "ready").exists() else "working"

    def wait(self, wanted: set[str], until: float) -> str:
        while (state := self.poll()) not in wanted and time.monotonic() < until:
            time.sleep(0.05)
        return state

    def go(self) -> None:
        (self.folder / "go").touch()

    def stop(self, reason: str) -> None:
        """End the process if it still runs, and keep the last words of one that failed."""
        if self.poll() != "ended":
            self.process.kill()
            self.process.wait()
            self.failure = reason
            self.poll()
        elif self.process.returncode:
            last = [line for line in (self.folder / "log").read_text().splitlines() if line.strip()][-3:]
            self.failure = f"exit {self.process.returncode}: {' | '.join(last)}"[:600]
        done = {row["job"] for row in self.rows if row.get("done")}
        for job in self.jobs:
            if job.name not in done and not any(row["job"] == job.name and row.get("failed") for row in self.rows):
                self.rows.append({"job": job.name, "failed": self.failure or "it ended early"})


def waves(jobs: list[Job], room: float) -> list[list[Job]]:
    """Put jobs into waves, in their order, each job into the first wave that has room for its memory."""
    result: list[list[Job]] = []
    for job in jobs:
        for wave in result:
            if sum(other.gib for other in wave) + job.gib <= room:
                wave.append(job)
                break
        else:
            result.append([job])
    return result


def run(options: argparse.Namespace) -> int:
    jobs = make_jobs(tiny=options.tiny)
    if options.only:
        jobs = [job for job in jobs if any(part in job.name for part in options.only)]
    started = time.monotonic()
    deadline = started + options.budget
    results: dict[str, Any] = {
        "environment": environment(options.device),
        "tiny": options.tiny,
        "rows": [],
        "waves": [],
    }
    groups = [jobs] if options.tiny else waves(jobs, 0.85 * (results["environment"]["memory_gib"] or 16))

    def write() -> None:
        results["seconds"] = round(time.monotonic() - started, 1)
        out = Path(options.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        out.with_suffix(".md").write_text(markdown(results))

    write()
    with tempfile.TemporaryDirectory() as root:
        for number, wave in enumerate(groups):
            left = deadline - time.monotonic()
            if left < 20:
                results["rows"] += [{"job": job.name, "failed": "not reached: the time was up"} for job in wave]
                continue
            names = ["tiny" if options.tiny else job.group or job.name for job in wave]
            shared = [[job for job, of in zip(wave, names, strict=True) if of == name] for name in dict.fromkeys(names)]
            children = [Child(part, Path(root) / f"{number}-{i}") for i, part in enumerate(shared)]
            for child in children:
                child.start(options)
            began = time.monotonic()
            # who is not ready by then must not cost the others their turns
            prepared = deadline - 8 * len(children)
            if not options.tiny:
                prepared = min(prepared, began + PREPARE_SECONDS)
            for child in children:
                if child.wait({"ready", "ended"}, prepared) == "working":
                    child.stop("not ready in time")
            ready = time.monotonic()
            for child in children:
                child.go()
                limit = max(job.seconds for job in child.jobs) * len(child.jobs)
                child.wait({"ended"}, min(deadline, time.monotonic() + limit))
                child.stop("too slow")
                results["rows"] += child.rows
                write()
                for row in child.rows:
                    print(json.dumps(row))
            results["waves"].append(
                {
                    "jobs": [job.name for job in wave],
                    "prepare_seconds": round(ready - began, 1),
                    "measure_seconds": round(time.monotonic() - ready, 1),
                }
            )
    write()
    print(f"\n{options.budget - (deadline - time.monotonic()):.0f} s; written to {options.out}.json and .md")
    return int(any(row.get("failed") for row in results["rows"]))


def serve(options: argparse.Namespace) -> None:
    """Be a child: prepare every job, say so, wait for the word, measure."""
    folder = Path(options.child)
    wanted = {job.name: job for job in make_jobs(tiny=options.tiny) if job.name in options.jobs}

    def say(job: str, **row: Any) -> None:
        with open(folder / "rows", "a") as file:
            file.write(json.dumps({"job": job, **row}) + "\n")

    prepared: dict[str, Any] = {}
    for name in options.jobs:
        try:
            prepared[name] = wanted[name].prepare(options.device, options.tiny)
        except Exception as error:  # noqa: BLE001 (whatever it is becomes a row of the table)
            say(name, failed=_words(error))
    (folder / "ready").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    for name, measure in prepared.items():
        try:
            for row in measure():
                say(name, **row)
            say(name, done=True)
        except Exception as error:  # noqa: BLE001
            say(name, failed=_words(error))
            traceback.print_exc()


def _words(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {' '.join(str(error).split())[:400]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, one process")
    parser.add_argument("--budget", type=float, default=360, help="seconds in all")
    parser.add_argument("--only", nargs="*", default=[], help="jobs whose names contain one of these")
    parser.add_argument("--out", default=str(HERE / "results" / "gpu_check"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--jobs", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(options)
        return
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(run(options))


if __name__ == "__main__":
    main()
