"""Two gloo processes under torchrun, replicated and sharded, against one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ragscale as rs
from ragscale.training import ModelConfig, TrainConfig

SCRIPT = """
import os, sys
import numpy as np, torch
torch.set_num_threads(1)
import ragscale as rs
from ragscale.errors import ConfigError
from ragscale.training import ModelConfig, TrainConfig
folder = sys.argv[1]
stream, validation = np.load(folder + "/stream.npy"), np.load(folder + "/validation.npy")
model = ModelConfig.custom(n_layers=2, d_model=32, n_heads=2, d_ff=64, vocab_size=63, max_seq_len=64)
config = TrainConfig(seq_len=16, batch_tokens=128, micro_batch_tokens=32, learning_rate=1e-3, warmup_steps=4,
                     precision="fp32", allow_short_runs=True, save_every=10)
for parallel in ("ddp", "fsdp"):
    chosen = config.replace(parallel=parallel)
    for checkpoint in rs.train(model, stream, chosen, tokens=[1_000, 2_000], out=f"{folder}/{parallel}",
                               validation=validation, device="cpu"):
        line = f"{parallel} {checkpoint.n_tokens} {checkpoint.validation_loss}\\n"
        os.write(1, line.encode())  # one write: two processes share the file
try:
    rs.train(model, stream, config.replace(batch_tokens=48, micro_batch_tokens=None), tokens=1_000,
             out=f"{folder}/odd", device="cpu")
except ConfigError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, stream: np.ndarray, validation: np.ndarray) -> Path:
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("processes")
    np.save(folder / "stream.npy", stream % 63)
    np.save(folder / "validation.npy", validation % 63)
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "script.py", "."]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "stdout").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def single(folder: Path) -> list[rs.training.Checkpoint]:
    return rs.train(*_arguments(folder), tokens=[1_000, 2_000], out=folder / "single", device="cpu")


def _arguments(folder: Path) -> tuple[ModelConfig, np.ndarray, TrainConfig]:
    model = ModelConfig.custom(n_layers=2, d_model=32, n_heads=2, d_ff=64, vocab_size=63, max_seq_len=64)
    config = TrainConfig(
        seq_len=16, batch_tokens=128, learning_rate=1e-3, warmup_steps=4, precision="fp32", allow_short_runs=True
    )
    return model, np.load(folder / "stream.npy"), config


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_the_same_model(folder: Path, single: list[rs.training.Checkpoint], parallel: str) -> None:
    for alone in single:
        together = load_file(folder / parallel / alone.path.name / "model.safetensors")
        for name, tensor in load_file(alone.path / "model.safetensors").items():
            assert float((tensor - together[name]).abs().max()) < 1e-5, name


def test_every_process_returns_the_same_checkpoints(folder: Path) -> None:
    lines = [line for line in (folder / "stdout").read_text().splitlines() if line.startswith(("ddp", "fsdp"))]
    assert len(lines) == 8
    assert len(set(lines)) == 4
    # replicas and shards also agree on the validation loss, which they share out
    losses = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
    assert losses["ddp 2000"] == pytest.approx(losses["fsdp 2000"], abs=1e-5)


def test_states_of_two_processes_go_on_in_one(folder: Path, single: list[rs.training.Checkpoint]) -> None:
    rows: list[dict[str, object]] = []
    [added] = rs.train(*_arguments(folder), tokens=3_000, out=folder / "fsdp", on_log=rows.append, device="cpu")
    assert rows[0]["step"] == 19, "goes on from the sharded run's trunk, which ended at step 13"
    [alone] = rs.train(*_arguments(folder), tokens=3_000, out=folder / "alone", device="cpu")
    ours, theirs = (load_file(checkpoint.path / "model.safetensors") for checkpoint in (added, alone))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5


def test_rows_that_cannot_be_shared_name_the_fix(folder: Path) -> None:
    text = (folder / "stdout").read_text()
    assert text.count("a batch of 3 rows of 16 tokens cannot be shared by 2 processes: use batch_tokens=64") == 2
