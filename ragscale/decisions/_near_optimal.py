"""The splits that are nearly as good as the best one: a range, or two where there are two flat minima."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from ragscale.decisions._surface import Surface

_NODES = np.unique(
    np.concatenate([np.geomspace(1e-6, 0.01, 41), np.linspace(0.01, 0.99, 491), 1 - np.geomspace(0.01, 1e-6, 41)])
)
_OF_RESIDUAL = 0.5
_OF_VALUE = 0.002


def default_within(found: Surface, best: np.ndarray) -> np.ndarray:
    """Return the difference in the metric below which two splits count as equal."""
    if found.source is not None and found.data is not None:
        residual = np.abs(np.asarray(found.source.residuals, np.float64))
        scale = float(np.median(residual)) * _OF_RESIDUAL
        if scale > 0:
            return np.abs(best) * scale if found.source.space == "log" else np.full_like(best, scale)
    return np.abs(best) * _OF_VALUE


def near_optimal(found: Surface, flat: dict[str, np.ndarray], best_r: np.ndarray, within: float | None) -> pd.DataFrame:
    """Return the ranges of D, per budget, whose predicted metric is within a tolerance of the best.

    Parameters
    ----------
    found : Surface
    flat : dict of ndarray (M,)
        ``N, budget, p_D, p_R, min_D`` and the limits.
    best_r : ndarray (M,)
        The recommended store.
    within : float, optional
        The tolerance in the unit of the metric.

    Returns
    -------
    DataFrame
        One row per range.
    """
    law, sign = found.at_point(), -1.0 if found.rises else 1.0
    theta = {name: float(value) for name, value in found.theta.items()}
    rows = []
    for i, (n, budget, p_d, p_r, least) in enumerate(
        zip(*(flat[k] for k in ("N", "budget", "p_D", "p_R", "min_D")), strict=True)
    ):
        all_d, all_r = budget / p_d, budget / p_r
        most_d = min(all_d, float(flat["max_D"][i]) if "max_D" in flat else np.inf)
        share = np.unique(np.concatenate([[0.0], _NODES, [best_r[i] / all_r]]))
        d, r = np.minimum(all_d * (1 - share), most_d), all_r * share
        allowed = (d >= least * (1 - 1e-9)) | (share == 0)
        if "max_R" in flat:
            allowed &= r <= flat["max_R"][i] * (1 + 1e-9)
        share, d, r = share[allowed], d[allowed], r[allowed]
        with np.errstate(all="ignore"):
            value = sign * np.ravel(found.metric(law.loss(n, d, r, theta)))
        value = np.where(np.isfinite(value), value, np.inf)
        best = value.min()
        x = float(default_within(found, np.asarray([best]))[0]) if within is None else float(within)
        good = value <= best + x
        edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            first, last = _edge(share, value, start, -1, best + x), _edge(share, value, stop - 1, 1, best + x)
            rows.append(
                {
                    "N": n,
                    "budget": budget,
                    "D_low": min(all_d * (1 - last), most_d),
                    "D_high": min(all_d * (1 - first), most_d),
                    "R_low": all_r * first,
                    "R_high": all_r * last,
                    "share_low": first,
                    "share_high": last,
                    "within": x,
                }
            )
    return pd.DataFrame(rows)


def _edge(share: np.ndarray, value: np.ndarray, inside: int, step: int, limit: float) -> float:
    """Return where the curve crosses the limit between a node inside and its neighbour outside, by a chord in logit."""
    outside = inside + step
    if not 0 <= outside < len(share) or not np.isfinite(value[outside]) or share[inside] == 0 or share[outside] == 0:
        return float(share[inside])
    part = (limit - value[inside]) / (value[outside] - value[inside])
    a, b = logit(share[inside]), logit(share[outside])
    return float(expit(a + np.clip(part, 0.0, 1.0) * (b - a)))
