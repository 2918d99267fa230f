"""Which rows of a table a law can read: closed-book and retrieved ones, and gold ones where it knows what was shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError, FitError, ResultsError
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.results import HitRateCurve, hit_rate_curve

CLOSED, RETRIEVED, GOLD, RANDOM = "closed-book", "retrieved", "oracle", "random"
_SPELLINGS = {
    "closed book": CLOSED,
    "closed_book": CLOSED,
    "closedbook": CLOSED,
    "no retrieval": CLOSED,
    "none": CLOSED,
    "gold": GOLD,
}


def reads_evidence(law: ScalingLaw) -> bool:
    """Say whether a law knows what was shown: whether it reads ``hit_rate``."""
    return "hit_rate" in law.further_columns


def conditions(table: Any) -> np.ndarray:
    """Return the condition of each row; where the table has none, R says whether a store was read."""
    by_store = np.where(table["R"].to_numpy(float) > 0, RETRIEVED, CLOSED).astype(object)
    if "condition" not in table:
        return by_store
    given = table["condition"]
    named = given.astype(str).str.strip().str.lower().map(lambda name: _SPELLINGS.get(name, name))
    return np.where(given.isna().to_numpy(), by_store, named.to_numpy(dtype=object))


def rows_for(table: Any, law: ScalingLaw) -> tuple[pd.DataFrame, np.ndarray, str]:
    """Return the rows that a law can be fitted to, where they stand, and in words what was left out.

    What is shown goes by ``condition``, not by R: closed-book rows count as R = 0. A law that reads ``hit_rate`` gets
    gold rows too (1), and random ones (0) only where no retrieved row says what a passage without the answer does.

    Raises
    ------
    ResultsError
        When two kinds of retrieval would be averaged, or retrieved rows have no ``hit_rate`` in [0, 1].
    FitError
        When no passage ever held the answer.
    """
    kind = conditions(table)
    shown = [name for name in dict.fromkeys(kind.tolist()) if name not in {CLOSED, GOLD, RANDOM}]
    if len(shown) > 1:
        raise ResultsError(
            f"column 'condition' holds {len(shown)} kinds of retrieval ({', '.join(map(str, shown))}), a surface has "
            "one: choose rows first, e.g. results[results['condition'].isin(['closed-book', 'retrieved'])]"
        )
    evidence = reads_evidence(law)
    wanted = [CLOSED, *shown]
    if evidence:
        wanted += [GOLD] if shown else [GOLD, RANDOM]
    elif not shown:
        controls = [name for name in (GOLD, RANDOM) if name in kind]
        if len(controls) > 1:
            raise ResultsError(
                f"the law {law.name!r} knows no gold and no random passages, and the table has both but no retrieved "
                "rows: fit law='reading', or choose one condition"
            )
        wanted += controls
    kept = np.isin(kind, wanted)
    rows: Any = pd.DataFrame(table[kept]).reset_index(drop=True)
    kind_kept = kind[kept]
    stores = rows["R"].to_numpy(float)
    rows["R"] = np.where(kind_kept == CLOSED, 0.0, stores)
    if evidence:
        rows = _with_hit_rates(rows, kind_kept, law)
    left = {name: int((kind == name).sum()) for name in dict.fromkeys(kind[~kept].tolist())}
    words = ", ".join(f"{count} {name}" for name, count in left.items())
    return rows, kept, f"{words} rows left out: {_why(law)}" if left else ""


def _why(law: ScalingLaw) -> str:
    if reads_evidence(law):
        return f"the law {law.name!r} learns what a passage without the answer does from retrieved rows"
    return f"the law {law.name!r} does not know what was shown"


def _with_hit_rates(rows: Any, kind: np.ndarray, law: ScalingLaw) -> pd.DataFrame:
    stores = rows["R"].to_numpy(float)
    if "hit_rate" in rows:
        given = np.asarray(pd.to_numeric(rows["hit_rate"], errors="coerce"), dtype=float)
    else:
        given = np.full(len(rows), np.nan)
    rate = np.where(kind == GOLD, np.where(np.isnan(given), 1.0, given), given)
    if "condition" in rows:
        rate = np.where((kind == CLOSED) | (kind == RANDOM), 0.0, rate)
    else:
        rate = np.where((stores == 0) & np.isnan(rate), 0.0, rate)
    bad = np.flatnonzero(~((rate >= 0) & (rate <= 1)))
    if bad.size:
        raise ResultsError(
            f"the law {law.name!r} reads hit_rate, the share of questions whose answer was shown: {bad.size} rows have "
            f"none in [0, 1], the first at N = {rows['N'].iloc[bad[0]]:g}, D = {rows['D'].iloc[bad[0]]:g}, "
            f"R = {stores[bad[0]]:g}; evaluate with a retriever records it"
        )
    if not rate.any():
        raise FitError(
            f"hit_rate is 0 in every row: no passage held the answer, so the law {law.name!r} cannot tell what one "
            "is worth; measure gold passages (condition 'oracle'), a larger store, or fit law='chinchilla'"
        )
    nothing = stores[stores > 0]
    largest = float(nothing.max()) if nothing.size else float(rows["D"].max())
    # a random passage was shown although no store was asked; the law tells that by R > 0
    rows["R"] = np.where((kind == RANDOM) & (stores == 0), largest, stores)
    rows["hit_rate"] = rate
    return rows


def measured_curve(table: Any) -> HitRateCurve | None:
    """Return h(R) as the retrieved rows of a table measure it, None where they do not."""
    if "hit_rate" not in table:
        return None
    retrieved = table[(conditions(table) == RETRIEVED) & (table["R"].to_numpy(float) > 0)]
    rates = np.asarray(pd.to_numeric(retrieved["hit_rate"], errors="coerce"), dtype=float)
    if not len(rates) or not np.all((rates >= 0) & (rates <= 1)):
        return None
    names = [name for name in ("R", "hit_rate", "n_questions", "n_examples") if name in retrieved]
    return hit_rate_curve(retrieved[names])


def as_hit_rate(value: Any) -> Any:
    """Return what ``hit_rate=`` was given as a function of R or as numbers: a curve, a callable, a table or rates."""
    if value is None or callable(value):
        return value
    if np.isscalar(value) or isinstance(value, np.ndarray):
        rates = np.asarray(value)
        if rates.dtype.kind not in "iuf" or not np.all((rates >= 0) & (rates <= 1)):
            raise ConfigError(f"hit_rate = {value!r:.60} must be shares of questions, from 0 to 1")
        return value
    return hit_rate_curve(value)
