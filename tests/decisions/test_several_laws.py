"""Decisions where several laws fit equally well: averaged, with what each says and what the disagreement may cost."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.decisions import Allocation
from ragscale.decisions._surface import surface
from ragscale.errors import ConfigError, FitError

from .conftest import known


@pytest.fixture(scope="module")
def comparison():
    results = rs.datasets.simulate("hill", noise=0.01, cluster_share=0.5, rng=3)
    return rs.compare_laws(results, ["log1p", "power", "hill"], held_out=False)


@pytest.fixture(scope="module")
def best(comparison):
    return rs.optimal_allocation(comparison, N=[1e8, 1e9], budget=3e10)


def test_the_weights_are_those_of_the_comparison(comparison):
    members = surface(comparison).members
    kept = {name: w for name, w in comparison.weights.items() if w >= 0.01}
    total = sum(kept.values())
    assert {m.name: m.weight for m in members} == pytest.approx({name: w / total for name, w in kept.items()})


def test_the_split_minimises_the_weighted_mean_of_the_laws(comparison, best):
    members = surface(comparison).members
    for n, d, r, loss in zip(best.N, best.D, best.R, best.loss, strict=True):
        store = np.linspace(0, 0.999, 2000) * 3e10
        mean = sum(m.weight * m.law.loss(n, 3e10 - store, store, m.theta) for m in members)
        assert loss == pytest.approx(sum(m.weight * m.law.loss(n, d, r, m.theta) for m in members))
        assert loss <= mean.min() + 1e-9
        assert d + r == pytest.approx(3e10)


def test_every_law_is_shown_with_what_the_split_costs_under_it(comparison, best):
    assert len(best.laws) == 2 * len(surface(comparison).members)
    assert (best.laws["regret"] >= 0).all()
    assert best.laws.groupby(["N", "budget"])["weight"].sum().to_numpy() == pytest.approx(1)
    row = best.laws.iloc[0]
    alone = rs.optimal_allocation(comparison.fits[row["law"]], N=row["N"], budget=3e10)
    assert row["share"] == pytest.approx(float(alone.share), abs=1e-6)
    at = np.flatnonzero(row["N"] == best.N)[0]
    fit = comparison.fits[row["law"]]
    paid = fit.predict(row["N"], best.D[at], best.R[at]) - fit.predict(row["N"], alone.D, alone.R)
    assert row["regret"] == pytest.approx(float(paid), abs=1e-9)


def test_regret_is_the_mean_and_the_worst_over_the_laws(best):
    expected = best.laws.assign(part=best.laws["weight"] * best.laws["regret"]).groupby("N")["part"].sum().max()
    assert best.regret.expected == pytest.approx(expected)
    assert best.regret.worst == best.laws["regret"].max()
    assert best.regret.expected <= best.regret.worst
    assert 0 <= best.regret.worst_percent < 100


def test_the_sentence_says_how_far_the_laws_are_apart(best):
    words = best.summary().splitlines()[0]
    assert "across" in words
    assert "laws that fit equally well, at worst this costs" in words
    assert "of the best" in words


def test_the_other_decisions_average_too(comparison):
    rate = rs.exchange_rate(comparison, N=1e9, D=2e10, R=1e10)
    members = surface(comparison).members
    slopes = [m.law.gradient(1e9, 2e10, 1e10, m.theta) for m in members]
    total = [sum(m.weight * s[i] for m, s in zip(members, slopes, strict=True)) for i in (1, 2)]
    assert float(rate) == pytest.approx(float(total[1] / total[0]))
    assert set(rate.laws) == {m.name for m in members}
    knee = rs.knee_point(comparison, N=1e9, R=1e10)
    assert min(knee.laws.values()) <= knee.D <= max(knee.laws.values())
    store = rs.critical_store(comparison, N=1e9, D=2e10, max_R=1e11)
    assert min(store.laws.values()) <= float(store) <= max(store.laws.values())
    compute = rs.compute_optimal(comparison, flops=1e21)
    assert pytest.approx(1e21) == 6 * compute.N * compute.D
    with pytest.raises(ConfigError, match="one law"):
        rs.substitution(rs.datasets.simulate("hill", rng=0), comparison)


def test_scores_are_averaged_so_that_higher_is_better():
    results = rs.datasets.simulate("hill", noise=0.03, rng=1)  # so noisy that three laws count
    score = results.assign(value=1 / (1 + np.exp(2 * results["value"] - 5)), metric="acc")
    compared = rs.compare_laws(score, ["log1p", "hill", "power"], held_out=False, link="bounded")
    best = rs.optimal_allocation(compared, N=1e9, budget=3e10)
    assert best.gain > 0
    assert 0 < best.value < 1
    single = rs.optimal_allocation(compared.fits["hill"], N=1e9, budget=3e10)
    assert best.share == pytest.approx(single.share, abs=0.15)
    assert len(surface(compared).members) == 3
    assert surface(compared).rises
    assert not surface(rs.compare_laws(results, ["log1p", "hill"], held_out=False)).rises
    near = best.near_optimal
    assert len(near) == 1
    assert near["D_low"].item() < best.D < near["D_high"].item()  # the best of a score is its highest


def test_one_law_alone_has_no_table_of_laws():
    best = rs.optimal_allocation(known("hill"), N=1e9, budget=3e10)
    assert best.laws.empty
    assert best.regret is None


def test_near_optimal_holds_what_costs_little_and_nothing_else():
    law, theta = known("hill")
    best = rs.optimal_allocation((law, theta), N=1e9, budget=3e10, within=0.001)
    (row,) = best.near_optimal.to_dict("records")
    assert row["D_low"] < best.D < row["D_high"]
    for d, r in ((row["D_low"], row["R_high"]), (row["D_high"], row["R_low"])):
        assert d + r == pytest.approx(3e10)
        assert law.loss(1e9, d, r, theta) - best.loss == pytest.approx(0.001, rel=0.02)


def test_two_flat_minima_are_two_ranges():
    class Steps(rs.ScalingLaw):
        parameters = (rs.fitting.Parameter("E", 0, 10),)

        def _loss(self, n, d, r, theta):
            x = np.log(r + 1.0) / np.log(1e9)
            return theta.E + 0.5 * np.minimum((x - 0.6) ** 2, (x - 0.95) ** 2) + 0 * n * d

    best = rs.optimal_allocation((Steps(), {"E": 1.0}), N=1e8, budget=1e9, within=1e-3)
    assert len(best.near_optimal) == 2
    assert " or " in best.summary()


def test_near_optimal_respects_the_limits():
    best = rs.optimal_allocation(known("hill"), N=1e9, budget=3e10, min_D=1e10, max_R=1.2e10, within=0.5)
    assert best.near_optimal["D_low"].min() >= 1e10 * (1 - 1e-9)
    assert best.near_optimal["R_high"].max() <= 1.2e10 * (1 + 1e-9)
    with pytest.raises(ConfigError, match="within"):
        rs.optimal_allocation(known("hill"), N=1e9, budget=3e10, within=-1)


def test_a_recommendation_stays_near_what_was_measured():
    results = rs.datasets.simulate("rpower", {"C": 2e-5, "g": 0.45}, noise=0.002, rng=0)
    fit = rs.fit_manifold(results, law="rpower")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = rs.optimal_allocation(fit, N=1e9, budget=[1e8, 1e10])
        free = rs.optimal_allocation(fit, N=1e9, budget=1e8, min_D=1)
    least = fit.data["D"].min() / 10
    assert (np.minimum(least, 0.5 * best.budget) * (1 - 1e-9) <= best.D).all()
    assert best.D[0] >= free.D


def test_a_loss_that_cannot_be_is_refused():
    grid = pd.DataFrame(
        [(n, d, r) for n in (1e8, 2e8) for d in (1e9, 4e9, 2e10) for r in (0, 1e9, 4e9)], columns=list("NDR")
    )
    table = grid.assign(value=2 + (grid["D"] / 1e9) ** -0.5 - 1.2e-10 * grid["R"])
    fit = rs.fit_manifold(table, law="rpower")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(FitError, match="this metric is never 0 or below"):
            rs.optimal_allocation(fit, N=1e8, budget=1e11)


def test_shapes_that_do_not_broadcast_say_how_to_ask():
    with pytest.raises(ConfigError, match=r"N\)\[:, None\]"):
        rs.optimal_allocation(known("hill"), N=[1e8, 2e8, 3e8], budget=[1e9, 2e9])


def test_an_allocation_survives_a_file(best, tmp_path):
    best.to_json(tmp_path / "best.json")
    found = Allocation.from_json(tmp_path / "best.json")
    assert found.summary() == best.summary()
    pd.testing.assert_frame_equal(found.laws, best.laws)
    assert found.regret == best.regret


def test_prices_in_money():
    costs = rs.decisions.Costs(training_flop=1e-18, storage_token_month=1e-9, months=10, query=1e-13, queries=1e5)
    prices = costs.prices(N=[1e8, 1e9])
    assert prices["D"] == pytest.approx([6e-10, 6e-9])
    assert prices["R"] == pytest.approx(1e-8 + 1e-8)
    best = rs.optimal_allocation(known("hill"), N=1e9, budget=300.0, prices=costs.prices(N=1e9))
    assert pytest.approx(300) == best.D * 6e-9 + best.R * 2e-8
    assert float(best.exchange_rate) == pytest.approx(2e-8 / 6e-9, rel=1e-6)
    with pytest.raises(ConfigError, match="costs nothing"):
        rs.decisions.Costs(training_flop=1e-18, storage_token_month=0).prices(N=1e9)
    with pytest.raises(ConfigError, match="training_flop"):
        rs.decisions.Costs(training_flop=-1, storage_token_month=1)


def test_a_bootstrap_of_several_laws_holds_the_choice_of_the_law_too(comparison):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        boot = rs.bootstrap(comparison, n_resamples=200, rng=0)
    best = rs.optimal_allocation(boot, N=1e9, budget=3e10)
    members = surface(boot).members
    assert set(boot.members) == {m.name for m in members}
    assert len(best.replicates["share"]) == pytest.approx(200, abs=3)
    low, high = best.interval("share")
    for row in best.laws.to_dict("records"):
        if row["weight"] > 0.1:
            assert low < row["share"] < high
    again = rs.optimal_allocation(rs.bootstrap(comparison, n_resamples=200, rng=0), N=1e9, budget=3e10)
    np.testing.assert_array_equal(again.replicates["share"], best.replicates["share"])


def test_an_automatic_fit_decides_under_all_of_its_laws():
    results = rs.datasets.simulate("interaction", noise=0.01, cluster_share=0.5, rng=0)
    fit = rs.fit_manifold(results)
    best = rs.optimal_allocation(fit, N=1e9, budget=5e10)
    weights = {k: v for k, v in fit.selection.weights.items() if v >= 0.01}
    assert set(best.laws["law"]) == set(weights)


def test_arrays_of_arguments_are_answered_one_by_one(comparison):
    n, d = np.array([1e8, 5e8, 1e9]), np.array([5e9, 2e10, 8e10])
    rates = rs.exchange_rate(comparison, N=n, D=d, R=1e10)
    stores = rs.critical_store(comparison, N=n, D=d, max_R=1e11)
    knees = rs.knee_point(comparison, N=n, R=1e10)
    compute = rs.compute_optimal(comparison, flops=[1e20, 1e21])
    for i in range(3):
        assert rates.value[i] == pytest.approx(float(rs.exchange_rate(comparison, N=n[i], D=d[i], R=1e10)))
        one = rs.critical_store(comparison, N=n[i], D=d[i], max_R=1e11)
        assert stores.value[i] == pytest.approx(float(one))
        assert knees.D[i] == pytest.approx(rs.knee_point(comparison, N=n[i], R=1e10).D)
    assert compute.N[1] == pytest.approx(rs.compute_optimal(comparison, flops=1e21).N)
    assert rates.laws["hill"].shape == (3,)
