"""``law="auto"``: reading where models read, smooth laws elsewhere, and a law with R where a store plainly helps."""

import numpy as np
import pandas as pd
import pytest

from ragscale import fit_manifold
from ragscale.datasets import simulate_reading
from ragscale.fitting import ManifoldFit
from ragscale.fitting._choose import choose_law
from ragscale.fitting._prepare import prepare

NOISE = {"model_noise": 0.01, "row_noise": 0.005, "n_questions": 400}


def smooth_world(seed, conditions=True):
    table = simulate_reading(gain=lambda n, d, r: 0.06 * np.log1p(r / 3e6), rng=seed, **NOISE)
    return table if conditions else table[table["condition"].isin(["closed-book", "retrieved"])].reset_index(drop=True)


@pytest.fixture(scope="module")
def readers():
    return fit_manifold(simulate_reading(rng=0, **NOISE))


def test_reading_is_taken_where_models_read_and_is_fitted_with_gold(readers):
    assert readers.law.name == "reading"
    assert (readers.data["condition"] == "oracle").sum() == 30
    table = readers.selection.table
    smooth = table["aicc"].drop("reading").min()
    assert table.loc["reading", "aicc"] <= smooth - 2
    assert readers.selection.chosen == "reading"
    assert readers.selection.gate.low > 1.0
    assert abs(np.log(readers.theta["D0"] / 1.2e7)) < 0.2


def test_the_reasons_stand_in_the_first_lines_of_the_summary(readers):
    first = readers.summary().splitlines()[:3]
    assert first[0] == readers.verdict.text
    assert first[1].startswith("law chosen: reading by")
    assert "gold minus random passages" in first[2]
    assert "chosen: reading by" in readers.selection.summary()


def test_the_choice_survives_a_file(readers, tmp_path):
    readers.to_json(tmp_path / "fit.json")
    again = ManifoldFit.from_json(tmp_path / "fit.json")
    assert again.selection.note == readers.selection.note
    assert again.selection.gate.summary() == readers.selection.gate.summary()
    assert again.evidence.summary() == readers.evidence.summary()
    assert again.verdict.text == readers.verdict.text
    assert again.selection.fits["reading"].hit_rate(1e7) == readers.hit_rate(1e7)


@pytest.mark.parametrize("conditions", [True, False])
def test_smooth_worlds_get_smooth_laws(conditions):
    fit = fit_manifold(smooth_world(1, conditions))
    assert fit.law.name in {"log1p", "power", "hill", "rpower", "interaction", "log_ratio"}


def test_where_nobody_reads_the_law_of_reading_is_not_even_compared():
    fit = fit_manifold(simulate_reading({"D0": 1e12, "c": 0.0}, rng=0, **NOISE))
    assert "reading" not in fit.selection.table.index
    assert "nobody reads in this range" in fit.selection.note
    assert fit.law.name == "chinchilla"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sizes", [(1e8, 3e8, 1e9), (1e8, 1e9)])
def test_few_models_never_hide_a_store_that_plainly_helps(seed, sizes):
    rows = [
        (n, d, r) for n in sizes for d in (2e9, 1e10, 5e10) for r in (0, 1e8, 3e8, 1e9, 3e9, 1e10, 3e10)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["N", "D", "R"])
    noise = np.exp(0.002 * np.random.default_rng(seed).standard_normal(len(table)))
    base = 1.7 + 400 * table.N**-0.34 + 410 * table.D**-0.28
    table["value"] = (base - 0.15 * np.log1p(table.R / 3e8)) * noise
    fit = choose_law(prepare(table), {})
    assert "R" in fit.law.variables
    assert fit.law.name in {"log1p", "power", "interaction"}
    assert "too few trained models for AICc" in fit.selection.note
    gain = fit.predict(1e9, 1e10, 0) - fit.predict(1e9, 1e10, 1e10)
    assert float(gain) == pytest.approx(0.15 * np.log1p(1e10 / 3e8), rel=0.05)


def test_small_stores_that_hurt_do_not_hide_large_ones_that_help():
    table = simulate_reading(
        gain=lambda n, d, r: 0.12 * np.log1p(r / 3e6) - 0.1, gold=False, rng=0, model_noise=0.005, row_noise=0.003
    )
    table = table[table["condition"] != "random"].drop(columns=["hit_rate"]).reset_index(drop=True)
    fit = fit_manifold(table)
    assert fit.law.offset
    assert fit.theta["offset"] == pytest.approx(0.1, abs=0.03)
    assert fit.verdict.kind == "helps here"
    assert "the smallest raise it" in fit.verdict.text


def test_without_any_effect_there_is_no_law_of_retrieval():
    table = simulate_reading(gain=lambda n, d, r: 0 * r, gold=False, rng=0, model_noise=0.01, row_noise=0.005)
    table = table[table["condition"] != "random"].drop(columns=["hit_rate"]).reset_index(drop=True)
    assert fit_manifold(table).law.name == "chinchilla"
