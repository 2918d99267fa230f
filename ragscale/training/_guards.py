"""What a run runs within: memory errors that say what to set, and algorithms that give the same bits each time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import Any

from ragscale.errors import OutOfMemory
from ragscale.training._config import TrainConfig
from ragscale.training._plan import Plan


@contextlib.contextmanager
def memory_advice(plan: Plan, processes: Any) -> Generator[None]:
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)):
            raise
        seq_len = plan.config.seq_len
        advice = [f"micro_batch_tokens={seq_len} (one row per forward pass) or twice that"]
        if not plan.config.activation_checkpointing:
            advice.append("activation_checkpointing=True")
        if processes.world > 1 and plan.config.parallel != "fsdp":
            advice.append("parallel='fsdp'")
        elif processes.world == 1 and processes.device.type == "cuda":
            advice.append("more GPUs: torchrun with parallel='fsdp'")
        raise OutOfMemory(
            f"out of memory on {processes.device} with rows of {seq_len} tokens and a model of "
            f"{plan.model.n_params_total:,} parameters. Set in TrainConfig, in this order: {'; '.join(advice)}. "
            "Call train again with the same out: results do not change and it goes on from the last state"
        ) from error


@contextlib.contextmanager
def deterministic(config: TrainConfig) -> Generator[None]:
    import torch

    if not config.deterministic:
        yield
        return
    before, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
