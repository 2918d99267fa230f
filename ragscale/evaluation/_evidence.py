"""What stands before the question: retrieved, unrelated or gold passages, for all questions of a task."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._scripts import whole_characters
from ragscale.errors import ConfigError
from ragscale.evaluation._coverage import contains_answer, first_passage_with_answer, words
from ragscale.evaluation._tasks import Example, Task
from ragscale.passages import Passage

if TYPE_CHECKING:
    from ragscale.retrieval import Retriever

SHARED_WORDS = 8

Evidence = list[list[tuple[str, str]] | None]


class EvidenceSource:
    """Finds the (id, text) passages of every question under a condition.

    Parameters
    ----------
    retriever : Retriever or None
    k, seed : int
        Passages in a prompt; seed of the unrelated ones.
    gold : mapping of passage id to text
    rule : callable
        The query of (task, example).
    condition_of_hits : str
        The name that retrieved rows carry.
    """

    def __init__(
        self,
        retriever: Retriever | None,
        *,
        k: int,
        seed: int,
        gold: Mapping[str, str],
        rule: Callable[[Task, Example], str],
        condition_of_hits: str,
    ) -> None:
        self.retriever, self.k, self.seed, self.gold = retriever, k, seed, gold
        self.rule, self.condition_of_hits = rule, condition_of_hits
        self.too_few: dict[str, list[str]] = {}
        self._documents: dict[str, str] = {}
        self._rows_of_document: dict[str, list[int]] | None = None
        self._row_of_passage: dict[str, int] | None = None

    def of(
        self, task: Task, examples: Sequence[Example], condition: str, stores: Sequence[int]
    ) -> Iterable[tuple[tuple[str, int], Evidence]]:
        """Yield ((condition, R), for every question its (id, text) passages, best first; None: it has none)."""
        nothing: Evidence = [[] for _ in examples]
        positive = [size for size in stores if size > 0]
        if condition == "closed-book" or (condition == "retrieved" and 0 in stores):
            yield ("closed-book", 0), nothing
        if condition == "retrieved" and positive and self.retriever is not None:
            asked = [self.rule(task, example) for example in examples]
            hits = self.retriever.search(asked, self.k, store_tokens=positive)
            for size in positive:
                taken = [hits[size].take(self.retriever.passages, row) for row in range(len(examples))]
                yield (self.condition_of_hits, size), [[(p.id, whole_characters(p.text)) for p in ps] for ps in taken]
        if condition == "random":
            self._find_documents(examples)
            drawn: Evidence = [self._draw(task, example, positive[0]) for example in examples]
            for size in positive:
                yield ("random", size), drawn
        if condition == "oracle":
            yield ("oracle", 0), [self._gold_passages(example) for example in examples]

    def _find_documents(self, examples: Sequence[Example]) -> None:
        """Learn which documents the gold passages are from: their other passages are no unrelated text either."""
        wanted = {identity for example in examples for identity in example.gold_passages} - self._documents.keys()
        if wanted:
            found = ((passage.id, passage.document_id) for passage in self.passages() if passage.id in wanted)
            self._documents.update(found)

    def _draw(self, task: Task, example: Example, store: int) -> list[tuple[str, str]]:
        """Draw k unrelated passages from the smallest store, which every larger one contains."""
        passages = self.passages()
        n = self.n_passages(store)
        rng = np.random.default_rng([self.seed, zlib.crc32(f"{task.name}\0{example.id}".encode())])
        gold = GoldText(
            ids={*example.gold_doc_ids, *example.gold_passages, *example.gold_titles},
            documents={self._documents[i] for i in example.gold_passages if i in self._documents},
            texts=[example.passage, *(self.gold[i] for i in example.gold_passages if i in self.gold)],
        )
        drawn: list[tuple[str, str]] = []
        for row in _in_random_order(rng, n, first=50 * self.k):
            passage = passages[row]
            if not gold.holds(passage) and contains_answer(example, passage.text) is False:
                drawn.append((passage.id, whole_characters(passage.text)))
                if len(drawn) == self.k:
                    return drawn
        self.too_few.setdefault(task.name, []).append(example.id)
        return drawn

    def _gold_passages(self, example: Example) -> list[tuple[str, str]] | None:
        """Return the gold evidence: the example's own passage, its gold passages, or the best of its gold documents."""
        if example.passage.strip():
            return [(f"{example.id}:passage", example.passage)]
        known = [
            (identity, whole_characters(self.gold[identity]))
            for identity in example.gold_passages
            if identity in self.gold
        ]
        if known or self.retriever is None:
            return known or None
        passages = self.passages()
        if self._row_of_passage is None or self._rows_of_document is None:
            self._row_of_passage = {passage.id: row for row, passage in enumerate(passages)}
            self._rows_of_document = {}
            for row, passage in enumerate(passages):
                self._rows_of_document.setdefault(passage.document_id, []).append(row)
        rows = [
            self._row_of_passage[identity] for identity in example.gold_passages if identity in self._row_of_passage
        ]
        for document in () if rows else example.gold_doc_ids:
            of_document = self._rows_of_document.get(document, [])
            holding = [row for row in of_document if contains_answer(example, passages[row].text)]
            rows += (holding or of_document)[:1]
        return [(passages[row].id, whole_characters(passages[row].text)) for row in rows[: self.k]] or None

    def passages(self) -> Sequence[Passage]:
        """Return the indexed passages."""
        if self.retriever is None:
            raise ConfigError("there is no retriever: pass retriever=")
        return self.retriever.passages

    def n_passages(self, size: int) -> int:
        """Return how many leading passages make a store of ``size`` tokens."""
        return 0 if self.retriever is None else self.retriever.n_passages_in_store(size)


