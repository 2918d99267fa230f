"""A law, a link and a table, as the solver sees them: coordinates, columns and residuals.

Shapes: S replicates, n rows, k free coefficients, m free nonlinear parameters, l free link parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.solver._columns import Columns, LawColumns
from ragscale.fitting.solver._coordinates import Coordinates
from ragscale.fitting.solver._linear_parameters import linear_names
from ragscale.fitting.solver._objective import Objective
from ragscale.fitting.solver._rows import Table
from ragscale.fitting.solver.links import Link, Space


class Problem:
    """What the solver minimises; see the module's text for shapes."""

    def __init__(
        self,
        law: ScalingLaw,
        link: Link,
        objective: Objective,
        *,
        space: Space,
        table: Table,
        typical: Mapping[str, float] | None = None,
    ) -> None:
        if law.further_columns:
            law = law.at(**{name: np.append(column, _middle(column)) for name, column in table.further.items()})
        self.law, self.link, self.objective, self.table = law, link, objective, table
        self.space: Space = space
        self.typical = dict(typical or table.typical)
        self.log_y = np.log(table.y) if space == "log" else None
        n, d, r = (np.append(getattr(table, name.lower()), self.typical[name]) for name in "NDR")
        place = Coordinates(law, link, linear_names(law, n, d, r, self.typical), self.typical)
        self.coordinates, self._source = place, LawColumns(place, (n, d, r))
        self.coefficients, self.nonlinear = place.coefficients, place.nonlinear
        self.k, self.m, self.l = place.k, place.m, place.l
        self.lower, self.upper, self.start = place.lower, place.upper, place.start
        self.signed, self.limited = place.signed, place.limited

    def with_observations(self, y: np.ndarray) -> Problem:
        """Return the problem with other observations, one row (n,) per replicate."""
        return self._with_table(replace(self.table, y=y))

    def weighted(self, weight: np.ndarray) -> Problem:
        """Return the problem with other weights (n,) of the rows."""
        return self._with_table(replace(self.table, weight=weight))

    def part(self, index: Any) -> Problem:
        """Return the problem of some replicates; the same one unless replicates have their own observations."""
        return self if self.table.y.ndim == 1 else self._with_table(replace(self.table, y=self.table.y[index]))

    def _with_table(self, table: Table) -> Problem:
        other = copy(self)
        other.table = table
        other.log_y = np.log(table.y) if self.space == "log" else None
        return other

    # Parameters ----------------------------------------------------------------------------------------------------

    def coefficient_bounds(self, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of normalised coefficients, (S, k) each."""
        return self.coordinates.coefficient_bounds(size)

    def extra(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Return the link's parameters, each (S, 1)."""
        return self.coordinates.extra(u)

    def theta(self, c: np.ndarray, u: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
        """Return all parameters of the law in counts, each (S,)."""
        return self.coordinates.theta(c, u, size)

    def position(self, theta: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Return (c, u) of one parameter set, shapes (1, k) and (1, m + l); the link's values are its own."""
        position = self.coordinates.search(theta)
        size = self.sizes(position)
        c = np.array([[theta[p.name] for p in self.coefficients]], dtype=float).reshape(1, -1)
        return c * size, position

    # Columns -------------------------------------------------------------------------------------------------------

    def columns(self, u: np.ndarray, slopes: bool = True) -> Columns:
        """Evaluate the columns, normalised, and how they change with the nonlinear parameters."""
        return self._source.at(u, slopes)

    def distinct_columns(self, u: np.ndarray, slopes: bool = True) -> Columns:
        """Evaluate them at the distinct rows only, (S, k, U)."""
        return self._source.distinct(u, slopes)

    def sizes(self, u: np.ndarray) -> np.ndarray:
        """Return what columns are divided by to be normalised, (S, k)."""
        return self._source.sizes(u)

    @property
    def place(self) -> dict[int, np.ndarray] | None:
        """For each column the distinct row (n,) of each row, None where every row stands for itself."""
        return self._source.place

    def gathered(self, v: np.ndarray) -> Callable[[int], np.ndarray]:
        """Return the function that sums v (S, n) over the rows that share a value of column i, (S, U)."""
        return self._source.gathered(v)

    def latent(self, columns: Columns, c: np.ndarray) -> np.ndarray:
        """Return f = sum of c * column, (S, n)."""
        return self._source.latent(columns, c)

    def tangents(self, columns: Columns, c: np.ndarray, out: np.ndarray) -> None:
        """Write df/du into ``out`` (S, m, n)."""
        self._source.tangents(columns, c, out)

    # Residuals -----------------------------------------------------------------------------------------------------

    def residual(self, f: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return predicted - observed in the chosen space; huge where the logarithm does not exist."""
        observed = self.table.y if self.log_y is None else self.log_y
        return self.link.residual(f, observed, self.space, self.extra(u))

    def residual_slopes(self, f: np.ndarray, u: np.ndarray) -> tuple[Any, list[np.ndarray]]:
        """Return dr/df (S, n) and dr/d link parameter, each (S, n)."""
        slope, others = self.link.residual_slopes(f, self.space, self.extra(u))
        return slope, [np.broadcast_to(others[p.name], f.shape) for p in self.link.parameters]

    def value(self, r: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Return the objective of each replicate; w is (S, n)."""
        total = np.einsum("sn,sn->s", self.objective.rho(r), np.broadcast_to(w, r.shape))
        return np.where(np.isfinite(total), total, np.inf)


def _middle(column: np.ndarray) -> float:
    """Return the geometric mean of positive values, else the mean."""
    return float(np.exp(np.mean(np.log(column)))) if np.all(column > 0) else float(np.mean(column))
