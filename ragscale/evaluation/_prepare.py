"""Prompts of all conditions and store sizes, made and tokenised once, for as many models as share the tokenizer."""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._counts import as_count, whole_or_same
from ragscale._files import value_digest
from ragscale.errors import ConfigError, EvaluationWarning, TaskError
from ragscale.evaluation._arguments import check_arguments
from ragscale.evaluation._coverage import UNKNOWN, can_be_found, contains_answer
from ragscale.evaluation._evidence import Evidence, EvidenceSource, answer_rows, gold_texts
from ragscale.evaluation._fitting_prompts import Cut, Draft, Fitter
from ragscale.evaluation._language_model import LanguageModel, ScoreRequest
from ragscale.evaluation._load import load_task
from ragscale.evaluation._patterns import any_of
from ragscale.evaluation._prompts import PromptTemplate
from ragscale.evaluation._queries import GoldInQuery, QueryRule, resolve_query
from ragscale.evaluation._question_warnings import question_warnings
from ragscale.evaluation._tasks import CHOICE_KINDS, Example, Task, examples_to_show
from ragscale.passages import Passage

if TYPE_CHECKING:
    from ragscale.retrieval import Retriever

GOLD_QUERY = "retrieved+gold-query"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One distinct thing to compute: requests whose scores are added up, and whether an answer is written."""

    digest: str
    requests: tuple[ScoreRequest, ...]
    generate: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """One question under one condition: which prompt, and everything known before a model sees it."""

    example: int
    prompt: str
    unconditional: str | None
    passages: tuple[str, ...]
    hit: bool | None
    in_store: bool | None
    n_prompt_tokens: int
    cut: Cut


@dataclass(frozen=True, slots=True)
class Cell:
    """One (task, condition, R): what is resumed as a whole."""

    task: Task
    condition: str
    R: int
    asked: tuple[Asked, ...]
    left_out: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class PreparedPrompts:
    """What `prepare_prompts` makes; give it to `evaluate` in place of tasks, for every model in turn."""

    cells: tuple[Cell, ...]
    prompts: Mapping[str, Prompt]
    settings: Mapping[str, Any]
    tokenizer: str
    max_length: int
    scored: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the prompts into a folder, as JSON and arrays with digests; nothing in it runs code when loaded.

        Raises
        ------
        FileError
            When the disk is full or may not be written to; what was saved there before is then as it was.
        """
        from ragscale.evaluation._prompt_files import save_prompts

        save_prompts(self, Path(folder))

    @staticmethod
    def load(folder: str | os.PathLike[str], *, store_tokens: Iterable[int] | None = None) -> PreparedPrompts:
        """Read what `save` wrote; token ids stay on disk until they are asked for.

        Parameters
        ----------
        folder : path
        store_tokens : iterable of int, optional
            Only the cells of these store sizes (0 is closed-book).

        Raises
        ------
        CheckpointError
            When a file is missing, damaged, or does not belong to the others.
        """
        from ragscale.evaluation._prompt_files import load_prompts

        return load_prompts(Path(folder), None if store_tokens is None else set(store_tokens))

    @property
    def n_asked(self) -> int:
        """Questions over all cells."""
        return sum(len(cell.asked) for cell in self.cells)

    def __repr__(self) -> str:
        return (
            f"PreparedPrompts({len(self.cells)} cells, {self.n_asked} questions, {len(self.prompts)} distinct prompts)"
        )


