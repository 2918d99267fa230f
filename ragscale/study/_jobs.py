"""Jobs keyed by what they compute: a folder for each, what counts in its name, and where it stands.

A job's folder is named by the digest of its inputs and of the jobs it builds on. ``done.json`` is written last and
by rename, with the digests of the job's outputs: a folder that has it is not computed again, one that has not is
entered again, and the job's own resume goes on from there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragscale._files import check_digest, file_digest, read_json, value_digest, write_json
from ragscale.errors import CheckpointError
from ragscale.study._device import here as device_here
from ragscale.study._locks import is_held, only_worker

_SCHEMA = "ragscale-job"
_VERSION = 1
_RECORDS = ("done.json", "failed.json", "started.json")
_LOG = logging.getLogger("ragscale")


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a job wants of the machine that runs it.

    Parameters
    ----------
    gpus : int
    memory_gib, disk_gib : float
    hours : float
        An upper estimate, for the time limit of a queue.
    """

    gpus: int = 0
    memory_gib: float = 2.0
    hours: float = 1.0
    disk_gib: float = 0.1


# (folder, inputs, folders of the jobs before) -> names of the outputs below the folder; None: all files in it
JobFunction = Callable[[Path, Any, dict[str, Path]], Iterable[str] | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One unit of work.

    Parameters
    ----------
    stage, label : str
        What kind of work, and which piece of it, for people.
    function : callable
        A function of a module: it writes its outputs into its folder and reads those of the jobs it builds on.
    inputs : object
        Plain data for the function. What ``inputs.counts()`` returns (all of it, for a dictionary) determines the
        outputs together with ``after``; the rest, such as where files lie, does not.
    after : dict
        Name -> job that it builds on.
    follows : tuple of Job
        Jobs that must be done first, and do not determine the outputs.
    lane : str
        Jobs of one lane use the same model: small ones may share a process.
    needs : Needs
        Resources, for executors that ask; they do not change the outputs.
    """

    stage: str
    label: str
    function: JobFunction
    inputs: Any
    after: Mapping[str, Job] = field(default_factory=dict)
    follows: tuple[Job, ...] = ()
    lane: str = ""
    needs: Needs = field(default_factory=Needs)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        parents = {name: job.key for name, job in self.after.items()}
        counted = self.inputs if isinstance(self.inputs, dict) else self.inputs.counts()
        digest = value_digest([self.stage, counted, parents])
        object.__setattr__(self, "key", f"{self.stage}-{digest[:16]}")

    @property
    def before(self) -> tuple[Job, ...]:
        """Every job that must be done first."""
        return (*self.after.values(), *self.follows)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """Where a job stands: ``"waiting", "running", "done", "failed"`` or ``"blocked"`` by one that failed."""

    job: Job
    state: str
    seconds: float = float("nan")
    error: str = ""


def folder_of(root: Path, job: Job) -> Path:
    """Return the folder that holds the outputs of a job."""
    return root / "stages" / job.key


def states_of(root: Path, jobs: Iterable[Job]) -> list[JobState]:
    """Read from disk where jobs stand, each once."""
    known: dict[str, JobState] = {}
    return [_state(root, job, known) for job in jobs]


def state_of(root: Path, job: Job) -> JobState:
    """Read from disk where one job stands."""
    return _state(root, job, {})


def _state(root: Path, job: Job, known: dict[str, JobState]) -> JobState:
    if job.key not in known:
        known[job.key] = _own_state(root, job)
        if known[job.key].state == "waiting":
            before = [_state(root, parent, known).state for parent in job.before]
            if {"failed", "blocked"} & set(before):
                known[job.key] = JobState(job=job, state="blocked")
    return known[job.key]


def _own_state(root: Path, job: Job) -> JobState:
    folder = folder_of(root, job)
    if not folder.exists():
        return JobState(job=job, state="waiting")
    for name, state in (("done.json", "done"), ("failed.json", "failed")):
        try:
            record = read_json(folder / name, schema=_SCHEMA, version=_VERSION)
        except FileNotFoundError:
            continue
        except CheckpointError as error:
            return JobState(job=job, state="failed", error=str(error))
        return JobState(
            job=job, state=state, seconds=float(record.get("seconds", "nan")), error=str(record.get("error", ""))
        )
    if (folder / "started.json").exists() and is_held(folder / ".lock"):
        record = read_json(folder / "started.json", schema=_SCHEMA, version=_VERSION)
        return JobState(job=job, state="running", seconds=time.time() - float(record.get("started", "nan")))
    return JobState(job=job, state="waiting")


def record_of(root: Path, job: Job) -> dict[str, Any]:
    """Return what a done job noted: its time, and the machine it ran on."""
    return read_json(folder_of(root, job) / "done.json", schema=_SCHEMA, version=_VERSION)


def do_job(root: str, key: str, function: JobFunction, inputs: Any, parents: dict[str, str]) -> bool:
    """Do one job in this process; return whether it is done. A failure is written down with its traceback.

    The arguments are plain data, so that every executor can carry them to another machine.
    """
    folder = Path(root) / "stages" / key
    folder.mkdir(parents=True, exist_ok=True)
    with only_worker(folder):
        if (folder / "done.json").exists():
            return True
        (folder / "failed.json").unlink(missing_ok=True)
        here = {"key": key, "host": socket.gethostname(), "process": os.getpid(), "started": time.time()}
        _write_started(folder / "started.json", here)
        started = time.perf_counter()
        try:
            folders = {name: Path(root) / "stages" / parent for name, parent in parents.items()}
            for path in folders.values():
                require_outputs(path)
            outputs = digests_of(folder, function(folder, inputs, folders))
        except Exception:  # noqa: BLE001 - whatever failed is written down and reported; the other jobs go on
            record_failure(folder, key, traceback.format_exc(), time.perf_counter() - started)
            return False
        seconds = time.perf_counter() - started
        counted = inputs if isinstance(inputs, dict) else inputs.counts()
        record = {"key": key, "inputs": counted, "seconds": seconds, "error": "", "outputs": outputs, **_place(here)}
        write_json(folder / "done.json", record, schema=_SCHEMA, version=_VERSION)
        (folder / "started.json").unlink(missing_ok=True)
        _LOG.info("done: %s in %.1f s", key, seconds)
        return True


def do_jobs(root: str, several: list[tuple[Any, ...]]) -> list[bool]:
    """Do several jobs in this process, one after another; one whose parent is not done is left."""
    outcome = []
    for key, function, inputs, parents, before in several:
        ready = all((Path(root) / "stages" / name / "done.json").exists() for name in before)
        outcome.append(ready and do_job(root, key, function, inputs, parents))
    return outcome


def _place(here: dict[str, Any]) -> dict[str, Any]:
    return {"host": here["host"], "started": here["started"], "device": device_here()}


def _write_started(path: Path, record: dict[str, Any]) -> None:
    """Say who works here; only a display needs it, so it is not synced."""
    path.write_text(json.dumps({"schema": _SCHEMA, "schema_version": _VERSION, **record}))


def record_failure(folder: Path, key: str, error: str, seconds: float) -> None:
    """Write down why a job failed."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"key": key, "seconds": seconds, "error": error}
    write_json(folder / "failed.json", record, schema=_SCHEMA, version=_VERSION)
    _LOG.warning("failed: %s: %s", key, error.strip().splitlines()[-1] if error.strip() else "")


# Outputs ---------------------------------------------------------------------------------------------------------


def digests_of(folder: Path, names: Iterable[str] | None) -> dict[str, str]:
    """Return the SHA-256 of a job's outputs by name."""
    if names is None:
        files = (path for path in folder.rglob("*") if path.is_file())
        found = (path.relative_to(folder) for path in files)
        names = [str(p) for p in found if p.name not in _RECORDS and not any(part[0] == "." for part in p.parts)]
    return {name: file_digest(folder / name) for name in sorted(names)}


def damage(folder: Path) -> list[str]:
    """Return what is wrong with the outputs of a done job: files that are missing or changed."""
    try:
        record = read_json(folder / "done.json", schema=_SCHEMA, version=_VERSION)
    except CheckpointError as error:
        return [str(error)]
    outputs = record.get("outputs")
    if not isinstance(outputs, dict):
        return [f"{folder / 'done.json'} holds no digests of outputs"]
    problems = []
    for name, digest in outputs.items():
        try:
            check_digest(folder / name, str(digest))
        except CheckpointError as error:
            problems.append(str(error))
    return problems


def require_outputs(folder: Path) -> None:
    """Refuse outputs that are not what the job wrote.

    Raises
    ------
    CheckpointError
        Naming the files.
    """
    problems = damage(folder)
    if problems:
        raise CheckpointError(f"{'; '.join(problems)}: run the study again, which computes that anew")


def forget(root: Path, jobs: Iterable[Job]) -> None:
    """Remove the outputs of jobs, so that the next run computes them again."""
    for job in jobs:
        shutil.rmtree(folder_of(root, job), ignore_errors=True)
