"""The direct laws by their authors' rule and residual: figures on the OLMo ladder, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ragscale import datasets
from ragscale.errors import ConfigError, FitError, ResultsError
from ragscale.fitting import laws

LAW = laws.DirectCompute(chance=0.25)


def ladder(task: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the smallest 80 % of the runs by compute, and the rest."""
    runs = datasets.load("olmo_ladder").query(f"metric == 'accuracy_len_norm' and task == '{task}_rc_5shot'")
    order = np.argsort((runs["N"] * runs["D"]).to_numpy(), kind="stable")
    cut = round(0.8 * len(order))
    return runs.iloc[order[:cut]], runs.iloc[order[cut:]]


@pytest.mark.parametrize(("part", "points"), [("val", 1.41), ("test", 0.72)])
def test_arc_challenge_is_predicted_as_the_authors_rule_predicts_it(part, points):
    # a straight line through log(-log Q) of the rows 5 points above chance, by numpy.polyfit: 1.41 and 0.72 points
    rows, held = ladder(f"arc_challenge_{part}")
    found = laws.fit_direct(rows, LAW)
    error = 100 * np.abs(found.predict(held["N"], held["D"]) - held["value"]).mean()
    assert error == pytest.approx(points, abs=0.02)
    above = rows[rows["value"] >= 0.30]
    log_c = np.log(6 * above["N"] * above["D"] / 1e21)
    slope, level = np.polyfit(log_c, np.log(-np.log((above["value"] - 0.25) / 0.75)), 1)
    assert found.theta["alpha"] == pytest.approx(-slope, rel=1e-6)
    assert found.theta["A"] == pytest.approx(np.exp(level), rel=1e-6)
    assert found.left_out == len(rows) - len(above)


def test_what_made_the_table_is_found_with_a_ceiling_and_for_tries():
    rng = np.random.default_rng(0)
    n = np.geomspace(1e8, 1e11, 30)
    table = pd.DataFrame(
        {"N": n, "D": 20 * n * np.exp(rng.uniform(-1, 1, 30)), "n_samples": 2.0 ** rng.integers(0, 6, 30)}
    )
    bent = laws.DirectDownstream(chance=0.25, ceiling=True)
    theta = {"A": 0.5, "alpha": 0.3, "B": 0.9, "beta": 0.4, "E": 0.1}
    found = laws.fit_direct(table.assign(value=bent.loss(table["N"], table["D"], 0, theta)), bent)
    ahead = bent.loss(1e12, 2e13, 0, theta)
    assert found.predict(1e12, 2e13) == pytest.approx(ahead, abs=2e-4)
    tries = laws.PassAtK()
    theta = {"A": 2.0, "alpha": -0.2, "beta": -0.3, "delta": -0.02}
    values = tries.loss(table["N"], table["D"], 0, theta, n_samples=table["n_samples"])
    found = laws.fit_direct(table.assign(value=values), tries, margin=0.01)
    assert found.theta["beta"] == pytest.approx(-0.3, abs=1e-4)
    assert found.predict(1e10, 1e11, n_samples=4.0) == pytest.approx(
        tries.loss(1e10, 1e11, 0, theta, n_samples=4.0), abs=1e-5
    )


def test_the_librarys_residual_on_the_same_rows():
    rows, _ = ladder("arc_challenge_test")
    found = laws.fit_direct(rows, LAW, residual="accuracy")
    assert found.left_out == laws.fit_direct(rows, LAW).left_out
    assert found.theta["alpha"] != pytest.approx(laws.fit_direct(rows, LAW).theta["alpha"], rel=1e-4)


def test_wrong_arguments_and_tables_are_named():
    rows, _ = ladder("arc_challenge_test")
    with pytest.raises(ConfigError, match="DirectCompute"):
        laws.fit_direct(rows, "direct_compute")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"margin = 1.5.*residual = 'log'"):
        laws.fit_direct(rows, LAW, margin=1.5, residual="log")  # type: ignore[arg-type]
    with pytest.raises(ResultsError, match="value"):
        laws.fit_direct(rows.drop(columns="value"), LAW)
    with pytest.raises(ResultsError, match="no accuracies"):
        laws.fit_direct(rows.assign(value=100 * rows["value"]), LAW)
    with pytest.raises(FitError, match="above chance"):
        laws.fit_direct(rows, LAW, margin=0.7)
