"""Jobs keyed by what they compute, run once, in any process of any executor.

A job's folder is named by the digest of its inputs and of the jobs it builds on. ``done.json`` is written last and
by rename: a folder that has it is never computed again, one that has not is entered again, and the job's own resume
goes on from there. So a run that was killed anywhere continues when it is started again.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ragscale._files import read_json, value_digest, write_json
from ragscale.errors import ConfigError

_SCHEMA = "ragscale-job"
_VERSION = 1
_POLL_SECONDS = 0.05


class Future(Protocol):
    """What `run_jobs` asks of a future: concurrent.futures, submitit and Dask all give it."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...


class Executor(Protocol):
    """Anything with ``submit(function, *arguments)``."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a job wants of the machine that runs it."""

    gpus: int = 0
    memory_gib: float = 2.0
    hours: float = 1.0


JobFunction = Callable[[Path, dict[str, Any], dict[str, Path]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One unit of work.

    Parameters
    ----------
    stage, label : str
        What kind of work, and which piece of it, for people.
    function : callable
        A function of a module, ``function(folder, inputs, folders)``: it writes its outputs into ``folder`` and
        reads those of the jobs it builds on from ``folders[name]``.
    inputs : dict
        JSON-able; together with ``after`` it determines the outputs.
    paths : dict
        Where the files lie that ``inputs`` names by their digests: handed to the function like the inputs, and no
        part of the key, so that a study can be moved with its files.
    after : dict
        Name -> job that must be done before.
    needs : Needs
        Resources, for executors that ask; they do not change the outputs.
    """

    stage: str
    label: str
    function: JobFunction
    inputs: dict[str, Any]
    paths: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Job] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)

    @property
    def key(self) -> str:
        """Name of the job's folder: the stage and the digest of everything that determines the outputs."""
        parents = {name: job.key for name, job in self.after.items()}
        return f"{self.stage}-{value_digest([self.stage, self.inputs, parents])[:16]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """Where a job stands: ``"done"``, ``"failed"``, ``"blocked"`` (a job before it failed) or ``"waiting"``."""

    job: Job
    state: str
    seconds: float = float("nan")
    error: str = ""


def folder_of(root: Path, job: Job) -> Path:
    """Return the folder that holds the outputs of a job."""
    return root / "stages" / job.key


def state_of(root: Path, job: Job) -> JobState:
    """Read from disk where a job stands."""
    folder = folder_of(root, job)
    if (folder / "done.json").exists():
        record = read_json(folder / "done.json", schema=_SCHEMA, version=_VERSION)
        return JobState(job=job, state="done", seconds=record["seconds"])
    if (folder / "failed.json").exists():
        record = read_json(folder / "failed.json", schema=_SCHEMA, version=_VERSION)
        return JobState(job=job, state="failed", seconds=record["seconds"], error=record["error"])
    if any(state_of(root, parent).state in {"failed", "blocked"} for parent in job.after.values()):
        return JobState(job=job, state="blocked")
    return JobState(job=job, state="waiting")


def do_job(root: str, key: str, function: JobFunction, inputs: dict[str, Any], parents: dict[str, str]) -> bool:
    """Do one job in this process; return whether it is done. A failure is written down with its traceback.

    The arguments are plain data, so that every executor can carry them to another machine.
    """
    folder = Path(root) / "stages" / key
    folder.mkdir(parents=True, exist_ok=True)
    with _only_worker(folder):
        if (folder / "done.json").exists():
            return True
        (folder / "failed.json").unlink(missing_ok=True)
        started = time.perf_counter()
        try:
            function(folder, inputs, {name: Path(root) / "stages" / parent for name, parent in parents.items()})
        except Exception:  # noqa: BLE001 - whatever failed is written down and reported; the other jobs go on
            _record(folder / "failed.json", key, inputs, started, error=traceback.format_exc())
            return False
        _record(folder / "done.json", key, inputs, started, error="")
        return True


@contextmanager
def _only_worker(folder: Path) -> Iterator[None]:
    """Hold a job's lock; wait for a worker that outlived its killed run, whose work is then taken over."""
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _record(path: Path, key: str, inputs: dict[str, Any], started: float, *, error: str) -> None:
    record = {"key": key, "inputs": inputs, "seconds": time.perf_counter() - started, "error": error}
    write_json(path, record, schema=_SCHEMA, version=_VERSION)


def run_jobs(
    root: Path,
    jobs: Iterable[Job],
    executor: Executor | Callable[[Needs], Executor] | None = None,
    *,
    on_change: Callable[[list[JobState]], None] | None = None,
) -> list[JobState]:
    """Do every job whose folder is not done, each as soon as the jobs before it are.

    Parameters
    ----------
    root : Path
        The study's directory, visible to every worker.
    jobs : iterable of Job
        With all the jobs they build on.
    executor : object with ``submit``, or a function from `Needs` to one, or None
        None runs in this process. A function lets GPU jobs and CPU jobs go to different queues.
    on_change : callable
        Called with all states whenever a job ends.

    Returns
    -------
    list of JobState
        In the order given. A failed job does not stop the others; those that build on it are ``"blocked"``.
    """
    # a key is the digest of everything before it: not to be asked for in a loop
    by_key = {job.key: job for job in jobs}
    parents = {key: {name: parent.key for name, parent in job.after.items()} for key, job in by_key.items()}
    states = {key: state_of(root, job).state for key, job in by_key.items()}
    states = {key: "done" if state == "done" else "waiting" for key, state in states.items()}  # failed ones: again
    running: dict[str, Future] = {}
    choose = executor if callable(executor) and not hasattr(executor, "submit") else lambda needs: executor

    def changed() -> None:
        if on_change is not None:
            on_change([state_of(root, job) for job in by_key.values()])

    with _only_run(root):
        changed()
        while True:
            for key, job in by_key.items():
                if states[key] != "waiting":
                    continue
                before = [states[parent] for parent in parents[key].values()]
                if any(state in {"failed", "blocked"} for state in before):
                    states[key] = "blocked"
                elif all(state == "done" for state in before):
                    arguments = (str(root), key, job.function, {**job.inputs, **job.paths}, parents[key])
                    chosen = choose(job.needs)
                    if chosen is None:
                        states[key] = "done" if do_job(*arguments) else "failed"
                        changed()
                    else:
                        states[key] = "running"
                        running[key] = _submitted(chosen, arguments)
            for key in [key for key, future in running.items() if future.done()]:
                states[key] = "done" if _succeeded(root, key, running.pop(key)) else "failed"
                changed()
            if not running and "waiting" not in states.values():
                return [state_of(root, job) for job in by_key.values()]
            if running:
                time.sleep(_POLL_SECONDS)


def _submitted(executor: Any, arguments: tuple[Any, ...]) -> Future:
    """Submit a job; an executor that refuses, like a pool that lost a worker, fails its jobs, not the study."""
    try:
        return executor.submit(do_job, *arguments)
    except Exception as error:  # noqa: BLE001
        refused: concurrent.futures.Future[Any] = concurrent.futures.Future()
        refused.set_exception(error)
        return refused


def _succeeded(root: Path, key: str, future: Future) -> bool:
    """Take a future's result; a worker that died takes its exception with it, which is written down here."""
    try:
        return bool(future.result())
    except Exception:  # noqa: BLE001 - a lost worker fails its job, not the study
        folder = root / "stages" / key
        if (folder / "done.json").exists():
            return True
        _record(folder / "failed.json", key, {}, time.perf_counter(), error=traceback.format_exc())
        return False


@contextmanager
def _only_run(root: Path) -> Iterator[None]:
    """Hold the study's lock; the system releases it when the process ends, however it ends."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / ".lock", "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, workers forked meanwhile do not share it
        except BlockingIOError as error:
            raise ConfigError(f"another run of the study in {root} is going on: wait for it, or stop it") from error
        yield


def forget(root: Path, jobs: Iterable[Job]) -> None:
    """Remove the outputs of jobs, so that the next run computes them again."""
    for job in jobs:
        shutil.rmtree(folder_of(root, job), ignore_errors=True)
