"""Jobs run once, in order, anywhere; what fails is written down and does not stop the rest."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.thread import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Timer

import pytest
import small_jobs

from ragscale.errors import ConfigError
from ragscale.study._engine import run_jobs
from ragscale.study._jobs import Job, Needs, folder_of, forget


def diamond(trace, *, middle=small_jobs.add, extra=None):
    def job(name, value, function=small_jobs.add, **after):
        inputs = {"name": name, "value": value, "trace": str(trace), **(extra or {})}
        return Job(stage="add", label=name, function=function, inputs=inputs, after=after)

    top = job("top", 1)
    left = job("left", 10, middle, top=top)
    right = job("right", 100, top=top)
    return [job("bottom", 1000, left=left, right=right), right, left, top]


def number(root, job):
    return int((folder_of(root, job) / "number").read_text())


@pytest.mark.parametrize("kind", ["none", "threads", "processes"])
def test_every_executor_gives_the_same_numbers_and_each_job_runs_once(tmp_path, kind):
    jobs = diamond(tmp_path / "trace")
    executors = {
        "none": lambda: None,
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    }
    executor = executors[kind]()
    for _ in range(2):
        states = run_jobs(tmp_path / "study", jobs, executor)
        assert [state.state for state in states] == ["done"] * 4
    assert number(tmp_path / "study", jobs[0]) == 1 + 10 + 1 + 100 + 1000
    assert sorted((tmp_path / "trace").read_text().split()) == ["bottom", "left", "right", "top"]
    if executor is not None:
        executor.shutdown()


def test_a_failure_is_reported_with_its_traceback_and_the_rest_goes_on(tmp_path):
    jobs = diamond(tmp_path / "trace", middle=small_jobs.fail)
    states = {state.job.label: state for state in run_jobs(tmp_path, jobs)}
    assert {label: state.state for label, state in states.items()} == {
        "top": "done",
        "left": "failed",
        "right": "done",
        "bottom": "blocked",
    }
    assert "ZeroDivisionError: no luck with left" in states["left"].error


def test_a_failed_job_is_tried_again_by_the_next_run_and_nothing_else_is(tmp_path):
    allowed = tmp_path / "allowed"
    jobs = diamond(tmp_path / "trace", middle=small_jobs.fail_until_allowed, extra={"allowed": str(allowed)})
    run_jobs(tmp_path, jobs)
    allowed.touch()
    assert {state.state for state in run_jobs(tmp_path, jobs)} == {"done"}
    assert sorted((tmp_path / "trace").read_text().split()) == ["bottom", "left", "right", "top"]


def test_a_worker_that_dies_fails_its_job_only(tmp_path):
    jobs = diamond(tmp_path / "trace", middle=small_jobs.die)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        states = {state.job.label: state for state in run_jobs(tmp_path, jobs, executor)}
    assert states["left"].state == "failed"
    assert "BrokenProcessPool" in states["left"].error
    assert states["bottom"].state == "blocked"


def test_a_pool_that_broke_fails_the_jobs_that_come_after_and_not_the_run(tmp_path):
    jobs = [*diamond(tmp_path / "trace"), *diamond(tmp_path / "other", middle=small_jobs.die)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        states = run_jobs(tmp_path / "study", jobs, executor)
    assert {"failed", "blocked"} <= {state.state for state in states}
    assert {state.state for state in run_jobs(tmp_path / "study", jobs[:4])} == {"done"}, "and the next run goes on"


def test_keys_change_with_inputs_and_with_everything_before_and_not_with_needs(tmp_path):
    keys = [job.key for job in diamond(tmp_path / "trace")]
    assert keys == [job.key for job in diamond(tmp_path / "trace")]
    changed = [job.key for job in diamond(tmp_path / "other")]
    assert not set(keys) & set(changed)
    job = Job(stage="add", label="x", function=small_jobs.add, inputs={})
    assert job.key == Job(stage="add", label="y", function=small_jobs.add, inputs={}, needs=Needs(gpus=8)).key


def test_executors_can_be_chosen_by_what_a_job_needs(tmp_path):
    asked = []

    def choose(needs):
        asked.append(needs.gpus)

    run_jobs(tmp_path, diamond(tmp_path / "trace"), choose)
    assert asked == [0, 0, 0, 0]


def test_forgotten_jobs_run_again(tmp_path):
    jobs = diamond(tmp_path / "trace")
    run_jobs(tmp_path, jobs)
    forget(tmp_path, jobs[:1])
    run_jobs(tmp_path, jobs)
    assert (tmp_path / "trace").read_text().split().count("bottom") == 2


def test_a_worker_that_outlives_its_killed_run_is_waited_for_and_its_work_taken_over(tmp_path):
    inputs = {"name": "slow", "value": 1, "trace": str(tmp_path / "trace"), "allowed": str(tmp_path / "allowed")}
    job = Job(stage="add", label="slow", function=small_jobs.add_when_allowed, inputs=inputs)
    code = f"""
import sys
sys.path.insert(0, {str(Path(small_jobs.__file__).parent)!r})
import small_jobs
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from ragscale.study._engine import run_jobs
from ragscale.study._jobs import Job
job = Job(stage="add", label="slow", function=small_jobs.add_when_allowed, inputs={inputs!r})
run_jobs(Path({str(tmp_path / "study")!r}), [job], ProcessPoolExecutor(1, mp_context=get_context("fork")))
"""
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not (tmp_path / "trace").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()  # the parent alone; its forked worker lives on
    process.wait()
    allow = Timer(0.3, (tmp_path / "allowed").touch)
    allow.start()
    try:
        assert [state.state for state in run_jobs(tmp_path / "study", [job])] == ["done"]
        assert allow.finished.is_set()
    finally:
        allow.join()
        os.killpg(process.pid, signal.SIGKILL)
    assert (tmp_path / "trace").read_text().split() == ["slow"]


def test_a_pool_that_forked_its_workers_during_one_run_serves_the_next(tmp_path):
    code = f"""
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from ragscale.study._locks import only_run
with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
    for _ in range(2):
        with only_run(Path({str(tmp_path)!r})):
            pool.submit(int).result()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_runs_of_one_study_at_a_time_are_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import time\nfrom pathlib import Path\nfrom ragscale.study._locks import only_run\n"
        f"with only_run(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(ConfigError, match="another run"):
        run_jobs(tmp_path, [])
    process.kill()
    process.wait()
    process.stdout.close()
    time.sleep(0.01)
    assert run_jobs(tmp_path, []) == []
