"""How often the store holds the answer: h(R), measured by the retriever alone, as a curve that can be drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import gammaincinv

from ragscale._typing import Index, RngLike
from ragscale.errors import ConfigError, ResultsError
from ragscale.results._hit_rate_shapes import Hill, Monotone, Shape, fit_hill, isotonic
from ragscale.results._result import Result, decode, encode

Kind = Literal["monotone", "hill"]
_SURE = 0.95
_FEWEST_FOR_HILL = 5


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class HitRateCurve(Result):
    """The share of questions whose answer stands in the passages shown, as a function of the store's tokens.

    Call it: ``curve(R)``. It is 0 without a store, proportional to R below the smallest store that was measured, and
    flat beyond the largest: what a larger store would add is not known.

    Attributes
    ----------
    R : ndarray (K,)
        Stores that were measured, tokens, rising.
    observed : ndarray (K,)
        Hit rates as measured; ``rate`` are the curve's values there.
    n_questions : ndarray (K,)
        Questions behind each rate; NaN where it is not known.
    kind : "monotone" or "hill"
        Isotonic rates joined by a monotone cubic in ln R, or ``hmax R^g / (R^g + K^g)``.
    deviance, degrees : float
        Binomial deviance of the Hill curve and its degrees of freedom; NaN where it was not tried.
    hits : ndarray (Q, K) or None
        For each question and store whether it hit (NaN: not known), for `draw`.

    Examples
    --------
    >>> from ragscale.results import hit_rate_curve
    >>> curve = hit_rate_curve({1e6: 0.1, 1e7: 0.3, 1e8: 0.5}, n_questions=400)
    >>> curve([0, 5e5, 1e7, 1e12]).round(3)
    array([0.  , 0.05, 0.3 , 0.5 ])
    """

    _picture: ClassVar[str] = "plot_hit_rate"

    R: np.ndarray
    observed: np.ndarray
    n_questions: np.ndarray
    kind: Kind
    hill: tuple[float, float, float] | None = None
    deviance: float = float("nan")
    degrees: int = 0
    hits: np.ndarray | None = field(default=None)

    @property
    def rate(self) -> np.ndarray:
        """The curve's values at the measured stores, (K,)."""
        return self(self.R)

    @property
    def R_max(self) -> float:
        """The largest store that was measured; the curve is flat beyond it."""
        return float(self.R[-1])

    @property
    def note(self) -> str:
        """What to know about it, in words."""
        words = f"measured for {len(self.R)} stores; below {self.R[0]:.3g} tokens taken as proportional to R, beyond "
        words += f"{self.R_max:.3g} tokens as flat"
        if len(self.R) < 20:
            words += "; measure 20 or more stores, they cost one search"
        return words

    def _shape(self) -> Shape:
        if self.hill is not None:
            return Hill(self.R, np.array([self.hill]))
        return Monotone(self.R, isotonic(self.observed[None], _weights(self.n_questions)))

    def __call__(self, R: ArrayLike) -> np.ndarray:
        """Return the hit rate of stores of R tokens."""
        return self._shape().value(np.asarray(R, dtype=np.float64), np.zeros(1, dtype=int).reshape(()))

    def derivative(self, R: ArrayLike) -> np.ndarray:
        """Return dh/dR, per token."""
        return self._shape().slope(np.asarray(R, dtype=np.float64), np.zeros(1, dtype=int).reshape(()))

    def draw(self, rng: RngLike = None) -> HitRateCurve:
        """Return the curve of questions drawn anew, the same questions for every store.

        Where the hits of single questions are known, questions are resampled; else the steps between stores are drawn
        as shares of the questions, which is the same for hits that are kept as the store grows. Without the number of
        questions there is nothing to draw from, and the curve itself comes back.
        """
        observed = self._draw(1, np.random.default_rng(rng))
        if observed is None:
            return self
        hill = None
        if self.hill is not None:
            found = fit_hill(self.R, observed, self.n_questions, np.array(self.hill))[0]
            hill = (float(found[0]), float(found[1]), float(found[2]))
        return replace(self, observed=observed[0], hill=hill, hits=None)

    def draws(self, n: int, rng: RngLike = None) -> HitRateDraws:
        """Return ``n`` draws as one function with replicates, (n, 1); see `draw`."""
        observed = self._draw(n, np.random.default_rng(rng))
        if observed is None:
            shape: Shape = self._shape()
            return HitRateDraws(shape, np.zeros((n, 1), dtype=int))
        if self.hill is not None:
            shape = Hill(self.R, fit_hill(self.R, observed, self.n_questions, np.array(self.hill)))
        else:
            shape = Monotone(self.R, isotonic(observed, _weights(self.n_questions)))
        return HitRateDraws(shape, np.arange(n)[:, None])

    def _draw(self, n: int, rng: np.random.Generator) -> np.ndarray | None:
        """Return drawn rates at the measured stores, (n, K)."""
        if self.hits is not None:
            count = len(self.hits)
            weight = rng.multinomial(count, np.full(count, 1.0 / count), size=n).astype(float)
            known = np.isfinite(self.hits)
            total = weight @ known
            return np.where(total > 0, (weight @ np.where(known, self.hits, 0.0)) / np.maximum(total, 1.0), 0.0)
        if not np.isfinite(self.n_questions).any():
            return None
        count = round(float(np.nanmedian(self.n_questions)))
        # half a success and half a failure: a store that never hit in this sample may hit in another one
        rate = isotonic(((self.observed * count + 0.5) / (count + 1.0))[None], np.ones(len(self.R)))[0]
        steps = np.diff(np.concatenate([[0.0], rate, [1.0]]))
        return np.cumsum(rng.multinomial(count, steps / steps.sum(), size=n)[:, :-1], axis=1) / count

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able; `from_dict` restores it."""
        return {item.name: encode(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> HitRateCurve:
        """Build a curve from `to_dict`."""
        return cls(**{name: decode(item) for name, item in value.items()})

    def summary(self) -> str:
        """Say in words what the curve is."""
        shape = "monotone in R" if self.kind == "monotone" else "a Hill curve"
        text = (
            f"hit rate {self.rate[0]:.3g} at {self.R[0]:.3g} tokens to {self.rate[-1]:.3g} at {self.R_max:.3g}, {shape}"
        )
        if np.isfinite(self.deviance):
            text += f" (binomial deviance of a Hill curve {self.deviance:.3g} on {self.degrees} degrees of freedom)"
        return f"{text}; {self.note}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per measured store: ``R, hit_rate, observed, n_questions``."""
        return pd.DataFrame(
            {"R": self.R, "hit_rate": self.rate, "observed": self.observed, "n_questions": self.n_questions}
        )


