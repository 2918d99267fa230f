"""A task: a named, ordered set of questions of one kind, with the prompt it is asked by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ragscale._files import value_digest
from ragscale.errors import TaskError
from ragscale.evaluation._prompts import PromptTemplate

KINDS = ("multiple_choice", "yes_no", "generate", "likelihood", "last_word", "text")
CHOICE_KINDS = ("multiple_choice", "yes_no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question, or one text.

    Parameters
    ----------
    id : str
        Unique within the task.
    question : str
        The bare question; the context of a ``last_word`` task; the whole text of a ``text`` task.
    choices : tuple of str
        The options of a choice task.
    answer_index : int or None
        The right choice.
    answers : tuple of str
        All accepted answers, the canonical one first; the right choice's text for a choice task.
    answer_type : {"string", "regex"}
        With ``"regex"`` the answers are patterns, searched without regard to case.
    passage : str
        The gold passage, if the data set has one (SciQ's support): it enters the prompt only where the template says
        ``{passage}``, and as evidence under the condition ``"oracle"``.
    gold_titles, gold_doc_ids, gold_passages : tuple of str
        Where the evidence is: titles, document ids, passage ids.
    meta : mapping
        Anything else, kept.

    Examples
    --------
    >>> Example(id="1", question="What is dew?", answers=("water",)).answers
    ('water',)
    """

    id: str
    question: str
    choices: tuple[str, ...] = ()
    answer_index: int | None = None
    answers: tuple[str, ...] = ()
    answer_type: str = "string"
    passage: str = ""
    gold_titles: tuple[str, ...] = ()
    gold_doc_ids: tuple[str, ...] = ()
    gold_passages: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def without_gold(self) -> Example:
        """Return the example as a query rule may see it: no answers, no gold passage, no gold ids, no meta."""
        return Example(id=self.id, question=self.question, choices=self.choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A named set of questions of one kind.

    Parameters
    ----------
    name : str
        Names the rows of the results table.
    kind : {"multiple_choice", "yes_no", "generate", "likelihood", "last_word", "text"}
        ``multiple_choice`` and ``yes_no`` score every choice; ``generate`` writes an answer greedily and also scores
        the accepted answers; ``likelihood`` only scores them; ``last_word`` scores the word that ends a text and asks
        whether greedy decoding would write it; ``text`` scores whole texts (bits per byte).
    examples : tuple of Example
        The questions, in order.
    template : PromptTemplate
        How a question is asked unless ``evaluate(template=...)`` says otherwise.
    shots : tuple of Example
        Where worked examples for n-shot prompts come from (a training split). Empty: the task's own other questions.
    max_new_tokens : int
        The longest answer that is generated, in tokens.
    stop : tuple of str
        Strings that end a generated answer.
    max_aliases : int
        How many of the accepted answers are scored by likelihood (exact match and F1 always use all).
    prefix_words : int
        For ``text``: the first words of a text are context, not scored, and are the retrieval query. 0 scores
        everything and allows no retrieval, since a query made of scored text would leak it.

    Raises
    ------
    TaskError
        Listing every problem with the examples at once.

    Examples
    --------
    >>> Task(name="dew", kind="likelihood", examples=[Example(id="1", question="What is dew?", answers=("water",))])
    Task('dew', 'likelihood', 1 example)
    """

    name: str
    kind: str
    examples: tuple[Example, ...]
    template: PromptTemplate = field(default_factory=PromptTemplate)
    shots: tuple[Example, ...] = ()
    max_new_tokens: int = 32
    stop: tuple[str, ...] = ("\n",)
    max_aliases: int = 4
    prefix_words: int = 0

    def __post_init__(self) -> None:
        for name in ("examples", "shots", "stop"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        raise_problems(f"task {self.name!r}", list(_task_problems(self)))

    def __repr__(self) -> str:
        n = len(self.examples)
        return f"Task({self.name!r}, {self.kind!r}, {n} example{'s' * (n != 1)})"

    def __len__(self) -> int:
        return len(self.examples)

    def limit(self, n: int | None) -> Task:
        """Return the task with its first n examples only."""
        return self if n is None or n >= len(self.examples) else replace(self, examples=self.examples[:n])

    @property
    def digest(self) -> str:
        """SHA-256 of everything that the scores can depend on."""
        return value_digest(
            {
                "kind": self.kind,
                "examples": [asdict(e) | {"meta": {}} for e in self.examples],
                "shots": [asdict(e) | {"meta": {}} for e in self.shots],
                "template": asdict(self.template),
                "settings": [self.max_new_tokens, list(self.stop), self.max_aliases, self.prefix_words],
            }
        )


def raise_problems(what: str, problems: Sequence[str], limit: int = 50) -> None:
    """Raise one `TaskError` that lists all problems (the first 50 in full, the rest counted)."""
    if not problems:
        return
    more = f"\n  ... and {len(problems) - limit} more" if len(problems) > limit else ""
    count = f"{len(problems)} problem" + "s" * (len(problems) > 1)
    listed = "\n".join(f"  {i}. {p}" for i, p in enumerate(problems[:limit], start=1))
    raise TaskError(f"{what} has {count}:\n{listed}{more}")


def _task_problems(task: Task) -> Iterable[str]:
    if task.kind not in KINDS:
        yield f"kind {task.kind!r} is not one of {', '.join(KINDS)}"
        return
    if not task.examples:
        yield "there are no examples"
    for name, least in (("max_new_tokens", 1), ("max_aliases", 1), ("prefix_words", 0)):
        if getattr(task, name) < least:
            yield f"{name} must be at least {least}, got {getattr(task, name)}"
    seen: dict[str, int] = {}
    for row, example in enumerate(task.examples):
        if example.id in seen:
            yield f"example {row} repeats the id {example.id!r} of example {seen[example.id]}"
        seen.setdefault(example.id, row)
        for problem in example_problems(example, task.kind):
            yield f"example {row} ({example.id!r}): {problem}"


def example_problems(example: Example, kind: str) -> Iterable[str]:
    """Yield what keeps an example from being asked as this kind of question."""
    if not example.question.strip():
        yield "the question is empty"
    if kind in CHOICE_KINDS:
        n = len(example.choices)
        if n < 2:
            yield f"a {kind} question needs at least 2 choices, got {n}"
        elif example.answer_index is None:
            yield "answer_index is missing"
        elif not 0 <= example.answer_index < n:
            yield f"answer_index {example.answer_index} is outside the {n} choices"
        if any(not choice.strip() for choice in example.choices):
            yield "a choice is empty"
    elif kind != "text":
        if not example.answers:
            yield f"a {kind} question needs at least one answer"
        if any(not answer.strip() for answer in example.answers):
            yield "an answer is empty"
