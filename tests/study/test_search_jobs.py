"""An index in shards, searched by several jobs and for several k, gives what one index, job and k give."""

import json

import pandas as pd
import pytest
from tiny_study import ONE, SETTINGS, TINY, begun, copy_of

from ragscale.errors import ConfigError
from ragscale.evaluation import Example, Task
from ragscale.fitting import Log1p, fit_manifold
from ragscale.results import select
from ragscale.study import Study
from ragscale.study._variants import one_way

pytest.importorskip("torch")
LAW = Log1p(fixed={"E": 0.0, "A": 0.0, "alpha": 0.3, "beta": 0.3, "eta": 1e-3})


def asked(study):
    """Return everything that models are asked, without its place on the disk."""
    folders = sorted((study.directory / "stages").glob("retrieve-*/prompts/*"))
    return [[(folder / name).read_bytes() for name in ("prompts.json", "tokens.npy", "ends.npy")] for folder in folders]


@pytest.mark.parametrize("changes", [{"index_shards": 3, "search_jobs": 2}, {"search_jobs": 3}])
def test_shards_and_jobs_leave_every_prompt_as_it_is(one, tmp_path, changes):
    study = begun(one, tmp_path / "study", ONE.replace(**changes))
    assert set(study.run(until="retrieve", progress=False)["state"]) == {"done"}
    assert asked(study) == asked(one)
    pd.testing.assert_frame_equal(study.coverage(), one.coverage())
    stages = [job.stage for job in study._jobs()]
    assert (stages.count("index"), stages.count("search")) == (changes.get("index_shards", 1), changes["search_jobs"])
    for path in study.directory.glob("stages/index-*/index"):
        assert (path / "passages.jsonl").exists() == ("index_shards" not in changes), "texts of shards are the split's"


def test_jobs_of_searching_do_not_name_what_comes_after_and_shards_do(one):
    plain = [job.key for job in one._jobs() if job.stage != "search"]
    jobs = [job.key for job in Study(ONE.replace(search_jobs=3), one.directory)._jobs() if job.stage != "search"]
    assert jobs == plain
    sharded = Study(ONE.replace(index_shards=2), one.directory)._jobs()
    assert {job.key for job in sharded if job.stage in ("split", "train")} < set(plain)
    assert not {job.key for job in sharded if job.stage in ("index", "retrieve", "evaluate")} & set(plain)


@pytest.fixture(scope="module")
def swept(one, tmp_path_factory):
    """The study of one checkpoint with two k; tests must not change its directory."""
    study = copy_of(one, tmp_path_factory.mktemp("swept") / "study", ONE.replace(k=[3, 1]))
    before = {path.parent.name for path in study.directory.glob("stages/*/done.json")}
    status = study.run(progress=False)
    assert set(status["state"]) == {"done"}, status["error"].tolist()
    new = status[~status["key"].isin(before)]
    assert new["stage"].tolist() == ["search", "retrieve", "evaluate"], "what k = 1 had is there"
    return study


def test_several_k_are_several_surfaces_of_one_study(swept, one, tmp_path):
    results = swept.results()
    retrieved = results.query("condition == 'retrieved' and metric == 'nll_per_token'")
    assert retrieved.groupby(["task", "k"])["R"].nunique().tolist() == [1] * 6
    assert results.query("condition == 'closed-book'")["k"].unique().tolist() == [0]
    assert not results.duplicated(["N", "D", "R", "task", "metric", "condition", "k", "seed"]).any()
    pd.testing.assert_frame_equal(results[results["k"] != 3].reset_index(drop=True), one.results())
    alone = begun(one, tmp_path / "study", ONE.replace(k=3))
    alone.run(until="retrieve", progress=False)
    theirs = alone.coverage().query("condition != 'closed-book' and condition != 'oracle'").reset_index(drop=True)
    pd.testing.assert_frame_equal(swept.coverage().query("k == 3").reset_index(drop=True), theirs)
    shown = [[len(ids) for ids in _passages(swept, job)] for job in swept._jobs() if job.stage == "evaluate"]
    assert {*shown[0]} == {1}
    assert {*shown[1]} == {3}


def _passages(study, job):
    for path in (study.directory / "stages" / job.key / "cells").glob("*retrieved*.json"):
        yield from (sample["passages"] for sample in json.loads(path.read_text())["samples"])


def test_a_k_is_chosen_by_name(swept):
    results = swept.results()
    for k, others in ((None, {3}), (3, {1})):
        kept = one_way(results, swept.config, store_source=None, k=k)
        assert set(results[~results.index.isin(kept.index)]["k"]) == others
    rows = select(results, metric="nll_per_token", k=3)
    assert swept.fit(law=LAW, k=3).objective == fit_manifold(rows, LAW).objective != swept.fit(law=LAW).objective
    with pytest.raises(ConfigError, match="k = 2 is not in this study; it has 1, 3"):
        swept.fit(law=LAW, k=2)


def test_the_plan_counts_shards_searches_and_every_k(tmp_path):
    one = Study(TINY, tmp_path).plan()
    many = Study(TINY.replace(k=[1, 3], index_shards=4, search_jobs=2), tmp_path).plan()
    jobs = [dict(zip(p.stages["stage"], p.stages["jobs"], strict=True)) for p in (one, many)]
    assert (jobs[0]["index"], jobs[0]["retrieve"], jobs[0].get("search", 0)) == (1, 1, 0)
    assert (jobs[1]["index"], jobs[1]["retrieve"], jobs[1]["search"]) == (4, 2, 2)
    assert jobs[1]["evaluate"] == 2 * jobs[0]["evaluate"]
    memory = [p.stages.set_index("stage")["memory_gib"] for p in (one, many)]
    assert memory[1]["index"] < memory[0]["index"]
    assert many.device_hours > one.device_hours


@pytest.mark.parametrize("k", [[1, 1], [], [0, 2], ["a"], [1.5]])
def test_numbers_of_passages_that_are_none_are_named(k):
    with pytest.raises(ConfigError, match=r"k = \[.*\] must be whole numbers of at least 1, each once"):
        ONE.replace(k=k)
    assert ONE.replace(k=[3]) == ONE.replace(k=3)


def test_shards_that_would_answer_otherwise_are_refused_before_anything_is_split(tmp_path):
    study = Study(ONE.replace(retriever={"kind": "lsa"}, index_shards=2, max_tokens=20_000), tmp_path / "study")
    for call in (study.plan, study.run):
        with pytest.raises(ConfigError, match="index_shards = 2: LsaEncoder learns from all passages"):
            call()
    assert not (tmp_path / "study").exists()


def test_a_text_task_is_searched_by_its_first_words(one, tmp_path):
    text = one.split.store(3_000).passages[0].text
    task = Task(name="texts", kind="text", prefix_words=3, examples=(Example(id="1", question=text),))
    config = {**SETTINGS, "seeds": (0,), "D": [4_000], "budgets": [], "tasks": [task], "conditions": ["random"]}
    plain, jobs = (begun(one, tmp_path / str(n), ONE.replace(**{**config, "search_jobs": n})) for n in (1, 2))
    for study in (plain, jobs):
        study.run(until="retrieve", progress=False)
    assert asked(plain) == asked(jobs)
