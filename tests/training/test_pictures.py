"""Pictures of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import ConfigError
from ragscale.training import ModelConfig, TrainConfig

matplotlib = pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'ragscale[plot]'")
matplotlib.use("Agg")


def test_loss_curves_show_trunk_branches_and_validation(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, validation: np.ndarray, tmp_path: Path
) -> None:
    checkpoints = rs.train(
        model, stream, config, tokens=[1_500, 3_000], out=tmp_path, validation=validation, device="cpu"
    )
    ax = rs.plotting.loss_curves(tmp_path, smooth=1)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines) == ["trunk", "D = 1.5k", "D = 3k", "validation"]
    assert lines["D = 3k"].get_xdata()[-1] == 3_000
    assert sorted(lines["validation"].get_ydata()) == sorted(c.validation_loss for c in checkpoints)
    assert "nats" in ax.get_ylabel()
    same = rs.plotting.ladder(checkpoints)
    [line] = same.get_lines()
    assert list(line.get_xdata()) == [1_500, 3_000]
    matplotlib.pyplot.close("all")


def test_ladder_draws_one_line_per_size_on_given_axes() -> None:
    table = pd.DataFrame({"N": [1e6, 1e6, 2e9, 2e9], "D": [10, 20, 10, 20], "validation_loss": [4.0, 3.5, 3.0, 2.5]})
    _, ax = matplotlib.pyplot.subplots()
    assert rs.plotting.ladder(table, ax=ax) is ax
    assert [line.get_label() for line in ax.get_lines()] == ["N = 1M", "N = 2B"]
    with pytest.raises(ConfigError, match="validation"):
        rs.plotting.ladder([])
    matplotlib.pyplot.close("all")
