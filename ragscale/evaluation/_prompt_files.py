"""Prepared prompts on disk: a folder for each task, token ids memory-mapped, the rest JSON; nothing that runs code."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ragscale._files import (
    check_digest,
    check_fields,
    damaged,
    disk_errors,
    file_digests,
    read_json,
    recover_folder,
    whole_folder,
    write_json,
)
from ragscale.errors import CheckpointError
from ragscale.evaluation._fitting_prompts import Cut
from ragscale.evaluation._language_model import ScoreRequest
from ragscale.evaluation._prepare import Asked, Cell, PreparedPrompts, Prompt
from ragscale.evaluation._task_values import example_from, task_from
from ragscale.evaluation._tasks import Task

_SCHEMA, _VERSION = "ragscale-prompts", 1
_OURS = re.compile(r"\d{3}")
_ARRAYS = ("tokens.npy", "ends.npy")
_FIELDS = {
    "task": dict,
    "scored": list,
    "settings": dict,
    "tokenizer": str,
    "max_length": int,
    "prompts": list,
    "cells": list,
    "files": dict,
}


def save_prompts(prepared: PreparedPrompts, folder: Path) -> list[str]:
    """Write the prompts of every task into a folder of its own, all or nothing; return the names of the files."""
    written = []
    older = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if _OURS.fullmatch(file.parent.name)]
    with whole_folder(folder, ours=older) as whole:
        for place, name in enumerate(dict.fromkeys(cell.task.name for cell in prepared.cells)):
            cells = tuple(cell for cell in prepared.cells if cell.task.name == name)
            _save_task(replace(prepared, cells=cells), whole / f"{place:03d}", name)
            written += [f"{folder.name}/{place:03d}/{part}" for part in ("prompts.json", *_ARRAYS)]
    return written


def load_prompts(folder: Path, stores: Collection[int] | None = None) -> PreparedPrompts:
    """Return all tasks' prompts, with the cells of some stores only; token ids are read as they are asked for.

    Raises
    ------
    CheckpointError
        When a file is damaged or does not belong to the others.
    """
    recover_folder(folder)
    with disk_errors(folder, "read"):
        places = sorted(path for path in folder.iterdir() if path.is_dir() and _OURS.fullmatch(path.name))
    parts = [_load_task(path, stores) for path in places]
    if not parts:
        raise CheckpointError(f"{folder} holds no prompts")
    prompts = _Several([part.prompts for part in parts])
    scored = {name: examples for part in parts for name, examples in part.scored.items()}
    return replace(parts[0], cells=tuple(cell for part in parts for cell in part.cells), prompts=prompts, scored=scored)


def _save_task(prepared: PreparedPrompts, folder: Path, name: str) -> None:
    wanted = dict.fromkeys(
        digest
        for cell in prepared.cells
        for asked in cell.asked
        for digest in (asked.prompt, asked.unconditional)
        if digest is not None
    )
    prompts = [prepared.prompts[digest] for digest in wanted]
    sequences = [ids for p in prompts for request in p.requests for ids in (request.context, *request.continuations)]
    lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
    flat = np.fromiter((token for ids in sequences for token in ids), dtype=np.int32, count=int(lengths.sum()))
    folder.mkdir()
    for file_name, array in zip(_ARRAYS, (flat, np.cumsum(lengths)), strict=True):
        np.save(folder / file_name, array, allow_pickle=False)
    task = prepared.cells[0].task
    value = {
        "task": asdict(task),
        "scored": [asdict(example) for example in prepared.scored[name]],
        "settings": dict(prepared.settings),
        "tokenizer": prepared.tokenizer,
        "max_length": prepared.max_length,
        "prompts": [[p.digest, p.generate, [len(r.continuations) for r in p.requests]] for p in prompts],
        "cells": [_cell_to_dict(cell) for cell in prepared.cells],
        "files": file_digests(folder),
    }
    write_json(folder / "prompts.json", value, schema=_SCHEMA, version=_VERSION)


def _cell_to_dict(cell: Cell) -> dict[str, Any]:
    asked = [
        [a.example, a.prompt, a.unconditional, list(a.passages), a.hit, a.in_store, a.n_prompt_tokens, asdict(a.cut)]
        for a in cell.asked
    ]
    return {
        "condition": cell.condition,
        "R": cell.R,
        "digest": cell.digest,
        "left_out": list(cell.left_out),
        "asked": asked,
    }


def _load_task(folder: Path, stores: Collection[int] | None) -> PreparedPrompts:
    value = read_json(folder / "prompts.json", schema=_SCHEMA, version=_VERSION, fields=_FIELDS)
    for name in _ARRAYS:
        check_fields(value["files"], {name: str}, name=str(folder / "prompts.json"))
        check_digest(folder / name, value["files"][name])
    with damaged(folder):
        tokens, ends = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _ARRAYS)
        task = task_from(value["task"])
        scored = tuple(example_from(example) for example in value["scored"])
        prompts = _Stored(value["prompts"], tokens, ends)
        cells = tuple(_cell_from(task, cell) for cell in value["cells"] if stores is None or cell["R"] in stores)
        wanted = {digest for cell in cells for a in cell.asked for digest in (a.prompt, a.unconditional) if digest}
        if not wanted <= set(prompts) or any(not 0 <= a.example < len(scored) for cell in cells for a in cell.asked):
            raise CheckpointError(f"the prompts in {folder} are damaged: questions and prompts do not belong together")
        return PreparedPrompts(
            cells, prompts, value["settings"], value["tokenizer"], value["max_length"], {task.name: scored}
        )


def _cell_from(task: Task, value: dict[str, Any]) -> Cell:
    asked = tuple(
        Asked(row, prompt, alone, tuple(passages), hit, in_store, n_tokens, Cut(**cut))
        for row, prompt, alone, passages, hit, in_store, n_tokens, cut in value["asked"]
    )
    return Cell(task, value["condition"], value["R"], asked, tuple(value["left_out"]), value["digest"])


class _Stored(Mapping[str, Prompt]):
    """Prompts of one task, their token ids read from the map when a prompt is asked for."""

    def __init__(self, prompts: list[list[Any]], tokens: Any, ends: Any) -> None:
        self._tokens, self._ends = tokens, ends
        self._places: dict[str, tuple[int, bool, list[int]]] = {}
        first = 0
        for digest, generate, continuations in prompts:
            self._places[digest] = (first, generate, continuations)
            first += sum(1 + n for n in continuations)
        if first != len(ends) or (len(ends) and int(ends[-1]) != len(tokens)):
            raise ValueError("token ids and prompts do not belong together")

    def __getitem__(self, digest: str) -> Prompt:
        place, generate, continuations = self._places[digest]
        requests = []
        for n in continuations:
            ids = [self._sequence(place + i) for i in range(1 + n)]
            requests.append(ScoreRequest(ids[0], tuple(ids[1:])))
            place += 1 + n
        return Prompt(digest, tuple(requests), generate)

    def _sequence(self, place: int) -> tuple[int, ...]:
        start = int(self._ends[place - 1]) if place else 0
        return tuple(self._tokens[start : int(self._ends[place])].tolist())

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, digest: object) -> bool:
        return digest in self._places


class _Several(Mapping[str, Prompt]):
    """The prompts of several tasks as one mapping."""

    def __init__(self, parts: list[Mapping[str, Prompt]]) -> None:
        self._parts = parts

    def __getitem__(self, digest: str) -> Prompt:
        for part in self._parts:
            if digest in part:
                return part[digest]
        raise KeyError(digest)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(digest for part in self._parts for digest in part))

    def __len__(self) -> int:
        return sum(1 for _ in self)
