"""Read a task: a JSON Lines file in ragscale's schema, an lm-eval YAML, or one of the named tasks."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragscale.errors import SplitError, TaskError
from ragscale.evaluation._patterns import pattern_problem
from ragscale.evaluation._prompts import PromptTemplate
from ragscale.evaluation._tasks import Example, Task, example_problems, raise_problems
from ragscale.splitting._opening import open_binary

_TEXT_LISTS = ("choices", "answers", "gold_titles", "gold_doc_ids", "gold_passages")
_KNOWN = {
    "id", "task", "split", "question", "answer_index", "answer_type", "passage", "meta", "gold_in_corpus", *_TEXT_LISTS,
}  # fmt: skip


def load_task(
    path_or_name: str | os.PathLike[str],
    *,
    kind: str | None = None,
    name: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    template: PromptTemplate | None = None,
    source: str | os.PathLike[str] | None = None,
) -> Task:
    """Read a task from a file, or by name.

    Parameters
    ----------
    path_or_name : path or str
        A ``.jsonl`` file (also ``.gz``, ``.zst``) in the schema below, an lm-eval task ``.yaml``, or a name that
        `task_names` lists, which is read with Hugging Face ``datasets``.
    kind : str, optional
        Ask the questions as another kind, e.g. ``"likelihood"`` instead of ``"generate"`` (no text is written).
    name : str, optional
        Another name for the rows of the results table.
    split : str, optional
        Keep only this split of a file, or load this split of a named task. By default a file is taken whole, and a
        named task's evaluation split is loaded.
    limit : int, optional
        Keep only the first examples.
    template : PromptTemplate, optional
        Another default prompt.
    source : path or str, optional
        For a named task: another hub name, or a local directory or file in the same layout as the hub's.

    Returns
    -------
    Task

    Raises
    ------
    TaskError
        Listing every problem of the file at once; no line is skipped.

    Notes
    -----
    One JSON object a line: ``{id, question, task?, split?, choices?, answer_index?, answers?, answer_type? ("regex"),
    passage?, gold_titles?, gold_doc_ids?, gold_passages?, meta?}``. Without ``kind`` it follows from the ``task``
    field where that is a named task, else from the fields: choices everywhere make a choice task, else answers make a
    ``generate`` task, and neither makes a ``text`` task.

    Examples
    --------
    >>> import json
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ragscale.evaluation import load_task
    >>> row = {"id": "1", "question": "What rises twice a day?", "answers": ["The sea"]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "tides.jsonl").write_text(json.dumps(row))
    ...     load_task(f"{folder}/tides.jsonl", kind="likelihood")
    Task('tides', 'likelihood', 1 example)
    """
    from ragscale.evaluation._named import NAMED, load_named

    path = Path(path_or_name)
    if path.is_file():
        if path.suffix in (".yaml", ".yml"):
            from ragscale.evaluation._lm_eval_yaml import load_lm_eval_yaml

            task = load_lm_eval_yaml(path, kind=kind, name=name, split=split, template=template)
        else:
            task = read_jsonl(path, kind=kind, name=name, split=split, template=template)
    elif str(path_or_name) in NAMED:
        task = load_named(str(path_or_name), kind=kind, name=name, split=split, template=template, source=source)
    else:
        raise TaskError(
            f"{os.fspath(path_or_name)!r} is neither a file nor a named task; named tasks: {', '.join(sorted(NAMED))}"
        )
    return task.limit(limit)


@contextmanager
def open_text(path: Path) -> Generator[io.TextIOBase]:
    """Open a plain, gzip or Zstandard text file; lines end at newline only (questions may hold U+2028).

    A byte order mark is skipped; a file that cannot be read to its end is a SplitError that names it.
    """
    with open_binary(path) as file:
        yield io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")


def read_jsonl(
    path: Path, *, kind: str | None, name: str | None, split: str | None, template: PromptTemplate | None
) -> Task:
    """Read a file in ragscale's schema."""
    from ragscale.evaluation._named import NAMED

    problems: list[str] = []
    records = list(_records(path, problems))
    if split is not None:
        found = Counter(record.get("split") for _, record in records)
        records = [(line, record) for line, record in records if record.get("split") == split]
        if not records:
            problems.append(f"no line has split {split!r}; the file has {', '.join(sorted(map(str, found)))}")
    tasks = {record["task"] for _, record in records if isinstance(record.get("task"), str)}
    known = NAMED.get(next(iter(tasks))) if len(tasks) == 1 else None
    if kind is None:
        kind = known.kind if known else _infer_kind(record for _, record in records)
    examples: list[Example] = []
    seen: dict[str, int] = {}
    for line, record in records:
        found_here = list(_record_problems(record))
        example = None
        try:
            example = None if found_here else _example(record, line)
        except TaskError as error:
            found_here += error.problems
        if example is not None:
            if example.id in seen:
                found_here.append(f"repeats the id {example.id!r} of line {seen[example.id]}")
            seen.setdefault(example.id, line)
            found_here += example_problems(example, kind)
            examples.append(example)
        problems += [f"line {line}: {problem}" for problem in found_here]
    if not records and not problems:
        problems.append("there are no lines")
    raise_problems(os.fspath(path), problems)
    settings: dict[str, Any] = dict(known.settings) if known and known.kind == kind else {}
    if template is not None:
        settings["template"] = template
    elif known:
        settings["template"] = known.template
    elif kind in ("text", "last_word"):
        settings["template"] = PromptTemplate(question="{question}")
    stem = re.sub(r"\.(jsonl|json|ndjson)(\.\w+)?$", "", path.name)
    label = name or (next(iter(tasks)) if len(tasks) == 1 else stem)
    return Task(name=label, kind=kind, examples=tuple(examples), **settings)


