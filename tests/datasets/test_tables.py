"""Bundled tables: complete, licensed, and equal to their sources."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd
import pytest

from ragscale import datasets
from ragscale.errors import ConfigError

NAMES = datasets.list().index.to_list()


@pytest.mark.parametrize("name", NAMES)
def test_every_table_loads_with_its_source_units_and_licence(name):
    table = datasets.load(name)
    listed = datasets.list().loc[name]
    assert len(table) == listed["rows"]
    assert table.attrs["name"] == name
    for key in ("title", "source", "reference", "licence", "units", "notes"):
        assert isinstance(table.attrs[key], str)
        assert table.attrs[key]
    assert listed["licence"] in {"MIT", "Apache-2.0", "CC-BY-4.0", "published figures"}
    if listed["licence"] in {"MIT", "Apache-2.0"}:
        assert listed["commit"]
    if listed["licence"] == "CC-BY-4.0":  # which asks for the authors and for what was changed
        assert "et al." in table.attrs["notes"]
        assert "Changed:" in table.attrs["notes"]
    if listed["canonical"]:
        assert list(table.columns[:4]) == ["N", "D", "R", "value"]
        assert (table[["N", "D"]] >= 8e4).all().all()


def test_every_file_is_registered_and_all_of_them_are_small():
    files = {f.name: f for f in (resources.files("ragscale.datasets") / "tables").iterdir()}
    registered = {f"{name}.csv" for name in NAMES}
    assert set(files) == registered | {"registry.json"}
    assert sum(len(f.read_bytes()) for f in files.values()) < 1_500_000


def test_the_wikipedia_study_is_a_whole_grid_with_its_controls_and_its_fixed_budgets():
    table = datasets.load("ragscale-wiki")
    nll = table[table["metric"] == "nll_per_token"]
    assert (table["D"] + table["R"] <= 5_958_786).all()
    checkpoints = nll[["N", "D", "seed"]].drop_duplicates()
    assert (checkpoints["N"].nunique(), checkpoints["D"].nunique(), checkpoints["seed"].nunique()) == (5, 6, 2)
    assert len(checkpoints) == 5 * 6 * 2
    for condition in ("closed-book", "random"):
        assert len(nll[nll["condition"] == condition]) == 60 * nll["task"].nunique()
    assert len(nll[nll["condition"] == "oracle"]) == 60
    squad = nll[(nll["task"] == "squad") & (nll["condition"] == "retrieved")]
    assert squad.groupby("D")["R"].nunique().min() >= 6
    for budget in (1_500_000, 3_000_000, 5_900_000):
        frontier = squad[squad["D"] + squad["R"] == budget]
        below = [d for d in nll["D"].unique() if d < budget]
        assert len(frontier) == 5 * 2 * len(below)
    assert set(table["pool"]) == {"squad", "evidence", "random", "none", "any"}


def test_the_gpu_study_has_its_controls_its_budgets_and_its_crossover():
    table = datasets.load("ragscale-gpu")
    assert (table["N"].nunique(), table["D"].nunique(), table["task"].nunique()) == (5, 6, 5)
    counts = table.groupby("condition").size()
    assert dict(counts) == {"closed-book": 150, "oracle": 60, "random": 150, "retrieved": 800}
    squad = table[(table["task"] == "squad") & (table["condition"] == "retrieved")]
    frontier = squad[squad["D"] + squad["R"] == 52_000_000]
    best = frontier.loc[frontier.groupby("N")["value"].idxmin()]
    assert sorted(best["D"] / 1e6) == [24, 24, 24, 24, 32]
    trivia = table[(table["task"] == "triviaqa") & (table["condition"] == "retrieved")]
    frontier = trivia[trivia["D"] + trivia["R"] == 52_000_000]
    assert set(frontier.loc[frontier.groupby("N")["value"].idxmin(), "D"]) == {44_000_000}
    squad_gold = table[(table["task"] == "squad") & (table["condition"] == "oracle")].set_index(["N", "D"])["value"]
    closed = table[(table["task"] == "squad") & (table["condition"] == "closed-book")].set_index(["N", "D"])["value"]
    gain = (closed - squad_gold).groupby("D").mean()
    assert gain.loc[4e6] < 0.3
    assert gain.loc[44e6] > 1.3


def test_a_loaded_table_is_the_callers_own():
    first = datasets.load("knnlm_table3")
    first["value"] = 0
    first.attrs["licence"] = "mine"
    assert datasets.load("knnlm_table3")["value"].min() > 10
    assert datasets.load("knnlm_table3").attrs["licence"] == "published figures"


def test_stores_of_a_source_that_gives_shards_are_shares_of_a_published_count():
    table = datasets.load("massiveds_mmlu")
    c4 = datasets.load("retro_table4").query("store == 'C4'")["R"].iloc[0]
    np.testing.assert_array_equal(table["R"], table["shards_of_32"] * (c4 // 32))
    np.testing.assert_allclose(table["R"], table["R_fraction"] * c4, rtol=1e-15)


def test_an_unknown_name_suggests_a_close_one():
    with pytest.raises(ConfigError, match="did you mean 'gemstones'"):
        datasets.load("gemstone")


@pytest.mark.parametrize(
    ("name", "source", "column", "condition"),
    [
        ("mlfoundations_losses", "mlfoundations_losses.csv", "loss", None),
        ("mlfoundations_downstream", "mlfoundations_downstream.csv", "accuracy", None),
        ("gemstones", "gemstones_validation.csv", "loss", None),
        ("datablations", "datablations_ndu.csv", "loss", None),
        ("porian_isoflops", "porian_isoflops.csv", "loss", None),
        ("olmo_ladder", "olmo_ladder_final.csv", "c4_en-validation/CrossEntropyLoss", ("c4_en", "loss")),
        (
            "olmo_ladder",
            "olmo_ladder_final.csv",
            "downstream_bpb/piqa_val_rc_5shot_bpb",
            ("piqa_val_rc_5shot", "bits_per_byte"),
        ),
        ("sloth_families", "sloth_families_benchmarks.csv", "bbh", ("bbh", "score")),
    ],
)
def test_tables_hold_the_numbers_of_their_sources(shared_data, name, source, column, condition):
    original = pd.read_csv(shared_data / "results" / source).dropna(subset=column)
    table = datasets.load(name)
    if condition is not None:
        table = table[(table["task"] == condition[0]) & (table["metric"] == condition[1])]
    np.testing.assert_array_equal(np.sort(table["value"]), np.sort(original[column]))
    if name != "sloth_families":
        np.testing.assert_allclose(
            np.sort(table["N"] * table["D"]), np.sort(original["N"] * original["D"].astype(float))
        )


def test_published_figures_are_as_printed():
    knn = datasets.load("knnlm_table3").query("split == 'test'")
    assert knn.set_index(["D", "R"])["value"].to_dict() == {
        (1e8, 0): 19.59,
        (1e8, 2.87e9): 13.73,
        (2.87e9, 0): 15.17,
    }
    sciq = datasets.load("paper_table1").set_index("benchmark").loc["SciQ"]
    assert (sciq["alpha"], sciq["beta"], sciq["L0"]) == (0.5267, 0.2606, 0.9522)
    retro = datasets.load("retro_table4").query("split == 'test' and store == 'MassiveText 100%'")
    assert (retro["R"].item(), retro["value"].item()) == (1.792e12, 3.92)
    figure = datasets.load("paper_figure2")
    assert len(figure) == 55
    assert figure["value"].agg(["min", "max"]).to_list() == [1.93, 9.08]


def test_farseers_runs_are_split_as_in_the_benchmark():
    table = datasets.load("farseer")
    assert table.groupby("part").size().to_dict() == {"test": 7, "train": 404}
    largest = table.loc[table["N"].idxmax()]
    assert largest["part"] == "test"
    assert tuple(largest[["N", "D", "value"]]) == (2.51208e10, 1.256e11, 0.438146)
    assert (table["R"] == 0).all()
    assert table["run"].is_unique  # four runs stand twice in the source
    assert table.duplicated(["N", "D", "value"]).sum() == table.duplicated(["N", "D"]).sum() == 4
