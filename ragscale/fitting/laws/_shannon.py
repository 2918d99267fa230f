"""Ouyang et al. 2026: a model as a noisy channel; noise that grows with size and tokens turns the loss up again."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragscale.fitting.laws._law import Parameter, ScalingLaw, Theta


class Shannon(ScalingLaw):
    """L = 1 / (a n^alpha log2(1 + b t^beta / (c (n t)^gamma + d t^delta + 1))), n = N / 1e9, t = D / 1e9.

    One over the Shannon-Hartley capacity: bandwidth a n^alpha, signal b t^beta, and noise from the interaction of model
    and data, from the data, and a constant. While the signal outgrows the noise the loss falls; where noise grows
    faster (gamma or delta above beta) it reaches a basin and rises again, as after fine-tuning or quantisation of
    over-trained models. Limits: c = d = 0 and large t give a loss that falls for ever like 1 / log t.

    The paper has a ninth parameter e, the constant noise; only ratios to b, c and d enter, so e = 1 here. With few
    noisy rows the two growing noises are not told apart.

    References
    ----------
    Ouyang et al. 2026, arXiv 2605.23901 (the capacity and L = 1 / C_LLM; read in two independent summaries, the
    number of the equation and the fitted values not seen).

    Examples
    --------
    A basin: the loss of a small model falls, then rises with more tokens.

    >>> theta = {"a": 0.1, "alpha": 0.1, "b": 20, "beta": 0.6, "c": 1e-9, "gamma": 1, "d": 1e-3, "delta": 1.2}
    >>> losses = Shannon().loss(1e9, [1e9, 1e11, 1e13], 0, theta)
    >>> bool(losses[0] > losses[1] < losses[2])
    True
    """

    name = "shannon"
    formula = "1 / (a n^alpha log2(1 + b t^beta / (c (n t)^gamma + d t^delta + 1))), n = N / 1e9, t = D / 1e9"
    reference = "Ouyang et al. 2026, arXiv 2605.23901"
    variables = ("N", "D")
    parameters = (
        Parameter("a", 1e-6, 1e3, log=True, start=(1e-2, 0.3), description="bandwidth at N = 1e9"),
        Parameter("alpha", 0.001, 2.0, log=True, start=(0.01, 0.4), description="how bandwidth grows with N"),
        Parameter("b", 1e-4, 1e12, log=True, start=(1e-1, 1e3), description="signal at D = 1e9, noise being 1"),
        Parameter("beta", 0.01, 4.0, log=True, start=(0.1, 1.5), description="how the signal grows with D"),
        Parameter("c", 1e-12, 1e6, log=True, start=(1e-6, 1e0), description="noise of model and data at 1e9, 1e9"),
        Parameter("gamma", 0.01, 4.0, log=True, start=(0.1, 1.5), description="how it grows with N D"),
        Parameter("d", 1e-12, 1e6, log=True, start=(1e-6, 1e0), description="noise of the data at D = 1e9"),
        Parameter("delta", 0.01, 4.0, log=True, start=(0.1, 1.5), description="how it grows with D"),
    )

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        log_n, log_t = np.log(n / 1e9), np.log(d / 1e9)
        noise = np.logaddexp(
            np.logaddexp(np.log(theta.c) + theta.gamma * (log_n + log_t), np.log(theta.d) + theta.delta * log_t), 0.0
        )
        capacity = np.logaddexp(0.0, np.log(theta.b) + theta.beta * log_t - noise) / np.log(2.0)
        return np.exp(-np.log(theta.a) - theta.alpha * log_n - np.log(np.maximum(capacity, 1e-300)))
