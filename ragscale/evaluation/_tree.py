"""Rows for the scorer: all continuations of a context as branches of one row, or one row per continuation.

A tree row holds the context once and then every continuation, less its last token, one after the other. A 4-D mask
lets a branch see the context and itself, and position ids restart at the end of the context for every branch, so the
model computes what it would for each continuation alone. The logits that are needed stand at the last context token
(they predict every branch's first token) and at every branch token (each predicts the next): one contiguous range.

Shape letters: B rows, L row length, P needed positions of a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from ragscale.evaluation._language_model import ScoreRequest


@dataclass(slots=True)
class Row:
    """One row of a batch, and what is read off it.

    Attributes
    ----------
    tokens, positions, segments : ndarray of int64, shape (length,)
        Segment 0 is the context, branch j is j + 1.
    first : int
        Needed logits are those at ``first`` and after.
    targets, sources, owners : ndarray of int64, shape (n_targets,)
        Target token, the needed position that predicts it (counted from ``first``), and the (request, continuation)
        it belongs to, as a number.
    """

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    first: int
    targets: np.ndarray
    sources: np.ndarray
    owners: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_causal(self) -> int:
        """Tokens before the branches: the context, or the whole row if there are none."""
        return int(np.searchsorted(self.segments, 1))


def tree_row(request: ScoreRequest, first_owner: int) -> Row:
    """Put a request into one row; its continuations are owners ``first_owner``, ``first_owner + 1``, ..."""
    n, length = len(request.context), tree_length(request)
    tokens, positions = np.empty(length, dtype=np.int64), np.arange(length)
    segments = np.zeros(length, dtype=np.int64)
    tokens[:n] = _array(request.context)
    targets: list[int] = []
    sources: list[int] = []
    owners: list[int] = []
    start = n
    for branch, continuation in enumerate(request.continuations):
        stop = start + len(continuation) - 1
        tokens[start:stop] = continuation[:-1]
        positions[start:stop] = np.arange(n, n + stop - start)
        segments[start:stop] = branch + 1
        targets += continuation
        sources.append(0)
        sources += range(start - n + 1, stop - n + 1)
        owners += [first_owner + branch] * len(continuation)
        start = stop
    return Row(tokens, positions, segments, n - 1, np.asarray(targets), np.asarray(sources), np.asarray(owners))


def tree_length(request: ScoreRequest) -> int:
    """Return how many tokens a request's tree row has."""
    return len(request.context) + sum(len(continuation) - 1 for continuation in request.continuations)


def _array(tokens: Sequence[int]) -> np.ndarray:
    return np.fromiter(tokens, np.int64, len(tokens))


def plain_rows(requests: Sequence[ScoreRequest]) -> list[Row]:
    """Give every continuation its own row; those whose inputs are equal (one-token answers) share one."""
    shared: dict[tuple[int, ...], list[tuple[tuple[int, ...], int, int]]] = {}
    owner = 0
    for request in requests:
        for continuation in request.continuations:
            inputs = request.context + continuation[:-1]
            shared.setdefault(inputs, []).append((continuation, len(request.context) - 1, owner))
            owner += 1
    rows = []
    for inputs, wanted in shared.items():
        first = min(start for _, start, _ in wanted)
        targets = np.concatenate([np.asarray(continuation) for continuation, _, _ in wanted])
        sources = np.concatenate([np.arange(start - first, start - first + len(c)) for c, start, _ in wanted])
        owners = np.concatenate([np.full(len(c), number) for c, _, number in wanted])
        n = len(inputs)
        rows.append(Row(_array(inputs), np.arange(n), np.zeros(n, dtype=np.int64), first, targets, sources, owners))
    return rows


@dataclass(slots=True)
class Wanted:
    """What is read off a batch: target tokens, the needed position that predicts each, and whose they are."""

    targets: np.ndarray
    sources: np.ndarray
    owners: np.ndarray


def wanted_of(rows: Sequence[Row]) -> Wanted:
    """Number the needed positions of rows one after the other; what is read off them in that order."""
    n_needed = [len(row) - row.first for row in rows]
    offsets = np.cumsum([0, *n_needed[:-1]])
    sources = np.concatenate([row.sources + offset for row, offset in zip(rows, offsets, strict=True)])
    order = np.argsort(sources, kind="stable")
    targets, owners = (np.concatenate([getattr(row, name) for row in rows]) for name in ("targets", "owners"))
    return Wanted(targets[order], sources[order], owners[order])


@dataclass(slots=True)
class Batch:
    """Rows padded on the right to one length; ``needed`` indexes the flattened (B * L) positions."""

    tokens_BL: torch.Tensor
    positions_BL: torch.Tensor
    segments_BL: torch.Tensor
    needed_P: torch.Tensor


def collate(rows: Sequence[Row], device: torch.device) -> Batch:
    """Pad rows to the longest."""
    length = max(map(len, rows))
    tokens = np.zeros((len(rows), length), dtype=np.int64)
    positions = np.zeros_like(tokens)
    segments = np.full_like(tokens, -1)
    needed = []
    for b, row in enumerate(rows):
        n = len(row)
        tokens[b, :n], positions[b, :n], segments[b, :n] = row.tokens, row.positions, row.segments
        needed.append(np.arange(b * length + row.first, b * length + n))
    arrays = (tokens, positions, segments, np.concatenate(needed))
    return Batch(*(to_device(array, device) for array in arrays))


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to a device; to a GPU from pinned memory, so that no one waits for what the GPU still computes."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def tree_sees(segments_BL: torch.Tensor) -> torch.Tensor:
    """Return (B, L, L): whether query i may see key j, in the context or in its own branch, not after itself."""
    import torch

    length = segments_BL.shape[1]
    query, key = segments_BL[:, :, None], segments_BL[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments_BL.device).tril()
    return causal & ((key == 0) | (key == query))


def tree_mask(segments_BL: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask (B, 1, L, L): 0 where query i may see key j, the smallest number where not."""
    import torch

    seen = tree_sees(segments_BL)
    mask = torch.zeros(seen.shape, dtype=dtype, device=segments_BL.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
