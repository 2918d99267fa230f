"""The threshold of a run, as the study of when models begin to read counts it."""

import importlib.util
import math
from pathlib import Path

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
