"""Synthetic tables have the law, the noise and the outliers that were asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale import datasets, fitting, results
from ragscale.errors import ConfigError, RagscaleError

LAWS = [
    "chinchilla",
    "log1p",
    "power",
    "hill",
    "rpower",
    "log_ratio",
    "interaction",
    "effective_data",
    "multiplicative",
]


@pytest.mark.parametrize("law", LAWS)
def test_without_noise_every_law_is_met_exactly_and_retrieval_never_hurts(law):
    table = datasets.simulate(law, noise=0)
    assert len(table) == 336
    assert len(results.validate(table)) == 336
    exact = fitting.catalogue().loc[law, "law"]()
    np.testing.assert_allclose(
        table["value"], exact.loss(table["N"], table["D"], table["R"], table.attrs["params"]), rtol=1e-15
    )
    best = table.sort_values("R").groupby(["N", "D"])["value"]
    assert (best.last() <= best.first()).all()
    assert table["value"].between(1.5, 8).all()


def test_the_paper_grid_is_the_papers():
    table = datasets.simulate(noise=0)
    assert sorted(table["N"].unique()) == [30e6, 136e6, 233e6, 728e6, 1e9, 3e9]
    assert sorted((table["D"] / table["N"]).round(9).unique()) == [1, 2, 5, 10, 15, 20, 25, 50]
    assert sorted((table["R"] / table["N"]).round(9).unique()) == [0, 1, 2, 5, 10, 15, 20]


def test_the_same_seed_gives_the_same_table_and_global_state_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    pd.testing.assert_frame_equal(datasets.simulate(rng=3), datasets.simulate(rng=np.random.default_rng(3)))
    assert not datasets.simulate(rng=3)["value"].equals(datasets.simulate(rng=4)["value"])
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rows_of_one_checkpoint_share_the_stated_part_of_the_variance(share):
    exact = datasets.simulate(noise=0)
    deviations = [
        np.log(datasets.simulate(noise=0.02, cluster_share=share, rng=seed)["value"] / exact["value"])
        for seed in range(60)
    ]
    residuals = np.stack(deviations).reshape(60, 48, 7)
    assert residuals.std() == pytest.approx(0.02, rel=0.03)
    common = residuals.mean(axis=2).var() - residuals.var(axis=2, ddof=1).mean() / 7
    assert common / residuals.var() == pytest.approx(share, abs=0.03)


def test_outliers_are_the_stated_share_and_too_high():
    exact = datasets.simulate(noise=0)
    ratio = np.stack([datasets.simulate(noise=0, outliers=0.02, rng=s)["value"] / exact["value"] for s in range(60)])
    assert np.mean(ratio > 1 + 1e-9) == pytest.approx(0.02, rel=0.15)
    assert ratio.max() <= 1.3
    assert ratio[ratio > 1 + 1e-9].min() >= 1.1


def test_own_parameters_options_and_grids_are_used():
    law = fitting.Hill(exponent=2.0, offset=True)
    grid = {"N": [1e9, 1e9], "D": [1e10, 1e10], "R": [0, 3e9]}
    table = datasets.simulate(law, {"E": 3.0, "offset": 0.4}, grid, noise=0)
    change = table["value"].diff().iloc[1]
    assert change == pytest.approx(0.4 - 0.2 / 2)
    assert table.attrs["params"]["n"] == 2.0


def test_a_users_own_law_needs_all_its_parameters():
    class Own(fitting.ScalingLaw):
        parameters = (fitting.Parameter("E", 0, 10), fitting.Parameter("b", 0, 1))

        def _loss(self, n, d, r, theta):
            return theta.E - theta.b * np.log(d)

    with pytest.raises(ConfigError, match="no default for b"):
        datasets.simulate(Own(), {"E": 9.0})
    assert datasets.simulate(Own(), {"E": 9.0, "b": 0.1}, noise=0)["value"].iloc[0] == pytest.approx(
        9 - 0.1 * np.log(30e6)
    )


def test_seeds_are_models_of_their_own_and_laws_may_read_further_columns():
    grid = pd.DataFrame([(1e9, 2e10, r, s) for s in range(400) for r in (0.0, 1e9)], columns=["N", "D", "R", "seed"])
    table = datasets.simulate("log1p", grid=grid, noise=0.1, cluster_share=1.0, rng=0)
    ratio = table["value"] / datasets.simulate("log1p", grid=grid, noise=0)["value"]
    pairs = ratio.to_numpy().reshape(400, 2)
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1])
    assert np.log(pairs).std() == pytest.approx(0.1, rel=0.1)

    class Repeated(fitting.ScalingLaw):
        variables = ("N", "D", "U")
        parameters = (fitting.Parameter("E", 0, 10),)

        def _loss(self, n, d, r, theta):
            return theta.E + (d + self.column("U")) ** -0.3

    with pytest.raises(ConfigError, match="also reads U"):
        datasets.simulate(Repeated(), {"E": 1.0})
    once = datasets.simulate(Repeated(), {"E": 1.0}, {"N": [1e9], "D": [1e9], "R": [0], "U": [1e9]}, noise=0)
    assert once["value"].item() == pytest.approx(1 + 2e9**-0.3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"law": "no_such_law"},
        {"params": {"zeta": 1.0}},
        {"params": {"C": 5.0}},
        {"params": {"C": float("nan")}},
        {"grid": "big"},
        {"grid": {"N": [1e9]}},
        {"grid": {"N": [1.0], "D": [20], "R": [0]}},
        {"noise": -0.1},
        {"outliers": 2},
        {"cluster_share": "half"},
        {"rng": "seed"},
        {"rng": -1},
    ],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ConfigError):
        datasets.simulate(**arguments)


@given(
    st.sampled_from(LAWS),
    st.dictionaries(st.sampled_from(["E", "A", "C", "beta", "eta", "g"]), st.floats(), max_size=3),
)
def test_no_parameters_raise_anything_but_a_ragscale_error(law, params):
    with np.errstate(all="ignore"):
        try:
            table = datasets.simulate(law, params, rng=0)
        except RagscaleError:
            return
    assert np.isfinite(table["value"]).all()
