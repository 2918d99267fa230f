"""Bhagia et al. 2024 (the OLMo ladder): task loss from N and D, then accuracy from task loss through a sigmoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale.errors import ResultsError
from ragscale.fitting.laws._law import Parameter, ScalingLaw, SeparableLaw, Theta

if TYPE_CHECKING:
    from ragscale.fitting import ManifoldFit
    from ragscale.fitting._options import StageOptions


class LossToAccuracy(SeparableLaw):
    """Acc(L) = ceiling + (floor - ceiling) / (1 + exp(-k (L - L0))): the second stage, from task loss to accuracy.

    ``variables`` is ("loss",): the results need a column ``loss``, usually bits per byte of the right answer. Limits:
    L -> 0 nears the ceiling, L -> inf is the floor (guessing); half-way at L0.

    References
    ----------
    Bhagia et al. 2024, arXiv 2412.04403, equation 2: a / (1 + exp(-k (L - L0))) + b with b = ceiling,
    a = floor - ceiling.

    Examples
    --------
    >>> theta = {"floor": 0.25, "ceiling": 0.95, "k": 4.0, "L0": 0.8}
    >>> LossToAccuracy().loss(1, 1, 0, theta, loss=[0.4, 0.8, 2.0]).round(3).tolist()
    [0.832, 0.6, 0.256]
    """

    link: ClassVar[str] = "identity"
    name = "loss_to_accuracy"
    formula = "ceiling + (floor - ceiling) / (1 + exp(-k (loss - L0)))"
    reference = "Bhagia et al. 2024, arXiv 2412.04403, eq. 2"
    variables = ("loss",)
    parameters = (
        Parameter("floor", 0.0, description="accuracy of guessing"),
        Parameter("ceiling", 0.0, description="accuracy at loss 0"),
        Parameter("k", 0.1, 50.0, log=True, start=(0.5, 12.0), description="steepness"),
        Parameter("L0", 0.0, 10.0, start=(0.3, 3.0), description="loss half-way"),
    )

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        loss = self.column("loss") + np.zeros(np.broadcast_shapes(n.shape, d.shape, r.shape))
        high = 0.5 * (1.0 + np.tanh(0.5 * theta.k * (loss - theta.L0)))
        return {"floor": high, "ceiling": 1.0 - high}

    def _column_slopes(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[tuple[str, str], Any]:
        loss = self.column("loss")
        high = 0.5 * (1.0 + np.tanh(0.5 * theta.k * (loss - theta.L0)))
        bend = high * (1.0 - high)
        by_k, by_l0 = bend * (loss - theta.L0), -bend * theta.k
        return {
            ("floor", "k"): by_k,
            ("ceiling", "k"): -by_k,
            ("floor", "L0"): by_l0,
            ("ceiling", "L0"): -by_l0,
        }


class SingleStep(ScalingLaw):
    """Both stages at once: Acc = ceiling + (floor - ceiling) / (1 + exp(-x)), x = A n^-alpha + B t^-beta + e.

    n = N / 1e9, t = D / 1e9. No task loss is needed; scale and shift of the sigmoid are absorbed in A, B and e.

    References
    ----------
    Bhagia et al. 2024, arXiv 2412.04403 (the single-step ablation).
    """

    link: ClassVar[str] = "identity"
    name = "single_step"
    formula = "ceiling + (floor - ceiling) / (1 + exp(-(A n^-alpha + B t^-beta + e))), n = N / 1e9, t = D / 1e9"
    reference = "Bhagia et al. 2024, arXiv 2412.04403, single-step ablation"
    variables = ("N", "D")
    parameters = (
        Parameter("floor", 0.0, 1.0, start=(0.0, 0.4), description="accuracy of guessing"),
        Parameter("ceiling", 0.0, 1.0, start=(0.6, 1.0), description="accuracy in the limit of the sigmoid"),
        Parameter("A", 1e-6, 1e3, log=True, start=(1e-2, 5.0), description="coefficient of the model size"),
        Parameter("alpha", 0.01, 2.0, log=True, start=(0.05, 1.0), description="exponent of the model size"),
        Parameter("B", 1e-6, 1e3, log=True, start=(1e-2, 5.0), description="coefficient of the tokens"),
        Parameter("beta", 0.01, 2.0, log=True, start=(0.05, 1.0), description="exponent of the tokens"),
        Parameter("e", -20.0, 10.0, start=(-5.0, 1.0), description="limit of the latent loss"),
    )

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        latent = (
            theta.A * np.exp(-theta.alpha * np.log(n / 1e9)) + theta.B * np.exp(-theta.beta * np.log(d / 1e9)) + theta.e
        )
        high = 0.5 * (1.0 + np.tanh(0.5 * latent))
        return theta.ceiling + (theta.floor - theta.ceiling) * high


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoStageFit:
    """Task loss from N and D (``loss``), then accuracy from task loss (``accuracy``), each a `ManifoldFit`."""

    loss: ManifoldFit
    accuracy: ManifoldFit

    def predict(self, N: ArrayLike, D: ArrayLike) -> np.ndarray:
        """Return the accuracy that the two stages predict."""
        task_loss = np.asarray(self.loss.predict(N, D, np.zeros(np.broadcast(np.asarray(N), np.asarray(D)).shape)))
        law = self.accuracy.law
        return law.loss(np.ones_like(task_loss), 1.0, 0.0, self.accuracy.theta, loss=np.maximum(task_loss, 0.0))


def fit_two_stage(
    results: pd.DataFrame, *, loss: str = "loss", accuracy: str = "value", **options: Unpack[StageOptions]
) -> TwoStageFit:
    """Fit task loss to (N, D) and accuracy to task loss, apart, as the OLMo ladder does.

    Parameters
    ----------
    results : DataFrame
        One row per model with ``N``, ``D``, the task loss and the accuracy.
    loss, accuracy : str
        The columns with the task loss and the accuracy.
    **options
        Passed on to `fit_manifold` in both stages.

    References
    ----------
    Bhagia et al. 2024, arXiv 2412.04403, equations 1 and 2.
    """
    from ragscale.fitting import fit_manifold

    missing = [name for name in ("N", "D", loss, accuracy) if name not in results]
    if missing:
        raise ResultsError(f"fit_two_stage needs the columns {', '.join(missing)}; the table has {list(results)}")
    run = results["run"] if "run" in results else np.arange(len(results))
    plain = results[["N", "D"]].astype(float).assign(R=0.0, run=run)
    first = fit_manifold(plain.assign(value=results[loss].astype(float)), law="chinchilla", link="identity", **options)
    second = fit_manifold(
        plain.assign(value=results[accuracy].astype(float), loss=results[loss].astype(float)),
        law=LossToAccuracy(),
        link="identity",
        **options,
    )
    return TwoStageFit(loss=first, accuracy=second)
