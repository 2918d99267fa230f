"""Overlap with evaluation questions: n-grams of words, exact, reported per task and document."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragscale._files import atomic_write, check_fields, load_json, parse_json
from ragscale._scripts import spaced
from ragscale.errors import ConfigError, SplitError
from ragscale.splitting._opening import LineTooLong, read_lines

_WORD = re.compile(r"\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    """Return the words that n-grams are made of: lower case, punctuation and white space apart.

    Characters of scripts without spaces (Chinese, Japanese, Thai, ...) are words of their own.
    """
    return _WORD.findall(spaced(text.lower()))


class HasExamples(Protocol):
    """An evaluation task, as far as decontamination goes."""

    @property
    def name(self) -> str: ...
    @property
    def examples(self) -> Iterable[Any]: ...


Questions: TypeAlias = (
    "Mapping[str, Iterable[Any]] | str | os.PathLike[str] | Iterable[str | os.PathLike[str] | HasExamples]"
)
"""Questions by task, files of them, or tasks."""


@dataclass(frozen=True)
class Decontamination:
    """What to look for in the corpus, and what to do about it.

    Parameters
    ----------
    tasks : mapping of str to texts, or sequence of paths or tasks
        The evaluation questions: ``{"squad": ["When did ...", ...]}``; or files of JSON Lines with a field
        ``question`` (named by their field ``task``, else by the file); or objects with ``name`` and ``examples``
        that each have a ``question``.
    n : int
        Words of an n-gram; 13 as in GPT-3 (reference below) and MassiveDS. A question with fewer words cannot be
        checked; the report counts those.
    action : {"drop", "flag"}
        Leave documents with a hit out of everything, or keep and mark them.

    References
    ----------
    T. Brown et al., Language Models are Few-Shot Learners, 2020, appendix C. arXiv:2005.14165.
    """

    tasks: Questions
    n: int = 13
    action: Literal["drop", "flag"] = "drop"

    def __post_init__(self) -> None:
        problems = []
        if self.n < 1:
            problems.append(f"n must be at least 1, got {self.n}")
        if self.action not in ("drop", "flag"):
            problems.append(f"action must be 'drop' or 'flag', got {self.action!r}")
        if problems:
            raise ConfigError("decontamination cannot run: " + "; ".join(problems))

    def questions(self) -> dict[str, list[str]]:
        """Return the question texts of each task."""
        if isinstance(self.tasks, Mapping):
            return {str(name): list(_texts(texts)) for name, texts in self.tasks.items()}
        tasks: dict[str, list[str]] = {}
        for task in [self.tasks] if isinstance(self.tasks, str | os.PathLike) else self.tasks:
            if isinstance(task, str | os.PathLike):
                for name, text in _read_questions(Path(task)):
                    tasks.setdefault(name, []).append(text)
            elif hasattr(task, "name") and hasattr(task, "examples"):
                tasks.setdefault(str(task.name), []).extend(_texts(task.examples))
            else:
                raise ConfigError(
                    f"decontaminate takes a mapping of task to questions, paths, or tasks with name and examples, "
                    f"got {type(task).__name__}"
                )
        return tasks


def as_decontamination(decontaminate: Decontamination | Questions | None) -> Decontamination | None:
    """Return the settings, or None when there is nothing to look for."""
    if isinstance(decontaminate, Decontamination):
        return decontaminate
    if decontaminate is None or (isinstance(decontaminate, Sequence | Mapping) and not decontaminate):
        return None
    return Decontamination(decontaminate)


def _texts(examples: Iterable[Any]) -> Iterable[str]:
    for example in examples:
        text = example.get("question") if isinstance(example, Mapping) else getattr(example, "question", example)
        if not isinstance(text, str):
            raise ConfigError(f"an evaluation question must be text or have a field question, got {example!r:.80}")
        yield text


def _read_questions(path: Path) -> Iterable[tuple[str, str]]:
    for line, raw in read_lines(path):
        if isinstance(raw, LineTooLong):
            raise ConfigError(f"{path}, line {line}: {raw}")
        if raw.strip():
            row = parse_json(raw, name=f"{path}, line {line}", error=ConfigError)
            if not isinstance(row, dict) or not isinstance(row.get("question"), str):
                raise ConfigError(f"{path}, line {line}: no field 'question' with text")
            yield str(row.get("task") or path.name.split(".")[0]), row["question"]


class NgramIndex:
    """The n-grams of all questions, searched in a document by one pass of NumPy over its words.

    Each word of the questions has a number and every other word is 0; windows without 0 are hashed and looked up,
    and a hit is confirmed word by word, so that a hash collision never counts.
    """

    def __init__(self, tasks: dict[str, list[str]], n: int, action: str) -> None:
        self.tasks, self.n, self.action = tasks, n, action
        self.vocabulary: dict[str, int] = {}
        self.places: dict[tuple[str, ...], list[tuple[str, int]]] = {}
        self.too_short = dict.fromkeys(tasks, 0)
        for task, questions in tasks.items():
            for number, question in enumerate(questions):
                found = words(question)
                self.too_short[task] += len(found) < n
                for start in range(len(found) - n + 1):
                    gram = tuple(found[start : start + n])
                    for word in gram:
                        self.vocabulary.setdefault(word, len(self.vocabulary) + 1)
                    places = self.places.setdefault(gram, [])
                    if (task, number) not in places:
                        places.append((task, number))
        grams = np.array([[self.vocabulary[w] for w in gram] for gram in self.places], dtype=np.uint64)
        self.hashes = np.unique(self._hash(grams.reshape(-1, n)).ravel())

    def _hash(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        value = np.zeros(len(numbers), dtype=np.uint64)
        for i in range(self.n):
            value = (value + numbers[:, i]) * _BASE
            value ^= value >> np.uint64(29)
        return value

    def hits(self, text: str) -> dict[str, dict[int, int]]:
        """Return ``{task: {question number: n-grams found}}`` for a text."""
        found = words(text)
        if len(found) < self.n or not len(self.hashes):
            return {}
        numbers = np.fromiter((self.vocabulary.get(word, 0) for word in found), dtype=np.uint64, count=len(found))
        known = np.cumsum(np.concatenate([[0], numbers > 0]))
        starts = np.flatnonzero(known[self.n :] - known[: -self.n] == self.n)
        if not len(starts):
            return {}
        hashes = self._hash(np.lib.stride_tricks.sliding_window_view(numbers, self.n)[starts])
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        result: dict[str, dict[int, int]] = {}
        for start in starts[self.hashes[at] == hashes].tolist():
            for task, question in self.places.get(tuple(found[start : start + self.n]), ()):
                counts = result.setdefault(task, {})
                counts[question] = counts.get(question, 0) + 1
        return result

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        with atomic_write(path, "w", encoding="utf-8") as file:
            json.dump({"tasks": self.tasks, "n": self.n, "action": self.action}, file, ensure_ascii=False)

    @classmethod
    def load(cls, path: Path) -> NgramIndex:
        """Read what `save` wrote."""
        value = load_json(path, error=SplitError)
        check_fields(value, {"tasks": dict, "n": int, "action": str}, name=str(path), error=SplitError)
        return cls(value["tasks"], value["n"], value["action"])
