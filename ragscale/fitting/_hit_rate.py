"""A fitted law with h(R) put in: a function of N, D and R alone, one curve for each replicate."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragscale._typing import HitRateLike
from ragscale.errors import ConfigError
from ragscale.fitting._conditions import as_hit_rate, reads_evidence
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.results import HitRateCurve, HitRateDraws


def law_for_decisions(fit_or_bootstrap: Any, hit_rate: HitRateLike = None) -> ScalingLaw:
    """Return the law of a fit with h(R) in place of the column ``hit_rate``, so that N, D and R are all it reads.

    For a bootstrap the column has one curve for each row of parameters, (S + 1, 1): the curve itself for the point
    estimate, then a drawn one for each replicate. `ScalingLaw.take` picks rows, as indexing picks parameters.

    Parameters
    ----------
    fit_or_bootstrap : ManifoldFit or Bootstrap
    hit_rate : HitRateCurve, callable, table, mapping or number, optional
        Instead of the curve that the fit carries.

    Raises
    ------
    ConfigError
        When the law reads ``hit_rate`` and neither the fit nor the caller has a curve, or it reads other columns.
    """
    fit = getattr(fit_or_bootstrap, "fit", fit_or_bootstrap)
    law = fit.law
    others = [name for name in law.further_columns if name != "hit_rate"]
    if others:
        raise ConfigError(
            f"the law {law.name!r} also reads {', '.join(others)}: put values in with law.at({others[0]}=...) and "
            "decide with (law, parameters)"
        )
    if not reads_evidence(law) or "_further" in law.__dict__:
        return law
    curve = fit.hit_rate if hit_rate is None else as_hit_rate(hit_rate)
    if curve is None:
        raise ConfigError(
            f"the law {law.name!r} needs h(R), how often a store of R tokens shows the answer, and the table does not "
            "measure it: give hit_rate=, a curve of rs.results.hit_rate_curve, a function of R, or rates by store"
        )
    if not callable(curve):
        raise ConfigError(
            f"hit_rate = {curve!r:.60} is the same for every store, so no store would ever be too small: give a "
            "function of R, such as a curve of rs.results.hit_rate_curve"
        )
    if fit is fit_or_bootstrap:
        return law.at(hit_rate=curve)
    return law.at(hit_rate=_with_replicates(fit_or_bootstrap, curve, own=hit_rate is None))


def _with_replicates(boot: Any, curve: Any, *, own: bool) -> Any:
    """Return one curve for the point estimate and each replicate; a plain function is the same for all."""
    if not isinstance(curve, HitRateCurve):
        return curve
    draws = boot.hit_rate if own and boot.hit_rate is not None else curve.draws(boot.n_resamples, 0)
    return draws.with_first(curve)


def drawn(fit: Any, n: int, generator: np.random.Generator) -> HitRateDraws | None:
    """Draw a curve for each of ``n`` replicates of a fit, None where the fit has nothing to draw from."""
    if not reads_evidence(fit.law) or not isinstance(fit.hit_rate, HitRateCurve):
        return None
    return fit.hit_rate.draws(n, generator)
