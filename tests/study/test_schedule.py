"""The scheduler by itself: no worker idles while a job is ready, whatever the graph; nothing is started too early."""

import heapq
import random

import pytest
import small_jobs
from hypothesis import given
from hypothesis import strategies as st

from ragscale.study._engine import Schedule, run_jobs
from ragscale.study._jobs import Job, Needs, folder_of


def job(number, *before, lane="", hours=1.0):
    return Job(
        stage="add",
        label=str(number),
        function=small_jobs.add,
        inputs={"number": number},
        follows=tuple(before),
        lane=lane,
        needs=Needs(hours=hours),
    )


def random_jobs(n, seed, most_parents=3):
    rng = random.Random(seed)
    jobs: list[Job] = []
    for number in range(n):
        recent = jobs[-200:]
        jobs.append(job(number, *rng.sample(recent, min(len(recent), rng.randrange(most_parents + 1)))))
    return jobs


def simulate(jobs, n_workers, seconds, fails=frozenset()):
    """Run a schedule against a clock that nobody waits for; return (end, start of each, end of each)."""
    schedule = Schedule(jobs)
    now, running, started, ended = 0.0, [], {}, {}
    while schedule.n_left:
        while len(running) < n_workers and (key := schedule.take()) is not None:
            started[key] = now
            heapq.heappush(running, (now + seconds[key], key))
        assert running, "nothing runs, and nothing can start"
        if len(running) < n_workers:
            ready = [k for k, state in schedule.state.items() if state == "waiting" and not schedule._open[k]]
            assert not ready, "a worker idles while a job is ready"
        now, key = heapq.heappop(running)
        ended[key] = now
        schedule.finished(key, key not in fails)
    return schedule, started, ended


def test_ten_thousand_jobs_of_random_lengths_keep_64_workers_busy():
    jobs = random_jobs(10_000, seed=0)
    rng = random.Random(1)
    seconds = {one.key: rng.expovariate(1) for one in jobs}
    schedule, started, ended = simulate(jobs, 64, seconds)
    assert set(schedule.state.values()) == {"done"}
    for one in jobs:
        assert all(ended[parent.key] <= started[one.key] for parent in one.before)
    longest: dict[str, float] = {}
    for one in jobs:
        longest[one.key] = seconds[one.key] + max((longest[parent.key] for parent in one.before), default=0.0)
    bound = sum(seconds.values()) / 64 + max(longest.values())
    assert max(ended.values()) <= bound, "a schedule that never idles needs no more than this (Graham 1966)"


@given(n=st.integers(1, 60), seed=st.integers(0, 1000), workers=st.integers(1, 5), data=st.data())
def test_what_follows_a_failure_is_blocked_and_all_else_is_done(n, seed, workers, data):
    jobs = random_jobs(n, seed)
    fails = frozenset(data.draw(st.sets(st.sampled_from([one.key for one in jobs]), max_size=5)))
    schedule, started, _ = simulate(jobs, workers, dict.fromkeys((one.key for one in jobs), 1.0), fails)
    expected: dict[str, str] = {}
    for one in jobs:
        wrong = any(expected[parent.key] != "done" for parent in one.before)
        expected[one.key] = "blocked" if wrong else "failed" if one.key in fails else "done"
    assert schedule.state == expected
    assert set(started) == {key for key, state in expected.items() if state != "blocked"}


def test_what_is_done_already_is_not_started():
    first = job(0)
    second = job(1, first)
    third = job(2, second)
    schedule = Schedule([first, second, third], done=[second.key, first.key])
    assert schedule.take() == third.key
    assert schedule.take() is None
    assert schedule.counts() == {"done": 2, "running": 1, "waiting": 0, "failed": 0, "blocked": 0}


def test_small_jobs_of_one_model_go_together_and_never_before_what_they_wait_for():
    other = job(0)
    trunk = job(1, lane="a", hours=0.1)
    branches = [job(2 + i, trunk, lane="a", hours=0.1) for i in range(3)]
    waits = job(9, branches[0], other, lane="a", hours=0.01)
    elsewhere = job(10, trunk, lane="b", hours=0.1)
    schedule = Schedule([trunk, *branches, waits, elsewhere, other])
    first = schedule.take()
    assert schedule.take_lane(first) == [one.key for one in (trunk, *branches)]
    assert schedule.take() == other.key
    schedule.finished(other.key, True)
    for one in (trunk, *branches):
        schedule.finished(one.key, True)
    assert {schedule.take(), schedule.take()} == {waits.key, elsewhere.key}


def test_together_is_limited_by_what_they_need():
    jobs = [job(i, lane="a", hours=0.2) for i in range(5)]
    schedule = Schedule(jobs)
    assert len(schedule.take_lane(schedule.take())) == 2
    assert len(schedule.take_lane(schedule.take())) == 2
    assert len(schedule.take_lane(schedule.take())) == 1
    assert schedule.take() is None


class OneAtATime:
    """An executor that starts a process for each submission: here it does the work at once, and keeps count."""

    fresh_process = True

    def __init__(self):
        self.submissions = []

    def submit(self, function, *arguments):
        self.submissions.append(function.__name__)
        outcome = function(*arguments)

        class Done:
            def done(self):
                return True

            def result(self):
                return outcome

        return Done()


def test_a_failure_in_a_group_blocks_what_follows_it_and_nothing_else(tmp_path):
    def small(name, function, *before):
        inputs = {"name": name, "value": 1, "trace": str(tmp_path / "trace")}
        after = {f"p{i}": one for i, one in enumerate(before)}
        needs = Needs(hours=0.05)
        return Job(stage="add", label=name, function=function, inputs=inputs, after=after, lane="a", needs=needs)

    top = small("top", small_jobs.add)
    wrong = small("wrong", small_jobs.fail, top)
    blocked = small("blocked", small_jobs.add, wrong)
    fine = small("fine", small_jobs.add, top)
    executor = OneAtATime()
    states = run_jobs(tmp_path / "study", [top, wrong, blocked, fine], executor)
    assert [(state.job.label, state.state) for state in states] == [
        ("top", "done"),
        ("wrong", "failed"),
        ("blocked", "blocked"),
        ("fine", "done"),
    ]
    assert executor.submissions == ["do_jobs"]
    assert not folder_of(tmp_path / "study", blocked).exists()


def test_an_executor_that_lost_a_group_fails_its_jobs_that_are_not_done(tmp_path):
    class Losing(OneAtATime):
        def submit(self, function, *arguments):
            raise RuntimeError("the queue is gone")

    jobs = [job(i, lane="a", hours=0.01) for i in range(3)]
    states = run_jobs(tmp_path, jobs, Losing())
    assert [state.state for state in states] == ["failed"] * 3
    assert all("the queue is gone" in state.error for state in states)


def test_an_interrupt_stops_the_run_and_lets_the_next_one_go_on(tmp_path):
    class Interrupting(OneAtATime):
        def submit(self, function, *arguments):
            future = super().submit(function, *arguments)
            future.result = lambda: (_ for _ in ()).throw(KeyboardInterrupt())
            return future

    inputs = {"name": "one", "value": 1, "trace": str(tmp_path / "trace")}
    one = Job(stage="add", label="one", function=small_jobs.add, inputs=inputs)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(tmp_path / "study", [one], Interrupting())
    assert [state.state for state in run_jobs(tmp_path / "study", [one])] == ["done"]
