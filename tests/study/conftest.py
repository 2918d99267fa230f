"""Modules of these tests that other processes import too, and the study that most of them look at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "jobs"))


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """A whole study, run in this process; tests must not change its directory."""
    pytest.importorskip("torch")
    from tiny_study import TINY

    from ragscale.study import Study

    study = Study(TINY, tmp_path_factory.mktemp("done"))
    status = study.run(progress=False)
    assert set(status["state"]) == {"done"}, status["error"].tolist()
    return study


@pytest.fixture(scope="session")
def one(tmp_path_factory, done):
    """The study of one checkpoint, on the split of `done`; tests must not change its directory."""
    from tiny_study import ONE, begun

    study = begun(done, tmp_path_factory.mktemp("one") / "study", ONE)
    status = study.run(progress=False)
    assert set(status["state"]) == {"done"}, status["error"].tolist()
    return study