def prepare_prompts(
    tasks: Task | str | os.PathLike[str] | Iterable[Task | str | os.PathLike[str]],
    model: LanguageModel,
    *,
    retriever: Retriever | None = None,
    store_tokens: Sequence[int] | int = (0,),
    k: int = 5,
    condition: str | Sequence[str] = "retrieved",
    n_iterations: int = 1,
    n_shot: int = 0,
    seed: int = 0,
    template: PromptTemplate | None = None,
    query: str | QueryRule | GoldInQuery = "question",
    gold: Mapping[str, str] | Iterable[Passage] | None = None,
    pmi: bool = False,
    coverage: bool = True,
    max_length: int | None = None,
) -> PreparedPrompts:
    """Retrieve, build and tokenise all prompts once.

    Parameters are those of `evaluate`; of ``model`` only the tokenizer and ``max_length`` are used. Prompts that are
    equal at several store sizes (nested stores often return the same passages) are one prompt.

    Parameters
    ----------
    tasks : Task, path, task name, or several
        What to ask.
    model : LanguageModel
        Any model with the tokenizer of the models to come.
    max_length : int, optional
        Fit prompts into so many tokens; at most the models' own.

    Returns
    -------
    PreparedPrompts

    Raises
    ------
    ConfigError
        Listing every problem of the arguments.
    """
    if not isinstance(tasks, Task | str | os.PathLike | Iterable):
        raise ConfigError(f"tasks must be a Task, a path, a task name, or several of them, got {tasks!r}")
    listed = [tasks] if isinstance(tasks, Task | str | os.PathLike) else list(tasks)
    loaded = [load_task(task) if isinstance(task, str | os.PathLike) else task for task in listed]
    conditions = [condition] if isinstance(condition, str) or not isinstance(condition, Iterable) else list(condition)
    k, n_shot, seed = whole_or_same(k), whole_or_same(n_shot), whole_or_same(seed)
    n_iterations = as_count("n_iterations", n_iterations, least=1)
    limit = model.max_length if max_length is None else whole_or_same(max_length)
    stores = check_arguments(
        loaded,
        sizes=store_tokens,
        seed=seed,
        k=k,
        conditions=conditions,
        n_shot=n_shot,
        retriever=retriever,
        max_length=limit,
        model=model,
    )
    if n_iterations > 1:
        retriever = _iterated(retriever, n_iterations)
    name, rule, sees_gold = resolve_query(query)
    settings = {
        "k": k,
        "n_shot": n_shot,
        "seed": seed,
        "query": name,
        "retriever": retriever_name(retriever),
        "pmi": pmi,
        "max_length": limit,
        **({"n_iterations": n_iterations} if n_iterations > 1 else {}),
    }
    source = EvidenceSource(
        retriever,
        k=k,
        seed=seed,
        gold=gold_texts(gold),
        rule=rule,
        condition_of_hits=GOLD_QUERY if sees_gold else "retrieved",
    )
    maker = _Maker(model, source, n_shot=n_shot, seed=seed, pmi=pmi, max_length=limit, settings=settings)
    found = answer_rows(loaded, retriever, stores) if coverage and retriever is not None else {}
    cells: list[Cell] = []
    for task in loaded:
        used = replace(task, template=template) if template is not None else task
        cells += maker.cells(used, conditions, stores, found.get(task.name))
    asked = tuple(cell for cell in cells if cell.asked)
    if "oracle" in conditions and not any(cell.condition == "oracle" for cell in asked):
        raise TaskError(
            "no question of any task has a gold passage: give them with evaluate(gold=...), or leave out the "
            "condition 'oracle'"
        )
    for cell in cells:
        if cell.left_out:
            n_questions = len(cell.asked) + len(cell.left_out)
            message = (
                f"{len(cell.left_out)} of {n_questions} questions of {cell.task.name!r} have no gold passage and are "
                "left out of the condition 'oracle': give them with gold="
            )
            warnings.warn(message, EvaluationWarning, stacklevel=3)
    for message in question_warnings(loaded, too_few=source.too_few, k=k):
        warnings.warn(message, EvaluationWarning, stacklevel=3)
    tokenizer = model.tokenizer_fingerprint()
    return PreparedPrompts(asked, maker.prompts, settings, tokenizer, limit, maker.scored)


def _iterated(retriever: Retriever | None, n_iterations: int) -> Retriever:
    """Return the retriever, searched in several rounds."""
    from ragscale.retrieval import IterativeRetriever

    if retriever is None:
        raise ConfigError(f"n_iterations = {n_iterations} needs a retriever: pass retriever=")
    return IterativeRetriever(retriever, n_iterations=n_iterations).index(retriever.passages)


def retriever_name(retriever: Retriever | None) -> str:
    """Return what results call a retriever."""
    return "none" if retriever is None else str(getattr(retriever, "name", type(retriever).__name__))


