"""Everything that can be wrong with a study's settings by themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._counts import as_count
from ragscale.errors import ConfigError

if TYPE_CHECKING:
    from ragscale.study._config import StudyConfig

CONDITIONS = ("closed-book", "retrieved", "oracle", "random")
SOURCES = ("held-out", "seen")
_COUNTS = (
    ("threads", 1),
    ("n_workers", 1),
    ("index_shards", 1),
    ("search_jobs", 1),
    ("processes_per_training", 1),
    ("coverage_sizes", 0),
    ("passage_tokens", 1),
    ("passage_overlap", 0),
    ("validation_tokens", 0),
    ("n_shot", 0),
    ("split_seed", 0),
)


def whole(value: Any) -> int | None:
    """Return a count however it is written (5, 5e6, a NumPy integer), None for anything else."""
    try:
        return as_count("value", value, least=-(2**62))
    except ConfigError:
        return None


def problems_of(config: StudyConfig, *, settled: bool) -> list[str]:
    """List what is wrong; whole floats become ints. ``settled`` says that models, tasks and training are objects."""
    found: list[str] = []
    for name, low in _COUNTS:
        _count(config, name, low, found)
    for name in ("max_tokens", "max_length"):
        if getattr(config, name) is not None:
            _count(config, name, 1, found)
    _check_k(config, found)
    if isinstance(config.tokenizer, str):
        if not config.tokenizer:
            found.append("tokenizer is empty: give a name, a path, or the size of a vocabulary to train")
    else:
        _count(config, "tokenizer", 1, found)
    flags = {name: getattr(config, name) for name in ("decontaminate", "allow_overlap")}
    found += [
        f"{name} = {value!r} must be true or false" for name, value in flags.items() if not isinstance(value, bool)
    ]
    if config.deduplicate not in (None, "exact", "minhash"):
        found.append(f"deduplicate = {config.deduplicate!r} must be 'exact', 'minhash' or None")
    _check_lists(config, found)
    for name, zero in (("D", False), ("R", True), ("budgets", True)):
        grid = getattr(config, name)
        if hasattr(grid, "problems"):
            found += grid.problems(name, zero=zero)
    overlap, size = config.passage_overlap, config.passage_tokens
    if isinstance(overlap, int) and isinstance(size, int) and overlap >= size > 0:
        found.append(f"passage_overlap = {overlap} must be below passage_tokens = {size}")
    _check_corpus(config, found)
    if settled:
        _check_training(config, found)
        found += _not_json(config.to_dict(), "")
    return found


def _count(config: StudyConfig, name: str, low: int, found: list[str]) -> None:
    value = whole(getattr(config, name))
    if value is None or value < low:
        found.append(f"{name} = {getattr(config, name)!r} must be a whole number of at least {low}")
    else:
        object.__setattr__(config, name, value)


def _check_k(config: StudyConfig, found: list[str]) -> None:
    """Make k one whole number, or a rising tuple of several."""
    if isinstance(config.k, str) or not isinstance(config.k, Iterable):
        _count(config, "k", 1, found)
        return
    several = [whole(value) for value in config.k]
    if not several or any(value is None or value < 1 for value in several) or len(set(several)) < len(several):
        found.append(f"k = {list(config.k)!r} must be whole numbers of at least 1, each once")
        return
    rising = sorted(value for value in several if value is not None)
    object.__setattr__(config, "k", tuple(rising) if len(rising) > 1 else rising[0])


def _check_lists(config: StudyConfig, found: list[str]) -> None:
    seeds = config.seeds if isinstance(config.seeds, tuple) else ()
    whole_seeds = [s for s in seeds if isinstance(s, int | np.integer) and not isinstance(s, bool) and s >= 0]
    if not seeds or len(whole_seeds) < len(seeds) or len(set(seeds)) < len(seeds):
        found.append(f"seeds = {config.seeds!r} must be distinct whole numbers of at least 0, and at least one")
    else:
        object.__setattr__(config, "seeds", tuple(int(seed) for seed in seeds))
    conditions, sources, gold = (
        value if isinstance(value, tuple) else () for value in (config.conditions, config.store_sources, config.gold)
    )
    unknown = [c for c in conditions if c not in CONDITIONS]
    if unknown:
        found.append(f"conditions has {unknown}, known are {list(CONDITIONS)}")
    if not sources or any(source not in SOURCES for source in sources) or len(set(sources)) < len(sources):
        found.append(f"store_sources = {list(sources)!r} must name {' or '.join(map(repr, SOURCES))}, each once")
    else:
        object.__setattr__(config, "store_sources", tuple(source for source in SOURCES if source in sources))
    wrong = [path for path in gold if not isinstance(path, str)]
    if wrong:
        found.append(f"gold must be files, got {wrong}")


def _check_corpus(config: StudyConfig, found: list[str]) -> None:
    synthetic = config.corpus.get("synthetic") if isinstance(config.corpus, Mapping) else None
    if isinstance(synthetic, Mapping):
        from ragscale.datasets import synthetic_corpus

        known = list(inspect.signature(synthetic_corpus).parameters)
        unknown = sorted(str(name) for name in synthetic if name not in known)
        if unknown:
            found.append(f"corpus: synthetic_corpus has no {', '.join(unknown)}; known are {', '.join(known)}")
    elif isinstance(config.corpus, tuple) and not config.corpus:
        found.append("corpus is empty: name at least one file")


def _check_training(config: StudyConfig, found: list[str]) -> None:
    """Check what takes several settings together: objects are there by now."""
    models: Any = config.models
    training: Any = config.training
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        found.append(f"models are told apart by their names, but {', '.join(twice)} stands twice: give 'name'")
    for model in models:
        try:
            chosen = model.config_over(training)
        except ConfigError as error:
            found.append(str(error).replace("\n- ", "; "))
            continue
        if chosen.seed != 0 and chosen.seed not in config.seeds:
            found.append(
                f"training of {model.name} has seed = {chosen.seed}, which seeds = {config.seeds} replaces: give seeds"
            )
        if chosen.seq_len > model.shape.max_seq_len:
            found.append(
                f"{model.name}: seq_len = {chosen.seq_len} exceeds the model's max_seq_len = {model.shape.max_seq_len}"
            )
        size = config.tokenizer if isinstance(config.tokenizer, int) and config.given_split is None else 0
        if model.own_vocabulary and model.shape.vocab_size < size:
            found.append(
                f"{model.name} has vocab_size = {model.shape.vocab_size}, below the tokenizer's {size}: "
                f"give vocab_size={size}, or leave it out of a dictionary"
            )


def _not_json(value: Any, where: str) -> list[str]:
    """Name every value that no file of a study could hold, by where it stands."""
    if isinstance(value, float) and not np.isfinite(value):
        return [f"{where} = {value!r} must be a finite number"]
    if value is None or isinstance(value, str | int | float):
        return []
    if isinstance(value, Mapping):
        wrong = [f"{where} has the key {key!r}, which is no text" for key in value if not isinstance(key, str)]
        inner = ((f"{where}.{key}" if where else str(key), part) for key, part in value.items())
        return wrong + [problem for place, part in inner for problem in _not_json(part, place)]
    if isinstance(value, list | tuple):
        return [problem for i, part in enumerate(value) for problem in _not_json(part, f"{where}[{i}]")]
    return [f"{where} is a {type(value).__name__}: give a number, a text, a list or a dictionary"]
