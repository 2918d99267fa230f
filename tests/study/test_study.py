"""The study on the synthetic world: what is computed when, what is kept, and nothing built in."""

import json
import shutil
import warnings

import pandas as pd
import pytest
from tiny_study import ONE, SETTINGS, TINY, begun, copy_of, outputs

from ragscale.errors import ConfigError, ResultsError, StudyWarning
from ragscale.fitting import Log1p
from ragscale.splitting import Split
from ragscale.study import Study, StudyConfig
from ragscale.study._graph import STAGES

pytest.importorskip("torch")
LAW = Log1p(tie=True, fixed={"A": 0.0, "alpha": 0.3, "eta": 1e-3})


def test_every_planned_cell_is_in_the_results(done):
    results = done.results()
    planned = done.plan()
    closed = results[(results["metric"] == "nll_per_token") & results["condition"].isin(["closed-book", "retrieved"])]
    assert set(zip(closed["N"], closed["D"], closed["R"], closed["seed"], strict=True)) == set(
        zip(planned["N"], planned["D"], planned["R"], planned["seed"], strict=True)
    )
    assert set(results["condition"]) == {"closed-book", "retrieved", "oracle", "random"}
    assert not results["overlap"].any()
    assert done.missing().empty


def test_each_branch_is_a_job_that_follows_its_piece_of_the_trunk(done):
    jobs = {job.label: job for job in done._jobs() if job.stage == "train" and "seed 0" in job.label}
    assert list(jobs) == ["tiny seed 0 trunk to step 13", "tiny seed 0 trunk to step 26"] + [
        f"tiny seed 0 D {tokens}" for tokens in (4_000, 8_000)
    ]
    trunk, rest, short, long = jobs.values()
    assert [job.label for job in short.follows] == [trunk.label], "it need not wait for the rest of the trunk"
    assert [job.label for job in rest.follows] == [trunk.label]
    assert [job.label for job in long.follows] == [rest.label]


def test_pieces_of_a_run_are_those_of_one_call_of_train(done, tmp_path):
    """Trunk and branches as jobs of their own give the weights that one call gives."""
    from ragscale.training import Checkpoint, train

    inputs = next(job.inputs for job in done._jobs() if job.label == "tiny seed 1 D 8000")
    (whole,) = train(inputs.model, done.split, inputs.training, tokens=8_000, out=tmp_path / "run", progress=False)
    (run,) = {path.parent for path in done.directory.glob("runs/*/D8000") if Checkpoint.load(path).seed == 1}
    assert (whole.path / "model.safetensors").read_bytes() == (run / "D8000" / "model.safetensors").read_bytes()


def test_coverage_is_known_before_any_model_is_trained(done, tmp_path):
    study = Study(TINY, tmp_path)
    study.run(until="split", progress=False)
    with pytest.raises(ResultsError, match="until='retrieve'"):
        study.coverage()
    study.run(until="retrieve", progress=False)
    assert not list(tmp_path.glob("runs/*"))
    pd.testing.assert_frame_equal(study.coverage(), done.coverage())
    retrieved = done.coverage().query("condition == 'retrieved'")
    assert retrieved.groupby("task")["answer_in_store"].apply(lambda shares: shares.is_monotonic_increasing).all()


def test_coverage_is_measured_at_twenty_sizes_and_agrees_with_the_prompts_where_both_are(done):
    coverage, results = done.coverage(), done.results()
    assert (coverage.query("condition == 'retrieved'").groupby("task")["R"].nunique() >= 20).all()
    asked = results.query("condition == 'retrieved' and metric == 'nll_per_token'")
    for name in ("hit_rate", "answer_in_store"):
        both = asked.merge(coverage, on=["task", "condition", "R"], suffixes=("", "_there"))
        assert len(both) == len(asked)
        assert both[name].to_numpy() == pytest.approx(both[f"{name}_there"].to_numpy())


def test_hits_between_the_stores_of_the_grid_are_what_prompts_at_those_sizes_show(done, tmp_path):
    between = done.coverage().query("condition == 'retrieved'")
    sizes = sorted(set(between["R"]) - {1_000, 3_000, 5_000})[5::7]
    more = copy_of(done, tmp_path / "study", TINY.replace(R=[*sizes, 3_000], coverage_sizes=0))
    more.run(until="retrieve", progress=False)
    both = more.coverage().merge(between, on=["task", "condition", "R"], suffixes=("", "_between"))
    assert set(sizes) <= set(both["R"])
    for name in ("hit_rate", "answer_in_store"):
        assert both[name].to_numpy() == pytest.approx(both[f"{name}_between"].to_numpy(), nan_ok=True)


