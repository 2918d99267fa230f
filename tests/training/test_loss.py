"""The fused loss head against the textbook, and its memory."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragscale.training import linear_cross_entropy
from ragscale.training._loss import reference_loss


def make(rows: int, width: int, vocabulary: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    hidden = torch.tensor(rng.normal(size=(rows, width)), dtype=torch.float32, requires_grad=True)
    weight = torch.tensor(rng.normal(size=(vocabulary, width)), dtype=torch.float32, requires_grad=True)
    targets = torch.from_numpy(rng.integers(0, vocabulary, rows))
    targets[rng.random(rows) < 0.2] = -100
    targets[0] = 0
    return hidden, weight, targets


@given(
    rows=st.integers(1, 20),
    width=st.integers(1, 6),
    vocabulary=st.integers(1, 30),
    chunk=st.integers(1, 25),
    z_loss=st.sampled_from([0.0, 1e-2]),
    seed=st.integers(0, 100),
)
def test_loss_and_gradients_are_the_textbooks(
    rows: int, width: int, vocabulary: int, chunk: int, z_loss: float, seed: int
) -> None:
    hidden, weight, targets = make(rows, width, vocabulary, seed)
    expected = reference_loss(hidden, weight, targets, z_loss=z_loss)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    loss, cross_entropy = linear_cross_entropy(hidden, weight, targets, z_loss=z_loss, chunk_rows=chunk)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cross_entropy, reference_loss(hidden, weight, targets), rtol=1e-5, atol=1e-5)
    for got, want in zip(torch.autograd.grad(3 * loss, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(got, 3 * want, rtol=1e-4, atol=1e-5)


def test_chunks_of_any_size_give_the_same() -> None:
    hidden, weight, targets = make(50, 8, 40, 0)
    losses = {linear_cross_entropy(hidden, weight, targets, chunk_rows=chunk)[0].item() for chunk in (1, 7, 50)}
    assert max(losses) - min(losses) < 1e-5


def test_a_share_of_the_targets_scales_the_loss() -> None:
    hidden, weight, targets = make(30, 4, 9, 1)
    counted = int((targets >= 0).sum())
    whole, _ = linear_cross_entropy(hidden, weight, targets)
    parts = [
        linear_cross_entropy(hidden[part], weight, targets[part], n_targets=counted)[0]
        for part in (slice(0, 11), slice(11, 30))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)


def test_bfloat16_products_stay_close() -> None:
    hidden, weight, targets = make(64, 16, 50, 2)
    expected = torch.autograd.grad(reference_loss(hidden, weight, targets), (hidden, weight))
    loss, _ = linear_cross_entropy(hidden.bfloat16(), weight, targets, chunk_rows=16)
    got = torch.autograd.grad(loss, (hidden, weight))
    assert got[1].dtype == torch.float32
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


def test_a_second_backward_is_refused_rather_than_wrong() -> None:
    hidden, weight, targets = make(4, 3, 5, 0)
    loss, _ = linear_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_all_rows_ignored_is_zero() -> None:
    hidden, weight, targets = make(4, 3, 5, 0)
    loss, _ = linear_cross_entropy(hidden, weight, torch.full_like(targets, -100))
    loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.any()


def test_a_vocabulary_of_100k_needs_at_most_160_mib() -> None:
    """M = 1024 rows, V = 100,352, d = 256: the full logits and their gradient alone would be 784 MiB."""
    code = """
import torch
torch.set_num_threads(1)
from ragscale.training import linear_cross_entropy
hidden = torch.randn(1024, 256, requires_grad=True)
weight = (torch.randn(100352, 256) * 0.02).requires_grad_()
targets = torch.randint(0, 100352, (1024,))
linear_cross_entropy(hidden[:8], weight[:512], targets[:8] % 512)[0].backward()
hidden.grad = weight.grad = None
def memory(key):
    return int(next(line for line in open('/proc/self/status') if line.startswith(key)).split()[1])
before = memory('VmRSS')
loss, _ = linear_cross_entropy(hidden, weight, targets)
loss.backward()
print((memory('VmHWM') - before) / 1024)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc, which only Linux has")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 160


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the Triton loss head runs on CUDA only, and there is none")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton_equals_torch(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    hidden = torch.tensor(rng.normal(size=(300, 64)), dtype=dtype, device="cuda", requires_grad=True)
    weight = torch.tensor(rng.normal(size=(10_001, 64)) * 0.1, dtype=torch.float32, device="cuda", requires_grad=True)
    targets = torch.from_numpy(rng.integers(-1, 10_001, 300)).cuda()
    targets[targets < 0] = -100
    results = []
    for backend in ("torch", "triton"):
        loss, part = linear_cross_entropy(hidden, weight, targets, z_loss=1e-3, chunk_rows=128, backend=backend)
        results.append((loss, part, *torch.autograd.grad(loss, (hidden, weight))))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for a, b in zip(*results, strict=True):
        assert (a.float() - b.float()).norm() <= tolerance * a.float().norm()


def test_the_triton_kernel_computes_the_same_in_its_interpreter() -> None:
    """The kernel's arithmetic without a GPU; its speed and its launch are for CUDA."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs triton, which comes with CUDA builds of torch")
    code = """
import torch
from ragscale.training import linear_cross_entropy
generator = torch.Generator().manual_seed(0)
hidden = torch.randn(12, 8, generator=generator, requires_grad=True)
weight = torch.randn(5001, 8, generator=generator, requires_grad=True)
targets = torch.randint(0, 5001, (12,), generator=generator)
targets[3] = -100
results = []
for backend in ("torch", "triton"):
    loss, part = linear_cross_entropy(hidden, weight, targets, z_loss=1e-2, chunk_rows=5, backend=backend)
    results.append((loss, part, *torch.autograd.grad(loss, (hidden, weight))))
for a, b in zip(*results):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
