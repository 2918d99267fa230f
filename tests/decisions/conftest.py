"""Laws with known parameters (the defaults of `datasets.simulate`), and one real fit with a bootstrap."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ragscale as rs
from ragscale import fitting
from ragscale.fitting import Parameter, ScalingLaw

NAMES = [
    "chinchilla",
    "log1p",
    "power",
    "hill",
    "rpower",
    "log_ratio",
    "interaction",
    "effective_data",
    "multiplicative",
]


def known(name: str, /, law: ScalingLaw | None = None, **params: float) -> tuple[ScalingLaw, dict[str, float]]:
    """A law by name with realistic parameters in counts, some of them replaced."""
    table = rs.datasets.simulate(law or name, params, noise=0.0)
    resolved = law or fitting.catalogue().loc[name, "law"]()
    if name == "power":
        resolved = fitting.Power(R0=table.attrs["params"]["R0"])
    return resolved, table.attrs["params"]


class Bumpy(ScalingLaw):
    """A user's own law, with several stationary points along any budget: gains come in waves of the store."""

    parameters = (Parameter("E", 0, 10), Parameter("b", 0, 1), Parameter("height", 0, 1))

    def _loss(self, n, d, r, theta):
        return (
            theta.E
            + theta.b * (d / 1e9) ** -0.5
            - theta.height * np.log1p(r / 1e9) * (1 + np.sin(4 * np.log1p(r / 1e9)))
        )


BUMPY = (Bumpy(), {"E": 2.0, "b": 0.4, "height": 0.05})


@pytest.fixture(params=NAMES)
def any_law(request):
    return known(request.param)


@pytest.fixture(scope="session")
def fitted():
    """A fit of noisy synthetic data, and a bootstrap of it."""
    results = rs.datasets.simulate("log1p", noise=0.01, cluster_share=0.5, rng=0)
    fit = rs.fit_manifold(results, law="log1p")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit, rs.bootstrap(fit, n_resamples=200, rng=0)