class _Maker:
    """Makes the cells of one call; remembers distinct prompts."""

    def __init__(
        self,
        model: LanguageModel,
        source: EvidenceSource,
        *,
        n_shot: int,
        seed: int,
        pmi: bool,
        max_length: int,
        settings: dict[str, Any],
    ) -> None:
        self.model, self.source, self.n_shot = model, source, n_shot
        self.seed, self.pmi, self.max_length, self.settings = seed, pmi, max_length, settings
        self.prompts: dict[str, Prompt] = {}
        self.scored: dict[str, tuple[Example, ...]] = {}
        self._holds: list[dict[str, bool | None]] = []  # of every question: its passages, which return in other stores

    def cells(
        self, task: Task, conditions: Sequence[str], stores: Sequence[int], found: np.ndarray | None
    ) -> list[Cell]:
        examples = [_as_scored(task, example, self.model, self.max_length) for example in task.examples]
        self.scored[task.name] = tuple(examples)
        self._holds = [{} for _ in examples]
        fitter = Fitter(self.model, task.template, self.max_length)
        shots, digest = self._shots(task), task.digest
        made: dict[tuple[str, int], Cell] = {}
        for condition in conditions:
            for key, rows in self.source.of(task, examples, condition, stores):
                if key not in made:
                    made[key] = self._cell(
                        task, examples, key, rows, fitter=fitter, shots=shots, found=found, task_digest=digest
                    )
        return list(made.values())

    def _shots(self, task: Task) -> dict[str, tuple[str, ...]]:
        """Return the worked examples of every question: one draw for the task, never the question itself."""
        if self.n_shot == 0:
            return {}
        pool = examples_to_show(task)
        rng = np.random.default_rng([self.seed, zlib.crc32(task.name.encode())])
        drawn = [pool[row] for row in rng.permutation(len(pool))[: self.n_shot + 1].tolist()]
        template = task.template
        shown = {e.id: template.ask(e) + template.answer_prefix + _gold_answer(task, e) for e in drawn}
        return {
            example.id: tuple(text for identity, text in shown.items() if task.shots or identity != example.id)[
                : self.n_shot
            ]
            for example in task.examples
        }

    # -------------------------------------------------------------------------------------------------------- cells

    def _cell(
        self,
        task: Task,
        examples: Sequence[Example],
        key: tuple[str, int],
        evidence: Evidence,
        *,
        fitter: Fitter,
        shots: Mapping[str, tuple[str, ...]],
        found: np.ndarray | None,
        task_digest: str,
    ) -> Cell:
        condition, size = key
        rows = [row for row, passages in enumerate(evidence) if passages is not None]
        left_out = tuple(examples[row].id for row, passages in enumerate(evidence) if passages is None)
        asked: list[Asked] = []
        whole_text = task.kind == "text" and task.prefix_words == 0
        if whole_text:
            asked = [self._ask_text(row, examples[row]) for row in rows]
        else:
            drafts = [self._draft(task, examples[row], evidence[row] or [], shots) for row in rows]
            unconditional = self._unconditional(task, [examples[row] for row in rows])
            n_prefix = self.source.n_passages(size) if found is not None and size > 0 else 0
            for row, draft, fitted, alone in zip(rows, drafts, fitter.fit(drafts), unconditional, strict=True):
                example, passages = examples[row], evidence[row] or []
                answerable = can_be_found(example) and task.kind != "text"
                digest = self._remember(
                    [fitted.context, *draft.continuations], (fitted.request,), task, task.kind == "generate"
                )
                hit = (
                    any_of(self._holds_answer(row, example, text) for _, text in passages)
                    if answerable and passages
                    else None
                )
                in_store = None
                if answerable and found is not None and size > 0 and found[row] != UNKNOWN:
                    in_store = bool(0 <= found[row] < n_prefix)
                asked.append(
                    Asked(
                        row,
                        digest,
                        alone,
                        tuple(identity for identity, _ in passages),
                        hit,
                        in_store,
                        len(fitted.request.context),
                        fitted.cut,
                    )
                )
        digest = value_digest(
            {
                "task": task_digest,
                "condition": condition,
                "R": size,
                "settings": dict(self.settings),
                "prompts": [[a.prompt, a.unconditional, list(a.passages), a.in_store] for a in asked],
            }
        )
        return Cell(task, condition, size, tuple(asked), left_out, digest)

    def _holds_answer(self, row: int, example: Example, text: str) -> bool | None:
        known = self._holds[row]
        if text not in known:
            known[text] = contains_answer(example, text)
        return known[text]

    def _draft(
        self, task: Task, example: Example, passages: list[tuple[str, str]], shots: Mapping[str, tuple[str, ...]]
    ) -> Draft:
        texts = tuple(text for _, text in passages)
        prefix = "" if task.kind == "text" else task.template.answer_prefix
        continuations = tuple(prefix + text for text in scored_texts(task, example))
        reserve = task.max_new_tokens if task.kind == "generate" else 0
        return Draft(task.template.ask(example), texts, shots.get(example.id, ()), continuations, reserve)

    def _unconditional(self, task: Task, examples: Sequence[Example]) -> list[str | None]:
        """Prompts that score every choice after nothing, for PMI."""
        if not self.pmi or task.kind not in CHOICE_KINDS:
            return [None] * len(examples)
        fitter = Fitter(self.model, PromptTemplate(), self.max_length)
        continuations = [tuple(task.template.answer_prefix + choice for choice in e.choices) for e in examples]
        pairs = fitter._encode_pairs([""] * len(examples), continuations)
        start = fitter.start or (self.model.prefix_token,)
        return [
            self._remember(["", *texts], (ScoreRequest(start, tuple(map(tuple, tokens))),), task, False)
            for texts, (_, tokens) in zip(continuations, pairs, strict=True)
        ]

    def _ask_text(self, row: int, example: Example) -> Asked:
        """Score a whole text in windows that do not overlap in what they score."""
        tokens = self.model.encode([example.question])[0]
        requests = tuple(rolling_windows(tokens, self.model.prefix_token, self.max_length))
        digest = self._remember([example.question], requests, None, False)
        return Asked(row, digest, None, (), None, None, 0, Cut())

    def _remember(self, texts: list[str], requests: tuple[ScoreRequest, ...], task: Task | None, generate: bool) -> str:
        kind: list[Any] = [self.max_length]
        if generate and task is not None:
            kind += [task.max_new_tokens, list(task.stop)]
        text = value_digest([kind, texts])
        tokens = hashlib.sha256()
        for request in requests:
            for ids in (request.context, *request.continuations):
                tokens.update(np.asarray([-1, *ids], dtype=np.int64).tobytes())
        digest = hashlib.sha256(f"{text}{tokens.hexdigest()}".encode()).hexdigest()[:24]
        if digest not in self.prompts:
            self.prompts[digest] = Prompt(digest, requests, generate)
        return digest