def _records(path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object); lines that are not objects become problems."""
    try:
        with open_text(path) as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    record = json.loads(text)
                except (ValueError, RecursionError) as error:
                    problems.append(f"line {line}: not JSON: {error}")
                    continue
                if isinstance(record, dict):
                    yield line, record
                else:
                    problems.append(f"line {line}: expected an object, got {type(record).__name__}")
    except (UnicodeDecodeError, SplitError) as error:
        problems.append(f"the file cannot be read to its end: {error}")


def _infer_kind(records: Iterable[dict[str, Any]]) -> str:
    records = list(records)
    with_choices = [record for record in records if record.get("choices")]
    if records and len(with_choices) == len(records):
        yes_no = all([str(c).lower() for c in record["choices"]] == ["no", "yes"] for record in with_choices)
        return "yes_no" if yes_no else "multiple_choice"
    return "generate" if any("answers" in record for record in records) else "text"


def _record_problems(record: dict[str, Any]) -> Iterator[str]:
    unknown = sorted(set(record) - _KNOWN)
    if unknown:
        yield f"unknown fields {', '.join(unknown)} (put them under 'meta')"
    if not isinstance(record.get("question"), str):
        yield f"'question' must be text, got {record.get('question')!r}"
    for name in _TEXT_LISTS:
        value = record.get(name, [])
        if isinstance(value, str) and name != "choices":
            continue  # one text
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            yield f"{name!r} must be a list of texts, got {_short(value)}"
    index = record.get("answer_index")
    if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
        yield f"'answer_index' must be an integer, got {index!r}"
    if not isinstance(record.get("passage", ""), str):
        yield f"'passage' must be text, got {_short(record['passage'])}"
    if not isinstance(record.get("meta", {}), dict):
        yield f"'meta' must be an object, got {_short(record['meta'])}"
    kind = record.get("answer_type", "string")
    if kind not in ("string", "regex"):
        yield f"'answer_type' must be 'string' or 'regex', got {kind!r}"
    answers = record.get("answers", [])
    answers = [answers] if isinstance(answers, str) else answers
    if kind == "regex" and isinstance(answers, list):
        yield from filter(None, (pattern_problem(pattern) for pattern in answers if isinstance(pattern, str)))
    choices = record.get("choices")
    choices = choices if isinstance(choices, list) else []
    if answers and isinstance(index, int) and 0 <= index < len(choices) and choices[index] not in answers:
        yield f"choice {index} is {choices[index]!r} but the answer is {answers[0]!r}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _example(record: dict[str, Any], line: int) -> Example:
    choices, index = tuple(record.get("choices", ())), record.get("answer_index")
    answers = record.get("answers", ())
    if not answers and index is not None and 0 <= index < len(choices):
        answers = (choices[index],)
    return Example(
        id=str(record.get("id", f"line-{line}")),
        question=record["question"],
        choices=choices,
        answer_index=index,
        answers=answers,
        answer_type=record.get("answer_type", "string"),
        passage=record.get("passage", ""),
        gold_titles=record.get("gold_titles", ()),
        gold_doc_ids=record.get("gold_doc_ids", ()),
        gold_passages=record.get("gold_passages", ()),
        meta=record.get("meta", {}),
    )
