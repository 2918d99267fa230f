"""What is asked of the retriever: the bare question, unless another rule is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ragscale.errors import ConfigError
from ragscale.evaluation._tasks import Example, Task

QueryRule = Callable[[Example], str]


def _question_and_answer(example: Example) -> str:
    if example.answer_type == "regex" or not example.answers:
        what = "a pattern" if example.answers else "none"
        raise ConfigError(
            f"the gold answer of question {example.id!r} is {what}, which is no text to search for: give "
            "GoldInQuery(rule) with a rule of your own"
        )
    return f"{example.question} {example.answers[0]}"


@dataclass(frozen=True, slots=True)
class GoldInQuery:
    """A query rule that may see the gold answer: an upper bound, never a result.

    The rows it makes carry ``condition="retrieved+gold-query"`` and the rule's name in the column ``query``, so that
    they cannot pass for retrieval.

    Parameters
    ----------
    rule : callable
        ``rule(example) -> str``, given the whole example. By default the question followed by the first answer.
    """

    rule: QueryRule = _question_and_answer

    @property
    def name(self) -> str:
        """The name that marks the rows."""
        name = getattr(self.rule, "__name__", type(self.rule).__name__)
        return "gold_in_query" if self.rule is _question_and_answer or name == "<lambda>" else f"gold_in_query:{name}"


def _question(example: Example) -> str:
    return example.question


def _question_and_choices(example: Example) -> str:
    return " ".join([example.question, *example.choices])


_NAMED: dict[str, QueryRule] = {"question": _question, "question_and_choices": _question_and_choices}


def resolve_query(query: str | QueryRule | GoldInQuery) -> tuple[str, Callable[[Task, Example], str], bool]:
    """Return the rule's name, the rule, and whether it sees the gold answer.

    Every rule but `GoldInQuery` is given the example without answers, gold passage, gold ids and meta.
    """
    if query == "gold_in_query":
        query = GoldInQuery()
    if isinstance(query, GoldInQuery):
        gold_rule = query.rule
        return query.name, lambda task, example: gold_rule(example), True
    if isinstance(query, str):
        if query not in _NAMED:
            known = ", ".join([*_NAMED, "gold_in_query"])
            raise ConfigError(f"query must be one of {known}, or a function of the example; got {query!r}")
        rule, name = _NAMED[query], query
    elif callable(query):
        rule, name = query, getattr(query, "__name__", type(query).__name__)
    else:
        raise ConfigError(f"query must be a name or a function of the example, got {query!r}")

    def ask(task: Task, example: Example) -> str:
        asked = rule(example.without_gold())
        if not isinstance(asked, str) or not asked.strip():
            raise ConfigError(f"query rule {name!r} gave {asked!r} for question {example.id!r} of {task.name!r}")
        return asked

    return name, ask, False
