"""The same least-squares problem as lmfit knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale.fitting.laws._law import Theta

if TYPE_CHECKING:
    from ragscale.fitting._result import ManifoldFit


def to_lmfit(fit: ManifoldFit) -> tuple[Any, Any]:
    """Return (lmfit.Minimizer, lmfit.Parameters) for least squares in ``fit.space``, starting at the fit."""
    import lmfit

    problem = fit.problem
    names = [p.name for p in fit.law.parameters]
    parameters = lmfit.Parameters()
    signed = {p.name for p, s in zip(problem.coefficients, problem.signed, strict=True) if s}
    for parameter in fit.law.parameters:
        low, high = parameter.bounds(problem.typical)
        name = parameter.name
        parameters.add(
            name,
            value=fit.theta[name],
            min=-np.inf if name in signed else low,
            max=high,
            vary=name not in fit.law.fixed,
            expr=fit.law.tied.get(name),
        )
    for parameter in fit.link.parameters:
        parameters.add(parameter.name, getattr(fit.link, parameter.name), min=parameter.lower, max=parameter.upper)
    table = problem.table
    root = np.sqrt(table.weight)

    def residual(values: Any) -> np.ndarray:
        law = fit.law.at(**table.further) if table.further else fit.law
        theta = Theta({name: float(values[name].value) for name in names})
        latent = law._loss(table.n, table.d, table.r, theta)
        if law.offset:
            latent = latent + theta.offset * (table.r > 0)
        extra = {p.name: float(values[p.name].value) for p in fit.link.parameters}
        metric = fit.link.metric(np.asarray(latent), extra)
        if fit.space == "log":
            return root * (np.log(np.maximum(metric, 1e-300)) - np.log(table.y))
        return root * (metric - table.y)

    return lmfit.Minimizer(residual, parameters), parameters
