"""How rows weigh, what a residual costs, and through which link a table is read: every rule by its formula."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragscale.errors import ConfigError, FitError, ResultsError, ResultsWarning
from ragscale.fitting import Bounded, Hill, Identity, Link, Log, Log1p, Objective
from ragscale.fitting._table import check_fittable, row_weights
from ragscale.fitting.laws._base import Chinchilla
from ragscale.fitting.solver._make_link import make_link
from ragscale.fitting.solver.links import Negative

SCORES = pd.DataFrame(
    {
        "N": [1e8, 2e8, 4e8, 8e8],
        "D": 1e10,
        "R": [0.0, 1e9, 0.0, 1e9],
        "value": [0.2, 0.5, 0.9, 1.0],
        "n_examples": [100.0, 100.0, 400.0, 50.0],
    }
)
UP = Bounded(direction="up")

# Weights --------------------------------------------------------------------------------------------------------------


def test_scores_weigh_by_the_variance_of_their_questions():
    found, words = row_weights(SCORES, UP, None, "linear")
    n, p = SCORES["n_examples"], SCORES["value"]
    smooth = (n * p + 1) / (n + 2)  # a perfect score is no certainty
    expected = n / (smooth * (1 - smooth))
    np.testing.assert_allclose(found, expected / expected.mean())
    assert words == "binomial, from n_examples"
    assert found.mean() == pytest.approx(1.0)
    percent = row_weights(SCORES.assign(value=100 * p), Bounded(ceiling=100.0, direction="up"), None, "linear")[0]
    np.testing.assert_allclose(percent, found)


@pytest.mark.parametrize(
    ("change", "link", "words"),
    [
        ({}, Identity(), "equal"),  # a loss has no questions to count
        ({"n_examples": [100.0, None, 400.0, 50.0]}, UP, "equal: n_examples is not known in 1 of 4 rows"),
        ({"n_examples": None}, UP, "equal: n_examples is not known in 4 of 4 rows"),
        ({"value": [0.2, 0.5, 0.9, 1.2]}, UP, "equal"),  # no shares
        ({"n_seeds": [1, 2, 3, 2]}, Identity(), "number of seeds"),
        ({"n_seeds": [1, 1, 1, 1]}, Identity(), "equal"),
        ({"n_examples": None, "n_seeds": [1, 2, 3, 2]}, UP, "number of seeds"),
    ],
)
def test_otherwise_rows_weigh_by_their_seeds(change: dict[str, Any], link: Link, words: str):
    table = SCORES.assign(**change)
    found, said = row_weights(table, link, None, "linear")
    assert said == words
    np.testing.assert_allclose(found, table.get("n_seeds", pd.Series(1.0, table.index)))


@pytest.mark.parametrize(("space", "power"), [("linear", 0.0), ("log", 1.0)])
def test_standard_errors_weigh_by_their_inverse_square_where_residuals_are_taken(space: str, power: float):
    table = SCORES.assign(stderr=[0.1, 0.2, 0.1, 0.05])
    found, words = row_weights(table, Identity(), "stderr", space)
    expected = (table["value"] ** power / table["stderr"]) ** 2
    np.testing.assert_allclose(found, expected / expected.mean())
    assert words == "1 / stderr^2"


def test_weights_are_a_column_or_numbers_and_only_their_ratios_count():
    given_, words = row_weights(SCORES.assign(trust=[1, 2, 3, 2]), Identity(), "trust", "log")
    np.testing.assert_allclose(given_, [0.5, 1.0, 1.5, 1.0])
    assert words == "column 'trust'"
    np.testing.assert_allclose(row_weights(SCORES, Identity(), [10, 20, 30, 20], "log")[0], given_)
    assert row_weights(SCORES, Identity(), np.array([0, 0, 0, 5.0]), "log")[0].tolist() == [0, 0, 0, 4.0]


@pytest.mark.parametrize(
    ("weights", "change", "said"),
    [
        ("binomial", {"value": [2.0, 3.0, 4.0, 5.0]}, "needs values in [0, 1] (or percent) and a column n_examples"),
        ("binomial", {"n_examples": [100.0, None, 0.0, 50.0]}, "needs n_examples in every row; 2 lack it"),
        ("stderr", {}, "weights='stderr' needs a column stderr"),
        ("stderr", {"stderr": [0.1, 0.0, 0.1, 0.1]}, "a finite, positive stderr in every row"),
        ("stderr", {"stderr": [0.1, None, 0.1, 0.1]}, "a finite, positive stderr in every row"),
        ("much", {}, "weights = 'much' must be 'stderr', 'binomial', a column, an array or None"),
        ([1, 2, 3], {}, "weights need 4 finite, non-negative numbers, one per row (after averaging seeds)"),
        ([1, 2, 3, -1], {}, "non-negative"),
        ([1, 2, 3, math.nan], {}, "finite"),
        ([0, 0, 0, 0], {}, "weights need 4"),
        (["a", "b", "c", "d"], {}, "weights are not numeric"),
    ],
)
def test_weights_that_cannot_be_are_said(weights: Any, change: dict[str, Any], said: str):
    with pytest.raises(ConfigError) as caught:
        row_weights(SCORES.assign(**change), Identity(), weights, "log")
    assert said in str(caught.value)


# Losses ---------------------------------------------------------------------------------------------------------------

R = np.array([-3.0, -0.5, -1e-3, 0.0, 1e-3, 0.4, 2.0])
LOSSES = [
    Objective("huber", 0.5),
    Objective("least_squares"),
    Objective("quantile", 0.5, 0.1),
    Objective("quantile", 1e-3, 0.8),
]


def test_hubers_loss_is_quadratic_within_delta_and_linear_beyond():
    np.testing.assert_allclose(
        Objective("huber", 0.5).rho(R), [0.5 * (3 - 0.25), 0.125, 5e-7, 0, 5e-7, 0.08, 0.5 * (2 - 0.25)]
    )
    np.testing.assert_allclose(Objective("least_squares").rho(R), R**2 / 2)
    assert Objective("least_squares").limit == math.inf
    assert Objective("quantile", 0.2).limit == 0.2


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.8])
def test_the_quantile_loss_charges_too_much_and_too_little_by_tau(tau: float):
    quantile, huber = Objective("quantile", 0.5, tau), Objective("huber", 0.5)
    side = np.where(R > 0, 2 * (1 - tau), 2 * tau)  # predicted too much where r > 0
    np.testing.assert_allclose(quantile.rho(R), side * huber.rho(R))
    # its minimum over a constant is the quantile of what is observed
    seen = np.random.default_rng(0).uniform(0, 100, 2001)
    narrow = Objective("quantile", 1e-3, tau)
    at = np.linspace(0, 100, 501)
    best = at[np.argmin([narrow.rho(x - seen).sum() for x in at])]
    assert best == pytest.approx(np.quantile(seen, tau), abs=0.5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda one: f"{one.loss}-{one.tau}")
def test_weights_and_curvatures_are_derivatives_of_the_loss(loss: Objective):
    h = 1e-7
    r = R[np.abs(R) > 1e-2]
    slope = (loss.rho(r + h) - loss.rho(r - h)) / (2 * h)
    np.testing.assert_allclose(loss.weight(r) * r, slope, rtol=1e-5)
    inside = r[np.abs(np.abs(r) - loss.limit) > 1e-2] if np.isfinite(loss.limit) else r
    bend = (loss.weight(inside + h) * (inside + h) - loss.weight(inside - h) * (inside - h)) / (2 * h)
    np.testing.assert_allclose(loss.curvature(inside), bend, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "space", "words"),
    [
        (Objective("huber", 1e-3), "log", "sum of Huber(r; 0.001), r = log predicted - log observed"),
        (Objective("least_squares"), "linear", "sum of (r^2)/2, r = predicted - observed"),
        (
            Objective("quantile", 0.01, 0.25),
            "linear",
            "sum of the quantile loss (tau = 0.25, rounded within 0.01), r = predicted - observed",
        ),
    ],
)
def test_a_loss_says_what_it_sums(loss: Objective, space: str, words: str):
    assert loss.describe(space) == words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("l1",), "loss = 'l1'"), (("huber", 0.0), "delta = 0.0"), (("quantile", 0.1, 1.0), "tau = 1.0")],
)
def test_losses_that_cannot_be_are_named(arguments: Any, said: str):
    with pytest.raises(ConfigError, match=said):
        Objective(*arguments)


# Bounded links --------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.floats(-8, 8),
    st.floats(0.05, 0.4),
    st.floats(0.5, 0.95),
    st.sampled_from(["up", "down"]),
    st.sampled_from(["identity", "log"]),
)
def test_a_bounded_metric_is_a_sigmoid_between_its_limits(latent, floor, ceiling, way, on):
    link = Bounded(floor, ceiling, direction=way, on=on)
    s = 1 / (1 + math.exp(latent if way == "up" else -latent))
    expected = floor ** (1 - s) * ceiling**s if on == "log" else floor + (ceiling - floor) * s
    value = float(link.metric(np.array(latent)))
    assert value == pytest.approx(expected, rel=1e-12)
    assert link.rising == (way == "up")
    assert link.space == ("log" if on == "log" else "linear")
    if abs(latent) < 4:
        assert float(link.latent(np.array(value))) == pytest.approx(latent, abs=1e-6)
    h = 1e-6
    slope = (link.metric(np.array(latent + h)) - link.metric(np.array(latent - h))) / (2 * h)
    assert float(link.slopes(np.array(latent))[0]) == pytest.approx(float(slope), rel=1e-4, abs=1e-10)


def test_values_beyond_the_limits_have_the_latent_of_one_percent_inside():
    link = Bounded(0.2, 0.8, direction="up")
    inside = math.log(0.01 / 0.99)
    assert link.latent(np.array([0.0, 0.2, 0.8, 1.0])) == pytest.approx([-inside, -inside, inside, inside])


@pytest.mark.parametrize("on", ["identity", "log"])
def test_slopes_in_free_limits_are_differences(on: Any):
    table = pd.DataFrame({"value": [0.3, 0.5, 0.7], "metric": "acc"})
    link = Bounded("free", "free", direction="up", on=on).resolve(table)
    latent, at = np.array([-1.0, 0.5, 2.0]), {"floor": 0.2, "ceiling": 0.8}
    for name, slope in link.slopes(latent, at)[1].items():
        h = 1e-7
        up, down = ({**at, name: at[name] + s * h} for s in (1, -1))
        np.testing.assert_allclose(slope, (link.metric(latent, up) - link.metric(latent, down)) / (2 * h), rtol=1e-6)
    assert link.with_values(at).floor == 0.2
    again = Link.from_dict(link.to_dict())
    assert again == link


@pytest.mark.parametrize(
    ("values", "on", "floor", "ceiling"),
    [
        ([0.3, 0.7], "identity", (0.0, 0.42), (0.58, 1.0)),  # shares stay between 0 and 1
        ([0.5, 0.7], "identity", (0.3, 0.56), (0.64, 0.9)),
        ([2.0, 6.0], "identity", (0.0, 3.2), (4.8, 10.0)),
        ([-4.0, 0.0], "identity", (-8.0, -2.8), (-1.2, 1.0)),
        ([math.e**2, math.e**4], "log", (math.e**0.0, math.e**2.6), (math.e**3.4, math.e**6)),
    ],
)
def test_free_limits_are_looked_for_around_the_range_of_the_table(values, on, floor, ceiling):
    table = pd.DataFrame({"value": values, "higher_is_better": True})
    found = {p.name: (p.lower, p.upper) for p in Bounded("free", "free", on=on).resolve(table).parameters}
    assert found["floor"] == pytest.approx(floor)
    assert found["ceiling"] == pytest.approx(ceiling)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"floor": 0.9, "ceiling": 0.1}, "floor = 0.9 must be below ceiling = 0.1"),
        ({"floor": "low"}, "floor = 'low' must be a number or 'free'"),
        ({"ceiling": math.inf}, "ceiling = inf must be a number"),
        ({"floor": 0.0, "on": "log"}, "floor = 0.0 must be positive with on='log'"),
        ({"direction": "sideways"}, "direction = 'sideways' must be"),
        ({"on": "root"}, "on = 'root' must be"),
    ],
)
def test_bounded_links_that_cannot_be_are_named(options: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        Bounded(**options)


# Which link a table asks for ------------------------------------------------------------------------------------------


def table_of(values: list[float], metric: str | None = None, rises: bool | None = None, **columns: Any) -> pd.DataFrame:
    count = len(values)
    frame = pd.DataFrame({"N": np.geomspace(1e8, 1e9, count), "D": 1e10, "R": 0.0, "value": values}).assign(**columns)
    if metric is not None:
        frame["metric"] = metric
    return frame if rises is None else frame.assign(higher_is_better=rises)


def guessed(*arguments: Any, **columns: Any) -> tuple[Any, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = make_link("auto", table_of(*arguments, **columns))
    return found, " ".join(str(one.message) for one in caught if issubclass(one.category, ResultsWarning))


@pytest.mark.parametrize(
    ("values", "metric", "rises", "link"),
    [
        ([3.0, 2.5], "nll_per_token", None, Identity()),
        ([0.3, 0.2], "error_rate", None, Identity()),
        ([20.0, 12.0], "perplexity", None, Log()),
        ([0.9, 0.5], "perplexity", None, Identity()),  # no perplexity is below 1
        ([-3.0, -2.5], "logprob", True, Negative()),
        ([0.3, 0.6], "acc", None, Bounded(0.0, 1.0, "up")),
        ([30.0, 60.0], "acc", None, Bounded(0.0, 100.0, "up")),
        ([3.0, 2.5], None, False, Identity()),
    ],
)
def test_the_link_follows_the_metric_and_its_direction(values, metric, rises, link):
    found, said = guessed(values, metric, rises)
    assert found == link
    assert said == ""


def test_what_is_guessed_from_the_range_is_said():
    found, said = guessed([2e4, 3e3, 50.0], None, False)
    assert found == Log()
    assert "values up to 2e+04 are no loss per token: they are taken as perplexities" in said
    found, said = guessed([30.0, 60.0], None, True)
    assert found == Bounded(0.0, 100.0, "up")
    assert "with values of 30 to 60, is taken as percent" in said
    many = [2.0 + 0.01 * i for i in range(60)]
    found, said = guessed([*many, 5e4], None, False)
    assert found == Identity()
    assert "(row 60 is the largest): they are taken as losses with outliers" in said


def test_a_rising_metric_of_no_known_range_is_refused():
    with pytest.raises(ResultsError, match=r"the values go from -5 to 300: neither shares"):
        make_link("auto", table_of([-5.0, 300.0], None, True))


@pytest.mark.parametrize(
    ("values", "rises", "floor", "ceiling", "on"),
    [
        ([0.2, 0.9], True, 0.0, 1.0, "identity"),
        ([20.0, 90.0], True, 0.0, 100.0, "identity"),
        ([20.0, 190.0], True, "free", "free", "log"),
        ([-0.1, 0.9], True, "free", "free", "identity"),
        ([20.0, 90.0], False, "free", "free", "log"),  # a metric that falls and is above 1 is no percentage
        ([0.2, 0.9], False, 0.0, 1.0, "identity"),
    ],
)
def test_bounded_by_name_takes_known_limits_where_there_are_any(values, rises, floor, ceiling, on):
    found: Any = make_link("bounded", table_of(values, None, rises))
    assert (found.floor, found.ceiling, found.on) == (floor, ceiling, on)


@pytest.mark.parametrize(
    ("values", "chance", "floor"),
    [([0.3, 0.6], 0.25, 0.25), ([30.0, 60.0], 0.25, 25.0), ([30.0, 60.0], 25.0, 25.0), ([0.3, 0.6], 0.9, 0.0),
     ([0.3, 0.6], -0.1, 0.0), ([0.3, 0.6], [0.25, 0.5], 0.0), ([0.3, 0.6], None, 0.0)],
)  # fmt: skip
def test_one_known_chance_is_the_floor(values, chance, floor):
    found: Any = make_link("bounded", table_of(values, "acc", chance=chance))
    assert found.floor == floor


@pytest.mark.parametrize("link", ["square", 3, None])
def test_what_is_no_link_is_named(link: Any):
    with pytest.raises(ConfigError, match="must be 'auto'"):
        make_link(link, table_of([3.0, 2.0], "loss"))


# What keeps a law from a table ----------------------------------------------------------------------------------------


def enough(count: int = 12, **changes: Any) -> pd.DataFrame:
    return table_of(np.linspace(3, 2, count).tolist(), "loss").assign(**changes)


@pytest.mark.parametrize(
    ("law", "table", "link", "space", "said"),
    [
        (Chinchilla(), enough(4), Identity(), "log", "4 rows cannot determine 5 parameters"),
        (Chinchilla(), enough(5), Identity(), "log", ""),
        (Chinchilla(fixed={"E": 1.0}), enough(4), Identity(), "log", ""),
        (Hill(), enough(), Identity(), "log", "needs stores of different sizes, and R is 0 in every row"),
        (Log1p(), enough(R=1e9), Identity(), "log", "R is 1e+09 in every row"),
        (Chinchilla(), enough(value=-1.0), Identity(), "log", "the table has values <= 0 (down to -1)"),
        (Chinchilla(), enough(value=-1.0), Identity(), "linear", ""),
        (Chinchilla(), enough(metric="acc", value=0.5), Identity(), "log", "higher is better here"),
        (Chinchilla(), enough(), UP, "linear", "lower is better here"),
        (Chinchilla(), enough(value=0.5, metric="perplexity"), Log(), "log", "perplexity, which is at least 1"),
    ],
)
def test_a_table_that_cannot_determine_the_law_is_refused_with_the_reason(law, table, link, space, said):
    if not said:
        check_fittable(law, table, link, space)
        return
    with pytest.raises(FitError) as caught:
        check_fittable(law, table, link, space)
    assert said in str(caught.value)
