"""What a person should hear about the questions of an evaluation that ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ragscale.evaluation._patterns import given_up
from ragscale.evaluation._tasks import CHOICE_KINDS, Example, Task


def question_warnings(tasks: Sequence[Task], *, too_few: Mapping[str, Sequence[str]], k: int) -> Iterable[str]:
    """Yield what cannot mean what it seems to: equal choices, patterns given up, too few unrelated passages.

    Parameters
    ----------
    tasks : sequence of Task
    too_few : mapping of task name to ids
        The questions that got fewer than ``k`` unrelated passages.
    k : int
    """
    for task in tasks:
        double = [e for e in task.examples if task.kind in CHOICE_KINDS and has_equal_choices(e)]
        if double:
            yield (
                f"{len(double)} of {len(task)} questions of {task.name!r} have equal choices (the first: "
                f"{double[0].id!r}, {double[0].choices}): no model can tell them apart, so they share the credit"
            )
        yield from pattern_warnings(task.name, task.examples)
        short = too_few.get(task.name, ())
        if short:
            yield (
                f"{len(short)} questions of {task.name!r} (the first: {short[0]!r}) have fewer than k={k} unrelated "
                "passages in the smallest store: their prompts under the condition 'random' are shorter"
            )


def has_equal_choices(example: Example) -> bool:
    """Whether two choices are the same text, white space around it aside."""
    return len({choice.strip() for choice in example.choices}) < len(example.choices)


def pattern_warnings(name: str, examples: Sequence[Example]) -> Iterable[str]:
    """Yield which patterns of a task took too long, in one sentence."""
    slow = [e for e in examples if e.answer_type == "regex" and given_up(e.answers)]
    if slow:
        yield (
            f"{len(slow)} questions of {name!r} have patterns that took too long and were given up (the first: "
            f"{slow[0].id!r}, {given_up(slow[0].answers)[0]!r}): whether they match is unknown, and metrics leave "
            "these questions out"
        )
