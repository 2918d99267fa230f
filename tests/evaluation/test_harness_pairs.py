"""A score in lm-eval's shape depends on its own context and continuation alone."""

from __future__ import annotations

import random

import pytest

from ragscale.errors import ConfigError
from ragscale.evaluation import HarnessLM, TorchModel
from ragscale.evaluation._harness_pairs import _cut, score_pairs

PARTS = ["low", "er", " the", " quick", "\n", ":", " C", "  ", "é", "日", "fox", "."]


@pytest.fixture(scope="module")
def small(world, tokenizer):
    return TorchModel(world.make_module(tokenizer, max_length=48), tokenizer)


@pytest.fixture(scope="module")
def pairs():
    draw = random.Random(3)
    contexts = ["fox " * 80, "Question: Who?\nAnswer: ", "", "   ", "<eos>"]
    contexts += ["".join(draw.choices(PARTS, k=draw.randint(0, 60))) for _ in range(12)]
    return [(context, "".join(draw.choices(PARTS, k=draw.randint(1, 14)))) for context in contexts for _ in range(3)]


def test_no_score_depends_on_its_neighbours(small, pairs):
    together = score_pairs(small, pairs)
    for pair, (logprob, greedy) in zip(pairs, together, strict=True):
        [(alone, same)] = score_pairs(small, [pair])
        assert logprob == pytest.approx(alone, abs=1e-4)
        assert greedy == same
    backwards = score_pairs(small, pairs[::-1])[::-1]
    assert [one for one, _ in backwards] == pytest.approx([one for one, _ in together], abs=1e-4)
    assert score_pairs(small, []) == []


def test_pairs_are_cut_as_lm_eval_cuts_them(small, pairs):
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    small.tokenizer.pad_token = small.tokenizer.eos_token
    peer = HFLM(pretrained=small.module, tokenizer=small.tokenizer, max_length=48, batch_size=1)
    compared = 0
    for pair in pairs:
        if "<eos>" in pair[0]:
            continue  # lm-eval makes a special token of it
        request = [Instance("loglikelihood", {}, pair, 0)]
        try:
            logprob, greedy = peer.loglikelihood(request, disable_tqdm=True)[0]
        except AssertionError:
            continue
        got = HarnessLM(small).loglikelihood(request)[0]
        assert got[0] == pytest.approx(logprob, abs=1e-3), pair
        assert got[1] == greedy
        compared += 1
    assert compared > 35


def test_every_cut_fits_and_keeps_the_continuation_whole(small, pairs):
    for (context, continuation), (_, text) in zip(_cut(small, pairs), pairs, strict=True):
        assert len(context) >= 1
        assert 1 <= len(context) + len(continuation) - 1 <= 48
        assert text.strip() in small.decode([continuation])[0]


def test_what_cannot_be_scored_is_listed(small):
    with pytest.raises(ConfigError, match="continuation '' after 'a' has no token; the continuation 'fox fox"):
        score_pairs(small, [("a", ""), ("a", "fox " * 60), ("a", "b")])
    with pytest.raises(ConfigError, match="continuation '' after '' has no token"):
        score_pairs(small, [("", "")])
