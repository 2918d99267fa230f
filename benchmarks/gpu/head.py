"""The loss head: torch, Triton, and all logits at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from gpu.clock import forget_peak, seconds
from gpu.jobs import Measure
from ragscale.training import linear_cross_entropy


def prepare(device: str, tiny: bool) -> Measure:
    rows, vocabulary, widths = (64, 500, (16,)) if tiny else (16_384, 100_352, (256, 1280))
    cuda = device.startswith("cuda")
    # the backend, and the rows of a chunk: None is what it takes by itself
    ways: list[tuple[str, int | None]] = [("torch", None), ("all logits", None)]
    if cuda:
        ways += [("triton", None), *(("triton", n) for n in (512, 4096, rows))]
    else:
        ways += [("torch", n) for n in (rows // 4, rows)]

    def measure() -> Iterator[dict[str, Any]]:
        for width in widths:
            hidden = torch.randn(rows, width, device=device, dtype=torch.bfloat16, requires_grad=True)
            weight = (torch.randn(vocabulary, width, device=device) * 0.02).requires_grad_()
            targets = torch.randint(0, vocabulary, (rows,), device=device)
            gradients: dict[str, torch.Tensor] = {}
            for name, chunk in ways:

                def run(
                    name: str = name,
                    chunk: Any = chunk,
                    hidden: Any = hidden,
                    weight: Any = weight,
                    targets: Any = targets,
                ) -> None:
                    hidden.grad = weight.grad = None
                    if name == "all logits":
                        F.cross_entropy(F.linear(hidden, weight.bfloat16()).float(), targets).backward()
                    else:
                        loss, _ = linear_cross_entropy(
                            hidden, weight, targets, n_targets=rows, backend=name, chunk_rows=chunk
                        )
                        loss.backward()

                run()
                forget_peak(device)
                before = torch.cuda.memory_allocated() if cuda else 0
                took = seconds(run, device, rounds=3, times=2 if tiny else 5)
                peak = torch.cuda.max_memory_allocated() - before if cuda else None
                assert weight.grad is not None
                gradients.setdefault(name, weight.grad.clone())  # torch's own comes first
                apart = (weight.grad - gradients["torch"]).norm() / gradients["torch"].norm()
                yield {
                    "d": width,
                    "backend": name,
                    "chunk_rows": chunk,
                    "ms": 1e3 * took,
                    "peak_mib": None if peak is None else peak / 2**20,
                    "gradient_apart_from_torch": float(apart),
                }

    return measure
