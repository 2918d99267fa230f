"""Links, comparison of laws, the paper's procedure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.errors import ConfigError, FitError, ResultsWarning
from ragscale.fitting import Bounded, Interaction, ManifoldFit, aicc, fit_paper


def _scores(table: pd.DataFrame, floor: float = 0.25, n: int = 500, seed: int = 0) -> pd.DataFrame:
    p = floor + (1 - floor) / (1 + np.exp(4 * (table["value"] - 2.5)))
    hits = np.random.default_rng(seed).binomial(n, p)
    return table.assign(value=hits / n, n_examples=float(n), metric="acc", truth=p)


def test_the_link_follows_the_metric(make_surface: Any) -> None:
    table = make_surface()
    assert rs.fit_manifold(table, "log1p").link.name == "identity"
    perplexity = table.assign(value=np.exp(table["value"]), metric="perplexity")
    assert rs.fit_manifold(perplexity, "log1p").link.name == "log"
    scores = _scores(table).drop(columns="truth")
    fit = rs.fit_manifold(scores, "log1p")
    assert (fit.link.name, fit.space, fit.weights) == ("bounded", "linear", "binomial, from n_examples")
    assert fit.link.direction == "up"  # type: ignore[attr-defined]
    with pytest.warns(ResultsWarning, match=r"rank correlation alone.*higher_is_better"):
        assert rs.fit_manifold(scores.drop(columns="metric"), "log1p").link.name == "bounded"


def test_log_perplexity_is_the_loss(make_surface: Any) -> None:
    table = make_surface()
    perplexity = table.assign(value=np.exp(table["value"]))
    fit = rs.fit_manifold(perplexity, "log1p", link="log")
    direct = rs.fit_manifold(table, "log1p", space="linear")
    assert fit.objective == pytest.approx(direct.objective, rel=1e-8)
    assert float(fit.predict(1e9, 1e10, 1e9)) == pytest.approx(float(np.exp(direct.predict(1e9, 1e10, 1e9))), rel=1e-6)


def test_a_bounded_score_is_recovered_through_its_floor(make_surface: Any) -> None:
    table = _scores(make_surface(noise=0.0))
    known = rs.fit_manifold(table.drop(columns="truth"), "log1p", link=Bounded(floor=0.25))
    free = rs.fit_manifold(table.drop(columns="truth"), "log1p", link=Bounded("free", 1.0))
    counts = [table[c] for c in "NDR"]
    for fit in (known, free):
        assert np.abs(fit.predict(*counts) - table["truth"]).mean() < 0.01
    assert free.link.floor == pytest.approx(0.25, abs=0.06)  # type: ignore[attr-defined]
    assert "floor" in free.params.index


def test_a_fit_with_a_free_floor_is_saved_and_resampled(make_surface: Any, tmp_path: Path) -> None:
    table = _scores(make_surface(noise=0.0)).drop(columns="truth")
    fit = rs.fit_manifold(table, "log1p", link=Bounded("free", 1.0))
    fit.to_json(tmp_path / "fit.json")
    again = ManifoldFit.from_json(tmp_path / "fit.json")
    assert np.array_equal(again.predict(1e9, 1e10, 1e9), fit.predict(1e9, 1e10, 1e9))
    replicates = rs.bootstrap(again, n_resamples=20, rng=0)
    assert replicates.link_values["floor"].shape == (20,)
    assert replicates.params.loc["floor", "stderr"] > 0
    low, high = replicates.interval(1e9, 1e10, 1e9)
    assert low < fit.predict(1e9, 1e10, 1e9) < high


def test_impossible_links_are_refused(plane: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match=r"floor = 0.5 must be below ceiling = 0.2"):
        Bounded(0.5, 0.2)
    with pytest.raises(ConfigError, match=r"direction = 'sideways'.*on = 'sqrt'"):
        Bounded(direction="sideways", on="sqrt")  # type: ignore[arg-type]
    with pytest.raises(FitError, match="which is at least 1"):
        rs.fit_manifold(plane.assign(value=plane["value"] / 10), "chinchilla", link="log")


@pytest.mark.parametrize("law", ["log1p", "hill", "log_ratio", "effective_data"])
def test_the_law_that_made_the_table_is_among_the_best(law: str) -> None:
    compared = rs.compare_laws(simulate(law, noise=0.004, rng=1), held_out=False)
    assert bool(compared.table.loc[law, "delta_aicc"] < 4)
    assert compared.table["delta_aicc"].iloc[0] == 0
    assert bool(compared.table.loc["chinchilla", "delta_aicc"] > 10)


def test_auto_prefers_the_simplest_of_tied_laws() -> None:
    table = simulate("chinchilla", noise=0.01, rng=0)
    fit = rs.fit_manifold(table)
    assert fit.law.name == "chinchilla"
    assert fit.selection is not None
    tied = fit.selection.table.loc[list(fit.selection.tied)]
    assert tied.loc["chinchilla", "n_parameters"] == tied["n_parameters"].min()
    assert rs.fit_manifold(table.query("R == 0")).law.name == "chinchilla"


def test_comparison_reports_held_out_errors_and_failures() -> None:
    table = simulate("log1p", noise=0.01, rng=0)
    compared = rs.compare_laws(table, ["chinchilla", "log1p", Interaction(), Interaction(h="hill")])
    assert {"leave_one_N", "largest_compute", "k_fold"} <= set(compared.table.columns)
    errors = compared.table["leave_one_N"]
    assert errors["log1p"] < errors["chinchilla"]
    assert compared.table.index.str.startswith("Interaction(").sum() == 2
    short = rs.compare_laws(table.query("R == 0"), ["chinchilla", "log1p"], held_out=False)
    assert "R is 0 in every row" in short.table.loc["log1p", "problem"]
    with pytest.raises(ConfigError, match="laws is empty"):
        rs.compare_laws(table, [])


def test_folds_are_whole_and_fitted_anew() -> None:
    table = simulate("log1p", noise=0.01, rng=0)
    by_size = rs.cross_validate(table, "log1p", leave_out="N")
    sizes = by_size.table
    assert sizes["n_test"].sum() == len(table)
    assert (sizes["n_train"] + sizes["n_test"] == len(table)).all()
    assert by_size.error == pytest.approx((sizes["error"] * sizes["n_test"]).sum() / len(table))
    assert abs(by_size.bias) < by_size.error
    folds = rs.cross_validate(table, "log1p", leave_out=5)
    assert (folds.table["n_test"] % 7 == 0).all()  # the 7 stores of a checkpoint stay together
    assert len(rs.cross_validate(table, "log1p", leave_out="compute")) == 1
    for wrong in (1, "day", True, 2.5):
        with pytest.raises(ConfigError, match="leave_out"):
            rs.cross_validate(table, "log1p", leave_out=wrong)  # type: ignore[arg-type]
    with pytest.raises(FitError, match=r"cannot fit without R = 0|cannot fit without R"):
        rs.cross_validate(table[table["R"].isin([0, table["R"].max()])], "log1p", leave_out="R")


def test_leaving_out_a_column_of_weights_keeps_rows_and_weights_together(make_surface: Any) -> None:
    table = make_surface(noise=0.02).assign(w=lambda t: 1 + t["R"] / 1e10)
    by_name = rs.cross_validate(table, "log1p", weights="w")
    by_array = rs.cross_validate(table, "log1p", weights=table["w"].to_numpy())
    assert np.allclose(by_name.table["error"], by_array.table["error"], rtol=1e-9)


def test_aicc_of_least_squares_is_the_textbook_one(plane: pd.DataFrame) -> None:
    noisy = plane.assign(value=plane["value"] * np.exp(0.01 * np.random.default_rng(0).standard_normal(24)))
    fit = rs.fit_manifold(noisy, "chinchilla", loss="least_squares")
    n, p, rss = 24, 6, 2 * fit.objective
    expected = n * np.log(2 * np.pi * rss / n) + n + 2 * p * n / (n - p - 1)
    assert aicc(fit) == pytest.approx(expected, rel=1e-6)


def test_the_paper_locks_what_it_says_and_misses_what_the_report_says() -> None:
    table = simulate("power", noise=0.0, rng=0)
    paper = fit_paper(table, "power")
    for name in ("alpha", "beta"):
        assert paper.params[name] == paper.baseline[name]
    assert paper.params["L0"] == pytest.approx(paper.baseline["L0"], abs=2e-6)
    # C (R + 1)^-gamma is C, not 0, at R = 0, and the floor is locked: even without noise the surface is wrong
    counts = [table[c] for c in "NDR"]
    ours = rs.fit_manifold(table, "power")
    assert np.abs(paper.predict(*counts) / table["value"] - 1).mean() > 0.01
    assert np.abs(ours.predict(*counts) / table["value"] - 1).mean() < 1e-5


def test_the_paper_recovers_clean_tables_of_consistent_forms() -> None:
    for law, form in (("log1p", "log"), ("hill", "hill")):
        table = simulate(law, noise=0.0, rng=0)
        paper = fit_paper(table, form)  # type: ignore[arg-type]
        assert paper.converged
        assert np.abs(paper.predict(table["N"], table["D"], table["R"]) / table["value"] - 1).mean() < 1e-3
    with pytest.raises(ConfigError, match="form = 'cubic'"):
        fit_paper(table, "cubic")  # type: ignore[arg-type]
    few = table[(table["R"] > 0) | (table["D"] == table["D"].min())]
    with pytest.raises(FitError, match="needs 5 rows with R = 0, the table has 1"):
        fit_paper(few, "log")


@pytest.mark.filterwarnings("ignore::ragscale.errors.ResultsWarning")
def test_digitised_sciq_points_are_predicted_across_sizes(shared_data: Path) -> None:
    raw = pd.read_csv(shared_data.parent / "paper" / "digitised" / "fig2_baselines_points.csv")
    table = raw.rename(columns={"N_params": "N", "D_tokens": "D", "perplexity": "value"})[["N", "D", "value"]]
    ours = rs.cross_validate(table, "chinchilla", link="bounded").error
    assert ours <= 0.055
    assert fit_paper(table, "chinchilla").lomo_error > 0.2
