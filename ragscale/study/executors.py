"""Where the jobs of a study run: processes of this machine, Slurm, Dask, Ray.

Each function returns what `ragscale.study.Study.run` takes. Nothing starts before the first job, and `Study.run` leaves
nothing running that it started.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from ragscale._counts import as_count
from ragscale._extras import require
from ragscale.errors import ConfigError
from ragscale.study._jobs import Needs

__all__ = ["dask", "processes", "ray", "slurm"]


def processes(n: int | None = None, *, gpus: int = 0) -> Processes:
    """Return an executor of ``n`` processes on this machine.

    Parameters
    ----------
    n : int, optional
        By default one for each CPU that this process may use.
    gpus : int
        Give each process one of so many GPUs, in turn; 0 leaves them as they are.

    Examples
    --------
    >>> with processes(1) as executor:
    ...     executor.submit(max, 1, 2).result()
    2
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = available if n is None else as_count("n", n, least=1)
    return Processes(count, as_count("gpus", gpus, least=0))


class Processes:
    """A pool of processes that starts with the first job, and anew after one of them died.

    The running script is not imported in the processes, so it needs no ``if __name__ == "__main__"``.
    """

    def __init__(self, n: int, gpus: int) -> None:
        self.n, self.gpus = n, gpus
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], /, *arguments: object) -> concurrent.futures.Future[Any]:
        """Run ``function(*arguments)`` in one of the processes."""
        try:
            return self._submit(function, arguments)
        except concurrent.futures.BrokenExecutor:
            self.shutdown()
            return self._submit(function, arguments)

    def _submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> concurrent.futures.Future[Any]:
        context = multiprocessing.get_context("spawn")
        with _main_hidden():
            if self._pool is None:
                places = context.SimpleQueue() if self.gpus else None
                if places is not None:
                    for place in range(self.n):
                        places.put(place % self.gpus)
                self._pool = concurrent.futures.ProcessPoolExecutor(
                    self.n, mp_context=context, initializer=_begin, initargs=(places,)
                )
            return self._pool.submit(function, *arguments)

    def shutdown(self) -> None:
        """End the processes; the next job starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"processes({self.n}{f', gpus={self.gpus}' if self.gpus else ''})"


def _begin(places: Any) -> None:
    if places is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(places.get())


@contextlib.contextmanager
def _main_hidden() -> Generator[None]:
    """Keep processes that start now from importing the running script, which may have no guard against that."""
    main = sys.modules["__main__"]
    kept = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    try:
        vars(main).pop("__file__", None)
        main.__spec__ = None
        yield
    finally:
        vars(main).update(kept)


def slurm(
    folder: str | os.PathLike[str] = "slurm-logs",
    *,
    device: str | None = None,
    cluster: str | None = None,
    gpu_parameters: dict[str, Any] | None = None,
    **parameters: object,
) -> Slurm:
    """Return an executor that submits jobs to Slurm through submitit.

    A job asks for the time, memory and GPUs that its plan needs; small jobs of one model go together.

    Parameters
    ----------
    folder : path
        Where submitit keeps its files and logs; every node must see it.
    device : str, optional
        The GPU of the cluster, such as ``"H100"``: the time limits follow from it. ``"CPU-core"`` asks for no GPU.
    cluster : str, optional
        ``"local"`` runs the jobs as processes of this machine; by default Slurm if it is there.
    gpu_parameters : dict, optional
        Over ``parameters`` for jobs that ask for a GPU, such as ``{"slurm_partition": "gpu"}``.
    **parameters
        Of ``submitit.AutoExecutor.update_parameters``, such as ``slurm_partition="cpu"``, ``slurm_account="..."``;
        they win over what the plan asks for.
    """
    return Slurm(Path(folder), device, cluster, dict(gpu_parameters or {}), parameters)


class Slurm:
    """Submits each job with what it needs."""

    fresh_process = True  # small jobs share one, since each imports everything anew

    def __init__(
        self,
        folder: Path,
        device: str | None,
        cluster: str | None,
        gpu_parameters: dict[str, Any],
        parameters: dict[str, Any],
    ) -> None:
        self.folder, self.device, self.cluster = folder, device, cluster
        self.gpu_parameters, self.parameters = gpu_parameters, parameters
        self._local: list[Any] = []

    def with_needs(self, needs: Needs) -> _SlurmQueue:
        """Return an executor for jobs that need this."""
        return _SlurmQueue(self, needs)

    def submit(self, function: Callable[..., Any], /, *arguments: object) -> Any:
        """Submit a job with the needs of a small one."""
        return self.with_needs(Needs()).submit(function, *arguments)

    def shutdown(self) -> None:
        """Collect the processes of a local run; jobs on Slurm are left to it."""
        for job in self._local:
            job._process.wait()
        self._local.clear()

    def _start(self, needs: Needs, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        submitit = require("submitit", "slurm")
        executor = submitit.AutoExecutor(self.folder, cluster=self.cluster)
        asked = {
            "timeout_min": max(5, round(60 * needs.hours) + 1),
            "mem_gb": round(needs.memory_gib + 0.5),
            "gpus_per_node": needs.gpus,
            "name": "ragscale",
        }
        if executor.cluster == "local":
            asked.pop("mem_gb")
            asked["gpus_per_node"] = 0
        executor.update_parameters(**{**asked, **self.parameters, **(self.gpu_parameters if needs.gpus else {})})
        job = executor.submit(function, *arguments)
        if hasattr(job, "_process"):
            self._local.append(job)
        return job


class _SlurmQueue:
    """Submits with the needs of one job."""

    fresh_process = True

    def __init__(self, slurm: Slurm, needs: Needs) -> None:
        self._slurm, self._needs = slurm, needs

    def submit(self, function: Callable[..., Any], /, *arguments: object) -> Any:
        return self._slurm._start(self._needs, function, arguments)


def dask(address: str | None = None, **options: object) -> Dask:
    """Return an executor on a Dask cluster.

    Parameters
    ----------
    address : str, optional
        Of the scheduler; by default a cluster on this machine, ended after the run.
    **options
        Of ``distributed.Client`` with an address, else of ``distributed.LocalCluster``.
    """
    return Dask(address, options)


class Dask:
    """Connects to the scheduler with the first job."""

    def __init__(self, address: str | None, options: dict[str, Any]) -> None:
        self.address, self.options = address, options
        self._client: Any = None
        self._cluster: Any = None
        self._executor: Any = None

    def submit(self, function: Callable[..., Any], /, *arguments: object) -> Any:
        """Run ``function(*arguments)`` on a worker."""
        if self._executor is None:
            distributed = require("distributed", "dask")
            if self.address is None:
                options = {"threads_per_worker": 1, "dashboard_address": None, **self.options}
                with _main_hidden():
                    self._cluster = distributed.LocalCluster(**options)
                self._client = distributed.Client(self._cluster)
            else:
                self._client = distributed.Client(self.address, **self.options)
            # a job's folder says whether it is done: Dask must neither keep results nor guess that calls are equal
            self._executor = self._client.get_executor(pure=False)
        return self._executor.submit(function, *arguments)

    def shutdown(self) -> None:
        """Disconnect, and end a cluster of this machine."""
        for part in (self._client, self._cluster):
            if part is not None:
                part.close()
        self._client = self._cluster = self._executor = None


def ray(address: str | None = None, **options: object) -> Ray:
    """Return an executor on Ray.

    Parameters
    ----------
    address : str, optional
        Of a cluster, or ``"auto"``; by default Ray is started on this machine, and ended after the run. Where the
        session is connected to Ray already, that is used and left.
    **options
        Of ``ray.init``.
    """
    return Ray(address, options)


class Ray:
    """Connects to Ray with the first job."""

    def __init__(self, address: str | None, options: dict[str, Any]) -> None:
        self.address, self.options = address, options
        self._ray: Any = None
        self._started = False
        self._functions: dict[tuple[Any, int], Any] = {}

    def with_needs(self, needs: Needs) -> _RayQueue:
        """Return an executor for jobs that need this."""
        return _RayQueue(self, needs)

    def submit(self, function: Callable[..., Any], /, *arguments: object) -> Any:
        """Run ``function(*arguments)`` on one CPU."""
        return self.with_needs(Needs()).submit(function, *arguments)

    def _start(self, needs: Needs, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._ray is None:
            self._ray = require("ray", "ray")
            if not self._ray.is_initialized():
                self._ray.init(address=self.address, **{"log_to_driver": False, **self.options})
                self._started = True
        gpus = needs.gpus if self._ray.cluster_resources().get("GPU", 0) else 0
        if (function, gpus) not in self._functions:
            self._functions[function, gpus] = self._ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(function)
        return self._functions[function, gpus].remote(*arguments).future()

    def shutdown(self) -> None:
        """End Ray if this executor started it."""
        if self._started:
            self._ray.shutdown()
        self._ray, self._started, self._functions = None, False, {}


class _RayQueue:
    """Submits with the needs of one job."""

    def __init__(self, ray: Ray, needs: Needs) -> None:
        self._owner, self._needs = ray, needs

    def submit(self, function: Callable[..., Any], /, *arguments: object) -> Any:
        return self._owner._start(self._needs, function, arguments)


OURS = (Processes, Slurm, Dask, Ray)


def check_executor(executor: Any) -> None:
    """Refuse what is no executor, before anything is spent.

    Raises
    ------
    ConfigError
    """
    if executor is None or hasattr(executor, "submit") or callable(executor):
        return
    raise ConfigError(
        f"executor = {executor!r} must have submit(function, *arguments), such as ragscale.study.executors.processes(2)"
    )
