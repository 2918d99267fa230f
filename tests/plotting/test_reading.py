"""Pictures of reading draw what the fit says."""

import numpy as np
import pytest

from ragscale import fit_manifold
from ragscale.datasets import simulate_reading
from ragscale.errors import ConfigError
from ragscale.fitting import Reading
from ragscale.results import hit_rate_curve

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

from ragscale import plotting  # noqa: E402 - after the backend is chosen


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_gain_is_drawn_with_its_threshold():
    fit = fit_manifold(simulate_reading({"c": 0.0}, rng=0), Reading(c=0.0))
    ax = plotting.reading(fit, N=[1.1e7])
    thick, thin = ax.get_lines()[:2]
    d, gain = thick.get_xdata(), thick.get_ydata()
    np.testing.assert_allclose(gain, fit.predict(1.1e7, d, 0.0, hit_rate=0.0) - fit.predict(1.1e7, d, 3.2e7))
    assert np.all(thin.get_ydata() >= gain)
    dotted = next(line for line in ax.get_lines() if line.get_linestyle() == ":")
    assert dotted.get_xdata()[0] == pytest.approx(1.2e7, rel=1e-3)
    points = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert len(points) == 6
    for point in points:
        at, seen = float(point.get_xdata()[0]), float(np.ravel(point.get_ydata())[0])
        assert seen == pytest.approx(float(np.interp(at, d, thin.get_ydata())), rel=1e-3)
    with pytest.raises(ConfigError, match="no threshold"):
        plotting.reading(fit_manifold(simulate_reading(rng=0), "log1p"))


def test_a_hit_rate_is_drawn_with_what_was_measured():
    curve = hit_rate_curve({1e6: 0.1, 1e7: 0.3, 1e8: 0.5}, n_questions=200)
    ax = curve.plot(color="C3")
    line, points = ax.get_lines()
    np.testing.assert_allclose(line.get_ydata(), curve(line.get_xdata()))
    np.testing.assert_allclose(points.get_xydata(), [[1e6, 0.1], [1e7, 0.3], [1e8, 0.5]])
    assert line.get_color() == "C3"
    assert ax.get_ylabel() == "hit rate h"
