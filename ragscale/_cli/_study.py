"""``ragscale study``: plan, run, look at and report an experiment that stands in a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ragscale._cli._out import say, say_table
from ragscale._counts import as_count
from ragscale.errors import ConfigError

_HELP = """\
The whole experiment from one file: a corpus is split, models are trained on D tokens and asked questions with stores of
R tokens, and the surface L(N, D, R) is fitted.

  ragscale study plan study.yaml --device H100 --devices 8 --price 2.5
  ragscale study run study.yaml --workers 2
  ragscale study status study.yaml
  ragscale study report study.yaml --out report.html

study.yaml holds the arguments of ragscale.study.StudyConfig. The smallest one, which needs no corpus:

  corpus: {synthetic: {n_documents: 8000}}     # or a list of files
  models: [0.15M, {rung: 0.5M, training: {learning_rate: 0.01}}]
  D: [100_000, 200_000]                        # or {values: [1, 5, 20], unit: per_parameter}
  R: [10_000, 50_000]
  budgets: [250_000]                           # every D below also gets the store R = T - D
  tokenizer: 1024                              # trained on the corpus; or a name or path
  k: 1
  training: {seq_len: 128}

Everything goes into a directory beside the file (study.yaml -> study/); give --directory for another. Stopped at any
moment, the same command goes on."""


def add(commands: Any) -> None:
    """Add the command and its four actions."""
    study = commands.add_parser(
        "study",
        help="plan, run and report an experiment",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    study.set_defaults(run=lambda options: study.print_help())
    actions = study.add_subparsers(dest="action", metavar="ACTION", title="actions")
    plan = _action(actions, "plan", "what it will cost: hours, money, memory, disk", run_plan)
    plan.add_argument("--device", help="such as H100, A100, CPU-core (default: this machine's)")
    plan.add_argument("--devices", default="1", metavar="COUNT", help="how many side by side (default: 1)")
    plan.add_argument("--price", metavar="MONEY", help="of one device for an hour")
    plan.add_argument("--cells", action="store_true", help="list every cell too")
    run = _action(actions, "run", "do it, or go on", run_run)
    run.add_argument(
        "--until", metavar="STAGE", help="stop after a stage: split, check, index, retrieve, train, evaluate"
    )
    run.add_argument("--workers", default="0", metavar="COUNT", help="processes side by side (default: this one)")
    run.add_argument("--gpus", default="0", metavar="COUNT", help="give each worker one of so many GPUs")
    run.add_argument("--slurm", metavar="PARTITION", help="submit the jobs to this partition")
    run.add_argument("--device", help="the cluster's GPU, from which time limits follow")
    status = _action(actions, "status", "where each job stands, and what failed", run_status)
    status.add_argument("--jobs", action="store_true", help="list every job")
    report = _action(actions, "report", "one page with the answer and how far it can be trusted", run_report)
    report.add_argument("--out", metavar="FILE", help=".html or .md (default: report.html in the directory)")
    report.add_argument("--metric", default="nll_per_token", help="the fitted metric (default: nll_per_token)")
    report.add_argument("--task", help="one task (default: the mean over tasks)")
    report.add_argument("--law", help="a law by name")


def _action(actions: Any, name: str, text: str, function: Any) -> argparse.ArgumentParser:
    command = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("study", metavar="FILE", help="study.yaml or .json, or the directory of a study that was run")
    command.add_argument("--directory", metavar="FOLDER", help="where the study's files go (default: beside FILE)")
    command.set_defaults(run=function)
    return command


def study_of(options: argparse.Namespace) -> Any:
    """Return the study that the arguments name."""
    from ragscale.study import Study, StudyConfig

    path = Path(options.study)
    if path.is_dir():
        if options.directory is not None:
            raise ConfigError(f"{path} is a directory already: leave out --directory, or name the study's file")
        return Study.open(path)
    config = StudyConfig.read(path)
    return Study(config, options.directory or path.with_suffix(""))


def run_plan(options: argparse.Namespace) -> int:
    """Say what the study costs."""
    price = None
    if options.price is not None:
        try:
            price = float(options.price)
        except ValueError:
            raise ConfigError(f"--price {options.price!r} must be a number, such as 2.5") from None
    devices = as_count("--devices", options.devices, least=1)
    plan = study_of(options).plan(options.device, n_devices=devices, price_per_hour=price)
    say(plan.summary())
    if options.cells:
        say("")
        names = ["model", "N", "seed", "D", "R", "on_frontier", "train_tokens", "device_hours", "money"]
        say_table(plan.cells, columns=names)
    return 0


def run_run(options: argparse.Namespace) -> int:
    """Run the study; 1 if jobs failed."""
    from ragscale.study import executors

    workers, gpus = as_count("--workers", options.workers), as_count("--gpus", options.gpus)
    if options.slurm is not None and workers:
        raise ConfigError("--slurm and --workers exclude each other")
    study = study_of(options)
    executor: Any = None
    if options.slurm is not None:
        folder = study.directory / "slurm-logs"
        executor = executors.slurm(folder, device=options.device, slurm_partition=options.slurm)
    elif workers:
        executor = executors.processes(workers, gpus=gpus)
    status = study.run(executor, until=options.until, device=options.device)
    _say_status(study, status, every=False)
    return int((status["state"] == "failed").any())


def run_status(options: argparse.Namespace) -> int:
    """Say where the study stands."""
    study = study_of(options)
    _say_status(study, study.status(), every=options.jobs)
    return 0


def _say_status(study: Any, status: Any, *, every: bool) -> None:
    counts = status.groupby(["stage", "state"], sort=False)["seconds"].agg(["size", "sum"]).reset_index()
    counts.columns = ["stage", "state", "jobs", "seconds"]
    say_table(counts)
    running = status[(status["state"] == "running") & status["step"].notna()]
    say_table(running, columns=["label", "step", "steps", "tokens_per_second", "hours_left"])
    failed = status[status["state"] == "failed"]
    for row in failed.to_dict("records"):
        say(f"failed: {row['stage']} {row['label']}: {row['error']}")
        say(f"        {study.directory / 'stages' / row['key'] / 'failed.json'}")
    if every:
        say_table(status, columns=["stage", "label", "state", "seconds", "key"])
    elif not len(failed) and (status["state"] == "done").all() and "evaluate" in set(status["stage"]):
        say(f"all is done: ragscale study report {study.directory}")


def run_report(options: argparse.Namespace) -> int:
    """Write the report."""
    study = study_of(options)
    out = options.out or study.directory / "report.html"
    extra = {} if options.law is None else {"law": options.law}
    path = study.report(out, metric=options.metric, task=options.task, **extra)
    say(path)
    return 0
