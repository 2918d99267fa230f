"""One contestant's training step: milliseconds, tokens per second, MFU, memory, seconds to compile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from training import BETAS, RATE, lean, stock

from gpu.clock import forget_peak, peak_gib, seconds, wait
from gpu.jobs import Measure
from ragscale.training import ModelConfig, TrainConfig
from ragscale.training._dry_run import peak_flops
from ragscale.training._engine import Engine
from ragscale.training._plan import fill_in
from ragscale.training._processes import Processes


def engine(model: ModelConfig, device: str, *, seq_len: int, rows: int, **settings: Any) -> Engine:
    """Return our engine for steps of so many rows in one forward pass."""
    values = {"learning_rate": RATE, "betas": BETAS, "z_loss": 0.0, "precision": "bf16", **settings}
    tokens = rows * seq_len
    config = TrainConfig(seq_len=seq_len, batch_tokens=tokens, micro_batch_tokens=tokens, **values)
    placed = torch.device("cuda", 0) if device.startswith("cuda") else torch.device(device)
    return Engine(model, fill_in(model, config, [10**12]), Processes(0, 1, placed))


def prepare(device: str, tiny: bool, *, size: str, kind: str, rows: list[int]) -> Measure:
    seq_len = 64 if tiny else 4096
    compiled = device.startswith("cuda")
    model = ModelConfig.olmo2(size)
    batches = {n: torch.randint(0, 1000, (n, seq_len + 1), device=device) for n in rows}
    runners: dict[int, Any] = {}

    def make(n: int) -> Any:
        if kind.startswith("ragscale"):
            how: Any = {"ragscale": True, "ragscale whole stack": "stack", "ragscale eager": False}[kind]
            return engine(model, device, seq_len=seq_len, rows=n, compile=how if compiled else False)
        case = (size, model, seq_len, n, "bf16", 1, 1, compiled)
        return {"transformers": stock, "lean": lean}[kind](case, torch.device(device), compiled=compiled)

    def step(n: int) -> None:
        ids, runner = batches[n], runners[n]
        inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        if isinstance(runner, Engine):
            runner.micro_rows = n
            runner.step(inputs, targets, targets.numel(), RATE)
        else:
            runner.step(inputs, targets)

    if not kind.startswith("ragscale") and compiled:
        torch.set_float32_matmul_precision("high")
    first: dict[int, float] = {}
    for n in rows:
        # one model for all rows, but for steps that are captured, which are of one size
        usable = [other for other in runners.values() if getattr(other, "captured", None) is None]
        runners[n] = usable[0] if usable else make(n)
        wait(device)
        started = time.perf_counter()
        step(n)
        wait(device)
        first[n] = time.perf_counter() - started
        for _ in range(1 if tiny else 5):
            step(n)
    wait(device)

    def measure() -> Iterator[dict[str, Any]]:
        peak = peak_flops(torch.device(device))
        for n in rows:
            forget_peak(device)
            step(n)
            once = seconds(lambda n=n: step(n), device, rounds=1, times=1)
            took = seconds(lambda n=n: step(n), device, rounds=2 if tiny else 5, times=max(1, min(20, int(0.3 / once))))
            speed = n * seq_len / took
            captured = getattr(runners[n], "captured", None)
            yield {
                "rows": n,
                "ms": 1e3 * took,
                "tokens_per_second": speed,
                "MFU": None if peak is None else f"{speed * model.flops(seq_len) / peak:.1%}",
                "peak_gib": peak_gib(device),
                "first_step_seconds": first[n],
                "cuda_graph": captured.state if captured else None,
            }

    return measure
