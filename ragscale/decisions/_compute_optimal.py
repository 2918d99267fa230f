"""The best model size, pretraining tokens and store under a compute budget."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ragscale._typing import HitRateLike
from ragscale.decisions._allocation import Allocation, assemble, extrapolated
from ragscale.decisions._arguments import counts, flatten, refuse
from ragscale.decisions._split import best_split
from ragscale.decisions._surface import BELOW, Subject, Surface, answer, surface
from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import Theta

_N_NODES = 81
_BISECTIONS = 48


def compute_optimal(
    fit_or_bootstrap: Subject,
    *,
    flops: ArrayLike,
    R: ArrayLike | Literal["free"] = 0.0,
    store_flops: ArrayLike = 0.0,
    inference_tokens: ArrayLike = 0.0,
    min_N: ArrayLike | None = None,
    max_N: ArrayLike | None = None,
    min_D: ArrayLike | None = None,
    max_D: ArrayLike | None = None,
    max_R: ArrayLike | None = None,
    hit_rate: HitRateLike = None,
) -> Allocation:
    r"""Choose N and D, and R if asked, so that the loss is lowest under a compute budget.

    .. math:: \min_{N, D, R} L(N, D, R) \quad \text{subject to} \quad 6 N D + c R + 2 N I = C

    with c = ``store_flops`` per store token (2 N_encoder to embed it once) and I = ``inference_tokens`` that the model
    will read and write in its life, the retrieved passages included. For a law with base
    :math:`E + A N^{-\alpha} + B D^{-\beta}`, a gain that does not depend on N, a given R and I = 0 this is Hoffmann's
    closed form :math:`N^* = G (C'/6)^{\beta/(\alpha+\beta)}`, :math:`D^* = G^{-1} (C'/6)^{\alpha/(\alpha+\beta)}`,
    :math:`G = (\alpha A / \beta B)^{1/(\alpha+\beta)}`, C' = C - c R. Otherwise N is searched on a grid in ln N and
    refined by bisection of the total derivative; for each N the split of what is left between D and R is
    `optimal_allocation` at prices 6 N and c.

    Parameters
    ----------
    fit_or_bootstrap : ManifoldFit, Bootstrap, or (law, parameters)
    flops : array-like
        C, training, indexing and inference together.
    R : array-like or "free"
        Store tokens, 0 by default. ``"free"`` also optimises R, and needs ``store_flops`` > 0 or ``max_R``: a
        store that costs nothing is never large enough.
    store_flops, inference_tokens : array-like
        c and I, 0 by default.
    min_N, max_N, min_D, max_D, max_R : array-like, optional
        Limits in counts. By default N and D go down to a tenth of the smallest that were measured, because no fit knows
        what lies far below; to 1e4 parameters and 1e3 tokens for a law with given parameters. Without ``max_N`` the
        largest N still trains on ``min_D`` tokens.

    Returns
    -------
    Allocation
        ``N, D, R`` the optimum, ``budget`` the FLOPs, ``share`` = R / (D + R), ``gain`` against the same N with all its
        FLOPs in pretraining.

    Raises
    ------
    ConfigError
        Listing everything wrong with the arguments.

    Examples
    --------
    >>> import ragscale as rs
    >>> law = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}
    >>> best = rs.compute_optimal(("chinchilla", law), flops=5.76e23)
    >>> print(f"{best.N:.3g} parameters, {best.D:.3g} tokens")
    3.22e+10 parameters, 2.98e+12 tokens

    References
    ----------
    Hoffmann et al. 2022, arXiv 2203.15556, equation 4. Inference in the budget: Sardana et al. 2023,
    arXiv 2401.00448.
    """
    found = surface(fit_or_bootstrap, hit_rate=hit_rate)
    found.require("N", "D")
    problems: list[str] = []
    free = isinstance(R, str)
    if free and R != "free":
        problems.append(f"R = {R!r} must be a count of tokens or 'free'")
    optional = {k: v for k, v in (("max_N", max_N), ("max_D", max_D), ("max_R", max_R)) if v is not None}
    given = counts(
        problems,
        allow_zero=("R", "store_flops", "inference_tokens", "max_R"),
        flops=flops,
        R=0.0 if free else R,
        store_flops=store_flops,
        inference_tokens=inference_tokens,
        min_N=_least(found, "N", 1e4) if min_N is None else min_N,
        min_D=_least(found, "D", 1e3) if min_D is None else min_D,
        **optional,
    )
    if not problems and free and max_R is None and np.any(given["store_flops"] == 0):
        problems.append("R='free' needs store_flops > 0 or max_R: a store that costs nothing is never large enough")
    refuse(problems, "compute_optimal")
    flat, shape = flatten(given)
    low = flat["min_N"]
    training = flat["flops"] - flat["store_flops"] * flat["R"]
    high = training / (6 * flat["min_D"] + 2 * flat["inference_tokens"])
    high = np.minimum(high, flat["max_N"]) if "max_N" in flat else high
    if np.any(training <= 0) or np.any(high < low):
        raise ConfigError(
            "compute_optimal: the budget does not pay for the store and min_D tokens of a model of "
            f"min_N = {low.max():g}: raise flops, or lower R, min_N, min_D or inference_tokens"
        )

    def decide(part: Surface) -> dict[str, np.ndarray]:
        theta = part.stacked()
        problem = _Problem(part, theta, flat, free)
        n = problem.closed_form(low, high)
        n = problem.search(low, high) if n is None else n
        d, r = problem.rest(n)
        ends = [n <= low * (1 + 1e-9), n >= high * (1 - 1e-9)]
        boundary = np.select(ends, ["N=min", "N=max"], problem.boundary(n, d, r))
        losses = {"loss": part.law.loss(n, d, r, theta), "without": problem.without_store(n)}
        return {"N": n, "D": d, "R": r, "boundary": boundary, **losses}

    pooled = found.pooled(decide)
    n, d, r = (pooled.stacked[name][0] for name in ("N", "D", "R"))
    prices = {"p_D": 6.0 * n, "p_R": np.maximum(flat["store_flops"], 0.0), "budget": flat["flops"]}
    spent = {**flat, **prices, "all_D": (flat["flops"] - 2 * n * flat["inference_tokens"]) / (6.0 * n)}
    found.refuse_nowhere("compute_optimal", N=n, D=d, R=r)
    note = extrapolated(found.warn_beyond_data("compute_optimal", N=n, D=d, R=r))
    return assemble(found, pooled, flat=spent, shape=shape, where="compute_optimal", unit="FLOPs", note=note)


def _least(found: Surface, name: str, otherwise: float) -> float:
    """Return the least N or D that a recommendation may have."""
    measured = found.measured(name)
    return max(1.0, float(measured.min()) / BELOW) if measured.size else otherwise


class _Problem:
    """One law, (S, 1) parameters, and flat budgets (M,)."""

    def __init__(self, found: Surface, theta: Theta, flat: dict[str, np.ndarray], free: bool) -> None:
        self.law, self.theta, self.flat, self.free = found.law, theta, flat, free
        self.rows = next(iter(theta.values())).shape[0]
        self.max_d = flat.get("max_D", np.full(len(flat["flops"]), np.inf))

    def closed_form(self, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
        """Return the best N where the law states it and no limit of the problem interferes, else None."""
        if self.free or np.any(self.flat["inference_tokens"] > 0) or np.isfinite(self.max_d).any():
            return None
        with np.errstate(all="ignore"):
            compute = self.flat["flops"] - self.flat["store_flops"] * self.flat["R"]
            n = answer(self.law, "_compute_optimum", compute, self.theta)
        return n if n is not None and np.all((n > low) & (n < high)) else None

    def rest(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return D and R for models of n (S, M) parameters."""
        f = self.flat
        left = f["flops"] - 2 * n * f["inference_tokens"]
        if not self.free:
            d = np.minimum((left - f["store_flops"] * f["R"]) / (6 * n), self.max_d)
            return d, np.broadcast_to(f["R"], n.shape)
        most_r = f.get("max_R")
        # a store that costs nothing gets a price so small that it takes 1e-12 of the budget to fill it
        unpaid = left * 1e-12 / np.maximum(np.inf if most_r is None else most_r, 1.0)
        price = np.where(f["store_flops"] > 0, f["store_flops"], unpaid)
        r, d, _ = best_split(
            self.law,
            self.theta,
            N=n,
            budget=left,
            p_D=6 * n,
            p_R=price,
            min_D=f["min_D"],
            max_D=self.max_d,
            max_R=most_r,
        )
        return d, r

    def loss(self, n: np.ndarray) -> np.ndarray:
        d, r = self.rest(n)
        with np.errstate(all="ignore"):
            return np.asarray(self.law.loss(n, d, r, self.theta))

    def without_store(self, n: np.ndarray) -> np.ndarray:
        """Return the loss of models of n (S, M) parameters with everything in pretraining."""
        d = np.minimum((self.flat["flops"] - 2 * n * self.flat["inference_tokens"]) / (6 * n), self.max_d)
        return np.asarray(self.law.loss(n, d, np.zeros_like(n), self.theta))

    def slope(self, n: np.ndarray) -> np.ndarray:
        """Return dL/d ln N along the budget; a larger model is paid for with data, or with store where D is at a limit.

        Where neither is at a limit both ways are equal: the envelope theorem.
        """
        f = self.flat
        d, r = self.rest(n)
        slope_n, slope_d, slope_r = self.law.gradient(n, d, r, self.theta)
        by_data = (f["flops"] - f["store_flops"] * r) / (6 * n) * slope_d
        by_store = np.zeros(n.shape)
        if self.free:
            cost = (6 * n * d + 2 * n * f["inference_tokens"]) / f["store_flops"]
            at_limit = (r <= 0) | (r >= f.get("max_R", np.inf) * (1 - 1e-12)) | (f["store_flops"] == 0)
            by_store = np.where(at_limit, 0.0, cost * slope_r)
        limited = (d >= self.max_d * (1 - 1e-12)) | (self.free & (d <= f["min_D"] * (1 + 1e-9)))
        return n * slope_n - np.where(limited, by_store, by_data)

    def search(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Take the best of a grid in ln N and bisect the slope between its neighbours."""
        steps = np.linspace(0.0, 1.0, _N_NODES)
        nodes = np.log(low) + (np.log(high) - np.log(low)) * steps[:, None]
        values = np.stack([self.loss(np.broadcast_to(np.exp(x), (self.rows, len(low)))) for x in nodes])
        best = np.argmin(np.where(np.isfinite(values), values, np.inf), axis=0)
        cell = np.arange(len(low))
        a, b = nodes[np.maximum(best - 1, 0), cell], nodes[np.minimum(best + 1, _N_NODES - 1), cell]
        for _ in range(_BISECTIONS):
            middle = 0.5 * (a + b)
            with np.errstate(divide="ignore", invalid="ignore"):
                rising = self.slope(np.exp(middle)) > 0
            a, b = np.where(rising, a, middle), np.where(rising, middle, b)
        refined, node = 0.5 * (a + b), nodes[best, cell]
        old, new = self.loss(np.exp(node)), self.loss(np.exp(refined))
        n = np.exp(np.where(new <= old + 1e-13 * np.abs(old), refined, node))
        return np.clip(n, low, high)

    def boundary(self, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> np.ndarray:
        limited = d >= self.max_d * (1 - 1e-12)
        if not self.free:
            return np.where(limited, "D=max", "interior")
        most = self.flat.get("max_R", np.full(n.shape[1], np.inf))
        least = d <= self.flat["min_D"] * (1 + 1e-9)
        names = ["R=0", "R=max", "D=max", "D=min"]
        return np.select([r <= 0, r >= most * (1 - 1e-12), limited, least], names, "interior")
