"""How many tokens per second are scored: prompts of several passages with four choices, at each precision."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from gpu.clock import forget_peak, peak_gib, seconds, wait
from gpu.jobs import Measure
from ragscale.evaluation import TorchModel
from ragscale.evaluation._language_model import ScoreRequest
from ragscale.training import ModelConfig

SHAPES = {"38M": (8, 512, 8, 2048, 8192)}


class Numbers:
    """A tokenizer that is not asked for anything: the prompts are token ids."""

    eos_token_id = 0

    def encode(self, text: str) -> list[int]:
        return [1 + ord(letter) % 500 for letter in text]

    def decode(self, tokens: Any) -> str:
        return " ".join(map(str, tokens))


def requests(n: int, longest: int, vocabulary: int) -> list[ScoreRequest]:
    """Return prompts of up to ``longest`` tokens, each with four choices of one to six tokens."""
    rng = np.random.default_rng(0)

    def draw(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, vocabulary, size).tolist())

    sizes = rng.integers(longest * 2 // 3, longest, n)
    return [ScoreRequest(draw(size), tuple(draw(m) for m in rng.integers(1, 7, 4))) for size in sizes]


def build(size: str, device: str) -> Any:
    """Return a model with random weights, drawn on the device: drawing 728M on a CPU takes longer than all the rest."""
    from transformers import Olmo2ForCausalLM

    if size in SHAPES:
        n_layers, d_model, n_heads, d_ff, vocabulary = SHAPES[size]
        model = ModelConfig.custom(
            n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_ff=d_ff, vocab_size=vocabulary
        )
    else:
        model = ModelConfig.olmo2(size)
    torch.manual_seed(0)
    with torch.device(device):
        return Olmo2ForCausalLM(model.to_hf()).eval()


def contestants(device: str) -> dict[str, dict[str, Any]]:
    """Return the ways of scoring by name; the first is what ran before there was a choice."""
    ways: dict[str, dict[str, Any]] = {
        "float32, one masked pass": {"precision": "float32", "compile": False},
        **{name: {"precision": name, "compile": False} for name in ("float32", "bf16", "fp16")},
    }
    if device.startswith("cuda"):
        ways |= {f"{name}, compiled": {"precision": name, "compile": True} for name in ("bf16", "fp16")}
    return ways | {"auto": {"precision": "auto"}}


def prepare(device: str, tiny: bool, *, size: str) -> Measure:
    module = build(size, device)
    n = 4 if tiny else 1024 if size in SHAPES else 384
    prompts = requests(n, 40 if tiny else 728, 500)
    n_tokens = sum(len(r.context) + sum(map(len, r.continuations)) for r in prompts)
    lms = {name: TorchModel(module, Numbers(), **options) for name, options in contestants(device).items()}
    first: dict[str, float] = {}
    for name, lm in lms.items():
        lm.score(prompts[:1])
        if "masked" in name:
            lm._prepared().way = "masked"
        started = time.perf_counter()
        lm.score(prompts)
        wait(device)
        first[name] = time.perf_counter() - started

    def measure() -> Iterator[dict[str, Any]]:
        torch.set_float32_matmul_precision("highest")
        base: tuple[np.ndarray, float] | None = None
        for name, lm in lms.items():
            if name == "auto":  # chosen again, with the device to itself
                lm.use_precision("auto")
                chosen = lm.choose_precision(prompts)
            forget_peak(device)
            kept: list[Any] = []
            rounds = 1 if tiny or name.startswith("float32") else 3  # seconds, and all alike
            took = seconds(lambda lm=lm, kept=kept: kept.append(lm.score(prompts)), device, rounds=rounds, times=1)
            values = np.array([score.logprobs for score in kept[0]])
            base = (values, took) if base is None else base
            per_token = np.abs(values - base[0]).sum() / sum(sum(map(len, r.continuations)) for r in prompts)
            yield {
                "precision": name if name != "auto" else f"auto: {chosen.used}",
                "first_call_seconds": first[name],
                "seconds": took,
                "prompts": len(prompts),
                "tokens_per_second": n_tokens / took,
                "times_one_masked_pass": base[1] / took,
                "scoring": f"{lm.scoring}, {lm._prepared().way}",
                "measured": chosen.as_dict() if name == "auto" else None,
                "nats_per_token_apart": float(per_token),
                "same_choice": float((values.argmax(1) == base[0].argmax(1)).mean()),
                "peak_gib": peak_gib(device),
            }

    return measure
