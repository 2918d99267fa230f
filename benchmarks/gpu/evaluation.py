"""How many tokens per second are scored: prompts of several passages with four choices, at each precision."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from gpu.clock import forget_peak, peak_gib, wait
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
    if size in SHAPES:
        n_layers, d_model, n_heads, d_ff, vocabulary = SHAPES[size]
        model = ModelConfig.custom(
            n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_ff=d_ff, vocab_size=vocabulary
        )
    else:
        model = ModelConfig.olmo2(size)
    return model.build().to(device).eval()


def precisions() -> list[str | None]:
    """Return what `TorchModel` can be asked for; None where it knows no precision."""
    known = "precision" in inspect.signature(TorchModel.__init__).parameters
    return ["float32", "bf16", "auto"] if known else [None]


def prepare(device: str, tiny: bool, *, size: str) -> Measure:
    module = build(size, device)
    n = 4 if tiny else 1024 if size in SHAPES else 384
    prompts = requests(n, 40 if tiny else 728, 500)
    n_tokens = sum(len(r.context) + sum(map(len, r.continuations)) for r in prompts)
    wait(device)

    def measure() -> Iterator[dict[str, Any]]:
        torch.set_float32_matmul_precision("highest")
        base: np.ndarray | None = None
        for precision in precisions():
            options: Any = {} if precision is None else {"precision": precision}
            lm = TorchModel(module, Numbers(), **options)
            lm.score(prompts[:: max(1, len(prompts) // 64)])
            forget_peak(device)
            wait(device)
            started = time.perf_counter()
            scores = lm.score(prompts)
            wait(device)
            took = time.perf_counter() - started
            values = np.array([score.logprobs for score in scores])
            base = values if base is None else base
            per_token = np.abs(values - base).sum() / sum(sum(map(len, r.continuations)) for r in prompts)
            yield {
                "precision": precision or "float32 (no choice)",
                "seconds": took,
                "prompts": len(prompts),
                "tokens_per_second": n_tokens / took,
                "scoring": lm.scoring,
                "nats_per_token_apart": float(per_token),
                "same_choice": float((values.argmax(1) == base.argmax(1)).mean()),
                "peak_gib": peak_gib(device),
            }

    return measure
