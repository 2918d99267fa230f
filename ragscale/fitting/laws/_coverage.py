"""The gain taken apart: how often the store holds the answer, and what a model makes of a right or a wrong passage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ResultsError
from ragscale.fitting.laws._base import BASE
from ragscale.fitting.laws._law import Parameter, Theta
from ragscale.fitting.laws._reading import EvidenceLaw

_HIT_RATES = {"closed-book": 0.0, "oracle": 1.0, "random": 0.0}
_REFERENCE = 1e6  # the N and D at which `gold` and `other` are the gains themselves


class Coverage(EvidenceLaw):
    """L = b(N, D) - h g_gold(N, D) - (1 - h) g_other(N, D) where a passage is read; b = E + A N^-alpha + B D^-beta.

    h is the column ``hit_rate``: the share of questions whose answer stands in the passages shown. It needs the
    retriever and no model. The two gains come from whatever rows are fitted: gold passages for the one; for the other
    random passages, or better those of a small store, since a retrieved passage without the answer is on the topic:

        g(N, D) = g + g_N ln(N / 1e6) + g_D ln(D / 1e6)

    Both may be negative: a wrong passage costs something, and a model that cannot read loses by any passage. Together
    they predict the loss with a store that no model was ever evaluated with. The gains are linear in ln N and ln D: a
    description over the measured range, not a law to extrapolate over decades.

    References
    ----------
    Coverage and use as two factors: Less LLM, More Documents, arXiv 2510.02657; the sum over hits and misses is the
    law of total expectation.
    """

    name = "coverage"
    formula = "E + A N^-alpha + B D^-beta - [R>0] (h g_gold(N,D) + (1-h) g_other(N,D))"
    reference = "total expectation over hits and misses; cf. arXiv 2510.02657"
    parameters = (
        *BASE,
        Parameter("gold", description="gain by passages that hold the answer, at N = D = 1e6"),
        Parameter("gold_N", description="its change for N times e"),
        Parameter("gold_D", description="its change for D times e"),
        Parameter("other", description="gain by passages that do not hold the answer, at N = D = 1e6"),
        Parameter("other_N", description="its change for N times e"),
        Parameter("other_D", description="its change for D times e"),
    )

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        hit, miss = self._shares(r)
        log_n, log_d = np.log(n / _REFERENCE), np.log(d / _REFERENCE)
        return {
            **super()._columns(theta, n, d, r),
            "gold": -hit,
            "gold_N": -hit * log_n,
            "gold_D": -hit * log_d,
            "other": -miss,
            "other_N": -miss * log_n,
            "other_D": -miss * log_d,
        }

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        hit, miss = self._shares(r)
        by_n, by_d, _ = super()._gradient(n, d, r, theta)
        log_n, log_d = np.log(n / _REFERENCE), np.log(d / _REFERENCE)
        gold = theta.gold + theta.gold_N * log_n + theta.gold_D * log_d
        other = theta.other + theta.other_N * log_n + theta.other_D * log_d
        return (
            by_n - (hit * theta.gold_N + miss * theta.other_N) / n,
            by_d - (hit * theta.gold_D + miss * theta.other_D) / d,
            -(gold - other) * self.column_slope("hit_rate", r),
        )


def coverage_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return results with the column ``hit_rate`` that the law `Coverage` reads, and ``evidence`` for ``condition``.

    A gold passage always hits (1), a random one never (0), and closed book shows nothing. Retrieved rows keep their
    measured ``hit_rate``. Rows that show a passage whatever the store (gold and random ones) get R = 1 token, so that
    the law sees that something was read; random ones, equal for every store, are kept once.

    Parameters
    ----------
    results : DataFrame
        A results table with ``condition``, and ``hit_rate`` in [0, 1] on its retrieved rows.

    Raises
    ------
    ResultsError
        Listing what is missing or out of range.

    Examples
    --------
    >>> import pandas as pd
    >>> import ragscale as rs
    >>> rows = {"N": 1e6, "D": 1e7, "R": [0, 1e6, 1e6], "condition": ["closed-book", "retrieved", "oracle"]}
    >>> table = pd.DataFrame(rows | {"hit_rate": [None, 0.3, None], "value": [3.0, 2.9, 2.5]})
    >>> rs.fitting.coverage_table(table)["hit_rate"].tolist()
    [0.0, 0.3, 1.0]
    """
    missing = [name for name in ("N", "D", "R", "value", "condition", "hit_rate") if name not in results]
    if missing:
        raise ResultsError(
            f"coverage_table needs the columns {', '.join(missing)}; evaluate with a retriever records them"
        )
    condition = results["condition"].to_numpy(dtype=str)
    unknown = sorted({str(name) for name in condition} - {*_HIT_RATES, "retrieved"})
    problems = [f"unknown condition {name!r}" for name in unknown]
    hits = np.asarray(pd.to_numeric(results["hit_rate"], errors="coerce"), dtype=float)
    stores = np.asarray(pd.to_numeric(results["R"], errors="coerce"), dtype=float)
    retrieved = condition == "retrieved"
    bad = np.flatnonzero(retrieved & (stores > 0) & ~((hits >= 0) & (hits <= 1)))
    if bad.size:
        problems.append(f"{bad.size} retrieved rows have no hit_rate in [0, 1], the first is row {bad[0]}")
    if problems:
        raise ResultsError("coverage_table: " + "; ".join(problems))
    rates = np.array([_HIT_RATES.get(name, 0.0) for name in condition])
    shown = np.isin(condition, ["oracle", "random"])
    kept = [name for name in results.columns if name in {"N", "N_total", "D", "value", "task", "metric", "seed"}]
    table = results[kept].assign(
        evidence=condition,
        hit_rate=np.where(retrieved & (stores > 0), hits, rates),
        R=np.where(shown, stores.max(), stores),
    )
    return pd.DataFrame(table.drop_duplicates(ignore_index=True))
