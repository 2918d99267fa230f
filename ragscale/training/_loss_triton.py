"""The softmax part of the loss head as one Triton kernel: reads a chunk's logits twice, writes their gradient once.

The matrix products stay with cuBLAS. One program handles one row: an online pass finds the maximum and the
normaliser, a second pass overwrites the logits with their gradient.
"""

from __future__ import annotations

# pyright: reportMissingParameterType=false, reportUntypedFunctionDecorator=false, reportPossiblyUnboundVariable=false
# Triton reads the annotations of a kernel as its own, has no types for what compiles it, and may not be there.
from typing import Any

import torch

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:
    triton = None

_BLOCK = 4096


if triton is not None:

    @triton.jit
    def _kernel(  # noqa: PLR0917
        logits, targets, row_sums, stride, z_loss, scale, V: tl.constexpr, NEED: tl.constexpr, BLOCK: tl.constexpr
    ):
        row = tl.program_id(0).to(tl.int64)
        logits += row * stride
        target = tl.load(targets + row)
        maximum = float("-inf")
        total = 0.0
        for start in range(0, V, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            block = tl.load(logits + columns, mask=columns < V, other=float("-inf")).to(tl.float32)
            new_maximum = tl.maximum(maximum, tl.max(block, 0))
            total = total * tl.exp(maximum - new_maximum) + tl.sum(tl.exp(block - new_maximum), 0)
            maximum = new_maximum
        normaliser = tl.log(total) + maximum
        counted = target >= 0
        target_logit = tl.load(logits + tl.where(counted, target, 0)).to(tl.float32)
        tl.store(row_sums + 2 * row, tl.where(counted, normaliser - target_logit, 0.0))
        tl.store(row_sums + 2 * row + 1, tl.where(counted, normaliser * normaliser, 0.0))
        if NEED:
            # the target's logit was read above; every thread must have done so before it is overwritten
            tl.debug_barrier()
            weight = tl.where(counted, scale, 0.0)
            factor = weight * (1.0 + 2.0 * z_loss * normaliser)
            for start in range(0, V, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                inside = columns < V
                block = tl.load(logits + columns, mask=inside, other=float("-inf")).to(tl.float32)
                gradient = tl.exp(block - normaliser) * factor - tl.where(columns == target, weight, 0.0)
                tl.store(logits + columns, gradient.to(logits.dtype.element_ty), mask=inside)


def softmax_gradient(
    logits_CV: torch.Tensor,
    targets_C: torch.Tensor,
    *,
    z_loss: float,
    scale: float,
    sums: torch.Tensor,
    need_gradient: bool,
) -> torch.Tensor:
    """Do on CUDA what `ragscale.training._loss._softmax_gradient` does, in place and in the logits' own type."""
    row_sums = torch.empty(logits_CV.shape[0], 2, dtype=torch.float32, device=logits_CV.device)
    launch: Any = _kernel
    launch[(logits_CV.shape[0],)](
        logits_CV,
        targets_C,
        row_sums,
        logits_CV.stride(0),
        z_loss,
        scale,
        V=logits_CV.shape[1],
        NEED=need_gradient,
        BLOCK=_BLOCK,
        num_warps=8,
    )
    sums += row_sums.sum(0)
    return logits_CV
