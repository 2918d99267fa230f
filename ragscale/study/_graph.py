"""The jobs of a study: what is computed, from what, in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragscale.errors import ConfigError
from ragscale.splitting import Split
from ragscale.study._config import StudyConfig
from ragscale.study._contents import Contents
from ragscale.study._graph_reading import (
    evaluation_jobs,
    index_jobs,
    question_jobs,
    searches_of,
    specs,
    task_content,
)
from ragscale.study._inputs import GivenSplit, SplitInputs, TrainInputs
from ragscale.study._jobs import Job, Needs
from ragscale.study._models import StudyModel
from ragscale.study._plan import Cell
from ragscale.study._stage_split import make_split, use_split
from ragscale.study._stage_train import train_piece
from ragscale.training import make_plan

STAGES = ("split", "check", "index", "search", "retrieve", "train", "evaluate")
NeedsOf = Callable[[str, Any], Needs]  # (stage, inputs) -> what such a job wants


def no_estimate(stage: str, inputs: Any) -> Needs:
    """Return needs that nobody reads."""
    return Needs()


def split_job(config: StudyConfig, contents: Contents) -> Job:
    """Return the job that makes the split, or takes the one that exists.

    Raises
    ------
    ConfigError
        When a file is missing.
    """
    if config.given_split is not None:
        digest = Split.load(config.given_split).digest
        given = GivenSplit(path=config.given_split, digest=digest)
        return Job(stage="split", label="corpus", function=use_split, inputs=given)
    corpus: Any = config.corpus
    synthetic = {"synthetic": dict(corpus["synthetic"])} if config.is_synthetic else None
    files = [] if synthetic else [corpus] if isinstance(corpus, str) else list(corpus)
    missing = [path for path in [*files, *config.gold] if not contents.knows(path)]
    if missing:
        raise ConfigError(f"files of the study are missing: {', '.join(missing)} (looked for from {Path.cwd()})")
    tasks = tuple(task.text for task in specs(config))
    inputs = SplitInputs(
        content=synthetic or [contents.of(path) for path in files],
        corpus=synthetic or files,
        vocabulary=config.tokenizer if isinstance(config.tokenizer, int) else contents.of(config.tokenizer),
        tokenizer=config.tokenizer,
        max_tokens=config.max_tokens,
        validation_tokens=config.validation_tokens,
        seed=config.split_seed,
        deduplicate=config.deduplicate,
        decontaminated_of=[task_content(task, contents) for task in specs(config)] if config.decontaminate else None,
        tasks=tasks if config.decontaminate else None,
        passage_tokens=config.passage_tokens,
        passage_overlap=config.passage_overlap,
        n_workers=config.n_workers,
    )
    return Job(stage="split", label="corpus", function=make_split, inputs=inputs)


def study_jobs(
    config: StudyConfig,
    *,
    split: Job,
    grid: list[Cell],
    vocab_size: int,
    contents: Contents,
    needs_of: NeedsOf = no_estimate,
) -> list[Job]:
    """Return every job, in the order in which one process does them.

    Parameters
    ----------
    config : StudyConfig
    split : Job
    grid : list of Cell
    vocab_size : int
        Of the split's tokenizer.
    contents : Contents
    needs_of : callable
        What a job of a stage wants.
    """

    def job(stage: str, label: str, function: Any, inputs: Any, **rest: Any) -> Job:
        needs = needs_of(stage, inputs)
        return Job(stage=stage, label=label, function=function, inputs=inputs, needs=needs, **rest)

    checks, indexes = index_jobs(config, grid, split=split, job=job)
    questions = question_jobs(config, grid, split=split, indexes=indexes, contents=contents, job=job)
    jobs = [split, *checks, *(one for shards in indexes.values() for one in shards)]
    for prompts in questions.values():
        jobs += [one for one in searches_of(prompts) if one not in jobs]
        jobs.append(prompts)
    models: Any = config.models
    for model in models:
        for seed in config.seeds:
            mine = [cell for cell in grid if cell.model == model.name and cell.seed == seed]
            pieces = _training_jobs(
                config,
                model,
                seed=seed,
                tokens=sorted({cell.D for cell in mine}),
                vocab_size=vocab_size,
                split=split,
                checks=checks,
                job=job,
            )
            jobs += [piece for _, piece in pieces]
            for tokens, piece in pieces:
                if tokens is not None:
                    of_run = [cell for cell in mine if tokens == cell.D]
                    jobs += evaluation_jobs(config, of_run, split=split, train=piece, questions=questions, job=job)
    return jobs


def _training_jobs(
    config: StudyConfig,
    model: StudyModel,
    *,
    seed: int,
    tokens: list[int],
    vocab_size: int,
    split: Job,
    checks: tuple[Job, ...],
    job: Callable[..., Job],
) -> list[tuple[int | None, Job]]:
    """Return (D, or None for a piece of the trunk; job): the trunk's pieces first, each branch after its own."""
    training: Any = config.training
    plan = make_plan(model.shape_for(vocab_size), model.config_over(training).replace(seed=seed), tokens)
    trunk: list[tuple[int | None, Job]] = []
    branches: list[tuple[int | None, Job]] = []
    name = f"{model.name} seed {seed}"
    before: Job | None = None
    for segment in plan.segments:
        at = segment.tokens if segment.tokens is not None else tokens[sum(d is not None for d, _ in branches)]
        inputs = TrainInputs(
            model=plan.model,
            training=plan.config,
            D=segment.tokens,
            stop=segment.stop,
            tokens=tuple(value for value in tokens if value <= at),
            ladder=tuple(tokens),
            n_processes=config.processes_per_training,
            threads=config.threads,
        )
        follows = (*checks, *([before] if before is not None and plan.config.schedule != "cosine" else []))
        what = f"{name} D {segment.tokens}" if segment.tokens is not None else f"{name} trunk to step {segment.stop}"
        made = job("train", what, train_piece, inputs, after={"split": split}, follows=follows, lane=name)
        if segment.tokens is None:
            trunk.append((None, made))
            before = made
        else:
            branches.append((segment.tokens, made))
            before = made if plan.config.schedule == "wsd-s" else before
    return [*trunk, *branches]
