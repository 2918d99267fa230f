"""The law of reading: its limits, its options, and what it reads of a table."""

import numpy as np
import pandas as pd
import pytest

from ragscale import fit_manifold
from ragscale.datasets import simulate_reading
from ragscale.datasets._reading import READS
from ragscale.errors import ConfigError, FitError, ResultsError
from ragscale.fitting import Bounded, Chinchilla, Coverage, ManifoldFit, Reading
from ragscale.testing import check_scaling_law

TRUTH = dict(READS)
BASE = {name: TRUTH[name] for name in ("E", "A", "alpha", "B", "beta")}


def table_of(gold_R=0.0, conditions=True, noise=0.0, seed=0):
    """Return the results of 30 models: closed book, gold passages, four stores, and random passages."""
    frame = simulate_reading(model_noise=noise, row_noise=noise / 2, rng=seed)
    frame.loc[frame["condition"] == "oracle", "R"] = gold_R
    if not conditions:
        frame = frame[frame["condition"].isin(["closed-book", "retrieved"])].drop(columns="condition")
    return frame.reset_index(drop=True)


@pytest.mark.parametrize("options", [{}, {"c": 0.0, "leap": False, "offset": True}])
def test_the_law_keeps_every_promise_of_a_scaling_law(options):
    assert "a_fit_finds_the_surface_again" in check_scaling_law(Reading(**options))


def test_a_reader_of_everything_is_coverage_with_constant_gains():
    theta = {**TRUTH, "D0": 1e-3, "leap": 0.0}
    flat = {**BASE, "gold": TRUTH["gold"], "gold_N": 0.0, "gold_D": 0.0}
    flat |= {"other": TRUTH["other"], "other_N": 0.0, "other_D": 0.0}
    n, d, r = np.meshgrid([1e6, 1e8], [1e7, 1e9], [0.0, 1e6], indexing="ij")
    np.testing.assert_allclose(
        Reading().loss(n, d, r, theta, hit_rate=0.3 * (r > 0)),
        Coverage().loss(n, d, r, flat, hit_rate=0.3 * (r > 0)),
        rtol=1e-12,
    )


def test_a_threshold_beyond_all_data_is_chinchilla():
    n, d, r = np.meshgrid([1e6, 1e8], [1e7, 1e9], [0.0, 1e6], indexing="ij")
    far = Reading().loss(n, d, r, {**TRUTH, "D0": 1e30, "c": 0.0}, hit_rate=0.5)
    np.testing.assert_allclose(far, Chinchilla().loss(n, d, r, BASE), rtol=1e-12)


def test_a_model_of_the_reference_size_reads_half_at_the_threshold():
    law = Reading(N_ref=1e7)
    theta = law.theta({k: v for k, v in TRUTH.items() if k != "N_ref"})
    assert law.skill(theta, np.array(1e7), np.array(TRUTH["D0"])) == pytest.approx(0.5)
    at = law.threshold(theta, np.array(4e7))
    assert at == pytest.approx(TRUTH["D0"] * 4**0.2)
    assert law.skill(theta, np.array(4e7), at) == pytest.approx(0.5)


@pytest.mark.parametrize("gold_R", [0.0, 1e6, 5e7])
def test_gold_rows_may_carry_any_store(gold_R):
    fit = fit_manifold(table_of(gold_R=gold_R), "reading")
    for name, value in TRUTH.items():
        assert fit.theta[name] == pytest.approx(value, rel=1e-3), name
    assert fit.left_out.startswith("120 random rows left out")
    assert float(fit.predict(1.1e7, 1.6e7, 0, hit_rate=1)) == pytest.approx(
        float(Reading().loss(1.1e7, 1.6e7, 1e6, TRUTH, hit_rate=1)), rel=1e-4
    )


def test_what_was_shown_goes_by_the_condition_not_by_the_store():
    table = table_of()
    table.loc[table["condition"] == "closed-book", "R"] = 1.6e7
    fit = fit_manifold(table, "reading")
    assert fit.theta["gold"] == pytest.approx(TRUTH["gold"], rel=1e-3)
    smooth = fit_manifold(table, "log1p")
    assert (smooth.data.loc[smooth.data["condition"] == "closed-book", "R"] == 0).all()