def _as_scored(task: Task, example: Example, model: LanguageModel, max_length: int) -> Example:
    """Turn a text with a prefix into context and continuation; leave every other example as it is."""
    if task.kind != "text" or task.prefix_words == 0:
        return example
    prefix, scored = in_two(task, example)
    tokens = model.encode([scored])[0][: max_length // 2]
    return replace(example, question=prefix, answers=(model.decode([tokens])[0].rstrip("\N{REPLACEMENT CHARACTER}"),))


def in_two(task: Task, example: Example) -> tuple[str, str]:
    """Return the first words of a text, which are its query, and the rest, which is scored.

    Raises
    ------
    TaskError
        When nothing is left to score.
    """
    parts = example.question.split(None, task.prefix_words)
    if len(parts) <= task.prefix_words:
        raise TaskError(
            f"text {example.id!r} has at most prefix_words={task.prefix_words} words: nothing is left to score"
        )
    prefix = example.question[: len(example.question) - len(parts[-1])].rstrip()
    return prefix, example.question[len(prefix) :]


def scored_texts(task: Task, example: Example) -> tuple[str, ...]:
    """Return the texts that are scored after the prompt: the choices, or the accepted answers (canonical first).

    None where the answers are patterns.
    """
    if task.kind in CHOICE_KINDS:
        return example.choices
    if example.answer_type == "regex":
        return ()  # the likelihood of a pattern's text says nothing about an answer
    return tuple(dict.fromkeys(example.answers))[: task.max_aliases]


def _gold_answer(task: Task, example: Example) -> str:
    if task.kind in CHOICE_KINDS and example.answer_index is not None:
        return example.choices[example.answer_index]
    return example.answers[0] if example.answers else ""


def rolling_windows(tokens: Sequence[int], prefix_token: int, max_length: int) -> Iterable[ScoreRequest]:
    """Yield windows that score every token once, each with as much before it as fits (at least one token)."""
    done = 0
    while done < len(tokens):
        end = min(done + max_length, len(tokens))
        first = max(0, end - max_length)
        context = tuple(tokens[max(0, first - 1) : done]) if done else (prefix_token,)
        yield ScoreRequest(context, (tuple(tokens[done:end]),))
        done = end


def as_dict(cut: Cut) -> dict[str, int]:
    """Return the columns of a cut."""
    return {f"n_{name}_cut": value for name, value in asdict(cut).items()}
