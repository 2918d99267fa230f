"""A small clean table to break in many ways."""

from __future__ import annotations

import pandas as pd
import pytest


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [
        {"N": n, "D": 20 * n, "R": r, "value": 3.0 - 0.1 * (r > 0) + 1e8 / n, "task": "qa", "metric": "loss", "seed": 0}
        for n in (100_000_000, 300_000_000)
        for r in (0, 1_000_000_000)
    ]
    return pd.DataFrame(rows)
