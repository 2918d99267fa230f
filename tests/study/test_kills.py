"""A study that was killed anywhere goes on, and ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import TINY, outputs

from ragscale.study import Study

pytest.importorskip("torch")
STAGES = ("split", "index", "retrieve", "train", "evaluate")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
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
