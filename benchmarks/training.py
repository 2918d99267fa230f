"""Tokens per second of ragscale's training against its peers, and the memory of the loss head; CPU or CUDA.

    python benchmarks/training.py                                      # whatever device is here
    python benchmarks/training.py --litgpt-python /path/to/venv/bin/python

Same model, data, precision, batch, optimiser; the contestants take turns within one run, so that a busy machine slows
all of them. On a CPU the cost is CPU seconds of one thread; on CUDA it is wall time between synchronisations, and MFU
and peak memory are reported as well. litgpt pins an older huggingface-hub and cannot be installed beside
transformers 5: give the Python of an environment of its own (pip install litgpt). What is not installed is said to be.

Contestants: ragscale (eager, compiled), transformers' own model and loss in a plain loop (eager, compiled), its
Trainer, litgpt's model and loss, and a lean own module with fused projections in nanoGPT's loop. Writes
benchmarks/results/training_<device>.json.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from ragscale.training import ModelConfig, TrainConfig, linear_cross_entropy
from ragscale.training._dry_run import peak_flops
from ragscale.training._engine import Engine
from ragscale.training._plan import fill_in
from ragscale.training._processes import Processes

RATE = 1e-3
BETAS = (0.9, 0.95)
# label, model, tokens of context, rows, precision, rounds, steps per round, whether to compile
Case = tuple[str, ModelConfig, int, int, str, int, int, bool]


def cases(device: torch.device, wanted: list[str]) -> list[Case]:
    if device.type == "cpu":
        small = ModelConfig.olmo2("1M", max_seq_len=256)
        head = ModelConfig.olmo2("30M", max_seq_len=256)
        known = [
            ("1M-fp32", small, 256, 8, "fp32", 5, 2, True),
            ("1M-bf16", small, 256, 8, "bf16", 5, 2, False),
            # V = 100,352: the output head is nearly everything
            ("30M-bf16", head, 256, 2, "bf16", 3, 1, False),
        ]
    else:
        rows = {"30M": 16, "136M": 8, "233M": 8, "728M": 4, "1B": 2}
        known = [(f"{name}-bf16", ModelConfig.olmo2(name), 4096, n, "bf16", 4, 5, True) for name, n in rows.items()]
    return [case for case in known if not wanted or case[0] in wanted]


class Clock:
    """CPU seconds on a CPU, synchronised wall seconds on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def __call__(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


class Ragscale:
    def __init__(self, case: Case, device: torch.device, *, compiled: bool) -> None:
        _, model, seq_len, rows, precision, *_ = case
        config = TrainConfig(
            seq_len=seq_len,
            batch_tokens=rows * seq_len,
            micro_batch_tokens=rows * seq_len,
            learning_rate=RATE,
            betas=BETAS,
            z_loss=0.0,
            precision=precision,  # type: ignore[arg-type]
            compile=compiled,
        )
        self.engine = Engine(model, fill_in(model, config, [10**12]), Processes(0, 1, device))
        self.n_targets = rows * seq_len

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.engine.step(inputs, targets, self.n_targets, RATE)[0]


class PlainLoop:
    """A loop as most people write it: autocast, backward, clip, fused AdamW."""

    def __init__(self, module: nn.Module, loss: Callable[..., torch.Tensor], case: Case, device: torch.device) -> None:
        self.module, self.loss, self.bf16, self.device = module, loss, case[4] == "bf16", device
        decayed = [p for p in module.parameters() if p.ndim > 1]
        rest = [p for p in module.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            loss = self.loss(self.module, inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def stock(case: Case, device: torch.device, *, compiled: bool) -> PlainLoop:
    module = case[1].build().to(device).train()
    if compiled:
        module.compile()

    def loss(module: Any, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return module(input_ids=inputs, labels=targets, shift_labels=targets, use_cache=False).loss

    return PlainLoop(module, loss, case, device)


class Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return (self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6))).to(x.dtype)


class LeanBlock(nn.Module):
    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        d, self.heads = model.d_model, model.n_heads
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.gate_up, self.down = nn.Linear(d, 2 * model.d_ff, bias=False), nn.Linear(model.d_ff, d, bias=False)
        self.q_norm, self.k_norm, self.attention_norm, self.mlp_norm = (Norm(d) for _ in range(4))

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        n_batch, n_tokens, d = x.shape
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (
            t.view(n_batch, n_tokens, self.heads, -1).transpose(1, 2) for t in (self.q_norm(q), self.k_norm(k), v)
        )
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.attention_norm(self.out(y.transpose(1, 2).reshape(n_batch, n_tokens, d)))
        gate, up = self.gate_up(x).chunk(2, -1)
        return x + self.mlp_norm(self.down(F.silu(gate) * up))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


class Lean(nn.Module):
    """OLMo-2 written by hand, with fused projections."""

    def __init__(self, model: ModelConfig, seq_len: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(model.vocab_size, model.d_model)
        self.blocks = nn.ModuleList(LeanBlock(model) for _ in range(model.n_layers))
        self.norm = Norm(model.d_model)
        self.head = nn.Linear(model.d_model, model.vocab_size, bias=False)
        width = model.d_model // model.n_heads
        angle = torch.arange(seq_len)[:, None] / model.rope_theta ** (torch.arange(0, width, 2) / width)
        self.register_buffer("cos", torch.cat((angle, angle), -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angle, angle), -1).sin(), persistent=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


def lean(case: Case, device: torch.device, *, compiled: bool) -> PlainLoop:
    module = Lean(case[1], case[2]).to(device)
    if compiled:
        module.compile()

    def loss(module: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = module(inputs)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    return PlainLoop(module, loss, case, device)


class Trainer:
    """transformers' Trainer; its clock is read between two ends of steps, so that its set-up is not counted."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device, self.clock = case, device, Clock(device)
        self.module = case[1].build()

    def seconds(self, steps: int) -> float:
        _, _, seq_len, rows, precision, *_ = self.case
        marks: list[float] = []
        clock = self.clock

        class Mark(transformers.TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                marks.append(clock())

        ids = torch.from_numpy(np.random.default_rng(0).integers(0, 1000, (rows * (steps + 2), seq_len)))
        data = [{"input_ids": row, "labels": row} for row in ids]
        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=rows,
                max_steps=steps + 1,
                learning_rate=RATE,
                weight_decay=0.1,
                adam_beta2=BETAS[1],
                optim="adamw_torch_fused",
                max_grad_norm=1.0,
                bf16=precision == "bf16",
                torch_compile=self.device.type == "cuda",
                use_cpu=self.device.type == "cpu",
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            transformers.Trainer(self.module, arguments, train_dataset=data, callbacks=[Mark()]).train()
        return (marks[-1] - marks[0]) / steps


LITGPT = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import torch
from torch.nn import functional as F
from litgpt import Config
from litgpt.model import GPT
case = json.loads(sys.argv[1])
device = torch.device(case["device"])
if device.type == "cpu":
    torch.set_num_threads(1)
torch.manual_seed(0)
model = GPT(Config(**case["config"])).to(device)
if case["compile"]:
    model = torch.compile(model)
bf16 = case["precision"] == "bf16"
decayed = [p for p in model.parameters() if p.ndim > 1]
rest = [p for p in model.parameters() if p.ndim <= 1]
optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                              lr=1e-3, betas=(0.9, 0.95), fused=True)
def clock():
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
def step():
    ids = torch.randint(0, 1000, (case["rows"], case["seq_len"] + 1), device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__}), flush=True)
for line in sys.stdin:
    started = clock()
    for _ in range(int(line)):
        step()
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    print(json.dumps({"seconds": (clock() - started) / int(line), "peak_gib": peak}), flush=True)
"""


class Litgpt:
    """litgpt in a process of its own environment, which steps when told to."""

    def __init__(self, case: Case, device: torch.device, python: str, *, compiled: bool) -> None:
        _, model, seq_len, rows, precision, *_ = case
        config = {
            "name": "olmo2",
            "n_layer": model.n_layers,
            "n_embd": model.d_model,
            "n_head": model.n_heads,
            "n_query_groups": model.n_heads,
            "intermediate_size": model.d_ff,
            "vocab_size": model.vocab_size,
            "padded_vocab_size": model.vocab_size,
            "block_size": seq_len,
            "norm_class_name": "RMSNorm",
            "mlp_class_name": "LLaMAMLP",
            "bias": False,
            "rotary_percentage": 1.0,
            "rope_base": 500000,
            "parallel_residual": False,
            "norm_1": False,
            "norm_2": False,
            "post_attention_norm": True,
            "post_mlp_norm": True,
            "norm_qk": True,
            "norm_qk_type": "olmo2",
            "norm_eps": 1e-6,
        }
        told = {"config": config, "rows": rows, "seq_len": seq_len, "precision": precision, "compile": compiled}
        told["device"] = device.type
        self.process = subprocess.Popen(
            [python, "-c", LITGPT, json.dumps(told)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        hello = self._read()
        assert hello["parameters"] == model.n_params_total, "litgpt built another model"

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError("litgpt's process ended early")

    def seconds(self, steps: int) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self._read()
        self.peak_gib = answer["peak_gib"]
        return answer["seconds"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def contestants(case: Case, device: torch.device, python: str | None) -> Iterator[tuple[str, Any]]:
    """Yield (name, contestant), or (name, reason it is absent); each is made when its turn comes."""
    yield "ragscale", lambda: Ragscale(case, device, compiled=False)
    yield "stock transformers", lambda: stock(case, device, compiled=False)
    yield "lean module, nanoGPT's loop", lambda: lean(case, device, compiled=False)
    if importlib.util.find_spec("accelerate"):
        yield "transformers Trainer", lambda: Trainer(case, device)
    else:
        yield "transformers Trainer", "not installed (pip install accelerate)"
    if python:
        yield "litgpt", lambda: Litgpt(case, device, python, compiled=False)
    else:
        yield "litgpt", "not installed (--litgpt-python names an environment that has it)"
    if case[7]:
        yield "ragscale + compile", lambda: Ragscale(case, device, compiled=True)
        yield "stock transformers + compile", lambda: stock(case, device, compiled=True)
        yield "lean module, nanoGPT's loop + compile", lambda: lean(case, device, compiled=True)
        if python and device.type == "cuda":
            yield "litgpt + compile", lambda: Litgpt(case, device, python, compiled=True)


def race(case: Case, device: torch.device, python: str | None) -> dict[str, Any]:
    label, model, seq_len, rows, _, rounds, steps, _ = case
    clock = Clock(device)
    rng = np.random.default_rng(0)
    batches = torch.from_numpy(rng.integers(0, 1000, (4, rows, seq_len + 1))).to(device)
    runners: dict[str, Any] = {}
    absent: dict[str, str] = {}
    costs: dict[str, list[float]] = {}
    peaks: dict[str, float | None] = {}

    def take(runner: Any, name: str, n_steps: int) -> float:
        if hasattr(runner, "seconds"):
            seconds = runner.seconds(n_steps)
            peaks[name] = getattr(runner, "peak_gib", None)
            return seconds
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = clock()
        for i in range(n_steps):
            ids = batches[i % len(batches)]
            runner.step(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        seconds = (clock() - started) / n_steps
        peaks[name] = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
        return seconds

    for name, make in contestants(case, device, python):
        if isinstance(make, str):
            absent[name] = make
            continue
        try:
            runner = make()
            take(runner, name, 10 if device.type == "cuda" else 1)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            absent[name] = f"failed: {str(error).splitlines()[0][:150]}"
            continue
        if device.type == "cuda":
            # one at a time on a GPU, so that memory is each one's own; the rounds repeat the whole circle
            costs[name] = [take(runner, name, steps) for _ in range(rounds)]
            if hasattr(runner, "close"):
                runner.close()
            del runner
            gc.collect()
            torch.cuda.empty_cache()
            torch._dynamo.reset()
        else:
            runners[name], costs[name] = runner, []
    for _ in range(rounds if runners else 0):
        for name, runner in runners.items():
            costs[name].append(take(runner, name, steps))
    for runner in runners.values():
        if hasattr(runner, "close"):
            runner.close()
    tokens = rows * seq_len
    peak = peak_flops(device)
    base = costs["ragscale"]
    result = {}
    print(f"\n{label}: N_total = {model.n_params_total:,}, {rows} x {seq_len} tokens")
    for name, seconds in costs.items():
        speed = tokens / statistics.median(seconds)
        ratio = statistics.median(other / own for own, other in zip(base, seconds, strict=True))
        mfu = None if peak is None else speed * model.flops(seq_len) / peak
        result[name] = {"tokens_per_second": speed, "ragscale_is_faster_by": ratio, "mfu": mfu, "peak_gib": peaks[name]}
        extra = "" if mfu is None else f"  MFU {mfu:6.1%}  {peaks[name] or 0:6.1f} GiB"
        print(f"  {name:38s} {speed:12,.0f} tok/s   ragscale (eager) / this = {ratio:5.2f}{extra}")
    for name, reason in absent.items():
        print(f"  {name:38s} {reason}")
        result[name] = {"absent": reason}
    return result


HEAD = """
import sys, time, torch
from torch.nn import functional as F
from ragscale.training import linear_cross_entropy
torch.set_num_threads(1)
hidden = torch.randn(1024, 256, requires_grad=True)
weight = (torch.randn(100352, 256) * 0.02).requires_grad_()
targets = torch.randint(0, 100352, (1024,))
def run(hidden, weight, targets):
    if sys.argv[1] == "ragscale":
        return linear_cross_entropy(hidden, weight, targets)[0]
    return F.cross_entropy(F.linear(hidden, weight).float(), targets)
run(hidden[:8], weight[:512], targets[:8] % 512).backward()
hidden.grad = weight.grad = None
def memory(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])
before, started = memory("VmRSS"), time.process_time()
run(hidden, weight, targets).backward()
print((memory("VmHWM") - before) / 1024, time.process_time() - started)
"""


def loss_head(device: torch.device) -> dict[str, Any]:
    """Compare the fused head with all logits at once: M = 1024, V = 100,352, d = 256 on a CPU; larger on CUDA."""
    result: dict[str, Any] = {}
    if device.type == "cpu":
        print("\nloss head: M = 1024, V = 100,352, d = 256, float32, one thread")
        for name in ("ragscale", "all logits"):
            runs = [
                subprocess.run([sys.executable, "-c", HEAD, name], capture_output=True, text=True, check=True).stdout
                for _ in range(3)
            ]
            memory, seconds = (
                statistics.median(values) for values in zip(*(map(float, r.split()) for r in runs), strict=True)
            )
            result[name] = {"peak_mib": memory, "cpu_seconds": seconds}
            print(f"  {name:12s} {memory:8.0f} MiB {seconds:7.2f} CPU seconds")
        return result
    clock = Clock(device)
    print("\nloss head: M = 16,384, V = 100,352, bfloat16")
    for width in (256, 512, 1280):
        hidden = torch.randn(16_384, width, device=device, dtype=torch.bfloat16, requires_grad=True)
        weight = (torch.randn(100_352, width, device=device) * 0.02).requires_grad_()
        targets = torch.randint(0, 100_352, (16_384,), device=device)
        gradients = {}
        for name in ("torch", "triton", "all logits"):

            def run(name: str = name, hidden: Any = hidden, weight: Any = weight, targets: Any = targets) -> None:
                hidden.grad = weight.grad = None
                if name == "all logits":
                    F.cross_entropy(F.linear(hidden, weight.bfloat16()).float(), targets).backward()
                else:
                    linear_cross_entropy(hidden, weight, targets, backend=name)[0].backward()

            try:
                run()
                torch.cuda.reset_peak_memory_stats()
                before, started = torch.cuda.memory_allocated(), clock()
                for _ in range(10):
                    run()
                seconds = (clock() - started) / 10
            except (torch.OutOfMemoryError, RuntimeError) as error:
                print(f"  d = {width:5d} {name:12s} failed: {str(error).splitlines()[0][:120]}")
                continue
            memory = (torch.cuda.max_memory_allocated() - before) / 2**20
            gradients[name] = weight.grad.clone()
            result[f"d={width} {name}"] = {"peak_mib": memory, "seconds": seconds}
            print(f"  d = {width:5d} {name:12s} {memory:8.0f} MiB {1e3 * seconds:8.2f} ms")
        if {"torch", "triton"} <= set(gradients):
            difference = (gradients["torch"] - gradients["triton"]).norm() / gradients["torch"].norm()
            print(f"  d = {width:5d} relative difference of the gradients, torch and Triton: {difference:.1e}")
            result[f"d={width} gradient difference"] = float(difference)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--litgpt-python", help="the Python of an environment that has litgpt")
    parser.add_argument("--cases", nargs="*", default=[], help="labels such as 30M-bf16; default all")
    parser.add_argument("--out", help="where the results go; default benchmarks/results/training_<device>.json")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        torch.set_float32_matmul_precision("high")
    transformers.utils.logging.set_verbosity_error()
    python = options.litgpt_python
    if python is None and importlib.util.find_spec("litgpt"):
        python = sys.executable
    results: dict[str, Any] = {
        "device": "2 shared CPU cores, 1 thread" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "cost": "CPU seconds" if device.type == "cpu" else "wall seconds",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    results["cases"] = {}
    path = Path(options.out or Path(__file__).parent / "results" / f"training_{device.type}.json")
    results["loss_head"] = loss_head(device)
    for case in cases(device, options.cases):
        with contextlib.suppress(KeyboardInterrupt):
            results["cases"][case[0]] = race(case, device, python)
        gc.collect()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
