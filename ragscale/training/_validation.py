"""The loss of a model on a token stream."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ragscale.training._checkpoint import Checkpoint
from ragscale.training._config import TrainConfig
from ragscale.training._data import Order, Source, open_source
from ragscale.training._model import ModelConfig

if TYPE_CHECKING:
    from ragscale.training._data import TokenData


def evaluate_loss(
    checkpoint: Checkpoint | str | os.PathLike[str],
    data: TokenData,
    *,
    max_tokens: int = 1_000_000,
    device: str = "auto",
) -> float:
    """Return a checkpoint's cross-entropy on a token stream, in nats per token.

    The stream is cut into rows of the training length, as for ``Checkpoint.validation_loss``.

    Parameters
    ----------
    checkpoint : Checkpoint or path
    data : one-dimensional integer array, or a split (its validation set)
    max_tokens : int
        Read no more than this.
    device : str
    """
    from ragscale.training._engine import Engine
    from ragscale.training._processes import open_processes

    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint.load(checkpoint)
    stream = getattr(data, "validation", data)
    source = open_source(stream, 2)
    processes = open_processes(device)
    config = checkpoint.config.replace(validation_tokens=max_tokens, compile=False, cuda_graph=False, parallel="auto")
    engine = Engine(checkpoint.model, config, processes)
    weights = checkpoint.load_model().state_dict()
    engine.load_state({f"model.{name}": tensor for name, tensor in weights.items()})
    return mean_loss(engine, source.tokens, checkpoint.model, config, processes)


def mean_loss(engine: Any, stream: Any, model: ModelConfig, config: TrainConfig, processes: Any) -> float:
    """Return the cross-entropy of a stream's first ``validation_tokens`` tokens, shared among the processes."""
    import torch

    limit = min(len(stream), config.validation_tokens)
    source = Source(stream, limit, "", None, None, None, None, None)
    # as many rows at a time as training takes, so that memory that sufficed there suffices here
    rows = engine.micro_rows
    order = Order(source, config.seq_len, rows, 0, model.vocab_size)
    n_steps = -(-(limit - 1) // (rows * config.seq_len))
    sums = torch.zeros(2, dtype=torch.float64)
    # sharded models need every process to take part in every forward pass
    for first in range(0, n_steps, processes.world):
        step = first + processes.rank
        inputs, targets = order.load(min(step, n_steps - 1), limit)
        total, count = engine.loss(*engine.to_device(inputs, targets))
        if step < n_steps:
            sums += torch.tensor([total, count], dtype=torch.float64)
    if processes.world > 1:
        on_device = sums.to(engine.device)
        torch.distributed.all_reduce(on_device)
        sums = on_device.cpu()
    return float(sums[0] / sums[1])
