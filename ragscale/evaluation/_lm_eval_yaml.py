"""Read an lm-eval task: its YAML, with local JSON or hub data, rendered with its own Jinja templates."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragscale._extras import load_dataset, require
from ragscale.errors import TaskError
from ragscale.evaluation._jinja import render
from ragscale.evaluation._load import open_text
from ragscale.evaluation._prompts import PromptTemplate
from ragscale.evaluation._tasks import Example, Task, raise_problems

_KINDS = {
    "multiple_choice": "multiple_choice",
    "generate_until": "generate",
    "loglikelihood": "last_word",
    "loglikelihood_rolling": "text",
}
_PYTHON = ("process_docs", "process_results", "doc_to_text", "doc_to_target", "doc_to_choice", "custom_dataset")


def load_lm_eval_yaml(
    path: Path, *, kind: str | None, name: str | None, split: str | None, template: PromptTemplate | None
) -> Task:
    """Turn an lm-eval task file into a `Task` that asks the same prompts.

    What a task computes with Python functions (``!function``) cannot be read and is listed as a problem.
    """
    config = _read_config(path)
    problems = [
        f"{key} is a Python function ({value.name}): only data and templates are read; run it with RetrievalLM instead"
        for key, value in config.items()
        if isinstance(value, _Function)
    ]
    output = config.get("output_type", "generate_until")
    if output not in _KINDS:
        problems.append(f"output_type {output!r} is not one of {', '.join(_KINDS)}")
    splits = [split] if split else [config.get(f"{part}_split") for part in ("test", "validation", "training")]
    used = next((part for part in splits if part), None)
    if used is None:
        problems.append("there is no test_split, validation_split or training_split")
    required = ("doc_to_text", "doc_to_target") + (("doc_to_choice",) if output == "multiple_choice" else ())
    if output == "loglikelihood_rolling":
        required = ("doc_to_target",)
    problems += [f"{key} is missing" for key in required if config.get(key) is None]
    raise_problems(str(path), problems)
    examples = _examples(path, config, str(used), output, problems)
    shots: list[Example] = []
    other = config.get("fewshot_split")
    if other and other != used and not problems:
        shots = _examples(path, config, str(other), output, problems)
    raise_problems(str(path), problems)
    generation = config.get("generation_kwargs") or {}
    until = generation.get("until") or ["\n\n"]
    prompt = PromptTemplate(
        question="{question}",
        answer_prefix=config.get("target_delimiter", " "),
        description=config.get("description") or "",
        shot_separator=config.get("fewshot_delimiter", "\n\n"),
    )
    return Task(
        name=name or str(config.get("task", path.stem)),
        kind=kind or _KINDS[output],
        examples=tuple(examples),
        shots=tuple(shots),
        template=template or prompt,
        max_new_tokens=int(generation.get("max_gen_toks", 256)) if output == "generate_until" else 32,
        stop=tuple([until] if isinstance(until, str) else until) if output == "generate_until" else ("\n",),
    )


class _Function:
    """Stands for a ``!function`` tag."""

    def __init__(self, name: str) -> None:
        self.name = name


def _read_config(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    yaml = require("yaml", "lm-eval")

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: _Function(str(node.value)))
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise_problems(str(path), [f"not YAML: {type(error).__name__}: {error}"])
        raise
    if not isinstance(config, dict):
        raise_problems(str(path), [f"expected a mapping, got {type(config).__name__}"])
    for other in _as_list(config.pop("include", [])):
        base = (path.parent / other).resolve()
        if base in seen or not base.is_file():
            raise_problems(str(path), [f"include {other!r} {'includes itself' if base in seen else 'does not exist'}"])
        config = _read_config(base, (*seen, path.resolve())) | config
    return config


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _documents(path: Path, config: Mapping[str, Any], split: str) -> Iterator[Mapping[str, Any]]:
    kwargs = dict(config.get("dataset_kwargs") or {})
    files = kwargs.get("data_files")
    if config.get("dataset_path") != "json" or files is None:
        kwargs.pop("trust_remote_code", None)  # code of a data set is never run
        name = str(config.get("dataset_path"))
        try:
            yield from load_dataset(name, config.get("dataset_name"), split=split, **kwargs)
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise_problems(str(path), [f"the data set {name!r} cannot be loaded: {error}"])
        return
    wanted = files.get(split) if isinstance(files, dict) else files
    if wanted is None:
        raise_problems(str(path), [f"data_files has no split {split!r}; it has {', '.join(files)}"])
    for name in _as_list(wanted):
        file = Path(name) if Path(name).is_file() else path.parent / name
        if not file.is_file():
            raise_problems(str(path), [f"data file {name!r} is neither here nor beside the YAML"])
        try:
            with open_text(file) as lines:
                text = lines.read()
            whole = text.lstrip().startswith("[")
            found = json.loads(text) if whole else [json.loads(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
            raise_problems(str(path), [f"data file {name!r} cannot be read: {error}"])
            raise
        yield from found


class _Rendered:
    """One record and what the task's templates make of it."""

    def __init__(self, doc: Mapping[str, Any], texts: Mapping[str, str], config: Mapping[str, Any]) -> None:
        self.doc, self.texts, self.config = doc, texts, config

    def __getitem__(self, key: str) -> Any:
        """Return a field of the record, or the template rendered with it (one newline at its end is kept)."""
        template = self.config[key]
        if not isinstance(template, str):
            return template
        return self.doc[template] if template in self.doc else self.texts[key]


