"""Tokens from pieces: those of the whole text for every tokenizer, or else everything is encoded whole."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ragscale.evaluation import PromptTemplate, TorchModel, prepare_prompts
from ragscale.evaluation import _pieces as pieces_module
from ragscale.evaluation._fitting_prompts import Fitter
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


class Slow(TorchModel):
    """Decodes as a tokenizer of any kind does, one text at a time."""

    def _decode(self, tokens):
        return [self.tokenizer.decode(list(row), skip_special_tokens=True) for row in tokens]


@pytest.mark.parametrize("options", [{"max_length": 120}, {"template": PromptTemplate(passage_tokens=20)}])
def test_passages_cut_together_are_those_cut_one_by_one(
    module, tokenizer, choice_task, retriever, monkeypatch, options
):
    def shorten(self, passages, n):
        texts = []
        for passage in passages:
            tokens = self.model.encode([passage])[0]
            text = self.model.decode([tokens[:n]])[0].rstrip("\N{REPLACEMENT CHARACTER}")
            assert passage.startswith(text)
            texts.append(text if len(tokens) > n else passage)
        return texts

    asked = {"retriever": retriever, "store_tokens": [900, retriever.n_tokens], "k": 4, "coverage": False, **options}
    found = prepare_prompts(choice_task, TorchModel(module, tokenizer), **asked)
    monkeypatch.setattr(Fitter, "_shorten", shorten)
    expected = prepare_prompts(choice_task, Slow(module, tokenizer), **asked)
    assert [p.requests for p in found.prompts.values()] == [p.requests for p in expected.prompts.values()]
    assert [cell.asked for cell in found.cells] == [cell.asked for cell in expected.cells]
    assert sum(a.cut.passages for cell in found.cells for a in cell.asked) > 40


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_cut_inside_a_character_ends_before_it(lm, n):
    fitter = Fitter(lm, PromptTemplate(), 512)
    texts = ["\u6771\u4eac tower", "\U0001f600\U0001f600", "<eos> is text", "plain words only here", ""]
    for text, short in zip(texts, fitter._shorten(texts, n), strict=True):
        assert text.startswith(short)
        assert len(lm.encode([short])[0]) <= n
        assert short == fitter._truncate(text, n)
    assert lm.decode([[5, 0, 6], []]) == Slow(lm.module, lm.tokenizer).decode([[5, 0, 6], []])
