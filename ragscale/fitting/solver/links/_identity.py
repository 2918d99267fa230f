"""The metric is the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ragscale.fitting.solver.links._link import Link, Space

_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Identity(Link):
    """The metric is the loss itself (nats, bits per byte, 1 - accuracy)."""

    name: ClassVar[str] = "identity"
    invertible: ClassVar[bool] = True

    def metric(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        return latent

    def slopes(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.ones_like(latent), {}

    def latent(self, metric: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        return metric

    def residual(
        self, latent: np.ndarray, observed: np.ndarray, space: Space, extra: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        if space == "linear":
            return latent - observed
        r = np.fmax(latent, _TINY)  # in place: this is where most of the time of a fit goes
        r[np.isposinf(r)] = _TINY
        np.log(r, out=r)
        r -= observed
        return r

    def residual_slopes(
        self, latent: np.ndarray, space: Space, extra: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        return (1.0 / np.maximum(latent, _TINY) if space == "log" else np.ones_like(latent)), {}

    def bending(self, latent: np.ndarray, space: Space) -> float:
        return -1.0 if space == "log" else 0.0

    def secant(self, latent: np.ndarray, r: np.ndarray, values: np.ndarray, space: Space) -> np.ndarray:
        if space == "linear":
            return np.ones_like(latent)
        f = np.maximum(latent, _TINY)
        excess = f / values
        excess -= 1.0
        small = np.abs(excess) <= 1e-6
        excess[small] = 1.0
        secant = r / excess
        secant[small] = 1.0 - 0.5 * r[small]
        f *= values
        secant /= f
        return secant
