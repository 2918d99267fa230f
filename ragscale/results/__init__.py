"""The results table: one row per (N, D, R, task, metric, seed, condition), checked before anything is fitted to it.

A results table is a plain `pandas.DataFrame`. Required columns: ``N`` (parameters), ``D`` (pretraining tokens), ``R``
(tokens in the retrieval store, 0 without retrieval) and ``value``; N, D and R are counts, never billions or ratios.
Usual: ``task``, ``metric``, ``seed``. Optional: ``N_total, stderr, n_examples, k, retriever, condition, flops, split,
run``. Any further column is kept and tells rows apart.
"""

from ragscale.results._append import append
from ragscale.results._direction import higher_is_better
from ragscale.results._files import read, write
from ragscale.results._hit_rate import HitRateCurve, HitRateDraws, hit_rate_curve
from ragscale.results._lm_eval import read_lm_eval
from ragscale.results._paper import read_paper_csv
from ragscale.results._result import Result
from ragscale.results._seeds import average_seeds
from ragscale.results._select import select
from ragscale.results._table import OPTIONAL, REQUIRED, validate

__all__ = [
    "OPTIONAL",
    "REQUIRED",
    "HitRateCurve",
    "HitRateDraws",
    "Result",
    "append",
    "average_seeds",
    "higher_is_better",
    "hit_rate_curve",
    "read",
    "read_lm_eval",
    "read_paper_csv",
    "select",
    "validate",
    "write",
]
