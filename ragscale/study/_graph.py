"""The jobs of a study: what is computed, from what, in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragscale.errors import ConfigError
from ragscale.splitting import Split
from ragscale.study._config import StudyConfig
from ragscale.study._contents import Contents
from ragscale.study._inputs import EvaluateInputs, GivenSplit, IndexInputs, RetrieveInputs, SplitInputs, TrainInputs
from ragscale.study._jobs import Job, Needs
from ragscale.study._models import StudyModel
from ragscale.study._own_code import digest_of, own_code
from ragscale.study._plan import Cell, prompt_length
from ragscale.study._retrievers import RetrieverSpec
from ragscale.study._stage_retrieve import build_index, check_own, prepare_questions
from ragscale.study._stage_split import make_split, use_split
from ragscale.study._stage_train import evaluate_run, train_piece
from ragscale.study._task_specs import TaskSpec
from ragscale.study._variants import Variant, variants
from ragscale.training import make_plan

STAGES = ("split", "check", "index", "retrieve", "train", "evaluate")
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
    tasks = tuple(task.text for task in _specs(config))
    inputs = SplitInputs(
        content=synthetic or [contents.of(path) for path in files],
        corpus=synthetic or files,
        vocabulary=config.tokenizer if isinstance(config.tokenizer, int) else contents.of(config.tokenizer),
        tokenizer=config.tokenizer,
        max_tokens=config.max_tokens,
        validation_tokens=config.validation_tokens,
        seed=config.split_seed,
        deduplicate=config.deduplicate,
        decontaminated_of=[task_content(task, contents) for task in _specs(config)] if config.decontaminate else None,
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

    indexes = _index_jobs(config, grid, split=split, job=job)
    checks = tuple(one for one in indexes.values() if one.stage == "check")
    questions = _question_jobs(config, grid, split=split, indexes=indexes, contents=contents, job=job)
    jobs = [split, *indexes.values(), *questions.values()]
    models: Any = config.models
    for model in models:
        for seed in config.seeds:
            mine = [cell for cell in grid if cell.model == model.name and cell.seed == seed]
            common = {"vocab_size": vocab_size, "split": split, "checks": checks, "job": job}
            pieces = _training_jobs(config, model, seed=seed, tokens=sorted({cell.D for cell in mine}), **common)
            jobs += [piece for _, piece in pieces]
            for tokens, piece in pieces:
                if tokens is not None:
                    of_run = [cell for cell in mine if tokens == cell.D]
                    jobs += _evaluation_jobs(config, of_run, split=split, train=piece, questions=questions, job=job)
    return jobs


def _index_jobs(config: StudyConfig, grid: list[Cell], *, split: Job, job: Callable[..., Job]) -> dict[str, Job]:
    """Return the job of each source's index by its name, after "check" for a retriever of the user's own."""
    found: dict[str, Job] = {}
    for source in config.store_sources:
        largest = max((cell.R for cell in grid if cell.source == source), default=0)
        if not largest:
            continue
        inputs = _index_inputs(config, largest, source)
        if RetrieverSpec(inputs.retriever).is_own and "check" not in found:
            found["check"] = job("check", inputs.factory, check_own, inputs, after={"split": split})
        follows = (found["check"],) if "check" in found else ()
        label = f"{largest}" if source == "held-out" else f"{largest} seen"
        found[source] = job("index", label, build_index, inputs, after={"split": split}, follows=follows)
    return found


def _question_jobs(
    config: StudyConfig,
    grid: list[Cell],
    *,
    split: Job,
    indexes: dict[str, Job],
    contents: Contents,
    job: Callable[..., Job],
) -> dict[Variant, Job]:
    """Return the job that makes the prompts of each way to read; one without a store has none, but for the first."""
    found: dict[Variant, Job] = {}
    for variant in variants(config):
        stores = tuple(sorted({cell.R for cell in variant.cells(grid)}))
        if not stores:
            continue
        index = indexes.get(variant.source)
        inputs = _retrieve_inputs(config, variant, stores, contents, index)
        after = {"split": split, **({"index": index} if index is not None else {})}
        label = f"{len(stores)} stores{variant.words}"
        found[variant] = job("retrieve", label, prepare_questions, inputs, after=after)
    return found


def _evaluation_jobs(
    config: StudyConfig,
    grid: list[Cell],
    *,
    split: Job,
    train: Job,
    questions: dict[Variant, Job],
    job: Callable[..., Job],
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
        tasks=tuple(task.text for task in _specs(config)),
        store_source=source,
    )


def _retrieve_inputs(
    config: StudyConfig, variant: Variant, stores: tuple[int, ...], contents: Contents, index: Job | None
) -> RetrieveInputs:
    needs_store = {"retrieved", "random"}
    left = (set() if index is not None else needs_store) | (set() if variant.is_first else {"closed-book", "oracle"})
    return RetrieveInputs(
        asked=[task_content(task, contents) for task in _specs(config)],
        tasks=tuple(task.text for task in _specs(config)),
        gold_of=[contents.of(path) for path in config.gold],
        gold=tuple(config.gold),
        stores=stores,
        coverage_stores=config.coverage_sizes,
        k=variant.k,
        conditions=tuple(c for c in asked_conditions(config) if c not in left),
        n_shot=config.n_shot,
        max_length=prompt_length(config),
        threads=config.threads,
        index=None if index is None else index.inputs,
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


def _specs(config: StudyConfig) -> tuple[TaskSpec, ...]:
    return config.tasks  # type: ignore[return-value]
