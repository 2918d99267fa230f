"""Made-up results of models that begin to read at a threshold, with every condition measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ragscale._typing import RngLike
from ragscale.fitting import Reading
from ragscale.fitting.laws._law import Theta

SIZES = (4e6, 6e6, 1.1e7, 2.3e7, 3.8e7)
TOKENS = (4e6, 8e6, 1.6e7, 2.4e7, 3.2e7, 4.4e7)
STORES = (1e6, 4e6, 1.6e7, 3.2e7)
READS: Mapping[str, float] = {
    "E": 1.5, "A": 60.0, "alpha": 0.3, "B": 400.0, "beta": 0.35, "D0": 1.2e7, "c": 0.2, "k": 3.0,
    "N_ref": 1e7, "leap": 0.3, "gold": 1.5, "other": -0.08,
}  # fmt: skip


def simulate_reading(
    params: Mapping[str, float] | None = None,
    *,
    N: Sequence[float] = SIZES,
    D: Sequence[float] = TOKENS,
    R: Sequence[float] = STORES,
    hit_rate: Callable[[np.ndarray], Any] | None = None,
    random: float = -0.15,
    model_noise: float = 0.0,
    row_noise: float = 0.0,
    n_questions: int | None = None,
    gold: bool = True,
    gain: Callable[[np.ndarray, np.ndarray, np.ndarray], Any] | None = None,
    rng: RngLike = None,
) -> pd.DataFrame:
    """Make a results table of the law `Reading` with the conditions closed-book, oracle, retrieved and random.

    Parameters
    ----------
    params : mapping, optional
        Parameters of the law ``reading``; those left out keep their default.
    N, D, R : sequence of float
        Sizes, pretraining tokens and stores; every model is evaluated with every store.
    hit_rate : callable, optional
        h(R); by default 0.6 R / (R + 3e7).
    random : float
        Gain of a reader by a random passage.
    model_noise, row_noise : float
        Relative standard deviation of what all rows of a model share, and of each row's own.
    n_questions : int, optional
        Draw the hit rates from so many questions, the same for every store; by default they are exact.
    gold : bool
        Whether gold passages are measured.
    gain : callable, optional
        Gain of a store g(N, D, R) instead of reading: a smooth world, in which gold passages are worth g of the largest
        store and random ones nothing.
    rng : int, Generator or None

    Returns
    -------
    DataFrame
        A results table; ``attrs["params"]`` are the parameters, ``attrs["hit_rate"]`` is h(R).

    Examples
    --------
    >>> table = simulate_reading(rng=0)
    >>> table.groupby("condition").size().to_dict()
    {'closed-book': 30, 'oracle': 30, 'random': 120, 'retrieved': 120}
    """
    theta = Theta({**READS, **(params or {})})
    generator = np.random.default_rng(rng)
    curve = hit_rate or (lambda r: 0.6 * r / (r + 3e7))
    stores = np.sort(np.asarray(R, dtype=float))
    true = np.asarray(curve(stores), dtype=float)
    measured, questions = _measured(true, n_questions, generator)
    law = Reading()
    rows = []
    for n in N:
        for d in D:
            none = float(law.loss(n, d, 0.0, theta, hit_rate=0.0))
            skill = float(law.skill(theta, np.asarray(n), np.asarray(d)))
            smooth = None if gain is None else np.asarray(gain(np.asarray(n), np.asarray(d), stores), dtype=float)
            shared = generator.normal(0.0, model_noise)
            cells = [("closed-book", 0.0, np.nan, none)]
            if gold:
                worth = skill * theta.gold if smooth is None else smooth[-1]
                cells.append(("oracle", 0.0, 1.0, none - worth))
            for i, r in enumerate(stores):
                worth = skill * (true[i] * theta.gold + (1 - true[i]) * theta.other) if smooth is None else smooth[i]
                cells.append(("retrieved", r, measured[i], none - worth))
                cells.append(("random", r, 0.0, none - (skill * random if smooth is None else 0.0)))
            for condition, r, h, loss in cells:
                value = loss * np.exp(shared + generator.normal(0.0, row_noise))
                rows.append((n, d, r, value, condition, h, questions))
    names = ["N", "D", "R", "value", "condition", "hit_rate", "n_examples"]
    table = pd.DataFrame(rows, columns=names).assign(task="made", metric="nll_per_token")
    table.attrs = {"params": dict(theta), "hit_rate": curve}
    return table


def _measured(true: np.ndarray, n_questions: int | None, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return the hit rates that so many questions give: each question is answered from one store size on."""
    if n_questions is None:
        return true, 1000.0
    steps = np.diff(np.concatenate([[0.0], true, [1.0]]))
    return np.cumsum(rng.multinomial(n_questions, steps))[:-1] / n_questions, float(n_questions)
