"""The scorer: a tree gives what separate rows give, whatever the batch, the device's memory or the module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.evaluation import LanguageModel, Score, ScoreRequest, TorchModel
from ragscale.testing import check_language_model


def requests(n, vocabulary, seed=0, longest=40):
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return tuple(rng.integers(vocabulary, size=rng.integers(low, high)).tolist())

    return [ScoreRequest(draw(1, longest), tuple(draw(1, 7) for _ in range(rng.integers(1, 6)))) for _ in range(n)]


def reference(module, request):
    """One forward over one row for every continuation, softmax over everything."""
    values = []
    for continuation in request.continuations:
        tokens = torch.tensor([request.context + continuation])
        with torch.no_grad():
            logprobs = module(tokens).logits[0].double().log_softmax(-1)
        first = len(request.context) - 1
        values.append(sum(logprobs[first + i, token].item() for i, token in enumerate(continuation)))
    return values


def values(scores):
    return np.concatenate([score.logprobs for score in scores])


class Bare(torch.nn.Module):
    """A causal model that is no Hugging Face model: (B, T) -> (B, T, V) by a GRU."""

    def __init__(self, vocabulary):
        super().__init__()
        torch.manual_seed(1)
        self.embedding = torch.nn.Embedding(vocabulary, 16)
        self.rnn = torch.nn.GRU(16, 16, batch_first=True)
        self.head = torch.nn.Linear(16, vocabulary)

    def forward(self, tokens):
        return self.head(self.rnn(self.embedding(tokens))[0])


def test_tree_scores_are_those_of_separate_rows(module, tokenizer, lm):
    asked = requests(12, len(tokenizer))
    scores = lm.score(asked)
    assert lm.scoring == "tree"
    for request, score in zip(asked, scores, strict=True):
        assert score.logprobs == pytest.approx(reference(module, request), abs=1e-4)
    plain = TorchModel(module, tokenizer, tree=False)
    assert values(plain.score(asked)) == pytest.approx(values(scores), abs=1e-4)
    assert plain.scoring.startswith("plain")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_both_attention_implementations_take_the_tree(world, tokenizer, implementation):
    module = world.make_module(tokenizer, attn_implementation=implementation)
    lm = TorchModel(module, tokenizer)
    request = requests(1, len(tokenizer))[0]
    assert lm.score([request])[0].logprobs == pytest.approx(reference(module, request), abs=1e-4)
    assert lm.scoring == "tree"


def test_scores_do_not_depend_on_batch_size_or_order(module, tokenizer):
    asked = requests(8, len(tokenizer), seed=3)
    expected = values(TorchModel(module, tokenizer, batch_tokens=100_000).score(asked))
    for batch_tokens in (1, 200):
        found = values(TorchModel(module, tokenizer, batch_tokens=batch_tokens).score(asked))
        assert found == pytest.approx(expected, abs=1e-4)
    backwards = TorchModel(module, tokenizer).score(asked[::-1])[::-1]
    assert values(backwards) == pytest.approx(expected, abs=1e-4)


def test_logits_in_pieces_change_nothing(tokenizer, lm):
    asked = requests(6, len(tokenizer), seed=4)
    expected = values(lm.score(asked))
    lm.logits_at_once = 5 * len(tokenizer)
    assert values(lm.score(asked)) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 3))
def test_a_continuation_may_be_scored_in_two_parts(module, tokenizer, seed, cut):
    lm = TorchModel(module, tokenizer)
    request = requests(1, len(tokenizer), seed=seed, longest=20)[0]
    whole = tuple(np.random.default_rng(seed).integers(len(tokenizer), size=4).tolist())
    context = request.context
    together = lm.score([ScoreRequest(context, (whole, whole[:cut]))])[0].logprobs
    rest = lm.score([ScoreRequest(context + whole[:cut], (whole[cut:],))])[0].logprobs[0]
    assert together[0] == pytest.approx(together[1] + rest, abs=1e-3)


class OutOfMemory(torch.nn.Module):
    """Wraps a model; more than ``room`` tokens at once do not fit."""

    def __init__(self, module, room):
        super().__init__()
        self.module, self.room, self.failures = module, room, 0

    def forward(self, tokens):
        if tokens.numel() > self.room:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.module(tokens).logits


def test_out_of_memory_halves_the_batch_and_goes_on(module, tokenizer):
    asked = requests(12, len(tokenizer), seed=5)
    wrapped = OutOfMemory(module, room=150)
    lm = TorchModel(wrapped, tokenizer, max_length=512, batch_tokens=4000)
    assert values(lm.score(asked)) == pytest.approx(values(TorchModel(module, tokenizer).score(asked)), abs=1e-4)
    assert wrapped.failures > 0
    assert lm.batch_tokens < 300
    failures = wrapped.failures
    lm.score(asked)
    assert wrapped.failures == failures  # it stays small
    prompts = [request.context for request in asked]
    texts = TorchModel(wrapped, tokenizer, max_length=512).generate(prompts, max_new_tokens=4)
    assert texts == TorchModel(module, tokenizer).generate(prompts, max_new_tokens=4)


def test_a_row_that_never_fits_and_other_errors_are_raised(module, tokenizer):
    request = ScoreRequest(tuple(range(1, 60)), ((1,),))
    with pytest.raises(ConfigError, match="one row of 59 tokens does not fit"):
        TorchModel(OutOfMemory(module, room=10), tokenizer, max_length=512).score([request])

    class Broken(torch.nn.Module):
        def forward(self, tokens):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        TorchModel(Broken(), tokenizer, max_length=512).score([request])


def test_any_module_is_scored_plainly(tokenizer):
    bare = Bare(len(tokenizer))
    lm = TorchModel(bare, tokenizer, max_length=64)
    asked = requests(5, len(tokenizer), seed=6)
    scores = lm.score(asked)
    assert lm.scoring.startswith("plain: not a Hugging Face model")
    for request, score in zip(asked, scores, strict=True):
        row = torch.tensor([request.context + request.continuations[0]])
        logprobs = bare(row)[0].log_softmax(-1)
        first = len(request.context) - 1
        expected = sum(logprobs[first + i, t].item() for i, t in enumerate(request.continuations[0]))
        assert score.logprobs[0] == pytest.approx(expected, abs=1e-4)
    assert lm.n_params == lm.n_params_total - bare.embedding.weight.numel()
    check_language_model(lm)


def test_attention_that_ignores_the_mask_is_found_out(world, tokenizer):
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def deaf(module, query, key, value, attention_mask, **kwargs):
        return sdpa_attention_forward(module, query, key, value, None, is_causal=True, **kwargs)

    AttentionInterface.register("deaf", deaf)
    AttentionMaskInterface.register("deaf", lambda *args, **kwargs: None)
    module = world.make_module(tokenizer)
    expected = values(TorchModel(module, tokenizer).score(requests(3, len(tokenizer))))
    module.set_attn_implementation("deaf")
    lm = TorchModel(module, tokenizer)
    assert values(lm.score(requests(3, len(tokenizer)))) == pytest.approx(expected, abs=1e-4)
    assert lm.scoring.startswith("plain: a 4-D mask changes")
    with pytest.raises(ConfigError, match="tree scoring was asked for"):
        TorchModel(module, tokenizer, tree=True).score(requests(1, len(tokenizer)))


@pytest.mark.parametrize("name", ["GPT2", "Gemma2", "Mistral"])
def test_other_architectures_give_their_own_numbers(name, tokenizer):
    import transformers

    torch.manual_seed(0)
    shape = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    if name == "GPT2":
        shape |= {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "initializer_range": 0.3}
    else:
        shape |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        shape |= {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 128, "initializer_range": 0.3}
        shape |= {"sliding_window": 24}  # shorter than some rows: these may not be trees
    config = getattr(transformers, f"{name}Config")(**shape)
    model_class = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    module = getattr(transformers, model_class)(config).eval()
    lm = TorchModel(module, tokenizer, max_length=128)
    asked = requests(6, len(tokenizer), seed=8, longest=45)
    for request, score in zip(asked, lm.score(asked), strict=True):
        assert score.logprobs == pytest.approx(reference(module, request), abs=2e-4)
    prompts = [request.context for request in asked]
    together = lm.generate(prompts, max_new_tokens=5)
    assert together == [lm.generate([prompt], max_new_tokens=5)[0] for prompt in prompts]


def test_the_module_keeps_its_mode(module, tokenizer, lm):
    module.train()
    lm.score(requests(1, len(tokenizer)))
    assert module.training
    module.eval()


def test_batched_generation_is_hugging_faces(module, tokenizer, lm):
    prompts = [request.context for request in requests(6, len(tokenizer), seed=9)]
    found = lm.generate(prompts, max_new_tokens=12)
    assert lm._decoder.cached
    for prompt, text in zip(prompts, found, strict=True):
        with torch.no_grad():
            ids = module.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=12,
                do_sample=False,
                pad_token_id=0,
            )
        assert text == tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)
    stop = next(text for text in found if text)[2:4]
    cut = lm.generate(prompts, max_new_tokens=12, stop=(stop,))
    assert cut == [text.split(stop)[0] for text in found]


def test_end_of_text_ends_an_answer(module, tokenizer):
    class Ends(torch.nn.Module):
        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, len(tokenizer))
            logits[..., 5] = 1
            logits[:, 6:, 0] = 2
            return logits

    lm = TorchModel(Ends(), tokenizer, max_length=64)
    assert lm.generate([(7, 7, 7)], max_new_tokens=10) == [tokenizer.decode([5] * 4)]


def test_what_does_not_fit_or_is_empty_is_refused(lm, tokenizer):
    with pytest.raises(ConfigError) as error:
        lm.score([ScoreRequest((), ((1,),)), ScoreRequest((1,), ((),)), ScoreRequest((1,) * 512, ((1, 2),))])
    assert "request 0" in str(error.value)
    assert "request 1" in str(error.value)
    assert "request 2 has 512 + 2 tokens, the model reads 512" in str(error.value)
    with pytest.raises(ConfigError, match="cannot generate 32 tokens"):
        lm.generate([(1,) * 490])
    with pytest.raises(ConfigError, match="max_length of Linear is not known"):
        TorchModel(torch.nn.Linear(2, 2), tokenizer)
    flat = TorchModel(torch.nn.Flatten(), tokenizer, max_length=8)
    with pytest.raises(ConfigError, match=r"expected \(B, T, V\) logits"):
        flat.score([ScoreRequest((1,), ((1,),))])
    assert lm.score([]) == []
    assert lm.generate([]) == []


def test_fingerprint_follows_the_weights(world, tokenizer):
    one, same, other = (world.make_module(tokenizer, seed=seed) for seed in (0, 0, 1))
    prints = [TorchModel(m, tokenizer).fingerprint() for m in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]
    with torch.no_grad():
        same.lm_head.weight += 1e-3
    assert TorchModel(same, tokenizer).fingerprint() != prints[0]


def test_params_are_counted_by_the_convention_of_n(module, tokenizer):
    lm = TorchModel(module, tokenizer)
    embedding = module.get_input_embeddings().weight.numel()
    assert lm.n_params == lm.n_params_total - embedding == sum(p.numel() for p in module.parameters()) - embedding


def test_bos_is_put_before_prompts_where_the_tokenizer_does(module, tokenizer):
    assert TorchModel(module, tokenizer).start == ()
    with pytest.raises(ConfigError, match="no BOS"):
        TorchModel(module, tokenizer, add_bos=True)


def test_our_models_keep_the_promises(lm):
    assert len(check_language_model(lm)) == 10


def score_with(value):
    """A model whose log-likelihood of a continuation is ``value(length, number of requests)``."""

    def _score(self, requests):
        n = len(requests)
        return [
            Score(tuple(value(len(c), n) for c in r.continuations), (False,) * len(r.continuations)) for r in requests
        ]

    return _score


class Uniform(LanguageModel):
    max_length, prefix_token = 64, 0
    _score = score_with(lambda length, n: -5.6 * length)

    def _encode(self, texts):
        return [list(text.encode()) for text in texts]

    def _decode(self, tokens):
        return [bytes(row).decode(errors="replace") for row in tokens]

    def _generate(self, prompts, max_new_tokens, stop):
        return ["" if "b" in stop else "b" * max_new_tokens for _ in prompts]


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"_score": score_with(lambda length, n: -0.1)}, "add up to"),
        ({"_score": score_with(lambda length, n: -5.6 * length - (n > 1))}, "scored beside it"),
        ({"_score": score_with(lambda length, n: -5.6 * length - 0.1 * length**2)}, "must be ln p"),
        ({"_generate": lambda self, prompts, n, stop: ["b" * n for _ in prompts]}, "with stop"),
        ({"_generate": lambda self, prompts, n, stop: ["b" * len(prompts) for _ in prompts]}, "depends on the batch"),
        ({"_decode": lambda self, tokens: ["" for _ in tokens]}, "decode"),
    ],
)
def test_a_broken_promise_is_named(changes, promise):
    check_language_model(Uniform)
    with pytest.raises(AssertionError, match=promise):
        check_language_model(type("Broken", (Uniform,), changes))
