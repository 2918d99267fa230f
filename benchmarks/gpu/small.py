"""Small models, whose steps wait for launches: as usual, compiled, and as one CUDA graph."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import torch

from gpu.clock import peak_gib, seconds, wait
from gpu.jobs import Measure
from gpu.race import RATE, engine
from ragscale.training import ModelConfig

# the sizes of a study on one GPU: N = 10.8M and 6.3M
SHAPES = {"11M": (6, 320, 5, 1280, 8192, 32), "6M": (4, 256, 4, 1024, 8192, 16)}


def prepare(device: str, tiny: bool) -> Measure:
    cuda = device.startswith("cuda")
    shapes = {"0.15M": (2, 64, 2, 128, 1024, 2)} if tiny else SHAPES
    ready: list[tuple[dict[str, Any], Any, Any]] = []
    for (size, shape), compiled, graph in itertools.product(shapes.items(), (False, True), (False, True)):
        if compiled and not cuda:
            continue
        n_layers, d_model, n_heads, d_ff, vocabulary, rows = shape
        model = ModelConfig.custom(
            n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_ff=d_ff, vocab_size=vocabulary
        )
        seq_len = 64 if tiny else 512
        started = time.perf_counter()
        runner = engine(model, device, seq_len=seq_len, rows=rows, compile=compiled, cuda_graph=graph)
        ids = torch.randint(0, 1000, (rows, seq_len + 1), device=device)
        batch = (ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        for _ in range(6):
            runner.step(*batch, rows * seq_len, RATE)
        wait(device)
        row = {
            "size": size,
            "compiled": compiled,
            "cuda_graph": graph and (runner.captured.state if runner.captured else "no CUDA"),
            "seconds_to_6_steps": time.perf_counter() - started,
        }
        ready.append((row, runner, batch))

    def measure() -> Iterator[dict[str, Any]]:
        for row, runner, batch in ready:
            n_tokens = batch[0].numel()

            def step(runner: Any = runner, batch: Any = batch, n_tokens: int = n_tokens) -> None:
                runner.step(*batch, n_tokens, RATE)

            took = seconds(step, device, rounds=2 if tiny else 5, times=2 if tiny else 30)
            yield {**row, "ms": 1e3 * took, "tokens_per_second": n_tokens / took, "peak_gib": peak_gib(device)}

    return measure
