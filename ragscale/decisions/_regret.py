"""What a recommended split costs under each of the laws that fit equally well."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ragscale.decisions._surface import Pooled, Surface


class Regret(NamedTuple):
    """How much worse the recommended split is than the best one under the law that is true, over the laws that tie.

    Attributes
    ----------
    expected, worst : float
        Weighted mean over the laws, and the largest, in the unit of the metric; over several budgets the largest.
    expected_percent, worst_percent : float
        The same in percent of what the best split gains over spending everything on pretraining; NaN where nothing is
        gained.
    """

    expected: float
    worst: float
    expected_percent: float
    worst_percent: float


def law_table(
    found: Surface, pooled: Pooled, flat: dict[str, np.ndarray], all_in: np.ndarray, unit: str
) -> tuple[pd.DataFrame, Regret | None]:
    """Return each law's own best split with the regret of the recommended one under it, and the regrets' summary."""
    if not found.members:
        return pd.DataFrame(), None
    n, d, r = (pooled.stacked[name][0] for name in ("N", "D", "R"))
    parts, regrets, gains = [], [], []
    for member in found.members:
        own = pooled.laws[member.name]
        law, sign = member.at_point(), -1.0 if member.rises else 1.0

        best, here, without = (
            member.signed(np.ravel(law.loss(*at, member.theta)))
            for at in ((own["N"], own["D"], own["R"]), (n, d, r), (n, all_in, np.zeros_like(all_in)))
        )
        regret, gain = np.maximum(here - best, 0.0), without - best
        regrets.append(regret)
        gains.append(np.maximum(gain, 0.0))
        frame = {"law": member.name, "weight": member.weight, "N": own["N"], "budget": flat["budget"]}
        frame |= {name: own[name] for name in ("D", "R")}
        with np.errstate(invalid="ignore"):
            spent = flat["p_R"] * own["R"] / flat["budget"] if unit == "tokens" else own["R"] / (own["D"] + own["R"])
        frame |= {"share": spent, "loss": sign * best, "boundary": own["boundary"]}
        parts.append(pd.DataFrame({**frame, "regret": regret}))
    weights = np.array([member.weight for member in found.members])[:, None]
    expected, worst = (weights * regrets).sum(axis=0), np.max(regrets, axis=0)
    gain = (weights * gains).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        percent = np.where(gain > 0, 100 / gain, np.nan)
    at = int(np.argmax(worst))
    summary = Regret(
        expected=float(expected.max()),
        worst=float(worst[at]),
        expected_percent=float((expected * percent)[at]),
        worst_percent=float((worst * percent)[at]),
    )
    return pd.concat(parts, ignore_index=True), summary
