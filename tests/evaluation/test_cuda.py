"""Scores on a GPU: nothing here runs without one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from ragscale.evaluation import ScoreRequest, TorchModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none")


@pytest.fixture
def asked(tokenizer):
    rng = np.random.default_rng(0)

    def draw(low, high):
        return tuple(rng.integers(len(tokenizer), size=rng.integers(low, high)).tolist())

    return [ScoreRequest(draw(1, 300), tuple(draw(1, 7) for _ in range(rng.integers(1, 5)))) for _ in range(60)]


def values(lm, requests):
    return np.concatenate([score.logprobs for score in lm.score(requests)])


@pytest.mark.parametrize("batch_tokens", [600, 65_536])
@pytest.mark.parametrize("compiled", [False, True])
def test_cuda_scores_what_a_cpu_scores(module, tokenizer, asked, compiled, batch_tokens):
    expected = values(TorchModel(module, tokenizer, tree=False), asked)
    module = copy.deepcopy(module).to("cuda")
    options = {"compile": compiled, "batch_tokens": batch_tokens}
    exact = TorchModel(module, tokenizer, precision="float32", **options)
    assert values(exact, asked) == pytest.approx(expected, abs=2e-3)
    assert exact.path == {"way": "steps", "body": "Olmo2Body", "compiled": compiled, "shares_prefixes": False}
    for precision, per_token in {"bf16": 0.02, "fp16": 0.003}.items():
        found = values(TorchModel(module, tokenizer, precision=precision, **options), asked)
        lengths = np.array([len(c) for request in asked for c in request.continuations])
        assert np.abs((found - expected) / lengths).mean() < per_token, precision


def test_cuda_chooses_a_precision_by_what_it_changes_and_costs(module, tokenizer, asked):
    lm = TorchModel(copy.deepcopy(module).to("cuda"), tokenizer, precision="auto")
    chosen = lm.choose_precision(asked)
    assert chosen.asked == "auto"
    assert chosen.used in {"float32", "bf16", "fp16"}
    assert "bf16" in chosen.measured
    assert set(chosen.seconds) >= {"float32", "bf16"}  # nothing is compiled for so little
    if chosen.used != "float32":
        assert chosen.measured[chosen.used].is_small
        assert chosen.seconds[chosen.used] < chosen.seconds["float32"]
