"""One rate for all widths: what is refused, and the singular values that tell whether it works."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load_file

import ragscale as rs
from ragscale.errors import ConfigError
from ragscale.training import Checkpoint, ModelConfig, TrainConfig, check_transfer

WIDTHS = (16, 32, 64)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, stream: np.ndarray) -> list[Checkpoint]:
    made = []
    for width in WIDTHS:
        model = ModelConfig.custom(
            n_layers=2, d_model=width, n_heads=width // 16, d_ff=2 * width, vocab_size=64, max_seq_len=64
        )
        config = TrainConfig(
            seq_len=16, batch_tokens=64, learning_rate=1e-2, transfer="wd-mup", base_width=16, precision="fp32"
        )
        out = tmp_path_factory.mktemp(f"width-{width}")
        made += rs.train(model, stream, config, tokens=6_400, out=out, device="cpu")
    return made


def test_top_singular_values_are_those_of_the_saved_matrices(checkpoints: list[Checkpoint]) -> None:
    table = check_transfer([checkpoints[0], *(str(checkpoint.path) for checkpoint in checkpoints[1:])])
    assert list(table.columns) == [*WIDTHS, "slope"]
    assert set(table.index) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head",
    }  # fmt: skip
    for width, checkpoint in zip(WIDTHS, checkpoints, strict=True):
        weights = load_file(checkpoint.path / "model.safetensors")
        for kind in ("q_proj", "down_proj", "lm_head"):
            tops = [np.linalg.svd(w.numpy())[1][0] for name, w in weights.items() if f"{kind}.weight" in name]
            assert len(tops) == (1 if kind == "lm_head" else 2)
            assert table.loc[kind, width] == pytest.approx(np.mean(tops), rel=1e-4)
    # three equal steps in the logarithm: the slope is the outer difference
    row = table.loc["up_proj"]
    assert row["slope"] == pytest.approx(np.log(row[64] / row[16]) / np.log(4))


def test_one_width_is_nothing_to_compare(checkpoints: list[Checkpoint]) -> None:
    for one_width in ([], checkpoints[:1], checkpoints[:1] * 2):
        with pytest.raises(ConfigError, match="at least two"):
            check_transfer(one_width)


def test_a_transfer_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"transfer must be None or 'wd-mup', got 'mup'"):
        TrainConfig(transfer="mup")  # type: ignore[arg-type]
    for missing in ({"base_width": 64}, {"learning_rate": 1e-2}):
        with pytest.raises(ConfigError, match="give learning_rate and the base_width"):
            TrainConfig(transfer="wd-mup", **missing)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="base_width=64 is used with transfer"):
        TrainConfig(base_width=64)
    with pytest.raises(ConfigError, match="base_width must be None or a whole number of at least 1, got 0"):
        TrainConfig(transfer="wd-mup", learning_rate=1.0, base_width=0)
