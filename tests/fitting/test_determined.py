"""What the rows do not determine is dropped and said, never reported as a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import load, simulate
from ragscale.errors import FitError, RagscaleError
from ragscale.fitting import Log1p, ManifoldFit, ScalingLaw

LAWS = (
    "chinchilla",
    "log1p",
    "power",
    "hill",
    "rpower",
    "log_ratio",
    "interaction",
    "multiplicative",
    "effective_data",
)
NUMBERS = ["stderr", "low", "high"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return simulate("log1p", noise=0.01, rng=0)


def _unmarked(fit: ManifoldFit, names: tuple[str, ...]) -> list[str]:
    rows = fit.params.loc[[name for name in names if name in fit.params.index]]
    marked = (rows["note"] == "not determined") & rows[NUMBERS].isna().all(axis=1)
    return [str(name) for name in rows.index[~marked]]


@pytest.mark.parametrize("law", LAWS)
def test_one_size_says_nothing_about_size(law: str, table: pd.DataFrame) -> None:
    one = table[table["N"] == table["N"].unique()[2]]
    fit = rs.fit_manifold(one, law)
    assert not _unmarked(fit, ("A", "alpha", "nu"))
    assert set(fit.unseen) == {"N"}
    assert "every row has N = 2.33e+08" in fit.summary()
    assert not _unmarked(fit, fit.undetermined)
    # what the rows do say is still said: the surface over D (and R) at this size
    predicted = fit.to_frame()["predicted"]
    whole = rs.fit_manifold(table, law).to_frame()["predicted"]
    assert np.abs(np.log(predicted.to_numpy() / whole[table["N"] == one["N"].iloc[0]].to_numpy())).mean() < 0.02
    with pytest.raises(FitError, match="what another N does is not in these data"):
        fit.predict(1e9, 2e10, 0)
    with pytest.raises(FitError, match="what another N does"):
        fit.require("N", "D")
    fit.require("D", "R")


@pytest.mark.parametrize("law", LAWS[1:])
def test_one_checkpoint_with_many_stores_is_a_law_of_the_store(law: str) -> None:
    store = np.array([0, 1e8, 3e8, 1e9, 3e9, 1e10, 3e10])
    value = 3.0 - 0.15 * np.log1p(store / 1e9) + 1e-3 * np.array([1, -1, 0, 1, -1, 1, 0])
    sweep = pd.DataFrame({"N": 1e9, "D": 2e10, "R": store, "value": value})
    fit = rs.fit_manifold(sweep, law)
    assert set(fit.unseen) == {"N", "D"}
    assert not _unmarked(fit, ("A", "alpha"))
    if law != "effective_data":  # there a store token is a token of data: R says what D does
        assert not _unmarked(fit, ("beta",))
    assert fit.params["stderr"].isna().all()  # one model tells nothing about the next
    assert np.abs(fit.to_frame()["residual"]).max() < 0.02
    assert float(fit.predict(1e9, 2e10, 2e9)) == pytest.approx(3.0 - 0.15 * np.log(3), abs=0.02)
    assert "Whether others would gain as much is not known" in fit.summary()


def test_an_automatic_law_of_a_store_sweep_reads_the_store() -> None:
    retro = load("retro_table4").query("model == 'retro_wikitext103'")
    for part in ("valid", "test"):
        rows = retro[retro["split"] == part]
        for sweep in (rows, rows.assign(N=7.5e9, D=4e11)):  # as bundled it does not say N and D
            fit = rs.fit_manifold(sweep)
            assert "R" in fit.law.variables
            assert fit.to_frame()["predicted"].corr(pd.Series(rows["value"].tolist()), method="spearman") > 0.8
            assert set(fit.unseen) == {"N", "D"}
            assert "no trained model has rows both" not in fit.summary()
    assert "the table does not give it" in rs.fit_manifold(rows).summary()
    with pytest.raises(RagscaleError, match="columns not in the results table"):
        rs.fit_manifold(rows[["value", "task"]])


def test_two_stores_measure_a_difference_and_no_shape(table: pd.DataFrame) -> None:
    two = table[table["R"].isin([0, 6e10])]
    fit = rs.fit_manifold(two, "log1p")
    assert set(fit.unseen) == {"R"}
    assert not _unmarked(fit, ("C", "eta"))
    assert float(fit.params.loc["beta", "stderr"]) > 0
    gain = fit.predict(1e9, 2e10, 0) - fit.predict(1e9, 2e10, 6e10)
    whole = rs.fit_manifold(table, "log1p")
    assert gain == pytest.approx(whole.predict(1e9, 2e10, 0) - whole.predict(1e9, 2e10, 6e10), rel=0.1)
    own = rs.fit_manifold(two, Log1p(fixed={"eta": 1e-9}))  # who gives the shape has determined it
    assert own.unseen == {}
    assert float(own.params.loc["C", "stderr"]) > 0
    knn = load("knnlm_table3").query("split == 'dev' and train_set == 'WIKI-100M'")
    assert set(rs.fit_manifold(knn).unseen) == {"N", "D", "R"}


@pytest.mark.parametrize(("ratio", "power"), [(20.0, 1.0), (1.7, 1.0), (400.0, 0.8)])
def test_data_in_step_with_size_are_not_told_apart(ratio: float, power: float) -> None:
    n = np.geomspace(1e7, 1e10, 12)
    d = ratio * n**power
    value = 1.7 + 400 * n**-0.34 + 410 * d**-0.28
    value *= np.exp(0.003 * np.random.default_rng(0).standard_normal(12))
    fit = rs.fit_manifold(pd.DataFrame({"N": n, "D": d, "value": value}), "chinchilla")
    assert set(fit.unseen) == {"D"}
    assert not _unmarked(fit, ("B", "beta"))
    at = ratio * 1e9**power
    assert float(fit.predict(1e9, at)) == pytest.approx(1.7 + 400 * 1e9**-0.34 + 410 * at**-0.28, rel=0.01)
    for other in (2 * at, at / 2):
        with pytest.raises(FitError, match="what D does cannot be told from what N does"):
            fit.predict(1e9, other)


def test_data_that_vary_are_told_apart(table: pd.DataFrame) -> None:
    fit = rs.fit_manifold(table, "log1p")
    assert fit.unseen == {}
    assert fit.undetermined == fit.dropped == ()
    # an isoFLOP curve: D falls as N rises, which tells the two terms apart
    n = np.geomspace(1e8, 1e10, 16)
    d = 1e20 / (6 * n)
    curve = pd.DataFrame({"N": n, "D": d, "value": 1.7 + 400 * n**-0.34 + 410 * d**-0.28})
    assert rs.fit_manifold(curve, "chinchilla").unseen == {}


class TwoConstants(ScalingLaw):
    """E and F can only be known together."""

    variables = ("D",)
    parameters = tuple(rs.fitting.Parameter(name, 0.0, 10.0) for name in ("E", "F", "b"))

    def _loss(self, n: Any, d: Any, r: Any, theta: Any) -> Any:
        return theta.E + theta.F + theta.b * np.log10(1e12 / d)


def test_redundant_parameters_of_an_own_law_are_marked(table: pd.DataFrame) -> None:
    fit = rs.fit_manifold(table[table["R"] == 0], TwoConstants())
    assert fit.undetermined == ("E", "F")
    assert float(fit.params.loc["b", "stderr"]) > 0
    boot = rs.bootstrap(fit, n_resamples=5, rng=0).params
    assert boot.loc[["E", "F"], ["value", "stderr", "low", "high"]].isna().all(axis=None)
    assert boot.loc["b", "stderr"] > 0


def test_what_the_user_fixed_stays_fixed(table: pd.DataFrame) -> None:
    one = table[table["N"] == table["N"].unique()[2]]
    fit = rs.fit_manifold(one, Log1p(fixed={"E": 1.7}))
    assert fit.theta.E == 1.7
    assert fit.theta.A > 0  # E cannot take over what this size adds
    assert not _unmarked(fit, ("A", "alpha"))
    tied = rs.fit_manifold(one, Log1p(tie=True))
    assert tied.theta.alpha == tied.theta.beta
    assert 0.1 < tied.theta.beta < 0.6


def test_errors_between_models_need_more_models_than_parameters(table: pd.DataFrame) -> None:
    few = table[table["N"].isin(table["N"].unique()[:2]) & table["D"].isin(np.sort(table["D"].unique())[:2])]
    fit = rs.fit_manifold(few, "log1p")
    assert fit.diagnostics.n_clusters == 2
    assert fit.params["stderr"].isna().all()
    assert set(fit.params["note"]) <= {"too few models for an error", "not determined", "at bound"}


def test_what_is_dropped_is_kept_in_files_and_resamples(table: pd.DataFrame, tmp_path: Path) -> None:
    one = table[table["N"] == table["N"].unique()[2]]
    fit = rs.fit_manifold(one, "log1p")
    fit.to_json(tmp_path / "fit.json")
    again = ManifoldFit.from_json(tmp_path / "fit.json")
    assert again.dropped == fit.dropped == ("A", "alpha")
    assert again.summary() == fit.summary()
    with pytest.warns(rs.errors.IdentifiabilityWarning):
        boot = rs.bootstrap(fit, n_resamples=10, rng=0)
    assert boot.params.loc[["A", "alpha"], ["value", "low"]].isna().all(axis=None)
    with pytest.raises(FitError, match="what another N does"):
        boot.predict(1e9, 2e10)
    with pytest.raises(FitError, match="what another N does"):
        boot.interval(1e9, 2e10)


def test_a_fold_that_loses_all_but_one_size_is_refused(table: pd.DataFrame) -> None:
    two = table[table["N"].isin(table["N"].unique()[:2])]
    with pytest.raises(FitError, match="cannot fit without N"):
        rs.cross_validate(two, "log1p", leave_out="N")
    one = table[table["N"] == table["N"].unique()[2]]
    assert rs.cross_validate(one, "log1p", leave_out=3).error < 0.05


def test_predictions_below_the_lowest_value_are_refused(table: pd.DataFrame) -> None:
    fit = rs.fit_manifold(table, "rpower")
    assert fit.lowest == 0.0
    assert float(fit.latent(1e9, 2e10, 1e60)) < 0  # the formula itself
    with pytest.warns(rs.errors.ExtrapolationWarning), pytest.raises(FitError, match=r"predicts -.*never below 0"):
        fit.predict(1e9, [2e10, 2e10], [0, 1e60])
    negative = rs.fit_manifold(table.assign(value=-table["value"].max() - 1 + table["value"]), "log1p", space="linear",
                               link="identity")  # fmt: skip
    assert negative.lowest == -np.inf


# A law that does not follow the data ---------------------------------------------------------------------------------


def test_a_flat_parity_plot_is_the_first_thing_said() -> None:
    rng = np.random.default_rng(0)
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e8, 1e10, 6), np.geomspace(2e9, 1e12, 6)))
    wild = pd.DataFrame({"N": n, "D": d, "value": np.exp(rng.standard_normal(36))})
    fit = rs.fit_manifold(wild, "chinchilla", link="identity")
    assert not fit.describes_data
    assert fit.summary().splitlines()[0].startswith("THIS LAW DOES NOT DESCRIBE THE DATA")
    assert fit.diagnostics.findings[0].topic == "misfit"
    assert fit.diagnostics.slope < 0.5


def test_a_pilot_of_two_sizes_is_not_described_or_says_what_it_lacks() -> None:
    values = [6.2979, 6.2832, 6.2818, 6.27, 6.3808, 6.3434, 6.345, 6.3414, 5.7992, 5.8113, 5.8199, 6.2935, 6.3223,
              6.324, 6.3237, 6.2541, 6.3996, 6.4062, 6.4164, 5.9306, 5.9543, 5.9532]  # fmt: skip
    cells = [(n, d, r) for n in (213568, 418656)
             for d, stores in ((2.5e5, (0, 1e5, 5e5, 1.25e6)), (5e5, (0, 1e5, 5e5, 1e6)), (1e6, (0, 1e5, 5e5)))
             for r in stores]  # fmt: skip
    pilot = pd.DataFrame(cells, columns=["N", "D", "R"]).assign(value=values)
    fit = rs.fit_manifold(pilot, rs.fitting.Interaction(scale_D=True))
    assert not _unmarked(fit, ("A", "alpha"))  # with E three numbers from two sizes
    assert "2 values of N" in fit.summary()
    assert "Only 6 trained models" in fit.summary()


def test_residuals_that_go_with_a_variable_are_named(table: pd.DataFrame) -> None:
    assert "pattern" not in rs.fit_manifold(table, "log1p").diagnostics.topics()
    without = rs.fit_manifold(table, "chinchilla").diagnostics
    assert "Residuals go with R" in str(without)
    assert "too little at" in str(without)
    bent = table[table["R"] == 0].assign(value=lambda t: t["value"] * (1 + 0.08 * np.log10(t["D"] / 1e10) ** 2))
    assert "Residuals go with D" in str(rs.fit_manifold(bent, TwoConstants()).diagnostics)


@pytest.mark.parametrize("seed", range(6))
def test_a_right_law_is_not_accused(seed: int) -> None:
    made = simulate("log1p", noise=0.01, cluster_share=0.7, outliers=0.02, rng=seed)
    fit = rs.fit_manifold(made, "log1p")
    assert fit.describes_data
    assert fit.diagnostics.slope > 0.95
    assert "pattern" not in fit.diagnostics.topics()
