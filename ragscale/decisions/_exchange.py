"""What one more store token is worth, in pretraining tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ragscale._typing import HitRateLike
from ragscale.decisions._arguments import counts, flatten, refuse
from ragscale.decisions._estimate import Estimate, estimate
from ragscale.decisions._surface import Subject, Surface, surface
from ragscale.errors import FitError

_NOTHING = 1e-10
_MOST_MISSING = 0.05


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
        more pretraining does nothing, NaN where neither does anything by a law with given parameters.

    Raises
    ------
    ConfigError
        When N, D, R are no counts or do not broadcast.
    FitError
        When no row of the fit has a store, or by the fit neither more pretraining nor more retrieval does anything.

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
    found.require_measured_store("exchange_rate")
    problems: list[str] = []
    given = counts(problems, allow_zero=("R",), N=N, D=D, R=R)
    refuse(problems, "exchange_rate")
    flat, shape = flatten(given)
    n, d, r = flat["N"], flat["D"], flat["R"]
    found.warn_beyond_data("exchange_rate", N=n, D=d, R=r)

    def decide(part: Surface) -> dict[str, np.ndarray]:
        theta = part.stacked()
        _, slope_d, slope_r = part.law.gradient(n, d, r, theta)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = slope_r / slope_d + 0.0  # no negative zero
            if found.source is not None:  # a quotient of two roundings is no rate
                size = _NOTHING * np.abs(part.law.loss(n, d, r, theta))
                rate = np.where((np.abs(d * slope_d) <= size) & (np.abs(d * slope_r) <= size), np.nan, rate)
        return {"rate": rate}

    pooled = found.pooled(decide)
    if found.source is not None:
        _refuse_undetermined(pooled.stacked["rate"])
    at = {name: np.broadcast_to(given[name], shape) for name in ("N", "D", "R")}
    rate = pooled.stacked["rate"].reshape(-1, *shape)
    laws = pooled.by_law("rate", shape)
    return estimate("exchange_rate", rate, at, level=found.confidence_level, laws=laws, note=found.doubt)


def _refuse_undetermined(rate: np.ndarray) -> None:
    """Raise where neither retrieval nor pretraining moves the fit, or too many of its replicates, (1 + S, M)."""
    missing = np.isnan(rate)
    if missing[0].any() or (len(rate) > 1 and missing[1:].mean(axis=0).max() > _MOST_MISSING):
        raise FitError(
            "exchange_rate: by this fit neither more pretraining nor more retrieval changes the prediction there, so "
            "what one is worth in the other is not determined: add runs with other D and stores"
        )
