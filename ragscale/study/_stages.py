"""What each stage of a study does in its folder: functions of a module, on plain data, that can be entered again."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from ragscale import results as results_table
from ragscale._files import atomic_write, value_digest
from ragscale.errors import ConfigError, RagscaleError
from ragscale.evaluation import PromptTemplate, Task, TorchModel, evaluate, load_task, prepare_prompts
from ragscale.retrieval import Retriever
from ragscale.splitting import Split, as_source, split_corpus, train_tokenizer
from ragscale.study._plan import model_config
from ragscale.training import Checkpoint, TrainConfig, train


@contextmanager
def limited_threads(n_threads: int) -> Iterator[None]:
    """Compute with a fixed number of threads, so that sums are taken in one order on every machine of a kind."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_split(folder: Path, inputs: dict[str, Any], folders: dict[str, Path]) -> None:
    """Write the corpus as a split, and the questions beside it when the corpus is the synthetic world."""
    corpus = inputs["corpus"]
    if isinstance(corpus, dict):
        from ragscale.datasets import synthetic_corpus

        world = synthetic_corpus(**corpus["synthetic"])
        documents: Any = world.documents
        for name in dict.fromkeys(question["task"] for question in world.questions):
            with atomic_write(folder / "questions" / f"{name}.jsonl", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(q) + "\n" for q in world.questions if q["task"] == name)
        wanted = {identifier for question in world.questions for identifier in question["gold_passages"]}
        with atomic_write(folder / "gold.jsonl", "w", encoding="utf-8") as file:
            gold = (document for document in world.documents if document.id in wanted)
            file.writelines(json.dumps({"id": document.id, "text": document.text}) + "\n" for document in gold)
    else:
        documents = [corpus] if isinstance(corpus, str) else list(corpus)
    tokenizer = inputs["tokenizer"]
    if isinstance(tokenizer, int):
        kept = folder / "tokenizer"
        if not (kept / "tokenizer.json").exists():
            train_tokenizer(as_source(documents), tokenizer).save_pretrained(kept)
        tokenizer = str(kept)
    questions = load_tasks(inputs["decontaminate"], folder) if inputs["decontaminate"] is not None else ()
    split_corpus(
        documents,
        folder / "split",
        tokenizer=tokenizer,
        max_tokens=inputs["max_tokens"],
        validation_tokens=inputs["validation_tokens"],
        seed=inputs["seed"],
        deduplicate=inputs["deduplicate"],
        decontaminate=questions,
        passage_size=inputs["passage_tokens"],
        passage_overlap=inputs["passage_overlap"],
        n_workers=inputs["n_workers"],
        progress=False,
    )


def load_tasks(specifications: list[Any], split_folder: Path) -> list[Task]:
    """Read the tasks of a study; those of the synthetic world lie beside its split."""
    if not specifications:
        files = sorted((split_folder / "questions").glob("*.jsonl"))
        specifications = [
            {"path_or_name": path, "kind": "likelihood", "name": path.stem, "template": {"question": "{question}"}}
            for path in files
        ]
    return [_load(**(s if isinstance(s, dict) else {"path_or_name": s})) for s in specifications]


def _load(*, template: dict[str, Any] | None = None, **arguments: Any) -> Task:
    return load_task(**arguments, template=PromptTemplate(**template) if template is not None else None)


