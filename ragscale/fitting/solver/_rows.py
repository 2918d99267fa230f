"""The rows of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


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
