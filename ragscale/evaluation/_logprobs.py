"""Log-probabilities of targets from hidden states: logits at needed positions only, the log-softmax in float32.

Shape letters: P needed positions, T targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale.evaluation._tree import to_device

if TYPE_CHECKING:
    import torch

LOGITS_AT_ONCE = {"cpu": 2**25, "cuda": 2**28}  # elements of the float32 logits held at a time: 128 MiB, 1 GiB


class NarrowHead:
    """An output head whose products run in a narrow type and are summed in float32, which logits need.

    Rounding the logits themselves to bfloat16 would move a log-probability by hundredths of a nat.
    """

    def __init__(self, head: Any, dtype: torch.dtype) -> None:
        self.weight_VD = head.weight.to(dtype)
        self.bias = head.bias

    def __call__(self, hidden_PD: torch.Tensor) -> torch.Tensor:
        """Return float32 logits (P, V)."""
        import torch

        hidden = hidden_PD.to(self.weight_VD.dtype)
        if hidden.is_cuda:
            logits = torch.mm(hidden, self.weight_VD.T, out_dtype=torch.float32)
        else:
            logits = hidden.float() @ self.weight_VD.float().T
        return logits if self.bias is None else logits + self.bias.float()


def target_logprobs(
    hidden_PD: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    targets_T: np.ndarray,
    sources_T: np.ndarray,
    *,
    at_once: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ln p (float32) and "is the most likely token" of every target, both (T,), on the hidden states' device.

    Parameters
    ----------
    hidden_PD : Tensor
        Hidden states, or logits where ``head`` returns them as they are.
    head : callable
        Turns (P, D) into logits (P, V).
    targets_T, sources_T : ndarray of int64
        Target tokens, and the position that predicts each; positions rise.
    at_once : int, optional
        Elements of the logits held at a time.
    """
    import torch

    device = hidden_PD.device
    most = at_once or LOGITS_AT_ONCE.get(device.type, LOGITS_AT_ONCE["cpu"])
    targets, sources = to_device(targets_T, device), to_device(sources_T, device)
    logprobs, greedy = [], []
    start, n_vocabulary = 0, 0
    while start < len(hidden_PD):
        stop = start + max(1, most // (n_vocabulary or most // 64))
        logits_PV = head(hidden_PD[start:stop]).float()
        n_vocabulary = logits_PV.shape[-1]
        low, high = np.searchsorted(sources_T, [start, stop]).tolist()
        rows = sources[low:high] - start
        picked = logits_PV[rows, targets[low:high]]
        total, top = log_sum_exp(logits_PV)
        logprobs.append(picked - total[rows])
        greedy.append(picked >= top[rows])
        start = stop
    return torch.cat(logprobs), torch.cat(greedy)


def log_sum_exp(logits_PV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ln sum exp and the largest of every row, both (P,)."""
    top = logits_PV.amax(-1)
    return top + (logits_PV - top[:, None]).exp_().sum(-1).log(), top