def train_ladder(folder: Path, inputs: dict[str, Any], folders: dict[str, Path]) -> None:
    """Train one model with one seed: a trunk, and a branch for every D.

    The run lies beside the stages, named by all of its inputs but the values of D: a study that asks for more of them
    later branches from the trunk that is there.
    """
    run = run_folder(inputs, folders["split"])
    n_processes = inputs["n_processes"]
    if n_processes == 1:
        train_here(run, inputs, folders["split"])
    else:
        arguments = {"run": str(run), "inputs": inputs, "split": str(folders["split"])}
        command = ["torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}"]
        done = subprocess.run(
            [sys.executable, "-m", *command, "-m", "ragscale.study._train_process", json.dumps(arguments)],
            env={**os.environ, "OMP_NUM_THREADS": str(inputs["threads"])},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            report = done.stderr.rstrip().rstrip("=\n")  # ends with what failed first, under a ruler
            raise RagscaleError(f"torchrun ended with {done.returncode}:\n{report[-4000:]}")
    with atomic_write(folder / "run.json", "w", encoding="utf-8") as file:
        json.dump({"run": run.name}, file)


def run_folder(inputs: dict[str, Any], split_folder: Path) -> Path:
    """Return the folder of a training run: ``runs/`` of the study, and the digest of what decides the run."""
    deciding = {name: inputs[name] for name in ("model", "training", "seed", "threads")}
    return split_folder.parents[1] / "runs" / value_digest([deciding, split_folder.name])[:16]


def train_here(run: Path, inputs: dict[str, Any], split_folder: Path) -> None:
    """Train in this process (one of several under torchrun)."""
    split = Split.load(split_folder / "split")
    config = TrainConfig(**{**inputs["training"], "seed": inputs["seed"]})
    with limited_threads(inputs["threads"]):
        train(
            model_config(inputs["model"], split.vocab_size),
            split,
            config,
            tokens=inputs["tokens"],
            out=run,
            resume=True,
            progress=False,
        )


def build_index(folder: Path, inputs: dict[str, Any], folders: dict[str, Path]) -> None:
    """Index the largest store; it serves every smaller one."""
    split = Split.load(folders["split"] / "split")
    store = split.store(inputs["store_tokens"])
    shutil.rmtree(folder / "index", ignore_errors=True)  # a retriever saves into no folder that a kill left half full
    with limited_threads(inputs["threads"]):
        make_retriever(inputs["retriever"]).index(store.passages).save(folder / "index")


def make_retriever(specification: dict[str, Any]) -> Retriever:
    """Build the retriever that a configuration names.

    Raises
    ------
    ConfigError
        When a factory cannot be imported or gives no retriever.
    """
    from ragscale import retrieval

    arguments = {name: value for name, value in specification.items() if name not in {"kind", "factory"}}
    if "factory" in specification:
        module, _, name = specification["factory"].partition(":")
        try:
            retriever = getattr(importlib.import_module(module), name)(**arguments)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"retriever factory {specification['factory']!r} cannot be used: {error}") from error
        if not isinstance(retriever, Retriever):
            raise ConfigError(f"retriever factory {specification['factory']!r} gave a {type(retriever).__name__}")
        return retriever
    kind = specification["kind"]
    if kind == "bm25":
        return retrieval.BM25Retriever(**arguments)
    dense = retrieval.DenseRetriever(retrieval.LsaEncoder(**arguments))
    return dense if kind == "lsa" else retrieval.HybridRetriever(retrieval.BM25Retriever(), dense)


def prepare_questions(folder: Path, inputs: dict[str, Any], folders: dict[str, Path]) -> None:
    """Retrieve for every question and store, and make all prompts once for every model to come."""
    import torch

    split = Split.load(folders["split"] / "split")
    retriever = Retriever.load(folders["index"] / "index") if "index" in folders else None
    tasks = load_tasks(inputs["tasks"], folders["split"])
    reader = TorchModel(torch.nn.Identity(), split.tokenizer, max_length=inputs["max_length"])  # its tokenizer is used
    with limited_threads(inputs["threads"]), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepared = prepare_prompts(
            tasks,
            reader,
            retriever=retriever,
            store_tokens=inputs["stores"],
            k=inputs["k"],
            condition=inputs["conditions"],
            n_shot=inputs["n_shot"],
            gold=_read_gold([*inputs["gold"], *folders["split"].glob("gold.jsonl")]),
            max_length=inputs["max_length"],
        )
    with atomic_write(folder / "prompts.pickle") as file:
        pickle.dump(prepared, file, protocol=5)
    coverage = [
        {
            "task": cell.task.name,
            "condition": cell.condition,
            "R": cell.R,
            "n_questions": len(cell.asked),
            "n_left_out": len(cell.left_out),
            "hit_rate": _mean([asked.hit for asked in cell.asked]),
            "answer_in_store": _mean([asked.in_store for asked in cell.asked]),
        }
        for cell in prepared.cells
    ]
    with atomic_write(folder / "coverage.csv", "w", encoding="utf-8", newline="") as file:
        pd.DataFrame(coverage).to_csv(file, index=False)
    with atomic_write(folder / "warnings.txt", "w", encoding="utf-8") as file:
        file.writelines(f"{warning.message}\n" for warning in caught)


def _mean(values: list[bool | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def _read_gold(paths: list[str | Path]) -> dict[str, str] | None:
    """Read gold passages: JSON Lines with ``id`` and ``text``."""
    return {document.id: document.text for document in as_source(paths)} if paths else None


def evaluate_run(folder: Path, inputs: dict[str, Any], folders: dict[str, Path]) -> None:
    """Score one checkpoint closed-book, with every store of its cells, and under the controls."""
    with open(folders["questions"] / "prompts.pickle", "rb") as file:
        prepared = pickle.load(file)
    with open(folders["train"] / "run.json", encoding="utf-8") as file:
        run = folders["train"].parents[1] / "runs" / json.load(file)["run"]
    stores = set(inputs["stores"])
    mine = replace(prepared, cells=tuple(cell for cell in prepared.cells if cell.R in stores))
    checkpoint = Checkpoint.load(run / f"D{inputs['D']}", verify=False)
    with limited_threads(inputs["threads"]):
        evaluation = evaluate(checkpoint, mine, out=folder / "cells")
    split = Split.load(folders["split"] / "split")
    rows = evaluation.results.assign(
        model=inputs["model"],
        split=split.digest[:12],
        overlap=evaluation.results["R"] + evaluation.results["D"] > split.n_tokens,
        validation_loss=checkpoint.validation_loss,
        flops=checkpoint.flops,
    )
    results_table.write(rows, folder / "results.jsonl")
