"""Whether retrieval helps, in one of seven answers, each with a test of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pandas as pd

from ragscale.fitting._evidence import Evidence, Paired, evidence, evidence_of, trained_models
from ragscale.fitting._own import peek
from ragscale.fitting.laws._reading import Reading
from ragscale.results._result import Result

if TYPE_CHECKING:
    from ragscale.fitting._result import ManifoldFit

Kind = Literal[
    "helps here",
    "helps from D0 on",
    "hurts",
    "no effect",
    "nobody reads in this range",
    "cannot be told",
    "not measured",
]
_FEWEST_STORES = 4


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Verdict(Result):
    """Whether retrieval helps these models, and what says so.

    - *helps here*: the largest stores lower the loss within trained models, its 95 % interval above 0.
    - *helps from D0 on*: so they do beyond a threshold in D that lies inside the table.
    - *hurts*: the interval is below 0.
    - *no effect*: the interval holds 0 and ends within ``needed``; the text says what size of an effect is excluded.
    - *nobody reads in this range*: at the most training, a passage with the answer is worth no more than one without.
    - *cannot be told*: the table is too noisy or too small for any of these.
    - *not measured*: no model was evaluated with and without a store.

    Attributes
    ----------
    kind : str
        One of the words above.
    text : str
        A sentence with the numbers.
    gain, low, high : float
        What `kind` rests on, in latent loss; NaN where nothing was measured.
    threshold : float
        D0 of a model of the typical size, for *helps from D0 on*; else NaN.
    """

    kind: Kind
    text: str
    gain: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    threshold: float = float("nan")

    _absent: ClassVar[Mapping[str, str]] = {
        "plot": "a sentence; the evidence behind it is drawn by fit.evidence.plot()",
    }

    @property
    def helps(self) -> bool:
        """Whether a store is worth anything under this verdict."""
        return self.kind in {"helps here", "helps from D0 on"}

    def summary(self) -> str:
        """Return the sentence."""
        return self.text

    def to_frame(self) -> pd.DataFrame:
        """Return one row."""
        row = {"verdict": self.kind, "gain": self.gain, "gain_low": self.low, "gain_high": self.high}
        return pd.DataFrame([{**row, "threshold": self.threshold}])


def verdict(fit: ManifoldFit) -> Verdict:
    """Say whether retrieval helps, from the table of a fit and, where there is a threshold, from the fit."""
    seen = fit.evidence if fit.evidence is not None else evidence(fit.data, fit.link)
    if seen.nobody_reads and seen.reads is not None:
        return _nobody_reads(seen, seen.reads)
    if seen.somebody_reads and isinstance(fit.law, Reading):
        return _of_readers(fit, seen)
    found = _of_stores(seen)
    unsure = seen.reads is not None and not seen.somebody_reads and found.kind == "no effect"
    return _cannot(seen.reads, "whether anybody reads") if unsure and seen.reads is not None else found


def _numbers(one: Paired) -> dict[str, float]:
    return {"gain": one.gain, "low": one.low, "high": one.high}


def _interval(one: Paired) -> str:
    return f"{one.gain:.3g} [{one.low:.3g}, {one.high:.3g}]"


def _cannot(one: Paired, what: str) -> Verdict:
    text = f"It cannot be told {what}: {one.summary()}. Add trained models, questions or stores."
    return Verdict(kind="cannot be told", text=text, **_numbers(one))


def _nobody_reads(seen: Evidence, one: Paired) -> Verdict:
    text = (
        f"Nobody reads in this range: at the most training {one.what} are worth {_interval(one)} in loss, and readers "
        f"gain more than {seen.needed:.2g}. What more pretraining would change cannot be told from these results."
    )
    return Verdict(kind="nobody reads in this range", text=text, **_numbers(one))


def _of_stores(seen: Evidence) -> Verdict:
    """Judge by the stores alone: the largest one of each model against its closed book."""
    one = seen.largest
    if one is None:
        text = "Whether retrieval helps is not measured: no trained model was evaluated with and without a store."
        return Verdict(kind="not measured", text=text)
    if one.n_models == 1:
        return _of_one_model(seen, one)
    if one.high < 0:
        return _hurts(one)
    if one.low > 0 or seen.helps:
        hurt = seen.smallest is not None and seen.smallest.high < 0
        tail = f"; the smallest raise it by {_cost(seen.smallest)}" if hurt and seen.smallest is not None else ""
        tail += "" if one.low > 0 else f"; by the largest it is {_interval(one)}, which may be nothing"
        best = _best(seen)
        text = f"Retrieval helps here: {_gains(best)}{tail}."
        return Verdict(kind="helps here", text=text, **_numbers(best))
    return _nothing_clear(one, seen.needed)


def _cost(one: Paired) -> str:
    """Turn the interval round."""
    return f"{-one.gain:.3g} [{-one.high:.3g}, {-one.low:.3g}]"


def _hurts(one: Paired) -> Verdict:
    """Say that the largest stores raise the loss."""
    text = f"Retrieval hurts: the largest stores raise the loss by {_cost(one)} ({one.n_models} trained models)."
    return Verdict(kind="hurts", text=text, **_numbers(one))


def _gains(one: Paired) -> str:
    return f"{one.what} lower the loss by {_interval(one)} ({one.n_models} trained models)"


def _best(seen: Evidence) -> Paired:
    """Return the gain of the largest stores where it is clear, else that of the store which helps most surely."""
    one, stores = seen.largest, seen.stores
    if one is not None and one.low > 0:
        return Paired(what="the largest stores", **_numbers(one), n_models=one.n_models)
    best = stores.iloc[int(np.nanargmax(stores["low"].to_numpy(float)))]
    numbers = {name: float(best[name]) for name in ("gain", "low", "high")}
    return Paired(what=f"stores of {float(best['R']):.3g} tokens", **numbers, n_models=int(best["n_models"]))


def _nothing_clear(one: Paired, needed: float) -> Verdict:
    """Tell an effect that is surely small from one that is not known."""
    size = max(abs(one.low), abs(one.high))
    if size <= needed:
        text = f"Retrieval has no effect larger than {size:.2g} in loss here ({one.summary()})."
        return Verdict(kind="no effect", text=text, **_numbers(one))
    return _cannot(one, "whether retrieval helps")


def _of_one_model(seen: Evidence, one: Paired) -> Verdict:
    """Judge a single trained model: only if all of several stores agree is there anything to say."""
    gains = seen.stores["gain"].to_numpy(float)
    if len(gains) >= _FEWEST_STORES and (np.all(gains > 0) or np.all(gains < 0)):
        low, high = float(gains.min()), float(gains.max())
        word, verb, kind = ("helps", "lower", "helps here") if low > 0 else ("hurts", "raise", "hurts")
        ends = sorted((abs(low), abs(high)))
        text = (
            f"Retrieval {word} in the one model that was trained: all {len(gains)} stores {verb} its loss, by "
            f"{ends[0]:.3g} to {ends[1]:.3g}. Whether others would gain as much is not known."
        )
        return Verdict(kind=kind, text=text, gain=one.gain, low=low, high=high)
    return _cannot(one, "from one trained model whether retrieval helps")


def _of_readers(fit: ManifoldFit, seen: Evidence) -> Verdict:
    """Judge by the models beyond the threshold of the fitted law."""
    law, theta = fit.law, fit.theta
    assert isinstance(law, Reading)
    models = [m for m in trained_models(peek(fit, "data"), fit.link) if np.isfinite(m.closed) and len(m.stores)]
    readers = [m for m in models if m.d > law.threshold(theta, np.asarray(m.n))]
    beyond = evidence_of(readers, seen.needed)
    if beyond.largest is None or beyond.largest.n_models < 2:
        return _of_stores(seen)
    if not beyond.helps:
        return _hurts(beyond.largest) if beyond.largest.high < 0 else _nothing_clear(beyond.largest, seen.needed)
    size = float(np.exp(np.mean(np.log([m.n for m in models]))))
    start = float(law.threshold(theta, np.asarray(size)))
    where = _place_of_threshold(fit, np.unique([m.n for m in models]), np.unique([m.d for m in models]))
    best = _best(beyond)
    if where == "inside":
        begins = f"models of {size:.2g} parameters begin to read at {start:.3g} tokens"
        text = f"Retrieval helps from D0 on: {begins}; beyond, {_gains(best)}."
        return Verdict(kind="helps from D0 on", text=text, threshold=start, **_numbers(best))
    if where == "below":
        text = f"Retrieval helps here: all but the least trained models read; {_gains(best)}."
        return Verdict(kind="helps here", text=text, **_numbers(best))
    text = f"Retrieval helps the most trained models, {_gains(best)}; where reading begins cannot be told: {where}."
    return Verdict(kind="cannot be told", text=text, **_numbers(best))


def _place_of_threshold(fit: ManifoldFit, sizes: np.ndarray, tokens: np.ndarray) -> str:
    """Say whether D0(N) lies inside the table for every size, below it, or what keeps it from being known."""
    law = fit.law
    assert isinstance(law, Reading)
    start = np.asarray(law.threshold(fit.theta, sizes))
    if len(tokens) < 4:
        return f"the table has {len(tokens)} values of D"
    if np.all(start < tokens[1]):
        return "below"
    typical = fit.problem.typical
    for parameter in law.parameters:
        low, high = parameter.bounds(typical)
        value = fit.theta[parameter.name]
        free = parameter.name not in law.fixed
        if parameter.name in {"D0", "k"} and free and not low * 1.001 < value < high * 0.999:
            return f"{parameter.name} = {value:.3g} stands at its bound"
    if np.all((start >= tokens[1]) & (start <= tokens[-2])):
        return "inside"
    return f"D0 is {start.min():.3g} to {start.max():.3g} tokens, at the edge of what was trained"
