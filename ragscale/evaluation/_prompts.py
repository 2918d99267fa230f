"""How a question becomes a prompt: separators, order of passages, token budgets, worked examples."""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ragscale._counts import whole_or_same
from ragscale._files import value_digest
from ragscale.errors import ConfigError

if TYPE_CHECKING:
    from ragscale.evaluation._tasks import Example

_QUESTION_FIELDS = {"question", "passage", "choices"}
_PASSAGE_FIELDS = {"text", "rank"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTemplate:
    r"""How passages, worked examples and the question are put together.

    The prompt is ``description`` + passages + worked examples + question; the continuation that is scored is
    ``answer_prefix`` + answer.

    Parameters
    ----------
    question : str
        With the fields ``{question}``, ``{passage}`` (the gold passage: only for open-book tasks such as SciQ with
        support) and ``{choices}`` (the options, one a line).
    answer_prefix : str
        Stands between the question and the answer, and belongs to what is scored.
    description : str
        An instruction before everything else.
    passage : str
        One retrieved passage, with the fields ``{text}`` and ``{rank}`` (1 is the best).
    passage_separator, after_passages, shot_separator : str
        Between passages; after the last one; after each worked example.
    order : {"best_last", "best_first"}
        Best passage next to the question (as the paper does), or first.
    passage_tokens : int or None
        Cut every passage after so many tokens. What is cut is counted.
    shots_first : bool
        Worked examples before the passages instead of between passages and question.

    Examples
    --------
    >>> PromptTemplate(question="Q: {question}\nA:").digest[:8]
    '...'
    """

    question: str = "Question: {question}\nAnswer:"
    answer_prefix: str = " "
    description: str = ""
    passage: str = "{text}"
    passage_separator: str = "\n\n"
    after_passages: str = "\n\n"
    shot_separator: str = "\n\n"
    order: str = "best_last"
    passage_tokens: int | None = None
    shots_first: bool = False

    def __post_init__(self) -> None:
        problems = [
            *_field_problems("question", self.question, _QUESTION_FIELDS, "question"),
            *_field_problems("passage", self.passage, _PASSAGE_FIELDS, "text"),
        ]
        if self.order not in ("best_last", "best_first"):
            problems.append(f"order must be 'best_last' or 'best_first', got {self.order!r}")
        object.__setattr__(self, "passage_tokens", whole_or_same(self.passage_tokens))
        problems += [
            f"{name} must be text, got {getattr(self, name)!r}"
            for name in ("answer_prefix", "description", "passage_separator", "after_passages", "shot_separator")
            if not isinstance(getattr(self, name), str)
        ]
        if self.passage_tokens is not None and not (isinstance(self.passage_tokens, int) and self.passage_tokens >= 1):
            problems.append(f"passage_tokens must be at least 1 or None, got {self.passage_tokens}")
        if problems:
            raise ConfigError("the prompt template cannot work: " + "; ".join(problems))

    @property
    def digest(self) -> str:
        """SHA-256 of the template."""
        return value_digest(asdict(self))

    def ask(self, example: Example) -> str:
        """Return the question part of the prompt."""
        choices = "\n".join(f"{chr(65 + i)}. {choice}" for i, choice in enumerate(example.choices))
        return self.question.format(question=example.question, passage=example.passage, choices=choices)

    def build(self, question: str, passages: Iterable[str] = (), shots: Iterable[str] = ()) -> str:
        """Return the whole context: passages are given best first and may be cut already; shots end with an answer."""
        shown = [self.passage.format(text=text, rank=rank) for rank, text in enumerate(passages, start=1)]
        if self.order == "best_last":
            shown.reverse()
        evidence = self.passage_separator.join(shown) + self.after_passages if shown else ""
        worked = "".join(shot + self.shot_separator for shot in shots)
        parts = (worked, evidence) if self.shots_first else (evidence, worked)
        return self.description + "".join(parts) + question


def _field_problems(name: str, text: str, allowed: set[str], needed: str) -> Iterable[str]:
    if not isinstance(text, str):
        yield f"{name} must be text, got {text!r}"
        return
    try:
        parsed = [one for one in string.Formatter().parse(text) if one[1] is not None]
        fields = {field for _, field, _, _ in parsed if field is not None}
    except ValueError as error:
        yield f"{name} {text!r} is not a format string: {error} (write {{{{ and }}}} for braces)"
        return
    if any(specification or conversion for _, _, specification, conversion in parsed):
        yield f"{name} {text!r} formats a field: write its name alone, {{{needed}}}"
    unknown = sorted(fields - allowed)
    if unknown:
        yield f"{name} uses unknown fields {', '.join(unknown)}; known: {', '.join(sorted(allowed))}"
    if needed not in fields:
        yield f"{name} {text!r} has no {{{needed}}}"
