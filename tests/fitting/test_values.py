"""Results are values: copies come out, files give the same result back, equality is identity, damage is refused."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.errors import CheckpointError, ConfigError, RagscaleError
from ragscale.fitting import Bootstrap, Bounded, Comparison, CrossValidation, ManifoldFit, backtest, profile


@pytest.fixture(scope="module")
def fit() -> ManifoldFit:
    return rs.fit_manifold(simulate("log1p", noise=0.01, rng=0), "log1p")


@pytest.fixture(scope="module")
def boot(fit: ManifoldFit) -> Bootstrap:
    return rs.bootstrap(fit, n_resamples=30, rng=0)


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return rs.compare_laws(simulate("log1p", noise=0.01, rng=1), ["log1p", "power", "chinchilla"], held_out=False)


def _reseal(path: Path, change: Any) -> None:
    """Change a saved file as an editor would, without its digest, so that only its content can be wrong."""
    value = json.loads(path.read_text())
    value.pop("content_sha256", None)
    change(value)
    path.write_text(json.dumps(value))


def _spoil(frame: pd.DataFrame) -> None:
    for name in frame.columns:
        frame[name] = 0.0
    frame.loc[-1] = 0.0


# Copies --------------------------------------------------------------------------------------------------------------


def test_editing_what_a_fit_hands_out_edits_nothing_else(fit: ManifoldFit) -> None:
    before = fit.summary()
    for frame in (fit.params, fit.data, fit.minima, fit.diagnostics.correlation, fit.to_frame(), fit.params_in(1e9)):
        _spoil(frame)
    leverage = fit.diagnostics.leverage
    leverage[:] = 0.0
    again = ManifoldFit.from_dict(fit.to_dict())
    assert fit.summary() == again.summary() == before
    assert float(fit.params.loc["alpha", "value"]) == fit.theta.alpha > 0
    assert fit.data["N"].nunique() > 1
    assert len(fit.minima) >= 1
    assert float(np.abs(fit.diagnostics.correlation.to_numpy()).max()) <= 1 + 1e-9
    assert fit.diagnostics.leverage.sum() > 1


def test_a_fit_keeps_a_copy_of_the_table(fit: ManifoldFit) -> None:
    table = fit.data
    own = ManifoldFit(**{name: getattr(fit, name) for name in ("law", "theta", "link", "loss", "space", "objective")},
                      data=table, minima=fit.minima)  # fmt: skip
    table["value"] = 1.0
    assert own.data["value"].equals(fit.data["value"])


def test_editing_what_a_bootstrap_or_comparison_hands_out_edits_nothing_else(
    boot: Bootstrap, compared: Comparison
) -> None:
    for frame in (boot.params, boot.replicates, compared.table, compared.to_frame(), boot.to_frame()):
        _spoil(frame)
    boot.link_values["floor"] = np.zeros(3)
    assert boot.params.loc["alpha", "low"] > 0
    assert boot.replicates["alpha"].min() > 0
    assert "floor" not in boot.link_values
    for values in (boot.objective, boot.theta.alpha):
        with pytest.raises(ValueError, match="read-only"):
            values[:] = 0.0
    compared.fits.clear()
    assert compared.table["aicc"].nunique() == 3
    assert set(compared.fits) == {"log1p", "power", "chinchilla"}


@pytest.mark.parametrize("kind", ["fit", "boot", "compared"])
def test_equality_is_identity_and_copies_work(kind: str, request: pytest.FixtureRequest) -> None:
    value = request.getfixturevalue(kind)
    other = copy.deepcopy(value)
    assert value == value  # noqa: PLR0124
    assert (value == other) is False
    assert other in [value, other]
    assert len({value, other, value}) == 2
    assert pickle.loads(pickle.dumps(value)).summary() == value.summary() == other.summary()
    with pytest.raises(AttributeError):
        value.fit = None


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_fit_of_an_automatic_law_comes_back_with_its_selection(tmp_path: Path) -> None:
    table = simulate("log1p", noise=0.01, rng=0).assign(task="a, b", seed=3)
    fit = rs.fit_manifold(table)
    fit.to_json(tmp_path / "fit.json")
    again = ManifoldFit.from_json(tmp_path / "fit.json")
    assert fit.selection is not None
    assert again.selection is not None
    pd.testing.assert_frame_equal(again.selection.table, fit.selection.table, check_dtype=False)
    assert again.selection.weights == fit.selection.weights
    assert again.selection.tied == fit.selection.tied
    for name, one in fit.selection.fits.items():
        other = again.selection.fits[name]
        assert np.array_equal(other.predict(3e8, 1e10, [0, 1e9]), one.predict(3e8, 1e10, [0, 1e9]))
        pd.testing.assert_frame_equal(other.data, one.data, check_dtype=False)
    assert again.summary() == fit.summary()
    text = (tmp_path / "fit.json").read_text()
    assert text.count('"n_seeds"') + text.count('"value": [') <= 2  # rows are written once, not once for each law


def test_an_old_file_without_a_selection_is_read(fit: ManifoldFit, tmp_path: Path) -> None:
    fit.to_json(tmp_path / "fit.json")
    _reseal(tmp_path / "fit.json", lambda value: value.pop("selection"))
    assert ManifoldFit.from_json(tmp_path / "fit.json").selection is None


def test_a_bootstrap_comes_back_bit_for_bit(boot: Bootstrap, tmp_path: Path) -> None:
    boot.save(tmp_path / "boot.npz")
    again = Bootstrap.load(tmp_path / "boot.npz")
    assert np.array_equal(again.predict(1e9, 2e10, [0, 1e9]), boot.predict(1e9, 2e10, [0, 1e9]))
    assert again.summary() == boot.summary()
    assert (again.by, again.confidence_level) == (boot.by, boot.confidence_level)
    assert np.array_equal(again.interval(1e9, 2e10, kind="prediction"), boot.interval(1e9, 2e10, kind="prediction"))
    split = [rs.optimal_allocation(one, N=1e9, budget=5e10).to_frame() for one in (boot, again)]
    pd.testing.assert_frame_equal(*split)
    with np.load(tmp_path / "boot.npz", allow_pickle=False) as archive:  # nothing in it can run code
        assert all(archive[name].dtype != object for name in archive.files)
    for refused in (boot.to_json, Bootstrap.from_json):
        with pytest.raises(ConfigError, match="save"):
            refused(tmp_path / "boot.json")


def test_a_bootstrap_of_a_fitted_floor_comes_back(tmp_path: Path) -> None:
    table = simulate("log1p", noise=0.0, rng=0).iloc[::4].reset_index(drop=True)
    p = 0.25 + 0.75 / (1 + np.exp(4 * (table["value"] - 2.5)))
    hits = np.random.default_rng(0).binomial(500, p) / 500
    fit = rs.fit_manifold(table.assign(value=hits, metric="acc"), "log1p", link=Bounded("free", 1.0))
    boot = rs.bootstrap(fit, n_resamples=5, by="rows", rng=0)
    boot.save(tmp_path / "boot")
    again = Bootstrap.load(tmp_path / "boot")
    assert again.by == "rows"
    assert np.array_equal(again.link_values["floor"], boot.link_values["floor"])


def test_a_comparison_and_a_validation_come_back(compared: Comparison, tmp_path: Path) -> None:
    compared.to_json(tmp_path / "laws.json")
    again = Comparison.from_json(tmp_path / "laws.json")
    assert again.summary() == compared.summary()
    assert np.array_equal(again.fits["power"].predict(1e9, 1e10), compared.fits["power"].predict(1e9, 1e10))
    folds = rs.cross_validate(simulate("log1p", noise=0.01, rng=0), "log1p", leave_out=3)
    folds.to_json(tmp_path / "folds.json")
    back = CrossValidation.from_json(tmp_path / "folds.json")
    assert (back.error, back.bias, back.leave_out) == (folds.error, folds.bias, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("theta"), "'theta' is missing"),
        (lambda v: v["theta"].pop("alpha"), "'alpha' is missing"),
        (lambda v: v["theta"].update(alpha="x"), "'alpha' holds str"),
        (lambda v: v.update(objective=None), "'objective' holds NoneType"),
        (lambda v: v.update(law={"name": "log1p"}), "'options' is missing"),
        (lambda v: v.update(law={"name": "log1p", "options": {"colour": 1}}), "colour"),
        (lambda v: v.update(law={"name": "no_such_law", "options": {}}), "no law named 'no_such_law'"),
        (lambda v: v.update(link={"name": "cubic"}), "cubic"),
        (lambda v: v["loss"].update(delta=-1), "delta = -1"),
        (lambda v: v.update(space="cubic"), "space"),
        (lambda v: v["data"].pop("N"), "'N' is missing"),
        (lambda v: v["data"]["N"].pop(), "same length"),
        (lambda v: v["data"]["value"].__setitem__(0, "x"), "damaged"),
        (lambda v: v["data"]["weight"].__setitem__(0, None), "weight"),
        (lambda v: v.update(data={}), "damaged"),
        (lambda v: v.update(minima={"alpha": [1.0]}), "no minima"),
        (lambda v: v.update(selection=[1]), "expected an object"),
        (lambda v: v.update(schema="ragscale.study"), "holds 'ragscale.study'"),
        (lambda v: v.update(schema_version=99), "upgrade ragscale"),
    ],
)
def test_a_damaged_fit_is_refused_with_its_name(fit: ManifoldFit, tmp_path: Path, change: Any, said: str) -> None:
    path = tmp_path / "fit.json"
    fit.to_json(path)
    _reseal(path, change)
    with pytest.raises(RagscaleError, match=said) as caught:
        ManifoldFit.from_json(path)
    assert "fit.json" in str(caught.value)


def test_a_changed_fit_and_other_files_are_refused(fit: ManifoldFit, tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    fit.to_json(path)
    path.write_text(path.read_text().replace('"converged": true', '"converged": false'))
    with pytest.raises(CheckpointError, match="own digest"):
        ManifoldFit.from_json(path)
    for text in ("", "[]", "{}", "N,D\n1,2\n", '"x"', "null"):
        path.write_text(text)
        with pytest.raises(RagscaleError, match=r"fit\.json"):
            ManifoldFit.from_json(path)
    with pytest.raises(FileNotFoundError):
        ManifoldFit.from_json(tmp_path / "none.json")


def test_a_damaged_bootstrap_is_refused_with_its_name(boot: Bootstrap, tmp_path: Path) -> None:
    path = tmp_path / "boot.npz"
    boot.save(path)
    whole = path.read_bytes()
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    bad = [whole[: len(whole) // 2], b"", b"N,D\n", whole[:200] + bytes(20) + whole[220:]]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(RagscaleError, match=r"boot\.npz"):
            Bootstrap.load(path)
    changes: list[dict[str, Any]] = [
        {k: v for k, v in arrays.items() if k != "theta_alpha"},
        {k: v for k, v in arrays.items() if k != "head"},
        {**arrays, "theta_alpha": arrays["theta_alpha"][:-1]},
        {**arrays, "head": np.frombuffer(b"{}", dtype=np.uint8)},
        {**arrays, "head": np.frombuffer(b"[", dtype=np.uint8)},
    ]
    for changed in changes:
        np.savez(path, **changed)
        with pytest.raises(RagscaleError, match=r"boot\.npz"):
            Bootstrap.load(path)
    with pytest.raises(FileNotFoundError):
        Bootstrap.load(tmp_path / "none.npz")


# The protocol --------------------------------------------------------------------------------------------------------


def test_every_result_is_short_in_a_repr_and_plain_in_a_frame(
    fit: ManifoldFit, boot: Bootstrap, compared: Comparison, tmp_path: Path
) -> None:
    folds = rs.cross_validate(simulate("log1p", noise=0.01, rng=0), "log1p", leave_out=3)
    results = [fit, boot, compared, folds, fit.diagnostics, fit.diagnostics.retrieval]
    results += [profile(fit, "alpha", n_points=5), backtest(fit, n_resamples=5)]
    for result in results:
        assert len(repr(result)) <= 450, result
        assert "\n" not in repr(result).split(":")[0]
        assert len(str(result)) <= 3500
        assert len(result.summary().splitlines()[0]) > 10
        assert "<" in result._repr_html_()
        frame = result.to_frame()
        frame.to_parquet(tmp_path / "frame.parquet")
        assert len(pd.read_parquet(tmp_path / "frame.parquet")) == len(frame) >= 1
        assert frame.attrs == {}
        assert isinstance(frame.index, pd.RangeIndex)
        assert len(frame.merge(frame, left_index=True, right_index=True)) == len(frame)
        assert r"\toprule" in result.to_latex()
    assert len(str(boot)) <= 2000
    assert "[" in fit.to_latex()
    assert compared.to_frame()["law"].tolist() == list(compared.table.index)


def test_a_comparison_names_what_it_found(compared: Comparison) -> None:
    table = compared.table
    assert compared.best == table["aicc"].idxmin() == compared.tied[0]
    assert "chinchilla" not in compared.tied
    assert sum(compared.weights.values()) == pytest.approx(1.0)
    other = compared.tied[-1]
    ratio = np.exp(-0.5 * (table.loc[other, "aicc"] - table.loc[compared.best, "aicc"]))
    assert compared.weights[other] / compared.weights[compared.best] == pytest.approx(ratio)
    assert compared.weights["chinchilla"] < 1e-6
    assert compared.best in compared.summary().splitlines()[0]


def test_with_too_few_models_for_the_criterion_all_fitted_laws_are_tied() -> None:
    table = simulate("log1p", noise=0.01, rng=0)
    few = table[table["N"].isin(sorted(table["N"].unique())[:3]) & table["D"].isin(sorted(table["D"].unique())[:3])]
    compared = rs.compare_laws(few, ["log1p", "chinchilla"], held_out=False)
    assert set(compared.tied) == set(compared.fits)
    assert set(compared.weights.values()) == {1 / len(compared.fits)}
    assert "cannot be told apart" in compared.summary().splitlines()[0]


@pytest.mark.parametrize("name", ["optimal_allocation", "knee_point", "reading_threshold", "Allocation", "Estimate"])
def test_a_decision_looked_for_among_fits_says_where_it_is(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"it is ragscale\.decisions\.{name} now"):
        getattr(rs.fitting, name)
    assert hasattr(rs.decisions, name)
    assert not hasattr(rs.fitting, name)
    assert name not in dir(rs.fitting)
