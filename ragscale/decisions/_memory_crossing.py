"""Which facts belong in the store: those that training showed too seldom to be known by heart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ragscale.decisions._arguments import counts, refuse
from ragscale.decisions._estimate import Estimate, estimate
from ragscale.errors import ConfigError, FitError
from ragscale.fitting.laws._memory import MemoryByFrequency

if TYPE_CHECKING:
    from ragscale.fitting import Bootstrap, ManifoldFit


_NODES = 801
_BEYOND = 1e4  # how far outside of the exposures measured a crossing is looked for


def memory_crossing(fit: ManifoldFit | Bootstrap, *, N: ArrayLike, D: ArrayLike, R: ArrayLike) -> Estimate:
    r"""Return the exposures of a fact below which a store of R tokens gains more than the model's own memory has.

    Memory gains :math:`G m(N, e)` over a guess, the store :math:`L(N, D, 0) - L(N, D, R)` over the closed book. Facts
    that the D training tokens state fewer than :math:`e^*` times (a frequency of :math:`e^* / D` a token) are worth
    more in the store than in the model. Where the store is ahead for middling facts only, :math:`e^*` is the upper end.

    Parameters
    ----------
    fit : ManifoldFit or Bootstrap
        Of the law ``memory_by_frequency``, to a table with and without a store.
    N, D, R : array-like
        Parameters, training tokens, store tokens; broadcast.

    Returns
    -------
    Estimate
        Exposures; ``note`` names what could not be determined, which is NaN: a crossing outside of the exposures that
        were measured (there the law alone would speak), or none. In the intervals 0 stands for "memory is ahead
        everywhere", infinity for "the store is".

    Raises
    ------
    ConfigError
        When the fit is of another law, or a count is wrong.
    FitError
        When the fit has no rows with a store, and so says nothing about it.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from ragscale.fitting import fit_manifold, laws
    >>> theta = {"E": 0.1, "G": 2.5, "half": 30, "nu": 0.8, "k": 1.5, "kappa": 1, "P": 2.3, "M": 0.4}
    >>> n, r, e = (x.ravel() for x in np.meshgrid([1e5, 1e6, 1e7], [0, 1e6, 1e7], np.geomspace(1, 1000, 7)))
    >>> table = pd.DataFrame({"N": n, "D": 1e7, "R": r, "exposures": e})
    >>> law = laws.MemoryByFrequency(N_ref=1e6)
    >>> table["value"] = law.loss(n, 1e7, r, theta, exposures=e)
    >>> memory_crossing(fit_manifold(table, law), N=[1e5, 1e6, 1e7], D=1e7, R=1e7).value.round(1).tolist()
    [179.1, 28.4, 4.5]
    """
    given_fit: Any = fit
    point: Any = getattr(fit, "fit", fit)
    law = getattr(point, "law", None)
    if not isinstance(law, MemoryByFrequency):
        raise ConfigError(
            "memory_crossing needs the fit of MemoryByFrequency: fit_manifold(results, 'memory_by_frequency') on a "
            f"table with the column exposures; got {getattr(law, 'name', type(fit).__name__)!r}"
        )
    problems: list[str] = []
    given = counts(problems, N=N, D=D, R=R)
    refuse(problems, "memory_crossing")
    if not (point.data["R"] > 0).any():
        raise FitError("memory_crossing: no row of the fit has a store (R > 0), so nothing tells what a store gains")
    n, d, r = np.broadcast_arrays(*(np.asarray(given[name], dtype=np.float64) for name in ("N", "D", "R")))
    theta = {name: np.full((1, 1), float(value)) for name, value in point.theta.items()}
    if point is not fit:
        drawn = {name: np.ravel(np.broadcast_to(value, (given_fit.n_resamples,))) for name, value in fit.theta.items()}
        theta = {
            k: np.vstack([v, drawn[k][:, None] if k in drawn else np.repeat(v, len(drawn[next(iter(drawn))]), 0)])
            for k, v in theta.items()
        }
    seen = point.data["exposures"].to_numpy(float)
    low, high = seen[seen > 0].min(), seen.max()
    stacked = np.stack(
        [_crossing(law, theta, at, (low, high)) for at in zip(n.ravel(), d.ravel(), r.ravel(), strict=True)], axis=1
    )
    outside = ~((stacked[0] >= low) & (stacked[0] <= high))
    found = stacked.copy()
    found[0, outside] = np.nan
    lines = []
    for i in np.flatnonzero(outside):
        where = "memory is ahead" if stacked[0, i] < low else "the store is ahead"
        lines.append(
            f"at N = {n.ravel()[i]:.3g}, D = {d.ravel()[i]:.3g}, R = {r.ravel()[i]:.3g} {where} at all "
            f"{low:.3g} to {high:.3g} exposures measured: no crossing is determined"
        )
    shaped = found.reshape(len(found), *n.shape)
    level = float(getattr(fit, "confidence_level", 0.95))
    return estimate("exposures", shaped, {"N": n, "D": d, "R": r}, level=level, note="; ".join(lines))


def _crossing(
    law: MemoryByFrequency, theta: Any, at: tuple[float, float, float], seen: tuple[float, float]
) -> np.ndarray:
    """Return e* of each parameter set, (S,): 0 where memory is always ahead, infinity where the store is."""
    n, d, r = at
    e = np.geomspace(seen[0] / _BEYOND, seen[1] * _BEYOND, _NODES)
    m, h = law.known(theta, n, e), law.shown(theta, d, r, e)
    ahead = theta["P"] * (1.0 - m) * h - theta["M"] * (1.0 - h) - theta["G"] * m  # (S, nodes)
    found = np.zeros(len(ahead))
    for i, row in enumerate(ahead):
        wins = np.flatnonzero(row > 0)
        if wins.size and wins[-1] == len(e) - 1:
            found[i] = np.inf
        elif wins.size:
            j = wins[-1]
            share = row[j] / (row[j] - row[j + 1])
            found[i] = np.exp(np.log(e[j]) + share * (np.log(e[j + 1]) - np.log(e[j])))
    return found
