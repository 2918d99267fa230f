"""The study on the synthetic world: the same results from every executor and after every kill, and nothing built in."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest

from ragscale.errors import ConfigError, ResultsError
from ragscale.fitting import Log1p
from ragscale.study import Study, StudyConfig

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
    training={"seq_len": 64, "batch_tokens": 256, "allow_short_runs": True, "precision": "fp32"},
)


def run_elsewhere(directory: Path, *, executor: str = "None", wait: bool = True) -> subprocess.Popen:
    """Run the tiny study in a process of its own."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from ragscale.study import Study, StudyConfig
from pathlib import Path
if __name__ == "__main__":
    Study(StudyConfig.read({str(directory / "given.json")!r}), {str(directory / "study")!r}).run({executor})
"""
    directory.mkdir(parents=True, exist_ok=True)
    TINY.write(directory / "given.json")
    script = directory / "run.py"
    script.write_text(code)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.PIPE)
    if wait:
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors.decode()[-3000:]
    return process


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Study:
    study = Study(TINY, tmp_path_factory.mktemp("study"))
    status = study.run(progress=False)
    assert set(status["state"]) == {"done"}, status["error"].tolist()
    return study


def outputs(study: Study) -> dict[str, bytes]:
    """Return the bytes of everything that later stages and people read."""
    names = ("results.jsonl", "coverage.csv", "model.safetensors", "manifest.json")
    folder = study.directory
    files = [path for name in names for path in folder.rglob(name)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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

    study = Study(TINY, tmp_path / "study")
    study.run(Keeping(), progress=False)
    for job in jobs:
        job._process.wait()  # submitit leaves that to the end of the program
    pd.testing.assert_frame_equal(study.results(), done.results())


def test_dask_gives_the_same_results(done, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        study = Study(TINY, tmp_path / "study")
        study.run(client.get_executor(), progress=False)
    pd.testing.assert_frame_equal(study.results(), done.results())


def test_a_killed_study_goes_on_and_ends_with_the_same_bytes(done, tmp_path):
    for delay in (4.0, 7.0):
        process = run_elsewhere(tmp_path, wait=False)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run_elsewhere(tmp_path)
    assert outputs(Study(TINY, tmp_path / "study")) == outputs(done)


def test_more_values_of_d_branch_from_the_trunk_that_is_there(done):
    more = StudyConfig.from_dict({**TINY.to_dict(), "D": [4_000, 8_000, 12_000]})
    study = Study(more, done.directory)
    trunks = sorted(path.name for path in (done.directory / "runs").iterdir())
    study.run(progress=False)
    assert sorted(path.name for path in (done.directory / "runs").iterdir()) == trunks
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
