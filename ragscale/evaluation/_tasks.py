"""A task: a named, ordered set of questions of one kind, with the prompt it is asked by default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from ragscale._counts import whole_or_same
from ragscale._files import value_digest
from ragscale.evaluation import _patterns
from ragscale.evaluation._example import Example, as_texts, raise_problems
from ragscale.evaluation._prompts import PromptTemplate

KINDS = ("multiple_choice", "yes_no", "generate", "likelihood", "last_word", "text")
_COUNTS = {"max_new_tokens": 1, "max_aliases": 1, "prefix_words": 0}
CHOICE_KINDS = ("multiple_choice", "yes_no")


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
        for name in ("examples", "shots"):
            value = getattr(self, name)
            value = (value,) if isinstance(value, Example) else value
            object.__setattr__(self, name, tuple(value) if isinstance(value, Iterable) else value)
        object.__setattr__(self, "stop", as_texts(self.stop))
        for name in _COUNTS:
            object.__setattr__(self, name, whole_or_same(getattr(self, name)))
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


def examples_to_show(task: Task) -> tuple[Example, ...]:
    """Return the examples that can be worked ones: a pattern is no answer to show."""
    pool = task.shots or task.examples
    return tuple(e for e in pool if e.answer_type != "regex" or task.kind in CHOICE_KINDS)


def _task_problems(task: Task) -> Iterable[str]:
    yield from _setting_problems(task)
    for name in ("examples", "shots"):
        listed = getattr(task, name)
        if not isinstance(listed, tuple):
            yield f"{name} must be a list of Example, got {listed!r}"
            continue
        yield from (
            f"{name}[{row}] is a {type(one).__name__}, not an Example: Example(id=..., question=..., answers=...)"
            for row, one in enumerate(listed)
            if not isinstance(one, Example)
        )
    if not isinstance(task.examples, tuple) or task.kind not in KINDS:
        return
    if not task.examples:
        yield "there are no examples"
    seen: dict[str, int] = {}
    for row, example in enumerate(task.examples):
        if not isinstance(example, Example):
            continue
        if example.id in seen:
            yield f"example {row} repeats the id {example.id!r} of example {seen[example.id]}"
        seen.setdefault(example.id, row)
        for problem in example_problems(example, task.kind):
            yield f"example {row} ({example.id!r}): {problem}"


def _setting_problems(task: Task) -> Iterable[str]:
    if not isinstance(task.name, str) or not task.name.strip():
        yield f"name must be text, got {task.name!r}"
    if task.kind not in KINDS:
        yield f"kind {task.kind!r} is not one of {', '.join(KINDS)}"
    if not isinstance(task.template, PromptTemplate):
        yield f"template must be a PromptTemplate, got {task.template!r}"
    if not isinstance(task.stop, tuple) or not all(isinstance(text, str) and text for text in task.stop):
        yield f"stop must be texts that are not empty, got {task.stop!r}"
    for name, least in _COUNTS.items():
        value = getattr(task, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            yield f"{name} must be a whole number of at least {least}, got {value!r}"


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
    if example.answer_type == "regex":
        yield from filter(None, map(_patterns.pattern_problem, example.answers))
        if kind in ("likelihood", "last_word"):
            yield (
                f"its answers are patterns, and a {kind} question scores the likelihood of an answer's text: ask it as "
                "kind='generate', or give the answers as texts"
            )
