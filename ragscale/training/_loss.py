"""The output head and the loss in one: linear + cross-entropy + z-loss without ever holding all logits.

At a vocabulary of 100k the logits of a small model outweigh everything else in memory and time. The rows are taken
in chunks; each chunk's logits are turned into their gradient in place, so that the forward pass leaves only the
gradients of the hidden states and of the head behind.

M rows (batch x tokens), C rows of a chunk, D width, V vocabulary.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch.nn import functional as F

from ragscale.training._data import IGNORED

_LOGIT_BYTES = {"cpu": 24 * 2**20, "cuda": 2**30}
_TILE = 128  # rows of a tile in CUDA's matrix products


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    z_loss: float = 0.0,
    n_targets: float | None = None,
    chunk_rows: int | None = None,
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the training loss of the rows and, without gradient, their cross-entropy.

    Parameters
    ----------
    hidden : tensor (..., D)
        What the output head reads. Its type is that of the matrix products; softmax and sums are float32 (float64 if
        it is).
    weight : tensor (V, D)
        The output head, without bias.
    targets : integer tensor (...)
        Ids in [0, V); rows with -100 do not count.
    z_loss : float
        Weight of the mean squared log-normaliser, which keeps the logits from drifting.
    n_targets : float or None
        What the sums are divided by; None counts the targets. With gradient accumulation or several processes give
        the count of the whole batch.
    chunk_rows : int or None
        Rows per chunk; None keeps a chunk's logits within 24 MiB (CPU) or 1 GiB (CUDA), where that is enough rows.
        Logits are float32, or with Triton of the hidden states' type.
    backend : {"auto", "torch", "triton"}
        How the softmax and its gradient are computed; "auto" takes Triton on CUDA when it is installed.

    Returns
    -------
    loss : tensor ()
        (sum of cross-entropy + z_loss * sum of squared log-normaliser) / n_targets, differentiable once.
    cross_entropy : tensor ()
        The first part alone, in nats, detached: what to report.

    References
    ----------
    Wijmans et al. 2024, arXiv 2411.09009 (the idea of never holding the logits); Chowdhery et al. 2022,
    arXiv 2204.02311, section 5 (z-loss).

    Examples
    --------
    >>> hidden, weight = torch.zeros(2, 3, 4), torch.zeros(8, 4)
    >>> loss, cross_entropy = linear_cross_entropy(hidden, weight, torch.zeros(2, 3, dtype=torch.long))
    >>> round(loss.item(), 4)  # ln 8
    2.0794
    """
    hidden_MD = hidden.reshape(-1, hidden.shape[-1])
    targets_M = targets.reshape(-1)
    if n_targets is None:
        n_targets = max(1, int((targets_M != IGNORED).sum()))
    if backend == "auto":
        fused = hidden.is_cuda and hidden.dtype != torch.float64 and importlib.util.find_spec("triton")
        backend = "triton" if fused else "torch"
    if chunk_rows is None:
        chunk_rows = _rows_of_a_chunk(hidden, weight, logit_bytes=hidden.element_size() if backend == "triton" else 4)
    loss, cross_entropy = _LinearCrossEntropy.apply(
        hidden_MD, weight, targets_M, z_loss, 1.0 / n_targets, chunk_rows, backend
    )
    return loss, cross_entropy


