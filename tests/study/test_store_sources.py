"""Stores from text that was trained on, beside held-out ones: same cells, own index, and columns that say which."""

import json

import pandas as pd
import pytest
from tiny_study import ONE, copy_of

from ragscale._files import file_digest, write_json
from ragscale.errors import ConfigError, ResultsError
from ragscale.fitting import Log1p, fit_manifold
from ragscale.results import hit_rate_curve, select
from ragscale.study import StudyConfig

pytest.importorskip("torch")
LAW = Log1p(fixed={"E": 0.0, "A": 0.0, "alpha": 0.3, "beta": 0.3, "eta": 1e-3})
# the larger seen store reaches beyond what was trained on
BOTH = ONE.replace(R=[3_000, 6_000], store_sources=["held-out", "seen"])


@pytest.fixture(scope="module")
def both(one, tmp_path_factory):
    """The study of one checkpoint, asked with stores of both sources; tests must not change its directory."""
    study = copy_of(one, tmp_path_factory.mktemp("both") / "study", BOTH)
    status = study.run(progress=False)
    assert set(status["state"]) == {"done"}, status["error"].tolist()
    return study


def test_every_cell_is_asked_from_both_sources_and_the_closed_book_once(both):
    rows = both.results().query("metric == 'nll_per_token' and task == 'rare'")
    cells = rows.query("condition == 'retrieved'")[["R", "store_source", "seen_share", "overlap"]]
    assert sorted(cells.itertuples(index=False, name=None))[:2] == [
        (3_000, "held-out", 0.0, False),
        (3_000, "seen", 1.0, False),
    ]
    share = cells.query("R == 6_000 and store_source == 'seen'")["seen_share"].item()
    assert share == 4_000 / both.split.store(6_000, "seen").n_tokens
    assert rows["condition"].value_counts().to_dict() == {"retrieved": 4, "random": 4, "closed-book": 1, "oracle": 1}
    assert set(rows[rows["R"] == 0]["store_source"]) == {"none"}


def test_what_is_shown_comes_from_its_end_of_the_permutation_and_one_index_serves_all_sizes(both):
    jobs = both._jobs()
    assert [job.label for job in jobs if job.stage == "index"] == ["6000", "6000 seen"]
    ids = {
        source: {R: {p.id for p in both.split.store(R, source).passages} for R in (3_000, 6_000)}
        for source in ("held-out", "seen")
    }
    for job in jobs:
        if job.stage != "evaluate":
            continue
        for path in (both.directory / "stages" / job.key / "cells").glob("*.json"):
            for sample in json.loads(path.read_text())["samples"]:
                if sample["condition"] in ("retrieved", "random"):
                    allowed = ids[job.inputs.source][3_000 if sample["condition"] == "random" else sample["R"]]
                    assert set(sample["passages"]) <= allowed


def test_held_out_results_and_training_are_those_of_the_study_without_seen_stores(both, one, tmp_path):
    plain = copy_of(both, tmp_path / "study", BOTH.replace(store_sources=["held-out"]))
    assert plain.missing().empty, "nothing is done again when a source is added"
    kept = both.results().query("store_source != 'seen'").reset_index(drop=True)
    pd.testing.assert_frame_equal(plain.results(), kept)
    trained = {job.key for job in one._jobs() if job.stage in ("split", "train")}
    assert trained <= {job.key for job in both._jobs()}


def test_a_study_of_seen_stores_alone_asks_everything_of_them(one, tmp_path):
    study = copy_of(one, tmp_path / "study", ONE.replace(store_sources="seen"))
    assert set(study.run(progress=False)["state"]) == {"done"}
    results = study.results()
    assert set(results["condition"]) == {"closed-book", "retrieved", "oracle", "random"}
    assert set(results["store_source"]) == {"none", "seen"}


def test_results_of_an_earlier_ragscale_are_read_with_their_source(one, tmp_path):
    study = copy_of(one, tmp_path / "study")
    for folder in (study.directory / "stages").glob("evaluate-*"):
        old = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        lines = [{k: v for k, v in row.items() if k not in ("store_source", "seen_share")} for row in old]
        (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        record = json.loads((folder / "done.json").read_text())
        record["outputs"]["results.jsonl"] = file_digest(folder / "results.jsonl")
        schema, version, _ = (record.pop(name) for name in ("schema", "schema_version", "content_sha256"))
        write_json(folder / "done.json", record, schema=schema, version=version)
    pd.testing.assert_frame_equal(study.results(), one.results(), check_like=True)


def test_coverage_tells_the_sources_apart_and_agrees_with_the_results(both):
    coverage = both.coverage()
    asked = both.results().query("condition == 'retrieved' and metric == 'nll_per_token'")
    merged = asked.merge(coverage, on=["task", "condition", "R", "store_source", "k"], suffixes=("", "_there"))
    assert len(merged) == len(asked) == 3 * 4
    assert merged["hit_rate"].to_numpy() == pytest.approx(merged["hit_rate_there"].to_numpy())
    with pytest.raises(ResultsError, match=r"'store_source' holds 2 values \(held-out, seen\)"):
        hit_rate_curve(coverage, task="rare")
    assert len(hit_rate_curve(coverage.query("store_source == 'seen'"), task="rare").R) > 10


def test_a_fit_and_a_report_are_of_one_source(both, tmp_path):
    results, found = both.results(), {}
    for source in ("held-out", "seen"):
        rows = select(results, metric="nll_per_token", store_source=source)
        assert sorted(rows["R"]) == [0, 3_000, 6_000], "the closed book belongs to both"
        found[source] = both.fit(law=LAW, store_source=source).objective
        assert found[source] == fit_manifold(rows, LAW).objective
    assert both.fit(law=LAW).objective == found["held-out"] != found["seen"]
    with pytest.raises(ResultsError, match="'store_source' holds 2 values"):
        fit_manifold(select(results, metric="nll_per_token", task="rare"), LAW)
    text = both.report(tmp_path / "report.md", law=LAW, n_resamples=0, store_source="seen").read_text()
    assert "seen stores, k = 1" in text
    assert "report(..., store_source = 'held-out')" in text
    with pytest.raises(ConfigError, match="store_source = 'own' is not in this study; it has 'held-out', 'seen'"):
        both.report(tmp_path / "report.md", store_source="own")


@pytest.mark.parametrize("given", [[], ["own"], ["seen", "seen"]])
def test_sources_that_are_none_are_named(given):
    with pytest.raises(ConfigError, match=r"store_sources = .* must name 'held-out' or 'seen', each once"):
        ONE.replace(store_sources=given)


def test_a_file_names_sources_as_the_constructor_does(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "corpus: {synthetic: {}}\nmodels: [0.15M]\nD: [1e4]\nR: [1e3]\nstore_sources: [held-out, seen]\n"
    )
    read = StudyConfig.read(tmp_path / "study.yaml")
    assert read.store_sources == ("held-out", "seen")
    assert StudyConfig.from_dict(read.to_dict()) == read
