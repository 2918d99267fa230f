"""A law, a link and a table, as the solver sees them: normalised columns, their slopes, and residuals.

Shapes: S replicates, n rows, k free coefficients, m free nonlinear parameters, l free link parameters.
Every column is divided by its size at the typical row (geometric means of N, D and R), which decorrelates coefficients
from exponents and makes the problem independent of the units of the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import Parameter, ScalingLaw, SeparableLaw, Theta
from ragscale.fitting.solver._distinct import find_distinct
from ragscale.fitting.solver._links import Link
from ragscale.fitting.solver._objective import Objective

_STEP = 6e-6


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


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a fit in float64."""

    n: np.ndarray
    d: np.ndarray
    r: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    further: Mapping[str, np.ndarray] = field(default_factory=dict)

    def take(self, rows: np.ndarray) -> Table:
        """Return some of the rows."""
        further = {name: column[rows] for name, column in self.further.items()}
        return Table(self.n[rows], self.d[rows], self.r[rows], self.y[rows], self.weight[rows], further)

    @property
    def typical(self) -> dict[str, float]:
        """Geometric means of N, D and the non-empty stores."""
        stores = self.r[self.r > 0]
        means = {"N": self.n, "D": self.d, "R": stores if stores.size else self.d}
        return {name: float(np.exp(np.mean(np.log(values)))) for name, values in means.items()}


