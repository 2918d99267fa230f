"""What finished jobs took corrects the hours of the plan and of what jobs ask for, where they say something of it."""

from types import SimpleNamespace

import pandas as pd
import pytest

from ragscale._files import write_json
from ragscale.study import StudyConfig
from ragscale.study._cost import plan_study
from ragscale.study._jobs import Job, JobState, folder_of
from ragscale.study._measured import Measured, measured_in
from ragscale.study._needs import expected_hours, needs_for
from ragscale.study._sizes import Sizes
from ragscale.training import DEVICES

CPU, H100 = DEVICES["CPU-core"], DEVICES["H100"]
SIZES = Sizes(budget=10**8, vocab_size=4096)
CONFIG = StudyConfig(
    corpus={"synthetic": {}}, models=["0.15M", "0.5M"], D=[2 * 10**7], R=[10**7], training={"seq_len": 64}
)


def done(root, stage, seconds, *, device="cpu", lane="", state="done"):
    job = Job(stage=stage, label=f"{seconds}", function=print, inputs={"s": seconds, "l": lane, "d": device}, lane=lane)
    folder_of(root, job).mkdir(parents=True)
    write_json(folder_of(root, job) / "done.json", {"device": device}, schema="ragscale-job", version=1)
    return JobState(job=job, state=state, seconds=seconds)


def an_hour(stage, inputs):
    return 1.0


def test_training_is_corrected_by_model_and_the_others_by_the_mean(tmp_path):
    states = [
        done(tmp_path, "train", 7200, lane="a seed 0"),
        done(tmp_path, "train", 3600 * 4, lane="b seed 0"),
        done(tmp_path, "index", 360),
    ]
    found = measured_in(tmp_path, states, an_hour, CPU)
    assert (found.ratio("train", "a"), found.ratio("train", "b"), found.ratio("train", "c")) == (2.0, 4.0, 3.0)
    assert (found.ratio("index"), found.ratio("evaluate")) == (0.1, 1.0)
    assert "train 3 times (2 jobs), index 0.1 times (1 jobs)" in found.words


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": 59.0}, {"device": "NVIDIA A100-SXM4-80GB"}, {"device": ""}, {"state": "failed"}, {"stage": "check"}],
)
def test_what_says_nothing_of_a_rate_does_not_count(tmp_path, wrong):
    told = {"stage": "train", "seconds": 7200, "device": "NVIDIA H100 80GB HBM3", **wrong}
    found = measured_in(tmp_path, [done(tmp_path, lane="a seed 0", **told)], an_hour, H100)
    assert found == Measured()


def test_the_plan_and_the_needs_follow(tmp_path):
    options = {"device": "CPU-core", "n_devices": 1, "price_per_hour": 1.0, "n_questions": 1000}
    thought = plan_study(CONFIG, SIZES, **options)
    measured = Measured(ratios={("train", ""): 2.0, ("train", "0.5M"): 3.0, ("index", ""): 5.0}, words="two jobs")
    known = plan_study(CONFIG, SIZES, **options, measured=measured)
    hours = pd.DataFrame({n: p.cells.groupby("model")["hours"].sum() for n, p in (("old", thought), ("new", known))})
    assert (hours["new"] / hours["old"]).to_dict() == pytest.approx({"0.15M": 2.0, "0.5M": 3.0})
    stages = [p.stages.set_index("stage") for p in (thought, known)]
    assert stages[1].loc["index", "cpu_hours"] == pytest.approx(5 * stages[0].loc["index", "cpu_hours"])
    assert stages[1].loc["evaluate", "device_hours"] == stages[0].loc["evaluate", "device_hours"]
    assert 2 < stages[1].loc["train", "device_hours"] / stages[0].loc["train", "device_hours"] < 3
    assert known.wall_hours > thought.wall_hours
    assert "two jobs" in known.summary()
    assert thought.measured == ""
    asked = [
        needs_for(CONFIG, SIZES, device=CPU, executor=None, measured=m)("index", SimpleNamespace()).hours
        for m in (Measured(), measured)
    ]
    assert asked[1] - 0.1 == pytest.approx(5 * (asked[0] - 0.1))


def test_each_shard_asks_for_its_share():
    four = CONFIG.replace(index_shards=4, search_jobs=2)
    one, part = (expected_hours(c, SIZES, CPU, n_questions=1000)("index", None) for c in (CONFIG, four))
    assert part == pytest.approx(one / 4)
    whole, shard = (needs_for(c, SIZES, device=CPU, executor=None)("index", None) for c in (CONFIG, four))
    assert shard.memory_gib < whole.memory_gib
    assert shard.disk_gib == pytest.approx(whole.disk_gib / 4)
