"""The tasks known by name: where their data is, how a record reads, and the prompt it is asked with.

Prompts and default splits are those of the paper's harness (closed book; SciQ's support passage is a task of its own).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragscale._extras import load_dataset, require
from ragscale.errors import TaskError
from ragscale.evaluation._prompts import PromptTemplate
from ragscale.evaluation._tasks import Example, Task, example_problems, raise_problems

Record = Mapping[str, Any]
_QA = PromptTemplate()
_Q_A = PromptTemplate(question="Q: {question}?\nA:")
_BARE = PromptTemplate(question="{question}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Where a named task comes from and how it is asked."""

    kind: str
    read: Callable[[Record], dict[str, Any]]
    hub: str
    config: str | None = None
    split: str = "validation"
    train: str | None = "train"
    template: PromptTemplate = _QA
    settings: Mapping[str, Any] = field(default_factory=dict)


def _labelled(record: Record) -> dict[str, Any]:
    """ARC, OpenBookQA, CommonsenseQA: choices {text, label} and answerKey."""
    labels = [str(label) for label in record["choices"]["label"]]
    return {
        "id": str(record["id"]),
        "question": record.get("question_stem") or record["question"],
        "choices": tuple(record["choices"]["text"]),
        "answer_index": labels.index(str(record["answerKey"])),
    }


def _hellaswag(record: Record) -> dict[str, Any]:
    context = record["ctx_a"] + (" " + record["ctx_b"].capitalize() if record["ctx_b"] else "")
    clean = _without_brackets
    return {
        "id": str(record["ind"]),
        "question": clean(f"{record['activity_label']}: {context}"),
        "choices": tuple(clean(ending) for ending in record["endings"]),
        "answer_index": int(record["label"]),
    }


def _without_brackets(text: str) -> str:
    """Drop WikiHow's ``[header]``-like marks: ``[title]`` ends a sentence, every other one is removed."""
    import re

    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _sciq(record: Record) -> dict[str, Any]:
    # upstream always lists the right choice last; order by text so that the place says nothing
    right = record["correct_answer"]
    choices = sorted([record["distractor1"], record["distractor2"], record["distractor3"], right])
    return {
        "question": record["question"],
        "choices": tuple(choices),
        "answer_index": choices.index(right),
        "passage": record["support"].strip(),
    }


def _piqa(record: Record) -> dict[str, Any]:
    choices = (record["sol1"], record["sol2"])
    return {"question": record["goal"], "choices": choices, "answer_index": int(record["label"])}


def _strategyqa(record: Record) -> dict[str, Any]:
    return {
        "id": str(record["qid"]),
        "question": record["question"],
        "choices": ("no", "yes"),
        "answer_index": int(bool(record["answer"])),
        "passage": " ".join(_as_list(record.get("facts") or [])),
        "gold_titles": (str(record["term"]),) if record.get("term") else (),
    }


def _texts(value: Any) -> tuple[Any, ...]:
    """Return one text or several as a tuple: letters are no answers."""
    return (value,) if isinstance(value, str) else tuple(value)


def _nq_open(record: Record) -> dict[str, Any]:
    return {"question": record["question"], "answers": _texts(record["answer"])}


def _triviaqa(record: Record) -> dict[str, Any]:
    answer = record["answer"]
    answers = dict.fromkeys([answer["value"], *_texts(answer["aliases"])])
    return {"id": str(record["question_id"]), "question": record["question"], "answers": tuple(answers)}


def _simpleqa(record: Record) -> dict[str, Any]:
    return {"question": record["problem"], "answers": (record["answer"],)}


def _lambada(record: Record) -> dict[str, Any]:
    context, _, word = record["text"].rstrip().rpartition(" ")
    return {"question": context, "answers": (word,)}


