"""The gain taken apart: fitted to gold, random and closed-book rows, it predicts stores that nobody evaluated."""

import numpy as np
import pandas as pd
import pytest

from ragscale import fit_manifold
from ragscale.errors import ResultsError
from ragscale.fitting import Coverage, coverage_table
from ragscale.testing import check_scaling_law

TRUTH = {
    "E": 1.5, "A": 60.0, "alpha": 0.3, "B": 400.0, "beta": 0.4,
    "gold": 0.25, "gold_N": 0.03, "gold_D": 0.05, "other": 0.05, "other_N": -0.01, "other_D": 0.02,
}  # fmt: skip
HIT = {100_000: 0.1, 1_000_000: 0.35, 10_000_000: 0.7}


def made_results(noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for n in np.geomspace(1e5, 1e7, 5):
        for d in np.geomspace(1e6, 1e8, 6):
            cells = [("closed-book", 0, np.nan), ("oracle", 0, 1.0)]
            cells += [(condition, r, h) for r, h in HIT.items() for condition in ("retrieved", "random")]
            unrelated = rng.normal()
            for condition, store, hit in cells:
                rate = {"closed-book": 0.0, "oracle": 1.0, "random": 0.0}.get(condition, hit)
                shown = store if condition != "oracle" else 1e6
                value = float(Coverage().loss(n, d, shown, TRUTH, hit_rate=rate))
                error = unrelated if condition == "random" else rng.normal()
                rows.append(
                    {"N": n, "D": d, "R": float(store), "value": value * np.exp(noise * error), "seed": 0,
                     "condition": condition, "hit_rate": hit}
                )  # fmt: skip
    return pd.DataFrame(rows)


def test_the_law_keeps_every_promise_of_a_scaling_law():
    assert check_scaling_law(Coverage)


def test_retrieved_cells_are_predicted_without_having_seen_a_store():
    table = coverage_table(made_results())
    seen = table[table["evidence"] != "retrieved"].reset_index(drop=True)
    unseen = table[table["evidence"] == "retrieved"]
    fit = fit_manifold(seen, Coverage())
    assert len(fit.data) == len(seen)
    predicted = fit.predict(unseen["N"], unseen["D"], unseen["R"], hit_rate=unseen["hit_rate"])
    np.testing.assert_allclose(predicted, unseen["value"], rtol=1e-6)
    for name, value in TRUTH.items():
        assert fit.theta[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_noise_changes_the_prediction_by_less_than_itself():
    table = coverage_table(made_results(noise=0.01, seed=1))
    fit = fit_manifold(table[table["evidence"] != "retrieved"].reset_index(drop=True), Coverage())
    unseen = table[table["evidence"] == "retrieved"]
    truth = Coverage().loss(unseen["N"], unseen["D"], unseen["R"], TRUTH, hit_rate=unseen["hit_rate"])
    predicted = fit.predict(unseen["N"], unseen["D"], unseen["R"], hit_rate=unseen["hit_rate"])
    assert np.abs(predicted / truth - 1).mean() < 0.007


def test_random_rows_count_once_and_closed_book_shows_nothing():
    table = coverage_table(made_results())
    counts = table["evidence"].value_counts()
    assert counts.to_dict() == {"retrieved": 90, "closed-book": 30, "oracle": 30, "random": 30}
    assert (table.loc[table["evidence"] == "closed-book", "R"] == 0).all()
    assert (table.loc[table["evidence"].isin(["oracle", "random"]), "R"] > 0).all()


def test_every_problem_of_the_table_is_named():
    results = made_results()
    with pytest.raises(ResultsError, match="condition, hit_rate"):
        coverage_table(results.drop(columns=["condition", "hit_rate"]))
    results.loc[results["condition"] == "retrieved", "hit_rate"] = 1.5
    results.loc[0, "condition"] = "guessed"
    with pytest.raises(ResultsError, match=r"(?s)unknown condition 'guessed'.*90 retrieved rows"):
        coverage_table(results)
