"""What an evaluation may be asked for: every problem of the arguments at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ragscale.errors import ConfigError
from ragscale.evaluation._language_model import LanguageModel
from ragscale.evaluation._tasks import Task

if TYPE_CHECKING:
    from ragscale.retrieval import Retriever

CONDITIONS = ("closed-book", "retrieved", "oracle", "random")


def check_arguments(
    tasks: Sequence[Task],
    *,
    sizes: Sequence[Any],
    k: int,
    conditions: Sequence[str],
    n_shot: int,
    retriever: Retriever | None,
    max_length: int,
    model: LanguageModel,
) -> None:
    """Raise one `ConfigError` that lists everything about an evaluation that cannot work."""
    problems = []
    names = [task.name for task in tasks]
    if not tasks:
        problems.append("there are no tasks")
    problems += [
        f"two tasks are named {name!r}: rename one" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    unknown = [c for c in conditions if c not in CONDITIONS]
    if unknown or not conditions:
        problems.append(
            f"condition must be among {', '.join(CONDITIONS)}, got {', '.join(map(repr, unknown)) or 'none'}"
        )
    bad = [size for size in sizes if isinstance(size, bool) or not float(size) >= 0 or float(size) != int(size)]
    if bad or not sizes:
        problems.append(f"store_tokens must be counts of tokens, at least one; got {bad or list(sizes)}")
    positive = [int(size) for size in sizes if size not in bad and size > 0]
    if k < 1:
        problems.append(f"k must be at least 1, got {k}")
    if n_shot < 0:
        problems.append(f"n_shot must be at least 0, got {n_shot}")
    if not 2 <= max_length <= model.max_length:
        problems.append(f"max_length must be from 2 to the model's {model.max_length} tokens, got {max_length}")
    if retriever is None and positive and {"retrieved", "random"} & set(conditions):
        problems.append(f"store_tokens has {positive} but there is no retriever: pass retriever=")
    if retriever is not None and positive and max(positive) > retriever.n_tokens_served:
        problems.append(
            f"store_tokens asks for {max(positive):,} tokens but the retriever holds {retriever.n_tokens:,}"
        )
    if "random" in conditions and (retriever is None or not positive):
        problems.append("condition 'random' draws from a store: pass retriever= and a store_tokens above 0")
    for task in tasks:
        n_other = len(task.shots) or len(task.examples) - 1
        if n_shot > n_other:
            problems.append(f"n_shot={n_shot}, but task {task.name!r} has {n_other} questions to take examples from")
        evidence = ("retrieved" in conditions or "random" in conditions) and positive
        if task.kind == "text" and task.prefix_words == 0 and (evidence or "oracle" in conditions):
            problems.append(
                f"text task {task.name!r} has prefix_words=0: a query made of the scored text would leak it; set "
                "Task.prefix_words, and the first words become the query and are not scored"
            )
        if task.kind == "generate" and task.max_new_tokens >= max_length:
            problems.append(f"task {task.name!r} writes {task.max_new_tokens} tokens, max_length is {max_length}")
    if problems:
        raise ConfigError("cannot prepare the evaluation: " + "; ".join(problems))
