"""Hu et al. 2023: success rates far below one success per try, measured by sampling until success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import Parameter, ScalingLaw, Theta


class PassUntil(ScalingLaw):
    """PU(N) = exp(-c (N / 1e9)^-alpha): the chance that one try succeeds, from the model size.

    It follows from a loss that is a power of N when a success is a fixed number of tokens all of which must be right.
    On axes log(-log PU) against log N it is a straight line; tasks that bend downwards from it gain faster than
    the law ("accelerated emergence"). Limits: N -> inf gives 1, N -> 0 gives 0. Guessing must not succeed.

    References
    ----------
    Hu et al. 2023, arXiv 2310.03262, section 5 (task scaling law, PU ~ exp(-c N^-alpha)). c is stated per 1e9 here.

    Examples
    --------
    >>> PassUntil().loss([1e8, 1e9, 1e10], 1, 0, {"c": 4.0, "alpha": 0.25}).round(5).tolist()
    [0.00081, 0.01832, 0.10547]
    """

    link: ClassVar[str] = "identity"
    name = "pass_until"
    formula = "exp(-c (N / 1e9)^-alpha)"
    reference = "Hu et al. 2023, arXiv 2310.03262, sec. 5"
    variables = ("N",)
    parameters = (
        Parameter("c", 1e-4, 1e4, log=True, start=(1e-1, 3e1), description="-log success rate at N = 1e9"),
        Parameter("alpha", 0.005, 3.0, log=True, start=(0.03, 1.0), description="exponent of the model size"),
    )

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        return np.exp(-theta.c * np.exp(-theta.alpha * np.log(n / 1e9)))


@dataclass(frozen=True, kw_only=True, slots=True)
class SuccessRate:
    """What sampling until r successes says of the chance of one try: maximum likelihood, unbiased, exact interval."""

    rate: np.ndarray
    unbiased: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def success_rate(tries: ArrayLike, successes: ArrayLike = 1, *, confidence_level: float = 0.95) -> SuccessRate:
    """Estimate the chance of success from sampling until a set number of successes was seen.

    Unlike a fixed number of tries, it resolves any rate above 0: the tries go on until the successes are there. The
    relative error depends on the successes only, about 1 / sqrt(successes).

    Parameters
    ----------
    tries : array-like of int
        Tries until the last of the successes, that one included.
    successes : array-like of int
        The number r that was waited for.
    confidence_level : float
        Of the exact interval, from the binomial tail that the negative binomial shares.

    Returns
    -------
    SuccessRate
        ``rate`` = r / K (maximum likelihood), ``unbiased`` = (r - 1) / (K - 1) (nan for r = 1), ``lower``, ``upper``.

    References
    ----------
    Hu et al. 2023, arXiv 2310.03262, section 4 (r / K); Haldane 1945, Biometrika 33(3) (the unbiased estimate).

    Examples
    --------
    >>> found = success_rate(40_000, 2)
    >>> float(found.rate), float(found.unbiased.round(8))
    (5e-05, 2.5e-05)
    """
    from scipy.special import betaincinv

    k, r = np.asarray(tries, dtype=np.float64), np.asarray(successes, dtype=np.float64)
    problems = []
    if (r < 1).any() or (r != np.floor(r)).any():
        problems.append("successes must be whole numbers of at least 1")
    if (k < r).any() or (k != np.floor(k)).any():
        problems.append("tries must be whole numbers, at least as many as successes")
    if not 0 < confidence_level < 1:
        problems.append(f"confidence_level = {confidence_level!r} must be between 0 and 1")
    if problems:
        raise ConfigError("success_rate: " + "; ".join(problems))
    tail = 0.5 * (1.0 - confidence_level)
    # P(K <= k) = P(Binomial(k, p) >= r) = I_p(r, k - r + 1);  P(K >= k) = P(Binomial(k-1, p) <= r-1) = 1 - I_p(r, k-r)
    lower = betaincinv(r, k - r + 1.0, tail)
    upper = np.where(k > r, betaincinv(r, np.maximum(k - r, 1e-300), 1.0 - tail), 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        unbiased = np.where(r > 1, (r - 1.0) / (k - 1.0), np.nan)
    return SuccessRate(rate=r / k, unbiased=unbiased, lower=lower, upper=upper)
