"""T and the vocabulary of a study before its split is made: known, or estimated from the size of the corpus."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ragscale.study._config import StudyConfig

# characters per token of a BPE by its vocabulary: English Wikipedia, tokenizers of this library and of GPT-NeoX
_CHARACTERS = ((256, 1.0), (512, 2.0), (1024, 2.6), (4096, 3.4), (8192, 3.8), (32_768, 4.3), (100_352, 4.6))
# how much text a compressed byte holds, and what JSON adds
_EXPANSION = {".gz": 2.8, ".zst": 3.0, ".parquet": 2.2, ".xz": 3.5, ".bz2": 3.5}
_KNOWN_TOKENIZER = 50_304  # stands for a tokenizer that is named and not here
_WORLD_CHARACTERS = 117  # of a document of the invented world


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """T, the vocabulary, and a sentence on where an estimate comes from (empty where both are known)."""

    budget: int
    vocab_size: int
    note: str = ""


def estimated_sizes(config: StudyConfig) -> Sizes:
    """Return T and the vocabulary as far as they can be known without reading the corpus."""
    vocab_size, guess = _vocabulary(config)
    notes = [guess] if guess else []
    budget = config.max_tokens
    if budget is None:
        characters, source = _characters(config)
        budget = max(1, round(characters / _characters_per_token(vocab_size)) - config.validation_tokens)
        notes.append(f"T = {budget:,} is estimated from {source}")
    note = "; ".join(notes)
    return Sizes(budget=budget, vocab_size=vocab_size, note=f"{note}: run(until='split') tells exactly" if note else "")


def _vocabulary(config: StudyConfig) -> tuple[int, str]:
    if isinstance(config.tokenizer, int):
        return config.tokenizer, ""
    path = Path(config.tokenizer)
    path = path / "tokenizer.json" if path.is_dir() else path
    if path.is_file():
        value = json.loads(path.read_text(encoding="utf-8"))
        return len(value["model"]["vocab"]) + len(value.get("added_tokens", [])), ""
    return _KNOWN_TOKENIZER, f"a vocabulary of {_KNOWN_TOKENIZER:,} is assumed for {config.tokenizer!r}"


def _characters(config: StudyConfig) -> tuple[float, str]:
    corpus: Any = config.corpus
    if isinstance(corpus, Mapping):
        n_documents = corpus["synthetic"].get("n_documents", 4000)
        return n_documents * _WORLD_CHARACTERS, f"{n_documents:,} invented documents"
    total = characters = 0.0
    for given in [corpus] if isinstance(corpus, str) else corpus:
        path = Path(given)
        for file in [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]:
            size = file.stat().st_size
            total += size
            text = 1.0 if file.suffix in {".txt", ".md"} else 0.9
            characters += size * _EXPANSION.get(file.suffix, 1.0) * text
    return characters, f"{total / 1e6:,.1f} MB of files"


def _characters_per_token(vocab_size: int) -> float:
    points = [(math.log(size), value) for size, value in _CHARACTERS]
    at = math.log(max(2, vocab_size))
    if at <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return points[-1][1]
