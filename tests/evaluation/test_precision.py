"""Narrow number formats and the fast forward passes: what they may change, who decides, and what is recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ragscale as rs
from ragscale.errors import ConfigError
from ragscale.evaluation import Score, ScoreRequest, TorchModel
from ragscale.evaluation._cached_body import CachedBody
from ragscale.evaluation._logprobs import NarrowHead, log_sum_exp
from ragscale.evaluation._olmo2 import Olmo2Body
from ragscale.evaluation._precision import SAMPLE, TIMED, Precision, choose, difference
from ragscale.evaluation._steps import collate_steps, hidden_in_steps
from ragscale.evaluation._tree import plain_rows, tree_row


def requests(n, vocabulary, seed=0, longest=40, most_branches=5):
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return tuple(rng.integers(vocabulary, size=rng.integers(low, high)).tolist())

    return [
        ScoreRequest(draw(1, longest), tuple(draw(1, 7) for _ in range(rng.integers(1, most_branches + 1))))
        for _ in range(n)
    ]


def values(scores):
    return np.concatenate([score.logprobs for score in scores])


def plainly(module, tokenizer, asked, **options):
    return values(TorchModel(module, tokenizer, tree=False, **options).score(asked))


# ------------------------------------------------------------------------------------------------------ forward passes


@pytest.mark.parametrize("n_key_heads", [4, 2])
def test_own_forward_gives_the_hidden_states_of_hugging_face(world, tokenizer, n_key_heads):
    module = world.make_module(tokenizer) if n_key_heads == 4 else _grouped(tokenizer, n_key_heads)
    assert Olmo2Body.fits(module)
    tokens = torch.randint(len(tokenizer), (3, 21), generator=torch.Generator().manual_seed(0))
    columns = torch.tensor([[20, 3], [7, 7], [0, 19]])
    with torch.inference_mode():
        expected = module.base_model(input_ids=tokens).last_hidden_state
        body = Olmo2Body(module, torch.float32)
        found, kept = body(tokens, None, keep=True)
        cut, _ = body(tokens, columns)
        assert torch.allclose(found, expected, atol=2e-5)
        assert torch.allclose(cut, expected[torch.arange(3)[:, None], columns], atol=2e-5)
        # the rest of a text over what was kept of its beginning
        _, before = body(tokens[:, :9], None, keep=True)
        mask = torch.ones(12, 21, dtype=torch.bool).tril(9).expand(3, 12, 21)
        positions = torch.arange(9, 21)[None].expand(3, -1)
        rest, _ = body(tokens[:, 9:], None, positions_BL=positions, mask_BLK=mask, before=before)
        assert torch.allclose(rest, expected[:, 9:], atol=2e-5)
    assert len(kept) == len(module.base_model.layers)


def _grouped(tokenizer, n_key_heads):
    from transformers import Olmo2Config, Olmo2ForCausalLM

    torch.manual_seed(3)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": n_key_heads, "vocab_size": len(tokenizer), "initializer_range": 0.3}
    shape |= {"pad_token_id": None, "bos_token_id": None, "eos_token_id": 0, "max_position_embeddings": 512}
    return Olmo2ForCausalLM(Olmo2Config(**shape)).eval()


def test_own_forward_is_for_what_it_knows_only(world, tokenizer):
    module = world.make_module(tokenizer)
    assert Olmo2Body.fits(module)
    handle = module.base_model.layers[0].register_forward_hook(lambda *a: None)
    assert not Olmo2Body.fits(module)
    handle.remove()
    assert not Olmo2Body.fits(world.make_module(tokenizer, attention_bias=True))
    assert not Olmo2Body.fits(module.to(torch.bfloat16))
    assert not Olmo2Body.fits(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("multiple", [1, 64])
@pytest.mark.parametrize(("name", "room"), [("own", False), ("own", True), ("cached", False)])
def test_two_steps_give_what_separate_rows_give(module, tokenizer, name, room, multiple):
    asked = requests(9, len(tokenizer), seed=1)
    rows, owner = [], 0
    for request in asked:
        rows.append(tree_row(request, owner))
        owner += len(request.continuations)
    body = Olmo2Body(module, torch.float32) if name == "own" else CachedBody(module)
    with torch.inference_mode():
        steps = collate_steps(rows, torch.device("cpu"), multiple=multiple, longest=512, room=room)
        assert steps.context_BC.shape[1] % multiple == 0
        found = hidden_in_steps(body, steps)
        expected = torch.cat([_alone(module, request) for request in asked])
    assert torch.allclose(found, expected, atol=3e-5)


def test_compiled_contexts_of_all_batches_share_one_graph(module, tokenizer, monkeypatch):
    from torch._dynamo.testing import CompileCounter

    graphs, compile_ = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, backend=graphs, **options))
    asked = [
        ScoreRequest(r.context * 12, r.continuations)
        for r in requests(12, len(tokenizer), seed=4)
        if len(r.context) > 7
    ]
    lm = TorchModel(module, tokenizer, precision="float32", compile=True, batch_tokens=1200)
    found = values(lm.score(asked))
    assert lm.path == {"way": "steps", "body": "Olmo2Body", "compiled": True, "shares_prefixes": False}
    assert graphs.frame_count == 1
    assert found == pytest.approx(plainly(module, tokenizer, asked), abs=2e-4)


def _alone(module, request):
    """The hidden states at the needed positions of one request: a forward for each continuation."""
    n, parts = len(request.context), []
    for continuation in request.continuations:
        tokens = torch.tensor([request.context + continuation[:-1]])
        hidden = module.base_model(input_ids=tokens).last_hidden_state[0]
        if not parts:
            parts.append(hidden[n - 1 : n])
        parts.append(hidden[n:])
    return torch.cat(parts)


@pytest.mark.parametrize("name", ["GPT2", "Llama", "Mistral"])
def test_any_hugging_face_model_runs_in_two_steps(name, tokenizer):
    import transformers

    torch.manual_seed(0)
    shape = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    shape["initializer_range"] = 0.3
    if name == "GPT2":
        shape |= {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 60}
    else:
        shape |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        shape |= {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 60}
    if name == "Mistral":
        shape["sliding_window"] = 24
    model_class = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    module = getattr(transformers, model_class)(getattr(transformers, f"{name}Config")(**shape)).eval()
    asked = requests(12, len(tokenizer), seed=8, longest=45)
    lm = TorchModel(module, tokenizer, max_length=60)
    lm.score(asked[:1])
    scorer = lm._prepared()
    scorer._bodies, scorer.way = {"float32": CachedBody(module)}, "steps"  # what a GPU takes
    assert values(lm.score(asked)) == pytest.approx(plainly(module, tokenizer, asked, max_length=60), abs=2e-4)


def test_a_text_without_branches_is_one_causal_row(module, tokenizer, lm):
    asked = [ScoreRequest((0,), (tuple(range(1, 90)),)), ScoreRequest(tuple(range(50)), ((3, 4),))]
    assert [row.n_causal for row in plain_rows(asked)] == [89, 51]
    assert values(lm.score(asked)) == pytest.approx(plainly(module, tokenizer, asked), abs=1e-4)
    assert lm._prepared().way == "steps"


# ----------------------------------------------------------------------------------------------------------- precision


def test_auto_is_float32_on_a_cpu_and_the_evaluation_says_so(module, tokenizer, choice_task):
    task = choice_task.limit(4)
    auto = rs.evaluate(TorchModel(module, tokenizer), task)
    assert auto.info["precision"] == {"asked": "auto", "used": "float32", "measured": {}, "seconds": {}}
    assert auto.info["path"] == {"way": "steps", "body": "Olmo2Body", "compiled": False, "shares_prefixes": True}
    assert set(auto.samples["precision"]) == {"float32"}
    exact = rs.evaluate(TorchModel(module, tokenizer), task, precision="float32")
    assert exact.samples["logprobs"].tolist() == auto.samples["logprobs"].tolist()


def test_what_was_asked_for_runs_and_is_recorded(module, tokenizer, choice_task, tmp_path):
    task = choice_task.limit(6)
    exact = rs.evaluate(module, task, tokenizer=tokenizer, out=tmp_path)
    narrow = rs.evaluate(module, task, tokenizer=tokenizer, precision="bf16", out=tmp_path)
    assert narrow.info["precision"]["used"] == "bf16"
    apart = np.abs(np.subtract(exact.samples["logprobs"].tolist(), narrow.samples["logprobs"].tolist()))
    assert 0 < apart.max() < 1.5  # other numbers, from other files: not those of float32 read again
    again = rs.evaluate(module, task, tokenizer=tokenizer, precision="bf16", out=tmp_path)
    assert again.info["precision"]["used"] == "bf16"
    assert again.samples["logprobs"].tolist() == narrow.samples["logprobs"].tolist()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("tree", [None, False])
def test_narrow_scores_are_close(module, tokenizer, precision, tree):
    asked = requests(20, len(tokenizer), seed=2)
    exact = TorchModel(module, tokenizer, precision="float32").score(asked)
    narrow = TorchModel(module, tokenizer, precision=precision, tree=tree).score(asked)
    found = difference(asked, exact, narrow)
    assert 0 < found.nats_per_token < (0.2 if precision == "bf16" else 0.03)
    assert found.n_requests == 20


def test_a_head_of_another_class_is_called_in_its_own_type(world, tokenizer):
    class Head(torch.nn.Linear):
        pass

    module = world.make_module(tokenizer)
    module.lm_head.__class__ = Head
    asked = requests(10, len(tokenizer), seed=3)
    exact = TorchModel(module, tokenizer).score(asked)
    lm = TorchModel(module, tokenizer, precision="bf16")
    assert 0 < difference(asked, exact, lm.score(asked)).nats_per_token < 0.2
    assert lm._prepared().way == "masked"


def test_logits_of_a_narrow_head_are_summed_in_float32():
    torch.manual_seed(0)
    head = torch.nn.Linear(64, 500)
    hidden = torch.randn(40, 64)
    with torch.inference_mode():
        found = NarrowHead(head, torch.bfloat16)(hidden)
        rounded = torch.nn.functional.linear(*(t.bfloat16().double() for t in (hidden, head.weight))) + head.bias
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), rounded.double(), atol=1e-5)
    total, top = log_sum_exp(found)
    assert torch.allclose(total, torch.logsumexp(found.double(), -1).float(), atol=1e-5)
    assert torch.equal(top, found.amax(-1))


def scored(asked, change):
    return [Score(tuple(change(i, len(c)) for c in r.continuations), (False,)) for i, r in enumerate(asked)]


def test_auto_takes_a_format_only_where_the_difference_is_small():
    asked = [ScoreRequest((1,), ((1, 2), (3, 4, 5, 6))) for _ in range(400)]

    def score(few, precision, apart, n_turned):
        exact = scored(few, lambda i, n: -float(n))
        if precision == "float32":
            return exact
        moved = [Score(tuple(v - apart * abs(v) for v in one.logprobs), one.greedy) for one in exact]
        return [Score(one.logprobs[::-1], one.greedy) if i < n_turned else one for i, one in enumerate(moved)]

    def chosen(**error):
        return choose(asked, lambda few, precision: score(few, precision, **error), ("bf16",))

    good = chosen(apart=1.9e-3, n_turned=0)
    assert (good.used, good.asked) == ("bf16", "auto")
    assert good.measured["bf16"].nats_per_token == pytest.approx(1.9e-3)
    assert good.measured["bf16"].n_requests == SAMPLE
    far = chosen(apart=2.1e-3, n_turned=0)
    assert far.used == "float32"
    assert far.as_dict()["measured"]["bf16"]["nats_per_token"] == pytest.approx(2.1e-3)
    turned = chosen(apart=0.0, n_turned=2)
    assert turned.used == "float32"
    assert turned.measured["bf16"].same_rank == pytest.approx(1 - 2 / SAMPLE)
    assert choose(asked, score, ()).used == "float32"  # no candidates: a CPU


def test_auto_goes_on_to_the_next_format_and_a_value_that_is_not_finite_counts_as_far():
    asked = [ScoreRequest((1,), ((1,), (2,)))]
    found = {"float32": (-1.0, -2.0), "bf16": (-1.0, float("nan")), "fp16": (-1.0, -2.0)}
    chosen = choose(asked, lambda few, name: [Score(found[name], (True, False))], ("bf16", "fp16"))
    assert chosen.used == "fp16"
    assert chosen.measured["bf16"].nats_per_token == np.inf


@pytest.mark.parametrize(
    ("seconds", "used"),
    [
        ({"float32": 1.36, "bf16": 2.07, "fp16": 1.8}, "float32"),  # 38M on an H200, which waits for launches
        ({"float32": 5.0, "bf16": 1.0, "fp16": 1.0}, "bf16"),
        ({"float32": 2.0, "bf16": 2.0, "fp16": 1.9}, "fp16"),
    ],
)
def test_auto_takes_no_format_that_is_not_quicker(seconds, used):
    asked = [ScoreRequest((i,), ((1,), (2,))) for i in range(300)]
    now, calls = [0.0], []

    def score(few, name):
        calls.append((name, len(few)))
        now[0] += seconds[name]
        return [Score((-1.0, -2.0), (True, False)) for _ in few]

    chosen = choose(asked, score, ("bf16", "fp16"), clock=lambda: now[0])
    assert chosen.used == used
    tried = [name for name, n in calls if n == SAMPLE]
    assert chosen.as_dict()["seconds"] == pytest.approx({name: seconds[name] for name in tried})
    # each is scored whole before a part of it is timed
    assert calls == [call for name in tried for call in ((name, SAMPLE), (name, TIMED))]
    assert choose(asked, score, ("bf16", "fp16")).used == "bf16"  # not timed


def test_an_evaluation_that_goes_on_keeps_its_precision(module, tokenizer, choice_task, retriever, tmp_path):
    def evaluate(lm, stores):
        return rs.evaluate(lm, choice_task.limit(4), retriever=retriever, store_tokens=stores, out=tmp_path)

    first = TorchModel(module, tokenizer)
    first.precision_chosen = Precision("auto", "fp16")  # as measured on a GPU
    assert set(evaluate(first, [0]).samples["precision"]) == {"fp16"}
    again = evaluate(TorchModel(module, tokenizer), [0, 420])
    assert again.samples["precision"].tolist() == ["fp16"] * 8
    assert again.info["precision"]["used"] == "fp16"


def test_auto_measures_with_the_model_itself(module, tokenizer):
    lm = TorchModel(module, tokenizer)
    asked = requests(30, len(tokenizer), seed=4)
    with torch.inference_mode():
        chosen = choose(asked, lm._prepared().score, ("bf16", "fp16"))
    assert set(chosen.measured) == {"bf16", "fp16"}  # weights this large leave no doubt about bf16
    assert chosen.measured["fp16"].nats_per_token < chosen.measured["bf16"].nats_per_token


def test_what_overflows_in_fp16_is_scored_in_float32(world, tokenizer, caplog):
    module = world.make_module(tokenizer)
    with torch.no_grad():
        for layer in module.base_model.layers:
            layer.mlp.up_proj.weight *= 1e5
    asked = requests(5, len(tokenizer), seed=5)
    found = TorchModel(module, tokenizer, precision="fp16").score(asked)
    assert values(found) == pytest.approx(values(TorchModel(module, tokenizer).score(asked)), abs=1e-5)
    assert "overflowed" in caplog.text


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_weights_that_change_are_followed(world, tokenizer, precision):
    module = world.make_module(tokenizer)
    asked = requests(3, len(tokenizer), seed=6)
    lm = TorchModel(module, tokenizer, precision=precision)
    before = values(lm.score(asked))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)
    after = values(lm.score(asked))
    assert after == pytest.approx(values(TorchModel(module, tokenizer, precision=precision).score(asked)), abs=1e-6)
    assert np.abs(after - before).max() > 1e-2


def test_precisions_that_do_not_exist_or_do_not_apply_are_refused(module, tokenizer, choice_task):
    with pytest.raises(ConfigError, match="precision must be among 'auto', 'float32', 'bf16', 'fp16', got 'int8'"):
        TorchModel(module, tokenizer, precision="int8")

    from ragscale.evaluation import LanguageModel

    class Own(LanguageModel):
        max_length, prefix_token = 64, 0
        _encode = _decode = _score = _generate = lambda self, *a: []

    with pytest.raises(ConfigError, match="precision='bf16' is for torch models; Own"):
        rs.evaluate(Own(), choice_task, precision="bf16")


def test_a_narrow_precision_is_part_of_the_fingerprint(module, tokenizer):
    lm = TorchModel(module, tokenizer)
    exact = lm.fingerprint()
    assert TorchModel(module, tokenizer, precision="float32").fingerprint() == exact  # "auto" on a CPU
    lm.use_precision("bf16")
    assert lm.fingerprint() != exact
