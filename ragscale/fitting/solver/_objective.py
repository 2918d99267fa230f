"""What a fit minimises: a loss of residuals predicted - observed, summed over rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ragscale.errors import ConfigError

LossName = Literal["huber", "least_squares", "quantile"]


@dataclass(frozen=True, slots=True)
class Objective:
    """Huber's loss of residuals, with its limit least squares and an asymmetric version for quantiles.

    ``rho(r) = r^2 / 2`` for ``|r| <= delta``, ``delta (|r| - delta / 2)`` beyond. Least squares is delta = infinity.
    The quantile loss multiplies by ``2 (1 - tau)`` where the law predicts too much and by ``2 tau`` where it predicts
    too little: ``tau`` = 1/2 is Huber's loss, a small ``tau`` follows the lower envelope.

    References
    ----------
    Huber 1964, Ann. Math. Statist. 35(1); Hoffmann et al. 2022, arXiv 2203.15556, appendix D.3 (log residuals,
    delta = 1e-3); Koenker and Bassett 1978, Econometrica 46(1).
    """

    loss: LossName = "huber"
    delta: float = 1e-3
    tau: float = 0.5

    def __post_init__(self) -> None:
        problems = []
        if not isinstance(self.loss, str) or self.loss not in {"huber", "least_squares", "quantile"}:
            problems.append(f"loss = {self.loss!r} must be 'huber', 'least_squares' or 'quantile'")
        if not self.delta > 0:
            problems.append(f"delta = {self.delta!r} must be positive (or 'auto')")
        if not isinstance(self.tau, (int, float, np.floating)) or not 0 < self.tau < 1:
            problems.append(f"tau = {self.tau!r} must be between 0 and 1")
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def limit(self) -> float:
        """Where the loss turns from quadratic to linear."""
        return math.inf if self.loss == "least_squares" else self.delta

    def _side(self, r: np.ndarray) -> Any:
        if self.loss != "quantile":
            return 1.0
        return np.where(r > 0, 2.0 * (1.0 - self.tau), 2.0 * self.tau)

    def rho(self, r: np.ndarray) -> np.ndarray:
        """Return the loss of each residual."""
        if self.loss == "least_squares":
            return 0.5 * r * r
        size = np.abs(r)
        inside = np.minimum(size, self.delta)
        return self._side(r) * inside * (size - 0.5 * inside)

    def weight(self, r: np.ndarray) -> np.ndarray:
        """Return rho'(r) / r, the weight with which least squares has the same slope."""
        if self.loss == "least_squares":
            return np.ones_like(r)
        return self._side(r) * (self.delta / np.maximum(np.abs(r), self.delta))

    def curvature(self, r: np.ndarray) -> np.ndarray:
        """Return rho''(r)."""
        if self.loss == "least_squares":
            return np.ones_like(r)
        return self._side(r) * (np.abs(r) <= self.delta)

    def describe(self, space: str) -> str:
        """Say in a few words what is minimised."""
        of = "log predicted - log observed" if space == "log" else "predicted - observed"
        if self.loss == "least_squares":
            return f"sum of (r^2)/2, r = {of}"
        if self.loss == "quantile":
            return f"sum of the quantile loss (tau = {self.tau:g}, rounded within {self.delta:g}), r = {of}"
        return f"sum of Huber(r; {self.delta:g}), r = {of}"
