"""The metric is the exponential of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ragscale.fitting.solver.links._link import Link, Space

_LARGEST = 700.0  # whose exponential is still a number


@dataclass(frozen=True, slots=True)
class Log(Link):
    """The logarithm of the metric is the loss: for perplexity. Residuals are differences of log perplexity."""

    name: ClassVar[str] = "log"
    invertible: ClassVar[bool] = True
    positive: ClassVar[bool] = True

    def metric(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        return np.exp(latent)

    def slopes(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.exp(latent), {}

    def latent(self, metric: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        return np.log(metric)

    def problems(self, values: np.ndarray) -> list[str]:
        if (values < 1).any():
            advice = "use link='identity' for a loss, or 'bounded' for a score"
            return [f"link='log' is for perplexity, which is at least 1; the table has {values.min():g}: {advice}"]
        return []

    def limits(self, values: np.ndarray) -> tuple[float, float]:
        return 1.0, np.inf

    def residual(
        self, latent: np.ndarray, observed: np.ndarray, space: Space, extra: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        return (latent if space == "log" else np.exp(latent)) - observed

    def residual_slopes(
        self, latent: np.ndarray, space: Space, extra: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        return (np.ones_like(latent) if space == "log" else np.exp(latent)), {}

    def bending(self, latent: np.ndarray, space: Space) -> np.ndarray | float:
        return 0.0 if space == "log" else np.exp(-np.minimum(latent, _LARGEST))

    def secant(self, latent: np.ndarray, r: np.ndarray, values: np.ndarray, space: Space) -> np.ndarray:
        if space == "log":
            return np.ones_like(latent)
        metric = np.exp(np.minimum(latent, _LARGEST))
        apart = latent - np.log(values)
        return np.where(np.abs(apart) > 1e-8, r / np.where(apart == 0, 1.0, apart), metric) * metric
