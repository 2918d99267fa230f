"""A pool of worker processes that needs no ``__main__`` guard and leaves no orphan when its parent is killed.

A worker is a fresh interpreter that reads pickled calls from its standard input and ends when that closes.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ragscale.errors import RagscaleError

T = TypeVar("T")


class WorkerPool:
    """Run module-level functions in ``n_workers`` processes; with one worker, in this process."""

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._local = threading.local()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(n_workers) if n_workers > 1 else None

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Yield ``function(*call)`` in the order of the calls, at most two calls per worker ahead of the consumer."""
        if self._threads is None:
            for call in calls:
                yield function(*call)
            return
        pending: deque[Future[T]] = deque()
        try:
            for call in calls:
                pending.append(self._threads.submit(self._call, function, call))
                if len(pending) >= 2 * self.n_workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _call(self, function: Callable[..., T], call: tuple[Any, ...]) -> T:
        if not hasattr(self._local, "process"):
            self._local.process = self._start()
        process: subprocess.Popen[bytes] = self._local.process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((function, call), process.stdin)
            process.stdin.flush()
            ok, value = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise RagscaleError(
                f"a worker process died (exit code {process.poll()}), perhaps for lack of memory: "
                f"run again, it continues where it stopped; fewer n_workers need less memory"
            ) from error
        if not ok:
            raise value
        return value

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        process = subprocess.Popen(
            [sys.executable, "-c", "from ragscale.splitting._workers import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._processes.append(process)
        return process

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._threads is not None:
            if exception[0] is not None:
                for process in self._processes:
                    process.kill()
            self._threads.shutdown(cancel_futures=True)
            for process in self._processes:
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
                process.wait()


def serve() -> None:
    """Answer calls until standard input closes; what the functions print goes to standard error.

    Standard input is listened to all the while: it closes when the parent dies, however it dies, and then this process
    ends at once, in the middle of its work, so that a run that is started again meets nobody.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(calls,), daemon=True).start()
    while True:
        function, call = calls.get()
        try:
            answer: tuple[bool, Any] = True, function(*call)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again in the parent
            answer = False, error
        pickle.dump(answer, answers)
        answers.flush()


def _listen(calls: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            calls.put(pickle.load(sys.stdin.buffer))
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)
        except Exception as error:  # noqa: BLE001 - a function that cannot be imported here: the parent is told
            calls.put((_raise, (error,)))


def _raise(error: Exception) -> None:
    raise error
