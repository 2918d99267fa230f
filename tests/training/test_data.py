"""Which tokens a step reads, and whose attention they get."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.training import ModelConfig, TrainConfig, make_plan, use_ragscale_attention
from ragscale.training._attention import document_mask
from ragscale.training._data import Order, open_source, prefetch


def order(
    n_tokens: int, *, rows: int = 2, rank: int = 0, world: int = 1, repeat: bool = False, longest: int = 2
) -> Order:
    source = open_source(np.arange(n_tokens), longest, repeat=repeat)
    return Order(source, seq_len=4, batch_rows=rows, seed=0, vocab_size=10**6, rank=rank, world=world)


@given(n_tokens=st.integers(2, 80), rows=st.integers(1, 3))
def test_exactly_d_tokens_are_read_each_once(n_tokens: int, rows: int) -> None:
    steps = range(max(1, -(-(n_tokens - 1) // (4 * rows))))
    batches = [order(n_tokens, rows=rows).load(step, n_tokens) for step in steps]
    targets = np.concatenate([targets.ravel() for _, targets in batches])
    assert targets[targets >= 0].tolist() == list(range(1, n_tokens))
    inputs = np.concatenate([inputs.ravel() for inputs, _ in batches])
    assert inputs[targets >= 0].tolist() == list(range(n_tokens - 1))
    counted = [order(n_tokens, rows=rows).n_targets(step, n_tokens) for step in steps]
    assert counted == [int((targets >= 0).sum()) for _, targets in batches]


def test_a_trunk_and_a_branch_read_the_same_tokens() -> None:
    for step in range(3):
        for a, b in zip(order(100).load(step, None), order(100).load(step, 50), strict=True):
            assert (a == b).all()


@given(
    n_tokens=st.integers(2, 4_000),
    longer=st.integers(0, 4_000),
    fraction=st.sampled_from([0.02, 0.1, 0.2, 1.0]),
    rows=st.integers(1, 5),
)
def test_shuffled_rows_are_still_the_first_d_tokens_of_every_d(
    n_tokens: int, longer: int, fraction: float, rows: int
) -> None:
    config = TrainConfig(
        seq_len=4, batch_tokens=4 * rows, decay_fraction=fraction, warmup_steps=1, allow_short_runs=True
    )
    model = ModelConfig.custom(n_layers=1, d_model=4, n_heads=1, d_ff=4, vocab_size=4)
    plan = make_plan(model, config, n_tokens)
    source = open_source(np.arange(n_tokens + longer), 2)
    run = Order(source, seq_len=4, batch_rows=rows, seed=3, vocab_size=10**6, share=config.window_share)
    seen: list[int] = []
    for step in range(plan.steps(n_tokens)):
        # the trunk knows no D, and must read what a run of this D alone would have read
        inputs, targets = run.load(step, None if step < plan.segments[-1].start else n_tokens)
        seen += targets[targets >= 0].tolist()
        assert (targets >= 0).sum() == run.n_targets(step, n_tokens)
        assert (targets[targets >= 0] == inputs[targets >= 0] + 1).all()
    assert sorted(seen) == list(range(1, n_tokens))


def test_rows_of_a_batch_come_from_different_places() -> None:
    source = open_source(np.arange(40_000), 2)
    run = Order(source, seq_len=4, batch_rows=4, seed=0, vocab_size=10**6, share=0.05)
    places = run.load(2_000, None)[0][:, 0]
    assert np.abs(np.diff(places)).min() > 4
    assert np.abs(places - 2_000 * 16).max() < 0.06 * 2_000 * 16
    other = Order(source, seq_len=4, batch_rows=4, seed=1, vocab_size=10**6, share=0.05)
    assert (other.load(2_000, None)[0][:, 0] != places).any()


def test_processes_share_the_rows_of_a_step() -> None:
    whole, _ = order(100, rows=4).load(2, None)
    parts = [order(100, rows=4, rank=rank, world=2).load(2, None)[0] for rank in range(2)]
    assert (np.concatenate(parts) == whole).all()


def test_repeated_epochs_read_every_block_once_in_a_new_order() -> None:
    # 41 tokens hold ten blocks of four with all their targets
    run = order(41, rows=1, repeat=True, longest=120)
    epochs = [[int(run.load(10 * epoch + i, 120)[0][0, 0]) for i in range(10)] for epoch in range(3)]
    assert epochs[0] == list(range(0, 40, 4))
    for epoch in epochs[1:]:
        assert sorted(epoch) == epochs[0]
        assert epoch != epochs[0]
    assert epochs[1] != epochs[2]
    assert [int(order(41, rows=1, repeat=True, longest=120).load(10 + i, 120)[0][0, 0]) for i in range(10)] == epochs[1]


def test_too_few_tokens_are_an_error_unless_repeats_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"D=200 asks for more than the 100 tokens.*repeat=True"):
        open_source(np.arange(100), 200)
    assert open_source(np.arange(100), 200, repeat=True).n_tokens == 100


@pytest.mark.parametrize("data", [np.zeros((3, 4), int), np.zeros(5), ["a", "b"], "text"])
def test_only_one_dimensional_integers_are_a_stream(data: Any) -> None:
    with pytest.raises(ConfigError, match="one-dimensional integers"):
        open_source(data, 2)


def test_a_split_is_asked_for_its_prefix_only(split: Any) -> None:
    source = open_source(split, 1234)
    assert split.asked == [1234]
    assert len(source.tokens) == 1234
    assert (source.n_tokens, source.digest, source.eos_id, source.vocab_size) == (20_000, "split-a", 0, 64)


def test_lists_and_tensors_are_streams() -> None:
    assert open_source([1, 2, 3], 3).n_tokens == 3
    assert open_source(torch.arange(5), 3).n_tokens == 5


def test_an_id_outside_the_vocabulary_names_the_step_and_the_fix() -> None:
    source = open_source(np.arange(100), 100)
    run = Order(source, seq_len=4, batch_rows=2, seed=0, vocab_size=20)
    run.load(0, None)
    with pytest.raises(ConfigError, match=r"step 2 holds token id 24.*vocab_size is 20.*at least 25"):
        run.load(2, None)


def test_prefetch_keeps_order_and_reads_ahead_in_one_thread() -> None:
    seen: list[tuple[int, bool]] = []

    def load(step: int) -> int:
        seen.append((step, threading.current_thread() is threading.main_thread()))
        return step

    batches = prefetch(load, range(3, 9))
    assert next(batches) == 3
    assert list(batches) == [4, 5, 6, 7, 8]
    assert seen == [(step, False) for step in range(3, 9)]


def test_prefetch_surfaces_the_error_at_its_batch() -> None:
    def load(step: int) -> int:
        if step == 2:
            raise ConfigError("bad text")
        return step

    batches = prefetch(load, range(5))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ConfigError, match="bad text"):
        next(batches)


@given(ids=st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_a_token_sees_its_own_document_so_far(ids: list[int]) -> None:
    [[mask]] = document_mask(torch.tensor([ids]), eos_id=0).tolist()
    for query in range(len(ids)):
        # the document of a token starts after the last end of text before it
        start = max((i + 1 for i in range(query) if ids[i] == 0), default=0)
        assert mask[query] == [start <= key <= query for key in range(len(ids))]


def test_documents_do_not_leak_into_each_other() -> None:
    model = ModelConfig.custom(n_layers=2, d_model=16, n_heads=2, d_ff=16, vocab_size=16).build()
    use_ragscale_attention(model)
    ids = torch.tensor([[3, 4, 5, 0, 6, 7, 8, 9]])
    other = ids.clone()
    other[0, :3] = torch.tensor([9, 9, 9])

    def hidden(tokens: torch.Tensor, *, masked: bool) -> torch.Tensor:
        extra = {"documents": document_mask(tokens, 0)} if masked else {}
        return model.model(input_ids=tokens, use_cache=False, **extra).last_hidden_state[:, 4:]

    assert torch.equal(hidden(ids, masked=True), hidden(other, masked=True))
    assert not torch.equal(hidden(ids, masked=False), hidden(other, masked=False))
    alone = model.model(input_ids=ids[:, 4:], use_cache=False).last_hidden_state
    torch.testing.assert_close(hidden(ids, masked=True), alone, atol=1e-5, rtol=1e-5)


def test_flex_attention_equals_the_dense_mask() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (2, 128)))
    q, k, v = torch.randn(3, 2, 2, 128, 16, generator=torch.Generator().manual_seed(0))
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=document_mask(ids, 0))
    block_mask = document_mask(ids, 0, flex=True)
    with pytest.warns(UserWarning, match="flex_attention called without torch.compile"):
        flex = flex_attention(q, k, v, block_mask=block_mask)
    torch.testing.assert_close(flex, dense, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("place", "wrong", "advice"), [(2500, 99, "at least 100"), (0, 64, "at least 65"), (7, -1, "0 to 63")]
)
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_an_id_that_is_none_of_the_models_is_refused_before_a_step(tmp_path, place, wrong, advice, dtype):
    import ragscale as rs

    tokens = np.random.default_rng(0).integers(0, 64, 3000).astype(dtype)
    tokens[place] = wrong
    model = rs.training.ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=32, vocab_size=64)
    config = rs.training.TrainConfig(seq_len=16, batch_tokens=16)
    run = {"tokens": 3000, "device": "cpu", "progress": False}
    message = rf"token stream at place {place:,} holds token id {wrong}\b.*{advice}"
    with pytest.raises(ConfigError, match=message):
        rs.train(model, tokens, config, out=tmp_path / "a", **run)
    good = np.where((tokens < 0) | (tokens > 63), 5, tokens)
    with pytest.raises(ConfigError, match=f"validation stream.*{advice}"):
        rs.train(model, good, config, out=tmp_path / "b", validation=tokens, **run)
    for folder in ("a", "b"):
        assert not list((tmp_path / folder).rglob("*.jsonl"))