class HitRateDraws:
    """Drawn curves, one per replicate: call it with R that broadcasts against (S, 1), index it as parameters are."""

    def __init__(self, shape: Shape, rows: np.ndarray) -> None:
        self.shape, self.rows = shape, rows

    def __call__(self, R: ArrayLike) -> np.ndarray:
        return self.shape.value(np.asarray(R, dtype=np.float64), self.rows)

    def derivative(self, R: ArrayLike) -> np.ndarray:
        """Return dh/dR of each replicate."""
        return self.shape.slope(np.asarray(R, dtype=np.float64), self.rows)

    def __getitem__(self, index: Index) -> HitRateDraws:
        return HitRateDraws(self.shape, np.asarray(self.rows[index]))

    def __len__(self) -> int:
        return len(self.rows)

    def shaped(self, shape: tuple[int, ...]) -> HitRateDraws:
        """Return the draws with their rows in another shape, (S, 1, 1) against R of two dimensions."""
        return HitRateDraws(self.shape, self.rows.reshape(shape))

    def with_first(self, curve: HitRateCurve) -> HitRateDraws:
        """Return the draws below a curve: row 0 is the curve, the others follow, (S + 1, 1)."""
        first = curve._shape()
        if type(first) is not type(self.shape):
            raise ConfigError(f"a {curve.kind} curve cannot stand above draws of another kind")
        return HitRateDraws(first.joined(self.shape), np.concatenate([np.zeros((1, 1), int), self.rows + 1]))


def _numbers(column: Any) -> np.ndarray:
    """Return a column as float64, NaN where a cell is no number."""
    return np.asarray(pd.to_numeric(column, errors="coerce"), dtype=float)


def _weights(n_questions: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(n_questions), n_questions, 1.0)


class Evaluated(Protocol):
    """What `hit_rate_curve` reads of an `Evaluation`."""

    @property
    def results(self) -> pd.DataFrame: ...
    @property
    def samples(self) -> pd.DataFrame: ...


