"""What a table says without any law: each trained model compared with itself, with and without a passage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from scipy import special

from ragscale._files import check_fields
from ragscale.errors import CheckpointError
from ragscale.fitting._conditions import CLOSED, GOLD, RANDOM, conditions
from ragscale.fitting._experiments import EXPERIMENT, MODEL, clusters, group_rows
from ragscale.fitting._own import Own
from ragscale.fitting.solver.links import Link
from ragscale.results._result import Result, decode, encode

_LEVEL = 0.95
_SMALLEST = 0.02
"""Share of the closed-book loss that a passage with the answer must be worth beyond one without: .1 of 5 nats."""
_SMALLEST_LOGIT = 0.1
_PAIRED = {"what": str, "gain": float, "low": float, "high": float, "n_models": int}


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

    _absent: ClassVar[Mapping[str, str]] = {
        "plot": "one number with its interval: summary() says all of it",
    }

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

    stores: Own[pd.DataFrame] = Own()
    smallest: Paired | None
    largest: Paired | None
    reads: Paired | None
    needed: float

    _picture: ClassVar[str] = "evidence"

    @property
    def somebody_reads(self) -> bool:
        """Whether even the lower bound of what reading is worth is above ``needed``."""
        return self.reads is not None and bool(self.reads.low > self.needed)

    @property
    def nobody_reads(self) -> bool:
        """Whether what reading is worth was measured, and is surely small."""
        return self.reads is not None and bool(self.reads.gain < self.needed and self.reads.high < 2 * self.needed)

    @property
    def helps(self) -> bool:
        """Whether some store surely lowers the loss: the largest ones, or any after allowing for how many there are."""
        if self.largest is not None and self.largest.low > 0:
            return True
        return self._any_store(1.0)

    @property
    def hurts(self) -> bool:
        """Whether some store surely raises the loss."""
        if self.largest is not None and self.largest.high < 0:
            return True
        return self._any_store(-1.0)

    def _any_store(self, sign: float) -> bool:
        numbers = {name: self.stores[name].to_numpy(float) for name in ("gain", "low", "high", "n_models")}
        several = numbers["n_models"] > 1
        if not several.any():
            return False
        gain, low, high, count = (values[several] for values in numbers.values())
        half, free = 0.5 * (high - low), count - 1.0
        error = np.maximum(half / special.stdtrit(free, 0.5 + _LEVEL / 2), 1e-300)
        chance = special.stdtr(free, -sign * gain / error)
        return bool((chance < 0.5 * (1 - _LEVEL) / len(gain)).any())

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able; `from_dict` restores it."""
        pairs = {name: getattr(self, name) for name in ("smallest", "largest", "reads")}
        plain = {name: None if one is None else asdict(one) for name, one in pairs.items()}
        return {name: encode(value) for name, value in (plain | {"stores": self.stores, "needed": self.needed}).items()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Evidence:
        """Build from `to_dict`."""
        found = {name: decode(item) for name, item in value.items()}
        check_fields(found, {"stores": pd.DataFrame, "needed": float}, name="the evidence")
        for name in ("smallest", "largest", "reads"):
            if found.get(name):
                check_fields(found[name], _PAIRED, name=f"the evidence, {name}")
        stores = found["stores"]  # empty, and so of no type, where the table had none
        if len(stores) and not all(map(pd.api.types.is_numeric_dtype, stores.dtypes)):
            raise CheckpointError("the evidence is damaged: its stores hold what is no number")
        pairs = {name: Paired(**found.pop(name)) if found[name] else None for name in ("smallest", "largest", "reads")}
        return cls(stores=stores, needed=found["needed"], **pairs)

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
    models = trained_models(table, link)
    closed = np.array([model.closed for model in models])
    scale = float(np.nanmedian(np.abs(closed))) if np.isfinite(closed).any() else 1.0
    needed = _SMALLEST_LOGIT if link.signed else _SMALLEST * scale
    return evidence_of(models, needed)


def evidence_of(models: Sequence[TrainedModel], needed: float) -> Evidence:
    """Compare each of some trained models with itself."""
    both = [model for model in models if np.isfinite(model.closed) and len(model.stores)]
    rows = []
    for store in np.unique(np.concatenate([model.stores for model in both])) if both else []:
        with_it = [model for model in both if store in model.stores]
        one = paired("", with_it, [m.closed - m.retrieved[m.stores == store].mean() for m in with_it])
        rows.append({"R": store, "gain": one.gain, "low": one.low, "high": one.high, "n_models": one.n_models})
    first = [model.closed - model.retrieved[np.argmin(model.stores)] for model in both]
    last = [model.closed - model.retrieved[np.argmax(model.stores)] for model in both]
    return Evidence(
        stores=pd.DataFrame(rows, columns=["R", "gain", "low", "high", "n_models"]),
        smallest=paired("gain by the smallest store", both, first) if both else None,
        largest=paired("gain by the largest store", both, last) if both else None,
        reads=_reads(models),
        needed=needed,
    )


def paired(what: str, models: Sequence[TrainedModel], values: Sequence[float]) -> Paired:
    """Return the mean of gains, one for each trained model, with Student's interval over experiments.

    Checkpoints of one run are one experiment: their mean counts once.
    """
    experiment = np.unique([model.experiment for model in models], return_inverse=True)[1]
    gains = np.bincount(experiment, weights=np.asarray(values, dtype=float)) / np.bincount(experiment)
    count = len(gains)
    mean = float(gains.mean())
    if count < 2:
        return Paired(what=what, gain=mean, low=np.nan, high=np.nan, n_models=count)
    half = float(special.stdtrit(count - 1, 0.5 + _LEVEL / 2) * gains.std(ddof=1) / np.sqrt(count))
    return Paired(what=what, gain=mean, low=mean - half, high=mean + half, n_models=count)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The latent losses of one trained model; NaN where a condition was not measured."""

    n: float
    d: float
    experiment: int
    closed: float
    gold: float
    random: float
    stores: np.ndarray
    retrieved: np.ndarray
    hits: np.ndarray


def trained_models(table: Any, link: Link) -> list[TrainedModel]:
    """Return the latent losses of each trained model, by condition."""
    latent = np.asarray(link.latent(table["value"].to_numpy(float)), dtype=float)
    kind = conditions(table)
    n, d, r = (table[name].to_numpy(float) for name in "NDR")
    hit = table["hit_rate"] if "hit_rate" in table else np.full(len(table), np.nan)
    hits = np.asarray(pd.to_numeric(hit, errors="coerce"), dtype=float)
    group = group_rows(table, [name for name in (*MODEL, "run", EXPERIMENT) if name in table])
    experiment = clusters(table)

    def mean(rows: np.ndarray) -> float:
        return float(latent[rows].mean()) if len(rows) else np.nan

    is_closed, is_gold, is_random = (kind == name for name in (CLOSED, GOLD, RANDOM))
    is_shown = (r > 0) & ~(is_closed | is_gold | is_random)
    found = []
    for rows in _grouped(group):
        closed, gold, random, shown = (rows[here[rows]] for here in (is_closed, is_gold, is_random, is_shown))
        at = n[rows[0]], d[rows[0]], int(experiment[rows[0]])
        losses = mean(closed), mean(gold), mean(random)
        found.append(TrainedModel(*at, *losses, r[shown], latent[shown], hits[shown]))
    return found


def _grouped(group: np.ndarray) -> Iterator[np.ndarray]:
    order = np.argsort(group, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _reads(models: Sequence[TrainedModel]) -> Paired | None:
    """Compare passages with and without the answer for the models with the most training."""
    gold = [model for model in models if np.isfinite(model.gold) and np.isfinite(model.random)]
    if gold:
        top = _most_trained(gold)
        return paired("gold minus random passages", top, [model.random - model.gold for model in top])
    several = [model for model in models if np.isfinite(model.hits).sum() > 1]
    varied = [model for model in several if np.nanmax(model.hits) > np.nanmin(model.hits)]
    if not varied:
        return None
    top = _most_trained(varied)
    return paired("hits minus misses", top, [_slope(model) for model in top])


def _most_trained(models: list[TrainedModel]) -> list[TrainedModel]:
    """Return the models of the largest D, and of the next ones until there are three."""
    chosen: list[TrainedModel] = []
    for d in sorted({model.d for model in models}, reverse=True):
        chosen += [model for model in models if model.d == d]
        if len(chosen) >= 3:
            break
    return chosen


def _slope(model: TrainedModel) -> float:
    """Return by how much the loss falls from hit rate 0 to 1, by a line through the stores."""
    known = np.isfinite(model.hits)
    return float(-np.polyfit(model.hits[known], model.retrieved[known], 1)[0])