class GoldText:
    """What belongs to the gold evidence of one question: by name, by document, or because it is the same text.

    Parameters
    ----------
    ids : set of str
        Documents, titles and passages that the question names.
    documents : set of str
        Documents of the gold passages.
    texts : list of str
        The gold text itself. A passage that shares `SHARED_WORDS` words in a row with it is a piece of it.
    """

    def __init__(self, *, ids: set[str], documents: set[str], texts: Sequence[str]) -> None:
        self.names = ids | documents
        self.runs = {run for text in texts if text.strip() for run in _runs(words(text))}

    def holds(self, passage: Passage) -> bool:
        """Whether a passage is part of the gold evidence."""
        if passage.id in self.names or passage.document_id in self.names:
            return True
        return bool(self.runs) and any(run in self.runs for run in _runs(words(passage.text)))


def _runs(found: list[str]) -> Iterable[tuple[str, ...]]:
    """Yield the runs of words that tell a text; a shorter text is one run."""
    if found:
        n = min(SHARED_WORDS, len(found))
        yield from zip(*(found[i:] for i in range(n)), strict=False)


def _in_random_order(rng: np.random.Generator, n: int, *, first: int) -> Iterable[int]:
    """Yield every row once: as many as are usually enough, and the rest only if somebody goes on."""
    if n == 0:
        return
    begun = rng.choice(n, size=min(n, first), replace=False)
    yield from begun.tolist()
    rest = np.setdiff1d(np.arange(n), begun)
    yield from rng.permutation(rest).tolist()


def gold_texts(gold: Mapping[str, str] | Iterable[Passage] | None) -> dict[str, str]:
    """Return passage texts by id."""
    if gold is None:
        return {}
    pairs: list[tuple[Any, Any]]
    if isinstance(gold, Mapping):
        pairs = [(identity, getattr(text, "text", text)) for identity, text in gold.items()]
    elif isinstance(gold, str) or not isinstance(gold, Iterable):
        pairs = [(None, gold)]
    else:
        pairs = [(getattr(passage, "id", None), getattr(passage, "text", passage)) for passage in gold]
    wrong = [(identity, text) for identity, text in pairs if not isinstance(identity, str) or not isinstance(text, str)]
    if wrong:
        raise ConfigError(
            f"gold must map passage ids to texts, or be passages with an id and a text, got {str(wrong[0])[:80]}"
        )
    return dict(pairs)


def answer_rows(tasks: Sequence[Task], retriever: Retriever, stores: Sequence[int]) -> dict[str, np.ndarray]:
    """Find each question's first passage with an answer, for all tasks in one reading of the largest store."""
    wanted = [task for task in tasks if task.kind != "text"]
    if not any(stores) or not wanted:
        return {}
    passages = islice(retriever.passages, retriever.n_passages_in_store(max(stores)))
    rows = first_passage_with_answer([example for task in wanted for example in task.examples], passages)
    ends = np.cumsum([len(task.examples) for task in wanted])[:-1]
    return {task.name: part for task, part in zip(wanted, np.split(rows, ends), strict=True)}
