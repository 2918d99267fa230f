"""Tables for the tests of fitting: grids with known truth, and a plain search by scipy to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from ragscale.fitting import Parameter, ScalingLaw

N = np.array([3e7, 1e8, 3e8, 1e9, 3e9, 1e10])
D_OVER_N = np.array([2.0, 8.0, 30.0, 120.0])
R_OVER_N = np.array([0.0, 0.5, 2.0, 8.0, 20.0])


class Line(ScalingLaw):
    """Two coefficients, no exponent: ordinary least squares."""

    name = "line"
    variables = ("N", "D")
    parameters = (Parameter("E", -100.0, 100.0), Parameter("slope", -100.0, 100.0))

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Any) -> Any:
        return theta.E + theta.slope * np.log(n / 1e8) + 0 * d


@pytest.fixture(scope="session")
def line() -> ScalingLaw:
    """A law that is linear in its parameters, whose numbers textbooks have."""
    return Line()


@pytest.fixture
def plane() -> pd.DataFrame:
    """24 noise-free rows of Chinchilla's surface."""
    n, ratio = (x.reshape(-1) for x in np.meshgrid(N, D_OVER_N, indexing="ij"))
    table = pd.DataFrame({"N": n, "D": ratio * n, "R": 0.0})
    table["value"] = 1.7 + 400 * table["N"] ** -0.34 + 410 * table["D"] ** -0.28
    return table


@pytest.fixture
def make_surface() -> Callable[..., pd.DataFrame]:
    """Return a maker of noisy tables of a log1p surface, 120 rows."""

    def make(noise: float = 0.005, gain: float = 0.08, seed: int = 0, shared: float = 0.0) -> pd.DataFrame:
        n, ratio, store = (x.reshape(-1) for x in np.meshgrid(N, D_OVER_N, R_OVER_N, indexing="ij"))
        table = pd.DataFrame({"N": n, "D": ratio * n, "R": store * n})
        rng = np.random.default_rng(seed)
        group = table.groupby(["N", "D"]).ngroup().to_numpy()
        error = np.sqrt(shared) * rng.standard_normal(group.max() + 1)[group]
        error = error + np.sqrt(1 - shared) * rng.standard_normal(len(table))
        loss = 1.7 + 400 * table["N"] ** -0.34 + 410 * table["D"] ** -0.28 - gain * np.log1p(table["R"] / 1e9)
        table["value"] = loss * np.exp(noise * error)
        return table

    return make


@pytest.fixture
def search() -> Callable[..., float]:
    """Return a search for the lowest Huber objective of Chinchilla's law by L-BFGS-B from random starts."""

    def run(table: pd.DataFrame, starts: int, delta: float = 1e-3) -> float:
        n, d, y = (table[c].to_numpy(float) for c in ("N", "D", "value"))
        x, z = np.log(n) - np.log(n).mean(), np.log(d) - np.log(d).mean()

        def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
            first, second = np.exp(p[1] - p[2] * x), np.exp(p[3] - p[4] * z)
            value = p[0] + first + second
            e = np.log(value / y)
            loss = np.where(np.abs(e) <= delta, 0.5 * e * e, delta * (np.abs(e) - 0.5 * delta))
            slopes = np.array([np.ones_like(x), first, -x * first, second, -z * second])
            return 1e3 * float(loss.sum()), 1e3 * slopes @ (np.clip(e, -delta, delta) / value)

        rng = np.random.default_rng(0)
        best = np.inf
        for _ in range(starts):
            start = [rng.uniform(0.1, y.min()), rng.uniform(-4, 1), rng.uniform(0.05, 1), rng.uniform(-4, 1)]
            found = minimize(
                objective,
                [*start, rng.uniform(0.05, 1)],
                jac=True,
                method="L-BFGS-B",
                bounds=[(1e-9, None), (-30, 30), (0.01, 2), (-30, 30), (0.01, 2)],
                options={"maxiter": 3000, "ftol": 1e-15, "gtol": 1e-11},
            )
            best = min(best, found.fun / 1e3)
        return best

    return run
