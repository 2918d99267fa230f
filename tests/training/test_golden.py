"""Training against the plain thing: transformers' model, torch's AdamW, and every rule written out as numbers.

The loop below knows nothing of ragscale. Thirty steps in float64 must end in the same weights to 1e-9; and a loop in
which one thing is otherwise must not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import Olmo2Config, Olmo2ForCausalLM

import ragscale as rs
from ragscale.training import ModelConfig, TrainConfig

TOKENS = 1_920
ROW, BATCH = 16, 64
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Plain:
    """The settings of the plain loop: what `TrainConfig` promises by default."""

    learning_rate: float = 2e-3
    warmup: int = 3  # a tenth of D: 192 tokens of 64 a step
    decay: int = 6  # a fifth of 30 steps
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.1
    decayed: tuple[str, ...] = ("proj.weight", "lm_head.weight")
    clip: float = 1.0
    z_loss: float = 1e-5
    shuffled: bool = True
    last_target: int = TOKENS
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-6
    shape: Callable[[float], float] = lambda x: 1 - math.sqrt(x)
    end: float = 0.0
    decoupled: bool = True
    matrix_share: float = 1.0  # of the rate, for what is decayed


def rows_in_order(n_rows: int, shuffled: bool) -> list[int]:
    """Return the order of rows: shuffled within windows of a twentieth of what lies before them."""
    order, start = [], 0
    while start < n_rows:
        size = max(1, int(0.05 * start))
        if shuffled and min(size, n_rows - start) > 1:
            inside = np.random.default_rng([0, start]).permutation(min(size, n_rows - start))
            order += [start + int(i) for i in inside]
        else:
            order += list(range(start, min(start + size, n_rows)))
        start += size
    return order


def plain_training(plain: Plain, first: Weights, stream: np.ndarray) -> tuple[Weights, list[float]]:
    """Return the weights after thirty steps, and the norms of the gradient before clipping."""
    config = Olmo2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=plain.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": plain.rope_theta},
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    model = Olmo2ForCausalLM(config).double().train()
    model.load_state_dict({name: tensor.double() for name, tensor in first.items()})
    decayed = [p for name, p in model.named_parameters() if name.endswith(plain.decayed)]
    rest = [p for name, p in model.named_parameters() if not name.endswith(plain.decayed)]
    assert len(decayed) + len(rest) == 2 * 11 + 3
    kind = torch.optim.AdamW if plain.decoupled else torch.optim.Adam
    optimizer = kind(
        [{"params": decayed, "weight_decay": plain.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        betas=(plain.beta1, plain.beta2),
        eps=plain.eps,
        foreach=False,
    )
    ids = torch.from_numpy(stream.astype(np.int64))
    whole_rows = (TOKENS - 1) // ROW
    order = [*rows_in_order(whole_rows, plain.shuffled), *range(whole_rows, TOKENS // ROW)]
    norms = []
    for step in range(30):
        starts = torch.tensor([row * ROW for row in order[4 * step : 4 * step + 4]])
        positions = (starts[:, None] + torch.arange(ROW)).flatten()
        logits = model(ids[positions].view(4, ROW)).logits.flatten(0, 1)
        counted = positions + 1 < plain.last_target
        logits, targets, count = logits[counted], ids[positions[counted] + 1], int(counted.sum())
        losses = F.cross_entropy(logits, targets, reduction="sum")
        squares = logits.logsumexp(1).square().sum()
        ((losses + plain.z_loss * squares) / count).backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
        norms.append(norm)
        for parameter in model.parameters():
            # torch's fused AdamW takes the factor of clipping in float32
            parameter.grad /= float(np.float32(max(1.0, norm / plain.clip)))
        decay_step = step - (30 - plain.decay)
        rate = plain.learning_rate * min(1.0, (step + 1) / plain.warmup)
        if decay_step >= 0:
            left = plain.shape((decay_step + 1) / (plain.decay + 1))
            rate = plain.learning_rate * (plain.end + (1 - plain.end) * left)
        optimizer.param_groups[0]["lr"] = rate * plain.matrix_share
        optimizer.param_groups[1]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}, norms


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    return ModelConfig.custom(n_layers=2, d_model=32, n_heads=2, d_ff=64, vocab_size=64, max_seq_len=64, init_std=0.02)


@pytest.fixture(scope="module")
def ours(model: ModelConfig, stream: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """What `ragscale.train` makes with its defaults; given are only sizes, the rate, and the arithmetic."""
    config = TrainConfig(
        seq_len=ROW, batch_tokens=BATCH, learning_rate=2e-3, precision="fp64", allow_short_runs=True
    )  # fmt: skip
    out = tmp_path_factory.mktemp("golden")
    [checkpoint] = rs.train(model, stream, config, tokens=TOKENS, out=out, device="cpu")
    assert checkpoint.step == 30
    return load_file(checkpoint.path / "model.safetensors")


@pytest.fixture(scope="module")
def first(model: ModelConfig) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.build(seed=0).state_dict().items()}


def apart(ours: Weights, theirs: Weights) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)


def test_thirty_steps_are_those_of_the_plain_loop(ours: Weights, first: Weights, stream: np.ndarray) -> None:
    expected, norms = plain_training(Plain(), first, stream)
    assert {str(tensor.dtype) for tensor in ours.values()} == {"torch.float64"}
    assert max(norms) > 1.5, "the gradient must be clipped in some steps"
    assert min(norms) < 1, "and not in others"
    assert apart(expected, {name: tensor.double() for name, tensor in first.items()}) > 1e-2, "training moves weights"
    assert apart(ours, expected) < 1e-9


def test_transfer_from_a_quarter_of_the_width_is_a_quarter_of_the_rate_and_twice_the_decay_for_matrices(
    model: ModelConfig, first: Weights, stream: np.ndarray, tmp_path: Path
) -> None:
    config = TrainConfig(
        seq_len=ROW,
        batch_tokens=BATCH,
        learning_rate=2e-3,
        precision="fp64",
        allow_short_runs=True,
        transfer="wd-mup",
        base_width=8,
    )
    [checkpoint] = rs.train(model, stream, config, tokens=TOKENS, out=tmp_path, device="cpu")
    expected, _ = plain_training(Plain(matrix_share=0.25, weight_decay=0.2), first, stream)
    assert apart(load_file(checkpoint.path / "model.safetensors"), expected) < 1e-9


CHANGES: dict[str, dict[str, Any]] = {
    "a decayed embedding": {"decayed": ("proj.weight", "lm_head.weight", "embed_tokens.weight")},
    "decayed gains": {"decayed": ("proj.weight", "lm_head.weight", "norm.weight")},
    "a head without decay": {"decayed": ("proj.weight",)},
    "decay inside the gradient": {"decoupled": False},
    "a tenth of the weight decay": {"weight_decay": 0.01},
    "no weight decay": {"weight_decay": 0.0},
    "no clipping": {"clip": math.inf},
    "clipping at 2": {"clip": 2.0},
    "no z-loss": {"z_loss": 0.0},
    "z-loss x 1000": {"z_loss": 1e-2},
    "beta1 of 0.95": {"beta1": 0.95},
    "beta2 of 0.95": {"beta2": 0.95},
    "eps of 1e-6": {"eps": 1e-6},
    "a warm-up one step longer": {"warmup": 4},
    "no warm-up": {"warmup": 1},
    "a decay one step longer": {"decay": 7},
    "a linear decay": {"shape": lambda x: 1 - x},
    "a cosine decay": {"shape": lambda x: (1 + math.cos(math.pi * x)) / 2},
    "a decay to a tenth": {"end": 0.1},
    "rows in the stream's order": {"shuffled": False},
    "one target more than D": {"last_target": TOKENS + 1},
    "a rate 1e-4 higher": {"learning_rate": 2e-3 * (1 + 1e-4)},
    "another rotary base": {"rope_theta": 10_000.0},
    "norms with eps 1e-5": {"norm_eps": 1e-5},
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_thing_done_otherwise_is_noticed(ours: Weights, first: Weights, stream: np.ndarray, change: str) -> None:
    other, _ = plain_training(replace(Plain(), **CHANGES[change]), first, stream)
    assert apart(ours, other) > 1e-7


def test_the_defaults_are_these_numbers() -> None:
    assert TrainConfig().to_dict() == {
        "seq_len": 2048,
        "batch_tokens": None,
        "learning_rate": None,
        "warmup_steps": None,
        "schedule": "wsd",
        "decay_fraction": 0.2,
        "decay_shape": "1-sqrt",
        "final_rate": 0.0,
        "betas": None,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "transfer": None,
        "base_width": None,
        "z_loss": 1e-5,
        "document_mask": False,
        "eos_id": None,
        "shuffle": True,
        "repeat": False,
        "seed": 0,
        "precision": "auto",
        "allow_bf16_true": False,
        "allow_short_runs": False,
        "micro_batch_tokens": None,
        "activation_checkpointing": False,
        "compile": None,
        "cuda_graph": None,
        "parallel": "auto",
        "deterministic": False,
        "log_every": 10,
        "validate_every": None,
        "save_every": None,
        "save_minutes": 10.0,
        "keep_states": 2,
        "validation_tokens": 1_000_000,
        "max_bad_steps": 20,
    }
