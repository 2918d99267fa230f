"""Schedule, groups and first weights against the forms that OLMo-core and litgpt publish, where they state numbers."""

from __future__ import annotations

import math

import pytest
import torch

from ragscale.training import ModelConfig, TrainConfig, make_plan
from ragscale.training._engine import Engine
from ragscale.training._plan import fill_in
from ragscale.training._processes import Processes

SMALL = ModelConfig.custom(n_layers=2, d_model=16, n_heads=2, d_ff=32, vocab_size=64, max_seq_len=64)


@pytest.mark.parametrize(("n_steps", "fraction", "end"), [(500, 0.1, 0.0), (500, 0.2, 0.0), (301, 0.2, 0.1)])
def test_linear_decay_is_olmo_cores_with_a_last_step_that_is_not_at_zero(
    n_steps: int, fraction: float, end: float
) -> None:
    """OLMo-core's WSD gives step t (from 1) of T: t / W, then 1, then (T - t) / n, which is 0 at t = T.

    Ours spends no step at a rate of zero: the same form with one step more in T and in n.
    """
    config = TrainConfig(
        seq_len=16,
        batch_tokens=16,
        learning_rate=1.0,
        warmup_steps=20,
        decay_shape="linear",
        decay_fraction=fraction,
        final_rate=end,
    )
    plan = make_plan(SMALL, config, n_steps * 16)
    trunk, branch = plan.segments
    n = round(fraction * n_steps)
    for step in range(n_steps):
        t = step + 1
        from_end = n_steps + 1 - t
        published = t / 20 if t <= 20 else 1.0 if from_end >= n + 1 else end + (1 - end) * from_end / (n + 1)
        segment = trunk if step < branch.start else branch
        assert plan.learning_rate(segment, step) == pytest.approx(published, abs=1e-12), step


def test_cosine_is_litgpts_between_two_steps() -> None:
    """litgpt's cosine is at (t - W) / (T - W); ours at one step more of one step more, so never at the end."""
    config = TrainConfig(
        seq_len=16, batch_tokens=16, learning_rate=1.0, warmup_steps=20, schedule="cosine", final_rate=0.1
    )
    [segment] = make_plan(SMALL, config, 200 * 16).segments
    for step in range(20, 200):
        ratio = (step - 20 + 1) / (200 - 20 + 1)
        published = 0.1 + 0.5 * (1 + math.cos(math.pi * ratio)) * 0.9
        assert make_plan(SMALL, config, 200 * 16).learning_rate(segment, step) == pytest.approx(published, abs=1e-12)


def engine(config: TrainConfig) -> Engine:
    return Engine(SMALL, fill_in(SMALL, config, [10**6]), Processes(0, 1, torch.device("cpu")))


def test_groups_are_olmo_cores_but_for_the_gains() -> None:
    """OLMo-core decays everything at 0.1 but ``embeddings.weight`` at 0. Ours leaves the gains alone as well."""
    made = engine(TrainConfig(seq_len=16, batch_tokens=64, learning_rate=1e-3))
    names = {id(tensor): name for name, tensor in made._locals.items()}
    decay = {names[id(p)]: group["weight_decay"] for group in made._optimizer.param_groups for p in group["params"]}
    assert len(decay) == 2 * 11 + 3
    for name, value in decay.items():
        olmo_core = 0.0 if name == "model.embed_tokens.weight" else 0.1
        assert value == (0.0 if "norm" in name else olmo_core), name


@pytest.mark.parametrize(("batch_tokens", "beta2"), [(64, 0.99), (524_272, 0.99), (524_288, 0.95), (2**20, 0.95)])
def test_beta2_is_olmo_cores_by_batch(batch_tokens: int, beta2: float) -> None:
    config = TrainConfig(seq_len=16, batch_tokens=batch_tokens)
    assert fill_in(SMALL, config, [10**12]).betas == (0.9, beta2)
    assert fill_in(SMALL, config.replace(betas=(0.8, 0.9)), [10**12]).betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("std", "expected"),
    [
        # OLMo-core's InitMethod.normal: every linear and embedding from a normal of 0.02 cut off at three times that
        (0.02, 0.02),
        # litgpt's GPT-NeoX-like start: sqrt(2 / 5 / d) for embeddings and projections into the block
        (None, math.sqrt(2 / 5 / 256)),
    ],
)
def test_first_weights_have_the_published_spread(std: float | None, expected: float) -> None:
    model = ModelConfig.custom(n_layers=1, d_model=256, n_heads=4, d_ff=512, vocab_size=1024, init_std=std)
    # a normal cut off at three deviations has this one left
    left = math.sqrt(1 - 6 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2)))
    assert left == pytest.approx(0.9866, abs=1e-4)
    for name, weight in model.build().named_parameters():
        if weight.ndim == 1:
            assert torch.equal(weight, torch.ones_like(weight)), name
            continue
        n = weight.numel()
        assert float(weight.detach().abs().max()) <= 3 * expected + 1e-9, name
        assert float(weight.detach().std()) == pytest.approx(left * expected, rel=5 / math.sqrt(2 * n)), name
        assert float(weight.detach().mean()) == pytest.approx(0, abs=5 * expected / math.sqrt(n)), name


def test_warm_up_is_a_token_for_each_parameter_and_no_more_than_a_tenth() -> None:
    # OLMo-core warms up over N tokens, which a run of D = N would not leave
    config = TrainConfig(seq_len=16, batch_tokens=16)
    n = SMALL.n_params
    assert fill_in(SMALL, config, [100 * n]).warmup_steps == round(n / 16)
    assert fill_in(SMALL, config, [n]).warmup_steps == round(n / 160)
