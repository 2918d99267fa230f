"""The cells of a study: which models with which D and R, before any is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ragscale.errors import ConfigError
from ragscale.retrieval._shards import why_not_in_shards
from ragscale.study._config import StudyConfig
from ragscale.study._models import StudyModel
from ragscale.training import ModelConfig, TrainConfig, make_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One cell of the grid: a model, its pretraining tokens, its store and where that comes from, passages shown.

    ``overlap`` says that D + R exceeds the budget T, so that the model saw part of its held-out store in training.
    """

    model: str
    N: int
    seed: int
    D: int
    R: int
    overlap: bool
    source: str = "none"
    k: int = 0


def model_config(model: StudyModel | ModelConfig | str | Mapping[str, Any], vocab_size: int) -> ModelConfig:
    """Return the shape that a study names, for its vocabulary.

    Raises
    ------
    ConfigError
        For an unknown name or bad arguments.
    """
    return StudyModel.of(model).shape_for(vocab_size)


def model_training(config: StudyConfig, model: StudyModel) -> TrainConfig:
    """Return how one model is trained: the study's configuration, and the model's own fields over it."""
    return model.config_over(cast("TrainConfig", config.training))


def prompt_length(config: StudyConfig) -> int:
    """Return the tokens that a prompt may have: what the study says, else the length of a training row."""
    return config.max_length or cast("TrainConfig", config.training).seq_len


def cells(config: StudyConfig, *, budget: int, vocab_size: int) -> list[Cell]:
    """List the cells in order of model, seed, D, R, source of the store, k.

    Every cell with a held-out store keeps D + R <= T, unless ``config.allow_overlap``; for each budget of
    ``config.budgets`` every D below it is paired with R = budget - D.

    Parameters
    ----------
    config : StudyConfig
    budget : int
        T, the tokens of the pool.
    vocab_size : int
        Of the tokenizer; it decides N.

    Raises
    ------
    ConfigError
        When no cell is left for some model.
    """
    grid_d, grid_r, grid_t = config.grids
    found: list[Cell] = []
    models: Any = config.models
    for model in models:
        shape = model.shape_for(vocab_size)
        sizes = {"n_params": shape.n_params, "budget": budget}
        stores = {0, *grid_r.tokens(**sizes)}
        totals = grid_t.tokens(**sizes)
        of_model: list[dict[str, Any]] = []
        for tokens in grid_d.tokens(**sizes):
            wanted = sorted(stores | {total - tokens for total in totals if total > tokens})
            for store in wanted:
                of_model += _of_store(config, tokens, store, budget)
        if not of_model:
            raise ConfigError(
                f"model {model.name} has no cell with D + R <= T = {budget:,}: "
                f"its smallest D is {min(grid_d.tokens(**sizes)):,} tokens"
            )
        found += [
            Cell(model=model.name, N=shape.n_params, seed=seed, **cell) for seed in config.seeds for cell in of_model
        ]
    return found


def _of_store(config: StudyConfig, tokens: int, store: int, budget: int) -> list[dict[str, Any]]:
    """Return the cells of one D and R: one for each source and k, none where the store does not fit."""
    if tokens > budget or store > budget:
        return []
    if store == 0:
        return [{"D": tokens, "R": 0, "overlap": False}]
    found = []
    for source in config.store_sources:
        overlap = source == "held-out" and tokens + store > budget
        if not overlap or config.allow_overlap:
            cell = {"D": tokens, "R": store, "overlap": overlap, "source": source}
            found += [{**cell, "k": k} for k in config.numbers_of_passages]
    return found


def refuse_impossible(config: StudyConfig, *, budget: int | None, vocab_size: int) -> None:
    """Refuse what no run could do: training plans of every model, shards, and cells where T is known.

    Parameters
    ----------
    config : StudyConfig
    budget : int or None
        T; None where the split must be made first, and then only what does not depend on it is looked at.
    vocab_size : int

    Raises
    ------
    ConfigError
        Listing every model whose plan cannot work.
    """
    grid_d = config.grids[0]
    problems = []
    grid = None
    try:
        grid = None if budget is None else cells(config, budget=budget, vocab_size=vocab_size)
    except ConfigError as error:
        problems.append(str(error))
    retriever: Any = config.retriever
    why = why_not_in_shards(retriever.build()) if config.index_shards > 1 else ""
    problems += [f"index_shards = {config.index_shards}: {why}"] if why else []
    models: Any = config.models
    for model in models:
        shape = model.shape_for(vocab_size)
        if grid is not None:
            tokens = sorted({cell.D for cell in grid if cell.model == model.name})
        elif grid_d.unit == "share_of_budget":
            continue
        else:
            tokens = list(grid_d.tokens(n_params=shape.n_params, budget=0))
        try:
            make_plan(shape, model_training(config, model), tokens)
        except ConfigError as error:
            problems.append(f"{model.name}: {error}")
    if problems:
        raise ConfigError("this study cannot run:\n- " + "\n- ".join(p.replace("\n- ", "; ") for p in problems))
