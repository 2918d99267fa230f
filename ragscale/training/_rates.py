"""Peak learning rate and batch by size and tokens: the rule that is used, and those that it was compared with.

N below counts the blocks alone (`ModelConfig.n_core`, without embedding and head) where a rule was fitted to that, and
core + head where it was not. Batches are in tokens. ``benchmarks/learning_rate.py`` compares the rules on public runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ragscale.training._model import ModelConfig

# no run that was looked at did better above it
CEILING = 0.04


def step_law(n_core: float, tokens: float) -> tuple[float, float]:
    """Return (peak rate, batch in tokens): 1.79 N^-0.713 D^0.307 and 0.58 D^0.571.

    References
    ----------
    Li et al. 2025, arXiv 2503.04715, equation 1.

    Examples
    --------
    >>> rate, batch = step_law(1e9, 100e9)
    >>> round(rate, 5), round(batch / 1e6, 2)
    (0.00163, 1.11)
    """
    return 1.79 * n_core**-0.713 * tokens**0.307, 0.58 * tokens**0.571


def olmo_ladder(n_params: float, tokens: float = 0.0) -> tuple[float, float]:
    """Return half of 0.0047 (N / 108M)^(-1/3), and 160 (N / 108M)^(2/3) rows of 2,048 tokens; D plays no part.

    References
    ----------
    allenai/OLMo ``scripts/ladder.py`` (after Porian et al. 2024, arXiv 2406.19146); OLMo-core halves the rate for WSD.
    """
    return 0.00235 * (n_params / 108e6) ** (-1 / 3), 160 * 2048 * (n_params / 108e6) ** (2 / 3)


def deepseek(n_core: float, tokens: float) -> tuple[float, float]:
    """Return 0.3118 C^-0.125 and 0.292 C^0.3271 with C = 6 N D.

    References
    ----------
    DeepSeek-AI 2024, arXiv 2401.02954, equation 1 (there C counts attention as well).
    """
    flops = 6 * n_core * tokens
    return 0.3118 * flops**-0.125, 0.292 * flops**0.3271


def default_batch_tokens(tokens: Sequence[int], seq_len: int) -> int:
    """Return the Step Law's batch for the geometric mean of the values of D, as a multiple of ``seq_len``.

    At most what makes 200 steps of the shortest D.
    """
    _, batch = step_law(1.0, _middle(tokens))
    most = max(1, min(tokens) // 200 // seq_len)
    return min(most, max(1, round(batch / seq_len))) * seq_len


def default_learning_rate(model: ModelConfig, tokens: Sequence[int], batch_tokens: int) -> float:
    """Return the Step Law's rate for the geometric mean of the values of D, less for smaller batches.

    Below the law's batch B* the rate falls with the square root of B / B*; above it stays, because raising it is what
    makes large batches diverge. One trunk serves every D, so there is one rate.
    """
    middle = _middle(tokens)
    rate, batch = step_law(model.n_core, middle)
    return min(CEILING, rate * math.sqrt(min(1.0, batch_tokens / batch)))


def _middle(tokens: Sequence[int]) -> float:
    return math.exp(sum(math.log(value) for value in tokens) / len(tokens))
