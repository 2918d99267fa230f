"""What each stage of a study does in its folder: functions of a module, on plain data, that can be entered again."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragscale._files import atomic_write, value_digest
from ragscale.errors import ConfigError, RagscaleError
from ragscale.evaluation import Task, load_task
from ragscale.retrieval import Retriever
from ragscale.splitting import Split, as_source, split_corpus, train_tokenizer
from ragscale.study._plan import model_config
from ragscale.training import TrainConfig, train


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
        return [load_task(path, kind="likelihood", name=path.stem) for path in files]
    return [load_task(s) if isinstance(s, str) else load_task(**s) for s in specifications]


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
            raise RagscaleError(f"torchrun ended with {done.returncode}:\n{done.stderr[-4000:]}")
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
    with limited_threads(inputs["threads"]):
        make_retriever(inputs["retriever"]).index(store.passages).save(folder / "index")


def make_retriever(specification: dict[str, Any]) -> Retriever:
    """Build the retriever that a configuration names.

    Raises
    ------
    ConfigError
        When a factory cannot be imported or gives no retriever.
    """
    from ragscale.retrieval import BM25Retriever, DenseRetriever, HybridRetriever, LsaEncoder

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
        return BM25Retriever(**arguments)
    dense = DenseRetriever(LsaEncoder(**arguments))
    return dense if kind == "lsa" else HybridRetriever(BM25Retriever(), dense)


def prepare_questions(folder: Path, inputs: dict[str, Any], folders: dict[str, Path]) -> None:
    raise NotImplementedError


def evaluate_run(folder: Path, inputs: dict[str, Any], folders: dict[str, Path]) -> None:
    raise NotImplementedError
