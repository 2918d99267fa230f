"""Rows that begin alike are computed once as far as they do: worked examples, passages of several stores, instructions.

The rows of a call form a forest: a node holds tokens that several rows share, a leaf what is a row's own, its branches
with it. The tokens of a node look at the keys and values of the nodes above it, which are kept while its children run,
so every token is computed once, from the same numbers as in a row of its own.

Shape letters: B nodes, L tokens of the longest node, K tokens above and L, N needed columns, P needed positions, D
width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale.evaluation._steps import Body
from ragscale.evaluation._tree import Row, to_device, tree_sees

if TYPE_CHECKING:
    import torch

LEAST = 32  # tokens that rows must share at least
_PASS = 8  # what a node costs beside its tokens, in tokens

InBatches = Callable[[Sequence[Any], Callable[[Any], int], Callable[[Sequence[Any]], None]], None]


@dataclass(slots=True, eq=False)
class Node:
    """Tokens ``start`` to ``stop`` of a row; a leaf ends its row, else others go on from here.

    Attributes
    ----------
    parent : int
        Its parent's place in the batch that was computed last.
    """

    row: Row
    start: int
    stop: int
    children: list[Node] = field(default_factory=list)
    parent: int = 0

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def n_needed(self) -> int:
        """Positions whose hidden states are wanted, at the end of a leaf."""
        return 0 if self.children else len(self.row) - self.row.first


def forest(rows: Sequence[Row], width: int) -> tuple[list[Row], list[Node]]:
    """Return rows that had better run alone, and trees of those that begin with the same tokens.

    Parameters
    ----------
    rows : sequence of Row
    width : int
        A token costs as much as attention to so many others under a mask, which a row of its own does without:
        rows with long ends share nothing short.
    """
    if len(rows) < 2:
        return list(rows), []
    ordered = sorted(rows, key=lambda row: row.tokens[: row.first].tobytes())
    shared = [_common(one, other) for one, other in pairwise(ordered)]
    nodes, _ = _grow(ordered, shared, 0, width)
    return [node.row for node in nodes if not node.children], [node for node in nodes if node.children]


def _common(one: Row, other: Row) -> int:
    """Return how many tokens two rows share before the first position that either needs."""
    n = min(one.first, other.first)
    apart = np.flatnonzero(one.tokens[:n] != other.tokens[:n])
    return int(apart[0]) if len(apart) else n


def _grow(rows: Sequence[Row], shared: Sequence[int], start: int, width: int) -> tuple[list[Node], float]:
    """Return the nodes of sorted rows that are equal up to ``start``, and their cost in tokens.

    ``shared`` is what neighbours have in common.
    """
    nodes: list[Node] = []
    total, first = 0.0, 0
    for last in range(len(rows)):
        if last + 1 < len(rows) and shared[last] >= start + LEAST:
            continue
        group, common = rows[first : last + 1], shared[first:last]
        first = last + 1
        best = [Node(row, start, len(row)) for row in group]
        cost = sum(_cost(node, width) for node in best)
        if common:
            children, below = _grow(group, common, min(common), width)
            stem = Node(group[0], start, min(common), children)
            if (together := _cost(stem, width) + below) < cost:
                best, cost = [stem], together
        nodes += best
        total += cost
    return nodes, total


def _cost(node: Node, width: int) -> float:
    """Return what a node costs in tokens: below others it looks at itself under a mask, not by the causal kernel."""
    n = len(node)
    return n + (_PASS + n * n / width if node.start else 0.0)


def hidden_of_trees(
    body: Body, roots: Sequence[Node], device: torch.device, in_batches: InBatches
) -> tuple[list[Row], torch.Tensor]:
    """Return the rows of trees, and the hidden states at their needed positions in that order, (P, D).

    Parameters
    ----------
    body : Body
    roots : sequence of Node
        With children, as `forest` makes them.
    device : torch.device
    in_batches : callable
        ``in_batches(nodes, len, run)`` runs nodes in batches that fit.
    """
    import torch

    rows: list[Row] = []
    found: list[torch.Tensor] = []

    def run(part: Sequence[Node], above: Any, seen_BK: torch.Tensor | None) -> None:
        tokens_BL, positions_BL, segments_BL, needed_BN = _collate(part, device)
        mask_BLK, own_BK = None, segments_BL == 0
        if seen_BK is not None:
            parents = torch.tensor([node.parent for node in part], device=device)
            above = _Gathered(above, parents)
            before_BK = seen_BK[parents]
            mask_BLK = torch.cat((before_BK[:, None].expand(-1, tokens_BL.shape[1], -1), tree_sees(segments_BL)), dim=2)
            own_BK = torch.cat((before_BK, own_BK), dim=1)
        keep = any(node.children for node in part)
        hidden_BND, kept = body(
            tokens_BL, needed_BN, positions_BL=positions_BL, mask_BLK=mask_BLK, before=above, keep=keep
        )
        for place, node in enumerate(part):
            if not node.children:
                rows.append(node.row)
                found.append(hidden_BND[place, : node.n_needed])
            for child in node.children:
                child.parent = place
        children = sorted((child for node in part for child in node.children), key=_size, reverse=True)
        in_batches(children, _size, lambda some: run(some, kept, own_BK))

    run(roots, None, None)
    return rows, torch.cat(found)


class _Gathered:
    """The keys and values above a batch of nodes, copied for one layer at a time: many short ends share much."""

    def __init__(self, kept: Any, parents: torch.Tensor) -> None:
        self.kept, self.parents = kept, parents

    def __getitem__(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.kept[layer]
        return keys[self.parents], values[self.parents]


def _size(node: Node) -> int:
    """Return what a node counts for in a batch, with what it looks at."""
    return max(len(node), node.start // 4)


def _collate(nodes: Sequence[Node], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return tokens, positions and segments (-1 is padding), (B, L), and the needed columns, (B, N)."""
    arrays = [np.full((len(nodes), max(map(len, nodes))), fill, dtype=np.int64) for fill in (0, 0, -1)]
    column = np.arange(max(1, *(node.n_needed for node in nodes)))
    needed = np.zeros((len(nodes), len(column)), dtype=np.int64)
    for place, node in enumerate(nodes):
        for array, name in zip(arrays, ("tokens", "positions", "segments"), strict=True):
            array[place, : len(node)] = getattr(node.row, name)[node.start : node.stop]
        needed[place] = np.minimum(max(0, len(node) - node.n_needed) + column, len(node) - 1)
    return tuple(to_device(array, device) for array in (*arrays, needed))
