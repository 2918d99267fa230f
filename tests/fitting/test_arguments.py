"""Arguments of a wrong type are answered by name, never by an error from inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ragscale as rs
from ragscale.datasets import simulate

TABLE = simulate("log1p", noise=0.01, rng=0).query("N < 4e8 and R <= 2e9").reset_index(drop=True)
WRONG = [None, 3, [1], {"a": 1}, b"x", object(), TABLE, np.zeros(2), float("nan")]
ACCEPTED = {
    "delta": (int,),
    "shared": (type(None),),
    "over": (type(None),),
    "hit_rate": (type(None), np.ndarray),
    "laws": (type(None),),
    "rng": (type(None), int, list),
    "leave_out": (int,),
}

ASK = {
    "law": lambda wrong: rs.fit_manifold(TABLE, wrong),
    "link": lambda wrong: rs.fit_manifold(TABLE, "log1p", link=wrong),
    "delta": lambda wrong: rs.fit_manifold(TABLE, "log1p", delta=wrong),
    "loss": lambda wrong: rs.fit_manifold(TABLE, "log1p", loss=wrong),
    "tau": lambda wrong: rs.fit_manifold(TABLE, "log1p", loss="quantile", tau=wrong),
    "space": lambda wrong: rs.fit_manifold(TABLE, "log1p", space=wrong),
    "seed_average": lambda wrong: rs.fit_manifold(TABLE, "log1p", seed_average=wrong),
    "N": lambda wrong: rs.fit_manifold(TABLE, "log1p", N=wrong),
    "value": lambda wrong: rs.fit_manifold(TABLE, "log1p", value=wrong),
    "over": lambda wrong: rs.fit_manifold(TABLE, "log1p", over=wrong),
    "shared": lambda wrong: rs.fit_manifold(TABLE.assign(task="a"), "log1p", over="task", shared=wrong),
    "hit_rate": lambda wrong: rs.fit_manifold(TABLE, "log1p", hit_rate=wrong),
    "laws": lambda wrong: rs.compare_laws(TABLE, wrong, held_out=False),
    "leave_out": lambda wrong: rs.cross_validate(TABLE, "log1p", leave_out=wrong),
}


@pytest.mark.parametrize("name", ASK)
def test_a_wrong_type_is_named(name: str) -> None:
    for wrong in WRONG:
        if isinstance(wrong, ACCEPTED.get(name, ())):
            continue
        with pytest.raises(rs.RagscaleError, match=r"\w{4,}"):
            ASK[name](wrong)


@pytest.mark.parametrize("rate", [1.5, -0.1, float("nan"), "0.5", np.array([0.2, 3.0])])
def test_a_hit_rate_is_a_share(rate: Any) -> None:
    with pytest.raises(rs.RagscaleError, match="hit_rate"):
        rs.fit_manifold(TABLE, "log1p", hit_rate=rate)


@pytest.mark.parametrize("count", [True, "1e9", [True, False], 1 + 2j, np.datetime64("2024-01-01")])
def test_a_prediction_is_asked_for_at_counts(count: Any) -> None:
    fit = rs.fit_manifold(TABLE, "log1p")
    with pytest.raises(rs.errors.ConfigError, match="N is not numeric"):
        fit.predict(count, 1e9, 0.0)
