"""The columns of a law at search coordinates, normalised, and how they change with the nonlinear parameters.

Every column is divided by its size at the typical row (geometric means of N, D and R), which decorrelates coefficients
from exponents and makes the problem independent of the units of the table. Shapes: S replicates, n rows, U distinct
rows, k free coefficients, m free nonlinear parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from ragscale.fitting.laws._law import SeparableLaw, Theta
from ragscale.fitting.solver._coordinates import Coordinates
from ragscale.fitting.solver._distinct import find_distinct
from ragscale.fitting.solver._linear_parameters import columns_by_loss, probe_value

_STEP = 6e-6
_BLOCK = 1_000_000  # doubles of one column of a block of replicates


class Columns(NamedTuple):
    """Columns at nonlinear parameters ``u`` (S, m)."""

    phi: np.ndarray  # (S, k, n) free coefficients' columns, normalised
    size: np.ndarray  # (S, k) what they were divided by
    rest: np.ndarray | None  # (S, n) the part with fixed coefficients
    slopes: list[Slope]


class Slope(NamedTuple):
    """How a column changes with a nonlinear parameter, at distinct rows; see `Problem.place`."""

    column: int  # -1 for the rest
    parameter: int
    values: np.ndarray  # (S, U), or (S, n) when every row stands for itself


class LawColumns:
    """The columns of a law at the rows of a table.

    Parameters
    ----------
    coordinates : Coordinates
    counts : three ndarrays (n + 1,)
        N, D and R of the rows; the typical row is the last.
    """

    def __init__(self, coordinates: Coordinates, counts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        self.coordinates, self.law = coordinates, coordinates.law
        self.k, self.m = coordinates.k, coordinates.m
        self.n_rows = len(counts[0]) - 1
        self._n, self._d, self._r = counts
        self._find_places(counts)

    def _find_places(self, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """Replace the rows at which columns are evaluated by fewer, where columns depend on few counts each.

        ``place[i]`` (n,) tells where each row finds column i (-1: the rest), ``self._n, _d, _r`` are what stands there.
        """
        self.place: dict[int, np.ndarray] | None = None
        law = self.law
        if not isinstance(law, SeparableLaw) or law.further_columns or self.n_rows < 16:
            return

        def raw(theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
            return self._with_offset(dict(law._columns(theta, n, d, r)), r)

        probes = [
            Theta({p.name: probe_value(p, self.coordinates.typical, s) for p in law.parameters}) for s in (0.4, 0.62)
        ]
        with np.errstate(all="ignore"):
            distinct = find_distinct(raw, probes, rows, self.coordinates.owner)
        if distinct is None:
            return
        self._n, self._d, self._r = distinct.n, distinct.d, distinct.r
        self.place = {self.coordinates.owner(name): place for name, place in distinct.place.items()}
        n, width = self.n_rows, len(distinct.n) - 1
        every = [self.place[i] + i * width for i in range(self.k)]
        self._spread = np.concatenate(every) if every else np.zeros(0, dtype=int)
        ones = np.ones(n)
        self._sums = {i: csr_matrix((ones, (at, np.arange(n))), (width, n)) for i, at in self.place.items()}

    def gathered(self, v: np.ndarray) -> Callable[[int], np.ndarray]:
        """Return the function that sums v (S, n) over the rows that share a value of column i, (S, U)."""
        if self.place is None:
            return lambda _: v
        turned = np.ascontiguousarray(v.T)
        return lambda i: (self._sums[i] @ turned).T

    def _raw(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        law = self.law
        if isinstance(law, SeparableLaw):
            found = dict(law._columns(Theta(values), self._n, self._d, self._r))
        else:
            found = columns_by_loss(law, self.coordinates.linear, values, (self._n, self._d, self._r))
        return self._with_offset(found, self._r)

    def _with_offset(self, columns: dict[str, Any], r: np.ndarray) -> dict[str, Any]:
        if self.law.offset:
            columns["offset"] = self.law._shown(r).astype(float)
        return columns

    def at(self, u: np.ndarray, slopes: bool = True) -> Columns:
        """Evaluate the columns, normalised, and how they change with the nonlinear parameters."""
        phi, size, rest, out = self.distinct(u, slopes)
        if self.place is not None:
            S, n = len(u), self.n_rows
            phi = phi.reshape(S, -1).take(self._spread, axis=1, mode="clip").reshape(S, self.k, n)
            rest = None if rest is None else rest.take(self.place[-1], axis=1, mode="clip")
        return Columns(phi, size, rest, out)

    def distinct(self, u: np.ndarray, slopes: bool = True) -> Columns:
        """Evaluate them at the distinct rows only, (S, k, U)."""
        values = self.coordinates.values(u)
        S, n = len(u), len(self._n) - 1
        with np.errstate(all="ignore"):
            given = None
            if slopes and isinstance(self.law, SeparableLaw):
                raw, given = self.law._columns_and_slopes(Theta(values), self._n, self._d, self._r)
                raw = self._with_offset(dict(raw), self._r)
            else:
                raw = self._raw(values)
            by_parameter = self._raw_slopes(u, values, raw, given) if slopes else {}
        joined = self._join(raw)
        changes = [(self._join_slopes(by_parameter, j), j) for j in range(self.m)] if slopes else []
        phi = np.empty((S, self.k, n))
        size = np.ones((S, self.k))
        out: list[Slope] = []
        for i in range(self.k):
            column = np.broadcast_to(joined[i], (S, n + 1))
            reference = column[:, -1:]
            usable = np.isfinite(reference) & (reference != 0)
            inverse = 1.0 / np.where(usable, np.abs(reference), 1.0)
            np.multiply(column[:, :-1], inverse, out=phi[:, i])
            size[:, i] = 1.0 / inverse[:, 0]
            for change, j in changes:
                if i not in change:
                    continue
                slope = np.broadcast_to(change[i], (S, n + 1))
                relative = np.where(usable, slope[:, -1:] / np.where(usable, reference, 1.0), 0.0)
                normal = slope[:, :-1] * inverse
                normal -= phi[:, i] * relative
                out.append(Slope(i, j, normal))
        rest = None
        if -1 in joined:
            rest = np.broadcast_to(joined[-1], (S, n + 1))[:, :-1]
            for change, j in changes:
                if -1 in change:
                    out.append(Slope(-1, j, np.broadcast_to(change[-1], (S, n + 1))[:, :-1]))
        return Columns(phi, size, rest, out)

    def sizes(self, u: np.ndarray) -> np.ndarray:
        """Return what columns are divided by, (S, k); many replicates of many rows are not evaluated at once for it."""
        first = self.distinct(u[:1], slopes=False).size
        if not self.law.further_columns:
            typical = copy(self)
            typical._n, typical._d, typical._r = self._n[-1:], self._d[-1:], self._r[-1:]
            found = typical.distinct(u, slopes=False).size
            if np.allclose(found[:1], first, rtol=1e-13, atol=0.0, equal_nan=True):  # else it looks at all rows
                return found
        step = max(1, _BLOCK // len(self._n))
        return np.concatenate([self.distinct(u[i : i + step], slopes=False).size for i in range(0, len(u), step)])

    def _join(self, raw: Mapping[str, np.ndarray]) -> dict[int, Any]:
        """Sum the columns that share a coefficient; -1 collects what has a fixed one."""
        joined: dict[int, Any] = {}
        for name, column in raw.items():
            i = self.coordinates.owner(name)
            part = column if i >= 0 else column * self.coordinates.constant.get(name, 1.0)
            joined[i] = joined[i] + part if i in joined else part
        return joined

    def _join_slopes(self, by_parameter: Mapping[tuple[str, int], Any], j: int) -> dict[int, Any]:
        return self._join({name: slope for (name, of), slope in by_parameter.items() if of == j})

    def _raw_slopes(
        self,
        u: np.ndarray,
        values: Mapping[str, np.ndarray],
        raw: Mapping[str, np.ndarray],
        given: Mapping[tuple[str, str], Any] | None,
    ) -> dict[tuple[str, int], Any]:
        """Return d column / d search coordinate; differences where the law gives no closed form."""
        law = self.law
        if given is not None:
            found: dict[tuple[str, int], Any] = {}
            for (column, name), slope in given.items():
                target = law.tied.get(name, name)
                if target in self.coordinates.column_of:
                    j = self.coordinates.column_of[target]
                    part = slope * values[name] if self.coordinates.nonlinear[j].log else slope
                    found[column, j] = found[column, j] + part if (column, j) in found else part
            return found
        found = {}
        for j in range(self.m):
            step = _STEP * np.maximum(np.abs(u[:, j : j + 1]), 1.0 if self.coordinates.nonlinear[j].log else 1e-2)
            moved = []
            for sign in (1.0, -1.0):
                shifted = u.copy()
                shifted[:, j : j + 1] += sign * step
                moved.append(self._raw(self.coordinates.values(shifted)))
            for column in raw:
                slope = (moved[0][column] - moved[1][column]) / (2.0 * step)
                if np.any(slope):
                    found[column, j] = slope
        return found

    def latent(self, columns: Columns, c: np.ndarray) -> np.ndarray:
        """Return f = sum of c * column, (S, n)."""
        f = np.matmul(c[:, None, :], columns.phi)[:, 0] if self.k else np.zeros((len(c), self.n_rows))
        return f if columns.rest is None else f + columns.rest

    def tangents(self, columns: Columns, c: np.ndarray, out: np.ndarray) -> None:
        """Write df/du into ``out`` (S, m, n)."""
        written = set()
        for i, j, slope in columns.slopes:
            part = slope if i < 0 else c[:, i : i + 1] * slope
            if self.place is not None:
                part = part.take(self.place[i], axis=1, mode="clip")
            if j in written:
                out[:, j] += part
            else:
                out[:, j] = part
                written.add(j)
        for j in set(range(self.m)) - written:
            out[:, j] = 0.0
