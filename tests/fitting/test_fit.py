"""fit_manifold: the exact optimum, invariances, objectives, result objects, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.errors import CheckpointError, ConfigError, ExtrapolationWarning, FitError, RagscaleError, ResultsError
from ragscale.fitting import Hill, Log1p, ManifoldFit, Objective, Power

LAWS = (
    "chinchilla",
    "log1p",
    "power",
    "hill",
    "rpower",
    "log_ratio",
    "interaction",
    "effective_data",
    "multiplicative",
)


@pytest.mark.parametrize("law", LAWS)
def test_a_noise_free_surface_is_found_exactly(law: str) -> None:
    table = simulate(law, noise=0.0, rng=0)
    fit = rs.fit_manifold(table, law, link="identity")
    assert fit.objective < 1e-12
    points = ([2e8, 5e9], [1e10, 3e10], [1e9, 4e9])
    truth = fit.law.loss(*points, {p.name: table.attrs["params"][p.name] for p in fit.law.free})
    assert np.allclose(fit.latent(*points), truth, rtol=1e-5)


def test_the_objective_is_the_stated_sum(make_surface: Any) -> None:
    table = make_surface(noise=0.01)
    for options in ({}, {"delta": 0.02}, {"loss": "least_squares"}, {"loss": "quantile", "tau": 0.1}):
        fit = rs.fit_manifold(table, "log1p", **options)
        r = np.log(fit.predict(table["N"], table["D"], table["R"])) - np.log(table["value"].to_numpy())
        size, delta = np.abs(r), fit.loss.delta
        huber = np.where(size <= delta, r * r / 2, delta * (size - delta / 2))
        expected = {"huber": huber, "least_squares": r * r / 2, "quantile": huber * np.where(r > 0, 1.8, 0.2)}[
            fit.loss.loss
        ]
        assert fit.objective == pytest.approx(expected.sum(), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_search_from_many_starts_finds_less(make_surface: Any, search: Any, seed: int) -> None:
    table = make_surface(noise=0.02, gain=0.0, seed=seed).query("R == 0")
    fit = rs.fit_manifold(table, "chinchilla")
    assert fit.converged
    assert fit.objective <= search(table, 25) * (1 + 1e-8)


@given(order=st.randoms(use_true_random=False), factor=st.floats(0.1, 10), metric=st.floats(0.5, 2))
@settings(max_examples=8)
def test_rows_and_units_do_not_matter(order: Any, factor: float, metric: float) -> None:
    table = simulate("log1p", noise=0.01, rng=3)
    rows = list(range(len(table)))
    order.shuffle(rows)
    moved = table.iloc[rows].assign(
        N=lambda t: t["N"] * factor,
        D=lambda t: t["D"] * factor,
        R=lambda t: t["R"] * factor,
        value=lambda t: t["value"] * metric,
    )
    fit, other = (rs.fit_manifold(t, "log1p", link="identity") for t in (table, moved))
    assert other.objective == pytest.approx(fit.objective, rel=1e-8)
    assert other.theta.alpha == pytest.approx(fit.theta.alpha, rel=1e-5)
    assert other.theta.eta == pytest.approx(fit.theta.eta / factor, rel=1e-4)
    assert pytest.approx(fit.theta.E * metric, rel=1e-5) == other.theta.E


def test_doubled_rows_double_the_objective_and_nothing_else(make_surface: Any) -> None:
    table = make_surface(noise=0.01)
    twice = pd.concat([table.assign(run="a"), table.assign(run="b")])
    fit, double = rs.fit_manifold(table, "log1p"), rs.fit_manifold(twice, "log1p")
    weighted = rs.fit_manifold(table.assign(w=2.0), "log1p", weights="w")
    assert double.objective == pytest.approx(2 * fit.objective, rel=1e-9)
    assert weighted.objective == pytest.approx(fit.objective, rel=1e-9)
    assert dict(double.theta) == pytest.approx(dict(fit.theta), rel=1e-5)


def test_the_same_table_gives_the_same_bits(make_surface: Any) -> None:
    table = make_surface(noise=0.01)
    first, second = (rs.fit_manifold(table, "hill") for _ in range(2))
    assert dict(first.theta) == dict(second.theta)


def test_a_few_wild_rows_do_not_move_a_robust_fit(make_surface: Any) -> None:
    table = make_surface(noise=0.003)
    wild = table.copy()
    wild.loc[[5, 40, 90], "value"] *= [1.5, 1.3, 1.4]
    clean = rs.fit_manifold(table, "log1p")
    robust, square = (rs.fit_manifold(wild, "log1p", loss=loss) for loss in ("huber", "least_squares"))
    counts = [table[c].to_numpy() for c in "NDR"]
    truth = clean.predict(*counts)
    errors = [np.abs(f.predict(*counts) / truth - 1).mean() for f in (robust, square)]
    assert errors[0] < 1e-3
    assert errors[1] > 4 * errors[0]


def test_the_quantile_loss_follows_the_lower_envelope(make_surface: Any) -> None:
    table = make_surface(noise=0.03)
    fit = rs.fit_manifold(table, "log1p", loss="quantile", tau=0.1)
    below = np.mean(fit.residuals > 0)  # the row lies below the surface
    assert 0.03 < below < 0.2


def test_delta_auto_is_set_by_the_scatter() -> None:
    table = simulate("log1p", noise=0.01, rng=0)
    assert rs.fit_manifold(table, "log1p", delta="auto").loss.delta == pytest.approx(1.345 * 0.01, rel=0.15)


def test_weights_by_standard_error_prefer_the_precise_rows(make_surface: Any) -> None:
    table = make_surface(noise=0.0)
    rng = np.random.default_rng(0)
    table["stderr"] = np.where(rng.random(len(table)) < 0.5, 0.001, 0.1)
    table["value"] += table["stderr"] * rng.standard_normal(len(table))
    truth = make_surface(noise=0.0)["value"].to_numpy()
    counts = [table[c].to_numpy() for c in "NDR"]
    errors = [
        np.abs(rs.fit_manifold(table, "log1p", weights=w, loss="least_squares").predict(*counts) - truth).mean()
        for w in (None, "stderr")
    ]
    assert errors[1] < 0.2 * errors[0]


def test_seeds_are_averaged_and_weighted_or_kept(make_surface: Any) -> None:
    table = make_surface(noise=0.01)
    seeds = pd.concat([table.assign(seed=42.0), table.iloc[:30].assign(seed=43.0, value=lambda t: t["value"] * 1.01)])
    averaged = rs.fit_manifold(seeds, "log1p")
    assert len(averaged.data) == len(table)
    assert set(averaged.data["weight"]) == {1.0, 2.0}
    assert len(rs.fit_manifold(seeds, "log1p", seed_average=False).data) == len(seeds)


def test_options_hold_parameters(make_surface: Any) -> None:
    table = make_surface()
    tied = rs.fit_manifold(table, Log1p(tie=True))
    assert tied.theta.alpha == tied.theta.beta
    assert tied.params.loc["beta", "note"] == "= alpha"
    fixed = rs.fit_manifold(table, Log1p(fixed={"E": 1.6, "eta": 2e-9}))
    assert (fixed.theta.E, fixed.theta.eta) == (1.6, 2e-9)
    assert np.isnan(fixed.params.loc["E", "stderr"])
    free = rs.fit_manifold(table, Log1p())
    assert free.objective <= min(tied.objective, fixed.objective)


def test_an_offset_finds_the_cost_of_inserting_text(make_surface: Any) -> None:
    table = make_surface(noise=0.002)
    table.loc[table["R"] > 0, "value"] += 0.05
    fit = rs.fit_manifold(table, Log1p(offset=True))
    assert fit.theta.offset == pytest.approx(0.05, abs=0.01)


def test_power_fixes_its_scale_near_the_stores_unless_told() -> None:
    table = simulate("power", noise=0.005, rng=0)
    assert rs.fit_manifold(table, "power").theta.R0 == 1e9
    small = table.assign(N=table["N"] / 1e4, D=table["D"] / 1e4, R=table["R"] / 1e4)
    assert rs.fit_manifold(small, "power", link="identity").theta.R0 == 1e5
    free = rs.fit_manifold(table, Power(R0="free"))
    assert free.objective <= rs.fit_manifold(table, "power").objective * (1 + 1e-9)


def test_a_freed_exponent_never_fits_worse() -> None:
    table = simulate("hill", noise=0.01, rng=0)
    fixed, free = rs.fit_manifold(table, "hill"), rs.fit_manifold(table, Hill(exponent="free"))
    assert free.objective <= fixed.objective * (1 + 1e-9)


# What a fit gives ----------------------------------------------------------------------------------------------------


def test_a_saved_fit_predicts_bit_for_bit(make_surface: Any, tmp_path: Path) -> None:
    fit = rs.fit_manifold(make_surface(), Log1p(offset=True, fixed={"E": 1.65}))
    path = tmp_path / "fit.json"
    fit.to_json(path)
    again = ManifoldFit.from_json(path)
    points = (np.geomspace(1e8, 1e10, 50), np.geomspace(1e9, 1e12, 50), np.geomspace(1e8, 1e11, 50))
    assert np.array_equal(fit.latent(*points), again.latent(*points))
    assert again.objective == fit.objective
    assert again.summary() == fit.summary()
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(CheckpointError, match="upgrade ragscale"):
        ManifoldFit.from_json(path)


def test_the_view_in_billions_is_the_same_surface(make_surface: Any) -> None:
    for law in ("log1p", "power", "hill", "interaction", "log_ratio", "effective_data", "multiplicative", "rpower"):
        fit = rs.fit_manifold(make_surface(), law)
        there = fit.params_in(1e9)["value"].to_dict()
        n, d, r = 3e8, 4e9, 2e9
        law_there = type(fit.law)(**{**fit.law.options(), "fixed": {k: there[k] for k in fit.law.fixed}})
        value = law_there.loss(n / 1e9, d / 1e9, r / 1e9, {k: v for k, v in there.items() if k not in fit.law.fixed})
        assert float(value) == pytest.approx(float(fit.latent(n, d, r)), rel=1e-9)


def test_the_gradient_is_that_of_the_prediction(make_surface: Any) -> None:
    table = make_surface()
    scored = table.assign(value=lambda t: 1 / (1 + np.exp(3 * (t["value"] - 2.6))), metric="acc")
    for fit in (
        rs.fit_manifold(table, "hill"),
        rs.fit_manifold(table.assign(value=np.exp(table["value"])), "log1p", link="log"),
        rs.fit_manifold(scored, "log1p", link="bounded"),
    ):
        at = np.array([5e8, 2e10, 3e9])
        slopes = fit.gradient(*at)
        for axis in range(3):
            step = np.zeros(3)
            step[axis] = 1e-4 * at[axis]
            numeric = (fit.predict(*(at + step)) - fit.predict(*(at - step))) / (2 * step[axis])
            assert float(slopes[axis]) == pytest.approx(float(numeric), rel=1e-5)


def test_predictions_far_away_warn_and_say_how_far(make_surface: Any) -> None:
    fit = rs.fit_manifold(make_surface(), "log1p")
    assert fit.extrapolation(3e9, 2e10, 1e9)["ratio"].iloc[0] == 1.0
    assert fit.extrapolation(1e11, 2e10, 1e9)["N"].iloc[0] == pytest.approx(10.0)
    with pytest.warns(ExtrapolationWarning, match="N 100 times"):
        fit.predict(1e12, 2e10, 1e9)


def test_frames_of_rows_tables_and_grids(make_surface: Any) -> None:
    table = make_surface()
    fit = rs.fit_manifold(table, "log1p")
    rows = fit.to_frame()
    assert np.allclose(np.log(rows["predicted"] / rows["value"]), rows["residual"])
    assert len(fit.to_frame({"N": [1e9, 2e9], "D": [1e10], "R": [0, 1e9, 2e9]})) == 6
    assert len(fit.to_frame(table[["N", "D"]].head(3))) == 3


def test_a_fit_shows_itself(make_surface: Any) -> None:
    fit = rs.fit_manifold(make_surface(), "log1p")
    for text in (fit.summary(), fit._repr_html_()):
        assert "alpha" in text
        assert "Retrieval helps" in text
    with pytest.raises(AttributeError):
        fit.objective = 0.0  # type: ignore[misc]


def test_lmfit_agrees_on_least_squares(make_surface: Any) -> None:
    fit = rs.fit_manifold(make_surface(), "log1p", loss="least_squares")
    minimizer, parameters = fit.to_lmfit()
    result = minimizer.minimize(params=parameters)
    assert result.chisqr / 2 == pytest.approx(fit.objective, rel=1e-6)


# What it refuses -----------------------------------------------------------------------------------------------------


def test_a_law_in_r_without_variation_of_r_is_refused(plane: pd.DataFrame) -> None:
    with pytest.raises(FitError, match=r"R is 0 in every row: fit law='chinchilla'"):
        rs.fit_manifold(plane, "log1p")


def test_wrong_arguments_say_what_would_be_right(plane: pd.DataFrame) -> None:
    for options, message in (
        ({"law": "cubic"}, "not known; give a ScalingLaw or one of"),
        ({"delta": -1.0}, "delta = -1.0 must be positive"),
        ({"delta": "big"}, "number or 'auto'"),
        ({"loss": "l3"}, "loss = 'l3'"),
        ({"space": "cube"}, "space = 'cube'"),
        ({"link": "probit"}, "link = 'probit'"),
        ({"weights": "nothing"}, "weights = 'nothing'"),
        ({"weights": [1.0, 2.0]}, "need 24 finite"),
        ({"weights": "stderr"}, "needs a column stderr"),
        ({"loss": "quantile", "tau": 2.0}, "tau = 2.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            rs.fit_manifold(plane, **{"law": "chinchilla", **options})
    with pytest.raises(ResultsError, match="N = 'size'"):
        rs.fit_manifold(plane, "chinchilla", N="size")
    with pytest.raises(FitError, match="3 parameters"):  # one size: A and alpha are left out
        rs.fit_manifold(plane.head(2), "chinchilla")
    with pytest.raises(FitError, match="values <= 0"):
        rs.fit_manifold(plane.assign(value=plane["value"] - 3), "chinchilla", link="identity")
    with pytest.raises(ConfigError, match="must be positive"):
        rs.fit_manifold(plane, "chinchilla").params_in(0)


def test_several_surfaces_in_one_table_are_refused_together(plane: pd.DataFrame) -> None:
    mixed = plane.assign(task=["a", "b"] * 12, metric=["acc", "ppl", "acc"] * 8)
    with pytest.raises(ResultsError, match=r"(?s)'task' holds 2.*'metric' holds 2.*Choose rows first"):
        rs.fit_manifold(mixed, "chinchilla")


counts = st.one_of(st.floats(1e3, 1e13), st.integers(0, 2**62), st.sampled_from([0.0, -1.0, np.nan, np.inf, "x", None]))
values = st.one_of(st.floats(-1, 10), st.sampled_from([np.nan, np.inf, 0.0, 1e300, 1e-300, "y", None]))


@given(
    rows=st.lists(st.tuples(counts, counts, counts, values), max_size=14),
    law=st.sampled_from(["chinchilla", "log1p", "hill"]),
    link=st.sampled_from(["auto", "identity", "log", "bounded"]),
)
@settings(max_examples=60, phases=(Phase.explicit, Phase.generate))
@pytest.mark.filterwarnings("ignore::ragscale.errors.ResultsWarning")
def test_no_table_fails_with_anything_but_a_ragscale_error(rows: list[Any], law: str, link: str) -> None:
    table = pd.DataFrame(rows, columns=["N", "D", "R", "value"])
    try:
        fit = rs.fit_manifold(table, law, link=link)
    except RagscaleError:
        return
    assert np.isfinite(fit.objective)
    assert isinstance(fit.summary(), str)


finite = st.tuples(
    st.floats(1e6, 1e12), st.floats(1e7, 1e13), st.one_of(st.just(0.0), st.floats(1e5, 1e12)), st.floats(1e-3, 50)
)


@given(
    rows=st.lists(finite, min_size=6, max_size=14, unique_by=lambda row: row[:3]),
    law=st.sampled_from(["chinchilla", *LAWS]),
    link=st.sampled_from(["auto", "identity", "bounded"]),
)
@settings(max_examples=15, phases=(Phase.explicit, Phase.generate))
@pytest.mark.filterwarnings("ignore::ragscale.errors.ResultsWarning")
def test_any_sound_table_is_fitted_or_refused_with_a_reason(rows: list[Any], law: str, link: str) -> None:
    table = pd.DataFrame(rows, columns=["N", "D", "R", "value"])
    try:
        fit = rs.fit_manifold(table, law, link=link)
    except (FitError, ResultsError):
        return
    assert np.isfinite(list(fit.theta.values())).all()
    assert np.isfinite(fit.latent(table["N"], table["D"], table["R"])).all()
    assert isinstance(fit.summary(), str)


# Real tables ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def chinchilla(shared_data: Path) -> pd.DataFrame:
    table = pd.read_csv(shared_data / "results" / "chinchilla_epoch.csv")
    return table[table["epoch_excluded"] == 0].rename(columns={"loss": "value"})[["N", "D", "value"]]


def test_epochs_table_is_fitted_to_its_optimum(chinchilla: pd.DataFrame) -> None:
    fit = rs.fit_manifold(chinchilla, "chinchilla", link="identity")
    assert fit.objective <= 0.00101827402
    published = {"E": 1.81722, "A": 477.81, "alpha": 0.347308, "B": 2143.5, "beta": 0.367174}
    assert dict(fit.theta) == pytest.approx(published, rel=1e-4)


def test_epochs_published_intervals_are_reproduced(chinchilla: pd.DataFrame) -> None:
    fit = rs.fit_manifold(chinchilla, "chinchilla", link="identity")
    params = rs.bootstrap(fit, n_resamples=1000, by="rows", rng=0).params
    published = {"E": (1.769, 1.871), "A": (285.2, 743.6), "alpha": (0.317, 0.373), "beta": (0.331, 0.415)}
    for name, (low, high) in published.items():
        width = high - low
        assert abs(params.loc[name, "low"] - low) < 0.1 * width
        assert abs(params.loc[name, "high"] - high) < 0.1 * width


def test_an_objective_says_what_it_is() -> None:
    assert Objective().describe("log") == "sum of Huber(r; 0.001), r = log predicted - log observed"
