"""Columns evaluated once per distinct value are the columns."""

from typing import Any

import numpy as np
import pytest

from ragscale.datasets import simulate
from ragscale.fitting import Chinchilla, Log1p, Parameter, SeparableLaw
from ragscale.fitting._fit import fit_manifold
from ragscale.fitting.solver._columns import LawColumns
from ragscale.fitting.solver._problem import Problem

TABLE = simulate("log1p", noise=0.01, rng=0)


class CentredOnTheTable(SeparableLaw):
    """A law that looks at all rows at once: it cannot be evaluated at fewer of them."""

    name = "centred"
    formula = "E + A (N / mean N)^-alpha"
    variables = ("N",)
    parameters = (Parameter("E", 0.0), Parameter("A", 0.0), Parameter("alpha", 0.01, 2.0))

    def _columns(self, theta: Any, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        return {"E": np.ones_like(n), "A": (n / n.mean()) ** -theta.alpha}


def long_way(problem: Problem, u: np.ndarray) -> Any:
    """Evaluate the same columns row by row."""
    table, typical = problem.table, problem.typical
    n, d, r = (np.append(getattr(table, name.lower()), typical[name]) for name in "NDR")
    rows = LawColumns(problem.coordinates, (n, d, r))
    rows.place = None
    rows._n, rows._d, rows._r = n, d, r
    return rows.at(u), rows


@pytest.mark.parametrize("law", ["log1p", "power", "hill", "rpower", "log_ratio", "multiplicative", "effective_data"])
def test_columns_are_those_of_every_row(law):
    problem = fit_manifold(TABLE, law).problem
    low, high = np.array(problem.start).T
    u = low + (high - low) * np.random.default_rng(0).random((5, len(low)))
    short, (long, rows) = problem.columns(u), long_way(problem, u)
    np.testing.assert_allclose(short.phi, long.phi, rtol=1e-13)
    np.testing.assert_allclose(short.size, long.size, rtol=1e-13)
    c = np.random.default_rng(1).random((5, problem.k))
    tangents = [np.empty((5, problem.m, len(TABLE))) for _ in range(2)]
    problem.tangents(short, c, tangents[0])
    rows.tangents(long, c, tangents[1])
    np.testing.assert_allclose(tangents[0], tangents[1], rtol=1e-11, atol=1e-13)


def test_a_grid_has_few_distinct_rows_and_scattered_runs_have_not():
    problem = fit_manifold(TABLE, "log1p").problem
    assert problem.place is not None
    assert max(at.max() + 1 for at in problem.place.values()) < len(TABLE) / 4
    rng = np.random.default_rng(0)
    scattered = TABLE.assign(N=TABLE["N"] * np.exp(rng.normal(size=len(TABLE))))
    assert fit_manifold(scattered, "chinchilla").problem.place is None


def test_a_law_that_looks_at_all_rows_is_evaluated_at_all_rows():
    assert fit_manifold(TABLE, CentredOnTheTable()).problem.place is None
    assert fit_manifold(TABLE, Chinchilla()).problem.place is not None


def test_an_offset_finds_the_rows_with_a_store():
    problem = fit_manifold(TABLE, Log1p(offset=True)).problem
    assert problem.place is not None
    i = [p.name for p in problem.coefficients].index("offset")
    u = np.array([[sum(start) / 2 for start in problem.start]])
    np.testing.assert_array_equal(problem.columns(u).phi[0, i] != 0, TABLE["R"].to_numpy() > 0)


@pytest.mark.parametrize("law", [Chinchilla(), Log1p(offset=True), CentredOnTheTable()], ids=lambda law: law.name)
def test_sizes_are_found_without_the_rows(law):
    problem = fit_manifold(TABLE, law).problem
    low, high = np.array(problem.start).T
    u = low + (high - low) * np.random.default_rng(0).random((7, len(low)))
    np.testing.assert_allclose(problem.sizes(u), problem.columns(u, slopes=False).size, rtol=1e-13)
