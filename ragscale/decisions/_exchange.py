"""What one more store token is worth, in pretraining tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ragscale._typing import HitRateLike
from ragscale.decisions._arguments import counts, flatten, refuse
from ragscale.decisions._estimate import Estimate, estimate
from ragscale.decisions._surface import Subject, Surface, surface


def exchange_rate(
    fit_or_bootstrap: Subject, *, N: ArrayLike, D: ArrayLike, R: ArrayLike, hit_rate: HitRateLike = None
) -> Estimate:
    r"""Return how many pretraining tokens one more store token replaces at (N, D, R).

    .. math:: \rho(N, D, R) = \frac{\partial L / \partial R}{\partial L / \partial D}
              = -\left.\frac{\mathrm{d} D}{\mathrm{d} R}\right|_L

    the marginal rate of substitution, in closed form for the built-in laws: the denominator is
    :math:`-B \beta D^{-\beta-1}`, the numerator :math:`-C\eta/(1+\eta R)` (log1p),
    :math:`-(C\gamma/R_0)(1+R/R_0)^{-\gamma-1}` (power), :math:`-C n K^n R^{n-1}/(R^n+K^n)^2` (hill); for effective_data
    the rate is eta. It does not depend on the link. At an interior optimum of a budget it equals the ratio of prices,
    p_R / p_D. The paper's sigma is an average of it over the whole store, measured with noise; see `substitution`.

    Parameters
    ----------
    fit_or_bootstrap : ManifoldFit, Bootstrap, or (law, parameters)
    N, D, R : array-like
        Counts that broadcast; N, D > 0 and R >= 0. At R = 0 it is the worth of the first store token.
    hit_rate : HitRateCurve, callable of R, number or table, optional
        h(R), for laws that read it; by default the curve that the fit carries.

    Returns
    -------
    Estimate
        Array-like; with ``low, high, replicates`` from a bootstrap. Negative where more retrieval hurts, infinite where
        more pretraining does nothing, NaN where neither does anything.

    Raises
    ------
    ConfigError
        When N, D, R are no counts or do not broadcast.

    Examples
    --------
    >>> import ragscale as rs
    >>> law = {"E": 1.7, "A": 400, "alpha": 0.34, "B": 400, "beta": 0.28, "eta": 0.3}
    >>> round(float(rs.exchange_rate(("effective_data", law), N=1e9, D=2e10, R=1e9)), 12)
    0.3

    References
    ----------
    The closed forms: derivatives of arXiv 2604.00715, equation 2 and its power and Hill forms.
    """
    found = surface(fit_or_bootstrap, hit_rate=hit_rate)
    found.require("D", "R", N=N)
    problems: list[str] = []
    given = counts(problems, allow_zero=("R",), N=N, D=D, R=R)
    refuse(problems, "exchange_rate")
    flat, shape = flatten(given)
    n, d, r = flat["N"], flat["D"], flat["R"]
    found.warn_beyond_data("exchange_rate", N=n, D=d, R=r)

    def decide(part: Surface) -> dict[str, np.ndarray]:
        _, slope_d, slope_r = part.law.gradient(n, d, r, part.stacked())
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"rate": slope_r / slope_d + 0.0}  # no negative zero

    pooled = found.pooled(decide)
    at = {name: np.broadcast_to(given[name], shape) for name in ("N", "D", "R")}
    rate = pooled.stacked["rate"].reshape(-1, *shape)
    return estimate("exchange_rate", rate, at, level=found.confidence_level, laws=pooled.by_law("rate", shape))
