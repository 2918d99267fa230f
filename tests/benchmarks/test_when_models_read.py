"""The threshold of a run, as the study of when models begin to read counts it."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "when_models_read.py"
spec = importlib.util.spec_from_file_location("when_models_read", FILE)
study = importlib.util.module_from_spec(spec)
spec.loader.exec_module(study)


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([0, 0, 0.3, 0.5], 2.0e5 * math.sqrt(2)),  # by a chord in ln D, half way between 0 and 0.3
        ([0.3, 0, 0.3, 0.5], 2.0e5 * math.sqrt(2)),  # an early gain that does not stay does not count
        ([0.2, 0.2, 0.3, 0.5], 1e5),
        ([0, 0, 0, 0.1], math.inf),
        ([0.4, 0.4, 0.4, 0.1], math.inf),
    ],
)
def test_a_run_reads_from_where_all_later_branches_do(gains, expected):
    row = {"D": [1e5, 2e5, 4e5, 8e5], "gain": gains}
    assert study.threshold(row) == pytest.approx(expected)


def test_the_plan_asks_for_eight_seeds_of_every_batch():
    plan = study.plan(8)
    base = [run for run in plan if run["rows"] == 96 and run["width"] == 64 and run["rate"] == 0.006 and run["tied"]]
    for batch in (768, 1536, 3072, 6144):
        assert len({run["seed"] for run in base if run["batch"] == batch}) == 8


def test_a_world_with_little_to_read_is_written_long_enough(tmp_path):
    pytest.importorskip("transformers")
    study.make_world(tmp_path, (0.1, 50), n_documents=100, n_tokens=6_000)
    assert len(np.load(tmp_path / "ids.npy")) >= 6_000


def test_worlds_of_other_strangers_have_their_own_folder_and_row():
    run = {"rows": 96, "width": 64, "batch": 768, "rate": 0.006, "reading_share": 0.5, "tied": True, "seed": 0}
    run |= {"D": [1e5, 1e6], "threshold": 5e5}
    assert study.world_in("root", run) != study.world_in("root", {**run, "strangers": 4_000})
    lines = study.table([run, {**run, "strangers": 4_000, "threshold": float("inf")}]).splitlines()
    assert len(lines) == 4
    assert "| 825 | yes | 1 of 1 |" in lines[2]
    assert "| 4,000 | yes | 0 of 1 | beyond 1M" in lines[3]
