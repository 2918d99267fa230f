"""Prices of tokens from what a deployment costs in money."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ragscale.decisions._arguments import counts, refuse


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    r"""What training, storing and querying cost, in one currency.

    A pretraining token of a model of N parameters costs :math:`p_D = 6 N c_F`, since training takes 6 N FLOPs a token.
    A store token costs :math:`p_R = m\, c_S + Q\, c_Q`: it is kept for m months, and it makes each of Q queries dearer
    by :math:`c_Q` (an exhaustive search scans every token; an approximate one costs nearly nothing more).

    Parameters
    ----------
    training_flop : float
        Money for one training FLOP that is really done: price of an accelerator hour / (3600 x peak FLOP/s x MFU).
    storage_token_month : float
        Money to keep one store token, its text and its vectors or postings, for a month.
    query : float
        Money by which one more store token makes one query dearer.
    months, queries : float
        How long the system runs, and how many queries it answers in all.
    training_token, store_token : float
        Further money per token of each kind, such as a licence or making the index once; 0 by default.

    Examples
    --------
    An H100 at 2 dollars an hour and 40 % of 989 TFLOP/s, and 1 GB of memory at 0.5 dollars a month for 2e8 tokens:

    >>> costs = Costs(training_flop=2 / (3600 * 989e12 * 0.4), storage_token_month=0.5 / 2e8, months=24)
    >>> {kind: f"{price:.2g}" for kind, price in costs.prices(N=1e9).items()}
    {'D': '8.4e-09', 'R': '6e-08'}
    >>> import ragscale as rs
    >>> law = {"E": 1.7, "A": 406, "alpha": 0.34, "B": 411, "beta": 0.28, "C": 0.05, "eta": 1e-9}
    >>> best = rs.optimal_allocation(("log1p", law), N=1e9, budget=5000, prices=costs.prices(N=1e9))
    >>> f"{best.D:.3g} tokens to train on, {best.R:.3g} to store, {best.share:.2f} of the money"
    '3.45e+11 tokens to train on, 3.48e+10 to store, 0.42 of the money'
    """

    training_flop: float
    storage_token_month: float
    query: float = 0.0
    months: float = 12.0
    queries: float = 0.0
    training_token: float = 0.0
    store_token: float = 0.0

    def __post_init__(self) -> None:
        problems: list[str] = []
        free = ("query", "queries", "storage_token_month", "months", "training_token", "store_token")
        counts(problems, allow_zero=free, **{name: getattr(self, name) for name in ("training_flop", *free)})
        refuse(problems, "Costs")

    def prices(self, N: ArrayLike) -> dict[str, Any]:
        """Return ``{"D": p_D, "R": p_R}`` for models of N parameters, in money per token; the ``prices=`` of decisions.

        Raises
        ------
        ConfigError
            When N is no count, or a store token costs nothing.
        """
        problems: list[str] = []
        n = counts(problems, N=N).get("N", np.ones(()))
        store = self.months * self.storage_token_month + self.queries * self.query + self.store_token
        if store <= 0:
            problems.append("a store token costs nothing: give storage_token_month, query or store_token")
        refuse(problems, "Costs.prices")
        data = 6.0 * n * self.training_flop + self.training_token
        return {"D": float(data) if data.ndim == 0 else data, "R": store}
