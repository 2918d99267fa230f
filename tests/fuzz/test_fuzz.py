"""Nothing that happens to a file gives a raw error, another answer without a word, or a loss: `make fuzz` in short."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import harness
import kills

INPUTS = {
    "checkpoint": 4,
    "training run": 4,
    "evaluated cells": 8,
    "split": 20,
    "split, stopped before its end": 10,
    "results tables, appended to": 12,
}


@pytest.mark.parametrize("artefact", harness.ARTEFACTS, ids=lambda artefact: artefact.name)
def test_damage_is_refused_or_makes_no_difference(artefact, tmp_path):
    n = INPUTS.get(artefact.name, 30)
    counts, faults = harness.fuzz(artefact, tmp_path, n, seed=1)
    assert not faults, faults[0]["detail"]
    assert counts.total() == n
    if artefact.certain:
        assert counts["different"] <= n // 5
        assert counts["refused"] + counts["same"] > n // 2


def test_the_harness_finds_what_it_looks_for(tmp_path):
    def use(folder):
        content = (folder / "a").read_bytes()
        if len(content) < 8:
            raise KeyError("raw")
        return content

    artefact = harness.Artefact("own", lambda folder: (folder / "a").write_bytes(bytes(range(100))), use, True)
    counts, faults = harness.fuzz(artefact, tmp_path, 60)
    assert counts["raw"] > 2
    assert counts["silent"] > 10
    assert {fault["what"] for fault in faults} == {"raw", "silent"}
    assert any("KeyError" in fault["detail"] for fault in faults)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
@pytest.mark.parametrize("name", kills.KILLS)
def test_nothing_is_lost_by_kills(name, tmp_path):
    smaller = {"n_documents": 1200} if name.startswith("split") else {}
    found = kills.KILLS[name](tmp_path, 3, **smaller)
    assert found["kills"] == 3
    assert found["lost"] == 0, found
