"""Run jobs on any executor, each as soon as the jobs before it are done: driven by what ends, nothing is searched."""

from __future__ import annotations

import concurrent.futures
import heapq
import queue
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ragscale.study._jobs import Job, JobState, Needs, do_job, do_jobs, folder_of, record_failure, states_of
from ragscale.study._locks import only_run

_POLL_SECONDS = 0.05
_SMALL_HOURS = 0.5  # jobs of one lane share a process up to this


class Future(Protocol):
    """What `run_jobs` asks of a future: concurrent.futures, submitit and Dask all give it."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...


class Executor(Protocol):
    """Anything with ``submit(function, *arguments)``."""

    def submit(self, function: Callable[..., Any], /, *arguments: object) -> Future: ...


class Schedule:
    """Which jobs may start: bookkeeping alone, at a cost for each job and each link between two.

    Parameters
    ----------
    jobs : sequence of Job
        With all the jobs they build on; ready jobs start in this order.
    done : collection of str
        Keys of those that need not run.
    """

    def __init__(self, jobs: Sequence[Job], done: Iterable[str] = ()) -> None:
        self.jobs = {job.key: job for job in jobs}
        self.state = dict.fromkeys(self.jobs, "waiting")
        self._order = {key: place for place, key in enumerate(self.jobs)}
        self._open = {key: {one.key for one in job.before} for key, job in self.jobs.items()}
        self._after: dict[str, list[str]] = {key: [] for key in self.jobs}
        for key, before in self._open.items():
            for parent in before:
                self._after[parent].append(key)
        self._ready: list[tuple[int, str]] = []
        self._lanes: dict[str, list[str]] = {}
        self.n_left = len(self.jobs)
        for key, before in self._open.items():
            if not before:
                self._push(key)
        for key in done:
            self._leave_done(key)

    def _push(self, key: str) -> None:
        heapq.heappush(self._ready, (self._order[key], key))
        if self.jobs[key].lane:
            self._lanes.setdefault(self.jobs[key].lane, []).append(key)

    def _leave_done(self, key: str) -> None:
        if self.state[key] == "waiting":
            self.state[key] = "running"
            self.finished(key, True)

    def take(self) -> str | None:
        """Return the first job that is ready, now running; None where there is none."""
        while self._ready:
            _, key = heapq.heappop(self._ready)
            if self.state[key] == "waiting" and not self._open[key]:
                self.state[key] = "running"
                return key
        return None

    def take_lane(self, key: str) -> list[str]:
        """Return a job that was taken, and small ones of its lane that can follow it in the same process."""
        group, job = [key], self.jobs[key]
        hours = job.needs.hours
        if not job.lane or hours > _SMALL_HOURS:
            return group
        found = [*self._lanes.pop(job.lane, ()), *self._after[key]]
        while found:
            other = found.pop(0)
            candidate = self.jobs[other]
            fits = candidate.lane == job.lane and candidate.needs.gpus <= job.needs.gpus
            fits = fits and self.state[other] == "waiting" and self._open[other] <= set(group)
            if fits and hours + candidate.needs.hours <= _SMALL_HOURS:
                self.state[other] = "running"
                group.append(other)
                hours += candidate.needs.hours
                found += self._after[other]
            elif fits and not self._open[other]:
                self._lanes.setdefault(job.lane, []).append(other)
        return group

    def finished(self, key: str, ok: bool) -> None:
        """Note how a running job ended: what waited for it becomes ready, or is blocked with all that follows."""
        self.state[key] = "done" if ok else "failed"
        self.n_left -= 1
        if ok:
            for child in self._after[key]:
                self._open[child].discard(key)
                if not self._open[child] and self.state[child] == "waiting":
                    self._push(child)
            return
        stack = list(self._after[key])
        while stack:
            child = stack.pop()
            if self.state[child] == "waiting":
                self.state[child] = "blocked"
                self.n_left -= 1
                stack += self._after[child]

    def give_back(self, key: str) -> None:
        """Return a running job that was never started."""
        self.state[key] = "waiting"
        if not self._open[key]:
            self._push(key)

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        found: dict[str, int] = {"done": 0, "running": 0, "waiting": 0, "failed": 0, "blocked": 0}
        for state in self.state.values():
            found[state] += 1
        return found


def run_jobs(
    root: Path,
    jobs: Iterable[Job],
    executor: Executor | Callable[[Needs], Executor | None] | None = None,
    *,
    on_change: Callable[[Schedule], None] | None = None,
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
        Called with the schedule whenever a job ends.

    Returns
    -------
    list of JobState
        In the order given. A failed job does not stop the others; those that build on it are ``"blocked"``.
    """
    listed = list({job.key: job for job in jobs}.values())
    with only_run(root):
        done = [state.job.key for state in states_of(root, listed) if state.state == "done"]
        schedule = Schedule(listed, done)
        _Run(root, schedule, executor, on_change or (lambda schedule: None)).all()
        return [
            JobState(job=state.job, state="blocked") if schedule.state[state.job.key] == "blocked" else state
            for state in states_of(root, listed)
        ]


