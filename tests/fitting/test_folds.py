"""Folds of a cross-validation are fitted in one batch, and each is the fit of the rows that remain."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.errors import FitError
from ragscale.fitting import Bounded, _fit_without
from ragscale.fitting._fit_table import fit_table
from ragscale.fitting._fit_without import FoldFit, fit_without
from ragscale.fitting._prepare import prepare
from ragscale.fitting.laws._catalogue import make_law

TABLE = prepare(simulate("log1p", noise=0.01, outliers=0.02, rng=4))


def leave_one(table: pd.DataFrame, column: str) -> list[np.ndarray]:
    return [table[column].to_numpy() == value for value in np.unique(table[column])]


def scores(table: pd.DataFrame) -> pd.DataFrame:
    share = 0.25 + 0.75 / (1 + np.exp(3 * (table["value"] - 2.6)))
    return prepare(table.drop(columns="higher_is_better").assign(value=share, metric="accuracy", n_examples=500.0))


@pytest.mark.parametrize(
    ("law", "table", "options"),
    [
        ("log1p", TABLE, {}),
        ("multiplicative", TABLE, {"loss": "least_squares"}),
        ("hill", TABLE.assign(trust=np.linspace(1, 3, len(TABLE))), {"weights": "trust"}),
        ("log1p", scores(TABLE), {"link": Bounded(0.25, 1.0, direction="up")}),
        ("chinchilla", TABLE, {"delta": "auto"}),
    ],
    ids=["log1p", "multiplicative", "weighted", "bounded", "delta"],
)
def test_a_fold_is_the_fit_of_what_remains(law: str, table: pd.DataFrame, options: dict[str, Any]) -> None:
    parts = leave_one(table, "N")[::2]
    weights = options.pop("weights", None)
    together = fit_without(table, make_law(law), parts, weights=weights, options=options)
    for part, fit in zip(parts, together, strict=True):
        alone = fit_table(table[~part].reset_index(drop=True), make_law(law), weights=weights, **options)
        assert isinstance(fit, FoldFit)
        assert fit.objective == pytest.approx(alone.objective, rel=1e-13)
        assert fit.converged == alone.converged
        counts = {name: table[name].to_numpy() for name in "NDR"}
        expected = alone.link.metric(alone.latent(*counts.values()))
        np.testing.assert_allclose(fit.predict(counts), expected, rtol=1e-5)


def test_weights_as_numbers_go_with_their_rows() -> None:
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(TABLE))
    part = TABLE["N"].to_numpy() == TABLE["N"].max()
    (fit,) = fit_without(TABLE, make_law("log1p"), [part], weights=weights, options={})
    alone = fit_table(TABLE[~part].reset_index(drop=True), make_law("log1p"), weights=weights[~part])
    assert isinstance(fit, FoldFit)
    assert fit.objective == pytest.approx(alone.objective, rel=1e-13)


def test_all_ways_of_leaving_out_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    real = _fit_without.solve_each

    def counted(problem: Any, weights: np.ndarray, near: Any) -> Any:
        batches.append(len(weights))
        return real(problem, weights, near)

    monkeypatch.setattr(_fit_without, "solve_each", counted)
    found = rs.compare_laws(TABLE, ["chinchilla", "log1p"], folds=3)
    assert batches == [TABLE["N"].nunique() + 1 + 3] * 2
    apart = rs.cross_validate(TABLE, "log1p", leave_out=3)
    assert found.table.loc["log1p", "k_fold"] == pytest.approx(apart.error, rel=1e-6)


def test_rows_left_out_where_the_law_fails_do_not_stop_the_fold() -> None:
    """Beyond the range of a fold, its law may predict less than nothing: there the logarithm has no slope."""
    rng = np.random.default_rng(0)
    grid = [(n, d, r) for n in (1e8, 3e8, 1e9, 3e9) for d in (3e9, 3e10, 2e11) for r in (0.0, 1e6, 1e8, 1e10, 1e30)]
    table = pd.DataFrame(grid, columns=["N", "D", "R"])
    loss = 1.7 + 400 * table["N"] ** -0.34 + 410 * table["D"] ** -0.28 - 0.02 * table["R"].clip(upper=1e10) ** 0.12
    table = prepare(table.assign(value=loss * np.exp(0.002 * rng.normal(size=len(table)))))
    part = table["R"].to_numpy() == 1e30
    (fit,) = fit_without(table, make_law("rpower"), [part], weights=None, options={})
    assert isinstance(fit, FoldFit)
    assert fit.predict({"N": np.array([1e9]), "D": np.array([3e10]), "R": np.array([1e30])}) < 0
    alone = fit_table(table[~part].reset_index(drop=True), make_law("rpower"))
    assert fit.converged
    assert fit.objective == pytest.approx(alone.objective, rel=1e-12)


def test_a_fold_that_cannot_be_fitted_is_named_and_the_others_are_not_lost() -> None:
    few = TABLE[TABLE["N"].isin(np.unique(TABLE["N"])[:2])].reset_index(drop=True)
    with pytest.raises(FitError, match=r"cannot fit without N = "):
        rs.cross_validate(few, "log1p", leave_out="N")
    found = rs.compare_laws(few, ["log1p"], folds=2)
    assert "leave_one_N: cross_validate cannot fit without N" in found.table.loc["log1p", "problem"]
    assert np.isfinite(found.table.loc["log1p", "k_fold"])


def test_folds_with_the_fit_of_all_rows_at_hand_are_the_same() -> None:
    parts = leave_one(TABLE, "D")[::15]
    law = make_law("hill")
    whole = fit_table(TABLE, law)
    for other in (None, whole, fit_table(TABLE, make_law("log1p"))):  # unknown, known, of another law
        found = fit_without(TABLE, law, parts, weights=None, options={}, whole=other)
        for part, fit in zip(parts, found, strict=True):
            alone = fit_table(TABLE[~part].reset_index(drop=True), law)
            assert isinstance(fit, FoldFit)
            assert fit.objective == pytest.approx(alone.objective, rel=1e-12)


def test_a_rugged_objective_is_searched_in_every_fold() -> None:
    """Perplexities with residuals far beyond delta: the objective has corner beside corner, and minima there."""
    simulated = simulate("log1p", noise=0.02, rng=1)
    simulated = simulated.assign(value=np.exp(simulated["value"]), metric="perplexity")
    table = prepare(pd.DataFrame(simulated[simulated["R"] == 0]))
    law, options = make_law("chinchilla"), {"link": "log", "space": "linear"}
    whole = fit_table(table, law, **options)
    minima = whole.minima["objective"].to_numpy()
    assert (minima < 1.02 * minima[0]).sum() > 1
    parts = leave_one(table, "N")[-2:]
    for part, fit in zip(
        parts, fit_without(table, law, parts, weights=None, options=options, whole=whole), strict=True
    ):
        alone = fit_table(pd.DataFrame(table[~part]).reset_index(drop=True), law, **options)
        assert isinstance(fit, FoldFit)
        assert fit.objective <= alone.objective * (1 + 1e-9)
