"""No prediction, interval or decision holds a value that the metric cannot have, whatever the link."""

import warnings

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import ExtrapolationWarning, FitError
from ragscale.fitting._intervals import finite
from ragscale.fitting.solver.links import Bounded, Identity, Log, Negative

GRID = [(n, d, r) for n in (1e8, 3e8, 1e9, 3e9) for d in (3e9, 3e10, 2e11) for r in (0.0, 1e7, 1e8, 1e9, 1e10)]
FAR = (1e9, 3e10, 1e40)  # where a gain without bound has eaten up the loss


def measured(link: str) -> pd.DataFrame:
    table = pd.DataFrame(GRID, columns=["N", "D", "R"])
    loss = 1.7 + 400 * table["N"] ** -0.34 + 410 * table["D"] ** -0.28 - 0.08 * np.log1p(table["R"] / 1e8)
    loss += 0.003 * np.random.default_rng(0).normal(size=len(table))
    names = {"negative": "log_likelihood", "log": "perplexity", "identity": "loss"}
    return table.assign(value={"negative": -loss, "log": np.exp(loss), "identity": loss}[link], metric=names[link])


@pytest.fixture(scope="module", params=["negative", "log", "identity"])
def fit(request: pytest.FixtureRequest) -> rs.fitting.ManifoldFit:
    found = rs.fit_manifold(measured(request.param), "log1p", delta="auto")
    assert found.link.name == request.param
    return found


def edge(fit: rs.fitting.ManifoldFit) -> float:
    return fit.highest if fit.link.rising else fit.lowest


def test_limits_follow_from_what_the_metric_is() -> None:
    values = np.array([0.3, 0.6])
    assert Negative().limits(-values) == (-np.inf, 0.0)
    assert Log().limits(1 + values) == (1.0, np.inf)
    assert Bounded(0.25, 1.0).limits(values) == (0.25, 1.0)
    assert Bounded("free", 1.0).limits(values) == (-np.inf, 1.0)
    assert Identity().limits(values) == (0.0, np.inf)
    assert Identity().limits(values - 0.4) == (-np.inf, np.inf)


def test_a_prediction_that_cannot_be_is_refused(fit: rs.fitting.ManifoldFit) -> None:
    assert float(fit.latent(*FAR)) < 0  # the formula itself
    side = "above 0" if fit.link.name == "negative" else f"below {edge(fit):g}"
    with pytest.warns(ExtrapolationWarning), pytest.raises(FitError, match=f"never {side}"):
        fit.predict(*FAR)
    assert np.isfinite(fit.predict(1e9, 3e10, 1e9))


def test_a_grid_shows_a_gap_there(fit: rs.fitting.ManifoldFit) -> None:
    predicted = fit.to_frame({"N": [1e9], "D": [3e10], "R": [0.0, 1e9, FAR[2]]})["predicted"].to_numpy()
    assert np.isfinite(predicted).tolist() == [True, True, False]


def test_intervals_end_at_what_can_be_or_are_refused(fit: rs.fitting.ManifoldFit) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        replicates = rs.bootstrap(fit, n_resamples=60, rng=0)
    loss = lambda r: float(fit.latent(1e9, 3e10, r))  # noqa: E731
    near = next(r for r in np.geomspace(1e10, 1e30, 2001) if loss(r) < 0.01 * fit.residuals.std())
    low, high = replicates.interval(1e9, 3e10, near, kind="prediction")
    assert fit.lowest <= low < high <= fit.highest
    assert edge(fit) in {float(low), float(high)}
    with pytest.raises(FitError, match="no finite interval"):
        replicates.interval(*FAR)


def test_decisions_do_not_recommend_what_cannot_be(fit: rs.fitting.ManifoldFit) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(FitError, match=r"this metric is never|outside"):
            rs.optimal_allocation(fit, N=1e9, budget=1e42)
        kept = rs.optimal_allocation(fit, N=1e9, budget=1e11)
    assert fit.lowest <= kept.value <= fit.highest


@pytest.mark.parametrize(("low", "high"), [(1.0, np.inf), (-np.inf, -3.0), (np.nan, 2.0), (np.inf, np.inf)])
def test_an_end_that_is_no_number_is_no_interval(low: float, high: float) -> None:
    with pytest.raises(FitError, match="no finite interval at 1 of 2"):
        finite(np.array([0.5, low]), np.array([1.0, high]), 0.0)