def test_a_fit_names_the_cells_that_it_lacks(done, tmp_path):
    study = copy_of(done, tmp_path / "study")
    (lost,) = (job for job in study._jobs() if job.stage == "evaluate" and job.label == "tiny seed 1 D 4000")
    shutil.rmtree(tmp_path / "study" / "stages" / lost.key)
    with pytest.warns(StudyWarning, match=r"lacks 1 checkpoints of the plan \(tiny seed 1 D 4,000\)"):
        study.fit(law=LAW)
    assert study.missing_cells().to_dict("records") == [{"model": "tiny", "seed": 1, "D": 4_000}]


def test_a_notebook_shows_the_state_of_every_stage(done):
    page = done._repr_html_()
    assert all(f"<td>{stage}</td>" in page for stage in STAGES if stage not in ("check", "search"))


def test_files_count_by_their_content_and_not_by_their_place(tmp_path):
    def key(folder: str, text: str) -> str:
        (tmp_path / folder).mkdir()
        corpus = tmp_path / folder / "corpus.jsonl"
        corpus.write_text(json.dumps({"id": "a", "text": text}) + "\n")
        config = StudyConfig(corpus=str(corpus), models=["0.05M"], D=[10], R=[], tasks=["squad.jsonl"])
        return Study(config, tmp_path)._split_job.key

    def key_of_folder(name: str, inner: str) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / inner).write_text("some text")
        config = StudyConfig(corpus=str(tmp_path / name), models=["0.05M"], D=[10], R=[], tasks=["squad.jsonl"])
        return Study(config, tmp_path)._split_job.inputs.content[0][1]

    assert key("here", "one") == key("there", "one") != key("elsewhere", "another")
    assert key_of_folder("texts", "a.txt") == key_of_folder("moved", "a.txt") != key_of_folder("renamed", "b.txt")


def test_a_corpus_is_read_once_and_known_when_it_is_gone(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "a", "text": "one"}) + "\n")
    config = StudyConfig(corpus=str(corpus), models=["0.05M"], D=[10], R=[], tasks=["squad.jsonl"])
    first = Study(config, tmp_path)
    key = first._split_job.key
    first._contents.save()
    corpus.unlink()
    assert Study(config, tmp_path)._split_job.key == key
    with pytest.raises(ConfigError, match=r"missing: .*corpus\.jsonl"):
        Study(config, tmp_path / "other")._split_job
    corpus.write_text(json.dumps({"id": "a", "text": "two"}) + "\n")
    assert Study(config, tmp_path)._split_job.key != key


def test_keys_do_not_hold_what_leaves_every_byte_as_it_is(done):
    logistics = {"log_every": 5, "save_minutes": 1.0, "keep_states": 3, "allow_short_runs": True}
    training = {**SETTINGS["training"], **logistics}
    changed = Study(StudyConfig(**{**SETTINGS, "training": training, "n_workers": 2}), done.directory)
    assert [job.key for job in changed._jobs()] == [job.key for job in done._jobs()]
    other = Study(StudyConfig(**{**SETTINGS, "training": {**training, "learning_rate": 0.1}}), done.directory)
    different = {job.stage for job, old in zip(other._jobs(), done._jobs(), strict=True) if job.key != old.key}
    assert different == {"train", "evaluate"}


def test_a_second_run_does_nothing(done):
    before = {path: path.stat().st_mtime_ns for path in done.directory.rglob("done.json")}
    done.run(progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in done.directory.rglob("done.json")}


def test_more_values_of_d_branch_from_the_trunk_that_is_there(done, tmp_path):
    study = copy_of(done, tmp_path / "study", TINY.replace(D=[4_000, 8_000, 12_000]))
    trunks = sorted(path.name for path in (done.directory / "runs").iterdir())
    before = {path.parent.name for path in study.directory.rglob("done.json")}
    status = study.run(progress=False)
    assert sorted(path.name for path in (study.directory / "runs").iterdir()) == trunks
    new = status[~status["key"].isin(before)]
    assert set(new.query("stage in ['train', 'evaluate']")["label"]) == {
        f"tiny seed {seed} {piece}" for seed in (0, 1) for piece in ("trunk to step 38", "D 12000")
    }, "nothing that was trained or evaluated is done again"
    old, results = done.results(), study.results()
    pd.testing.assert_frame_equal(results[results["D"] < 12_000].reset_index(drop=True), old)
    assert set(results["D"]) == {4_000, 8_000, 12_000}


