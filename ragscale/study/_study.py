"""A study: the grid of models, pretraining tokens and stores, from the corpus to the best split of a budget."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd
from tqdm.auto import tqdm

from ragscale import results as results_table
from ragscale.errors import CheckpointError, ConfigError, FitError, ResultsError, StudyWarning
from ragscale.splitting import Split
from ragscale.study._config import StudyConfig
from ragscale.study._contents import Contents
from ragscale.study._cost import plan_study
from ragscale.study._device import device_of
from ragscale.study._engine import Executor, Schedule, run_jobs
from ragscale.study._fit_rows import rows_to_fit
from ragscale.study._graph import STAGES, split_job, study_jobs
from ragscale.study._jobs import Job, JobState, Needs, damage, folder_of, require_outputs, state_of, states_of
from ragscale.study._measured import Measured, measured_in
from ragscale.study._needs import USUAL_QUESTIONS, device_for, expected_hours, needs_for
from ragscale.study._plan import cells, refuse_impossible
from ragscale.study._plan_result import StudyPlan
from ragscale.study._retrievers import names_in
from ragscale.study._sizes import Sizes, estimated_sizes
from ragscale.study._stage_split import load_tasks, split_in
from ragscale.study._status import failures_in_words, status_html, status_table
from ragscale.study._variants import one_way, part_of_a_table, read_coverage, with_source
from ragscale.study.executors import OURS, check_executor
from ragscale.training import Device

if TYPE_CHECKING:
    from ragscale.fitting import ManifoldFit
    from ragscale.fitting._options import FitOptions
    from ragscale.fitting.laws._law import ScalingLaw
    from ragscale.study._report import ReportOptions

_ORDER = ["task", "metric", "condition", "N", "D", "R", "store_source", "k", "seed"]


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
        if not isinstance(config, StudyConfig):
            raise ConfigError(
                f"config must be a StudyConfig, got {type(config).__name__}: StudyConfig.read reads a file"
            )
        self.config = config
        self.directory = Path(directory)
        if self.directory.is_file():
            raise ConfigError(f"{self.directory} is a file: give the study a directory of its own")

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Study:
        """Return the study that was run in a directory.

        Raises
        ------
        ConfigError
            When no study was run there.
        """
        path = Path(directory) / "config.json"
        if not path.is_file():
            raise ConfigError(f"{os.fspath(directory)} holds no study: config.json is missing, which run() writes")
        return cls(StudyConfig.read(path), directory)

    def __repr__(self) -> str:
        return (
            f"Study({len(self.config.models)} models, {os.fspath(self.directory)!r}, config {self.config.digest[:12]})"
        )

    def _repr_html_(self) -> str:
        return status_html(repr(self), self.directory, self._states())

    # What will be done ---------------------------------------------------------------------------------------------

    def plan(
        self,
        device: str | Device | None = None,
        *,
        n_devices: int = 1,
        price_per_hour: float | None = None,
    ) -> StudyPlan:
        """Return every cell and every stage with what they cost, before any is spent.

        Before the split is made, T is ``max_tokens``, or estimated from the size of the corpus. Once jobs of this
        study are done that took a minute or more, hours are corrected by what they took against the estimate; of
        training and evaluation those count that ran on such a device.

        Parameters
        ----------
        device : str or ragscale.training.Device, optional
            A name that `ragscale.training.dry_run` knows ("CPU-core", "H100", ...), or your own. By default the GPU of
            this machine, or a CPU core.
        n_devices : int
            How many of them work side by side; the wall hours follow from the jobs' order.
        price_per_hour : float, optional
            Of one device; gives the money, in the same currency.

        Returns
        -------
        StudyPlan
            ``.cells`` (also by ``plan[...]``), ``.stages`` with a last row for all of it, ``.summary()``.

        Raises
        ------
        ConfigError
            When a training run cannot work, or no cell is left.

        Warns
        -----
        StudyWarning
            When all D of a study with stores lie clearly below the D at which models of its batches begin to read.
        """
        sizes = self._sizes()
        refuse_impossible(self.config, budget=sizes.budget, vocab_size=sizes.vocab_size)
        n_questions = self._n_questions()
        plan = plan_study(
            self.config,
            sizes,
            device=device,
            n_devices=n_devices,
            price_per_hour=price_per_hour,
            n_questions=n_questions,
            measured=self._measured(sizes, device_of(device), n_questions or 0),
        )
        if plan.below_reading:
            warnings.warn(plan.below_reading, StudyWarning, stacklevel=2)
        return plan

    def _measured(self, sizes: Sizes, device: Device, n_questions: int) -> Measured:
        """Return how the times of finished jobs compare with what was expected of them on such a device."""
        expected = expected_hours(self.config, sizes, device, n_questions=n_questions)
        return measured_in(self.directory, self._states(), expected, device)

    def _n_questions(self) -> int | None:
        """Return the questions of all tasks, or None where that takes more than reading files."""
        tasks: Any = self.config.tasks
        if not tasks:
            if state_of(self.directory, self._split_job).state == "done":
                return sum(len(task.examples) for task in load_tasks((), folder_of(self.directory, self._split_job)))
            corpus: Any = self.config.corpus
            world = corpus.get("synthetic", {})
            n = world.get("n_questions", 100)
            hops = world.get("n_multi_hop")
            return n * world.get("n_bands", 3) + (n if hops is None else hops)
        if all(task.path is not None or "task" in task.value for task in tasks):
            return sum(len(task.load().examples) for task in tasks)
        return None

    def _sizes(self) -> Sizes:
        """Return T and the size of the vocabulary: of the split if it is made, else known or estimated."""
        if state_of(self.directory, self._split_job).state == "done":
            return Sizes(budget=self.split.n_tokens, vocab_size=self.split.vocab_size)
        if self.config.given_split is not None:
            split = Split.load(self.config.given_split)
            return Sizes(budget=split.n_tokens, vocab_size=split.vocab_size)
        return estimated_sizes(self.config)

    # Jobs ----------------------------------------------------------------------------------------------------------

    @cached_property
    def _contents(self) -> Contents:
        return Contents(self.directory)

    @cached_property
    def _split_job(self) -> Job:
        """The split; made once for each study object, because its key needs the digests of the corpus."""
        return split_job(self.config, self._contents)

    def _jobs(self, needs_of: Callable[[str, Any], Needs] | None = None) -> list[Job]:
        """Return every job; the split must be done, since T decides the cells."""
        sizes = self._sizes()
        options = {} if needs_of is None else {"needs_of": needs_of}
        return study_jobs(
            self.config,
            split=self._split_job,
            grid=cells(self.config, budget=sizes.budget, vocab_size=sizes.vocab_size),
            vocab_size=sizes.vocab_size,
            contents=self._contents,
            **options,
        )

    def _states(self) -> list[JobState]:
        done = state_of(self.directory, self._split_job).state == "done"
        return states_of(self.directory, self._jobs() if done else [self._split_job])

    # What is done --------------------------------------------------------------------------------------------------

    def run(
        self,
        executor: Executor | Callable[[Needs], Executor | None] | None = None,
        *,
        until: str | None = None,
        progress: bool | None = None,
        device: str | Device | None = None,
    ) -> pd.DataFrame:
        """Do everything that is not done, and return `status`.

        Stages are ``split, check, index, retrieve, train, evaluate`` (``check`` only for a retriever of your own). What
        was done before is not done again, unless its files were damaged since; a failed job is tried again, and does
        not stop the others.

        Parameters
        ----------
        executor : object with ``submit``, or a function from `Needs` to one, optional
            One of `ragscale.study.executors`, anything of ``concurrent.futures``, submitit, Dask. By default this
            process.
        until : str, optional
            Do only the jobs of that stage and what they build on.
        progress : bool, optional
            Show a progress bar; by default on a terminal and in a notebook.
        device : str or ragscale.training.Device, optional
            What the jobs will run on, for executors that ask for time and memory.

        Raises
        ------
        ConfigError
            When the plan cannot work: before anything is spent. When the split fails (its traceback is shown), or
            another run of this study is going on.

        Warns
        -----
        StudyWarning
            When jobs fail, naming them and their files; when files of done jobs were damaged and are made anew.
        """
        if until is not None and until not in STAGES:
            raise ConfigError(f"until = {until!r} must be one of {', '.join(STAGES)}")
        check_executor(executor)
        self._refuse_before_running()
        try:
            states = self._run(executor, until, progress, device)
        finally:
            if isinstance(executor, OURS):
                executor.shutdown()  # it starts again with the next job
        failed = failures_in_words(self.directory, states)
        if failed:
            warnings.warn(failed, StudyWarning, stacklevel=2)
        return status_table(self.directory, states)

    def _run(self, executor: Any, until: str | None, progress: bool | None, device: Any) -> list[JobState]:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config.write(self.directory / "config.json")
        split = self._split_job
        self._contents.save()
        self._make_damaged_anew([split])
        (state,) = run_jobs(self.directory, [split], executor)
        if state.state != "done":
            where = folder_of(self.directory, split) / "failed.json"
            raise ConfigError(f"the corpus could not be split ({where}):\n{state.error}")
        sizes = self._sizes()
        refuse_impossible(self.config, budget=sizes.budget, vocab_size=sizes.vocab_size)
        measured = self._measured(sizes, device_for(device, executor), USUAL_QUESTIONS)
        jobs = self._jobs(needs_for(self.config, sizes, device=device, executor=executor, measured=measured))
        self._contents.save()
        if until is not None:
            jobs = _with_ancestors([job for job in jobs if job.stage == until])
        self._make_damaged_anew(jobs)
        return self._run_showing(jobs, executor, progress)

    def _refuse_before_running(self) -> None:
        """Refuse what the settings alone show to be impossible, and a retriever that cannot be built."""
        config = self.config
        known = config.given_split is not None or (config.max_tokens is not None and isinstance(config.tokenizer, int))
        sizes = self._sizes()
        refuse_impossible(config, budget=sizes.budget if known else None, vocab_size=sizes.vocab_size)
        retriever: Any = config.retriever
        if any(config.grids[1].values) or config.grids[2].values:
            own = [name for name in dict.fromkeys(names_in(retriever.value)) if not name.startswith("ragscale.")]
            if own:
                import logging

                logging.getLogger("ragscale").warning("this study imports and runs %s", ", ".join(own))
            retriever.build()

    def _make_damaged_anew(self, jobs: list[Job]) -> None:
        """Let jobs run again whose outputs are no longer what they wrote."""
        problems = []
        for state in states_of(self.directory, jobs):
            folder = folder_of(self.directory, state.job)
            if state.state == "done" and (found := damage(folder)):
                problems += found
                (folder / "done.json").unlink()
        if problems:
            more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            warnings.warn(
                f"files of done jobs were damaged, and are made anew: {'; '.join(problems[:5])}{more}",
                StudyWarning,
                stacklevel=4,
            )

    def _run_showing(self, jobs: list[Job], executor: Any, progress: bool | None) -> list[JobState]:
        show = sys.stderr.isatty() or "ipykernel" in sys.modules if progress is None else progress
        with tqdm(total=len(jobs), desc="study", unit="job", disable=not show) as bar:

            def on_change(schedule: Schedule) -> None:
                if not show:
                    return
                counts = schedule.counts()
                bar.n = counts["done"]
                failed = counts["failed"] + counts["blocked"]
                bar.set_postfix_str(
                    f"{counts['running']} running{f', {failed} failed' if failed else ''}", refresh=False
                )
                bar.refresh()

            return run_jobs(self.directory, jobs, executor, on_change=on_change)

    def status(self) -> pd.DataFrame:
        """Return one row for each job: stage, label, state, seconds, progress, and the error of those that failed.

        For training that is going on, ``step`` of ``steps``, ``tokens_per_second`` and ``hours_left`` come from its
        metrics.
        """
        return status_table(self.directory, self._states())

    @property
    def split(self) -> Split:
        """The split of the corpus."""
        return split_in(folder_of(self.directory, self._split_job))

    def results(self) -> pd.DataFrame:
        """Return the results table: every evaluated cell, in one order whoever computed it.

        Raises
        ------
        ResultsError
            When nothing is evaluated yet, saying what failed; or when a file of results was damaged since.

        Warns
        -----
        StudyWarning
            When jobs failed, so that their cells are missing.
        """
        states = self._states()
        tables, damaged = [], []
        for state in states:
            if state.job.stage == "evaluate" and state.state == "done":
                folder = folder_of(self.directory, state.job)
                try:
                    require_outputs(folder)
                    with part_of_a_table():
                        rows = results_table.read(folder / "results.jsonl")
                    if "store_source" not in rows:  # evaluated by a ragscale that knew one source
                        rows = with_source(rows, self.split, state.job.inputs.source)
                    tables.append(rows)
                except CheckpointError as error:
                    damaged.append(str(error))
        if damaged:
            raise ResultsError("; ".join(damaged[:5]))
        failed = failures_in_words(self.directory, states)
        if not tables:
            raise ResultsError(f"nothing is evaluated yet: {failed or 'run the study first'}")
        if failed:
            warnings.warn(f"these results lack cells: {failed}", StudyWarning, stacklevel=2)
        table = pd.concat(tables, ignore_index=True).sort_values(by=_ORDER, kind="stable", ignore_index=True)
        return pd.DataFrame(table)

    def coverage(self) -> pd.DataFrame:
        """Return how often the passages shown, and the whole store, hold an answer: it needs no model.

        One row for each task, condition, store R, ``store_source`` and ``k``: ``n_questions, n_left_out``, ``hit_rate``
        (of the k passages in the prompt) and ``answer_in_store``. Retrieval is measured at ``coverage_sizes`` stores
        beside the grid's.

        Raises
        ------
        ResultsError
            When prompts are not made yet, or a file was damaged since.
        """
        states = [state for state in self._states() if state.job.stage == "retrieve"]
        if not states or any(state.state != "done" for state in states):
            failed = failures_in_words(self.directory, self._states())
            raise ResultsError(
                f"nothing is retrieved yet: {failed or 'study.run(until=' + repr('retrieve') + ') is enough'}"
            )
        return pd.concat([read_coverage(self.directory, state.job) for state in states], ignore_index=True)

    def missing(self) -> pd.DataFrame:
        """Return the jobs that are not done, with what stopped them."""
        status = self.status()
        return status.query("state != 'done'").reset_index(drop=True)

    def missing_cells(self) -> pd.DataFrame:
        """Return the checkpoints (``model, seed, D``) of the plan whose cells are not evaluated."""
        waiting = [
            {"model": state.job.inputs.model, "seed": state.job.inputs.seed, "D": state.job.inputs.D}
            for state in self._states()
            if state.job.stage == "evaluate" and state.state != "done"
        ]
        return pd.DataFrame(waiting, columns=["model", "seed", "D"]).drop_duplicates(ignore_index=True)

    def fit(
        self,
        *,
        metric: str = "nll_per_token",
        task: str | None = None,
        law: str | ScalingLaw = "auto",
        store_source: str | None = None,
        k: int | None = None,
        **options: Unpack[FitOptions],
    ) -> ManifoldFit:
        """Fit L(N, D, R) to the closed-book and retrieved cells of one metric.

        Parameters
        ----------
        metric : str
            A metric of the results; by default the answer's loss per token.
        task : str, optional
            One task; by default the mean over tasks of each cell.
        law : str or ScalingLaw
            As in `ragscale.fit_manifold`, like ``options``.
        store_source : {"held-out", "seen"}, optional
            Which stores, where the study has both; by default held-out ones.
        k : int, optional
            Passages shown, where the study has several numbers; by default the smallest.

        Raises
        ------
        ConfigError
            When the study has no such source or k.
        FitError
            When no row has that metric and task.

        Warns
        -----
        StudyWarning
            Naming the cells of the plan that are not evaluated, so that the fit lacks them.
        """
        from ragscale.fitting import fit_manifold  # seconds of imports that the processes of jobs do without

        missing = self.missing_cells()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StudyWarning)  # said once, below
            results = self.results()
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
        rows = one_way(results, self.config, store_source=store_source, k=k)
        try:
            rows = rows_to_fit(rows, metric=metric, task=task, law=law)
        except ResultsError as error:
            raise FitError(str(error)) from error
        return fit_manifold(rows, law, **options)

    def answer(
        self,
        *,
        metric: str = "nll_per_token",
        task: str | None = None,
        store_source: str | None = None,
        k: int | None = None,
    ) -> str:
        """Return the first sentences of the report: whether retrieval helps, and the best split of the largest budget.

        ``store_source`` and ``k`` choose as in `fit`.

        Raises
        ------
        FitError, ResultsError
            When the results do not determine a surface.
        """
        from ragscale.study._report import answer_of

        return answer_of(self, metric=metric, task=task, store_source=store_source, k=k)

    def report(self, path: str | os.PathLike[str], **options: Unpack[ReportOptions]) -> Path:
        """Write the report: one self-contained HTML page, or Markdown with pictures beside it for ``.md``.

        See `ragscale.study.write_report` for the options.
        """
        from ragscale.study._report import write_report

        return write_report(self, path, **options)

    def shapes(self) -> pd.DataFrame:
        """Return the models: layers, width, and parameters counted in each convention."""
        vocab_size = self._sizes().vocab_size
        rows = []
        models: Any = self.config.models
        for model in models:
            shape = model.shape_for(vocab_size)
            counts = {"N": shape.n_params, "core": shape.n_core, "head": shape.n_head, "N_total": shape.n_params_total}
            rows.append({"model": model.name, "layers": shape.n_layers, "width": shape.d_model, **counts})
        return pd.DataFrame(rows)


def _with_ancestors(jobs: list[Job]) -> list[Job]:
    """Return jobs and all that must be done before them, parents first."""
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        if job.key not in found:
            for parent in job.before:
                add(parent)
            found[job.key] = job

    for job in jobs:
        add(job)
    return list(found.values())
