"""Check and index: what comes before any question is asked of a store."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any, cast

from ragscale._files import atomic_write
from ragscale.errors import ConfigError, StudyWarning
from ragscale.retrieval import Retriever
from ragscale.splitting import Store
from ragscale.study._inputs import IndexInputs
from ragscale.study._own_code import import_own
from ragscale.study._retrievers import RetrieverSpec
from ragscale.study._stage_split import load_tasks, split_in
from ragscale.study._threads import limited_threads

_SAMPLE_PASSAGES, _SAMPLE_QUESTIONS = 300, 50
# what a retriever must find depends on its language; its own store is looked at below
_OF_WORDS = ("finds_what_is_there", "one_passage_is_enough")
_NOT_HERE = "another_process_loads_it"  # the jobs of the study do, with the user's modules imported as they must be


def check_own(folder: Path, inputs: IndexInputs, folders: dict[str, Path]) -> list[str]:
    """Run the contract of a retriever of the user's own, and look whether it finds anything, before models train."""
    from ragscale.testing._retriever import CHECKS

    import_own(inputs.modules())
    spec = RetrieverSpec(inputs.retriever)
    notes = []
    with limited_threads(inputs.threads):
        for name, check in CHECKS.items():
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
        passages = list(store_of(inputs, folders).passages[:_SAMPLE_PASSAGES])
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
    """Index the largest store, or one run of its passages; it serves every smaller one."""
    import_own(inputs.modules())
    passages = store_of(inputs, folders).passages
    part, n_parts = inputs.part
    kept = passages[len(passages) * part // n_parts : len(passages) * (part + 1) // n_parts]
    if not len(kept):
        raise ConfigError(f"index_shards = {n_parts} leaves no passage for some: the store has {len(passages)}")
    shutil.rmtree(folder / "index", ignore_errors=True)  # a retriever saves into no folder that a kill left half full
    with limited_threads(inputs.threads):
        retriever = RetrieverSpec(inputs.retriever).build().index(kept)
        retriever.save(folder / "index", store_passages=n_parts == 1)  # those of shards are read from the split
    return ["index/retriever.json"]


def store_of(inputs: IndexInputs, folders: dict[str, Path]) -> Store:
    """Return the store that is indexed."""
    return split_in(folders["split"]).store(inputs.store_tokens, cast(Any, inputs.store_source))


def load_index(folder: Path, inputs: IndexInputs) -> Retriever:
    """Return the retriever that `build_index` saved, its class imported first."""
    import_own(inputs.modules())
    spec = RetrieverSpec(inputs.retriever)
    kind = spec.kind()
    spec.build()  # a function that makes the retriever may define or import its class
    return kind.load(folder / "index")
