"""The jobs that read: indexes and their shards, searches, prompts, and the evaluations of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from ragscale.study._config import StudyConfig
from ragscale.study._contents import Contents
from ragscale.study._inputs import EvaluateInputs, IndexInputs, RetrieveInputs, SearchInputs
from ragscale.study._jobs import Job
from ragscale.study._own_code import digest_of, own_code
from ragscale.study._plan import Cell, prompt_length
from ragscale.study._retrievers import RetrieverSpec
from ragscale.study._stage_index import build_index, check_own
from ragscale.study._stage_retrieve import prepare_questions
from ragscale.study._stage_search import search_questions
from ragscale.study._stage_train import evaluate_run
from ragscale.study._task_specs import TaskSpec
from ragscale.study._variants import Variant, variants

MakeJob = Callable[..., Job]


def index_jobs(
    config: StudyConfig, grid: list[Cell], *, split: Job, job: MakeJob
) -> tuple[tuple[Job, ...], dict[str, list[Job]]]:
    """Return the check of a retriever of the user's own, and the jobs of each source's index: one for each shard."""
    checks: tuple[Job, ...] = ()
    found: dict[str, list[Job]] = {}
    for source in config.store_sources:
        largest = max((cell.R for cell in grid if cell.source == source), default=0)
        if not largest:
            continue
        whole = _index_inputs(config, largest, source)
        if RetrieverSpec(whole.retriever).is_own and not checks:
            checks = (job("check", whole.factory, check_own, whole, after={"split": split}),)
        found[source] = []
        for shard in range(config.index_shards):
            inputs = replace(whole, part=(shard, config.index_shards))
            label = f"{largest}" + ("" if source == "held-out" else f" {source}")
            label += f", shard {shard + 1} of {config.index_shards}" if config.index_shards > 1 else ""
            found[source].append(job("index", label, build_index, inputs, after={"split": split}, follows=checks))
    return checks, found


def question_jobs(
    config: StudyConfig,
    grid: list[Cell],
    *,
    split: Job,
    indexes: dict[str, list[Job]],
    contents: Contents,
    job: MakeJob,
) -> dict[Variant, Job]:
    """Return the job that makes the prompts of each way to read; one without a store has none, but for the first.

    Where several of them read one store, or several jobs are asked for, they find the hits in jobs of searching. These
    do not name the prompts, which are the same without them; shards do, as an index of their own.
    """
    found: dict[Variant, Job] = {}
    searches: dict[str, tuple[Job, ...]] = {}
    for variant in variants(config):
        stores = tuple(sorted({cell.R for cell in variant.cells(grid)}))
        if not stores:
            continue
        shards = indexes.get(variant.source, [])
        if config.searches_apart and shards and variant.source not in searches:
            searches[variant.source] = _search_jobs(
                config, stores, split=split, shards=shards, contents=contents, job=job
            )
        hits = searches.get(variant.source, ())
        inputs = _retrieve_inputs(config, variant, stores, contents, shards[0].inputs if shards else None)
        inputs = replace(inputs, hits=tuple(one.key for one in hits))
        after, follows = {"split": split}, hits
        if len(shards) == 1:
            after["index"] = shards[0]
        elif shards:
            after, follows = after | {f"hits {i}": one for i, one in enumerate(hits)}, ()
        label = f"{len(stores)} stores{variant.words}"
        found[variant] = job("retrieve", label, prepare_questions, inputs, after=after, follows=follows)
    return found


def searches_of(prompts: Job) -> list[Job]:
    """Return the jobs of searching that a job of prompts waits for."""
    return [one for one in prompts.before if one.stage == "search"]


def _search_jobs(
    config: StudyConfig, stores: tuple[int, ...], *, split: Job, shards: list[Job], contents: Contents, job: MakeJob
) -> tuple[Job, ...]:
    after = {"split": split, "index": shards[0]}
    if len(shards) > 1:
        after = {"split": split, **{f"index {i}": shard for i, shard in enumerate(shards)}}
    found = []
    for part in range(config.search_jobs):
        inputs = SearchInputs(
            asked=[task_content(task, contents) for task in specs(config)],
            tasks=tuple(task.text for task in specs(config)),
            stores=tuple(size for size in stores if size),
            coverage_stores=config.coverage_sizes,
            k=max(config.numbers_of_passages),
            part=(part, config.search_jobs),
            threads=config.threads,
            index=shards[0].inputs,
        )
        label = f"questions {part + 1} of {config.search_jobs}, {shards[0].inputs.store_source} store"
        found.append(job("search", label, search_questions, inputs, after=after))
    return tuple(found)


def evaluation_jobs(
    config: StudyConfig,
    grid: list[Cell],
    *,
    split: Job,
    train: Job,
    questions: dict[Variant, Job],
    job: MakeJob,
) -> list[Job]:
    """Return the jobs that ask one checkpoint, whose cells are given: one for each way to read that has stores here."""
    found = []
    for variant, prompts in questions.items():
        mine = variant.cells(grid)
        if not mine:
            continue
        first = mine[0]
        inputs = EvaluateInputs(
            model=first.model,
            seed=first.seed,
            D=first.D,
            stores=tuple(sorted(cell.R for cell in mine)),
            threads=config.threads,
            source=variant.source,
            k=variant.k,
        )
        after = {"split": split, "train": train, "questions": prompts}
        label = f"{train.lane} D {first.D}{variant.words}"
        found.append(job("evaluate", label, evaluate_run, inputs, after=after, lane=train.lane))
    return found


def _index_inputs(config: StudyConfig, largest: int, source: str) -> IndexInputs:
    retriever: Any = config.retriever
    code = own_code(retriever)
    return IndexInputs(
        retriever=retriever.text,
        factory=retriever.factory,
        code=tuple(tuple(entry.items()) for entry in code),
        source=digest_of(code),
        store_tokens=largest,
        threads=config.threads,
        tasks=tuple(task.text for task in specs(config)),
        store_source=source,
    )


def _retrieve_inputs(
    config: StudyConfig, variant: Variant, stores: tuple[int, ...], contents: Contents, index: IndexInputs | None
) -> RetrieveInputs:
    needs_store = {"retrieved", "random"}
    left = (set() if index is not None else needs_store) | (set() if variant.is_first else {"closed-book", "oracle"})
    return RetrieveInputs(
        asked=[task_content(task, contents) for task in specs(config)],
        tasks=tuple(task.text for task in specs(config)),
        gold_of=[contents.of(path) for path in config.gold],
        gold=tuple(config.gold),
        stores=stores,
        coverage_stores=config.coverage_sizes,
        k=variant.k,
        conditions=tuple(c for c in asked_conditions(config) if c not in left),
        n_shot=config.n_shot,
        max_length=prompt_length(config),
        threads=config.threads,
        index=index,
        source=variant.source,
    )


def asked_conditions(config: StudyConfig) -> tuple[str, ...]:
    """Return the conditions in one order; closed book and retrieved always are among them."""
    chosen = {"closed-book", "retrieved", *config.conditions}
    return tuple(name for name in ("closed-book", "retrieved", "oracle", "random") if name in chosen)


def task_content(task: TaskSpec, contents: Contents) -> Any:
    """Return what a task stands for: files by name and digest, the rest as it is."""
    value = task.value
    return {name: contents.of(v) if name in {"path_or_name", "source"} and v else v for name, v in value.items()}


def specs(config: StudyConfig) -> tuple[TaskSpec, ...]:
    """Return the tasks."""
    return cast("tuple[TaskSpec, ...]", config.tasks)
