"""Bounded data: a loss between two ends, with a term for over-fitting what is read too often."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragscale.fitting.laws._law import Parameter, ScalingLaw, Theta

_UNIT = 1e9


class BoundedData(ScalingLaw):
    """L(N, D, U) = E + (L0 - E) h / (1 + h), h = A n^-alpha + B d^-beta + C n^gamma u^-delta, n = N / 1e9 and so on.

    Three shortages add up in h: of parameters, of training, and of unique tokens for a model that can learn them by
    heart (over-fitting, which grows with N). The loss stays between E and L0, what a model says that has learnt
    nothing: the logarithm of the vocabulary for a cross-entropy in nats. Limits: h small is Chinchilla with (L0 - E) A
    and (L0 - E) B for its coefficients, plus the over-fitting term; U -> 0 gives L0; D -> inf at fixed U leaves the
    over-fitting, so that, unlike with `DataConstrained`, a larger model can be worse.

    ``variables`` are N, D (all tokens read, epochs included) and the column ``U`` (unique tokens; at most D counts).
    The paper writes T for D here and D for U here, and has counts where this library divides them by 1e9.
    L0 is known from the vocabulary, so hold it: ``BoundedData(fixed={"L0": np.log(50257)})``.

    References
    ----------
    "Practical Scaling Laws: Converting Compute into Performance in a Data-Constrained World" (2026), arXiv 2605.09189:
    the form, as its abstract prints it. Its fitted values were not seen.

    Examples
    --------
    A model of a billion parameters reads 10 billion tokens, of which ever fewer are different:

    >>> law = BoundedData(fixed={"L0": 10.8})
    >>> theta = {"E": 1.8, "A": 0.05, "alpha": 0.35, "B": 0.12, "beta": 0.35, "C": 0.01, "gamma": 0.3, "delta": 0.8}
    >>> law.loss(1e9, 1e10, 0, theta, U=[1e10, 1e9, 1e8, 1e6]).round(2).tolist()
    [2.66, 2.72, 3.09, 8.31]
    """

    name = "bounded_data"
    formula = "E + (L0 - E) h / (1 + h), h = A n^-alpha + B d^-beta + C n^gamma u^-delta, n = N / 1e9, d, u alike"
    reference = "arXiv 2605.09189, abstract"
    variables = ("N", "D", "U")
    parameters = (
        Parameter("E", 0.0, 20.0, start=(0.5, 3.0), description="loss that no size or data removes"),
        Parameter("L0", 0.5, 50.0, log=True, start=(4.0, 14.0), description="loss of a model that knows nothing"),
        Parameter("A", 1e-6, 1e3, log=True, start=(0.005, 0.5), description="shortage of parameters at N = 1e9"),
        Parameter("alpha", 0.01, 3.0, log=True, start=(0.15, 0.8), description="exponent of the model size"),
        Parameter("B", 1e-6, 1e3, log=True, start=(0.005, 1.0), description="shortage of training at D = 1e9"),
        Parameter("beta", 0.01, 3.0, log=True, start=(0.15, 0.8), description="exponent of the tokens"),
        Parameter("C", 1e-9, 1e3, log=True, start=(1e-4, 0.3), description="over-fitting at N = U = 1e9"),
        Parameter("gamma", 0.0, 3.0, start=(0.05, 1.0), description="how over-fitting grows with the size"),
        Parameter("delta", 0.01, 3.0, log=True, start=(0.15, 1.5), description="how it falls with unique tokens"),
    )

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        size, read = np.log(n / _UNIT), np.log(d / _UNIT)
        unique = np.log(np.minimum(self.column("U"), d) / _UNIT)
        log_h = np.logaddexp(
            np.logaddexp(np.log(theta.A) - theta.alpha * size, np.log(theta.B) - theta.beta * read),
            np.log(theta.C) + theta.gamma * size - theta.delta * unique,
        )
        return theta.E + (theta.L0 - theta.E) / (1.0 + np.exp(np.clip(-log_h, -700.0, 700.0)))
