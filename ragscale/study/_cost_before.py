"""What a study costs before any model: hours of CPU, memory and disk of the split, indexes, searches and prompts."""

from __future__ import annotations

from ragscale.study._config import StudyConfig
from ragscale.study._measured import NOT_MEASURED, Measured
from ragscale.study._plan import Cell, prompt_length
from ragscale.study._sizes import Sizes
from ragscale.study._variants import variants

GIB = 2**30
# measured on one core of a shared machine (benchmarks/results/splitting.json, retrieval.json)
_SPLIT_TOKENS_PER_SECOND = 320_000
_INDEX_TOKENS_PER_SECOND = 1_750_000
_SEARCH_SECONDS_PER_PASSAGE = 3.2e-9
_PROMPT_SECONDS = 2e-3
_INDEX_BYTES_PER_TOKEN, _INDEX_MEMORY_PER_TOKEN = 9.0, 40.0
_PASSAGE_BYTES_PER_TOKEN = 2.5


def before_models(
    config: StudyConfig,
    sizes: Sizes,
    grid: list[Cell],
    n_questions: int | None,
    measured: Measured = NOT_MEASURED,
) -> dict[str, dict[str, float]]:
    """Return the jobs of each such stage, their CPU hours in all, the memory of the largest, and the disk."""
    largest = [max((c.R for c in grid if c.source == source), default=0) for source in config.store_sources]
    stores = {(cell.source, cell.R, cell.k) for cell in grid if cell.R}
    width = 2 if sizes.vocab_size <= 2**16 else 4
    read = sizes.budget + config.validation_tokens
    questions = n_questions or 0
    n_passages = sum(largest) / max(1, config.passage_tokens - config.passage_overlap)
    n_prompts = questions * (len(stores) + 3)
    n_sources = sum(size > 0 for size in largest)
    split = {
        "jobs": 1,
        "cpu_hours": read / _SPLIT_TOKENS_PER_SECOND / 3600,
        "memory_gib": 0.5,
        "disk_gib": read * (width + _PASSAGE_BYTES_PER_TOKEN) / GIB if config.given_split is None else 0.0,
    }
    index = {
        "jobs": n_sources * config.index_shards,
        "cpu_hours": sum(largest) / _INDEX_TOKENS_PER_SECOND / 3600,
        "memory_gib": 0.3 + max(largest) / config.index_shards * _INDEX_MEMORY_PER_TOKEN / GIB,
        "disk_gib": sum(largest) * _INDEX_BYTES_PER_TOKEN / GIB,
    }
    prompts = n_prompts * prompt_length(config)
    retrieve = {
        "jobs": sum(bool(variant.cells(grid)) for variant in variants(config)),
        "cpu_hours": n_prompts * _PROMPT_SECONDS / 3600,
        "memory_gib": prompts * 40 / GIB,
        "disk_gib": prompts * 4 / GIB,
    }
    search_hours = questions * n_passages * _SEARCH_SECONDS_PER_PASSAGE / 3600
    stages = {"split": split, "index": index}
    if config.searches_apart and n_sources:
        jobs = n_sources * config.search_jobs
        stages["search"] = {"jobs": jobs, "cpu_hours": search_hours, "memory_gib": index["memory_gib"], "disk_gib": 0.0}
        retrieve["memory_gib"] += 0.5
    else:
        retrieve["cpu_hours"] += search_hours
        retrieve["memory_gib"] += index["memory_gib"]
    stages["retrieve"] = retrieve
    for stage, cost in stages.items():
        cost["cpu_hours"] *= measured.ratio(stage)
    return stages
