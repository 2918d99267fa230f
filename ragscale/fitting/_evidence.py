"""What a table says without any law: each trained model compared with itself, with and without a passage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import stats

from ragscale.fitting._conditions import CLOSED, GOLD, RANDOM, conditions
from ragscale.fitting._table import clusters
from ragscale.fitting.solver._links import Link
from ragscale.results._result import Result

_LEVEL = 0.95
_SMALLEST = 0.02
"""Share of the closed-book loss that a passage with the answer must be worth beyond one without: .1 of 5 nats."""
_SMALLEST_LOGIT = 0.1


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Paired(Result):
    """A gain within trained models: the mean over them, with Student's 95 % interval; NaN ends for a single model.

    Attributes
    ----------
    what : str
        In words what is compared with what.
    gain, low, high : float
        In latent loss (nats for a loss in nats); positive where the first is better.
    n_models : int
    """

    what: str
    gain: float
    low: float
    high: float
    n_models: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def summary(self) -> str:
        """Say the gain with its interval."""
        interval = f" [{self.low:+.3g}, {self.high:+.3g}]" if np.isfinite(self.low) else " (no interval)"
        models = f"{self.n_models} trained model" + ("s" if self.n_models != 1 else "")
        return f"{self.what}: {self.gain:+.3g}{interval}, {models}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row."""
        columns = {"what": self.what, "gain": self.gain, "gain_low": self.low, "gain_high": self.high}
        return pd.DataFrame([{**columns, "n_models": self.n_models}])


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Evidence(Result):
    """What passages do to trained models, compared within each of them; no law is involved.

    Attributes
    ----------
    stores : DataFrame
        By store, rising: ``R, gain, low, high, n_models``: closed book minus retrieved.
    smallest, largest : Paired or None
        The same for the smallest store, and for the largest that each model was evaluated with.
    reads : Paired or None
        At the most training: how much better a passage with the answer is than one without, by gold against random
        passages, else by hits against misses (how the loss falls with the hit rate over stores).
    needed : float
        How much that must be for the models to be called readers.
    """

    stores: pd.DataFrame
    smallest: Paired | None
    largest: Paired | None
    reads: Paired | None
    needed: float

    _fields: ClassVar[tuple[str, ...]] = ("smallest", "largest", "reads")

    @property
    def nobody_reads(self) -> bool:
        """Whether reading was measured and is not there: a passage with the answer is worth no more than ``needed``."""
        return self.reads is not None and bool(self.reads.high < self.needed or self._is_small)

    @property
    def _is_small(self) -> bool:
        return self.reads is not None and bool(self.reads.gain < self.needed)

    @property
    def somebody_reads(self) -> bool:
        """Whether even the lower bound of the gain is above ``needed``."""
        return self.reads is not None and bool(self.reads.low > self.needed)

    def summary(self) -> str:
        """Say what was compared, a line each."""
        lines = [one.summary() for one in (self.reads, self.largest, self.smallest) if one is not None]
        if self.reads is not None:
            lines[0] += f" (readers gain more than {self.needed:.2g})"
        return "\n".join(lines) or "no trained model was evaluated both with and without a passage"

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each comparison."""
        parts = [one.to_frame() for one in (self.reads, self.largest, self.smallest) if one is not None]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["what", "gain"])


def evidence(table: Any, link: Link) -> Evidence:
    """Compare the rows of each trained model in a table of one surface."""
    models = _models(table, link)
    closed = np.array([model.closed for model in models])
    scale = float(np.nanmedian(np.abs(closed))) if np.isfinite(closed).any() else 1.0
    needed = _SMALLEST_LOGIT if link.name == "bounded" else _SMALLEST * scale
    both = [model for model in models if np.isfinite(model.closed) and len(model.stores)]
    rows = []
    for store in np.unique(np.concatenate([model.stores for model in both])) if both else []:
        gains = [model.closed - model.retrieved[model.stores == store].mean() for model in both if store in model.stores]
        one = paired("", np.array(gains))
        rows.append({"R": store, "gain": one.gain, "low": one.low, "high": one.high, "n_models": one.n_models})
    first = np.array([model.closed - model.retrieved[np.argmin(model.stores)] for model in both])
    last = np.array([model.closed - model.retrieved[np.argmax(model.stores)] for model in both])
    return Evidence(
        stores=pd.DataFrame(rows, columns=["R", "gain", "low", "high", "n_models"]),
        smallest=paired("gain by the smallest store", first) if both else None,
        largest=paired("gain by the largest store", last) if both else None,
        reads=_reads(models),
        needed=needed,
    )


def paired(what: str, gains: np.ndarray) -> Paired:
    """Return the mean of gains, one for each trained model, with Student's interval."""
    count = len(gains)
    mean = float(gains.mean())
    if count < 2:
        return Paired(what=what, gain=mean, low=np.nan, high=np.nan, n_models=count)
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, count - 1) * gains.std(ddof=1) / np.sqrt(count))
    return Paired(what=what, gain=mean, low=mean - half, high=mean + half, n_models=count)