def test_a_study_is_opened_where_it_was_run(done, tmp_path):
    again = Study.open(done.directory)
    assert again.config == done.config
    pd.testing.assert_frame_equal(again.results(), done.results())
    with pytest.raises(ConfigError, match="holds no study"):
        Study.open(tmp_path)


def test_a_split_that_exists_is_taken_and_not_made_again(one, tmp_path):
    given = Split.load(one.split.path)
    questions = sorted((one.split.path.parent / "questions").glob("*.jsonl"))
    tasks = [
        {"path_or_name": str(path), "kind": "likelihood", "template": {"question": "{question}"}} for path in questions
    ]
    gold = [str(one.split.path.parent / "gold.jsonl")]
    config = ONE.replace(corpus=given, tasks=tasks, gold=gold)
    assert config == StudyConfig.from_dict(config.to_dict()) != ONE
    study = Study(config, tmp_path / "study")
    assert study.plan()["D"].tolist() == one.plan()["D"].tolist()
    assert set(study.run(progress=False)["state"]) == {"done"}
    assert not list((tmp_path / "study").rglob("manifest.json")), "it stays where it is"
    pd.testing.assert_frame_equal(study.results(), one.results())


def test_a_failing_cell_is_said_aloud_and_the_rest_goes_on(tmp_path):
    study = Study(
        ONE.replace(
            models=[*SETTINGS["models"], {**SETTINGS["models"][0], "name": "odd", "training": {"eos_id": 9_999}}]
        ),
        tmp_path,
    )
    with pytest.warns(StudyWarning, match=r"1 of 9 jobs failed, and 2 wait.*train odd seed 0.*failed\.json"):
        status = study.run(progress=False)
    assert status.loc[status["label"].str.startswith("tiny"), "state"].tolist() == ["done"] * 3
    assert status.loc[status["label"].str.startswith("odd"), "state"].tolist() == ["failed", "blocked", "blocked"]
    with pytest.warns(StudyWarning, match="these results lack cells: 1 of 9 jobs failed"):
        assert set(study.results()["model"]) == {"tiny"}
    assert "jobs failed" in study._repr_html_()
    missing = study.missing()
    assert len(missing) == 3
    assert "eos_id=9999" in missing["error"].iloc[0]


def test_nothing_evaluated_says_what_failed_or_that_nothing_was_run(tmp_path, one):
    with pytest.raises(ResultsError, match="run the study first"):
        Study(ONE, tmp_path).results()
    study = begun(one, tmp_path / "study", ONE.replace(training={**SETTINGS["training"], "eos_id": 9_999}))
    with pytest.warns(StudyWarning, match="jobs failed"):
        study.run(progress=False)
    with pytest.raises(ResultsError, match=r"nothing is evaluated yet: 1 of .* jobs failed.*eos_id=9999"):
        study.results()


@pytest.mark.parametrize("changes", [{"max_tokens": 3_000}, {"training": {"seq_len": 128, "batch_tokens": 4096}}])
def test_a_plan_that_cannot_work_is_refused_before_anything_is_split(tmp_path, changes):
    study = Study(ONE.replace(**changes), tmp_path / "study")
    with pytest.raises(ConfigError, match="this study cannot run") as planned:
        study.plan()
    with pytest.raises(ConfigError, match="this study cannot run") as ran:
        study.run(progress=False)
    assert str(planned.value) == str(ran.value)
    assert not (tmp_path / "study").exists()


def test_the_plan_says_that_t_is_estimated_until_the_split_is_made(done, tmp_path):
    guess = Study(TINY, tmp_path).plan()
    assert "estimated" in guess.note
    assert len(Study(TINY.replace(max_tokens=10_000), tmp_path).plan()) == 10
    assert done.plan().note == ""


def test_the_world_decides_the_answer(done, tmp_path):
    """A store that holds no fact about anybody cannot have a hit; nothing in the study assumes that it does."""
    unread = {**SETTINGS["corpus"]["synthetic"], "reading_share": 0.9}
    study = Study(ONE.replace(corpus={"synthetic": unread}), tmp_path)
    study.run(until="retrieve", progress=False)
    theirs, ours = study.coverage(), done.coverage()
    hits = [table.query("condition == 'retrieved' and R == 3000")["hit_rate"].mean() for table in (theirs, ours)]
    assert hits[0] < hits[1]


def test_outputs_are_whole(done):
    assert len(outputs(done)) == 2 * 4 + 1 + 1 + 3, "checkpoints and results; manifest; coverage; tokens of three tasks"


def test_a_run_says_nothing_when_all_is_well(one, tmp_path):
    study = copy_of(one, tmp_path / "study")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.run(progress=False)
        study.results()
