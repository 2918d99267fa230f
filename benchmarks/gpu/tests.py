"""The project's own tests that need CUDA, as pytest runs them there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu.jobs import Measure

ROOT = Path(__file__).resolve().parents[2]
WHERE = ("tests/training/test_loss.py", "tests/training/test_cuda.py", "tests/evaluation/test_cuda.py")


def prepare(device: str, tiny: bool) -> Measure:
    # pytest-benchmark warns under xdist, and warnings are errors here
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark", "-k", "triton or cuda or gpu", *WHERE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)
    last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"])[-1]

    def measure() -> Iterator[dict[str, Any]]:
        yield {"result": last, "red": "; ".join(failed)[:500]}
        if done.returncode:
            raise RuntimeError(last)

    return measure
