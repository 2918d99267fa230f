"""Nothing about a table is guessed silently: its direction, its store, its columns, what is independent in it."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.datasets import load, simulate
from ragscale.errors import ConfigError, FitError, ResultsError, ResultsWarning
from ragscale.fitting import Bounded, retrieval_effect
from ragscale.fitting._experiments import clusters
from ragscale.fitting._prepare import prepare

TABLE = simulate("log1p", noise=0.01, rng=0)


def _score(table: pd.DataFrame = TABLE, top: float = 1.0, **columns: Any) -> pd.DataFrame:
    return table.assign(value=top / (1 + np.exp(table["value"] - 3.5)), **columns)


def _rank(fit: Any, table: pd.DataFrame) -> float:
    return float(pd.Series(fit.predict(*(table[c] for c in "NDR"))).rank().corr(table["value"].rank()))


# Direction -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric", ["pass@1", "hellaswag/acc_norm", "squad_f1", "NDCG@10", "exact_match,none", "quality"]
)
def test_a_score_under_any_name_rises(metric: str) -> None:
    table = _score(metric=metric)
    fit = rs.fit_manifold(table, "log1p")
    assert (fit.link.name, fit.link.direction) == ("bounded", "up")  # type: ignore[attr-defined]
    assert _rank(fit, table) > 0.99


def test_percent_and_shares_give_the_same_answer() -> None:
    share, percent = _score(metric="acc", chance=0.25), _score(top=100.0, metric="acc", chance=0.25)
    splits = []
    for table in (share, percent, percent.assign(chance=25.0)):
        fit = rs.fit_manifold(table.assign(n_examples=500.0), "log1p")
        assert fit.weights == "binomial, from n_examples"
        splits.append(float(rs.optimal_allocation(fit, N=1e9, budget=1e10).share))
    assert splits == pytest.approx([splits[0]] * 3, abs=0.01)
    with pytest.warns(ResultsWarning, match=r"percent.*link=Bounded"), pytest.warns(ResultsWarning, match="rank"):
        assert rs.fit_manifold(_score(top=100.0), "log1p").link.ceiling == 100.0  # type: ignore[attr-defined]


def test_log_likelihoods_rise_to_zero() -> None:
    fit = rs.fit_manifold(TABLE.assign(value=-TABLE["value"], metric="log_likelihood"), "log1p")
    same = rs.fit_manifold(TABLE, "log1p", space="linear")
    assert fit.link.name == "negative"
    assert fit.objective == pytest.approx(same.objective, rel=1e-6)
    assert float(fit.predict(1e9, 1e10, 1e9)) == pytest.approx(-float(same.predict(1e9, 1e10, 1e9)), rel=1e-4)
    with pytest.warns(ResultsWarning, match="rank correlation"):
        assert rs.fit_manifold(TABLE.assign(value=-TABLE["value"]), "log1p").link.name == "negative"


def test_a_law_that_can_only_fall_refuses_a_metric_that_rises_with_the_link_to_use() -> None:
    for link in ("identity", "log", Bounded(direction="down")):
        with pytest.raises(FitError, match=r"higher is better.*can only fall.*link='bounded'"):
            rs.fit_manifold(
                _score(metric="acc") if link != "log" else _score(top=50.0, metric="acc"), "log1p", link=link
            )
    with pytest.raises(FitError, match=r"lower is better.*can only rise.*link='identity'"):
        rs.fit_manifold(TABLE.assign(metric="loss"), "log1p", link=Bounded(0, 20, direction="up"))
    with pytest.raises(ResultsError, match=r"rise with N and D.*higher_is_better=False"):
        rs.fit_manifold(_score(), "log1p", link="identity")


def test_what_the_user_says_is_above_everything() -> None:
    table = _score(metric="acc", higher_is_better=True)
    error = table.assign(value=1 - table["value"])
    fit = rs.fit_manifold(error, "log1p", higher_is_better=False)
    assert fit.link.name == "identity"
    assert not fit.data["higher_is_better"].any()
    with pytest.raises(ResultsError, match="higher_is_better = 'yes'"):
        rs.fit_manifold(table, "log1p", higher_is_better="yes")  # type: ignore[arg-type]


def test_values_without_limits_and_without_a_trend_name_the_argument() -> None:
    with pytest.raises(ResultsError, match=r"link=Bounded\(floor, ceiling\)"):
        rs.fit_manifold(_score(metric="elo").assign(value=lambda t: 1000 + 800 * t["value"]), "log1p")
    draw = np.random.default_rng(0)
    for low, high in ((0.2, 0.3), (25, 30), (-3, -2)):
        flat = TABLE.assign(value=draw.uniform(low, high, len(TABLE)))
        with pytest.raises(ResultsError, match="higher_is_better=True"):
            rs.fit_manifold(flat, "log1p")


@pytest.mark.parametrize("largest", [1.2e4, 4e7])
def test_perplexities_without_a_name_are_fitted_in_the_logarithm_and_said(largest: float) -> None:
    top = TABLE["value"].max()
    table = TABLE.assign(value=np.exp(TABLE["value"] * np.log(largest) / top))
    with pytest.warns(ResultsWarning, match=r"perplexities.*link='identity'"):
        assert rs.fit_manifold(table, "log1p").link.name == "log"


def test_a_store_that_helps_every_model_helps_whatever_the_ladder_does() -> None:
    for seed in range(10):
        draw, rows = np.random.default_rng(seed), []
        for n in (3e7, 1e8, 3e8, 1e9):
            for d in (1e9, 1e10, 1e11):
                model = 0.25 + draw.normal(0, 0.01)
                rows += [(n, d, r, model + 0.1 * (r > 0) + draw.normal(0, 0.005)) for r in (0.0, 1e8, 1e9)]
        table = pd.DataFrame(rows, columns=["N", "D", "R", "value"])
        assert retrieval_effect(table.assign(metric="acc"), space="linear").verdict == "helps"
        assert retrieval_effect(table.assign(metric="error_rate"), space="linear").verdict == "hurts"


# Columns -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["store_tokens", "R ", "datastore", "datastore_size", "r", "index_tokens", "weird"])
def test_a_store_under_another_name_is_refused_with_that_name(name: str) -> None:
    with pytest.raises(ResultsError, match=f"R={name!r}"):
        rs.fit_manifold(TABLE.rename(columns={"R": name}), "log1p")
    fit = rs.fit_manifold(TABLE.rename(columns={"R": name}), "log1p", R=name)
    assert fit.data["R"].nunique() == TABLE["R"].nunique()


def test_no_store_anywhere_is_taken_as_no_store_and_said() -> None:
    plain = TABLE[TABLE["R"] == 0].drop(columns="R")
    fit = rs.fit_manifold(plain, "chinchilla")
    assert "R = 0" in fit.summary()
    assert rs.fit_manifold(plain.assign(store_tokens=0), "chinchilla").objective == fit.objective
    with pytest.raises(ResultsError, match="condition 'retrieved'"):
        rs.fit_manifold(plain.assign(condition="retrieved"), "chinchilla")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n_shot", (0, 5)),
        ("corpus", ("c4", "pile")),
        ("lr", (1e-3, 3e-4)),
        ("filter", ("strict", None)),
        ("model", "ab"),
    ],
)
def test_a_column_that_splits_cells_is_refused_by_name_unless_by_names_it(name: str, values: Any) -> None:
    both = pd.concat(
        [TABLE.assign(**{name: values[0]}), TABLE.assign(**{name: values[1], "value": TABLE["value"] * 1.1})]
    )
    with pytest.raises(ResultsError, match=rf"differ in '{name}'.*rs\.results\.select\(results, {name}="):
        rs.fit_manifold(both, "log1p")
    fit = rs.fit_manifold(both, "log1p", by=name)
    assert len(fit.data) == 2 * len(TABLE)
    assert fit.diagnostics.n_clusters == 2 * len(TABLE.drop_duplicates(["N", "D"]))


def test_columns_that_the_cell_fixes_are_left_alone() -> None:
    fit = rs.fit_manifold(TABLE.assign(name=TABLE["N"].map("{:g}".format), lr=TABLE["N"] ** -0.5, D_over_N=20), "log1p")
    assert {"name", "lr", "D_over_N"} <= set(fit.data.columns)


def test_what_differs_between_seeds_does_not_undo_their_mean_in_silence() -> None:
    seeds = pd.concat(
        [TABLE.assign(seed=s, value=TABLE["value"] * (1 + 0.002 * s)) for s in range(3)], ignore_index=True
    )
    assert len(rs.fit_manifold(seeds, "log1p").data) == len(TABLE)
    measured = seeds.assign(hit_rate=0.5 * (seeds["R"] > 0), validation_loss=seeds["value"] + seeds["seed"])
    assert len(rs.fit_manifold(measured, "log1p").data) == len(TABLE)
    with pytest.raises(ResultsError, match=r"seeds are averaged, and .*'note'"):
        rs.fit_manifold(seeds.assign(note=seeds["seed"].map({0: "a", 1: "b", 2: "c"})), "log1p")
    with pytest.warns(ResultsWarning, match="only numbers the rows"):
        assert len(rs.fit_manifold(seeds.rename_axis("id").reset_index(), "log1p").data) == len(TABLE)


def test_many_metrics_say_how_to_choose_one() -> None:
    both = pd.concat([TABLE.assign(metric="nll"), _score(metric="acc")])
    with pytest.raises(ResultsError, match=r"rs\.results\.select\(results, metric='nll'\)"):
        rs.fit_manifold(both)
    assert rs.fit_manifold(rs.results.select(both, metric="acc"), "log1p").link.name == "bounded"


def test_a_column_named_as_value_is_the_metric() -> None:
    table = _score().rename(columns={"value": "acc"})
    assert rs.fit_manifold(table, "log1p", value="acc").link.name == "bounded"
    with pytest.raises(ResultsError, match="value='acc'"):
        rs.fit_manifold(table, "log1p")


# What is independent -------------------------------------------------------------------------------------------------


def _checkpoints(**columns: Any) -> pd.DataFrame:
    rows = [(n, d, f"run{i}") for i, n in enumerate((5e7, 1e8, 2e8, 4e8, 8e8, 2e9)) for d in np.linspace(2e8, 4e9, 20)]
    table = pd.DataFrame(rows, columns=["N", "D", "run"])
    noise = 1 + 0.003 * np.random.default_rng(0).standard_normal(len(table))
    return table.assign(value=(1.7 + 400 * table["N"] ** -0.34 + 410 * table["D"] ** -0.28) * noise, **columns)


def test_runs_are_what_is_independent_under_any_name() -> None:
    table = _checkpoints()
    assert rs.fit_manifold(table, "chinchilla").diagnostics.n_clusters == 6
    other = table.rename(columns={"run": "wandb_id"})
    with pytest.warns(ResultsWarning, match="checkpoints of one run"):
        assert rs.fit_manifold(other, "chinchilla").diagnostics.n_clusters == 120
    named = rs.fit_manifold(other, "chinchilla", by="wandb_id")
    assert named.diagnostics.n_clusters == 6
    with pytest.warns(rs.errors.IdentifiabilityWarning):
        assert len(np.unique(rs.bootstrap(named, n_resamples=5, rng=0).objective)) > 1


def test_a_run_of_every_evaluation_is_no_experiment() -> None:
    per_row = TABLE.assign(run=[f"eval{i}" for i in range(len(TABLE))])
    assert clusters(prepare(per_row)).max() == clusters(prepare(TABLE)).max()


def test_runs_whose_seeds_are_averaged_together_are_one_experiment() -> None:
    table = pd.concat([_checkpoints(seed=s).assign(run=lambda t, s=s: t["run"] + f"-{s}") for s in range(2)])
    assert clusters(prepare(table)).max() + 1 == 6
    assert clusters(prepare(table, seed_average=False)).max() + 1 == 12


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"by": ("n", "d")}, r"names 'n', 'd'.*N, D, R, value"),
        ({"by": 3}, "by = 3"),
        ({"by": ()}, r"by = \(\)"),
        ({"by": "runs"}, "names 'runs'"),
        ({"n_resamples": "many"}, "n_resamples = 'many'"),
        ({"n_resamples": 2.5}, "n_resamples = 2.5"),
        ({"n_resamples": True}, "n_resamples = True"),
        ({"confidence_level": "95%"}, "confidence_level = '95%'"),
        ({"confidence_level": 95}, "confidence_level = 95"),
        ({"confidence_level": None}, "confidence_level = None"),
        ({"rng": "seed"}, "rng = 'seed'"),
        ({"rng": -1}, "rng = -1"),
    ],
)
def test_wrong_arguments_of_a_bootstrap_are_named(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        rs.bootstrap(_FIT, **options)


def test_by_of_a_fit_must_be_columns() -> None:
    with pytest.raises(ConfigError, match="names 'lr'"):
        rs.fit_manifold(TABLE, "log1p", by="lr")
    with pytest.raises(ConfigError, match="by = 3"):
        rs.fit_manifold(TABLE, "log1p", by=3)  # type: ignore[arg-type]


_FIT = rs.fit_manifold(TABLE, "log1p")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("lr", [0.5, 0.25]),
        ("n_shot", [0, 5]),
        ("n_shot", ["0", "5"]),
        ("k", [3, 1]),
        ("retriever", ["bm25", "dense"]),
        ("split", ["dev", "test"]),
        ("metric", ["loss", "nll"]),
        ("my filter", ["a", "b"]),
        ("chat", [True, False]),
    ],
)
def test_what_a_message_says_to_choose_can_be_chosen(column: str, values: list[Any]) -> None:
    table = simulate("log1p", noise=0.01, rng=0).iloc[:70]
    both = pd.concat([table.assign(**{column: v}, value=table["value"] * (1 + i / 100)) for i, v in enumerate(values)])
    with pytest.raises(ResultsError) as refused:
        rs.fit_manifold(both, "rpower")
    said = re.search(r"rs\.results\.select\(results, ([^()]*)\)", str(refused.value))
    assert said is not None
    chosen = eval(f"rs.results.select(results, {said[1]})", {"rs": rs, "results": both})
    assert 60 <= len(rs.fit_manifold(chosen, "rpower", delta=0.1).data) <= 70


def test_a_sweep_of_stores_is_chosen_from_without_n_and_d() -> None:
    table = load("retro_table4")
    rows = rs.results.select(table, metric="perplexity", split="valid", model="retro_wikitext103")
    assert not {"N", "D"} & set(rows.columns)
    assert rows["value"].tolist() == table.query("split == 'valid' and model == 'retro_wikitext103'")["value"].tolist()
    with pytest.raises(ResultsError, match="column 'N' is missing"):
        rs.results.select(table.drop(columns="R"), split="valid")


def test_a_guess_about_the_metric_is_said_once() -> None:
    for table, said in (
        (_score(top=100.0), "is taken as percent"),
        (TABLE.assign(value=np.exp(TABLE["value"])), "taken as perplexities"),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rs.fit_manifold(table.iloc[:168])
        assert sum(said in str(w.message) for w in caught) == 1


def test_one_value_out_of_many_does_not_make_losses_perplexities() -> None:
    odd = TABLE.assign(value=np.where(np.arange(len(TABLE)) == 7, 100.0, 1.0) * TABLE["value"])
    with pytest.warns(ResultsWarning, match=r"row 7 is the largest\): they are taken as losses with outliers"):
        fit = rs.fit_manifold(odd, "log1p")
    assert fit.link.name == "identity"
    assert fit.theta.alpha == pytest.approx(rs.fit_manifold(TABLE, "log1p").theta.alpha, rel=0.05)
