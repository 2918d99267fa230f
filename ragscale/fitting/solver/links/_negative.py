"""The metric is minus the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ragscale.fitting.solver.links._link import Link, Space


@dataclass(frozen=True, slots=True)
class Negative(Link):
    """The metric is minus the loss: for log likelihoods, which rise towards 0. Residuals are differences."""

    name: ClassVar[str] = "negative"
    space: ClassVar[Space] = "linear"  # type: ignore[misc] - no field of the dataclass

    def metric(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        return -latent

    def slopes(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return -np.ones_like(latent), {}

    def latent(self, metric: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        return -metric

    def problems(self, values: np.ndarray) -> list[str]:
        if (values > 0).any():
            return [f"link='negative' is for log likelihoods, which are at most 0; the table has {values.max():g}"]
        return []

    def limits(self, values: np.ndarray) -> tuple[float, float]:
        return -np.inf, 0.0
