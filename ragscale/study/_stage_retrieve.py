"""Index, check, retrieve: what needs the retriever and no model."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ragscale._files import atomic_write
from ragscale.errors import ConfigError, StudyWarning
from ragscale.evaluation import PreparedPrompts, Task, TorchModel, prepare_prompts
from ragscale.evaluation._coverage import UNKNOWN, can_be_found, contains_answer
from ragscale.evaluation._evidence import answer_rows
from ragscale.evaluation._patterns import any_of
from ragscale.evaluation._prompt_files import save_prompts
from ragscale.evaluation._queries import resolve_query
from ragscale.retrieval import Retriever
from ragscale.splitting import Store, as_source
from ragscale.study._inputs import IndexInputs, RetrieveInputs
from ragscale.study._own_code import import_own
from ragscale.study._retrievers import RetrieverSpec
from ragscale.study._stage_split import load_tasks, split_in
from ragscale.study._threads import limited_threads

_SAMPLE_PASSAGES, _SAMPLE_QUESTIONS = 300, 50
# what a retriever must find depends on its language; its own store is looked at below
_OF_WORDS = ("finds_what_is_there", "one_passage_is_enough")
_NOT_HERE = "another_process_loads_it"  # the jobs of the study do, with the user's modules imported as they must be
_COSTLY_PASSAGES = 20_000  # from here a retriever without nested search is asked at the grid's stores alone


def check_own(folder: Path, inputs: IndexInputs, folders: dict[str, Path]) -> list[str]:
    """Run the contract of a retriever of the user's own, and look whether it finds anything, before models train."""
    from ragscale.testing._retriever import _CHECKS

    import_own(inputs.modules())
    spec = RetrieverSpec(inputs.retriever)
    notes = []
    with limited_threads(inputs.threads):
        for name, check in _CHECKS.items():
            if name == _NOT_HERE:
                continue
            try:
                check(spec.build)
            except AssertionError as error:
                said = " ".join(str(error).split())[:500]
                if name not in _OF_WORDS:
                    raise ConfigError(
                        f"{spec} breaks the contract of a retriever, which ragscale.testing.check_retriever tests: "
                        f"{name}: {said}"
                    ) from None
                notes.append(f"{name}: {said}")
        passages = list(_store(inputs, folders).passages[:_SAMPLE_PASSAGES])
        texts = [example.question for task in load_tasks(inputs.tasks, folders["split"]) for example in task.examples]
        texts = texts[:: max(1, len(texts) // _SAMPLE_QUESTIONS)][:_SAMPLE_QUESTIONS]
        hits = spec.build().index(passages).search(texts, 5)
    if texts and not (hits.ids >= 0).any():
        raise ConfigError(
            f"{spec} returned no passage for any of {len(texts)} questions from a store of {len(passages)} passages: "
            "look at what its _search returns"
        )
    with atomic_write(folder / "notes.txt", "w", encoding="utf-8") as file:
        file.writelines(f"{note}\n" for note in notes)
    for note in notes:
        warnings.warn(f"{spec}: {note}", StudyWarning, stacklevel=1)
    return ["notes.txt"]


def build_index(folder: Path, inputs: IndexInputs, folders: dict[str, Path]) -> list[str]:
    """Index the largest store; it serves every smaller one."""
    import_own(inputs.modules())
    store = _store(inputs, folders)
    shutil.rmtree(folder / "index", ignore_errors=True)  # a retriever saves into no folder that a kill left half full
    with limited_threads(inputs.threads):
        RetrieverSpec(inputs.retriever).build().index(store.passages).save(folder / "index")
    return ["index/retriever.json"]


def _store(inputs: IndexInputs, folders: dict[str, Path]) -> Store:
    return split_in(folders["split"]).store(inputs.store_tokens, inputs.store_source)  # type: ignore[arg-type]


def load_index(folder: Path, inputs: IndexInputs) -> Retriever:
    """Return the retriever that `build_index` saved, its class imported first."""
    import_own(inputs.modules())
    spec = RetrieverSpec(inputs.retriever)
    kind = spec.kind()
    spec.build()  # a function that makes the retriever may define or import its class
    return kind.load(folder / "index")


def prepare_questions(folder: Path, inputs: RetrieveInputs, folders: dict[str, Path]) -> list[str]:
    """Retrieve for every question and store, and make all prompts once for every model to come."""
    import torch

    split = split_in(folders["split"])
    tasks = load_tasks(inputs.tasks, folders["split"])
    reader = TorchModel(torch.nn.Identity(), split.tokenizer, max_length=inputs.max_length)  # its tokenizer is used
    with limited_threads(inputs.threads), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        retriever = load_index(folders["index"], inputs.index) if inputs.index is not None else None
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


def _refuse_nothing(prepared: PreparedPrompts, retriever: Retriever | None) -> None:
    """Refuse a retriever that found no passage for any question in any store: every cell would be a closed book."""
    shown = [asked.passages for cell in prepared.cells if cell.condition == "retrieved" for asked in cell.asked]
    if retriever is not None and shown and not any(shown):
        raise ConfigError(
            f"{type(retriever).__name__} returned no passage for any of {len(shown)} questions over all stores: look "
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
    nested = type(retriever)._search_nested is not Retriever._search_nested
    if inputs.coverage_stores < 2 or "retrieved" not in inputs.conditions:
        return []
    if not nested and retriever.n_passages > _COSTLY_PASSAGES:
        warnings.warn(
            f"{type(retriever).__name__} has no nested search, so hits are measured at the grid's stores alone: "
            "write _search_nested",
            StudyWarning,
            stacklevel=1,
        )
        return []
    most = max(inputs.stores)
    least = min(max(1, 20 * retriever.n_tokens // retriever.n_passages), max(1, most // 2))
    return sorted({round(size) for size in np.geomspace(least, most, inputs.coverage_stores)} - {0})


def _mean(values: list[bool | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def _read_gold(paths: list[str | Path]) -> dict[str, str] | None:
    """Read gold passages: JSON Lines with ``id`` and ``text``."""
    return {document.id: document.text for document in as_source(paths)} if paths else None
