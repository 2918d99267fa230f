"""Training on a GPU: nothing here runs without one (`benchmarks/gpu_check.py` runs these and more on one)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ragscale as rs
from ragscale.training import ModelConfig, TrainConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none")


def weights(checkpoint: Any) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.path / "model.safetensors")


def apart(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    difference = sum(float((ours[name] - theirs[name]).square().sum()) for name in theirs)
    return (difference / sum(float(tensor.square().sum()) for tensor in theirs.values())) ** 0.5


@pytest.mark.parametrize("compiled", [False, True])
def test_cuda_trains_what_a_cpu_trains(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path, compiled: bool
) -> None:
    tokens = [3_000, 5_000]
    on_cpu = rs.train(model, stream, config, tokens=tokens, out=tmp_path / "cpu", device="cpu")
    settings = config.replace(compile=compiled)
    on_gpu = rs.train(model, stream, settings, tokens=tokens, out=tmp_path / "gpu", device="cuda")
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert apart(weights(ours), weights(theirs)) < 1e-2


def test_cuda_graphs_train_what_ordinary_steps_do(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    runs = [
        rs.train(
            model,
            stream,
            config.replace(cuda_graph=graph, compile=False),
            tokens=[3_000, 5_000],
            out=tmp_path / str(graph),
            device="cuda",
        )
        for graph in (False, True)
    ]
    assert not [one for one in recwarn if "cuda_graph" in str(one.message)]
    for usual, replayed in zip(*runs, strict=True):
        assert apart(weights(replayed), weights(usual)) < 1e-2


def test_cuda_training_gives_no_warnings(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path
) -> None:
    # warnings are errors here, inductor's among them
    settings = config.replace(compile=True, precision="fp32")
    rs.train(model, stream, settings, tokens=1_000, out=tmp_path / "fp32", device="cuda")
    rs.train(model, stream, config.replace(compile=True, document_mask=True, eos_id=0), tokens=1_000,
             out=tmp_path / "mask", device="cuda")  # fmt: skip
