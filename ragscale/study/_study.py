"""A study: the grid of models, pretraining tokens and stores, from the corpus to the best split of a budget."""

from __future__ import annotations

import html
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from ragscale import results as results_table
from ragscale._files import path_digest
from ragscale.errors import ConfigError, ResultsError, StudyWarning
from ragscale.fitting import ManifoldFit, fit_manifold
from ragscale.splitting import Split
from ragscale.study._config import StudyConfig
from ragscale.study._jobs import Executor, Job, JobState, Needs, folder_of, run_jobs, state_of
from ragscale.study._plan import Cell, cells, model_config, model_name, model_training, plan_table, prompt_length
from ragscale.study._select import select
from ragscale.study._stages import build_index, evaluate_run, load_tasks, make_split, prepare_questions, train_ladder
from ragscale.training import Device

STAGES = ("split", "index", "retrieve", "train", "evaluate")


class Study:
    """The (N, D, R) experiment: plan it, run it on any executor, fit it, report it.

    Parameters
    ----------
    config : StudyConfig
    directory : path
        Where everything goes; every worker must see it. A study that was stopped, or killed, goes on from there.

    Examples
    --------
    >>> config = StudyConfig(corpus={"synthetic": {"n_documents": 500}}, models=["0.15M"], D=[20_000], R=[5_000],
    ...                      max_tokens=40_000, tokenizer=512, training={"seq_len": 64})
    >>> Study(config, "runs/tiny").plan()[["N", "D", "R"]].values.tolist()
    [[115264, 20000, 0], [115264, 20000, 5000]]
    """

    def __init__(self, config: StudyConfig, directory: str | os.PathLike[str]) -> None:
        self.config = config
        self.directory = Path(directory)

    def __repr__(self) -> str:
        return (
            f"Study({len(self.config.models)} models, {os.fspath(self.directory)!r}, config {self.config.digest[:12]})"
        )

    def _repr_html_(self) -> str:
        status = self.status()
        counts = status.groupby(["stage", "state"], sort=False)["seconds"].agg(["size", "sum"]).reset_index()
        counts.columns = ["stage", "state", "jobs", "seconds"]
        return f"<p>{html.escape(repr(self))}</p>{counts.round(1).to_html(index=False, na_rep='')}"

    # What will be done ---------------------------------------------------------------------------------------------

    def plan(self, *, device: str | Device = "CPU-core") -> pd.DataFrame:
        """Return every cell and what it costs in tokens, FLOPs, hours and bytes, before any is spent.

        Parameters
        ----------
        device : str or ragscale.training.Device
            A name that `ragscale.training.dry_run` knows ("CPU-core", "H100", ...), or your own.

        Raises
        ------
        ConfigError
            When T is unknown: the configuration has no ``max_tokens`` and the split is not made yet; or when a training
            run cannot work.
        """
        budget, vocab_size = self._sizes()
        return plan_table(
            self.config, budget=budget, vocab_size=vocab_size, device=device, n_questions=self._n_questions()
        )

    def _n_questions(self) -> int | None:
        """Return the questions of all tasks, or None where that takes more than reading files."""
        config = self.config
        if not config.tasks:
            folder = folder_of(self.directory, self._split_job)
            return sum(len(task.examples) for task in load_tasks([], folder)) if folder.exists() else None
        given = [task if isinstance(task, str) else str(task.get("path_or_name")) for task in config.tasks]
        if not all(Path(path).is_file() for path in given):
            return None
        return sum(len(task.examples) for task in load_tasks(_tasks(config), Path()))

    def _sizes(self) -> tuple[int, int]:
        """Return T and the size of the vocabulary: of the split if it is made, else what the configuration says."""
        job = self._split_job
        if state_of(self.directory, job).state == "done":
            split = self.split
            return split.n_tokens, split.vocab_size
        if self.config.max_tokens is None or not isinstance(self.config.tokenizer, int):
            raise ConfigError(
                "T and the vocabulary are not known before the split is made: set max_tokens and train a tokenizer "
                "of a given size, or run study.run(until='split') first"
            )
        return self.config.max_tokens, self.config.tokenizer

    # Jobs ----------------------------------------------------------------------------------------------------------

    @cached_property
    def _split_job(self) -> Job:
        """The split; made once for each study object, because its key reads the whole corpus."""
        config = self.config
        corpus = config.corpus
        files = [] if isinstance(corpus, Mapping) else [corpus] if isinstance(corpus, str) else list(corpus)
        missing = [path for path in [*files, *config.gold] if not Path(path).exists()]
        if missing:
            raise ConfigError(f"files of the study are missing: {', '.join(missing)}")
        inputs = {
            "documents": dict(corpus) if isinstance(corpus, Mapping) else [_content(path) for path in files],
            "vocabulary": config.tokenizer if isinstance(config.tokenizer, int) else _content(config.tokenizer),
            "max_tokens": config.max_tokens,
            "validation_tokens": config.validation_tokens,
            "seed": config.split_seed,
            "deduplicate": config.deduplicate,
            "decontaminated_of": [_content(task) for task in config.tasks] if config.decontaminate else None,
            "passage_tokens": config.passage_tokens,
            "passage_overlap": config.passage_overlap,
            "n_workers": 1,
        }
        paths = {
            "corpus": dict(corpus) if isinstance(corpus, Mapping) else files,
            "tokenizer": config.tokenizer,
            "decontaminate": _tasks(config) if config.decontaminate else None,
        }
        return Job(stage="split", label="corpus", function=make_split, inputs=inputs, paths=paths)

    def _jobs(self) -> list[Job]:
        """Return every job; the split must be done, since T decides the cells."""
        split, config = self._split_job, self.config
        grid = self._cells()
        largest = max(cell.R for cell in grid)
        common = {"threads": config.threads}
        after_split = {"split": split}
        jobs = [split]
        index = None
        if largest:
            inputs = {"retriever": dict(config.retriever), "store_tokens": largest, **common}
            index = Job(stage="index", label=str(largest), function=build_index, inputs=inputs, after=after_split)
            jobs.append(index)
        questions = Job(
            stage="retrieve",
            label=f"{len({cell.R for cell in grid})} stores",
            function=prepare_questions,
            inputs={
                "asked": [_content(task) for task in config.tasks],
                "gold_of": [_content(path) for path in config.gold],
                "stores": sorted({cell.R for cell in grid}),
                "k": config.k,
                "conditions": [c for c in config.conditions if index is not None or c not in {"retrieved", "random"}],
                "n_shot": config.n_shot,
                "max_length": prompt_length(config),
                **common,
            },
            paths={"tasks": _tasks(config), "gold": list(config.gold)},
            after={"split": split, **({"index": index} if index else {})},
        )
        jobs.append(questions)
        for model in config.models:
            for seed in config.seeds:
                of_run = [cell for cell in grid if cell.model == model_name(model) and cell.seed == seed]
                stores: dict[int, list[int]] = {}
                for cell in of_run:
                    stores.setdefault(cell.D, []).append(cell.R)
                training = Job(
                    stage="train",
                    label=f"{model_name(model)} seed {seed}",
                    function=train_ladder,
                    inputs={
                        "model": _shape(model),
                        "training": model_training(config, model),
                        "tokens": sorted(stores),
                        "seed": seed,
                        "n_processes": config.processes_per_training,
                        **common,
                    },
                    after=after_split,
                    needs=Needs(gpus=config.processes_per_training, memory_gib=8.0, hours=24.0),
                )
                jobs.append(training)
                for tokens, sizes in stores.items():
                    jobs.append(
                        Job(
                            stage="evaluate",
                            label=f"{model_name(model)} seed {seed} D {tokens}",
                            function=evaluate_run,
                            inputs={"model": model_name(model), "D": tokens, "stores": sorted(sizes), **common},
                            after={"split": split, "train": training, "questions": questions},
                            needs=Needs(gpus=1, memory_gib=8.0, hours=4.0),
                        )
                    )
        return jobs

    def _cells(self) -> list[Cell]:
        budget, vocab_size = self._sizes()
        return cells(self.config, budget=budget, vocab_size=vocab_size)

    # What is done --------------------------------------------------------------------------------------------------

    def run(
        self,
        executor: Executor | Callable[[Needs], Executor] | None = None,
        *,
        until: str | None = None,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Do everything that is not done, and return `status`.

        Stages are ``split, index, retrieve, train, evaluate``. What was done before is not done again; a failed job is
        tried again, and does not stop the others.

        Parameters
        ----------
        executor : object with ``submit``, or a function from `Needs` to one, optional
            ``concurrent.futures``, submitit, Dask (``client.get_executor()``), Ray. By default this process.
        until : {"split", "index", "retrieve", "train", "evaluate"}, optional
            Do only the jobs of that stage and what they build on.
        progress : bool, optional
            Show a progress bar; by default when standard error is a terminal.

        Raises
        ------
        ConfigError
            When the split fails (its traceback is shown), or another run of this study is going on.
        """
        if until is not None and until not in STAGES:
            raise ConfigError(f"until = {until!r} must be one of {', '.join(STAGES)}")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config.write(self.directory / "config.json")
        split = self._split_job
        (state,) = run_jobs(self.directory, [split], executor)
        if state.state != "done":
            raise ConfigError(f"the corpus could not be split:\n{state.error}")
        jobs = self._jobs()
        if until is not None:
            jobs = _with_ancestors([job for job in jobs if job.stage == until])
        show = sys.stderr.isatty() if progress is None else progress
        with tqdm(total=len(jobs), desc="study", unit="job", disable=not show) as bar:

            def on_change(states: list[JobState]) -> None:
                bar.n = sum(state.state == "done" for state in states)
                failed = sum(state.state in {"failed", "blocked"} for state in states)
                bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
                bar.refresh()

            return _status_table(run_jobs(self.directory, jobs, executor, on_change=on_change))

    def status(self) -> pd.DataFrame:
        """Return one row for each job: stage, label, state, seconds, and the error of those that failed."""
        split = self._split_job
        done = state_of(self.directory, split).state == "done"
        return _status_table([state_of(self.directory, job) for job in (self._jobs() if done else [split])])

    @property
    def split(self) -> Split:
        """The split of the corpus."""
        return Split.load(folder_of(self.directory, self._split_job) / "split")

    def results(self) -> pd.DataFrame:
        """Return the results table: every evaluated cell, in one order whoever computed it.

        Raises
        ------
        ResultsError
            When nothing is evaluated yet.
        """
        tables = [
            results_table.read(folder_of(self.directory, job) / "results.jsonl")
            for job in self._jobs()
            if job.stage == "evaluate" and state_of(self.directory, job).state == "done"
        ]
        if not tables:
            raise ResultsError("nothing is evaluated yet: run the study first")
        order = ["task", "metric", "condition", "N", "D", "R", "seed"]
        table = pd.concat(tables, ignore_index=True).sort_values(by=order, kind="stable", ignore_index=True)
        return pd.DataFrame(table)

    def coverage(self) -> pd.DataFrame:
        """Return how often the passages shown, and the whole store, hold an answer: it needs no model.

        One row for each task, condition and store R: ``n_questions, n_left_out``, ``hit_rate`` (of the k passages in
        the prompt) and ``answer_in_store``.

        Raises
        ------
        ResultsError
            When the prompts are not made yet.
        """
        (job,) = [job for job in self._jobs() if job.stage == "retrieve"]
        if state_of(self.directory, job).state != "done":
            raise ResultsError("nothing is retrieved yet: study.run(until='retrieve') is enough")
        return pd.read_csv(folder_of(self.directory, job) / "coverage.csv")

    def missing(self) -> pd.DataFrame:
        """Return the jobs that are not done, with what stopped them."""
        status = self.status()
        return status.query("state != 'done'").reset_index(drop=True)

    def missing_cells(self) -> pd.DataFrame:
        """Return the checkpoints (``model, seed, D``) of the plan whose cells are not evaluated."""
        waiting = [
            {"model": job.inputs["model"], "seed": job.after["train"].inputs["seed"], "D": job.inputs["D"]}
            for job in self._jobs()
            if job.stage == "evaluate" and state_of(self.directory, job).state != "done"
        ]
        return pd.DataFrame(waiting, columns=["model", "seed", "D"])

    def fit(self, *, metric: str, task: str | None = None, law: Any = "auto", **options: Any) -> ManifoldFit:
        """Fit L(N, D, R) to the closed-book and retrieved cells of one metric.

        Parameters
        ----------
        metric : str
            A metric of the results.
        task : str, optional
            One task; by default the mean over tasks of each cell.
        law : str or ScalingLaw
            As in `ragscale.fit_manifold`, like ``options``.

        Raises
        ------
        FitError
            When no row has that metric and task.

        Warns
        -----
        StudyWarning
            Naming the cells of the plan that are not evaluated, so that the fit lacks them.
        """
        missing = self.missing_cells()
        if len(missing):
            named = ", ".join(
                f"{row['model']} seed {row['seed']} D {row['D']:,}" for row in missing.head(5).to_dict("records")
            )
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            warnings.warn(
                f"this fit lacks {len(missing)} checkpoints of the plan ({named}{more}): study.missing() says why",
                StudyWarning,
                stacklevel=2,
            )
        return fit_manifold(select(self.results(), metric=metric, task=task), law, **options)

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the report: one self-contained HTML page, or Markdown with pictures beside it for ``.md``.

        See `ragscale.study.write_report` for the options.
        """
        from ragscale.study._report import write_report

        return write_report(self, path, **options)

    def shapes(self) -> pd.DataFrame:
        """Return the models: layers, width, and parameters counted in each convention."""
        _, vocab_size = self._sizes()
        rows = []
        for model in self.config.models:
            shape = model_config(model, vocab_size)
            counts = {"N": shape.n_params, "core": shape.n_core, "head": shape.n_head, "N_total": shape.n_params_total}
            rows.append({"model": model_name(model), "layers": shape.n_layers, "width": shape.d_model, **counts})
        return pd.DataFrame(rows)


def _shape(model: str | Mapping[str, Any]) -> Any:
    """Return what says the shape of a model, without how it is trained."""
    return model if isinstance(model, str) else {name: value for name, value in model.items() if name != "training"}


def _tasks(config: StudyConfig) -> list[Any]:
    """Return the tasks as JSON-able arguments of `ragscale.evaluation.load_task`."""
    return [task if isinstance(task, str) else dict(task) for task in config.tasks]


def _content(given: str | Mapping[str, Any]) -> Any:
    """Return what a path, or a task that names one, stands for: a file by its name and digest, the rest as it is."""
    if isinstance(given, Mapping):
        return {name: _content(value) if name in {"path_or_name", "source"} else value for name, value in given.items()}
    return [Path(given).name, path_digest(given)] if Path(given).exists() else given


def _with_ancestors(jobs: list[Job]) -> list[Job]:
    found: dict[str, Job] = {}
    for job in jobs:
        found.update({parent.key: parent for parent in _with_ancestors(list(job.after.values()))})
        found[job.key] = job
    return list(found.values())


def _status_table(states: list[JobState]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "stage": state.job.stage,
                "label": state.job.label,
                "state": state.state,
                "seconds": state.seconds,
                "error": state.error.strip().splitlines()[-1] if state.error.strip() else "",
                "key": state.job.key,
            }
            for state in states
        ]
    )
