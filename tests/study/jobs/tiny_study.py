"""The studies of these tests: an invented world and a model so small that the whole takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ragscale.study import Study, StudyConfig

SETTINGS: dict[str, Any] = {
    "corpus": {"synthetic": {"n_documents": 400, "n_entities": 20, "n_questions": 5, "n_bands": 2}},
    "models": [{"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32, "name": "tiny"}],
    "D": [4_000, 8_000],
    "R": [3_000],
    "budgets": [9_000],
    "tokenizer": 300,
    "validation_tokens": 500,
    "passage_tokens": 48,
    "k": 1,
    "seeds": (0, 1),
    "training": {"seq_len": 128, "batch_tokens": 256, "allow_short_runs": True, "precision": "fp32"},
}
TINY = StudyConfig(**SETTINGS)
# one checkpoint: for tests whose every job is a new process
ONE = StudyConfig(**{**SETTINGS, "seeds": (0,), "D": [4_000], "budgets": []})


def copy_of(study: Study, directory: Path, config: StudyConfig | None = None) -> Study:
    """Return a study that goes on from a copy of what another has done."""
    return Study(config or study.config, shutil.copytree(study.directory, directory))


def begun(study: Study, directory: Path, config: StudyConfig) -> Study:
    """Return a study that has its split from another: what follows is its own."""
    (split,) = study.directory.glob("stages/split-*")
    shutil.copytree(split, directory / "stages" / split.name)
    return Study(config, directory)


def outputs(study: Study) -> dict[str, bytes]:
    """Return the bytes of everything that later stages and people read; what a kill left half made is hidden."""
    names = ("results.jsonl", "coverage.csv", "model.safetensors", "manifest.json", "tokens.npy")
    files = {path.relative_to(study.directory): path for name in names for path in study.directory.rglob(name)}
    return {str(name): path.read_bytes() for name, path in files.items() if not any(p[0] == "." for p in name.parts)}