def hit_rate_curve(
    source: pd.DataFrame | Mapping[Any, Any] | Evaluated,
    *,
    samples: pd.DataFrame | None = None,
    task: str | None = None,
    n_questions: ArrayLike | None = None,
    kind: Literal["auto", "monotone", "hill"] = "auto",
) -> HitRateCurve:
    """Return h(R), the share of questions whose answer stands in the passages shown, from what was measured.

    Parameters
    ----------
    source : DataFrame, Evaluation or mapping
        A results table with ``condition`` and ``hit_rate``, a coverage table (``Study.coverage()``), any table of
        ``R`` and ``hit_rate``, an `Evaluation`, or rates by store, ``{1e6: 0.1, 1e7: 0.3}``. Only retrieved rows
        count: what is measured once for each model is averaged.
    samples : DataFrame, optional
        Rows of questions with ``id, R, hit`` (and ``condition``, ``task``): draws then resample questions.
    task : str, optional
        Which task, where there are several.
    n_questions : int or array, optional
        Questions behind each rate; by default the column ``n_questions`` or ``n_examples``.
    kind : "auto", "monotone" or "hill"
        "auto" takes ``hmax R^g / (R^g + K^g)`` where its binomial deviance is within the 95 % quantile and there are at
        least 5 stores, else an isotonic curve: documents enter the store in steps, and then a smooth curve is wrong.

    Returns
    -------
    HitRateCurve

    Raises
    ------
    ResultsError
        When there are no hit rates of stores, or of several tasks, retrievers or numbers of passages at once.

    Examples
    --------
    >>> from ragscale.results import hit_rate_curve
    >>> curve = hit_rate_curve({1e6: 0.1, 1e7: 0.3, 1e8: 0.5}, n_questions=400)
    >>> float(curve(1e7))
    0.3
    """
    if kind not in {"auto", "monotone", "hill"}:
        raise ConfigError(f"kind = {kind!r} must be 'auto', 'monotone' or 'hill'")
    given: Any = source
    if hasattr(source, "results") and hasattr(source, "samples"):
        samples = given.samples if samples is None else samples
        given = given.results
    R, observed, questions = _rates(given, task, n_questions)
    hits = None if samples is None else _hits(samples, task, R)
    if hits is not None:
        observed = np.nanmean(hits, axis=0)
        questions = np.isfinite(hits).sum(axis=0).astype(float)
    curve = HitRateCurve(R=R, observed=observed, n_questions=questions, kind="monotone", hits=hits)
    enough = len(R) >= _FEWEST_FOR_HILL and np.isfinite(questions).all() and observed.max() > 0
    if kind == "monotone" or not (enough or kind == "hill"):
        return curve
    if not enough:
        raise ResultsError(
            f"kind='hill' needs {_FEWEST_FOR_HILL} stores, their n_questions and some hits; there are {len(R)}"
        )
    return _with_hill(curve, required=kind == "hill")


def _with_hill(curve: HitRateCurve, *, required: bool) -> HitRateCurve:
    """Return the Hill curve where its deviance passes (or it is asked for), else the curve with the deviance noted."""
    best = fit_hill(curve.R, curve.observed[None], curve.n_questions)[0]
    expected = np.clip(Hill(curve.R, best[None]).value(curve.R, np.zeros((), dtype=int)), 1e-12, 1 - 1e-12)
    seen = np.clip(curve.observed, 1e-12, 1 - 1e-12)
    terms = curve.observed * np.log(seen / expected) + (1 - curve.observed) * np.log((1 - seen) / (1 - expected))
    deviance, degrees = float(2 * (curve.n_questions * terms).sum()), len(curve.R) - 3
    if not required and deviance > 2 * gammaincinv(degrees / 2, _SURE):
        return replace(curve, deviance=deviance, degrees=degrees)
    found = (float(best[0]), float(best[1]), float(best[2]))
    return replace(curve, kind="hill", hill=found, deviance=deviance, degrees=degrees)


