"""A step within bounds, and the best N of a computation, against what defines them."""

from types import SimpleNamespace

import numpy as np
import pytest

from ragscale.fitting.laws._base import separable_optimum
from ragscale.fitting.solver._bounded_step import bounded_step


@pytest.mark.parametrize("seed", range(5))
def test_a_step_stays_within_bounds_and_leaves_no_slope_along_what_is_free(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(20, 4, 4))
    hessian = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(4)
    p, gradient = rng.uniform(-1, 1, (20, 4)), rng.normal(size=(20, 4))
    lower, upper = np.full(4, -1.0), np.full(4, 1.0)
    step, promised = bounded_step(hessian, gradient, p, lower, upper)
    assert (p + step >= lower).all()
    assert (p + step <= upper).all()
    slope = gradient + np.einsum("sij,sj->si", hessian, step)
    inside = (np.abs(p + step) < 1 - 1e-12) & (np.abs(p) < 1 - 1e-12)
    assert inside.sum() > 10
    assert (~inside).sum() > 5
    np.testing.assert_allclose(slope[inside], 0.0, atol=1e-9)
    drop = (gradient * step).sum(1) + 0.5 * np.einsum("si,sij,sj->s", step, hessian, step)
    np.testing.assert_allclose(promised, -drop, atol=1e-12)


def test_the_best_size_of_a_computation_has_no_better_neighbour():
    theta = SimpleNamespace(A=400.0, alpha=0.34, B=1200.0, beta=0.28)
    compute = np.array([1e18, 1e21, 1e24])
    best = separable_optimum(compute, theta)

    def loss(n):
        return theta.A * n**-theta.alpha + theta.B * (compute / (6 * n)) ** -theta.beta

    for factor in (0.98, 1.02):
        assert (loss(best) < loss(best * factor)).all()
