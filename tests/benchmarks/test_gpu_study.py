"""The script behind the page ragscale-gpu: what the page says of the shipped table, and a toy run of the study."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import ragscale as rs

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_study.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_study", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_best_splits_are_those_of_the_page(script: Any) -> None:
    splits = script.best_splits(rs.datasets.load("ragscale-gpu"))
    inside = splits.groupby(["task", "T"])["inside"].sum()
    assert inside.loc[("squad", 52_000_000)] == 5
    assert inside.loc["triviaqa"].sum() == 0
    assert inside.loc[[("nq", 52_000_000), ("sciq", 52_000_000), ("popqa", 52_000_000)]].tolist() == [2, 2, 3]
    assert inside.drop(52_000_000, level="T").sum() == 0
    squad = splits[(splits["task"] == "squad") & (splits["T"] == 52_000_000)].sort_values("N")
    assert (squad["D"] / 1e6).tolist() == [32, 24, 24, 24, 24]
    assert squad["ahead_of_largest_D"].round(3).tolist() == [0.07, 0.207, 0.11, 0.036, 0.041]


def test_hits_and_misses_are_compared_within_questions(script: Any) -> None:
    def rows(question: str, random: float, shown: list[tuple[int, float]]) -> list[dict[str, Any]]:
        same = {"task": "t", "N": 10, "D": 20, "id": question, "n_tokens": 2}
        return [
            {**same, "condition": "random", "R": 5, "hit": 0, "nll": random},
            *({**same, "condition": "retrieved", "R": r, "hit": hit, "nll": nll} for r, (hit, nll) in enumerate(shown)),
        ]

    samples = pd.DataFrame(
        [
            *rows("a", 10.0, [(0, 9.0), (1, 4.0), (1, 6.0)]),  # miss .5, hit (3 + 2) / 2 a token
            *rows("b", 8.0, [(0, 8.0), (1, 6.0)]),  # miss 0, hit 1
            *rows("always found", 10.0, [(1, 0.0), (1, 0.0)]),
            *rows("unknown", 10.0, [(-1, 0.0), (1, 0.0)]),
        ]
    )
    (found,) = script.hits_and_misses(samples).to_dict("records")
    assert found["questions"] == found["pairs"] == 2
    assert found["miss"] == pytest.approx(0.25)
    assert found["hit"] == pytest.approx(1.75)
    assert found["hit_error"] == pytest.approx(0.75)


def test_a_toy_of_the_study_runs(tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason="the study needs pip install 'ragscale[study]'")
    command = [sys.executable, str(SCRIPT), "--tiny", "--work", str(tmp_path), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_csv(tmp_path / "results.csv")
    assert set(table["condition"]) == {"closed-book", "retrieved", "oracle", "random"}
    assert {(4_000, 8_000), (8_000, 4_000)} <= set(zip(table["D"], table["R"], strict=True))
