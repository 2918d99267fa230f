"""The script for GPU machines, at toy sizes on a CPU: every job runs; what fails is said and stops nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_check.py"
pytest.importorskip("faiss", reason="the search jobs need faiss: pip install 'ragscale[dense]'")


def run(out: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out), *options], capture_output=True, text=True, check=False
    )
    assert out.with_suffix(".json").exists(), done.stderr[-2000:]
    return done.returncode, json.loads(out.with_suffix(".json").read_text()), out.with_suffix(".md").read_text()


def test_every_job_runs_at_toy_size(tmp_path: Path) -> None:
    code, results, text = run(tmp_path / "check", "--tiny", "--device", "cpu", "--budget", "3000")
    failed = [row for row in results["rows"] if row.get("failed")]
    assert failed == []
    assert code == 0
    done = [row["job"] for row in results["rows"] if row.get("done")]
    assert len(done) == len(set(done)) >= 17
    assert {name.split("/")[0] for name in done} == {
        "checks", "training", "small", "head", "evaluation", "search", "encoding",
    }  # fmt: skip
    for row in results["rows"]:
        if "tokens_per_second" in row:
            assert row["tokens_per_second"] > 0
    ours = [row for row in results["rows"] if row.get("what", "").startswith("DenseRetriever")]
    assert [row["same_hits_as_raw"] for row in ours] == [1, 1, 1]
    heads = [row for row in results["rows"] if row["job"] == "head" and "backend" in row]
    assert [(row["backend"], row["chunk_rows"]) for row in heads] == [
        ("torch", None), ("all logits", None), ("torch", 16), ("torch", 64),
    ]  # fmt: skip
    assert max(row["gradient_apart_from_torch"] for row in heads) < 2e-2
    for title in ("## Checks", "## A training step", "## Evaluation", "against transformers"):
        assert title in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA, and there is one")
def test_a_job_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    code, results, text = run(
        tmp_path / "check", "--tiny", "--device", "cuda", "--budget", "3000", "--only", "head", "branch"
    )
    assert code == 1
    assert {row["job"] for row in results["rows"]} == {"head", "checks/branch", "checks/loss_head"}
    assert all("CUDA" in row["failed"] for row in results["rows"])
    assert "CUDA" in text


def test_jobs_that_the_time_does_not_reach_are_named(tmp_path: Path) -> None:
    _, results, _ = run(tmp_path / "check", "--tiny", "--device", "cpu", "--only", "head", "--budget", "1")
    assert all("not reached" in row["failed"] for row in results["rows"])