def _hotpotqa(record: Record) -> dict[str, Any]:
    """HotpotQA and 2WikiMultihopQA: supporting facts name the titles of the gold paragraphs in the context."""
    titles = tuple(dict.fromkeys(record["supporting_facts"]["title"]))
    context = dict(zip(record["context"]["title"], record["context"]["sentences"], strict=True))
    gold = [" ".join(sentence.strip() for sentence in context[title]) for title in titles if title in context]
    return {
        "id": str(record["id"]),
        "question": record["question"],
        "answers": (record["answer"],),
        "passage": "\n".join(gold),
        "gold_titles": titles,
    }


def _musique(record: Record) -> dict[str, Any]:
    gold = [paragraph for paragraph in record["paragraphs"] if paragraph["is_supporting"]]
    return {
        "id": str(record["id"]),
        "question": record["question"],
        "answers": tuple(dict.fromkeys([record["answer"], *_texts(record["answer_aliases"])])),
        "passage": "\n".join(paragraph["paragraph_text"] for paragraph in gold),
        "gold_titles": tuple(dict.fromkeys(paragraph["title"] for paragraph in gold)),
    }


def _popqa(record: Record) -> dict[str, Any]:
    answers = record["possible_answers"]
    meta = {key: record[key] for key in ("prop", "s_pop", "o_pop") if key in record}
    return {
        "id": str(record["id"]),
        "question": record["question"],
        "answers": _texts(json.loads(answers) if isinstance(answers, str) else answers),
        "gold_titles": (record["s_wiki_title"],) if record.get("s_wiki_title") else (),
        "meta": meta,
    }


def _entityquestions(record: Record) -> dict[str, Any]:
    meta = {"relation": record["relation"]} if "relation" in record else {}
    return {"question": record["question"], "answers": _texts(record["answers"]), "meta": meta}


def _squad(record: Record) -> dict[str, Any]:
    return {
        "id": str(record["id"]),
        "question": record["question"],
        "answers": tuple(dict.fromkeys(_texts(record["answers"]["text"]))),
        "passage": record["context"],
        "gold_titles": (record["title"],),
    }


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(item) for item in value]


_ARC: dict[str, Any] = {"kind": "multiple_choice", "read": _labelled, "hub": "allenai/ai2_arc", "split": "test"}
_SHORT = {"stop": ("\n", ".", ",")}  # the paper's harness ends short answers there
NAMED: dict[str, Named] = {
    "arc_easy": Named(**_ARC, config="ARC-Easy"),
    "arc_challenge": Named(**_ARC, config="ARC-Challenge"),
    "hellaswag": Named(kind="multiple_choice", read=_hellaswag, hub="Rowan/hellaswag", template=_BARE),
    "sciq": Named(kind="multiple_choice", read=_sciq, hub="allenai/sciq", split="test"),
    "sciq_support": Named(
        kind="multiple_choice",
        read=_sciq,
        hub="allenai/sciq",
        split="test",
        template=PromptTemplate(question="{passage}\nQuestion: {question}\nAnswer:"),
    ),
    "openbookqa": Named(
        kind="multiple_choice", read=_labelled, hub="allenai/openbookqa", config="main", split="test", template=_BARE
    ),
    "piqa": Named(kind="multiple_choice", read=_piqa, hub="baber/piqa"),
    "commonsenseqa": Named(kind="multiple_choice", read=_labelled, hub="tau/commonsense_qa"),
    "strategyqa": Named(kind="yes_no", read=_strategyqa, hub="ChilleD/StrategyQA", split="test"),
    "nq_open": Named(
        kind="generate", read=_nq_open, hub="google-research-datasets/nq_open", template=_Q_A, settings=_SHORT
    ),
    "triviaqa": Named(
        kind="generate", read=_triviaqa, hub="mandarjoshi/trivia_qa", config="rc.nocontext", settings=_SHORT
    ),
    "simpleqa": Named(
        kind="generate", read=_simpleqa, hub="basicv8vc/SimpleQA", split="test", train=None, settings=_SHORT
    ),
    "lambada": Named(
        kind="last_word", read=_lambada, hub="EleutherAI/lambada_openai", split="test", train=None, template=_BARE
    ),
    "hotpotqa": Named(kind="generate", read=_hotpotqa, hub="hotpotqa/hotpot_qa", config="distractor"),
    "musique": Named(kind="generate", read=_musique, hub="dgslibisey/MuSiQue"),
    "2wikimultihopqa": Named(kind="generate", read=_hotpotqa, hub="framolfese/2WikiMultihopQA"),
    "popqa": Named(kind="generate", read=_popqa, hub="akariasai/PopQA", split="test", train=None),
    "entityquestions": Named(
        kind="generate", read=_entityquestions, hub="costadev00/EntityQuestions", split="test", train=None
    ),
    "squad": Named(kind="generate", read=_squad, hub="rajpurkar/squad"),
}


