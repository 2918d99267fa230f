"""The cells of a study and what they cost, before any is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ragscale.errors import ConfigError
from ragscale.study._config import StudyConfig
from ragscale.training import Device, ModelConfig, TrainConfig, dry_run

_BYTES_PER_PARAMETER = 4  # float32 weights of one checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One cell of the grid: a model, its pretraining tokens, its store.

    ``overlap`` says that D + R exceeds the budget T, so that the model saw part of its store in training.
    """

    model: str
    N: int
    seed: int
    D: int
    R: int
    overlap: bool


def model_config(model: str | Mapping[str, Any], vocab_size: int) -> ModelConfig:
    """Return the shape that a study names, for its vocabulary.

    Raises
    ------
    ConfigError
        For an unknown name or bad arguments.
    """
    if isinstance(model, str):
        return ModelConfig.olmo2(model, vocab_size=vocab_size)
    shape = {name: value for name, value in model.items() if name not in {"rung", "training"}}
    if "rung" in model:
        shape.pop("name", None)  # a rung brings its own; that of the study is `model_name`
        return ModelConfig.olmo2(model["rung"], vocab_size=vocab_size, **shape)
    return ModelConfig.custom(**{**shape, "vocab_size": vocab_size})


def model_training(config: StudyConfig, model: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``TrainConfig`` for one model: the study's, and the model's own over them."""
    return {**config.training, **({} if isinstance(model, str) else model.get("training", {}))}


def model_name(model: str | Mapping[str, Any]) -> str:
    """Return the short name of a model: the ladder's, or the shape's own."""
    if isinstance(model, str):
        return model
    return str(model.get("name") or model.get("rung") or f"L{model.get('n_layers')}-d{model.get('d_model')}")


def prompt_length(config: StudyConfig) -> int:
    """Return the tokens that a prompt may have: what the study says, else the length of a training row."""
    return config.max_length or config.training.get("seq_len", TrainConfig().seq_len)


def cells(config: StudyConfig, *, budget: int, vocab_size: int) -> list[Cell]:
    """List the cells in order of model, seed, D, R.

    Every cell keeps D + R <= T, unless ``config.allow_overlap``; for each budget of ``config.budgets`` every D below
    it is paired with R = budget - D.

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
        When no cell is left for some model, or two models have one name.
    """
    names = [model_name(model) for model in config.models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"models are told apart by their names, but {', '.join(twice)} stands twice: give 'name'")
    grid_d, grid_r, grid_t = config.grids
    found: list[Cell] = []
    for model in config.models:
        shape = model_config(model, vocab_size)
        sizes = {"n_params": shape.n_params, "budget": budget}
        stores = {0, *grid_r.tokens(**sizes)}
        totals = grid_t.tokens(**sizes)
        of_model = []
        for tokens in grid_d.tokens(**sizes):
            wanted = sorted(stores | {total - tokens for total in totals if total > tokens})
            for store in wanted:
                overlap = tokens + store > budget
                if tokens <= budget and (not overlap or config.allow_overlap):
                    of_model.append((tokens, store, overlap))
        if not of_model:
            raise ConfigError(
                f"model {model_name(model)} has no cell with D + R <= T = {budget:,}: "
                f"its smallest D is {min(grid_d.tokens(**sizes)):,} tokens"
            )
        found += [
            Cell(model=model_name(model), N=shape.n_params, seed=seed, D=tokens, R=store, overlap=overlap)
            for seed in config.seeds
            for tokens, store, overlap in of_model
        ]
    return found


def plan_table(
    config: StudyConfig, *, budget: int, vocab_size: int, device: str | Device, n_questions: int | None
) -> pd.DataFrame:
    """Return one row for each cell with what it costs; a checkpoint's cost stands on its R = 0 row.

    Columns ``train_tokens`` (of the shared trunk, charged to the D that needs it, and of the decay branch),
    ``train_flops``, ``hours`` and ``disk_bytes`` sum to the cost of the study's training; they come from
    `ragscale.training.dry_run`. ``prompt_tokens`` is the most that scoring the cell can read: every question at full
    length. Prompts that several stores share are read once.
    """
    grid = cells(config, budget=budget, vocab_size=vocab_size)
    costs: dict[tuple[str, int], Any] = {}
    for model in config.models:
        name = model_name(model)
        training = TrainConfig(**model_training(config, model))
        tokens = sorted({cell.D for cell in grid if cell.model == name})
        dry = dry_run(model_config(model, vocab_size), training, tokens, device=device)
        costs.update({(name, row["D"]): row for row in dry.to_dict("records")})
    rows = []
    for cell in grid:
        cost = costs[cell.model, cell.D]
        trained = cell.R == 0
        totals = set(config.grids[2].tokens(n_params=cell.N, budget=budget))
        rows.append(
            {
                "model": cell.model,
                "N": cell.N,
                "seed": cell.seed,
                "D": cell.D,
                "R": cell.R,
                "tokens_per_parameter": cell.D / cell.N,
                "store_share": cell.R / (cell.D + cell.R),
                "on_frontier": cell.D + cell.R in totals,
                "overlap": cell.overlap,
                "train_tokens": cost["trained_tokens"] if trained else 0,
                "train_flops": cost["flops"] if trained else 0.0,
                "hours": cost["hours"] if trained else 0.0,
                "disk_bytes": cost["N_total"] * _BYTES_PER_PARAMETER if trained else 0,
                "prompt_tokens": float("nan") if n_questions is None else n_questions * prompt_length(config),
            }
        )
    return pd.DataFrame(rows)
