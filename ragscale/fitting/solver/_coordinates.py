"""Between a law's parameters in counts and the coordinates that the solver moves in: coefficients c and search u.

Shapes: S replicates, k free coefficients, m free nonlinear parameters, l free link parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import Parameter, ScalingLaw
from ragscale.fitting.solver.links import Link


class Coordinates:
    """Free parameters in their order: k coefficients, m nonlinear ones (logarithms where so declared), l of the link.

    Parameters
    ----------
    linear : frozenset of str
        Parameters that enter linearly.
    typical : mapping
        The typical N, D and R, in which units are.
    """

    def __init__(self, law: ScalingLaw, link: Link, linear: frozenset[str], typical: Mapping[str, float]) -> None:
        self.law, self.link, self.linear, self.typical = law, link, linear, typical
        self.coefficients = [p for p in law.free if p.name in linear]
        self.nonlinear = [p for p in law.free if p.name not in linear]
        self.constant = {name: law.fixed[name] for name in linear if name in law.fixed}
        for name, other in law.tied.items():
            if (name in linear) != (other in linear):
                raise ConfigError(f"cannot tie {name!r} to {other!r}: one is a coefficient, the other is not")
        self._index = {p.name: i for i, p in enumerate(self.coefficients)}
        self._index |= {name: self._index[other] for name, other in law.tied.items() if other in self._index}
        self.column_of = {p.name: j for j, p in enumerate(self.nonlinear)}
        self.k, self.m, self.l = len(self.coefficients), len(self.nonlinear), len(link.parameters)
        limits = [self._search_bounds(p) for p in (*self.nonlinear, *link.parameters)]
        self.lower = np.array([low for low, _ in limits], dtype=float).reshape(-1)
        self.upper = np.array([high for _, high in limits], dtype=float).reshape(-1)
        self.signed = np.array([self._is_signed(p) for p in self.coefficients], dtype=bool)
        self.limited = any(math.isfinite(p.upper) or p.lower not in (0.0, -math.inf) for p in self.coefficients)
        self.start = [self._start_range(p) for p in (*self.nonlinear, *link.parameters)]

    def owner(self, name: str) -> int:
        """Return which coefficient a column belongs to, -1 where that is fixed."""
        return self._index.get(name, -1)

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
        found |= {name: np.full((1, 1), value) for name, value in self.law.fixed.items() if name not in self.linear}
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
        for name, value in self.constant.items():
            found[name] = np.full(len(u), value)
        return {p.name: np.array(found[p.name], dtype=float) for p in self.law.parameters}

    def search(self, theta: Mapping[str, float]) -> np.ndarray:
        """Return the search coordinates (1, m + l) of one parameter set; the link's values are its own."""
        u = [math.log(max(theta[p.name], 1e-300)) if p.log else theta[p.name] for p in self.nonlinear]
        u += [getattr(self.link, p.name) for p in self.link.parameters]
        return np.array([u], dtype=float).reshape(1, -1)
