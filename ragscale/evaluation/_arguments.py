"""What an evaluation may be asked for: every problem of the arguments at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ragscale._counts import whole_or_same
from ragscale.errors import ConfigError
from ragscale.evaluation._language_model import LanguageModel
from ragscale.evaluation._tasks import Task, examples_to_show

if TYPE_CHECKING:
    from ragscale.retrieval import Retriever

CONDITIONS = ("closed-book", "retrieved", "oracle", "random")


def check_arguments(
    tasks: Sequence[Task],
    *,
    sizes: Any,
    seed: Any,
    k: int,
    conditions: Sequence[str],
    n_shot: int,
    retriever: Retriever | None,
    max_length: int,
    model: LanguageModel,
) -> list[int]:
    """Return the store sizes, rising; raise one `ConfigError` that lists everything that cannot work."""
    problems = []
    wrong = [task for task in tasks if not isinstance(task, Task)]
    if wrong:
        raise ConfigError(f"cannot prepare the evaluation: a task is a Task, a path or a name, not {wrong[0]!r}")
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
    stores, bad = _sizes(sizes)
    if bad or not stores:
        problems.append(f"store_tokens must be counts of tokens, at least one; got {bad or 'none'}")
    positive = [size for size in stores if size > 0]
    for name, value, least in (("k", k, 1), ("n_shot", n_shot, 0), ("seed", seed, 0), ("max_length", max_length, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            problems.append(f"{name} must be a whole number of at least {least}, got {value!r}")
    if isinstance(max_length, int) and max_length > model.max_length:
        problems.append(f"max_length must be from 2 to the model's {model.max_length} tokens, got {max_length}")
    if retriever is not None and not hasattr(retriever, "n_tokens_served"):
        raise ConfigError(f"cannot prepare the evaluation: retriever must be an indexed Retriever, got {retriever!r}")
    if retriever is None and positive and {"retrieved", "random"} & set(conditions):
        problems.append(f"store_tokens has {positive} but there is no retriever: pass retriever=")
    if retriever is not None and positive and max(positive) > retriever.n_tokens_served:
        problems.append(
            f"store_tokens asks for {max(positive):,} tokens but the retriever holds {retriever.n_tokens:,}"
        )
    if "random" in conditions and (retriever is None or not positive):
        problems.append("condition 'random' draws from a store: pass retriever= and a store_tokens above 0")
    for task in tasks:
        shown = examples_to_show(task)
        n_other = len(shown) if task.shots else len(shown) - (len(shown) == len(task.examples))
        if isinstance(n_shot, int) and n_shot > n_other:
            problems.append(f"n_shot={n_shot}, but task {task.name!r} has {n_other} questions to take examples from")
        evidence = ("retrieved" in conditions or "random" in conditions) and positive
        if task.kind == "text" and task.prefix_words == 0 and (evidence or "oracle" in conditions):
            problems.append(
                f"text task {task.name!r} has prefix_words=0: a query made of the scored text would leak it; set "
                "Task.prefix_words, and the first words become the query and are not scored"
            )
        if task.kind == "generate" and isinstance(max_length, int) and task.max_new_tokens >= max_length:
            problems.append(f"task {task.name!r} writes {task.max_new_tokens} tokens, max_length is {max_length}")
    if problems:
        raise ConfigError("cannot prepare the evaluation: " + "; ".join(problems))
    return stores


def _sizes(sizes: Any) -> tuple[list[int], list[Any]]:
    """Return the store sizes, rising, and what is none."""
    is_one = isinstance(sizes, str) or not isinstance(sizes, Iterable) or getattr(sizes, "shape", None) == ()
    good: set[int] = set()
    bad: list[Any] = []
    for size in [sizes] if is_one else sizes:
        n = whole_or_same(size)
        if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63:
            good.add(n)
        else:
            bad.append(size)
    return sorted(good), bad
