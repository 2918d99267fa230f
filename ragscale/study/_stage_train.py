"""Train and evaluate: pieces of a run that lies beside the stages, and the checkpoints that come out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ragscale import results as results_table
from ragscale._extras import require
from ragscale._files import atomic_write, file_digest, value_digest
from ragscale.errors import CheckpointError, RagscaleError
from ragscale.evaluation import evaluate
from ragscale.evaluation._prompt_files import load_prompts
from ragscale.study._inputs import EvaluateInputs, TrainInputs
from ragscale.study._stage_split import split_in
from ragscale.study._threads import limited_threads
from ragscale.study._variants import part_of_a_table, with_source
from ragscale.training import Checkpoint, make_plan, train

_SHORT_FLOPS = 3e16  # minutes on a GPU: less than torch.compile would take again for every piece


def train_piece(folder: Path, inputs: TrainInputs, folders: dict[str, Path]) -> list[str]:
    """Train the trunk up to a step, or the branch of one D.

    The run lies beside the stages, named by all that decides it but the values of D: a study that asks for more of
    them later branches from the trunk that is there.
    """
    run = run_folder(inputs, folders["split"])
    if inputs.n_processes == 1:
        train_here(run, inputs, folders["split"])
    else:
        _train_under_torchrun(run, inputs, folders["split"])
    record = {"run": run.name, "D": inputs.D}
    if inputs.D is not None:
        record["checkpoint"] = file_digest(run / f"D{inputs.D}" / "ragscale.json")
    with atomic_write(folder / "run.json", "w", encoding="utf-8") as file:
        json.dump(record, file)
    return ["run.json"]


def run_folder(inputs: TrainInputs, split_folder: Path) -> Path:
    """Return the folder of a training run: ``runs/`` of the study, and the digest of what decides the run."""
    return split_folder.parents[1] / "runs" / value_digest([inputs.run_counts(), split_folder.name])[:16]


def train_here(run: Path, inputs: TrainInputs, split_folder: Path) -> None:
    """Train in this process (one of several under torchrun)."""
    together = _is_short_on_gpu(inputs)
    with limited_threads(inputs.threads):
        train(
            inputs.model,
            split_in(split_folder),
            inputs.training,
            tokens=inputs.ladder if together else _tokens_of(inputs),
            out=run,
            resume=True,
            progress=False,
            only_trunk=inputs.D is None and not together,
        )


def _tokens_of(inputs: TrainInputs) -> tuple[int, ...]:
    """Return the D to train: a branch's own alone, but all up to it where one run passes through them (wsd-s)."""
    if inputs.D is None or inputs.training.schedule == "wsd-s":
        return inputs.tokens
    return (inputs.D,)


def _is_short_on_gpu(inputs: TrainInputs) -> bool:
    """Tell whether the whole ladder is best trained at once: on a GPU, when compiling costs more than it all.

    The jobs of the other pieces then find their checkpoints there.
    """
    import torch

    if not torch.cuda.is_available() or inputs.training.compile is False:
        return False
    plan = make_plan(inputs.model, inputs.training, inputs.ladder)
    return plan.tokens_trained * inputs.model.flops(inputs.training.seq_len) < _SHORT_FLOPS


def _train_under_torchrun(run: Path, inputs: TrainInputs, split_folder: Path) -> None:
    from ragscale.study._train_process import to_text

    command = ["torch.distributed.run", "--standalone", f"--nproc_per_node={inputs.n_processes}"]
    text = to_text(run, inputs, split_folder)
    done = subprocess.run(
        [sys.executable, "-m", *command, "-m", "ragscale.study._train_process", text],
        env={**os.environ, "OMP_NUM_THREADS": str(inputs.threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        report = done.stderr.rstrip().rstrip("=\n")  # ends with what failed first, under a ruler
        raise RagscaleError(f"torchrun ended with {done.returncode}:\n{report[-4000:]}")


def checkpoint_of(train_folder: Path) -> Path:
    """Return the checkpoint that a training job's folder names.

    Raises
    ------
    CheckpointError
        When it is not the one that the job wrote.
    """
    record = json.loads((train_folder / "run.json").read_text(encoding="utf-8"))
    path = train_folder.parents[1] / "runs" / record["run"] / f"D{record['D']}"
    if not (path / "ragscale.json").exists() or file_digest(path / "ragscale.json") != record["checkpoint"]:
        raise CheckpointError(f"{path} is missing or another checkpoint than this study trained: delete {train_folder}")
    return path


def evaluate_run(folder: Path, inputs: EvaluateInputs, folders: dict[str, Path]) -> list[str]:
    """Score one checkpoint closed-book, with every store of its cells, and under the controls."""
    require("torch", "train")  # before its threads are limited
    prepared = load_prompts(folders["questions"] / "prompts", set(inputs.stores) | {0})
    checkpoint = Checkpoint.load(checkpoint_of(folders["train"]))
    with limited_threads(inputs.threads):
        evaluation = evaluate(checkpoint, prepared, out=folder / "cells")
    split = split_in(folders["split"])
    rows = evaluation.results.assign(
        model=inputs.model,
        split=split.digest[:12],
        overlap=(evaluation.results["R"] + evaluation.results["D"] > split.n_tokens) & (inputs.source == "held-out"),
        validation_loss=checkpoint.validation_loss,
        flops=checkpoint.flops,
    )
    with part_of_a_table():
        results_table.write(with_source(rows, split, inputs.source), folder / "results.jsonl")
    return ["results.jsonl"]