class _Run:
    """One call of `run_jobs`: what was submitted, and how it is heard of."""

    def __init__(self, root: Path, schedule: Schedule, executor: Any, on_change: Callable[[Schedule], None]) -> None:
        self.root, self.schedule, self.on_change = root, schedule, on_change
        self.choose = _chooser(executor)
        self.heard: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.running: dict[int, tuple[list[str], Future]] = {}
        self.silent: set[int] = set()  # those whose futures do not call back
        self.n_submitted = 0

    def all(self) -> None:
        self.on_change(self.schedule)
        try:
            while self.schedule.n_left:
                self._start()
                if not self.running:
                    continue
                for number in self._wait():
                    self._end(number)
        except BaseException:
            for _, future in self.running.values():
                cancel = getattr(future, "cancel", None)
                if cancel is not None:
                    cancel()
            raise

    def _start(self) -> None:
        """Submit every job that is ready; one in this process alone, so that what it makes ready goes first."""
        while (key := self.schedule.take()) is not None:
            job = self.schedule.jobs[key]
            chosen = self.choose(job.needs)
            if chosen is None:
                self.schedule.finished(key, do_job(str(self.root), *self._arguments(key)))
                self.on_change(self.schedule)
                return
            group = self.schedule.take_lane(key) if _starts_a_process_each(chosen) else [key]
            self._submit(chosen, group)

    def _arguments(self, key: str) -> tuple[Any, ...]:
        job = self.schedule.jobs[key]
        return key, job.function, job.inputs, {name: parent.key for name, parent in job.after.items()}

    def _submit(self, executor: Any, group: list[str]) -> None:
        """Submit jobs together; an executor that refuses, like a pool that lost a worker, fails them, not the study."""
        number = self.n_submitted = self.n_submitted + 1
        try:
            if len(group) == 1:
                future = executor.submit(do_job, str(self.root), *self._arguments(group[0]))
            else:
                several = [
                    (*self._arguments(key), [one.key for one in self.schedule.jobs[key].before]) for key in group
                ]
                future = executor.submit(do_jobs, str(self.root), several)
        except Exception as error:  # noqa: BLE001
            future = concurrent.futures.Future()
            future.set_exception(error)
        self.running[number] = (group, future)
        if hasattr(future, "add_done_callback"):
            future.add_done_callback(lambda _: self.heard.put(number))
        else:
            self.silent.add(number)

    def _wait(self) -> list[int]:
        """Return the submissions that ended since; wait for one at least."""
        ended: list[int] = []
        while not ended:
            ended = [number for number in self.silent if self.running[number][1].done()]
            try:
                if not ended:
                    ended.append(self.heard.get(timeout=_POLL_SECONDS if self.silent else 5.0))
                while True:
                    ended.append(self.heard.get_nowait())
            except queue.Empty:
                pass
        self.silent.difference_update(ended)
        return ended

    def _end(self, number: int) -> None:
        group, future = self.running.pop(number)
        lost = ""
        try:
            future.result()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            lost = traceback.format_exc()
        folders = {key: folder_of(self.root, self.schedule.jobs[key]) for key in group}
        done = {key for key in group if (folders[key] / "done.json").exists()}
        failed = {key for key in group if key not in done and (folders[key] / "failed.json").exists()}
        left = [key for key in group if key not in done | failed]
        if not lost and len(group) > 1:
            for key in left:  # one before it in the group failed
                self.schedule.give_back(key)
        else:
            for key in left:
                record_failure(folders[key], key, lost or "the job ended without a word", 0.0)
            failed |= set(left)
        for key in group:
            if key in done | failed:
                self.schedule.finished(key, key in done)
        self.on_change(self.schedule)


def _chooser(executor: Any) -> Callable[[Needs], Any]:
    """Return the function from needs to an executor."""
    if hasattr(executor, "with_needs"):
        return executor.with_needs
    if callable(executor) and not hasattr(executor, "submit"):
        return executor
    return lambda needs: executor


def _starts_a_process_each(executor: Any) -> bool:
    """Tell whether a submission costs a new process, which imports everything anew: submitit's executors do."""
    return bool(getattr(executor, "fresh_process", hasattr(executor, "map_array")))