def _rows_of_a_chunk(hidden: torch.Tensor, weight: torch.Tensor, *, logit_bytes: int) -> int:
    """Return the rows whose logits fit the budget; on CPUs with limits that were measured.

    Each chunk adds to the whole gradient of the head, which in bfloat16 goes through a temporary: under 256 rows that
    costs more than it saves. Beyond 512 rows the logits only leave the caches. CUDA's products are best at whole tiles.
    """
    if hidden.is_cuda:
        rows = _LOGIT_BYTES["cuda"] // (logit_bytes * weight.shape[0])
        return max(16, rows // _TILE * _TILE or rows)
    rows = max(16, _LOGIT_BYTES["cpu"] // (4 * weight.shape[0]))
    return min(512, rows if hidden.dtype == torch.float32 else max(256, rows))


def _add_product(total: torch.Tensor, left_CV: torch.Tensor, right_CD: torch.Tensor) -> None:
    """Add left.T @ right to a total whose type may be wider; CUDA's products do so without a temporary."""
    if total.dtype == left_CV.dtype:
        total.addmm_(left_CV.T, right_CD)
    elif total.is_cuda and total.dtype == torch.float32:
        torch.addmm(total, left_CV.T, right_CD, out_dtype=torch.float32, out=total)
    else:
        total.add_(left_CV.T @ right_CD)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        hidden_MD: torch.Tensor,
        weight_VD: torch.Tensor,
        targets_M: torch.Tensor,
        z_loss: float,
        scale: float,
        chunk_rows: int,
        backend: str,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        weight = weight_VD.to(hidden_MD.dtype)
        grad_hidden = torch.empty_like(hidden_MD) if need_hidden else None
        wide = torch.float64 if hidden_MD.dtype == torch.float64 else torch.float32
        grad_weight = torch.zeros_like(weight_VD, dtype=wide) if need_weight else None
        sums = torch.zeros(2, dtype=wide, device=hidden_MD.device)
        softmax = _softmax_gradient
        if backend == "triton":
            from ragscale.training._loss_triton import softmax_gradient as softmax
        with torch.autocast(hidden_MD.device.type, enabled=False):
            for start in range(0, hidden_MD.shape[0], chunk_rows):
                hidden_CD = hidden_MD[start : start + chunk_rows]
                targets_C = targets_M[start : start + chunk_rows]
                logits_CV = hidden_CD @ weight.T
                gradient_CV = softmax(
                    logits_CV,
                    targets_C,
                    z_loss=z_loss,
                    scale=scale,
                    sums=sums,
                    need_gradient=need_hidden or need_weight,
                )
                del logits_CV
                if need_hidden or need_weight:
                    gradient_CV = gradient_CV.to(weight.dtype)
                if grad_hidden is not None:
                    torch.mm(gradient_CV, weight, out=grad_hidden[start : start + chunk_rows])
                if grad_weight is not None:
                    _add_product(grad_weight, gradient_CV, hidden_CD)
                del gradient_CV
        ctx.gradients = (grad_hidden, None if grad_weight is None else grad_weight.to(weight_VD.dtype))
        cross_entropy = sums[0] * scale
        loss = cross_entropy + sums[1] * (scale * z_loss) if z_loss else cross_entropy.clone()
        ctx.mark_non_differentiable(cross_entropy)
        return loss, cross_entropy

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor, _: Any) -> Any:  # type: ignore[override] - its own arguments
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy computes its gradients once: call backward once per forward")
        scaled = [
            None if gradient is None else gradient.mul_(grad_loss.to(gradient.dtype)) for gradient in ctx.gradients
        ]
        ctx.gradients = None
        return (*scaled, None, None, None, None, None)


def _softmax_gradient(
    logits_CV: torch.Tensor,
    targets_C: torch.Tensor,
    *,
    z_loss: float,
    scale: float,
    sums: torch.Tensor,
    need_gradient: bool,
) -> torch.Tensor:
    """Add a chunk's cross-entropy and squared log-normaliser to ``sums``; return the gradient of its logits.

    float32 logits are overwritten: one (C, V) buffer is all that a chunk needs.
    """
    logits_CV = logits_CV.to(sums.dtype)
    counted_C = targets_C != IGNORED
    rows = targets_C.clamp(min=0)[:, None]
    maximum_C1 = logits_CV.amax(1, keepdim=True)
    logits_CV.sub_(maximum_C1)
    target_logit_C = logits_CV.gather(1, rows)[:, 0] + maximum_C1[:, 0]
    logits_CV.exp_()
    total_C1 = logits_CV.sum(1, keepdim=True)
    normaliser_C = (total_C1.log() + maximum_C1)[:, 0]
    zero = torch.zeros((), dtype=sums.dtype, device=logits_CV.device)
    sums[0] += torch.where(counted_C, normaliser_C - target_logit_C, zero).sum()
    sums[1] += torch.where(counted_C, normaliser_C.square(), zero).sum()
    if need_gradient:
        weight_C = torch.where(counted_C, torch.full_like(normaliser_C, scale), zero)
        logits_CV.mul_((weight_C * (1 + 2 * z_loss * normaliser_C))[:, None] / total_C1)
        logits_CV.scatter_add_(1, rows, -weight_C[:, None])
    return logits_CV


def reference_loss(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, z_loss: float = 0.0
) -> torch.Tensor:
    """Return the same loss by the textbook, with all logits in memory: what the fused ones are checked against."""
    logits = F.linear(hidden.reshape(-1, hidden.shape[-1]), weight).float()
    targets = targets.reshape(-1)
    counted = targets != IGNORED
    loss = F.cross_entropy(logits[counted], targets[counted])
    return loss + z_loss * logits[counted].logsumexp(1).square().mean()
