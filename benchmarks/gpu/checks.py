"""What must hold on the device, each check with the number that it turns on; a failure is an exception."""

from __future__ import annotations

import contextlib
import inspect
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import ragscale as rs
from gpu.clock import markov
from gpu.evaluation import Numbers, build, requests
from gpu.jobs import Measure
from gpu.race import engine
from gpu.search import Rows
from ragscale.passages import Passage
from ragscale.training import ModelConfig, TrainConfig, linear_cross_entropy
from ragscale.training._loss import reference_loss

TOKENS = [12_000, 20_000]
SMALL = {"n_layers": 2, "d_model": 128, "n_heads": 2, "d_ff": 256, "vocab_size": 64, "max_seq_len": 128}


def prepare(device: str, tiny: bool, *, check: str) -> Measure:
    found: dict[str, Any] = CHECKS[check](device)

    def measure() -> Iterator[dict[str, Any]]:
        yield {"passed": True, **found}

    return measure


def require(condition: bool, words: str) -> None:
    if not condition:
        raise AssertionError(words)


def _settings(**changes: Any) -> TrainConfig:
    values = {"seq_len": 64, "batch_tokens": 256, "learning_rate": 3e-3, "warmup_steps": 4, "allow_short_runs": True}
    return TrainConfig(**{**values, "save_minutes": 1e6, "deterministic": True, **changes})


def _weights(checkpoint: Any) -> bytes:
    return (checkpoint.path / "model.safetensors").read_bytes()


class Stop(Exception):
    """Interrupts a run."""


def resume(device: str) -> dict[str, Any]:
    """Stopped twice and resumed, a run ends with the weights of one that was not, bit for bit."""
    model, stream, config = ModelConfig.custom(**SMALL), markov(20_001), _settings(save_every=11)

    def stop_at(step: int) -> Callable[[dict[str, Any]], None]:
        def check(row: dict[str, Any]) -> None:
            if row["segment"] == "trunk" and row["step"] >= step:
                raise Stop

        return check

    with tempfile.TemporaryDirectory() as folder:
        [whole] = rs.train(model, stream, config, tokens=12_000, out=f"{folder}/whole", device=device)
        arguments: dict[str, Any] = {"tokens": 12_000, "out": f"{folder}/cut", "device": device}
        for step in (20, 30):
            with contextlib.suppress(Stop):
                rs.train(model, stream, config, on_log=stop_at(step), **arguments)
        [cut] = rs.train(model, stream, config, **arguments)
        require(_weights(whole) == _weights(cut), "a resumed run ends elsewhere")
        return {"what": "stopped and resumed = uninterrupted, bit for bit", "steps": whole.step}


def branch(device: str) -> dict[str, Any]:
    """A branch equals a run of its own bit for bit, and the validation loss is that of the file."""
    model, stream, config = ModelConfig.custom(**SMALL), markov(20_001), _settings()
    with tempfile.TemporaryDirectory() as folder:
        both = rs.train(
            model, stream, config, tokens=TOKENS, out=f"{folder}/both", device=device, validation=stream[-2_000:]
        )
        [alone] = rs.train(model, stream, config, tokens=TOKENS[0], out=f"{folder}/alone", device=device)
        require(_weights(both[0]) == _weights(alone), "a branch ends elsewhere than a run of its own")
        again = rs.training.evaluate_loss(both[0], stream[-2_000:], device=device)
        apart = abs(again - (both[0].validation_loss or 0))
        require(apart < 1e-3, f"validation loss {both[0].validation_loss} in training, {again} from the file")
        return {"what": "a branch = a run of its own, bit for bit", "validation_loss_apart": apart}