def task_names() -> tuple[str, ...]:
    """Return the names that `load_task` knows.

    Examples
    --------
    >>> "sciq" in task_names() and "sciq_support" in task_names()
    True
    """
    return tuple(NAMED)


def load_named(
    task: str,
    *,
    kind: str | None,
    name: str | None,
    split: str | None,
    template: PromptTemplate | None,
    source: str | os.PathLike[str] | None,
) -> Task:
    """Read a named task from the hub, or from a local copy in the hub's layout."""
    known = NAMED[task]
    kind = kind or known.kind
    split = split or known.split
    problems: list[str] = []
    examples = _read(task, known, kind, _rows(known, split, source), problems)
    raise_problems(f"{task} ({split} of {source or known.hub})", problems)
    settings = dict(known.settings) if kind == known.kind else {}
    return Task(name=name or task, kind=kind, examples=tuple(examples), template=template or known.template, **settings)


def _read(task: str, known: Named, kind: str, rows: Iterable[Record], problems: list[str]) -> list[Example]:
    examples: list[Example] = []
    seen: set[str] = set()
    for row, record in enumerate(rows):
        try:
            fields = known.read(record)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            problems.append(f"record {row} is not in the layout of {known.hub}: {type(error).__name__}: {error}")
            continue
        if not fields.get("answers") and fields.get("answer_index") is not None:
            fields["answers"] = (fields["choices"][fields["answer_index"]],)
        identity = fields.setdefault("id", f"{task}-{row}")
        try:
            example = Example(**fields)
        except TaskError as error:
            problems += [f"record {row} ({identity!r}): {problem}" for problem in error.problems]
            continue
        found = list(example_problems(example, kind))
        if identity in seen:
            found.append("the id is repeated")
        seen.add(identity)
        problems += [f"record {row} ({identity!r}): {problem}" for problem in found]
        examples.append(example)
    return examples


def _rows(known: Named, split: str, source: str | os.PathLike[str] | None) -> Iterator[Record]:
    """Yield the records: a saved `datasets` directory, a data file, or a hub name."""
    datasets = require("datasets", "all")
    if source is None or not Path(source).exists():
        hub = known.hub if source is None else str(source)
        try:
            loaded = load_dataset(hub, known.config if source is None else None, split=split)
        except (OSError, ValueError, RuntimeError) as error:
            raise TaskError(
                f"cannot load {hub!r} ({known.config or 'default'}, split {split!r}): {error}. Without a network give "
                "load_task(..., source=<a local copy in the same layout>), or a file in ragscale's own schema"
            ) from error
        yield from loaded
        return
    path = Path(source)
    if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        loaded = datasets.load_from_disk(str(path))
        if hasattr(loaded, "keys"):
            if split not in loaded:
                raise TaskError(f"{path} has no split {split!r}; it has {', '.join(loaded)}")
            loaded = loaded[split]
        yield from loaded
    elif path.is_dir():
        yield from load_dataset(str(path), split=split)
    else:
        builder = {".parquet": "parquet", ".csv": "csv"}.get(path.suffix, "json")
        yield from load_dataset(builder, data_files={split: str(path)}, split=split)
