"""Predictions for checkpoints that exist: what their rows say of them, and the gain that the law adds to it.

A checkpoint's own effect (its base) is what all of its rows have in common once the gain is taken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._typing import Column
from ragscale.errors import ConfigError
from ragscale.fitting._conditions import CLOSED, conditions
from ragscale.fitting._own import peek
from ragscale.fitting.laws._reading import Reading, ReadingGain

if TYPE_CHECKING:
    from ragscale.fitting._result import ManifoldFit

_SAME = 1e-6
_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The trained models of a table: N, D (m,), their latent loss without a passage, and the gain within models.

    ``gain`` are parameters of `ReadingGain`, None where the law of the fit gives the gain.
    """

    n: np.ndarray
    d: np.ndarray
    base: np.ndarray
    gain: dict[str, float] | None

    def at(self, N: Any, D: Any) -> np.ndarray:
        """Return the base at each (N, D).

        Raises
        ------
        ConfigError
            When some (N, D) is no checkpoint of the table with a closed-book row.
        """
        asked_n, asked_d = np.broadcast_arrays(np.asarray(N, dtype=float), np.asarray(D, dtype=float))
        apart = np.maximum(np.abs(self.n / asked_n[..., None] - 1.0), np.abs(self.d / asked_d[..., None] - 1.0))
        unknown = apart.min(axis=-1) > _SAME
        if unknown.any():
            n, d = asked_n[unknown].flat[0], asked_d[unknown].flat[0]
            others = int(unknown.sum()) - 1
            raise ConfigError(
                f"at_checkpoint=True needs models of the table with a closed-book row; there is none of N = {n:g}, "
                f"D = {d:g}" + (f" and {others} others" if others else "")
            )
        return self.base[apart.argmin(axis=-1)]


def latent_at_checkpoint(fit: ManifoldFit, N: Any, D: Any, R: Any, columns: Mapping[str, Column]) -> np.ndarray:
    """Return the latent loss of trained models of the table: their own base, minus the gain of a store."""
    known = fit.checkpoints
    base = known.at(N, D)
    if known.gain is None:
        nothing = {**columns, "hit_rate": 0.0} if "hit_rate" in columns else columns
        return base + fit.latent(N, D, R, **columns) - fit.latent(N, D, 0.0, **nothing)
    stores = np.asarray(R, dtype=float)
    hit: Any = columns.get("hit_rate")
    rate = np.asarray(hit(stores) if callable(hit) else hit, dtype=float)
    law = ReadingGain(fixed={"N_ref": fit.theta["N_ref"]})
    shown = (stores > 0) | (rate > 0)
    return np.where(shown, law.loss(N, D, R, known.gain, hit_rate=rate, closed=base), base)


def checkpoints_of(fit: ManifoldFit) -> Checkpoints:
    """Return the trained models of a fit's table that were evaluated without a passage, seeds averaged."""
    data = peek(fit, "data")
    n, d = (data[name].to_numpy(float) for name in "ND")
    latent = np.asarray(fit.link.latent(data["value"].to_numpy(float)), dtype=float)
    closed = conditions(data) == CLOSED
    models, where = np.unique(np.stack([n, d]), axis=1, return_inverse=True)
    where = where.reshape(-1)
    has = np.bincount(where[closed], minlength=models.shape[1]) > 0
    if isinstance(fit.law, Reading) and int((~closed & has[where]).sum()) >= 2 * len(ReadingGain().free):
        base, gain = _within_models(fit, latent, where, closed, has)
        return Checkpoints(models[0][has], models[1][has], base[has], gain)
    columns = {name: data[name].to_numpy(float) for name in fit.law.further_columns}
    nothing = {**columns, "hit_rate": np.zeros(len(n))} if "hit_rate" in columns else columns
    r = data["R"].to_numpy(float)
    without = latent - fit.latent(n, d, r, **columns) + fit.latent(n, d, np.zeros(len(n)), **nothing)
    return Checkpoints(models[0][has], models[1][has], _mean(without, where, models.shape[1])[has], None)


def _within_models(
    fit: ManifoldFit, latent: np.ndarray, where: np.ndarray, closed: np.ndarray, has: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Fit bases and gain in turn: the gain given the bases, the bases as means of all rows with the gain taken off."""
    from ragscale.fitting._fit_table import fit_table

    data = peek(fit, "data")
    n, d, r, h = (data[name].to_numpy(float) for name in ("N", "D", "R", "hit_rate"))
    law = ReadingGain(fixed={"N_ref": fit.theta["N_ref"]})
    shown = ~closed & has[where]
    base = _mean(np.where(closed, latent, np.nan), where, len(has))
    loss = {"loss": fit.loss.loss, "delta": fit.loss.delta, "tau": fit.loss.tau}
    gain: dict[str, float] = {}
    for _ in range(_ROUNDS):
        rows = data[shown].reset_index(drop=True).assign(closed=base[where][shown])
        found = fit_table(rows, law, weights="weight", link=fit.link, space=fit.space, **loss)
        gain = {name: float(value) for name, value in found.theta.items() if name not in law.fixed}
        zero = np.zeros(len(n))
        off = np.where(closed, 0.0, law.loss(n, d, r, gain, hit_rate=np.where(closed, 0.0, h), closed=zero))
        last, base = base, _mean(latent - off, where, len(has))
        if np.nanmax(np.abs(base - last)) < 1e-6 * np.nanmax(np.abs(base)):
            break
    return base, gain


def _mean(values: np.ndarray, where: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of what is known for each model."""
    known = np.isfinite(values)
    total = np.bincount(where[known], weights=values[known], minlength=count)
    size = np.bincount(where[known], minlength=count)
    return np.where(size > 0, total / np.maximum(size, 1), np.nan)
