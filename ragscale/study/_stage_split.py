"""The split of a study: made from files or from the invented world, or one that exists already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from ragscale._files import atomic_write
from ragscale.errors import SplitError
from ragscale.evaluation import Task
from ragscale.splitting import Split, as_source, split_corpus
from ragscale.splitting._tokenizers import trained_tokenizer
from ragscale.study._inputs import GivenSplit, SplitInputs
from ragscale.study._task_specs import TaskSpec


def make_split(folder: Path, inputs: SplitInputs, folders: dict[str, Path]) -> list[str]:
    """Write the corpus as a split, and the questions beside it when the corpus is the synthetic world."""
    documents: Any = inputs.corpus
    names = ["split/manifest.json"]
    if isinstance(documents, dict):
        documents, written = _write_world(folder, documents["synthetic"])
        names += written
    tokenizer = inputs.tokenizer
    if isinstance(tokenizer, int):
        kept = folder / "tokenizer"
        if not (kept / "tokenizer.json").exists():
            trained_tokenizer(as_source(documents), tokenizer).save(kept)
        tokenizer = str(kept)
    questions = load_tasks(inputs.tasks, folder) if inputs.tasks is not None else ()
    split_corpus(
        documents,
        folder / "split",
        tokenizer=tokenizer,
        max_tokens=inputs.max_tokens,
        validation_tokens=inputs.validation_tokens,
        seed=inputs.seed,
        deduplicate=cast(Any, inputs.deduplicate),
        decontaminate=questions,
        passage_tokens=inputs.passage_tokens,
        passage_overlap=inputs.passage_overlap,
        n_workers=inputs.n_workers,
        progress=False,
    )
    return names


def _write_world(folder: Path, arguments: dict[str, Any]) -> tuple[Any, list[str]]:
    """Write the questions and gold passages of the synthetic world; return its documents and the files' names."""
    from ragscale.datasets import synthetic_corpus

    world = synthetic_corpus(**arguments)
    names = []
    for name in dict.fromkeys(question["task"] for question in world.questions):
        names.append(f"questions/{name}.jsonl")
        with atomic_write(folder / names[-1], "w", encoding="utf-8") as file:
            file.writelines(json.dumps(q) + "\n" for q in world.questions if q["task"] == name)
    wanted = {identifier for question in world.questions for identifier in question["gold_passages"]}
    with atomic_write(folder / "gold.jsonl", "w", encoding="utf-8") as file:
        gold = (document for document in world.documents if document.id in wanted)
        file.writelines(json.dumps({"id": document.id, "text": document.text}) + "\n" for document in gold)
    return world.documents, [*names, "gold.jsonl"]


def use_split(folder: Path, inputs: GivenSplit, folders: dict[str, Path]) -> list[str]:
    """Note where the split lies that the study was given."""
    split = Split.load(inputs.path)
    if split.digest != inputs.digest:
        raise SplitError(f"{inputs.path} holds another split now (digest {split.digest[:12]}): run the study again")
    with atomic_write(folder / "split.json", "w", encoding="utf-8") as file:
        json.dump({"path": str(Path(inputs.path).resolve())}, file)
    return ["split.json"]


def split_in(folder: Path) -> Split:
    """Return the split of a split job's folder."""
    given = folder / "split.json"
    return Split.load(json.loads(given.read_text(encoding="utf-8"))["path"] if given.exists() else folder / "split")


def load_tasks(specifications: tuple[str, ...], split_folder: Path) -> list[Task]:
    """Read the tasks of a study; those of the synthetic world lie beside its split."""
    if not specifications:
        template = {"question": "{question}"}
        specifications = tuple(
            TaskSpec.of({"path_or_name": str(path), "kind": "likelihood", "name": path.stem, "template": template}).text
            for path in sorted((split_folder / "questions").glob("*.jsonl"))
        )
    return [TaskSpec(text).load() for text in specifications]
