"""Shared test settings: Hypothesis without time limits (machines are shared), and the optional real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ragscale",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ragscale")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora and tables that lies beside some checkouts; tests that need it skip without it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the real data beside the checkout (../shared/data), which is not here")
    return SHARED / "data"
