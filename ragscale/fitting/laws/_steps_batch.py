"""Steps and batch: the same tokens in fewer, larger steps are worth less. Kaplan's critical batch, and three powers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import Parameter, ScalingLaw, SeparableLaw, Theta
from ragscale.fitting.laws._published import Published

_SIZE, _STEPS, _BATCH, _LOSS = 1e9, 1e4, 1e6, 3.0
"""Where the parameters are stated: N, optimizer steps, tokens a step, nats."""


class StepsAndBatch(ScalingLaw):
    """L = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S, S_min = S / (1 + B_crit / B), B_crit = B_* L^(-1 / alpha_B).

    S = D / B steps of B tokens each. A batch far above the critical one averages noise that is averaged enough, so S
    steps count in full and tokens are wasted; far below it tokens count in full, S_min = D / B_crit, and steps are
    wasted. The critical batch grows as the loss falls, and depends on the very loss that the law gives: the equation
    in L has one solution, which is found by Newton's method.

    ``variables`` are N, D and the column ``batch_tokens``, which training writes; a table with steps has D = steps
    times batch_tokens. At one D a smaller batch never hurts under this law: what small batches cost in practice
    (momentum and learning rate tuned for larger ones) it does not know, `StepsBatchPowers` does.

    Scales lie far from any table, so the parameters are L_N, what N = 1e9 costs, L_S, what S_min = 1e4 costs, and B_3,
    the critical batch in tokens at a loss of 3. `steps_parameters` and `steps_published` convert. Limits: B -> inf
    gives Kaplan's law of steps; B -> 0 a law of N and D. No irreducible loss.

    References
    ----------
    Kaplan et al. 2020, arXiv 2001.08361, equations 1.4, 1.6 and 5.4; the same form over 33B parameters: Su et al. 2024,
    arXiv 2403.06563.

    Examples
    --------
    Ten billion tokens in steps of ever more of them:

    >>> law, published = StepsAndBatch(), StepsAndBatch.published["kaplan"].parameters
    >>> law.loss(1e9, 1e10, 0, published, batch_tokens=[1e4, 1e5, 1e6, 1e7]).round(3).tolist()
    [2.786, 2.798, 2.919, 4.137]
    """

    name = "steps_and_batch"
    formula = "(N_c / N)^alpha_N + (S_c (1 + B_* L^(-1 / alpha_B) / B) / S)^alpha_S, S = D / B, B = batch_tokens"
    reference = "Kaplan et al. 2020, arXiv 2001.08361, eq. 1.6"
    variables = ("N", "D", "batch_tokens")
    parameters = (
        Parameter("L_N", 1e-4, 1e3, log=True, start=(0.3, 6.0), description="loss of N = 1e9 after endless steps"),
        Parameter("alpha_N", 0.005, 2.0, log=True, start=(0.03, 0.5), description="exponent of the model size"),
        Parameter("L_S", 1e-6, 1e3, log=True, start=(0.03, 3.0), description="what S_min = 1e4 steps cost"),
        Parameter("alpha_S", 0.01, 3.0, log=True, start=(0.1, 1.2), description="exponent of the steps"),
        Parameter("B_3", 1.0, 1e12, log=True, start=(1e4, 1e7), description="critical batch in tokens at loss 3"),
        Parameter("alpha_B", 0.02, 5.0, log=True, start=(0.08, 1.0), description="B_crit grows as L^(-1 / alpha_B)"),
    )
    published: ClassVar[Mapping[str, Published]]

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        batch = self.column("batch_tokens")
        rest = np.exp(np.log(theta.L_N) - theta.alpha_N * np.log(n / _SIZE))
        log_steps = np.log(theta.L_S) - theta.alpha_S * np.log(d / batch / _STEPS)
        log_shortage, power = np.minimum(log_steps, 600.0), 1.0 / theta.alpha_B
        shortage = np.exp(log_shortage)
        log_ratio = np.log(theta.B_3) - np.log(batch) + power * np.log(_LOSS)  # of B_crit / B at L = 1
        # L - rest - shortage (1 + B_crit(L) / B)^alpha_S rises and is concave in L: from below Newton never overshoots
        loss = rest + shortage
        for _ in range(60):
            ratio = np.exp(np.clip(log_ratio - power * np.log(loss), -700.0, 700.0))
            extra = np.exp(np.minimum(log_shortage + theta.alpha_S * np.log1p(ratio), 600.0))
            slope = 1.0 + theta.alpha_S * power * extra * ratio / (1.0 + ratio) / loss
            step = (rest + extra - loss) / slope
            loss = loss + step
            if np.all(np.abs(step) <= 1e-15 * loss):
                break
        return loss


def steps_parameters(
    *, N_c: float, alpha_N: float, S_c: float, alpha_S: float, B_: float, alpha_B: float
) -> dict[str, float]:
    """Return the parameters of `StepsAndBatch` from Kaplan's: ``B_`` is B_* in tokens.

    Examples
    --------
    >>> paper = {"N_c": 6.5e13, "alpha_N": 0.077, "S_c": 2.1e3, "alpha_S": 0.76, "B_": 2.1e8, "alpha_B": 0.21}
    >>> round(steps_published(steps_parameters(**paper))["B_"] / 2.1e8, 9)
    1.0
    """
    return {
        "L_N": (N_c / _SIZE) ** alpha_N,
        "alpha_N": alpha_N,
        "L_S": (S_c / _STEPS) ** alpha_S,
        "alpha_S": alpha_S,
        "B_3": B_ * _LOSS ** (-1.0 / alpha_B),
        "alpha_B": alpha_B,
    }


def steps_published(parameters: Mapping[str, float]) -> dict[str, float]:
    """Return ``N_c``, ``alpha_N``, ``S_c``, ``alpha_S``, ``B_``, ``alpha_B`` of Kaplan from `StepsAndBatch`."""
    p = parameters
    return {
        "N_c": _SIZE * p["L_N"] ** (1.0 / p["alpha_N"]),
        "alpha_N": p["alpha_N"],
        "S_c": _STEPS * p["L_S"] ** (1.0 / p["alpha_S"]),
        "alpha_S": p["alpha_S"],
        "B_": p["B_3"] * _LOSS ** (1.0 / p["alpha_B"]),
        "alpha_B": p["alpha_B"],
    }


def critical_batch(parameters: Mapping[str, float], loss: ArrayLike) -> np.ndarray:
    """Return the critical batch in tokens at a loss, by the parameters of `StepsAndBatch`.

    At this batch training takes twice the fewest steps and twice the fewest tokens.

    Examples
    --------
    >>> [f"{float(b):.2g}" for b in critical_batch(StepsAndBatch.published["kaplan"].parameters, [4.0, 3.0, 2.0])]
    ['2.9e+05', '1.1e+06', '7.7e+06']
    """
    return parameters["B_3"] * (np.asarray(loss, dtype=np.float64) / _LOSS) ** (-1.0 / parameters["alpha_B"])


class StepsBatchPowers(SeparableLaw):
    """L = E + A (N / 1e9)^-alpha + S (s / 1e4)^-beta + G (b / 1e6)^-gamma, b = batch_tokens, s = D / b steps.

    One power for each: size, steps, and batch. At one D the loss has its least value at an inner batch, which grows as
    D^(beta / (beta + gamma)): more steps are given up for less noise (`best_batch`). Limits: gamma = beta with G, S in
    the right ratio is not Chinchilla; at the best batch of every D it is, with exponent beta gamma / (beta + gamma).

    References
    ----------
    Three terms, for size, steps and batch: Schaipp 2026, arXiv 2607.01487 (read in its abstract: the equation was not
    seen, and this sum of powers is the simplest law that has what the abstract says).

    Examples
    --------
    >>> theta = {"E": 1.7, "A": 0.4, "alpha": 0.3, "S": 0.3, "beta": 0.5, "G": 0.02, "gamma": 0.6}
    >>> StepsBatchPowers().loss(1e9, 1e10, 0, theta, batch_tokens=[1e4, 1e5, 1e6, 1e7]).round(3).tolist()
    [2.447, 2.275, 2.42, 3.054]
    >>> f"{float(best_batch(theta, 1e10)):.3g}"
    '1.01e+05'
    """

    name = "steps_batch_powers"
    formula = "E + A (N / 1e9)^-alpha + S (s / 1e4)^-beta + G (b / 1e6)^-gamma, b = batch_tokens, s = D / b"
    reference = "after Schaipp 2026, arXiv 2607.01487"
    variables = ("N", "D", "batch_tokens")
    parameters = (
        Parameter("E", 0.0, description="loss that no size, steps or batch remove"),
        Parameter("A", 0.0, description="what N = 1e9 costs"),
        Parameter("alpha", 0.01, 2.0, description="exponent of the model size"),
        Parameter("S", 0.0, description="what 1e4 steps cost"),
        Parameter("beta", 0.01, 2.0, description="exponent of the steps"),
        Parameter("G", 0.0, description="what a batch of 1e6 tokens costs"),
        Parameter("gamma", 0.01, 2.0, description="exponent of the batch"),
    )

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        batch = self.column("batch_tokens")
        return {
            "E": np.ones_like(n),
            "A": np.exp(-theta.alpha * np.log(n / _SIZE)),
            "S": np.exp(-theta.beta * np.log(d / batch / _STEPS)),
            "G": np.exp(-theta.gamma * np.log(batch / _BATCH)),
        }


def best_batch(parameters: Mapping[str, float], D: ArrayLike) -> np.ndarray:
    """Return the batch in tokens with the least loss of D tokens, by the parameters of `StepsBatchPowers`."""
    p, tokens = parameters, np.asarray(D, dtype=np.float64)
    missing = [name for name in ("S", "G") if not p[name] > 0]
    if missing:
        raise ConfigError(f"best_batch: {' and '.join(missing)} is 0, so no batch is best: its term does not fall")
    # S beta (b / b1)^beta = G gamma (b / b2)^-gamma, with b1 = D / 1e4 and b2 = 1e6
    logs = np.log(p["G"] * p["gamma"] / (p["S"] * p["beta"])) + p["beta"] * np.log(tokens / _STEPS)
    return np.exp((logs + p["gamma"] * np.log(_BATCH)) / (p["beta"] + p["gamma"]))


StepsAndBatch.published = {
    "kaplan": Published(
        parameters=steps_parameters(N_c=6.5e13, alpha_N=0.077, S_c=2.1e3, alpha_S=0.76, B_=2.1e8, alpha_B=0.21),
        source="arXiv 2001.08361, table 3 (N_c 6.5e13, alpha_N .077, S_c 2.1e3, alpha_S .76), B_* 2.1e8 tokens, .21",
    )
}
