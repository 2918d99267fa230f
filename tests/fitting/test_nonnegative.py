"""Least squares with coefficients that cannot be negative, very many at once, against scipy's one at a time."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from ragscale.fitting.solver import _linear
from ragscale.fitting.solver._linear import nonnegative


def systems(k: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Columns that all point the same way, as those of a scaling law do: many solutions lie at zeros."""
    columns = rng.normal(size=(count, 12, k)) + rng.uniform(0, 3, size=(count, 1, k))
    return columns, rng.normal(size=(count, 12)) + rng.choice([-1.0, 1.0], size=(count, 1))


def normal(columns: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.einsum("pni,pnj->ijp", columns, columns), np.einsum("pni,pn->ip", columns, goal)


@pytest.mark.parametrize("exchanges", [4, 0], ids=["exchanged", "tried"])
@pytest.mark.parametrize("signed", [(False, False, False), (True, False, False, False), (False, True), (False,)])
def test_the_optimum_is_that_of_scipy(
    signed: tuple[bool, ...], exchanges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_linear, "_EXCHANGES", exchanges)
    columns, goal = systems(len(signed), 60, np.random.default_rng(len(signed)))
    found = nonnegative(*normal(columns, goal), np.array(signed))
    low = np.where(signed, -np.inf, 0.0)
    zeros = 0
    for p in range(60):
        expected = lsq_linear(columns[p], goal[p], bounds=(low, np.inf), tol=1e-13, method="bvls").x
        np.testing.assert_allclose(found[:, p], expected, atol=1e-9)
        zeros += int((expected == 0).any())
    assert zeros > 5  # or nothing was tested


def test_equal_columns_share_and_empty_ones_do_no_harm() -> None:
    columns, goal = systems(4, 40, np.random.default_rng(0))
    columns[:, :, 1] = columns[:, :, 0]
    columns[::2, :, 2] = 0.0
    goal = np.abs(goal)
    found = nonnegative(*normal(columns, goal), np.zeros(4, dtype=bool))
    assert (found >= 0).all()
    assert np.isfinite(found).all()
    for p in range(40):
        expected = lsq_linear(columns[p], goal[p], bounds=(0, np.inf), tol=1e-13, method="bvls").cost
        cost = 0.5 * np.sum((columns[p] @ found[:, p] - goal[p]) ** 2)
        assert cost == pytest.approx(expected, rel=1e-6)
