"""Every executor gives the same results, and leaves nothing running."""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from tiny_study import ONE, SETTINGS, TINY, begun, copy_of, outputs

from ragscale.errors import ConfigError, StudyWarning
from ragscale.study import Needs, Study, executors

pytest.importorskip("torch")


def test_processes_give_the_same_bytes(done, tmp_path):
    study = Study(TINY, tmp_path)
    executor = executors.processes(2)
    assert set(study.run(executor, progress=False)["state"]) == {"done"}
    assert outputs(study) == outputs(done)
    assert executor._pool is None, "run() ends what it started"


def test_slurm_in_its_local_form_gives_the_same_results_in_few_processes(one, tmp_path):
    pytest.importorskip("submitit")
    study = begun(one, tmp_path / "study", ONE)
    executor = executors.slurm(tmp_path / "logs", cluster="local", device="CPU-core", timeout_min=10)
    study.run(executor, progress=False)
    pd.testing.assert_frame_equal(study.results(), one.results())
    submissions = list((tmp_path / "logs").glob("*_submitted.pkl"))
    jobs = [job for job in study._jobs() if job.stage != "split"]
    assert len(submissions) < len(jobs), "small jobs of one model share a process"


def test_dask_gives_the_same_results(one, tmp_path):
    pytest.importorskip("distributed")
    study = begun(one, tmp_path / "study", ONE)
    study.run(executors.dask(n_workers=1, processes=False), progress=False)
    pd.testing.assert_frame_equal(study.results(), one.results())


def test_ray_gives_the_same_results(one, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it leaves a token in the home directory
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    study = begun(one, tmp_path / "study", ONE)
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # sockets lie in it, whose paths must be short
        options = {"include_dashboard": False, "logging_level": "ERROR", "_temp_dir": short}
        study.run(executors.ray(num_cpus=1, **options), progress=False)
    assert not ray.is_initialized()
    pd.testing.assert_frame_equal(study.results(), one.results())


def test_any_pool_of_the_standard_library_will_do(one, tmp_path):
    study = begun(one, tmp_path / "study", ONE)
    with ThreadPoolExecutor(2) as executor:
        study.run(executor, until="retrieve", progress=False)
    pd.testing.assert_frame_equal(study.coverage(), one.coverage())


def test_processes_need_no_guard_in_the_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from ragscale.study import executors\nprint(executors.processes(1).submit(pow, 2, 5).result())\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert ended.stdout == "32\n"


def test_a_pool_that_lost_a_process_starts_anew():
    import small_jobs

    with executors.processes(1) as executor:
        with pytest.raises(Exception, match="terminated abruptly"):
            executor.submit(small_jobs.die, None, None, None).result()
        assert executor.submit(pow, 2, 5).result() == 32


def test_each_process_gets_a_gpu_of_its_own():
    import small_jobs

    with executors.processes(2, gpus=2) as executor:
        found = [executor.submit(small_jobs.visible_gpus, 0.3) for _ in range(4)]
        assert {future.result() for future in found} == {"0", "1"}


@pytest.mark.parametrize(
    ("call", "match"),
    [(lambda: executors.processes(0), "n must be at least 1"), (lambda: executors.processes(1.5), "n must be a whole")],
)
def test_wrong_arguments_are_named(call, match):
    with pytest.raises(ConfigError, match=match):
        call()


def test_what_is_no_executor_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(ConfigError, match="executor = 4 must have submit"):
        Study(ONE, tmp_path / "study").run(4)
    assert not (tmp_path / "study").exists()


def test_slurm_asks_for_what_the_plan_needs():
    asked = []

    class Recorder(executors.Slurm):
        def _start(self, needs, function, arguments):
            asked.append(needs)

    queue = Recorder(Path("logs"), "H100", None, {}, {})
    for needs in (Needs(), Needs(gpus=8, hours=20, memory_gib=100)):
        queue.with_needs(needs).submit(len, ())
    assert [needs.gpus for needs in asked] == [0, 8]
    assert queue.fresh_process
    assert queue.with_needs(Needs()).fresh_process


def trained_in_one_job(one, directory: Path, n_processes: int, **training: int) -> Study:
    """Return the study of one checkpoint, whose training is one job: torchrun starts its processes once."""
    options = {**SETTINGS["training"], "schedule": "cosine", **training}
    return copy_of(one, directory, ONE.replace(processes_per_training=n_processes, training=options))


def test_two_processes_per_training_give_the_results_of_one(one, tmp_path):
    tables = []
    for n_processes in (1, 2):
        study = trained_in_one_job(one, tmp_path / str(n_processes), n_processes)
        status = study.run(progress=False)
        assert set(status["state"]) == {"done"}, status["error"].tolist()
        assert status["stage"].tolist().count("train") == 1
        tables.append(study.results())
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)


def test_a_failing_torchrun_is_reported_with_what_failed_in_it(one, tmp_path):
    study = trained_in_one_job(one, tmp_path / "study", 2, batch_tokens=384)
    with pytest.warns(StudyWarning, match="cannot be shared by 2 processes"):
        study.run(until="train", progress=False)
    texts = [path.read_text() for path in study.directory.glob("stages/train-*/failed.json")]
    assert any("torchrun ended with 1" in text for text in texts)
    assert any("_train_process.py" in text for text in texts), "with the traceback of the process that failed"