def test_a_law_without_conditions_takes_closed_book_and_retrieved_rows_and_says_so():
    fit = fit_manifold(table_of(), "log1p")
    assert set(fit.data["condition"]) == {"closed-book", "retrieved"}
    assert "30 oracle, 120 random rows left out" in fit.left_out
    assert fit.left_out in fit.summary()


def test_two_kinds_of_retrieval_are_never_averaged():
    table = table_of()
    other = table[table["condition"] == "retrieved"].assign(condition="reranked")
    with pytest.raises(ResultsError, match=r"2 kinds of retrieval \(retrieved, reranked\)"):
        fit_manifold(pd.concat([table, other]), "log1p")


def test_without_conditions_the_store_says_what_was_shown():
    fit = fit_manifold(table_of(conditions=False), "reading")
    assert fit.theta["gold"] == pytest.approx(TRUTH["gold"], rel=1e-2)


def test_random_passages_stand_for_misses_only_where_nothing_was_retrieved():
    table = table_of()
    fit = fit_manifold(table[table["condition"] != "retrieved"], "reading")
    assert fit.theta["other"] == pytest.approx(TRUTH["other"], abs=0.15)
    assert set(fit.data["condition"]) == {"closed-book", "oracle", "random"}


@pytest.mark.parametrize("law", ["reading", "coverage"])
def test_a_table_in_which_nothing_was_ever_found_is_refused(law):
    table = table_of()
    table = table[table["condition"] != "oracle"].assign(hit_rate=0.0)
    with pytest.raises(FitError, match="hit_rate is 0 in every row"):
        fit_manifold(table, law)


def test_retrieved_rows_without_a_hit_rate_are_named():
    table = table_of()
    table.loc[table["condition"] == "retrieved", "hit_rate"] = np.nan
    with pytest.raises(ResultsError, match="120 rows have none in"):
        fit_manifold(table, "reading")


@pytest.mark.parametrize(
    ("metric", "link"),
    [("nll_per_token", "identity"), ("perplexity", "log"), ("accuracy", "bounded")],
)
def test_the_skill_is_the_same_whatever_the_metric(metric, link):
    table = table_of()
    value = table["value"].to_numpy()
    made = {"identity": value, "log": np.exp(value), "bounded": Bounded(direction="up").metric(value)}[link]
    fit = fit_manifold(table.assign(value=made, metric=metric), "reading")
    assert fit.link.name == link
    assert fit.theta["D0"] == pytest.approx(TRUTH["D0"], rel=5e-3)
    assert fit.theta["k"] == pytest.approx(TRUTH["k"], rel=2e-2)


def test_options_hold_parameters_and_survive_a_file(tmp_path):
    fit = fit_manifold(table_of(noise=0.003), Reading(c=0.0, leap=False))
    assert fit.theta["c"] == 0.0 == fit.theta["leap"]
    assert fit.law.fixed["N_ref"] == 1e7
    fit.to_json(tmp_path / "fit.json")
    again = ManifoldFit.from_json(tmp_path / "fit.json")
    assert again.law == fit.law
    np.testing.assert_array_equal(again.predict(1e7, 2e7, [1e6, 2e7]), fit.predict(1e7, 2e7, [1e6, 2e7]))
    with pytest.raises(ConfigError, match="c = 'fre'"):
        Reading(c="fre")
    with pytest.raises(ConfigError, match="N_ref = -1"):
        Reading(N_ref=-1.0)


def test_a_fit_predicts_with_the_measured_curve_and_any_other():
    fit = fit_manifold(table_of(), "reading")
    at = fit.predict(1.1e7, 2.4e7, [1e6, 1e7, 2e8])
    np.testing.assert_allclose(at, fit.predict(1.1e7, 2.4e7, [1e6, 1e7, 2e8], hit_rate=fit.hit_rate([1e6, 1e7, 2e8])))
    half = fit.predict(1.1e7, 2.4e7, 1e7, hit_rate=lambda r: 0.5 + 0 * r)
    assert float(half) == pytest.approx(float(fit.predict(1.1e7, 2.4e7, 1e7, hit_rate=0.5)))
    slope = fit.gradient(1.1e7, 2.4e7, 1e7)[2]
    numeric = (fit.predict(1.1e7, 2.4e7, 1.001e7) - fit.predict(1.1e7, 2.4e7, 0.999e7)) / 2e4
    assert float(slope) == pytest.approx(float(numeric), rel=1e-4)