def one_graph(device: str) -> dict[str, Any]:
    """The blocks of a deep model share one compiled graph."""
    from torch._dynamo.utils import counters

    if not device.startswith("cuda"):
        return {"what": "compilation is for CUDA"}
    runner = engine(
        ModelConfig.custom(**{**SMALL, "n_layers": 12}), device, seq_len=64, rows=4, compile=True, cuda_graph=False
    )
    before = counters["stats"]["unique_graphs"]
    ids = torch.randint(0, 64, (4, 65), device=device)
    runner.step(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), 256, 1e-3)
    graphs = counters["stats"]["unique_graphs"] - before
    require(graphs == 1, f"{graphs} graphs for 12 equal blocks")
    return {"what": "12 blocks, one compiled graph", "graph_breaks": sum(counters["graph_break"].values())}


def _steps(runner: Any, n: int, device: str) -> list[float]:
    """Return the losses of steps on one stream, the rate changing from step to step."""
    ids = torch.from_numpy(markov(n * 4 * 64 + 1).astype(np.int64)).to(device)
    result = []
    for step in range(n):
        rows = ids[step * 256 : step * 256 + 257]
        inputs, targets = rows[:-1].view(4, 64).contiguous(), rows[1:].view(4, 64).contiguous()
        result.append(runner.step(inputs, targets, 256, 1e-3 * (1 + step % 3)))
    return torch.stack(result)[:, 0].tolist()


def captured_step(device: str) -> dict[str, Any]:
    """Steps replayed as one CUDA graph learn what ordinary steps learn, with the rate changing."""
    model = ModelConfig.custom(**SMALL)
    usual = engine(model, device, seq_len=64, rows=4, compile=False, cuda_graph=False)
    runner = engine(model, device, seq_len=64, rows=4, compile=False, cuda_graph=True)
    expected, got = _steps(usual, 40, device), _steps(runner, 40, device)
    apart = max(abs(a - b) for a, b in zip(expected, got, strict=True))
    require(apart < 0.05, f"losses differ by up to {apart:.3g}")
    state = runner.captured.state if runner.captured else "no CUDA"
    require(state in {"replaying", "no CUDA"}, state)
    # another state, as at a branch: written into place, not recorded again
    runner.load_state(usual.state())
    usual_next, got_next = _steps(usual, 4, device)[-1], _steps(runner, 4, device)[-1]
    require(abs(usual_next - got_next) < 0.05, f"after loading a state {got_next} instead of {usual_next}")
    return {"what": "a captured step = an ordinary one", "state": state, "loss_apart": apart}


def loss_head(device: str) -> dict[str, Any]:
    """Loss and gradients of every backend are those of the textbook."""
    rng, worst = np.random.default_rng(0), 0.0
    cuda = device.startswith("cuda")
    for dtype, backend in [(t, b) for t in (torch.float32, torch.bfloat16) for b in ("torch", "triton")[: 1 + cuda]]:
        hidden = torch.tensor(rng.normal(size=(300, 64)), dtype=dtype, device=device, requires_grad=True)
        weight = torch.tensor(rng.normal(size=(5_001, 64)) * 0.1, dtype=torch.float32, device=device)
        weight.requires_grad_()
        targets = torch.from_numpy(rng.integers(0, 5_001, 300)).to(device)
        targets[::7] = -100
        ours = linear_cross_entropy(hidden, weight, targets, z_loss=1e-3, chunk_rows=128, backend=backend)[0]
        theirs = reference_loss(hidden.float(), weight, targets, z_loss=1e-3)
        limit = 1e-4 if dtype == torch.float32 else 2e-2
        for a, b in zip(
            torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(theirs, (hidden, weight)), strict=True
        ):
            apart = float((a.float() - b.float()).norm() / b.float().norm())
            require(apart < limit, f"{backend}, {dtype}: gradients apart by {apart:.2g}")
            worst = max(worst, apart / limit)
    return {"what": "loss head = textbook (torch, Triton)", "worst_share_of_tolerance": worst}


