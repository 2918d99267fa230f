"""Tokens from pieces: those of the whole text for every tokenizer, or else everything is encoded whole."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ragscale.evaluation import PromptTemplate, prepare_prompts
from ragscale.evaluation import _pieces as pieces_module
from ragscale.evaluation._pieces import Pieces


def counted(encode):
    seen = []

    def call(texts):
        seen.append(sum(map(len, texts)))
        return encode(texts)

    return call, seen


def encoder(tokenizer):
    return lambda texts: [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def long_texts(world, n, seed=0):
    rng = np.random.default_rng(seed)
    facts = [world.fact(i) for i in range(40)]
    strange = [
        "\u6771\u4eac " * 60,
        "no border " * 3 + "A" * 300,
        "the one\n\nthe  two " * 30,
        "\u00e9t\u00e9 the a " * 40,
        "",
    ]
    return strange + ["\n\n".join(facts[i] for i in rng.integers(40, size=5)) for _ in range(n)]


def test_pieces_give_the_tokens_of_the_whole(tokenizer, world):
    texts = long_texts(world, 30)
    pieces = Pieces(encoder(tokenizer))
    assert pieces.encode(texts) == encoder(tokenizer)(texts)
    assert pieces.works
    assert pieces.encode(texts[::-1]) == encoder(tokenizer)(texts[::-1])


def test_what_returns_in_many_texts_is_encoded_once(tokenizer, world):
    encode, seen = counted(encoder(tokenizer))
    pieces = Pieces(encode)
    for seed in range(6):
        pieces.encode(long_texts(world, 30, seed))
    before = len(seen)
    texts = long_texts(world, 30, 99)
    pieces.encode(texts)
    assert sum(seen[before:]) < 0.2 * sum(map(len, texts))


def test_a_tokenizer_that_looks_across_words_is_left_alone(world):
    """One that puts a mark before every text: each piece would get one."""
    words = {w: i for i, w in enumerate(sorted({c for i in range(40) for c in world.fact(i)} | {"\u2581", "?", "\n"}))}
    backend = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="?"))
    backend.normalizer = normalizers.Prepend("\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")
    texts = long_texts(world, 12)
    pieces = Pieces(encoder(tokenizer))
    assert pieces.encode(texts) == encoder(tokenizer)(texts)
    assert not pieces.works
    assert pieces.encode(texts) == encoder(tokenizer)(texts)


@pytest.mark.parametrize("options", [{}, {"max_length": 120}, {"template": PromptTemplate(passage_tokens=20)}])
def test_prompts_are_the_same_as_without_pieces(lm, choice_task, retriever, monkeypatch, options):
    asked = {"retriever": retriever, "store_tokens": [0, 900, retriever.n_tokens], "k": 4, "coverage": False, **options}
    found = prepare_prompts(choice_task, lm, **asked)
    monkeypatch.setattr(pieces_module, "_LONG", 10**9)
    expected = prepare_prompts(choice_task, lm, **asked)
    assert list(found.prompts) == list(expected.prompts)
    assert [p.requests for p in found.prompts.values()] == [p.requests for p in expected.prompts.values()]
