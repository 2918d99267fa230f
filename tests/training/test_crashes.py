"""kill -9, full disks, read-only folders, two runs at once: what a machine does to a run."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ragscale as rs
from ragscale.errors import CheckpointError
from ragscale.training import ModelConfig, TrainConfig
from ragscale.training._checkpoint import disk_errors

PREAMBLE = """
import hashlib, json, os, random, resource, signal, sys, time
from pathlib import Path
import numpy as np, torch
import ragscale as rs
from ragscale.training import ModelConfig, TrainConfig
torch.set_num_threads(1)
model = ModelConfig.custom(n_layers=1, d_model=32, n_heads=2, d_ff=64, vocab_size=64, max_seq_len=64)
config = TrainConfig(seq_len=16, batch_tokens=64, learning_rate=5e-3, warmup_steps=4, precision="fp32",
                     allow_short_runs=True, save_every=4)
stream = np.random.default_rng(0).integers(0, 64, 20_000)
out = Path(sys.argv[1])
def train(folder):
    return rs.train(model, stream, config, tokens=[2_000, 4_000], out=folder, device="cpu", progress=False)
"""

KILLS = (
    PREAMBLE
    + """
train(out / "warm-up")  # everything is imported before the first fork
started = time.monotonic()
def digest(folder):
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for d in ("D2000", "D4000") for name in (d + "/model.safetensors", d + "/config.json")]
whole = digest(out / "warm-up")
child = os.fork()
if not child:
    train(out / "timed"); os._exit(0)
os.waitpid(child, 0)
seconds = time.monotonic() - started
random.seed(0)
kills, finished, equal, lost = 0, 0, 0, []
def steps_logged(folder):
    return sum(len(p.read_text().splitlines()) for p in folder.glob("metrics/*.jsonl"))
while kills < 20 or not finished:
    folder = out / f"run{finished}"
    child = os.fork()
    if not child:
        code = 1
        try:
            train(folder)
            code = 0
        finally:
            os._exit(code)
    if kills < 20:
        time.sleep(random.uniform(0.02, 0.7) * seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
    else:
        assert os.WEXITSTATUS(status) == 0, "a resumed run failed"
        finished += 1
        equal += digest(folder) == whole
left = [str(p) for p in out.rglob(".*.tmp") if "states" not in str(p)]
print(json.dumps({"kills": kills, "finished": finished, "equal": equal}))
"""
)

FULL_DISK = (
    PREAMBLE
    + """
# the kernel refuses to write files beyond this size, as it refuses when a disk is full
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
try:
    train(out / "run")
except rs.errors.CheckpointError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(sorted(str(p.relative_to(out)) for p in out.rglob("*.tmp")))
print([c.n_tokens for c in train(out / "run")])
"""
)


def run(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes, which this system does not have")
def test_twenty_kills_at_random_moments_end_in_the_same_bytes(tmp_path: Path) -> None:
    result = json.loads(run(KILLS, tmp_path).splitlines()[-1])
    assert result["kills"] == 20
    assert result["equal"] == result["finished"] >= 1


def test_a_checkpoint_that_a_killed_run_was_writing_is_cleared_away(tmp_path, model, config, stream):
    left = tmp_path / "run" / ".D2000.12345-abcdef01.tmp"
    another = tmp_path / "run" / ".D9000.12345-abcdef01.tmp"
    for folder in (left, another):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
    rs.train(model, stream, config, tokens=2_000, out=tmp_path / "run", device="cpu", progress=False)
    assert not left.exists()
    assert another.exists(), "another branch may be at work on it"


@pytest.mark.skipif(sys.platform == "win32", reason="limits file sizes with RLIMIT_FSIZE")
def test_a_full_disk_says_what_is_needed_and_the_run_goes_on_later(tmp_path: Path) -> None:
    message, left, done = run(FULL_DISK, tmp_path).splitlines()
    assert "no room to write" in message
    assert "MiB free" in message
    assert "goes on from the last saved state" in message
    assert left == "[]", "nothing half-written stays"
    assert done == "[2000, 4000]"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "give a folder that you may write to"),
        (errno.EACCES, "give a folder that you may write to"),
        (errno.EIO, "could not be written"),
    ],
)
def test_what_the_system_refuses_is_explained(code: int, says: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=says), disk_errors(tmp_path / "D10", 2**20):
        raise OSError(code, os.strerror(code))


def test_a_read_only_folder_is_refused_before_training(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be written"):
        rs.train(model, stream, config, tokens=1_000, out=tmp_path / "file" / "run", device="cpu")
    if os.geteuid() == 0:
        # permissions do not stop root; /proc stops everyone
        if not Path("/proc/sys").is_dir():
            pytest.skip("root may write everywhere, and there is no /proc to try")
        locked = Path("/proc/ragscale")
    else:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match=r"cannot be written|could not be written"):
        rs.train(model, stream, config, tokens=1_000, out=locked / "run", device="cpu")


def test_too_little_space_is_refused_before_training(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path
) -> None:
    endless = config.replace(keep_states=10**12)
    with pytest.raises(CheckpointError, match=r"needs about .* GiB in .*fewer values of D"):
        rs.train(model, stream, endless, tokens=1_000, out=tmp_path, device="cpu")
    assert not list(tmp_path.glob("D*"))


def test_two_processes_do_not_train_the_same_segment(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="locks need fcntl, which this system does not have")
    (tmp_path / "states" / "trunk").mkdir(parents=True)
    with open(tmp_path / "states" / "trunk" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process is training trunk"):
            rs.train(model, stream, config, tokens=1_000, out=tmp_path, device="cpu")
    assert rs.train(model, stream, config, tokens=1_000, out=tmp_path, device="cpu")
