"""What a plan costs before any of it is spent: steps, FLOPs, memory, disk, hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragscale.errors import ConfigError
from ragscale.training._config import TrainConfig
from ragscale.training._model import ModelConfig
from ragscale.training._plan import Segment, make_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device to plan for.

    Parameters
    ----------
    name : str
    peak_flops : float
        Dense bfloat16 FLOPs per second by the data sheet (float32 for a CPU core); without structured sparsity, whose
        figure is twice as high and often mistaken for it.
    memory_gib : float or None
    mfu : float
        The share of the peak that training is assumed to reach.
    match : tuple of str
        Parts of the name that CUDA reports.
    """

    name: str
    peak_flops: float
    memory_gib: float | None
    mfu: float
    match: tuple[str, ...] = ()


DEVICES = {
    device.name: device
    for device in (
        Device(name="B200", peak_flops=2250e12, memory_gib=179, mfu=0.35, match=("B200",)),
        Device(name="H200", peak_flops=989e12, memory_gib=139, mfu=0.4, match=("H200",)),
        Device(name="H100-PCIe", peak_flops=756e12, memory_gib=79, mfu=0.4, match=("H100 PCIe",)),
        Device(name="H100", peak_flops=989e12, memory_gib=79, mfu=0.4, match=("H100",)),
        Device(name="A100", peak_flops=312e12, memory_gib=79, mfu=0.45, match=("A100",)),
        Device(name="L40S", peak_flops=362e12, memory_gib=44, mfu=0.35, match=("L40S",)),
        Device(name="A10G", peak_flops=70e12, memory_gib=22, mfu=0.35, match=("A10G",)),
        Device(name="RTX4090", peak_flops=165e12, memory_gib=23, mfu=0.4, match=("RTX 4090",)),
        # 3 GHz x 32 float32 operations per cycle
        Device(name="CPU-core", peak_flops=0.096e12, memory_gib=None, mfu=0.4),
    )
}


def peak_flops(device: Any) -> float | None:
    """Return the data sheet's peak of a torch device, None for a CPU or an unknown GPU."""
    if device.type != "cuda":
        return None
    import torch

    name = torch.cuda.get_device_name(device)
    return next((known.peak_flops for known in DEVICES.values() if any(part in name for part in known.match)), None)


def dry_run(
    model_config: ModelConfig | Sequence[ModelConfig],
    config: TrainConfig,
    tokens: int | Sequence[int],
    *,
    device: str | Device = "H100",
    n_devices: int = 1,
    mfu: float | None = None,
    ratios: bool = False,
) -> Any:
    """Return what training would take, one row per model and D; nothing is trained.

    Parameters
    ----------
    model_config : ModelConfig or sequence of them
    config : TrainConfig
    tokens : int or sequence of int
        The values of D; with ``ratios`` the values of D / N.
    device : str or Device
        A name of ``DEVICES``, or your own.
    n_devices : int
    mfu : float or None
        Assumed share of the peak; None takes the device's usual one. Hours are only as good as this number.
    ratios : bool
        Read ``tokens`` as D / N, for each model its own D.

    Returns
    -------
    DataFrame
        ``trained_tokens`` are the tokens that this row adds to the run (its piece of the trunk and its branch), so
        that tokens, ``flops`` and ``hours`` sum to the run's. ``memory_gib`` is per device and ``disk_gib`` for the
        whole run, both estimates.

    Raises
    ------
    ConfigError
        When a plan would be refused by `train` as well.

    Examples
    --------
    >>> table = dry_run(ModelConfig.olmo2("30M"), TrainConfig(seq_len=4096), [1, 10, 20], ratios=True)
    >>> table[["D", "steps", "warmup_steps", "decay_steps", "batch_tokens"]]
               D  steps  warmup_steps  decay_steps  batch_tokens
    0   30941440   1080           108          216         28672
    1  309414400  10792           108         2158         28672
    2  618828800  21584           108         4317         28672
    """
    import pandas as pd

    if isinstance(device, str):
        if device not in DEVICES:
            raise ConfigError(f"device must be one of {', '.join(DEVICES)} or a Device, got {device!r}")
        device = DEVICES[device]
    models = [model_config] if isinstance(model_config, ModelConfig) else list(model_config)
    rows = [
        row
        for model in models
        for row in _rows(
            model, config, tokens, device=device, n_devices=n_devices, mfu=mfu or device.mfu, ratios=ratios
        )
    ]
    return pd.DataFrame(rows)


def _rows(
    model: ModelConfig, config: TrainConfig, tokens: Any, *, device: Device, n_devices: int, mfu: float, ratios: bool
) -> list[dict[str, Any]]:
    from ragscale.training._run_folder import disk_bytes

    if ratios:
        tokens = [round(ratio * model.n_params) for ratio in _ratios(tokens)]
    plan = make_plan(model, config, tokens)
    flops_per_token = model.flops(plan.config.seq_len)
    rows, trunk = [], 0
    for segment in plan.segments:
        trained = plan.segment_tokens(segment)
        if segment.tokens is None:
            trunk += trained
            continue
        trained, trunk = trained + trunk, 0
        flops = trained * flops_per_token
        rows.append(
            {
                "model": model.name,
                "N": model.n_params,
                "N_total": model.n_params_total,
                "D": segment.tokens,
                "D/N": segment.tokens / model.n_params,
                "steps": segment.stop,
                "warmup_steps": plan.config.warmup_steps,
                "decay_steps": _decay_steps(segment),
                "batch_tokens": plan.batch_tokens,
                "learning_rate": plan.config.learning_rate,
                "trained_tokens": trained,
                "flops": float(flops),
                "hours": flops / (mfu * device.peak_flops * n_devices) / 3600,
                "memory_gib": _memory(model, plan.config, n_devices) / 2**30,
                "disk_gib": disk_bytes(plan) / 2**30,
                "device": device.name if n_devices == 1 else f"{n_devices} x {device.name}",
            }
        )
    return rows


def _ratios(values: Any) -> list[float]:
    """Return D / N as finite numbers above 0, every wrong one named."""
    listed = np.atleast_1d(np.asarray(values, dtype=object)).ravel().tolist()
    bad = [value for value in listed if isinstance(value, bool | str) or not _is_positive(value)]
    if bad or not listed:
        raise ConfigError(f"with ratios=True tokens are values of D / N above 0, got {bad or 'none'}")
    return [float(value) for value in listed]


def _is_positive(value: Any) -> bool:
    try:
        return 0 < float(value) < float("inf")
    except (TypeError, ValueError):
        return False


def _decay_steps(segment: Segment) -> int:
    return segment.stop - segment.decay_start


def _memory(model: ModelConfig, config: TrainConfig, n_devices: int) -> int:
    """Estimate bytes per device: weights, gradients and moments in float32, activations of one row, the loss head."""
    from ragscale.training._memory import SHARD_FROM, activation_bytes

    sharded = config.parallel == "fsdp" or (config.parallel == "auto" and model.n_params_total >= SHARD_FROM)
    states = 16 * model.n_params_total // (n_devices if sharded else 1)
    rows = config.micro_batch_tokens or config.seq_len
    head = 512 * 2**20 + 6 * model.n_head
    return states + rows * activation_bytes(model, config) + head
