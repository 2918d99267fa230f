"""Very many rows: searched by a sample, fitted to all of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ragscale.fitting import Log1p
from ragscale.fitting._fit_table import fit_table
from ragscale.fitting.laws._catalogue import make_law
from ragscale.fitting.solver import _search as search

TRUTH = {"E": 1.72, "A": 406.0, "alpha": 0.34, "B": 450.0, "beta": 0.285, "C": 0.047, "eta": 1.4e-9}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    size, data = np.exp(rng.uniform(np.log(3e7), np.log(3e9), 3000)), np.exp(rng.uniform(21, 25, 3000))
    store = np.where(rng.random(3000) < 0.2, 0.0, np.exp(rng.uniform(18, 24, 3000)))
    table = pd.DataFrame({"N": size, "D": data, "R": store})
    return table.assign(value=Log1p().loss(size, data, store, TRUTH) * np.exp(0.01 * rng.standard_normal(3000)))


@pytest.mark.parametrize("law", ["log1p", "hill", "interaction", "multiplicative"])
def test_a_sample_leads_to_the_optimum_of_all_rows(
    rows: pd.DataFrame, law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_table(rows, make_law(law))
    monkeypatch.setattr(search, "_MANY", 1000)
    monkeypatch.setattr(search, "_SAMPLE", 400)
    sampled = fit_table(rows, make_law(law))
    assert sampled.objective == pytest.approx(whole.objective, rel=1e-11)
    assert sampled.theta.alpha == pytest.approx(whole.theta.alpha, rel=1e-5)


def test_near_ties_on_a_sample_are_searched_again(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_MANY", 1000)
    monkeypatch.setattr(search, "_SAMPLE", 400)
    searched: list[int] = []
    thorough = search._thorough
    monkeypatch.setattr(search, "_thorough", lambda *a: (searched.append(len(a[0].table.n)), thorough(*a))[1])
    fit_table(rows, make_law("log1p"))
    once = len(searched)
    monkeypatch.setattr(search, "_is_rugged", lambda solution: True)
    fit_table(rows, make_law("log1p"))
    assert set(searched) == {400}
    assert len(searched) - once == 2 > once == 1
