"""Kaplan et al. 2020: power laws without a floor in model size, data, compute, and in size and data together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ragscale.fitting.laws._law import Parameter, ScalingLaw, Theta
from ragscale.fitting.laws._published import Published

PF_DAY = 1e15 * 86_400.0
"""FLOPs in one petaflop/s-day, the unit of compute of Kaplan et al."""


class _PowerOfOne(ScalingLaw):
    """L = (X_c / X)^alpha_X."""

    def _x(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        scale, exponent = (theta[parameter.name] for parameter in self.parameters[:2])
        return np.exp(exponent * (np.log(scale) - np.log(self._x(n, d))))


class KaplanN(_PowerOfOne):
    """L(N) = (N_c / N)^alpha_N: enough data, trained to convergence.

    N counts parameters without embeddings, L is in nats per token. The loss falls to 0 as N grows: a law of its
    range, not of the limit.

    References
    ----------
    Kaplan et al. 2020, arXiv 2001.08361, equation 1.1.

    Examples
    --------
    >>> law = KaplanN()
    >>> float(law.loss(1e9, 1, 0, KaplanN.published["kaplan"].parameters).round(3))
    2.376
    """

    name = "kaplan_n"
    formula = "(N_c / N)^alpha_N"
    reference = "Kaplan et al. 2020, arXiv 2001.08361, eq. 1.1"
    variables = ("N",)
    parameters = (
        Parameter("N_c", 1e-6, 1e60, log=True, unit="N", start=(1e0, 1e16), description="model with loss 1"),
        Parameter("alpha_N", 0.005, 2.0, log=True, start=(0.03, 0.5), description="exponent of the model size"),
    )
    published: ClassVar[Mapping[str, Published]] = {
        "kaplan": Published(parameters={"N_c": 8.8e13, "alpha_N": 0.076}, source="arXiv 2001.08361, eq. 1.1")
    }

    def _x(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return n


class KaplanD(_PowerOfOne):
    """L(D) = (D_c / D)^alpha_D: large models, stopped early.

    D counts tokens, L is in nats per token.

    References
    ----------
    Kaplan et al. 2020, arXiv 2001.08361, equation 1.2.
    """

    name = "kaplan_d"
    formula = "(D_c / D)^alpha_D"
    reference = "Kaplan et al. 2020, arXiv 2001.08361, eq. 1.2"
    variables = ("D",)
    parameters = (
        Parameter("D_c", 1e-6, 1e60, log=True, unit="D", start=(1e0, 1e16), description="tokens with loss 1"),
        Parameter("alpha_D", 0.005, 2.0, log=True, start=(0.03, 0.5), description="exponent of the tokens"),
    )
    published: ClassVar[Mapping[str, Published]] = {
        "kaplan": Published(parameters={"D_c": 5.4e13, "alpha_D": 0.095}, source="arXiv 2001.08361, eq. 1.2")
    }

    def _x(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return d


class KaplanC(_PowerOfOne):
    """L(C) = (C_c / C)^alpha_C, where C = 6 N D FLOPs and N is the best size for that compute.

    C_c is in FLOPs here; the paper prints PF-days (``PF_DAY`` FLOPs). On rows far from the best size the law has
    nothing to say, so fit it to the frontier.

    References
    ----------
    Kaplan et al. 2020, arXiv 2001.08361, equation 1.3.
    """

    name = "kaplan_c"
    formula = "(C_c / C)^alpha_C, C = 6 N D"
    reference = "Kaplan et al. 2020, arXiv 2001.08361, eq. 1.3"
    variables = ("N", "D")
    parameters = (
        Parameter("C_c", 1e6, 1e80, log=True, start=(1e20, 1e36), description="FLOPs with loss 1"),
        Parameter("alpha_C", 0.005, 2.0, log=True, start=(0.02, 0.3), description="exponent of the compute"),
    )
    published: ClassVar[Mapping[str, Published]] = {
        "kaplan": Published(
            parameters={"C_c": 3.1e8 * PF_DAY, "alpha_C": 0.050},
            source="arXiv 2001.08361, eq. 1.3 (compute-efficient frontier; C_c = 3.1e8 PF-days)",
        )
    }

    def _x(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return 6.0 * n * d


class Kaplan(ScalingLaw):
    """L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D.

    Limits: D -> inf gives `KaplanN`, N -> inf gives `KaplanD`; in between a shortage of one is not made up by the
    other. No irreducible loss.

    The scales N_c and D_c lie many decades outside any table and move together with the exponents, so the parameters
    are L_N and L_D: the losses of the two limits at N = 1e9 and at D = 1e9. ``N_c = 1e9 L_N^(1 / alpha_N)``, D_c alike;
    `kaplan_parameters` and `kaplan_published` convert.

    References
    ----------
    Kaplan et al. 2020, arXiv 2001.08361, equations 1.5 and 4.1, table 2.

    Examples
    --------
    >>> float(Kaplan().loss(1e9, 1e30, 0, Kaplan.published["kaplan"].parameters).round(3))
    2.319
    """

    name = "kaplan"
    formula = "((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D, N_c = 1e9 L_N^(1 / alpha_N), D_c alike"
    reference = "Kaplan et al. 2020, arXiv 2001.08361, eq. 1.5"
    variables = ("N", "D")
    parameters = (
        Parameter("L_N", 1e-4, 1e4, log=True, start=(0.3, 10.0), description="loss of N = 1e9 with endless data"),
        Parameter("alpha_N", 0.005, 2.0, log=True, start=(0.03, 0.5), description="exponent of the model size"),
        Parameter("L_D", 1e-4, 1e4, log=True, start=(0.3, 10.0), description="loss of an endless model at D = 1e9"),
        Parameter("alpha_D", 0.005, 2.0, log=True, start=(0.03, 0.5), description="exponent of the tokens"),
    )
    published: ClassVar[Mapping[str, Published]]

    def _logs(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> tuple[Any, Any]:
        size = np.log(theta.L_N) - theta.alpha_N * np.log(n / 1e9)
        data = np.log(theta.L_D) - theta.alpha_D * np.log(d / 1e9)
        return size / theta.alpha_D, data / theta.alpha_D

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        return np.exp(theta.alpha_D * np.logaddexp(*self._logs(n, d, theta)))

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        size, data = self._logs(n, d, theta)
        loss = self._loss(n, d, r, theta)
        total = np.logaddexp(size, data)
        slope_n = -theta.alpha_N * loss * np.exp(size - total) / n
        return slope_n, -theta.alpha_D * loss * np.exp(data - total) / d, np.zeros_like(slope_n)


def kaplan_parameters(N_c: float, alpha_N: float, D_c: float, alpha_D: float) -> dict[str, float]:
    """Return the parameters of `Kaplan` from the paper's.

    Examples
    --------
    >>> kaplan_published(kaplan_parameters(6.4e13, 0.076, 1.8e13, 0.103))["N_c"] / 6.4e13
    1.0
    """
    return {
        "L_N": (N_c / 1e9) ** alpha_N,
        "alpha_N": alpha_N,
        "L_D": (D_c / 1e9) ** alpha_D,
        "alpha_D": alpha_D,
    }


def kaplan_published(parameters: Mapping[str, float]) -> dict[str, float]:
    """Return N_c, alpha_N, D_c and alpha_D from the parameters of `Kaplan`."""
    return {
        "N_c": 1e9 * parameters["L_N"] ** (1.0 / parameters["alpha_N"]),
        "alpha_N": parameters["alpha_N"],
        "D_c": 1e9 * parameters["L_D"] ** (1.0 / parameters["alpha_D"]),
        "alpha_D": parameters["alpha_D"],
    }


Kaplan.published = {
    "kaplan": Published(
        parameters=kaplan_parameters(N_c=6.4e13, alpha_N=0.076, D_c=1.8e13, alpha_D=0.103),
        source="arXiv 2001.08361, table 2 (fitted jointly): N_c 6.4e13, alpha_N 0.076, D_c 1.8e13, alpha_D 0.103",
    )
}
