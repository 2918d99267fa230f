"""The study on the synthetic world: the same results from every executor and after every kill, and nothing built in."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest

from ragscale.errors import ConfigError, ResultsError, StudyWarning
from ragscale.fitting import Log1p
from ragscale.study import Study, StudyConfig
from ragscale.study._study import STAGES

pytest.importorskip("torch")

TINY = StudyConfig(
    corpus={"synthetic": {"n_documents": 400, "n_entities": 20, "n_questions": 5, "n_bands": 2}},
    models=[{"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32, "name": "tiny"}],
    D=[4_000, 8_000],
    R=[3_000],
    budgets=[9_000],
    tokenizer=300,
    validation_tokens=500,
    passage_tokens=48,
    k=1,
    seeds=(0, 1),
    training={"seq_len": 128, "batch_tokens": 256, "allow_short_runs": True, "precision": "fp32"},
)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Study:
    study = Study(TINY, tmp_path_factory.mktemp("study"))
    status = study.run(progress=False)
    assert set(status["state"]) == {"done"}, status["error"].tolist()
    return study


def outputs(study: Study) -> dict[str, bytes]:
    """Return the bytes of everything that later stages and people read; what a kill left half made is hidden."""
    names = ("results.jsonl", "coverage.csv", "model.safetensors", "manifest.json")
    files = {path.relative_to(study.directory): path for name in names for path in study.directory.rglob(name)}
    return {str(name): path.read_bytes() for name, path in files.items() if not any(p[0] == "." for p in name.parts)}


def of_seed_0(study: Study) -> pd.DataFrame:
    """Return the results of the first seed alone, for tests whose every job is a new process."""
    return study.results().query("seed == 0").reset_index(drop=True)


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


def test_a_fit_names_the_cells_that_it_lacks(done, tmp_path):
    study = Study(TINY, shutil.copytree(done.directory, tmp_path / "study"))
    (lost,) = (job for job in study._jobs() if job.stage == "evaluate" and job.label == "tiny seed 1 D 4000")
    shutil.rmtree(tmp_path / "study" / "stages" / lost.key)
    law = Log1p(tie=True, fixed={"A": 0.0, "alpha": 0.3, "eta": 1e-3})
    with pytest.warns(StudyWarning, match=r"lacks 1 checkpoints of the plan \(tiny seed 1 D 4,000\)"):
        study.fit(metric="nll_per_token", law=law)
    assert study.missing_cells().to_dict("records") == [{"model": "tiny", "seed": 1, "D": 4_000}]


def test_a_notebook_shows_the_state_of_every_stage(done):
    page = done._repr_html_()
    assert all(f"<td>{stage}</td>" in page for stage in STAGES)


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
        return Study(config, tmp_path)._split_job.inputs["documents"][0][1]

    assert key("here", "one") == key("there", "one") != key("elsewhere", "another")
    assert key_of_folder("texts", "a.txt") == key_of_folder("moved", "a.txt") != key_of_folder("renamed", "b.txt")


def test_a_second_run_does_nothing(done):
    before = {path: path.stat().st_mtime_ns for path in done.directory.rglob("done.json")}
    done.run(progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in done.directory.rglob("done.json")}


def test_a_process_pool_gives_the_same_bytes(done, tmp_path):
    study = Study(TINY, tmp_path)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        study.run(executor, progress=False)
    assert outputs(study) == outputs(done)


def test_submitit_gives_the_same_results(done, tmp_path):
    submitit = pytest.importorskip("submitit")
    executor = submitit.LocalExecutor(folder=tmp_path / "logs")
    executor.update_parameters(timeout_min=5)
    jobs = []

    class Keeping:
        def submit(self, function, *arguments):
            jobs.append(executor.submit(function, *arguments))
            return jobs[-1]

    study = Study(StudyConfig.from_dict({**TINY.to_dict(), "seeds": [0]}), tmp_path / "study")
    study.run(Keeping(), progress=False)
    for job in jobs:
        job._process.wait()  # submitit leaves that to the end of the program
    pd.testing.assert_frame_equal(study.results(), of_seed_0(done))


def test_dask_gives_the_same_results(done, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        study = Study(TINY, tmp_path / "study")
        study.run(client.get_executor(), progress=False)
    pd.testing.assert_frame_equal(study.results(), done.results())


def test_ray_gives_the_same_results(done, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")

    class RayFuture:  # this and the next as in docs/guide/run-a-study.md
        def __init__(self, reference):
            self.reference = reference

        def done(self):
            return bool(ray.wait([self.reference], timeout=0)[0])

        def result(self):
            return ray.get(self.reference)

    class RayExecutor:
        def submit(self, function, *arguments):
            return RayFuture(ray.remote(function).remote(*arguments))

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it leaves a token in the home directory
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    study = Study(TINY, tmp_path / "study")
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # sockets lie in it, whose paths must be short
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=short)
        try:
            study.run(RayExecutor(), progress=False)
        finally:
            ray.shutdown()
    pd.testing.assert_frame_equal(study.results(), done.results())


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_study_killed_in_every_stage_goes_on_and_ends_with_the_same_bytes(done, tmp_path, n_workers):
    TINY.write(tmp_path / "given.json")
    script = Path(__file__).parent / "jobs" / "kill_often.py"
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "given.json"), str(tmp_path / "study"), str(n_workers)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    *killed, last = json.loads(ended.stdout)
    assert [(run["stage"], run["ended"]) for run in killed] == [
        (stage, -signal.SIGKILL) for stage in STAGES for _ in range(4)
    ], ended.stderr[-3000:]
    assert last["ended"] == 0, ended.stderr[-3000:]
    for run in killed:
        assert run["done"].items() <= last["done"].items(), "what was done is done again"
    assert outputs(Study(TINY, tmp_path / "study")) == outputs(done)


def of_two_processes(directory: Path, **training: int) -> Study:
    """Return the study of one seed, trained by two processes under torchrun."""
    changes = {"seeds": [0], "processes_per_training": 2, "training": {**TINY.training, **training}}
    return Study(StudyConfig.from_dict({**TINY.to_dict(), **changes}), directory)


def test_two_processes_per_training_give_the_results_of_one(done, tmp_path):
    study = of_two_processes(tmp_path)
    status = study.run(progress=False)
    assert set(status["state"]) == {"done"}, status["error"].tolist()
    pd.testing.assert_frame_equal(study.results(), of_seed_0(done), rtol=1e-5)


def test_a_failing_torchrun_is_reported_with_what_failed_in_it(done, tmp_path):
    study = of_two_processes(tmp_path, batch_tokens=384)
    status = study.run(until="train", progress=False).set_index("stage")
    reason = "a batch of 3 rows of 128 tokens cannot be shared by 2 processes"
    assert status.loc["train", "state"] == "failed"
    assert reason in str(status.loc["train", "error"]), "the last line says it"
    (record,) = tmp_path.glob("stages/train-*/failed.json")
    error = json.loads(record.read_text())["error"]
    assert "torchrun ended with 1" in error
    assert "_train_process.py" in error, "with the traceback of the process that failed"


def test_more_values_of_d_branch_from_the_trunk_that_is_there(done, tmp_path):
    more = StudyConfig.from_dict({**TINY.to_dict(), "D": [4_000, 8_000, 12_000]})
    study = Study(more, shutil.copytree(done.directory, tmp_path / "study"))
    trunks = sorted(path.name for path in (done.directory / "runs").iterdir())
    study.run(progress=False)
    assert sorted(path.name for path in (study.directory / "runs").iterdir()) == trunks
    old, new = done.results(), study.results()
    kept = new[new["D"] < 12_000].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, old)
    assert set(new["D"]) == {4_000, 8_000, 12_000}


def test_a_failing_cell_is_reported_and_the_rest_goes_on(tmp_path):
    broken = {"n_layers": 1, "d_model": 17, "n_heads": 2, "d_ff": 32, "name": "odd"}
    config = StudyConfig.from_dict({**TINY.to_dict(), "seeds": [0], "D": [4_000], "budgets": []})
    with pytest.raises(ConfigError, match="d_model=17"):
        Study(StudyConfig.from_dict({**config.to_dict(), "models": [broken], "max_tokens": 9_000}), tmp_path).plan()
    no_retriever = StudyConfig.from_dict({**config.to_dict(), "retriever": {"factory": "ragscale.retrieval:Nothing"}})
    study = Study(no_retriever, tmp_path / "study")
    status = study.run(progress=False).set_index("stage")["state"].to_dict()
    assert status == {"split": "done", "index": "failed", "retrieve": "blocked", "train": "done", "evaluate": "blocked"}
    missing = study.missing()
    assert "Nothing" in missing.loc[missing["stage"] == "index", "error"].iloc[0]
    with pytest.raises(ResultsError, match="nothing is evaluated yet"):
        study.results()


def test_the_world_decides_the_answer(done, tmp_path):
    """A store that holds no fact about anybody cannot have a hit; nothing in the study assumes that it does."""
    unread = {"n_documents": 400, "n_entities": 20, "n_questions": 5, "n_bands": 2, "reading_share": 0.9}
    study = Study(StudyConfig.from_dict({**TINY.to_dict(), "corpus": {"synthetic": unread}, "seeds": [0]}), tmp_path)
    study.run(until="retrieve", progress=False)
    (theirs,) = (pd.read_csv(path) for path in study.directory.rglob("coverage.csv"))
    (ours,) = (pd.read_csv(path) for path in done.directory.glob("stages/retrieve-*/coverage.csv"))
    hits = [table.query("condition == 'retrieved'")["hit_rate"].mean() for table in (theirs, ours)]
    assert hits[0] < hits[1]


def test_the_report_is_one_file_without_network(done, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    law = Log1p(tie=True, fixed={"A": 0.0, "alpha": 0.3, "eta": 1e-3})
    text = done.report(tmp_path / "report.html", law=law, n_resamples=20).read_text()
    for heading in ("The answer", "The fixed budget", "Controls", "The gain taken apart", "How this was made"):
        assert heading in text
    assert "http" not in text.replace("http-equiv", "")
    assert done.report(tmp_path / "report.md", law=law, n_resamples=20).read_text().startswith("# ")


def test_the_plan_needs_t_before_the_split_is_made(tmp_path):
    with pytest.raises(ConfigError, match="T and the vocabulary are not known"):
        Study(TINY, tmp_path).plan()
    assert len(Study(StudyConfig.from_dict({**TINY.to_dict(), "max_tokens": 10_000}), tmp_path).plan()) == 10
