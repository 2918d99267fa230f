"""The same stages on datatrove's executors (local, Slurm, Ray), for corpora beyond one machine; the same bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from ragscale._extras import require
from ragscale.passages import Document
from ragscale.splitting._assemble import needed_units
from ragscale.splitting._corpus import SplitJob
from ragscale.splitting._order import scatter
from ragscale.splitting._pieces import read_work
from ragscale.splitting._sources import Reject
from ragscale.splitting._split import Split
from ragscale.splitting._units import make_unit

if TYPE_CHECKING:
    from datatrove.pipeline.base import PipelineStep

    from ragscale.splitting._corpus import SplitSettings
else:
    PipelineStep = require("datatrove.pipeline.base", "datatrove").PipelineStep


@dataclass(frozen=True, slots=True)
class Stage:
    """One datatrove job: its pipeline, and whether many tasks may share it; a stage starts when the one before ended.

    Parameters
    ----------
    name : str
        For logs.
    pipeline : list of datatrove steps
        What an executor takes.
    parallel : bool
        False for the stages that need a single task.
    """

    name: str
    pipeline: list[Any]
    parallel: bool


def datatrove_stages(reader: object, out: str | os.PathLike[str], **settings: Unpack[SplitSettings]) -> list[Stage]:
    """Return the stages of a split as datatrove pipelines; ``out`` must be a folder that every task can reach.

    Parameters
    ----------
    reader : datatrove step or list of steps
        A reader, and any filters after it. ``id`` and ``text`` of datatrove's documents are used, and ``title`` and
        ``source`` of their metadata. What a reader itself cannot parse, it leaves out with a line in its log.
    out : path
        Folder of the split.
    **settings
        Those of `split_corpus`, without ``n_workers`` and ``progress``.

    Returns
    -------
    list of Stage
        Run them one after the other, each with any number of tasks where it is parallel.
    """
    job = SplitJob.create(out, **settings)
    job.prepare()
    (job.work / "signatures").mkdir(exist_ok=True)
    steps = reader if isinstance(reader, list) else [reader]
    stages = [
        Stage("read", [*steps, _Scatter(job)], True),
        Stage("plan", [_Plan(job)], False),
        Stage("tokenise", [_Tokenise(job)], True),
        Stage("finish", [_Finish(job)], False),
    ]
    if job.config["deduplicate"]["method"] == "minhash":
        stages.insert(2, Stage("signatures", [_Signatures(job)], True))
        stages.insert(3, Stage("near duplicates", [_NearDuplicates(job)], False))
    return stages


def split_with_datatrove(
    reader: object,
    out: str | os.PathLike[str],
    *,
    tasks: int = 1,
    n_workers: int = 1,
    executor: Callable[..., Any] | None = None,
    **settings: Unpack[SplitSettings],
) -> Split:
    """Split a corpus through datatrove and wait for it; the same bytes as `split_corpus` on the same documents.

    Parameters
    ----------
    reader : datatrove step or list of steps
        See `datatrove_stages`.
    out : path
        Folder of the split; a finished split of these settings there is returned.
    tasks : int
        Tasks of the parallel stages.
    n_workers : int
        Processes of the local executor. More than one needs the script's ``if __name__ == "__main__":`` guard, as
        always with datatrove.
    executor : callable, optional
        ``executor(pipeline=..., tasks=..., logging_dir=...)`` gives a datatrove executor whose ``run()`` waits; by
        default ``LocalPipelineExecutor``. For Slurm, whose ``run()`` returns at once, chain `datatrove_stages`
        with ``depends``.
    **settings
        Those of `split_corpus`, without ``progress``.
    """
    if executor is None:
        local = require("datatrove.executor.local", "datatrove").LocalPipelineExecutor
        executor = partial(local, workers=n_workers)
    job = SplitJob.create(out, **settings)
    with job.locked():
        if job.finished():
            return Split.load(job.out)
        logs = job.out / ".logs"
        if not (job.work / "config.json").is_file():
            job.prepare()
            job.folder.remove(".logs")
        for number, stage in enumerate(datatrove_stages(reader, out, **settings)):
            folder = logs / f"{number}-{stage.name.replace(' ', '-')}"
            executor(pipeline=stage.pipeline, tasks=tasks if stage.parallel else 1, logging_dir=str(folder)).run()
    shutil.rmtree(logs, ignore_errors=True)
    return Split.load(job.out)


class _Step(PipelineStep):
    type = "ragscale"

    def __init__(self, job: SplitJob) -> None:
        super().__init__()
        self.out, self.config, self.max_rejected = job.out, job.config, job.max_rejected

    def job(self) -> SplitJob:
        job = SplitJob(self.out, self.config)
        job.max_rejected = self.max_rejected
        return job

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        with self.track_time():
            self.work(self.job(), data, rank, world_size)
        yield from ()

    def work(self, job: SplitJob, data: Any, rank: int, world_size: int) -> None:
        raise NotImplementedError


class _Scatter(_Step):
    name = "sort by key"

    def work(self, job: SplitJob, data: Any, rank: int, world_size: int) -> None:
        stats = scatter(self._documents(data), f"task {rank}", job.work / "scatter" / f"{rank:06d}", job.config["seed"])
        self.stat_update("documents", value=stats["documents"])

    @staticmethod
    def _documents(data: Any) -> Iterator[tuple[int, Document | Reject]]:
        for line, document in enumerate(data or (), 1):
            title, source = (document.metadata.get(name) or "" for name in ("title", "source"))
            yield line, Document(str(document.id), document.text, str(title), str(source))


class _Plan(_Step):
    name = "find duplicates"

    def work(self, job: SplitJob, data: Any, rank: int, world_size: int) -> None:
        job.gather_facts()
        job.find_exact_duplicates()


class _Signatures(_Step):
    name = "MinHash signatures"

    def work(self, job: SplitJob, data: Any, rank: int, world_size: int) -> None:
        from ragscale.splitting._minhash import make_signatures

        for number, (low, high) in list(enumerate(job.units()))[rank::world_size]:
            make_signatures(job.work, number, low, high)


class _NearDuplicates(_Step):
    name = "near-duplicates"

    def work(self, job: SplitJob, data: Any, rank: int, world_size: int) -> None:
        job.find_near_duplicates()


class _Tokenise(_Step):
    name = "tokenise"

    def work(self, job: SplitJob, data: Any, rank: int, world_size: int) -> None:
        for number, (low, high) in list(enumerate(job.units()))[rank::world_size]:
            stats = make_unit(job.task, number, low, high)
            self.stat_update("tokens", value=stats["tokens"])


class _Finish(_Step):
    name = "write the split"

    def work(self, job: SplitJob, data: Any, rank: int, world_size: int) -> None:
        folders = [job.task.units / f"{number:06d}" for number in range(len(job.units()))]
        stats = (read_work(folder / "stats.json")["stats"] for folder in folders)
        job.finish(needed_units(stats, job.enough_tokens()))
