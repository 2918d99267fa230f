"""Akaike's criterion, ties and weights, and the choice of a law: against integrals and arithmetic."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

import ragscale as rs
from ragscale.fitting import (
    Chinchilla,
    Comparison,
    CrossValidation,
    Hill,
    ManifoldFit,
    aicc,
    compare_laws,
    fit_manifold,
)
from ragscale.fitting._choose import _by_rows_within, _candidates, _chosen, _why
from ragscale.fitting._comparison import akaike_weights, simplest
from ragscale.fitting._criterion import deviance
from ragscale.fitting._evidence import Evidence, Paired


def rows(sizes: int = 6, tokens: int = 4, *, sigma: float = 0.01, seed: int = 0) -> pd.DataFrame:
    n, k = (x.ravel() for x in np.meshgrid(np.geomspace(3e7, 1e10, sizes), np.geomspace(2, 200, tokens), indexing="ij"))
    value = 1.7 + 400 * n**-0.34 + 410 * (k * n) ** -0.28
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"N": n, "D": k * n, "R": 0.0, "value": value * np.exp(sigma * rng.standard_normal(len(n)))})


@pytest.fixture(scope="module")
def fit() -> ManifoldFit:
    return fit_manifold(rows(), "chinchilla", delta=0.005)


# The criterion --------------------------------------------------------------------------------------------------------


def huber(r: np.ndarray, delta: float) -> np.ndarray:
    size = np.abs(r)
    return np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta))


def test_the_deviance_is_that_of_the_normalised_density_of_the_loss(fit: ManifoldFit):
    delta, residual = 0.005, fit.residuals

    def of(log_scale: float) -> float:
        s = np.exp(log_scale)
        z = (
            2
            * integrate.quad(
                lambda r: np.exp(-huber(np.array(r), delta) / s), 0, 60 * s / delta + 10 * delta, limit=400
            )[0]
        )
        return 2 * len(residual) * np.log(z) + 2 * float(huber(residual, delta).sum()) / s

    guess = np.log(fit.objective / len(residual))
    expected = optimize.minimize_scalar(
        of, bounds=(guess - 3, guess + 3), method="bounded", options={"xatol": 1e-6}
    ).fun
    assert deviance(fit) == pytest.approx(expected, rel=1e-5)


def test_least_squares_have_the_deviance_of_normal_noise():
    squares = fit_manifold(rows(), "chinchilla", loss="least_squares")
    n, rss = 24, float((squares.residuals**2).sum())
    assert deviance(squares) == pytest.approx(n * np.log(2 * np.pi * rss / n) + n, rel=1e-9)
    p = 6  # five parameters and the scale
    assert aicc(squares) == pytest.approx(deviance(squares) + 2 * p * 24 / (24 - p - 1), rel=1e-12)


def test_several_rows_of_a_model_are_no_more_than_one():
    table = rows()
    twice = pd.concat([table, table.assign(R=1e9)], ignore_index=True)
    one = fit_manifold(table, "chinchilla", loss="least_squares")
    two = fit_manifold(twice, "chinchilla", loss="least_squares")
    assert aicc(two) == pytest.approx(aicc(one), rel=1e-6)


@pytest.mark.parametrize(("models", "judged"), [(8, True), (7, False)])
def test_with_no_more_models_than_parameters_there_is_no_criterion(models: int, judged: bool):
    few = fit_manifold(rows().sample(models, random_state=1), "chinchilla")
    assert np.isfinite(aicc(few)) == judged


# Weights and ties -----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_weights_are_likelihoods_and_add_up_to_one(values: list[float]):
    criterion = np.array(values)
    weights = akaike_weights(criterion)
    assert weights.sum() == pytest.approx(1.0)
    order = np.argsort(criterion)
    np.testing.assert_allclose(
        weights / weights[order[0]], np.exp(-0.5 * (criterion - criterion[order[0]])), rtol=1e-9, atol=1e-300
    )
    np.testing.assert_allclose(akaike_weights(criterion + 17.0), weights, rtol=1e-6, atol=1e-12)


def test_laws_that_could_not_be_fitted_weigh_nothing_and_unjudged_ones_the_same():
    assert akaike_weights(np.array([1.0, np.nan, 1.0])).tolist() == [0.5, 0.0, 0.5]
    assert akaike_weights(np.array([np.inf, np.nan, np.inf])).tolist() == [0.5, 0.0, 0.5]
    assert akaike_weights(np.array([0.0, np.inf])).tolist() == [1.0, 0.0]


def compared(**laws: tuple[float, int]) -> Comparison:
    """A comparison with the criterion and number of parameters of each law."""
    table = pd.DataFrame([(name, a, p) for name, (a, p) in laws.items()], columns=["law", "aicc", "n_parameters"])
    table = table.set_index("law").sort_values("aicc", kind="stable")
    table["delta_aicc"] = table["aicc"] - table["aicc"].min()
    table["tied"] = table["delta_aicc"] <= 2.0
    table["weight"] = akaike_weights(table["aicc"].to_numpy(float))
    return Comparison(table=table.assign(problem=""), fits=dict.fromkeys(laws))


def test_the_simplest_of_tied_laws_and_the_better_of_two_as_simple():
    assert simplest(compared(a=(0.0, 9), b=(1.9, 7), c=(2.1, 5))) == "b"
    assert simplest(compared(a=(0.5, 7), b=(0.0, 7))) == "b"
    assert compared(a=(0.0, 9), b=(2.0, 7), c=(2.1, 5)).tied == ("a", "b")
    assert compared(a=(0.0, 9), b=(1.0, 7)).best == "a"


@pytest.mark.parametrize(
    ("reading", "smooth", "chosen"),
    [
        (0.0, {"hill": (2.0, 7), "log1p": (9.0, 7)}, "reading"),
        (0.1, {"hill": (2.0, 7), "log1p": (9.0, 7)}, "hill"),  # better by less than 2 is not better
        (5.0, {"hill": (0.0, 8), "log1p": (1.5, 7)}, "log1p"),
        (5.0, {"hill": (0.0, 8), "log1p": (2.5, 7)}, "hill"),
        (0.0, {"hill": (np.inf, 8)}, "reading"),
    ],
)
def test_reading_is_taken_where_it_is_plainly_better(reading, smooth, chosen):
    assert _chosen(compared(reading=(reading, 9), **smooth)) == chosen


def test_the_choice_is_explained_by_its_distance():
    assert _why(compared(hill=(0.0, 7), log1p=(5.0, 7)), "hill") == "hill by 5.0 AICc before log1p"
    tied = _why(compared(hill=(0.0, 7), log1p=(1.0, 6), power=(1.5, 7)), "log1p")
    assert tied == "log1p, the simplest of those that cannot be told apart (also hill, power)"
    forced = _why(compared(hill=(0.0, 7), log1p=(5.0, 7)), "log1p")
    assert forced == "log1p, although hill is lower by 5.0 AICc"
    assert _why(compared(hill=(0.0, 7)), "hill") == "hill is the only law that could be fitted"
    unjudged = _why(compared(hill=(np.inf, 7), log1p=(np.inf, 7)), "hill")
    assert unjudged.startswith("hill, the simplest")


# With few models ------------------------------------------------------------------------------------------------------


def stand_in(law: Any, residuals: list[float], models: list[int]) -> Any:
    data = pd.DataFrame({"N": 1e8 * (1 + np.array(models)), "D": 1e10, "R": 0.0})
    found = SimpleNamespace(law=law, residuals=np.array(residuals))
    found.__dict__["data"] = data
    return found


def test_few_models_are_compared_by_what_is_left_within_them():
    models = [0] * 5 + [1] * 5
    within = [0.1, -0.1, 0.2, 0.0, -0.3]
    flat = stand_in(Chinchilla(), [5 + w for w in within] + [w - 2 for w in within], models)
    half = stand_in(Hill(), [0.5 * w for w in within] * 2, models)
    base = compared(chinchilla=(np.inf, 5), hill=(np.inf, 7))
    found = _by_rows_within(replace(base, fits={"chinchilla": flat, "hill": half})).table
    m = 10 - 2
    spread = 2 * sum(map(abs, within)) / m  # around the median of each model: what training did cancels
    assert found.loc["chinchilla", "aicc"] == pytest.approx(2 * m * np.log(spread) + 2 * 1 * m / (m - 2))
    p = len([one for one in Hill().free if one.name not in {"E", "A", "alpha", "B", "beta"}]) + 1
    assert found.loc["hill", "aicc"] == pytest.approx(2 * m * np.log(spread / 2) + 2 * p * m / (m - p - 1))
    assert found["tied"].tolist() == [True] + [bool(found["delta_aicc"].iloc[1] <= 2)]
    assert found["weight"].sum() == pytest.approx(1.0)


def evidence_with(**changes: Any) -> Evidence:
    helps = Paired(what="largest", gain=0.3, low=0.2, high=0.4, n_models=9)
    none = pd.DataFrame(columns=["R", "gain", "low", "high", "n_models"])
    return replace(Evidence(stores=none, smallest=helps, largest=helps, reads=None, needed=0.1), **changes)


def test_candidates_have_a_store_where_one_helps_and_an_offset_where_the_smallest_hurts():
    table = rs.datasets.simulate("log1p", noise=0.01, rng=0)
    laws, words = _candidates(table, evidence_with())
    assert all("R" in law.variables for law in laws)
    assert words == []
    nothing = Paired(what="largest", gain=0.0, low=-0.1, high=0.1, n_models=9)
    laws, _ = _candidates(table, evidence_with(largest=nothing, smallest=nothing))
    assert "chinchilla" in [law.name for law in laws]
    hurts = Paired(what="smallest", gain=-0.1, low=-0.2, high=-0.01, n_models=9)
    laws, words = _candidates(table, evidence_with(smallest=hurts))
    assert sum(law.offset for law in laws) == 3
    assert words == ["the smallest stores hurt and larger ones help: laws with an offset are compared too"]


@pytest.mark.parametrize(
    ("reads", "is_candidate", "said"),
    [
        (Paired(what="gold", gain=0.5, low=0.3, high=0.7, n_models=5), True, []),
        (Paired(what="gold", gain=0.01, low=-0.02, high=0.04, n_models=5), False, ["nobody reads in this range"]),
        (
            Paired(what="gold", gain=0.3, low=-0.2, high=0.8, n_models=5),
            False,
            ["whether anybody reads cannot be told"],
        ),
        (None, False, []),
    ],
)
def test_reading_is_a_candidate_where_models_surely_read(reads, is_candidate, said):
    table = rs.datasets.simulate("log1p", noise=0.01, rng=0).assign(hit_rate=0.5)
    laws, words = _candidates(table, evidence_with(reads=reads))
    assert ("reading" in [law.name for law in laws]) == is_candidate
    assert words == said
    laws, words = _candidates(table.drop(columns="hit_rate"), evidence_with(reads=reads))
    assert "reading" not in [law.name for law in laws]


# Held-out errors ------------------------------------------------------------------------------------------------------


def folds_of(*errors: tuple[int, float, float], space: Any = "log") -> CrossValidation:
    table = pd.DataFrame(errors, columns=["n_test", "error", "bias"]).assign(fold="x", n_train=9, objective=1.0)
    return CrossValidation(law="hill", leave_out="N", table=table, space=space)


def test_errors_over_folds_are_means_over_rows():
    found = folds_of((1, 0.4, -0.4), (3, 0.1, 0.05))
    assert found.error == pytest.approx((0.4 + 3 * 0.1) / 4)
    assert found.bias == pytest.approx((-0.4 + 3 * 0.05) / 4)
    assert len(found) == 2
    assert "hill misses rows left out by 0.175 on average of the metric (relative); bias -0.062" in found.summary()
    assert "in units of the metric" in folds_of((1, 0.4, -0.4), space="linear").summary()


@pytest.mark.parametrize("link", ["identity", "log"])
def test_the_error_of_a_fold_is_that_of_a_fit_without_it(link: str):
    table = rows()
    if link == "log":
        table = table.assign(value=np.exp(table["value"]), metric="perplexity")
    folds = rs.fitting.cross_validate(table, "chinchilla", leave_out="N", link=link)
    first = float(table["N"].min())
    without = fit_manifold(table[table["N"] > first], "chinchilla", link=link)
    test = table[table["N"] == first]
    predicted = without.link.metric(without.latent(test["N"], test["D"], 0.0))
    value = test["value"].to_numpy()
    difference = predicted / value - 1.0 if folds.space == "log" else predicted - value
    row = folds.table.iloc[0]
    assert row["fold"] == f"N = {first:g}"
    assert (row["n_train"], row["n_test"]) == (20, 4)
    assert row["error"] == pytest.approx(np.abs(difference).mean(), rel=1e-6)
    assert row["bias"] == pytest.approx(difference.mean(), rel=1e-6)


def test_a_fifth_of_the_rows_with_the_most_compute_is_left_out():
    (row,) = rs.fitting.cross_validate(rows(), "chinchilla", leave_out="compute").table.to_dict("records")
    assert (row["n_train"], row["n_test"]) == (19, 5)
    assert row["fold"] == "largest 20% by N D"


def test_folds_by_number_hold_every_model_once_and_repeat():
    folds = rs.fitting.cross_validate(rows(), "chinchilla", leave_out=5, rng=3).table
    assert folds["n_test"].tolist() == [5, 5, 5, 5, 4]
    assert folds["fold"].tolist() == [f"fold {i} of 5" for i in range(1, 6)]
    again, other = (rs.fitting.cross_validate(rows(), "chinchilla", leave_out=5, rng=rng).table for rng in (3, 4))
    pd.testing.assert_frame_equal(folds, again)
    assert not folds["error"].equals(other["error"])


def test_folds_of_a_metric_in_larger_units_are_the_same_folds():
    """An objective of thousands is searched as one of thousandths."""
    table = rows(8, 4, sigma=0.02)
    options = {"loss": "least_squares", "space": "linear", "link": "identity", "leave_out": "N"}
    small = rs.fitting.cross_validate(table, "chinchilla", **options)
    large = rs.fitting.cross_validate(table.assign(value=1000 * table["value"], metric="loss"), "chinchilla", **options)
    np.testing.assert_allclose(large.table["error"], 1000 * small.table["error"], rtol=1e-4)
    assert large.table["objective"].min() > 10


@pytest.mark.parametrize(
    ("way", "kind", "said"),
    [
        ("model", rs.errors.ConfigError, "leave_out = 'model' must be 'N', 'D', 'R', 'compute' or a number of folds"),
        (1, rs.errors.ConfigError, "leave_out = 1 must be"),
        (True, rs.errors.ConfigError, "leave_out = True must be"),
        ("R", rs.errors.FitError, "leave_out='R' needs at least 2 values of R; the table has 0"),
        (25, rs.errors.FitError, "leave_out=25 folds need as many trained models; the table has 24"),
    ],
)
def test_ways_that_cannot_be_gone_are_named(way: Any, kind: type[Exception], said: str):
    with pytest.raises(kind, match=said):
        rs.fitting.cross_validate(rows(), "chinchilla", leave_out=way)


# The table ------------------------------------------------------------------------------------------------------------


def test_laws_of_one_name_are_told_apart_and_failures_say_why():
    table = rs.datasets.simulate("hill", noise=0.005, rng=0)
    found = compare_laws(table, [Hill(), Hill(exponent=2.0), "data_constrained"], held_out=False)
    names = list(found.table.index)
    assert sum(name.startswith("Hill(") for name in names) == 2
    assert (
        "also reads" in found.table.loc["data_constrained", "problem"]
        or "U" in found.table.loc["data_constrained", "problem"]
    )
    assert len(found.fits) == 2
    assert set(found.weights) == set(found.fits)
    assert any(line.startswith("data_constrained: ") for line in found.summary().splitlines())
    frame = found.to_frame()
    assert list(frame["law"]) == names


def test_no_law_at_all_is_refused():
    with pytest.raises(rs.errors.ConfigError, match="laws is empty"):
        compare_laws(rows(), [])
    with pytest.raises(rs.errors.FitError, match="no law could be fitted: data_constrained"):
        compare_laws(rows(), ["data_constrained"], held_out=False)


@pytest.mark.parametrize(
    ("laws", "head"),
    [
        ({"a": (0.0, 5), "b": (1.0, 5)}, "a and b cannot be told apart by these results"),
        ({"a": (0.0, 5)}, "a is the only law that could be fitted"),
        ({"a": (0.0, 5), "b": (9.0, 5)}, "a describes these results better than the other laws"),
    ],
)
def test_the_first_line_says_what_was_found(laws: dict[str, tuple[float, int]], head: str):
    assert compared(**laws).summary().splitlines()[0] == head
    assert replace(compared(**laws), note="by 3").summary().splitlines()[0] == "chosen: by 3"
