"""How large a store has to be for most of what retrieval can give."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ragscale._typing import HitRateLike
from ragscale.decisions._arguments import counts, flatten, refuse
from ragscale.decisions._estimate import Estimate, estimate
from ragscale.decisions._surface import Subject, Surface, answer, surface
from ragscale.fitting.laws._law import Theta

_NODES = 161
_BISECTIONS = 60


def critical_store(
    fit_or_bootstrap: Subject,
    *,
    N: ArrayLike,
    D: ArrayLike,
    fraction: ArrayLike = 0.9,
    max_R: ArrayLike | None = None,
    hit_rate: HitRateLike = None,
) -> Estimate:
    r"""Return the smallest store R that realises a fraction q of the attainable gain.

    The attainable gain is the largest :math:`L(N, D, 0) - L(N, D, R)` over R, without limit for laws whose gain
    saturates (power, hill, effective_data, and interaction or multiplicative of those shapes), else over R up to
    ``max_R``. In closed form :math:`K (q/(1-q))^{1/n}` (hill), :math:`R_0 ((1-q)^{-1/\gamma} - 1)` (power),
    :math:`((1+\eta R_{max})^q - 1)/\eta` (log1p).

    Parameters
    ----------
    fit_or_bootstrap : ManifoldFit, Bootstrap, or (law, parameters)
    N, D : array-like
        Counts.
    fraction : array-like
        q in (0, 1).
    max_R : array-like, optional
        The largest store considered. Needed where the gain grows without bound; a fit then takes the largest store of
        its data, and the ``note`` says so.

    Returns
    -------
    Estimate
        Tokens; 0 where no store helps (``note`` says it in words).

    Raises
    ------
    ConfigError
        Listing everything wrong with the arguments.
    FitError
        When no row of the fit has a store, or the answer is more than 1,000 times the largest one.

    Examples
    --------
    >>> import ragscale as rs
    >>> law = {"E": 1.7, "A": 406, "alpha": 0.34, "B": 411, "beta": 0.28, "C": 0.2, "K": 3e9, "n": 1}
    >>> f"{rs.critical_store(('hill', law), N=1e9, D=2e10):.3g}"
    '2.7e+10'

    References
    ----------
    The fraction 0.9 of the largest observed gain: arXiv 2604.00715, code detect_saturation.py, there on six
    noisy points.
    """
    found = surface(fit_or_bootstrap, hit_rate=hit_rate)
    found.require("R", N=N, D=D)
    found.require_measured_store("critical_store")
    problems: list[str] = []
    limit: dict[str, Any] = {} if max_R is None else {"max_R": max_R}
    given = counts(problems, N=N, D=D, fraction=fraction, **limit)
    if "fraction" in given and np.any(given["fraction"] >= 1):
        problems.append("fraction must be in (0, 1): all of a saturating gain takes an infinite store")
    note = ""
    parts = found.members or (found,)
    bounded = not problems and all(
        answer(part.law, "_gain_limit", given["N"], given["D"], part.theta) is not None for part in parts
    )
    if not limit and not bounded and not problems:
        largest = 0.0 if found.data is None else float(np.max(np.asarray(found.data["R"], np.float64)))
        if largest > 0:
            given["max_R"] = np.asarray(largest)
            note = f"the gain has no bound; relative to the largest store of the data, R = {largest:.3g}"
        else:
            problems.append(f"the gain of the law {found.law.name!r} has no known bound: give max_R, the largest store")
    refuse(problems, "critical_store")
    flat, shape = flatten(given)
    if "max_R" not in flat:
        flat["max_R"] = np.full(len(flat["N"]), np.inf)

    def decide(part: Surface) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):
            return {"store": _search(part, part.stacked(), flat)}

    pooled = found.pooled(decide)
    store = pooled.stacked["store"]
    if not limit:
        found.refuse_nowhere("critical_store", R=store[0])
    found.warn_beyond_data("critical_store", N=flat["N"], D=flat["D"], R=store[0])
    store = store.reshape(-1, *shape)
    helpless = store[0] == 0
    if helpless.any():
        words = "retrieval does not help here: no store lowers the loss" + ("" if helpless.all() else " in some cells")
        note = "; ".join(filter(None, [note, words]))
    note = "\n".join(filter(None, [note, found.doubt]))
    at = {name: np.broadcast_to(given[name], shape) for name in ("N", "D", "fraction")}
    laws = pooled.by_law("store", shape)
    return estimate("critical_store", store, at, level=found.confidence_level, laws=laws, note=note)


def _search(found: Surface, theta: Theta, flat: dict[str, np.ndarray]) -> np.ndarray:
    """Find the first R on a fine logarithmic grid that reaches the target, then bisect ln R."""
    law, n, d = found.law, flat["N"], flat["D"]
    none = law.loss(n, d, np.zeros_like(n), theta)
    limited = np.isfinite(flat["max_R"])
    top = np.where(limited, np.log(flat["max_R"]), np.log(1e300))
    bottom = np.minimum(0.0, top - 1.0)
    nodes = bottom + (top - bottom) * np.linspace(0, 1, _NODES)[:, None]
    gains = np.stack([none - law.loss(n, d, np.exp(x), theta) for x in nodes])
    gains = np.where(np.isfinite(gains), gains, -np.inf)
    most = gains.max(axis=0)
    if not limited.all():
        most = np.where(limited, most, _attainable(found, theta, n, d))
    target = flat["fraction"] * most
    reached = gains >= target
    first = np.argmax(reached, axis=0)
    cell = np.arange(len(n))
    high = nodes[first, cell]
    low = np.where(first > 0, nodes[np.maximum(first - 1, 0), cell], bottom - 40.0)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        enough = none - law.loss(n, d, np.exp(middle), theta) >= target
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(~(most > 0), 0.0, np.where(reached.any(axis=0), np.exp(high), np.inf))


def _attainable(found: Surface, theta: Theta, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return the gain of an infinite store; of an average the weighted mean, in the metric."""
    if not found.members:
        return answer(found.law, "_gain_limit", n, d, theta)
    total = np.zeros(np.broadcast_shapes(n.shape, d.shape))
    for member in found.members:
        law, sign = member.at_point(), -1.0 if member.rises else 1.0
        none = law.loss(n, d, np.zeros_like(n), member.theta)
        least = none - answer(law, "_gain_limit", n, d, member.theta)
        total = total + member.weight * sign * (member.metric(none) - member.metric(least))
    return total
