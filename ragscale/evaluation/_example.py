"""One question with its answers, and the reading of its fields: every problem at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragscale._counts import whole_or_same
from ragscale._scripts import broken_character
from ragscale.errors import TaskError

TEXTS = ("choices", "answers", "gold_titles", "gold_doc_ids", "gold_passages")
ANSWER_TYPES = ("string", "regex")


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

    Raises
    ------
    TaskError
        Listing every field that is not what it should be.

    Notes
    -----
    One text stands for a tuple of one: ``answers="Paris"`` is the answer Paris.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", str(self.id) if _is_int(self.id) else self.id)
        index = self.answer_index
        object.__setattr__(self, "answer_index", index if isinstance(index, bool | str) else whole_or_same(index))
        for name in TEXTS:
            object.__setattr__(self, name, as_texts(getattr(self, name)))
        raise_problems(f"example {self.id!r}", list(_field_problems(self)))

    def without_gold(self) -> Example:
        """Return the example as a query rule may see it: no answers, no gold passage, no gold ids, no meta."""
        return Example(id=self.id, question=self.question, choices=self.choices)


def raise_problems(what: str, problems: Sequence[str], limit: int = 50) -> None:
    """Raise one `TaskError` that lists all problems (the first 50 in full, the rest counted)."""
    if not problems:
        return
    more = f"\n  ... and {len(problems) - limit} more" if len(problems) > limit else ""
    count = f"{len(problems)} problem" + "s" * (len(problems) > 1)
    listed = "\n".join(f"  {i}. {p}" for i, p in enumerate(problems[:limit], start=1))
    error = TaskError(f"{what} has {count}:\n{listed}{more}")
    error.problems = tuple(problems)
    raise error


def as_texts(value: Any) -> Any:
    """Return one text or several as a tuple; what is no sequence of texts stays, to be named as a problem."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping | set | frozenset | bytes) or not isinstance(value, Iterable):
        return value
    return tuple(value)


def _is_int(value: Any) -> bool:
    return isinstance(whole_or_same(value), int) and not isinstance(value, bool | str | float)


def _field_problems(example: Example) -> Iterable[str]:
    for name in ("id", "question", "passage"):
        value = getattr(example, name)
        yield from _text_problems(name, value)
    for name in TEXTS:
        value = getattr(example, name)
        if not isinstance(value, tuple):
            yield f"{name} must be a list of texts in their order, got {_short(value)}"
            continue
        for place, item in enumerate(value):
            yield from _text_problems(f"{name}[{place}]", item)
    index = example.answer_index
    if index is not None and (isinstance(index, bool) or not isinstance(index, int)):
        yield f"answer_index must be a whole number or None, got {_short(index)}"
    if example.answer_type not in ANSWER_TYPES:
        yield f"answer_type must be 'string' or 'regex', got {_short(example.answer_type)}"
    if not isinstance(example.meta, Mapping):
        yield f"meta must be a mapping, got {_short(example.meta)}"


def _text_problems(name: str, value: Any) -> Iterable[str]:
    if not isinstance(value, str):
        yield f"{name} must be text, got {_short(value)}"
    elif (place := broken_character(value)) >= 0:
        yield f"{name} holds half a character ({value[place]!r}, a lone surrogate) at place {place}: {_short(value)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
