"""Evaluate a law's columns once per distinct value instead of once per row.

The rows of a results table are a grid: hundreds of them share a few N, a few dozen D and R. The column of A depends on
N alone, so it has as many values as there are sizes. Nothing is assumed of a law: which column depends on which counts
is found by moving them, and the short way is taken only if it gives the very same columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Raw = Callable[[Any, np.ndarray, np.ndarray, np.ndarray], Mapping[str, Any]]


class Distinct:
    """Few made-up rows that hold every value of every column; the last one is the typical row.

    Attributes
    ----------
    n, d, r : ndarray (U + 1,)
        Counts of the made-up rows.
    place : mapping
        For each column, which made-up row (n_rows,) has its value in each row of the table.
    """

    def __init__(self, counts: list[np.ndarray], place: dict[str, np.ndarray]) -> None:
        self.n, self.d, self.r = counts
        self.place = place


def find_distinct(
    raw: Raw, probes: list[Any], counts: tuple[np.ndarray, np.ndarray, np.ndarray], owner: Callable[[str], int]
) -> Distinct | None:
    """Return the made-up rows, or None where they would not be less than half as many as the rows.

    Parameters
    ----------
    raw : callable
        Columns by name at (theta, n, d, r).
    probes : list of Theta
        Where to look for what depends on what.
    counts : three ndarrays (n_rows + 1,)
        N, D and R of the rows; the typical row is the last.
    owner : callable
        Which coefficient a column belongs to; columns of one coefficient are added up and need the same made-up rows.
    """
    rows = len(counts[0]) - 1
    needs: dict[str, set[int]] = {}
    base: Mapping[str, Any] = {}
    for theta in probes:
        base = raw(theta, *counts)
        for axis, count in enumerate(counts):
            for other in (1.37 * count, np.where(count > 0, 0.0, count[-1]) if axis == 2 else 0.71 * count):
                moved = raw(theta, *(other if i == axis else column for i, column in enumerate(counts)))
                for name, column in base.items():
                    if not np.array_equal(column, moved[name], equal_nan=True):
                        needs.setdefault(name, set()).add(axis)
    groups = _merge(list(needs.values()) + [set().union(*same) for same in _by_owner(base, needs, owner)])
    found: list[tuple[list[int], np.ndarray, np.ndarray]] = []
    for group in groups:
        columns = [counts[axis][:-1] for axis in sorted(group)]
        if len(columns) == 1:  # ten times as fast as pairs
            values, index = np.unique(columns[0], return_inverse=True)
            values = values[None]
        else:
            values, index = np.unique(np.stack(columns), axis=1, return_inverse=True)
        if 2 * values.shape[1] > rows:
            return None
        found.append((sorted(group), values, index.reshape(-1)))
    size = max((values.shape[1] for _, values, _ in found), default=1)
    made = [np.full(size + 1, count[-1]) for count in counts]
    place = {}
    for axes, values, _ in found:
        for axis, column in zip(axes, values, strict=True):
            made[axis][: len(column)] = column
    for name in base:
        axes = needs.get(name, set()).union(*(needs.get(other, set()) for other in base if owner(other) == owner(name)))
        place[name] = next((index for group, _, index in found if axes and axes <= set(group)), np.zeros(rows, int))
    distinct = Distinct(made, place)
    same = all(_agrees(raw, theta, counts, distinct) for theta in probes)
    return distinct if same else None


def _by_owner(
    base: Mapping[str, Any], needs: Mapping[str, set[int]], owner: Callable[[str], int]
) -> list[list[set[int]]]:
    owners = {owner(name) for name in base}
    return [[needs.get(name, set()) for name in base if owner(name) == i] for i in owners]


def _merge(sets: list[set[int]]) -> list[set[int]]:
    """Join sets that overlap."""
    merged: list[set[int]] = []
    for one in sets:
        apart = [other for other in merged if not other & one]
        merged = [*apart, set(one).union(*(other for other in merged if other & one))] if one else merged
    return merged


def _agrees(raw: Raw, theta: Any, counts: tuple[np.ndarray, ...], distinct: Distinct) -> bool:
    rows = len(counts[0])
    long, short = raw(theta, *counts), raw(theta, distinct.n, distinct.d, distinct.r)
    for name, column in long.items():
        part = np.broadcast_to(short[name], distinct.n.shape)
        joined = np.append(part[distinct.place[name]], part[-1])
        if not np.allclose(np.broadcast_to(column, rows), joined, rtol=1e-14, atol=0.0, equal_nan=True):
            return False
    return True
