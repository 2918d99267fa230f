"""Search: the hits of all questions in all stores, where several jobs share the work or several k share the hits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ragscale._files import atomic_write
from ragscale.errors import ConfigError
from ragscale.evaluation import Task
from ragscale.evaluation._prepare import in_two
from ragscale.evaluation._queries import resolve_query
from ragscale.passages import Passage
from ragscale.retrieval import Retriever
from ragscale.retrieval._shards import search_shards
from ragscale.splitting import Store
from ragscale.study._inputs import SearchInputs
from ragscale.study._stage_index import load_index, store_of
from ragscale.study._stage_split import load_tasks
from ragscale.study._threads import limited_threads

_COSTLY_PASSAGES = 20_000  # from here a retriever without nested search is asked at the grid's stores alone
_ARRAYS = ("counts", "rows", "scores")


def search_questions(folder: Path, inputs: SearchInputs, folders: dict[str, Path]) -> list[str]:
    """Search the store of every size, with its shards as one index where it has several."""
    store = store_of(inputs.index, folders)
    queries = queries_of(load_tasks(inputs.tasks, folders["split"]))
    part, n_parts = inputs.part
    queries = queries[len(queries) * part // n_parts : len(queries) * (part + 1) // n_parts]
    n_shards = inputs.index.part[1]
    with limited_threads(inputs.threads):
        retriever = load_index(folders["index"], inputs.index) if n_shards == 1 else None
        sizes = set(inputs.stores)
        between = inputs.coverage_stores >= 2 and (retriever is None or not is_costly(retriever))
        if between:
            sizes |= {*sizes_between(store.n_tokens, len(store.passages), max(sizes), inputs.coverage_stores)}
        counts = sorted({store.passages.prefix(size)[0] for size in sizes} - {0})
        if retriever is None:
            found = search_shards([folders[f"index {i}"] / "index" for i in range(n_shards)], queries, inputs.k, counts)
        else:
            hits = retriever._hits(queries, inputs.k, counts)
            found = [(hits[n].ids, hits[n].scores) for n in counts]
    shape = (len(counts), len(queries), inputs.k)
    arrays = (
        np.array(counts, dtype=np.int64),
        np.array([rows for rows, _ in found], dtype=np.int64).reshape(shape),
        np.array([scores for _, scores in found], dtype=np.float32).reshape(shape),
    )
    for name, array in zip(_ARRAYS, arrays, strict=True):
        with atomic_write(folder / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
    with atomic_write(folder / "queries.json", "w", encoding="utf-8") as file:
        json.dump({"between": between, "queries": queries}, file)
    return [*(f"{name}.npy" for name in _ARRAYS), "queries.json"]


def queries_of(tasks: Sequence[Task]) -> list[str]:
    """Return every distinct query of the tasks, in order."""
    _, rule, _ = resolve_query("question")
    found: dict[str, None] = {}
    for task in tasks:
        for example in task.examples:
            if task.kind == "text":
                if task.prefix_words == 0:
                    continue
                asked = replace(example, question=in_two(task, example)[0])
            else:
                asked = example
            found[rule(task, asked)] = None
    return list(found)


def is_costly(retriever: Retriever) -> bool:
    """Tell whether stores between those of the grid would each cost an index of their own."""
    if isinstance(retriever, FoundBefore):
        return not retriever.between
    nested = type(retriever)._search_nested is not Retriever._search_nested
    return not nested and retriever.n_passages > _COSTLY_PASSAGES


def sizes_between(n_tokens: int, n_passages: int, most: int, n_sizes: int) -> list[int]:
    """Return store sizes, evenly in their logarithms, from about twenty passages to the largest store."""
    least = min(max(1, 20 * n_tokens // n_passages), max(1, most // 2))
    return sorted({round(size) for size in np.geomspace(least, most, n_sizes)} - {0})


class FoundBefore(Retriever):
    """Answers from hits that jobs found before; the passages are read from the split as they are shown.

    Parameters
    ----------
    name : str
        What results call the retriever.
    between : bool
        Whether stores between those of the grid were searched.
    """

    _counts: dict[int, int]  # passages of a store -> its place in the arrays
    _found: dict[str, tuple[int, int]]  # query -> part, row
    _hits_of: list[tuple[Any, Any]]  # of each part: rows and scores, (n_stores, n_queries, k), on disk

    def __init__(self, name: str, *, between: bool) -> None:
        self.name, self.between = name, between

    @classmethod
    def read(cls, name: str, folders: Sequence[Path], store: Store) -> Self:
        """Return the retriever of a store from the folders of the jobs that searched it."""
        told = [json.loads((folder / "queries.json").read_text(encoding="utf-8")) for folder in folders]
        self = cls(name, between=all(one["between"] for one in told))
        arrays = [[np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS] for folder in folders]
        self._prefixes = {}
        self._counts = {int(n): place for place, n in enumerate(arrays[0][0])}
        self._found = {query: (part, row) for part, one in enumerate(told) for row, query in enumerate(one["queries"])}
        self._hits_of = [(rows, scores) for _, rows, scores in arrays]
        self._set_passages(store.passages, np.cumsum(store.passages.n_new_tokens, dtype=np.int64))
        return self

    def _index(self, passages: Sequence[Passage]) -> None:
        raise ConfigError("these hits belong to a store that was indexed before")

    def _search(self, queries: Sequence[str], k: int) -> tuple[Any, Any]:
        return self._search_nested(queries, k, [self.n_passages])[0]

    def _search_nested(
        self, queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        lost = [n for n in n_passages_per_store if n not in self._counts]
        unknown = [query for query in queries if query not in self._found]
        if lost or unknown:
            raise ConfigError(f"these hits were not searched for: stores of {lost} passages, queries {unknown[:3]}")
        places = [self._found[query] for query in queries]
        return [
            (
                np.array([self._hits_of[part][0][self._counts[n], row, :k] for part, row in places]),
                np.array([self._hits_of[part][1][self._counts[n], row, :k] for part, row in places]),
            )
            for n in n_passages_per_store
        ]
