"""What a better retriever is worth, under a law whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import ConfigError
from ragscale.fitting import Reading

THETA = {"E": 2.0, "A": 30.0, "alpha": 0.25, "B": 60.0, "beta": 0.3, "leap": 0.2, "gold": 1.5, "other": -0.1}
SHAPE = {"D0": 1.2e7, "c": 0.1, "k": 2.5}


def good(r):
    return np.minimum(0.9, 0.2 * np.log1p(np.asarray(r) / 1e6))


def plain(r):
    return good(np.asarray(r) / 1.7)


def table(hit_rate) -> pd.DataFrame:
    law, rows = Reading(N_ref=1e7), []
    for n in (4e6, 8e6, 1.6e7, 3.2e7):
        for d in (4e6, 8e6, 1.6e7, 2.4e7, 4.4e7):
            rows += [(n, d, 0.0, 0.0, "closed-book"), (n, d, 0.0, 1.0, "oracle")]
            rows += [(n, d, r, float(hit_rate(r)), "retrieved") for r in (1e6, 4e6, 1.6e7, 3.2e7)]
    frame = pd.DataFrame(rows, columns=["N", "D", "R", "hit_rate", "condition"])
    shown = (frame["condition"] != "closed-book").to_numpy()
    skill = 1 / (1 + (SHAPE["D0"] * (frame["N"] / 1e7) ** SHAPE["c"] / frame["D"]) ** SHAPE["k"])
    h = frame["hit_rate"]
    gain = THETA["leap"] + shown * (h * THETA["gold"] + (1 - h) * THETA["other"])
    base = THETA["E"] + THETA["A"] * frame["N"] ** -THETA["alpha"] + THETA["B"] * frame["D"] ** -THETA["beta"]
    assert law.name == "reading"
    return frame.assign(value=base - skill * gain, metric="nll_per_token", task="t")


@pytest.fixture(scope="module")
def fit():
    return rs.fit_manifold(table(plain), law="reading")


def test_a_store_of_the_better_one_reads_like_a_larger_one_of_the_other(fit):
    found = rs.decisions.worth_of(good, over=plain, fit=fit, R=[1e6, 1e7, 2e7])
    np.testing.assert_allclose(found.table["R_over"] / found.table["R"], 1.7, rtol=0.02)
    assert (found.table["gain"] > 0).all()
    assert "read like 1.7e+07 with the other" in found.summary()


def test_the_gain_is_the_skill_times_the_hits_won(fit):
    row = rs.decisions.worth_of(good, over=plain, fit=fit, N=1.6e7, D=2.4e7, R=1e7).table.iloc[0]
    skill = 1 / (1 + (SHAPE["D0"] * 1.6 ** SHAPE["c"] / 2.4e7) ** SHAPE["k"])
    exact = skill * (good(1e7) - plain(1e7)) * (THETA["gold"] - THETA["other"])
    assert row["gain"] == pytest.approx(float(exact), rel=0.02)


def test_it_is_checked_on_cells_that_were_evaluated_with_both(fit):
    measured = table(good)
    cell = measured[(measured["N"] == 3.2e7) & (measured["D"] == 4.4e7) & (measured["R"] == 1.6e7)].iloc[0]
    row = rs.decisions.worth_of(good, over=plain, fit=fit, N=3.2e7, D=4.4e7, R=1.6e7).table.iloc[0]
    assert row["loss"] == pytest.approx(cell["value"], rel=2e-3)


def test_a_better_retriever_moves_the_split(fit):
    found = rs.decisions.worth_of(good, over=plain, fit=fit, N=1.6e7, budget=[3.2e7, 6.4e7])
    assert (found.splits["gain"] >= -1e-9).all()
    np.testing.assert_allclose(found.splits["D"] + found.splits["R"], found.splits["budget"], rtol=1e-6)


def test_equal_retrievers_are_worth_nothing(fit):
    found = rs.decisions.worth_of(plain, over=plain, fit=fit)
    assert (found.table["gain"] == 0).all()
    np.testing.assert_allclose(found.table["saved"], 0)


def test_a_hit_rate_that_the_other_never_reaches_is_infinite(fit):
    found = rs.decisions.worth_of(good, over=lambda r: 0.1 + 0 * np.asarray(r), fit=fit, R=1e7)
    assert np.isinf(found.table["R_over"].iloc[0])
    assert "more than any store measured" in found.summary()


def test_what_cannot_be_asked_is_refused(fit):
    smooth = rs.fit_manifold(rs.datasets.simulate("log1p", rng=0, noise=0.01), "log1p")
    with pytest.raises(ConfigError, match="law='reading'"):
        rs.decisions.worth_of(good, over=plain, fit=smooth)
    with pytest.raises(ConfigError, match="one hit rate"):
        rs.decisions.worth_of(0.4, over=plain, fit=fit)
