"""Estimates of memory that need no torch."""

from __future__ import annotations

from ragscale.training._config import TrainConfig
from ragscale.training._model import ModelConfig

# total parameters from which "auto" shards over GPUs rather than replicates
SHARD_FROM = 1_000_000_000


def activation_bytes(model: ModelConfig, config: TrainConfig) -> int:
    """Estimate the bytes of activations per token that one forward pass keeps for the backward pass."""
    width = {"fp32": 4, "fp64": 8}.get(config.precision, 2)
    block = width * (14 * model.d_model + 4 * model.d_ff) + 4 * 6 * model.d_model
    if config.activation_checkpointing:
        return model.n_layers * 4 * model.d_model + block
    return model.n_layers * block
