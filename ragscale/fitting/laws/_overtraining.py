"""Gadre et al. 2024: loss under over-training, in compute C and tokens per parameter M; loss to error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ragscale.fitting.laws._law import Parameter, SeparableLaw, Theta
from ragscale.fitting.laws._published import Published


class Overtraining(SeparableLaw):
    """L(C, M) = E + (a M^eta + b M^-eta) C^-eta, with C = 6 N D FLOPs and M = D / N tokens per parameter.

    The same as E + A N^-(2 eta) + B D^-(2 eta) with A = a 6^-eta and B = b 6^-eta, so the best M is the same at every
    compute (`best_ratio`). At fixed M the reducible loss is a power of C whose exponent does not depend on M:
    over-training moves the line, not its slope.

    References
    ----------
    Gadre et al. 2024, arXiv 2403.08540, equation 4; parameters from the table of fits on C4, RedPajama and RefinedWeb.

    Examples
    --------
    >>> law, c4 = Overtraining(), Overtraining.published["c4"].parameters
    >>> float(law.loss(1.4e9, 20 * 1.4e9, 0, c4).round(3)), round(best_ratio(c4), 1)
    (2.658, 3.4)
    """

    name = "overtraining"
    formula = "E + (a M^eta + b M^-eta) C^-eta, C = 6 N D, M = D / N"
    reference = "Gadre et al. 2024, arXiv 2403.08540, eq. 4"
    variables = ("N", "D")
    parameters = (
        Parameter("E", 0.0, description="loss that no compute removes"),
        Parameter("a", 0.0, description="what too few parameters cost"),
        Parameter("b", 0.0, description="what too few tokens cost"),
        Parameter("eta", 0.005, 1.0, start=(0.03, 0.4), description="exponent of the compute"),
    )
    published: ClassVar[Mapping[str, Published]] = {
        "c4": Published(
            parameters={"E": 1.51, "a": 141.0, "b": 190.0, "eta": 0.121},
            source="arXiv 2403.08540, fit on C4, validated on C4",
        ),
        "redpajama": Published(
            parameters={"E": 1.84, "a": 212.0, "b": 367.0, "eta": 0.136},
            source="arXiv 2403.08540, fit on RedPajama, validated on C4",
        ),
        "refinedweb": Published(
            parameters={"E": 1.73, "a": 157.0, "b": 246.0, "eta": 0.127},
            source="arXiv 2403.08540, fit on RefinedWeb, validated on C4",
        ),
    }

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        size, data = _logs(n, d)
        return {"E": np.ones_like(n + d), "a": np.exp(theta.eta * size), "b": np.exp(theta.eta * data)}

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        size, data = _logs(n, d)
        return {("a", "eta"): size * np.exp(theta.eta * size), ("b", "eta"): data * np.exp(theta.eta * data)}


def _logs(n: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ln(M / C) and ln(1 / (M C)); they are -ln(6 N^2) and -ln(6 D^2)."""
    return -np.log(6.0) - 2.0 * np.log(n), -np.log(6.0) - 2.0 * np.log(d)


def best_ratio(parameters: Mapping[str, float]) -> float:
    """Return the tokens per parameter that give the least loss at any compute, under `Overtraining`.

    The derivative of a M^eta + b M^-eta is 0 at M = (b / a)^(1 / (2 eta)).
    """
    return float((parameters["b"] / parameters["a"]) ** (0.5 / parameters["eta"]))


class LossToError(SeparableLaw):
    """Err(L) = epsilon - k exp(-gamma L): top-1 error, averaged over tasks, from the validation loss L.

    ``variables`` is ("loss",): the results need a column ``loss`` and the error (1 - accuracy) as value. Limits: large
    loss gives epsilon (chance); fitted on averages over tasks, single tasks are much noisier.

    References
    ----------
    Gadre et al. 2024, arXiv 2403.08540, equation 5.

    Examples
    --------
    >>> law = LossToError()
    >>> float(law.loss(1, 1, 0, LossToError.published["c4"].parameters, loss=2.5).round(3))
    0.536
    """

    link: ClassVar[str] = "identity"
    name = "loss_to_error"
    formula = "epsilon - k exp(-gamma loss)"
    reference = "Gadre et al. 2024, arXiv 2403.08540, eq. 5"
    variables = ("loss",)
    parameters = (
        Parameter("epsilon", 0.0, description="error at large loss: guessing"),
        Parameter("k", 0.0, description="size of what a low loss takes off the error"),
        Parameter("gamma", 0.01, 10.0, log=True, start=(0.1, 3.0), description="how fast error falls with loss"),
    )
    published: ClassVar[Mapping[str, Published]] = {
        "c4": Published(
            parameters={"epsilon": 0.850, "k": 2.08, "gamma": 0.756},
            source="arXiv 2403.08540, 17 tasks, models trained on C4; quoted, not checked",
        ),
        "redpajama": Published(
            parameters={"epsilon": 0.857, "k": 2.21, "gamma": 0.715},
            source="arXiv 2403.08540, 17 tasks, models trained on RedPajama; quoted, not checked",
        ),
        "refinedweb": Published(
            parameters={"epsilon": 0.865, "k": 2.21, "gamma": 0.707},
            source="arXiv 2403.08540, 17 tasks, models trained on RefinedWeb; quoted, not checked",
        ),
    }

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        loss = self.column("loss") + np.zeros(np.broadcast_shapes(n.shape, d.shape, r.shape))
        return {"epsilon": np.ones_like(loss), "k": -np.exp(-theta.gamma * loss)}

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        loss = self.column("loss")
        return {("k", "gamma"): loss * np.exp(-theta.gamma * loss)}