def _rates(source: Any, task: str | None, n_questions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return stores, their hit rates and questions, by rising store."""
    if isinstance(source, Mapping) and not {"R", "hit_rate"} <= set(source):
        try:
            source = {"R": [float(r) for r in source], "hit_rate": [float(h) for h in source.values()]}
        except (TypeError, ValueError) as error:
            raise ResultsError(f"hit_rate_curve: rates by store are numbers, {{1e6: 0.1}}: {error}") from error
    try:
        table: Any = pd.DataFrame(source)
    except (TypeError, ValueError) as error:
        raise ResultsError(
            f"hit_rate_curve: expected a table or rates by store, got {source!r:.80}: {error}"
        ) from error
    missing = [name for name in ("R", "hit_rate") if name not in table]
    if missing:
        shown = ", ".join(map(str, table.columns)) or "no columns"
        raise ResultsError(f"hit_rate_curve needs the columns R and hit_rate; the table has {shown}")
    table = retrieved_rows(table, task)
    R = _numbers(table["R"])
    rate = _numbers(table["hit_rate"])
    bad = np.flatnonzero(~((rate >= 0) & (rate <= 1)))
    if bad.size:
        raise ResultsError(
            f"hit_rate_curve: {bad.size} of {len(rate)} retrieved rows have no hit_rate in [0, 1], the first "
            f"{rate[bad[0]]!r} at R = {R[bad[0]]:g}"
        )
    name = next((c for c in ("n_questions", "n_examples") if c in table), None)
    count = np.full(len(R), np.nan) if name is None else _numbers(table[name])
    stores, at = np.unique(R, return_inverse=True)
    size = np.bincount(at)
    observed, questions = (np.bincount(at, weights=x) / size for x in (rate, count))
    if n_questions is not None:
        questions = np.broadcast_to(np.asarray(n_questions, dtype=float), stores.shape).copy()
    return stores, observed, questions


def retrieved_rows(table: Any, task: str | None = None) -> pd.DataFrame:
    """Return the rows that measure a retriever: passages from a store, of one task, retriever, k and source of it.

    Raises
    ------
    ResultsError
        When there are none, or they are of several kinds.
    """
    rows = table
    if task is not None:
        if "task" not in table or not (table["task"] == task).any():
            known = ", ".join(sorted(map(str, table["task"].unique()))) if "task" in table else "no column task"
            raise ResultsError(f"task = {task!r} is not in the table: {known}")
        rows = rows[rows["task"] == task]
    if "condition" in rows:
        rows = rows[~rows["condition"].isin(["closed-book", "oracle", "random"])]
    rows = rows[_numbers(rows["R"]) > 0]
    if "hit_rate" in rows and rows["hit_rate"].notna().any():
        rows = rows[rows["hit_rate"].notna()]
    if rows.empty:
        raise ResultsError("no retrieved rows with a hit_rate: evaluate with a retriever records them")
    for name in ("task", "condition", "retriever", "k", "store_source"):
        kinds = rows[name].unique() if name in rows else []
        if len(kinds) > 1:
            shown = ", ".join(map(str, kinds[:4]))
            advice = " (give task=)" if name == "task" else ""
            raise ResultsError(f"column {name!r} holds {len(kinds)} values ({shown}); a curve has one{advice}")
    return pd.DataFrame(rows)


def _hits(samples: Any, task: str | None, R: np.ndarray) -> np.ndarray:
    """Return whether each question hit in each store, (Q, K)."""
    table: Any = pd.DataFrame(samples)
    missing = [name for name in ("id", "R", "hit") if name not in table]
    if missing:
        raise ResultsError(f"samples need the columns id, R and hit; missing: {', '.join(missing)}")
    if task is not None and "task" in table:
        table = table[table["task"] == task]
    if "condition" in table:
        table = table[table["condition"] == "retrieved"]
    table = table[np.isin(table["R"].to_numpy(float), R)].drop_duplicates(["id", "R"])
    hit = _numbers(table["hit"])
    wide = pd.DataFrame(
        {"id": table["id"].to_numpy(), "R": table["R"].to_numpy(float), "hit": np.where(hit < 0, np.nan, hit)}
    )
    matrix = wide.pivot(index="id", columns="R", values="hit").reindex(columns=R).to_numpy(float)
    matrix = matrix[np.isfinite(matrix).any(axis=1)]
    unseen = R[~np.isfinite(matrix).any(axis=0)] if len(matrix) else R
    if unseen.size:
        raise ResultsError(f"samples hold no hits for the store R = {unseen[0]:g}")
    return matrix
