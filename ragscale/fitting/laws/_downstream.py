"""Krajewski et al. 2025: log accuracy as a power law of compute, of N and D, and under repeated sampling."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import numpy as np

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import LawOptions, Parameter, ScalingLaw, Theta

REFERENCE_FLOPS = 1e21
"""Compute at which the coefficients of these laws are stated."""


_CEILING = Parameter("E", 0.0, 5.0, start=(0.0, 0.7), description="-log of the accuracy above chance without end")


class Accuracy(ScalingLaw):
    """A law that gives an accuracy: ``chance + (1 - chance) exp(-x)``, where x is a power law.

    ``exp(-x)`` is the accuracy above chance, (Q - chance) / (1 - chance). Rows at or below chance say nothing about x;
    the paper leaves out what is less than 5 points above it.
    """

    link: ClassVar[str] = "identity"

    def __init__(self, *, chance: float = 0.0, **options: Unpack[LawOptions]) -> None:
        if not 0.0 <= chance < 1.0:
            raise ConfigError(f"{type(self).__name__}: chance = {chance!r} must be in [0, 1)")
        self.chance = float(chance)
        super().__init__(**options)

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({"chance": self.chance} if self.chance else {})}

    def _log_inverse(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> Any:
        """Return -log of the accuracy above chance."""
        raise NotImplementedError

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        return self.chance + (1.0 - self.chance) * np.exp(-self._log_inverse(n, d, theta))


class _Direct(Accuracy):
    """A direct law; ``ceiling=True`` adds E to -log Q, so that the accuracy above chance ends at exp(-E)."""

    def __init__(self, *, chance: float = 0.0, ceiling: bool = False, **options: Unpack[LawOptions]) -> None:
        if not isinstance(ceiling, bool):
            raise ConfigError(
                f"{type(self).__name__}: ceiling = {ceiling!r} must be True or False; to hold the ceiling at Q, "
                'ceiling=True, fixed={"E": -log(Q)}'
            )
        self.ceiling = ceiling
        if ceiling:
            self.parameters = (*self.parameters, _CEILING)
        super().__init__(chance=chance, **options)

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({"ceiling": True} if self.ceiling else {})}

    def _powers(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> Any:
        """Return -log of the accuracy above chance, less E."""
        raise NotImplementedError

    def _log_inverse(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> Any:
        return self._powers(n, d, theta) + (theta.E if self.ceiling else 0.0)


class DirectCompute(_Direct):
    """-log Q = A (C / 1e21)^-alpha with C = 6 N D FLOPs: accuracy straight from compute, at one ratio D / N.

    A is -log Q at 1e21 FLOPs. Limits: C -> inf gives Q = 1, C -> 0 gives chance. Valid at one D / N; `DirectDownstream`
    holds across ratios. With a ceiling, -log Q = A (C / 1e21)^-alpha + E and C -> inf gives Q = exp(-E).

    Parameters
    ----------
    chance : float
        Accuracy of guessing, 0.25 with four choices.
    ceiling : bool
        Add the parameter E, for tasks that no model solves in full (wrong labels). It needs runs where the curve bends;
        elsewhere E and alpha trade places, and a fit puts E at its bound 0.

    References
    ----------
    Krajewski et al. 2025, arXiv 2512.08894, equation 2 (normalisation by chance in the same section). The paper prints
    A C^-alpha; A there is A here times 1e21^alpha.

    Examples
    --------
    >>> law = DirectCompute(chance=0.25)
    >>> law.loss(1e9, [2e10, 2e11, 2e12], 0, {"A": 0.8, "alpha": 0.3}).round(3).tolist()
    [0.415, 0.602, 0.763]

    A twentieth of the questions has a wrong key:

    >>> law = DirectCompute(chance=0.25, ceiling=True)
    >>> law.loss(1e9, [2e12, 2e15], 0, {"A": 0.8, "alpha": 0.3, "E": -np.log(0.95)}).round(3).tolist()
    [0.737, 0.929]
    """

    name = "direct_compute"
    formula = "exp(-A (C / 1e21)^-alpha), C = 6 N D"
    reference = "Krajewski et al. 2025, arXiv 2512.08894, eq. 2"
    variables = ("N", "D")
    parameters = (
        Parameter("A", 1e-6, 1e4, log=True, start=(1e-2, 1e1), description="-log accuracy at 1e21 FLOPs"),
        Parameter("alpha", 0.005, 2.0, log=True, start=(0.02, 0.8), description="exponent of the compute"),
    )

    def _powers(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> Any:
        log_c = np.log(6.0 * n * d / REFERENCE_FLOPS)
        return theta.A * np.exp(-theta.alpha * log_c)


class DirectDownstream(_Direct):
    """-log Q = A (N / 1e9)^-alpha + B (D / 1e9)^-beta: accuracy from size and tokens, across ratios D / N.

    The form of Chinchilla without a floor, because accuracy can reach 1. A and B are stated per 1e9.

    Parameters
    ----------
    chance : float
        Accuracy of guessing.
    ceiling : bool
        Add the parameter E to -log Q, so that the accuracy above chance ends at exp(-E).

    References
    ----------
    Krajewski et al. 2025, arXiv 2512.08894, equation 4. The paper prints A N^-alpha; A there is A here times 1e9^alpha.
    """

    name = "direct_downstream"
    formula = "exp(-A (N / 1e9)^-alpha - B (D / 1e9)^-beta)"
    reference = "Krajewski et al. 2025, arXiv 2512.08894, eq. 4"
    variables = ("N", "D")
    parameters = (
        Parameter("A", 1e-6, 1e4, log=True, start=(1e-2, 1e1), description="coefficient of the model size"),
        Parameter("alpha", 0.005, 2.0, log=True, start=(0.05, 1.0), description="exponent of the model size"),
        Parameter("B", 1e-6, 1e4, log=True, start=(1e-2, 1e1), description="coefficient of the tokens"),
        Parameter("beta", 0.005, 2.0, log=True, start=(0.05, 1.0), description="exponent of the tokens"),
    )

    def _powers(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> Any:
        return theta.A * np.exp(-theta.alpha * np.log(n / 1e9)) + theta.B * np.exp(-theta.beta * np.log(d / 1e9))


class PassAtK(Accuracy):
    """log(-log Q) = log A + alpha log c + beta log k + delta log c log k: pass@k, with c = C / 1e21, C = 6 N D.

    ``n_samples`` is the column with k, the tries per problem. alpha and beta are negative (more compute and more tries
    help); delta < 0 says that tries help strong models more. Limits: k = 1 is `DirectCompute`.

    References
    ----------
    Krajewski et al. 2025, arXiv 2512.08894, equation 5. With the paper's C in FLOPs, its log A and beta are those here
    less alpha log 1e21 and delta log 1e21.
    """

    name = "pass_at_k"
    formula = "exp(-A c^alpha k^(beta + delta log c)), c = 6 N D / 1e21, k = n_samples"
    reference = "Krajewski et al. 2025, arXiv 2512.08894, eq. 5"
    variables = ("N", "D", "n_samples")
    parameters = (
        Parameter("A", 1e-6, 1e4, log=True, start=(1e-1, 2e1), description="-log pass@1 at 1e21 FLOPs"),
        Parameter("alpha", -2.0, 0.5, start=(-0.8, -0.02), description="exponent of the compute"),
        Parameter("beta", -2.0, 0.5, start=(-0.8, -0.02), description="exponent of the tries at 1e21 FLOPs"),
        Parameter("delta", -0.5, 0.5, start=(-0.05, 0.05), description="how compute changes what tries give"),
    )

    def _log_inverse(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> Any:
        log_c = np.log(6.0 * n * d / REFERENCE_FLOPS)
        log_k = np.log(self.column("n_samples"))
        power = np.log(theta.A) + theta.alpha * log_c + theta.beta * log_k + theta.delta * log_c * log_k
        return np.exp(np.minimum(power, 700.0))