@dataclass(frozen=True, slots=True)
class _Model:
    """The latent losses of one trained model; NaN where a condition was not measured."""

    n: float
    d: float
    closed: float
    gold: float
    random: float
    stores: np.ndarray
    retrieved: np.ndarray
    hits: np.ndarray


def _models(table: Any, link: Link) -> list[_Model]:
    latent = np.asarray(link.latent(table["value"].to_numpy(float)), dtype=float)
    kind = conditions(table)
    n, d, r = (table[name].to_numpy(float) for name in "NDR")
    hit = table["hit_rate"] if "hit_rate" in table else np.full(len(table), np.nan)
    hits = np.asarray(pd.to_numeric(hit, errors="coerce"), dtype=float)
    group = clusters(table)

    def mean(rows: np.ndarray) -> float:
        return float(latent[rows].mean()) if len(rows) else np.nan

    found = []
    for rows in _grouped(group):
        closed, gold, random = (rows[kind[rows] == name] for name in (CLOSED, GOLD, RANDOM))
        shown = rows[(r[rows] > 0) & ~np.isin(kind[rows], [CLOSED, GOLD, RANDOM])]
        found.append(
            _Model(n[rows[0]], d[rows[0]], mean(closed), mean(gold), mean(random), r[shown], latent[shown], hits[shown])
        )
    return found


def _grouped(group: np.ndarray) -> Iterator[np.ndarray]:
    order = np.argsort(group, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _reads(models: list[_Model]) -> Paired | None:
    """Compare passages with and without the answer for the models with the most training."""
    gold = [model for model in models if np.isfinite(model.gold) and np.isfinite(model.random)]
    if gold:
        top = _most_trained(gold)
        return paired("gold minus random passages", np.array([model.random - model.gold for model in top]))
    varied = [model for model in models if np.isfinite(model.hits).sum() > 1 and np.nanmax(model.hits) > 0]
    varied = [model for model in varied if np.nanmax(model.hits) > np.nanmin(model.hits)]
    if not varied:
        return None
    return paired("hits minus misses", np.array([_slope(model) for model in _most_trained(varied)]))


def _most_trained(models: list[_Model]) -> list[_Model]:
    """Return the models of the largest D, and of the next ones until there are three."""
    chosen: list[_Model] = []
    for d in sorted({model.d for model in models}, reverse=True):
        chosen += [model for model in models if model.d == d]
        if len(chosen) >= 3:
            break
    return chosen


def _slope(model: _Model) -> float:
    """Return by how much the loss falls from hit rate 0 to 1, by a line through the stores."""
    known = np.isfinite(model.hits)
    h, loss = model.hits[known], model.retrieved[known]
    return float(-np.polyfit(h - h.mean(), loss, 1)[0])
