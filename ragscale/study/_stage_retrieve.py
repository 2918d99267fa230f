"""Retrieve: the prompts of every question and store, which need no model."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from ragscale._files import atomic_write
from ragscale.errors import ConfigError, StudyWarning
from ragscale.evaluation import PreparedPrompts, Task, TorchModel, prepare_prompts
from ragscale.evaluation._coverage import UNKNOWN, can_be_found, contains_answer
from ragscale.evaluation._evidence import answer_rows
from ragscale.evaluation._patterns import any_of
from ragscale.evaluation._prepare import retriever_name
from ragscale.evaluation._prompt_files import save_prompts
from ragscale.evaluation._queries import resolve_query
from ragscale.retrieval import Retriever
from ragscale.splitting import as_source
from ragscale.study._inputs import RetrieveInputs
from ragscale.study._jobs import require_outputs
from ragscale.study._own_code import import_own
from ragscale.study._retrievers import RetrieverSpec
from ragscale.study._stage_index import load_index, store_of
from ragscale.study._stage_search import FoundBefore, is_costly, sizes_between
from ragscale.study._stage_split import load_tasks, split_in
from ragscale.study._threads import limited_threads


def prepare_questions(folder: Path, inputs: RetrieveInputs, folders: dict[str, Path]) -> list[str]:
    """Retrieve for every question and store, and make all prompts once for every model to come."""
    import torch

    split = split_in(folders["split"])
    tasks = load_tasks(inputs.tasks, folders["split"])
    reader = TorchModel(torch.nn.Identity(), split.tokenizer, max_length=inputs.max_length)  # its tokenizer is used
    with limited_threads(inputs.threads), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        retriever = _retriever(folder, inputs, folders)
        prepared = prepare_prompts(
            tasks,
            reader,
            retriever=retriever,
            store_tokens=inputs.stores,
            k=inputs.k,
            condition=inputs.conditions,
            n_shot=inputs.n_shot,
            gold=_read_gold([*inputs.gold, *folders["split"].glob("gold.jsonl")]),
            max_length=inputs.max_length,
        )
        _refuse_nothing(prepared, retriever)
        rows = _coverage_of_prompts(prepared)
        if retriever is not None:
            rows += _coverage_between(tasks, retriever, inputs)
    shutil.rmtree(folder / "prompts", ignore_errors=True)
    names = save_prompts(prepared, folder / "prompts")
    order = ["task", "condition", "R"]
    coverage = pd.DataFrame(rows).drop_duplicates(order).sort_values(order, kind="stable", ignore_index=True)
    with atomic_write(folder / "coverage.csv", "w", encoding="utf-8", newline="") as file:
        coverage.to_csv(file, index=False)
    with atomic_write(folder / "warnings.txt", "w", encoding="utf-8") as file:
        file.writelines(f"{warning.message}\n" for warning in caught)
    return [*names, "coverage.csv", "warnings.txt"]


def _retriever(folder: Path, inputs: RetrieveInputs, folders: dict[str, Path]) -> Retriever | None:
    """Return what answers for the store: the index, or what was found in it before."""
    if inputs.index is None or not inputs.hits:
        return None if inputs.index is None else load_index(folders["index"], inputs.index)
    searched = [folder.parent / key for key in inputs.hits]
    for path in searched:
        require_outputs(path)
    import_own(inputs.index.modules())
    name = retriever_name(RetrieverSpec(inputs.index.retriever).build())
    return FoundBefore.read(name, searched, store_of(inputs.index, folders))


def _refuse_nothing(prepared: PreparedPrompts, retriever: Retriever | None) -> None:
    """Refuse a retriever that found no passage for any question in any store: every cell would be a closed book."""
    shown = [asked.passages for cell in prepared.cells if cell.condition == "retrieved" for asked in cell.asked]
    if retriever is not None and shown and not any(shown):
        raise ConfigError(
            f"{retriever_name(retriever)} returned no passage for any of {len(shown)} questions over all stores: look "
            "at what its _search returns"
        )


def _coverage_of_prompts(prepared: PreparedPrompts) -> list[dict[str, Any]]:
    return [
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


def _coverage_between(tasks: list[Task], retriever: Retriever, inputs: RetrieveInputs) -> list[dict[str, Any]]:
    """Measure hits at more store sizes than models are asked with: one search of the nested stores gives all."""
    sizes = _sizes_between(retriever, inputs)
    if not sizes:
        return []
    _, rule, _ = resolve_query("question")
    found = answer_rows(tasks, retriever, sizes)
    rows = []
    for task in tasks:
        answerable = [row for row, example in enumerate(task.examples) if can_be_found(example)]
        if task.kind == "text" or not answerable:
            continue
        hits = retriever.search([rule(task, example) for example in task.examples], inputs.k, store_tokens=sizes)
        known: dict[tuple[int, int], bool | None] = {}
        for size in sizes:
            hit = []
            for row in answerable:
                shown = [int(passage) for passage in hits[size].ids[row] if passage >= 0]
                for passage in shown:
                    if (row, passage) not in known:
                        known[row, passage] = contains_answer(task.examples[row], retriever.passages[passage].text)
                hit.append(any_of(known[row, passage] for passage in shown) if shown else None)
            n_inside = retriever.n_passages_in_store(size)
            first = found[task.name][answerable].tolist()
            rows.append(
                {
                    "task": task.name,
                    "condition": "retrieved",
                    "R": size,
                    "n_questions": len(task.examples),
                    "n_left_out": 0,
                    "hit_rate": _mean(hit),
                    "answer_in_store": _mean([None if row == UNKNOWN else 0 <= row < n_inside for row in first]),
                }
            )
    return rows


def _sizes_between(retriever: Retriever, inputs: RetrieveInputs) -> list[int]:
    """Return store sizes, evenly in their logarithms, from about twenty passages to the largest store."""
    if inputs.coverage_stores < 2 or "retrieved" not in inputs.conditions:
        return []
    if is_costly(retriever):
        warnings.warn(
            f"{retriever_name(retriever)} has no nested search, so hits are measured at the grid's stores alone: "
            "write _search_nested",
            StudyWarning,
            stacklevel=1,
        )
        return []
    return sizes_between(retriever.n_tokens, retriever.n_passages, max(inputs.stores), inputs.coverage_stores)


def _mean(values: list[bool | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def _read_gold(paths: list[str | Path]) -> dict[str, str] | None:
    """Read gold passages: JSON Lines with ``id`` and ``text``."""
    return {document.id: document.text for document in as_source(paths)} if paths else None
