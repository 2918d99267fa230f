"""Minimise a law along a budget line, for many budgets and replicates at once.

Notation: the line is D = T/p_D - (p_R/p_D) R. It is walked in z = logit(R p_R / T), so that R = (T/p_R) expit(z) and
D = (T/p_D) expit(-z) are both exact however close to an end they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from ragscale.decisions._surface import answer, taken
from ragscale.fitting.laws._law import GainRate, ScalingLaw, Theta

_CHUNK = 1 << 15  # elements worked on at a time: they stay in the cache
_Z_LOW = -40.0  # a store of T exp(-40) tokens
_Z_SMALLEST = -27.0  # below it D does not change in the 12 digits that decide: one store is as good as another
# fine where neither side is negligible: a measured hit rate rises in steps
_GRID = np.concatenate(
    [np.linspace(_Z_LOW, -9.0, 40)[:-1], np.linspace(-9.0, 9.0, 217), np.linspace(9.0, 45.0, 40)[1:]]
)
_NEWTON = 60


def best_split(
    law: ScalingLaw,
    theta: Theta,
    *,
    N: np.ndarray,
    budget: np.ndarray,
    p_D: np.ndarray,
    p_R: np.ndarray,
    min_D: np.ndarray,
    max_D: np.ndarray | None = None,
    max_R: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return R, D and the boundary, each (S, M), for parameters (S, 1) and arguments (M,) or (S, M)."""
    m = np.shape(N)[-1]
    rows = max(np.shape(v)[0] if np.ndim(v) else 1 for v in theta.values())
    r = np.empty((rows, m))
    d = np.empty((rows, m))
    boundary = np.empty((rows, m), dtype="<U8")
    none = np.full(1, np.inf)
    line = (N, budget, p_D, p_R, min_D, none if max_D is None else max_D, none if max_R is None else max_R)
    line = [np.broadcast_to(x, (rows, m) if np.ndim(x) == 2 else (m,)) for x in line]
    step = max(1, _CHUNK // m)
    with np.errstate(all="ignore"):
        for start in range(0, rows, step):
            block = slice(start, start + step)
            part = Theta({k: v[block] if np.ndim(v) else v for k, v in theta.items()})
            for first in range(0, m, _CHUNK):
                cells = slice(first, first + _CHUNK)
                here = [x[block, cells] if x.ndim == 2 else x[cells] for x in line]
                r[block, cells], d[block, cells], boundary[block, cells] = Line(taken(law, block), part, here).optimum()
    return r, d, boundary


class Line:
    """The budget lines of a block of replicates (S, 1) and cells (M,)."""

    def __init__(self, law: ScalingLaw, theta: Theta, arguments: Sequence[np.ndarray]) -> None:
        n, budget, p_d, p_r, min_d, max_d, max_r = arguments
        self.law, self.theta, self.n = law, theta, n
        self.all_d, self.all_r = budget / p_d, budget / p_r
        self.price = p_r / p_d
        self.max_d, self.max_r = max_d, max_r
        # where pretraining is down to what is allowed, and where it stops to be limited by the data
        self.z_min_d = np.where(min_d < self.all_d, np.log(np.maximum(self.all_d - min_d, 0) / min_d), -np.inf)
        over = np.maximum(self.all_d - max_d, 0.0)
        self.z_max_d = np.where(over > 0, np.log(over / np.minimum(max_d, self.all_d)), -np.inf)
        self.z_max_r = np.where(max_r < self.all_r, np.log(max_r / np.maximum(self.all_r - max_r, 1e-300)), np.inf)
        self.z_high = np.minimum(self.z_min_d, self.z_max_r)
        self.shape = np.broadcast_shapes(np.shape(n), *(np.shape(v) for v in theta.values()))

    def counts(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.minimum(self.all_d * expit(-z), self.max_d), self.all_r * expit(z)

    def loss(self, d: np.ndarray, r: np.ndarray, law: Any = None, n: Any = None, theta: Any = None) -> np.ndarray:
        theta, law = (self.theta, self.law) if theta is None else (theta, law)
        value = np.asarray(law._loss(self.n if n is None else n, d, r, theta), np.float64)
        if self.law.offset:
            value = value + theta.offset * (r > 0)
        value = value + np.zeros(np.broadcast_shapes(value.shape, np.shape(d), np.shape(r)))
        return np.where(np.isnan(value), np.inf, value)

    def optimum(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if "R" not in self.law.variables:
            z = np.full(self.shape, -np.inf)
        elif (rate := answer(self.law, "_gain_rate", self.n, self.theta)) is not None:
            z = self._by_newton(rate)
        elif (worth := answer(self.law, "_constant_exchange_rate", self.theta)) is not None:
            z = self._by_ends(worth)
        else:
            z = self._by_search()
        return self._against_no_store(z)

    def _against_no_store(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d, r = self.counts(z)
        r = np.minimum(r, self.max_r)
        none_d = np.minimum(self.all_d, self.max_d)
        with_store, without = self.loss(d, r), self.loss(np.broadcast_to(none_d, self.shape), np.zeros(self.shape))
        empty = (without <= with_store) | (r <= 0)
        r, d = np.where(empty, 0.0, r), np.where(empty, none_d, d)
        near = 1e-12
        boundary = np.select(
            [empty, z >= self.z_min_d, z >= self.z_max_r, z <= _Z_SMALLEST, z <= self.z_max_d + near],
            ["R=0", "D=min", "R=max", "R=min", "D=max"],
            "interior",
        )
        return r, d, boundary

    # Concave gains: one stationary point ---------------------------------------------------------------------------

    def _by_newton(self, rate: GainRate) -> np.ndarray:
        """Find where ln(worth of a store token) - ln(worth of a pretraining token at its price) falls through 0."""
        theta = self.theta
        fall = theta.beta + 1.0
        constant = fall * np.log(self.all_d) - np.log(theta.B) - np.log(theta.beta) - np.log(self.price)
        all_r = self.all_r

        def balance(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            left = expit(-z)
            share = left * np.exp(z)  # 1 - left would lose the digits of a small store
            worth, bend = rate(all_r * share)
            return worth + constant + fall * np.log(left), bend * left - fall * share

        low = np.full(self.shape, _Z_LOW)
        high = np.broadcast_to(np.minimum(self.z_high, 700.0), self.shape).copy()
        at_low, at_high = balance(low)[0], balance(high)[0]
        done = ~((at_low > 0) & (at_high < 0))  # a corner
        z = np.clip(np.full(self.shape, -1.0), low, high)
        last = np.full(self.shape, np.inf)
        for _ in range(_NEWTON):
            value, slope = balance(z)
            above = value > 0
            low, high = np.where(above, z, low), np.where(above, high, z)
            step = z - value / slope
            # a step that leaves the bracket or does not shrink is replaced by halving, so that 60 always suffice
            good = (step >= low) & (step <= high) & (np.abs(step - z) < 0.7 * last)
            new = np.where(done, z, np.where(good, step, 0.5 * (low + high)))
            last = np.abs(new - z)
            z = new
            done |= last * np.exp(np.minimum(z, 0.0)) < 1e-12
            if done.all():
                break
        z = np.where(at_high >= 0, np.broadcast_to(self.z_high, self.shape), z)
        z = np.where((at_low <= 0) | np.isnan(at_low), -np.inf, z)
        return np.minimum(np.maximum(z, self.z_max_d), self.z_high)  # what D cannot use up goes to the store

    # A constant exchange rate: one of the ends ---------------------------------------------------------------------

    def _by_ends(self, worth: np.ndarray) -> np.ndarray:
        pays = worth > self.price
        return np.where(pays, self.z_high, np.minimum(self.z_max_d, self.z_high)) + np.zeros(self.shape)

    # Any law: every stationary point -------------------------------------------------------------------------------

    def _by_search(self) -> np.ndarray:
        """Bracket every local minimum on a grid, refine each, and take the best with both ends."""
        top = np.atleast_2d(np.maximum(self.z_high, _Z_LOW))
        z = np.minimum(np.concatenate([_GRID, [np.inf]])[:, None, None], top)  # (nodes, 1 or S, M), up to exactly top
        kink = np.clip(np.atleast_2d(self.z_max_d), _Z_LOW, top)
        z = np.sort(np.concatenate([z, kink[None]]), axis=0)
        d, r = self.counts(z)
        f = self.loss(d, r)  # (nodes, S, M)
        left = np.concatenate([np.full((1, *f.shape[1:]), np.inf), f[:-1]])
        right = np.concatenate([f[1:], np.full((1, *f.shape[1:]), np.inf)])
        node, s, m = np.nonzero((f <= left) & (f <= right) & np.isfinite(f))
        grid = np.broadcast_to(z, f.shape)
        below, above = np.maximum(node - 1, 0), np.minimum(node + 1, len(grid) - 1)
        found = self._refine(s, m, grid[below, s, m], grid[node, s, m], grid[above, s, m])
        best = np.full(self.shape, np.inf)
        where = np.full(self.shape, -np.inf)
        values = self._at(s, m, found)
        order = np.argsort(-values, kind="stable")  # the last written, the lowest, stays
        where[s[order], m[order]] = found[order]
        best[s[order], m[order]] = values[order]
        return np.where(np.isfinite(best), where, -np.inf)

    def _pick(self, s: np.ndarray, m: np.ndarray) -> tuple[Any, Theta, dict[str, Any]]:
        rows = {k: (v[np.minimum(s, len(v) - 1), 0] if np.ndim(v) else v) for k, v in self.theta.items()}
        cells = {
            k: np.broadcast_to(getattr(self, k), self.shape)[s, m] for k in ("n", "all_d", "all_r", "price", "max_d")
        }
        many = max((len(v) for v in self.theta.values() if np.ndim(v)), default=1)
        return taken(self.law, (np.minimum(s, many - 1), 0)), Theta(rows), cells

    def _at(self, s: np.ndarray, m: np.ndarray, z: np.ndarray) -> np.ndarray:
        law, theta, c = self._pick(s, m)
        d, r = np.minimum(c["all_d"] * expit(-z), c["max_d"]), c["all_r"] * expit(z)
        return self.loss(d, r, law, c["n"], theta)

    def _refine(self, s: np.ndarray, m: np.ndarray, low: np.ndarray, z: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Bisect the slope where it changes sign from falling to rising; keep the better of that and the node.

        Elsewhere the node is an end or a kink, and stays where it is: a limit is told by standing exactly at it.
        """
        law, theta, c = self._pick(s, m)

        def rising(z: np.ndarray) -> np.ndarray:
            d, r = c["all_d"] * expit(-z), c["all_r"] * expit(z)
            limited = d > c["max_d"]
            _, slope_d, slope_r = law._gradient(c["n"], np.minimum(d, c["max_d"]), r, theta)
            return slope_r - np.where(limited, 0.0, c["price"] * slope_d) > 0

        a, b = low.copy(), high.copy()
        bracketed = ~rising(a) & rising(b)
        for _ in range(60):
            middle = 0.5 * (a + b)
            up = rising(middle)
            a, b = np.where(up, a, middle), np.where(up, middle, b)
        refined = np.where(bracketed, 0.5 * (a + b), z)
        old, new = self._at(s, m, z), self._at(s, m, refined)
        return np.where(new <= old + 1e-13 * np.abs(old), refined, z)