def _examples(path: Path, config: Mapping[str, Any], split: str, output: str, problems: list[str]) -> list[Example]:
    """Read the records of a split as examples; what is wrong with a record becomes a problem."""
    docs = []
    for row, doc in enumerate(_documents(path, config, split)):
        if isinstance(doc, Mapping):
            docs.append(doc)
        else:
            problems.append(f"record {row}: expected an object, got {type(doc).__name__}")
    names = [key for key in ("doc_to_text", "doc_to_target", "doc_to_choice") if isinstance(config.get(key), str)]
    # a template that names a field of every record is that field
    templates = {key: config[key] for key in names if not docs or any(config[key] not in doc for doc in docs)}
    examples: list[Example] = []
    try:
        rendered = render(templates, docs)
    except TaskError as error:
        raise_problems(str(path), [str(error)])
        raise
    for row, (doc, texts) in enumerate(zip(docs, rendered, strict=True)):
        if "error" in texts:
            problems.append(f"record {row}: {texts['error']}")
            continue
        try:
            examples.append(_example(_Rendered(doc, texts, config), row, output))
        except TaskError as error:
            problems += [f"record {row}: {problem}" for problem in error.problems]
        except (KeyError, TypeError, ValueError, IndexError, SyntaxError, RecursionError, MemoryError) as error:
            problems.append(f"record {row}: {type(error).__name__}: {error}")
    return examples


def _choices(value: Any) -> list[str]:
    if isinstance(value, dict):  # literal, as lm-eval takes them
        return [str(choice) for choice in value.values()]
    return [str(choice) for choice in (ast.literal_eval(value) if isinstance(value, str) else value)]


def _example(record: _Rendered, row: int, output: str) -> Example:
    identity = str(record.doc.get("id", row))
    target = record["doc_to_target"]
    if output == "loglikelihood_rolling":
        return Example(id=identity, question=str(target))
    question = str(record["doc_to_text"])
    if output == "multiple_choice":
        choices = _choices(record["doc_to_choice"])
        if isinstance(target, str):
            target = choices.index(target) if target in choices else int(target)
        return Example(
            id=identity,
            question=question,
            choices=tuple(choices),
            answer_index=int(target),
            answers=(choices[int(target)],),
        )
    answers: Sequence[Any] = target if isinstance(target, list | tuple) else [target]
    return Example(id=identity, question=question, answers=tuple(str(answer) for answer in answers))
