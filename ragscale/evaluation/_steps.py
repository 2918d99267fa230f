"""Rows in two steps: contexts under causal attention, then all branches over the contexts' keys and values.

The first step needs no mask, so that fused attention kernels run; the second is small. A row without branches (one
continuation) is one causal row, and has no second step.

Shape letters: B rows, C tokens of the longest context, N needed columns of a context, S tokens of the longest set of
branches, K = C + S (C where contexts have room for branches), P needed positions of the batch, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ragscale.evaluation._tree import Row, collate, to_device, tree_sees

if TYPE_CHECKING:
    import torch

_FEW = 4  # the last layer runs at needed columns alone where they are at most one in so many


class Body(Protocol):
    """A model without its head: hidden states, and whatever it needs to go on from them."""

    def __call__(
        self,
        tokens_BL: torch.Tensor,
        needed_BN: torch.Tensor | None,
        *,
        positions_BL: torch.Tensor | None = None,
        mask_BLK: torch.Tensor | None = None,
        before: Any = None,
        keep: bool = False,
    ) -> tuple[torch.Tensor, Any]:
        """Return the hidden states (B, N, D), or (B, L, D) without ``needed_BN``, and what to give as ``before``.

        ``mask_BLK`` is True where a token may look, over the tokens before and these; without it attention is causal
        among these tokens, and there are none before. ``positions_BL`` count from 0 by default. After contexts with
        room (`collate_steps`) the mask is over the contexts alone, whose last columns these tokens take.
        """
        ...


@dataclass(slots=True)
class Steps:
    """A batch in two steps; ``places_P`` are the needed rows of both steps' hidden states, one after the other."""

    context_BC: torch.Tensor
    needed_BN: torch.Tensor | None
    branch_BS: torch.Tensor | None
    positions_BS: torch.Tensor | None
    segments_BS: torch.Tensor | None
    lengths_B: torch.Tensor
    places_P: torch.Tensor
    room: bool


def collate_steps(
    rows: Sequence[Row], device: torch.device, *, multiple: int = 1, longest: int | None = None, room: bool = False
) -> Steps:
    """Pad contexts to a multiple of so many tokens (at most ``longest``), and branches to one length.

    With ``room`` contexts end with as many columns of padding as branches have, whose keys and values then need no
    copy of all those before them.
    """
    n_causal = np.array([row.n_causal for row in rows])
    n_needed = n_causal - np.array([row.first for row in rows])
    n_branch = np.array([len(row) for row in rows]) - n_causal
    wide = int(n_branch.max())
    wide = -(-wide // min(multiple, 8)) * min(multiple, 8)
    least = int(n_causal.max()) + (wide if room else 0)
    length = -(-least // multiple) * multiple
    length = max(min(length, longest or length), least)
    context = np.zeros((len(rows), length), dtype=np.int64)
    branch = np.zeros((len(rows), wide), dtype=np.int64)
    positions, segments = np.zeros_like(branch), np.full_like(branch, -1)
    few = int(n_needed.max()) * _FEW <= length
    needed = np.zeros((len(rows), int(n_needed.max())), dtype=np.int64)
    places, stride = [], needed.shape[1] if few else length
    for b, row in enumerate(rows):
        n, m = n_causal[b], n_branch[b]
        context[b, :n] = row.tokens[:n]
        branch[b, :m], positions[b, :m], segments[b, :m] = row.tokens[n:], row.positions[n:], row.segments[n:]
        needed[b] = np.minimum(row.first + np.arange(needed.shape[1]), n - 1)
        places.append(b * stride + (0 if few else row.first) + np.arange(n_needed[b]))
        places.append(len(rows) * stride + b * wide + np.arange(m))

    def placed(array: np.ndarray) -> torch.Tensor:
        return to_device(array, device)

    return Steps(
        placed(context),
        placed(needed) if few else None,
        placed(branch) if wide else None,
        placed(positions) if wide else None,
        placed(segments) if wide else None,
        placed(n_causal),
        placed(np.concatenate(places)),
        room,
    )


def hidden_in_steps(body: Body, steps: Steps) -> torch.Tensor:
    """Return the hidden states at the needed positions of all rows, (P, D)."""
    import torch

    hidden, kept = body(steps.context_BC, steps.needed_BN, keep=steps.branch_BS is not None)
    parts = [hidden.flatten(0, 1)]
    if steps.branch_BS is not None:
        mask = branch_mask(steps)
        hidden, _ = body(steps.branch_BS, None, positions_BL=steps.positions_BS, mask_BLK=mask, before=kept)
        parts.append(hidden.flatten(0, 1))
    return torch.cat(parts)[steps.places_P]


def hidden_in_one_pass(body: Body, rows: Sequence[Row], device: torch.device) -> torch.Tensor:
    """Return the same from one masked pass over contexts and branches together: for short rows."""

    batch = collate(rows, device)
    n_needed = [len(row) - row.first for row in rows]
    column = np.arange(max(n_needed))
    needed = np.array([np.minimum(row.first + column, len(row) - 1) for row in rows])
    hidden_BND, _ = body(
        batch.tokens_BL,
        to_device(needed, device),
        positions_BL=batch.positions_BL,
        mask_BLK=tree_sees(batch.segments_BL),
    )
    return hidden_BND[to_device(column < np.array(n_needed)[:, None], device)]


def branch_mask(steps: Steps) -> torch.Tensor:
    """Return what every branch token may see, (B, S, K): its own row's context, and its branch up to itself.

    With room in the contexts K = C, and the branches stand in the last columns.
    """
    import torch

    segments, device = steps.segments_BS, steps.context_BC.device
    assert segments is not None
    size, wide = segments.shape
    column = torch.arange(steps.context_BC.shape[1] - (wide if steps.room else 0), device=device)
    context = (column[None] < steps.lengths_B[:, None])[:, None].expand(size, wide, -1)
    causal = torch.ones(wide, wide, dtype=torch.bool, device=device).tril()
    return torch.cat((context, causal & (segments[:, :, None] == segments[:, None, :])), dim=2)
