"""Run a study again and again, killed in every stage, then to its end: the process that test_study.py starts.

    python kill_often.py CONFIG DIRECTORY WORKERS

Files are written beside their place and renamed into it, so what a kill leaves on the disk is decided by the renames
that went before. Every run kills itself, and its workers, just before a chosen one: the same point on any machine.
Prints, for each run, the stage, how it ended, and the ``done.json`` that were there by then with their times.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from ragscale.study import Study, StudyConfig

FOLDERS = {
    "split": ("stages/split-",),
    "index": ("stages/index-",),
    "retrieve": ("stages/retrieve-",),
    "train": ("stages/train-", "runs/"),
    "evaluate": ("stages/evaluate-",),
}
RENAMES = (1, 3, 6, 1000)  # the last is more than any stage has, and stands for the one of done.json


def kill_before(directory: Path, stage: str, n_renames: int) -> None:
    """Kill the process group before the n-th rename in the folders of a stage, or before that of its done.json."""
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event != "os.rename":
            return
        target = Path(os.fsdecode(arguments[1]))
        if target.is_relative_to(directory) and str(target.relative_to(directory)).startswith(FOLDERS[stage]):
            seen += 1
            if seen == n_renames or target.name == "done.json":
                os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


def run(config: str, directory: Path, n_workers: int, stage: str | None, n_renames: int) -> int:
    """Run the study until a stage in a forked process with a group of its own; return how that ended."""
    process = os.fork()
    if process == 0:
        os.setsid()
        study = Study(StudyConfig.read(config), directory)
        if stage is not None:
            kill_before(directory, stage, n_renames)
        if n_workers:
            with ProcessPoolExecutor(n_workers, mp_context=get_context("fork")) as executor:
                study.run(executor, until=stage, progress=False)
        else:
            study.run(until=stage, progress=False)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(config: str, directory: str, n_workers: str) -> None:
    """Kill in every stage at every moment, and then finish."""
    root = Path(directory)
    runs = []
    for stage, n_renames in [*((stage, n) for stage in FOLDERS for n in RENAMES), (None, 0)]:
        ended = run(config, root, int(n_workers), stage, n_renames)
        done = {str(path): path.stat().st_mtime_ns for path in root.glob("stages/*/done.json")}
        runs.append({"stage": stage, "ended": ended, "done": done})
    sys.stdout.write(json.dumps(runs))


if __name__ == "__main__":
    for heavy in ("torch._dynamo", "transformers.models.olmo2.modeling_olmo2"):
        import_module(heavy)  # before the forks: once, not once for each run
    main(*sys.argv[1:])
