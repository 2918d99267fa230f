"""Akaike's criterion for a robust objective, with trained models as sample size."""

from __future__ import annotations

import numpy as np
from scipy import special

from ragscale.fitting._experiments import clusters
from ragscale.fitting._own import peek
from ragscale.fitting._result import ManifoldFit


def aicc(fit: ManifoldFit) -> float:
    r"""Return Akaike's corrected criterion with trained models as sample size.

    The loss of the fit is taken as a negative log density with a free scale s, :math:`p(r) = e^{-\rho(r)/s} / Z(s)`,
    normalised exactly; the log likelihood of n rows is scaled to the C trained models that they come from, and the
    correction is 2 p C / (C - p - 1).

    References
    ----------
    Hurvich and Tsai 1989, Biometrika 76(2); Huber 1981, Robust Statistics, section 4.5 (the density).

    Examples
    --------
    >>> import ragscale as rs
    >>> table = rs.datasets.simulate("log1p", noise=0.01, rng=0)
    >>> right, wrong = (rs.fit_manifold(table, law) for law in ("log1p", "chinchilla"))
    >>> rs.fitting.aicc(right) < rs.fitting.aicc(wrong)
    True
    """
    count = int(clusters(peek(fit, "data")).max()) + 1
    p = len(fit.law.free) + len(fit.link.parameters) + 1
    if count - p - 1 <= 0:
        return float("inf")
    rows = len(peek(fit, "data"))
    return deviance(fit) * count / rows + 2.0 * p * count / (count - p - 1)


def deviance(fit: ManifoldFit) -> float:
    """Return -2 log likelihood of the rows under the density that belongs to the loss, at the best scale."""
    from scipy import optimize  # a quarter of a second, and a single fit needs it not

    rows, objective = len(peek(fit, "data")), max(fit.objective, 1e-300)
    delta = fit.loss.limit

    def of(log_scale: float) -> float:
        s = np.exp(log_scale)
        if np.isinf(delta):
            log_z = 0.5 * np.log(2.0 * np.pi * s)
        else:
            middle = np.sqrt(2.0 * np.pi * s) * special.erf(delta / np.sqrt(2.0 * s))
            log_z = np.log(middle + 2.0 * (s / delta) * np.exp(-(delta**2) / (2.0 * s)))
        return 2.0 * rows * log_z + 2.0 * objective / s

    guess = np.log(objective / rows)
    found = optimize.minimize_scalar(of, bounds=(guess - 12.0, guess + 12.0), method="bounded", options={"xatol": 1e-9})
    return float(found.fun)