class Problem:
    """What the solver minimises; see the module's text for shapes."""

    def __init__(
        self,
        law: ScalingLaw,
        link: Link,
        objective: Objective,
        *,
        space: str,
        table: Table,
        typical: Mapping[str, float] | None = None,
    ) -> None:
        if law.further_columns:
            law = law.at(**{name: np.append(column, _middle(column)) for name, column in table.further.items()})
        self.law, self.link, self.objective, self.space, self.table = law, link, objective, space, table
        self.typical = dict(typical or table.typical)
        self._n = np.append(table.n, self.typical["N"])
        self._d = np.append(table.d, self.typical["D"])
        self._r = np.append(table.r, self.typical["R"])
        self.log_y = np.log(table.y) if space == "log" else None
        rows = (self._n, self._d, self._r)
        linear = _linear_names(law, *rows, self.typical)
        by_name = {parameter.name: parameter for parameter in law.parameters}
        self._linear = linear
        self.coefficients = [p for p in law.free if p.name in linear]
        self.nonlinear = [p for p in law.free if p.name not in linear]
        self._constant = {name: law.fixed[name] for name in linear if name in law.fixed}
        for name, other in law.tied.items():
            if (name in linear) != (other in linear):
                raise ConfigError(f"cannot tie {name!r} to {other!r}: one is a coefficient, the other is not")
        self._index = {p.name: i for i, p in enumerate(self.coefficients)}
        self._index |= {name: self._index[other] for name, other in law.tied.items() if other in self._index}
        self._column_of = {p.name: j for j, p in enumerate(self.nonlinear)}
        self.k, self.m, self.l = len(self.coefficients), len(self.nonlinear), len(link.parameters)
        limits = [self._search_bounds(p) for p in (*self.nonlinear, *link.parameters)]
        self.lower = np.array([low for low, _ in limits], dtype=float).reshape(-1)
        self.upper = np.array([high for _, high in limits], dtype=float).reshape(-1)
        self.signed = np.array([self._is_signed(p) for p in self.coefficients], dtype=bool)
        self.limited = any(math.isfinite(p.upper) or p.lower not in (0.0, -math.inf) for p in self.coefficients)
        self.start = [self._start_range(p) for p in (*self.nonlinear, *link.parameters)]
        self._by_name = by_name
        self._find_places(rows)

    def _find_places(self, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """Replace the rows at which columns are evaluated by fewer, where columns depend on few counts each.

        ``place[i]`` (n,) tells where each row finds column i (-1: the rest), ``self._n, _d, _r`` are what stands there.
        """
        self.place: dict[int, np.ndarray] | None = None
        law = self.law
        if not isinstance(law, SeparableLaw) or law.further_columns or len(self.table.n) < 16:
            return

        def raw(theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
            return self._with_offset(dict(law._columns(theta, n, d, r)), r)

        probes = [Theta({p.name: _probe_value(p, self.typical, s) for p in law.parameters}) for s in (0.4, 0.62)]
        with np.errstate(all="ignore"):
            distinct = find_distinct(raw, probes, rows, self._owner)
        if distinct is None:
            return
        self._n, self._d, self._r = distinct.n, distinct.d, distinct.r
        self.place = {self._owner(name): place for name, place in distinct.place.items()}
        n, width = len(self.table.n), len(distinct.n) - 1
        every = [self.place[i] + i * width for i in range(self.k)]
        self._spread = np.concatenate(every) if every else np.zeros(0, dtype=int)
        ones = np.ones(n)
        self._sums = {i: csr_matrix((ones, (at, np.arange(n))), (width, n)) for i, at in self.place.items()}

    def _owner(self, name: str) -> int:
        return self._index.get(name, -1)

    def gathered(self, v: np.ndarray) -> Callable[[int], np.ndarray]:
        """Return the function that sums v (S, n) over the rows that share a value of column i, (S, U)."""
        if self.place is None:
            return lambda _: v
        turned = np.ascontiguousarray(v.T)
        return lambda i: (self._sums[i] @ turned).T

    def with_observations(self, y: np.ndarray) -> Problem:
        """Return the problem with other observations, one row (n,) per replicate."""
        return self._with_table(replace(self.table, y=y))

    def part(self, index: Any) -> Problem:
        """Return the problem of some replicates; the same one unless replicates have their own observations."""
        return self if self.table.y.ndim == 1 else self._with_table(replace(self.table, y=self.table.y[index]))

    def _with_table(self, table: Table) -> Problem:
        other = copy(self)
        other.table = table
        other.log_y = np.log(table.y) if self.space == "log" else None
        return other

    # Parameters ----------------------------------------------------------------------------------------------------

    def _is_signed(self, parameter: Parameter) -> bool:
        return parameter.lower < 0 or (self.link.signed and parameter.name == "E")

    def _search_bounds(self, parameter: Parameter) -> tuple[float, float]:
        low, high = parameter.bounds(self.typical)
        return (math.log(low), math.log(high)) if parameter.log else (low, high)

    def _start_range(self, parameter: Parameter) -> tuple[float, float]:
        """Return a finite range in search coordinates."""
        unit = parameter.unit_value(self.typical)
        if parameter.start:
            low, high = (value * unit for value in parameter.start)
        elif parameter.log:
            low, high = max(parameter.lower, 1e-6) * unit, min(parameter.upper, 1e6) * unit
        else:
            low, high = max(parameter.lower, -10.0) * unit, min(parameter.upper, 10.0) * unit
        return (math.log(low), math.log(high)) if parameter.log else (low, high)

    def coefficient_bounds(self, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of normalised coefficients, (S, k) each."""
        low = np.array(
            [-math.inf if s else p.bounds(self.typical)[0] for s, p in zip(self.signed, self.coefficients, strict=True)]
        )
        high = np.array([p.bounds(self.typical)[1] for p in self.coefficients])
        with np.errstate(invalid="ignore"):
            return np.where(np.isinf(low) | (low == 0), low, low * size), np.where(np.isinf(high), high, high * size)

    def values(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Return nonlinear parameters in counts, each (S, 1), with fixed and tied ones."""
        found = {p.name: (np.exp(u[:, j]) if p.log else u[:, j]).reshape(-1, 1) for j, p in enumerate(self.nonlinear)}
        found |= {name: np.full((1, 1), value) for name, value in self.law.fixed.items() if name not in self._linear}
        found |= {name: found[other] for name, other in self.law.tied.items() if other in found}
        return found

    def extra(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Return the link's parameters, each (S, 1)."""
        return {p.name: u[:, self.m + i].reshape(-1, 1) for i, p in enumerate(self.link.parameters)}

    def theta(self, c: np.ndarray, u: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
        """Return all parameters of the law in counts, each (S,)."""
        found = {name: np.broadcast_to(value[:, 0], (len(u),)) for name, value in self.values(u).items()}
        with np.errstate(invalid="ignore"):
            raw = c / size
        for name, i in self._index.items():
            found[name] = raw[:, i]
        for name, value in self._constant.items():
            found[name] = np.full(len(u), value)
        return {p.name: np.array(found[p.name], dtype=float) for p in self.law.parameters}

    def position(self, theta: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Return (c, u) of one parameter set, shapes (1, k) and (1, m + l); the link's values are its own."""
        u = [math.log(max(theta[p.name], 1e-300)) if p.log else theta[p.name] for p in self.nonlinear]
        u += [getattr(self.link, p.name) for p in self.link.parameters]
        position = np.array([u], dtype=float).reshape(1, -1)
        size = self.columns(position, slopes=False).size
        c = np.array([[theta[p.name] for p in self.coefficients]], dtype=float).reshape(1, -1)
        return c * size, position

    # Columns -------------------------------------------------------------------------------------------------------

    def _raw(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        law = self.law
        if isinstance(law, SeparableLaw):
            found = dict(law._columns(Theta(values), self._n, self._d, self._r))
        else:
            found = _columns_by_loss(law, self._linear, values, (self._n, self._d, self._r))
        return self._with_offset(found, self._r)

    def _with_offset(self, columns: dict[str, Any], r: np.ndarray) -> dict[str, Any]:
        if self.law.offset:
            columns["offset"] = self.law._shown(r).astype(float)
        return columns

    def columns(self, u: np.ndarray, slopes: bool = True) -> Columns:
        """Evaluate the columns, normalised, and how they change with the nonlinear parameters."""
        phi, size, rest, out = self.distinct_columns(u, slopes)
        if self.place is not None:
            S, n = len(u), len(self.table.n)
            phi = phi.reshape(S, -1).take(self._spread, axis=1, mode="clip").reshape(S, self.k, n)
            rest = None if rest is None else rest.take(self.place[-1], axis=1, mode="clip")
        return Columns(phi, size, rest, out)

    def distinct_columns(self, u: np.ndarray, slopes: bool = True) -> Columns:
        """Evaluate them at the distinct rows only, (S, k, U)."""
        values = self.values(u)
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

    def _join(self, raw: Mapping[str, np.ndarray]) -> dict[int, Any]:
        """Sum the columns that share a coefficient; -1 collects what has a fixed one."""
        joined: dict[int, Any] = {}
        for name, column in raw.items():
            i = self._index.get(name, -1)
            part = column if i >= 0 else column * self._constant.get(name, 1.0)
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
                if target in self._column_of:
                    j = self._column_of[target]
                    part = slope * values[name] if self.nonlinear[j].log else slope
                    found[column, j] = found[column, j] + part if (column, j) in found else part
            return found
        found = {}
        for j in range(self.m):
            step = _STEP * np.maximum(np.abs(u[:, j : j + 1]), 1.0 if self.nonlinear[j].log else 1e-2)
            moved = []
            for sign in (1.0, -1.0):
                shifted = u.copy()
                shifted[:, j : j + 1] += sign * step
                moved.append(self._raw(self.values(shifted)))
            for column in raw:
                slope = (moved[0][column] - moved[1][column]) / (2.0 * step)
                if np.any(slope):
                    found[column, j] = slope
        return found

    def latent(self, columns: Columns, c: np.ndarray) -> np.ndarray:
        """Return f = sum of c * column, (S, n)."""
        f = np.matmul(c[:, None, :], columns.phi)[:, 0] if self.k else np.zeros((len(c), len(self.table.n)))
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

    # Residuals -----------------------------------------------------------------------------------------------------

    def residual(self, f: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return predicted - observed in the chosen space; huge where the logarithm does not exist."""
        if self.space == "log":
            if self.link.name == "log":
                return f - self.log_y
            if self.link.name == "identity":
                r = np.fmax(f, 1e-300)
                r[np.isposinf(r)] = 1e-300
                np.log(r, out=r)
                r -= self.log_y
                return r
            metric = self.link.metric(f, self.extra(u))
            with np.errstate(invalid="ignore"):
                return np.log(np.maximum(np.where(np.isfinite(metric), metric, 1e-300), 1e-300)) - self.log_y
        return self.link.metric(f, self.extra(u)) - self.table.y

    def residual_slopes(self, f: np.ndarray, u: np.ndarray) -> tuple[Any, list[np.ndarray]]:
        """Return dr/df (S, n) and dr/d link parameter, each (S, n)."""
        if self.space == "log" and self.link.name == "identity":
            return 1.0 / np.maximum(f, 1e-300), []
        if self.space == "log" and self.link.name == "log":
            return np.ones_like(f), []
        extra = self.extra(u)
        slope, others = self.link.slopes(f, extra)
        if self.space == "log":
            metric = np.maximum(self.link.metric(f, extra), 1e-300)
            slope = slope / metric
            others = {name: value / metric for name, value in others.items()}
        shape = f.shape
        return slope, [np.broadcast_to(others[p.name], shape) for p in self.link.parameters]

    def value(self, r: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Return the objective of each replicate; w is (S, n)."""
        total = np.einsum("sn,sn->s", self.objective.rho(r), np.broadcast_to(w, r.shape))
        return np.where(np.isfinite(total), total, np.inf)


def _middle(column: np.ndarray) -> float:
    """Return the geometric mean of positive values, else the mean."""
    return float(np.exp(np.mean(np.log(column)))) if np.all(column > 0) else float(np.mean(column))


def _linear_names(
    law: ScalingLaw, n: np.ndarray, d: np.ndarray, r: np.ndarray, typical: Mapping[str, float]
) -> frozenset[str]:
    """Return the parameters that enter linearly: as the law says, or found by trying."""
    probe = Theta({p.name: _probe_value(p, typical, 0.4) for p in law.parameters})
    with np.errstate(all="ignore"):
        if isinstance(law, SeparableLaw):
            names = set(law._columns(probe, n, d, r))
        else:
            names = _find_linear(law, n, d, r, typical)
    return frozenset(names | ({"offset"} if law.offset else set()))


def _probe_value(parameter: Parameter, typical: Mapping[str, float], share: float) -> float:
    unit = parameter.unit_value(typical)
    if parameter.start:
        low, high = parameter.start
        if parameter.log:
            return math.exp(math.log(low) + share * math.log(high / low)) * unit
        return (low + share * (high - low)) * unit
    low, high = parameter.lower, parameter.upper
    if parameter.log:
        low, high = math.log(max(low, 1e-3)), math.log(min(high, 1e3))
        return math.exp(low + share * (high - low)) * unit
    low, high = max(low, -2.0) if high > -2.0 else high - 1.0, min(high, 3.0) if low < 3.0 else low + 1.0
    return (low + share * (high - low)) * unit


def _find_linear(
    law: ScalingLaw, n: np.ndarray, d: np.ndarray, r: np.ndarray, typical: Mapping[str, float]
) -> set[str]:
    """Try each parameter: is the loss affine in it, together with those already found, at two places?"""

    def is_affine(names: list[str], share: float) -> bool:
        base = {p.name: _probe_value(p, typical, share) for p in law.parameters}
        start = {**base, **dict.fromkeys(names, 0.0)}
        steps = {name: 1.0 + 0.37 * i for i, name in enumerate(names)}
        at_zero = np.asarray(law._loss(n, d, r, Theta(start)), dtype=float)
        parts = [
            np.asarray(law._loss(n, d, r, Theta({**start, k: s})), dtype=float) - at_zero for k, s in steps.items()
        ]
        for factor in (1.0, 2.5):
            moved = {**start, **{k: factor * s for k, s in steps.items()}}
            whole = np.asarray(law._loss(n, d, r, Theta(moved)), dtype=float) - at_zero
            expected = factor * np.sum(parts, axis=0)
            size = np.abs(whole) + factor * np.sum(np.abs(parts), axis=0) + 1e-6 * np.abs(at_zero)
            if not np.all(np.isfinite(whole)) or np.any(np.abs(whole - expected) > 1e-9 * size):
                return False
        return True

    found: list[str] = []
    for parameter in law.parameters:
        if parameter.name == "offset":
            continue
        try:
            good = all(is_affine([*found, parameter.name], share) for share in (0.3, 0.62))
        except (ArithmeticError, ValueError):
            good = False
        if good:
            found.append(parameter.name)
    return set(found)


def _columns_by_loss(
    law: ScalingLaw, linear: frozenset[str], values: Mapping[str, Any], counts: tuple[np.ndarray, ...]
) -> dict[str, Any]:
    """Take a plain law apart: one column per linear parameter, and the rest."""
    names = [name for name in linear if name != "offset"]
    n, d, r = counts
    shape = np.broadcast_shapes(n.shape, *(np.shape(value) for value in values.values()))

    def loss(coefficients: Mapping[str, float]) -> np.ndarray:
        theta = Theta({p.name: {**values, **coefficients}.get(p.name, 0.0) for p in law.parameters})
        return np.broadcast_to(np.asarray(law._loss(n, d, r, theta), dtype=float), shape)

    zero = dict.fromkeys(names, 0.0)
    rest = loss(zero)
    columns = {name: loss({**zero, name: 1.0}) - rest for name in names}
    return columns if names and not np.any(rest) else {**columns, "(rest)": rest}