def document_mask(device: str) -> dict[str, Any]:
    """Attention within documents: FlexAttention in compiled blocks learns what the dense mask does."""
    model, losses = ModelConfig.custom(**SMALL), {}
    ways = (False, True) if device.startswith("cuda") else (False,)
    for compiled in ways:
        runner = engine(
            model, device, seq_len=64, rows=4, compile=compiled, cuda_graph=False, document_mask=True, eos_id=0
        )
        losses[compiled] = _steps(runner, 12, device)
    plain = _steps(engine(model, device, seq_len=64, rows=4, compile=False, cuda_graph=False), 12, device)
    require(plain != losses[False], "the mask changes nothing")
    apart = max(abs(a - b) for a, b in zip(losses[False], losses[ways[-1]], strict=True))
    require(apart < 0.05, f"losses under the two masks differ by {apart:.3g}")
    return {"what": "document mask: Flex = dense", "loss_apart": apart}


def replicated(device: str) -> dict[str, Any]:
    """Under DistributedDataParallel (NCCL or gloo, one process) a step is the same."""
    from torch import distributed as dist

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cuda = device.startswith("cuda")
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        model = ModelConfig.custom(**SMALL)
        usual = engine(model, device, seq_len=64, rows=4, compile=cuda, cuda_graph=False)
        runner = engine(model, device, seq_len=64, rows=4, compile=cuda, cuda_graph=False)
        runner._run = torch.nn.parallel.DistributedDataParallel(runner._module, device_ids=[0] if cuda else None)
        expected, got = _steps(usual, 6, device), _steps(runner, 6, device)
    finally:
        dist.destroy_process_group()
    apart = max(abs(a - b) for a, b in zip(expected, got, strict=True))
    require(apart < 1e-2, f"losses differ by {apart:.3g}")
    return {"what": f"DistributedDataParallel ({backend}) = plain", "loss_apart": apart}


def evaluation_precision(device: str) -> dict[str, Any]:
    """Scores do not depend on the batch, and those at a lower precision are near float32's."""
    from ragscale.evaluation import TorchModel

    module = build("0.15M", device)
    prompts = requests(24, 60, 500)

    known = "precision" in inspect.signature(TorchModel.__init__).parameters
    exact: dict[str, Any] = {"precision": "float32"} if known else {}

    def score(**options: Any) -> np.ndarray:
        lm = TorchModel(module, Numbers(), **{**exact, **options})
        return np.array([answer.logprobs for answer in lm.score(prompts)])

    plain, tree = score(tree=False), score()
    apart = float(np.abs(plain - tree).max())
    require(apart < 1e-3, f"tree and plain scores differ by {apart:.3g}")
    if not known:
        return {"what": "tree = plain scores", "apart": apart, "note": "TorchModel knows no precision"}
    length = np.array([[len(c) for c in request.continuations] for request in prompts])
    nats = float((np.abs(score(precision="bf16") - plain) / length).mean())
    require(nats < 0.05, f"bf16 moves log-probabilities by {nats:.3g} nats a token")
    return {"what": "tree = plain scores; bf16 near float32", "apart": apart, "bf16_nats_per_token": nats}


def search(device: str) -> dict[str, Any]:
    """The flat search gives the k best by the exact scores, ties in store order, for stores of every size."""
    n, k = 3_000, 10
    encoder = Rows(n, 32)
    encoder.vectors[n // 2 :] = encoder.vectors[: n - n // 2]  # every score ties
    retriever = rs.retrieval.DenseRetriever(encoder, device=device)
    retriever.index([Passage(str(i), str(i), 1, str(i)) for i in range(n)])
    found = retriever.search([str(i) for i in range(50)], k, store_tokens=[n // 3, n])
    wide = encoder.vectors.astype(np.float64)
    scores = (wide[:50, None] * wide).sum(-1).astype(np.float32)
    for size, hits in found.items():
        order = np.argsort(-scores[:, :size], axis=1, kind="stable")[:, :k]
        require(bool((np.asarray(hits.ids) == order).all()), f"other hits in a store of {size} passages")
    return {"what": "flat search is exact, ties in order", "stores": len(found)}


CHECKS: dict[str, Callable[[str], dict[str, Any]]] = {
    function.__name__: function
    for function in (
        resume,
        branch,
        one_graph,
        captured_step,
        loss_head,
        document_mask,
        replicated,
        evaluation_precision,
        search,
    )
}
