"""h(R) in fits, bootstraps and the laws that decisions are given."""

import dataclasses

import numpy as np
import pytest

from ragscale import bootstrap, fit_manifold
from ragscale.datasets import simulate_reading
from ragscale.decisions._surface import surface
from ragscale.errors import ConfigError, IdentifiabilityWarning
from ragscale.fitting import Bootstrap, Reading, Theta
from ragscale.fitting._hit_rate import law_for_decisions
from ragscale.results import hit_rate_curve


@pytest.fixture(scope="module")
def fit():
    return fit_manifold(simulate_reading(model_noise=0.003, row_noise=0.0015, n_questions=300, rng=0), Reading(c=0.0))


@pytest.fixture(scope="module")
def boot(fit):
    with pytest.warns(IdentifiabilityWarning):
        return bootstrap(fit, n_resamples=40, rng=0)


def test_a_law_with_its_curve_reads_n_d_and_r_alone(fit):
    law = law_for_decisions(fit)
    at = law.loss(1.1e7, 2.4e7, [1e6, 1e7, 3e7], fit.theta)
    np.testing.assert_allclose(at, fit.predict(1.1e7, 2.4e7, [1e6, 1e7, 3e7]), rtol=1e-12)
    slope = law.gradient(1.1e7, 2.4e7, 1e7, fit.theta)[2]
    assert slope < 0
    assert float(slope) == pytest.approx(float(fit.gradient(1.1e7, 2.4e7, 1e7)[2]))


def test_every_replicate_has_a_curve_of_its_own(fit, boot):
    law = law_for_decisions(boot)
    r = np.array([1e6, 1e7, 3e7])
    h = law.column("hit_rate", r)
    assert h.shape == (41, 3)
    np.testing.assert_allclose(h[0], fit.hit_rate(r))
    np.testing.assert_allclose(h[1:], boot.hit_rate(r))
    assert h[1:].std(axis=0).min() > 0.005
    np.testing.assert_allclose(law.take(slice(3, 9)).column("hit_rate", r), h[3:9])
    theta = {name: np.append(fit.theta[name], boot.theta[name])[:, None] for name in boot.theta}
    free = {name: value for name, value in theta.items() if name not in law.fixed}
    np.testing.assert_allclose(law.loss(1.1e7, 2.4e7, r, free)[1:], boot.predict(1.1e7, 2.4e7, r), rtol=1e-12)


def test_a_replicate_that_is_lost_takes_its_curve_with_it(boot):
    whole = surface(boot)
    theta = {name: np.array(values) for name, values in boot.theta.items()}
    theta["gold"][[0, 7]] = np.nan
    fewer = surface(dataclasses.replace(boot, theta=Theta(theta)))
    r = np.array([1e6, 1e7, 3e7])
    kept = np.delete(np.arange(41), [1, 8])  # the point stands above the replicates
    np.testing.assert_array_equal(fewer.law.column("hit_rate", r), whole.law.column("hit_rate", r)[kept])
    np.testing.assert_array_equal(fewer.stacked()["D0"], whole.stacked()["D0"][kept])
    assert fewer.law.loss(1.1e7, 2.4e7, r, fewer.stacked()).shape == (39, 3)


def test_drawing_questions_widens_the_interval_of_a_store(fit, boot):
    drawn = boot.interval(1.1e7, 3.2e7, 3.2e7)
    held = boot.interval(1.1e7, 3.2e7, 3.2e7, hit_rate=float(fit.hit_rate(3.2e7)))
    assert drawn.high - drawn.low > 1.5 * (held.high - held.low)


def test_a_bootstrap_keeps_its_curves_in_a_file(boot, tmp_path):
    boot.save(tmp_path / "boot.npz")
    again = Bootstrap.load(tmp_path / "boot.npz")
    np.testing.assert_array_equal(again.predict(1e7, 2e7, [1e6, 2e7]), boot.predict(1e7, 2e7, [1e6, 2e7]))


def test_a_curve_from_elsewhere_takes_its_place(fit, boot):
    half = {1e6: 0.5, 1e8: 0.6}
    expected = hit_rate_curve(half)
    for given in (half, expected, lambda r: expected(r) + 0.0):
        np.testing.assert_allclose(law_for_decisions(fit, given).column("hit_rate", np.array([1e7])), expected([1e7]))
    assert np.shape(law_for_decisions(boot, expected).column("hit_rate", np.array([1e7]))) == (41, 1)
    fitted = fit_manifold(simulate_reading(rng=0), Reading(c=0.0), hit_rate=half)
    assert float(fitted.hit_rate(1e7)) == pytest.approx(float(expected(1e7)))


def test_what_cannot_be_a_curve_is_refused(fit):
    with pytest.raises(ConfigError, match="the same for every store"):
        law_for_decisions(fit, 0.3)
    single = simulate_reading(rng=0)
    single = single[single["condition"].isin(["closed-book", "oracle"])]
    unmeasured = fit_manifold(single, Reading(c=0.0))
    with pytest.raises(ConfigError, match="give hit_rate="):
        law_for_decisions(unmeasured)
    assert law_for_decisions(fit_manifold(simulate_reading(rng=0), "log1p")).name == "log1p"


def test_the_gain_has_the_limit_of_the_largest_measured_store(fit):
    law = law_for_decisions(fit)
    n, d = np.array([1.1e7]), np.array([3.2e7])
    theta = law.theta({k: v for k, v in fit.theta.items() if k not in law.fixed})
    limit = law._gain_limit(n, d, theta)
    gain = fit.predict(n, d, 0.0, hit_rate=0.0) - fit.predict(n, d, 3.2e7)
    np.testing.assert_allclose(limit, gain, rtol=1e-9)
    assert limit > 0.15 * fit.theta["gold"]
