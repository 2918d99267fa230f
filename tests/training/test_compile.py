"""Compiling and capturing: decided by the plan, one graph for all blocks, no noise, and states written into place."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ragscale as rs
from ragscale.errors import ConfigError
from ragscale.training import ModelConfig, TrainConfig, use_ragscale_attention
from ragscale.training._capture import CapturedStep, difference
from ragscale.training._compile import compile_decoder, compiling, worth_compiling
from ragscale.training._engine import Engine
from ragscale.training._processes import Processes

H100 = 989e12


def steps_worth_compiling(model: ModelConfig, config: TrainConfig) -> int:
    """Return the smallest power of two of steps for which compilation pays."""
    return next(n for n in (2**i for i in range(40)) if worth_compiling(model, config, n, peak=H100))


def test_a_run_of_two_million_tokens_is_not_compiled_and_a_long_one_is() -> None:
    small = ModelConfig.custom(n_layers=6, d_model=320, n_heads=5, d_ff=1280, vocab_size=8192)
    config = TrainConfig(seq_len=512, batch_tokens=8192)
    assert not worth_compiling(small, config, 2_000_000 // 8192, peak=H100)
    assert worth_compiling(small, config, 61_000_000 // 8192, peak=H100)
    large, batch = ModelConfig.olmo2("728M"), TrainConfig(seq_len=4096, batch_tokens=2**20)
    assert not worth_compiling(large, batch, 1, peak=H100)
    assert worth_compiling(large, batch, 100, peak=H100)


def test_slower_devices_and_larger_models_compile_sooner() -> None:
    config = TrainConfig(seq_len=4096, batch_tokens=2**18)
    small, large = ModelConfig.olmo2("30M"), ModelConfig.olmo2("1B")
    assert steps_worth_compiling(large, config) < steps_worth_compiling(small, config)
    n = steps_worth_compiling(large, config) // 2
    assert worth_compiling(large, config, n, peak=H100 / 4)
    assert not worth_compiling(large, config, n, peak=H100)


def test_deterministic_runs_are_compiled_whatever_is_left_of_them() -> None:
    # a branch of two million tokens and the trunk that it leaves must be of one arithmetic
    config = TrainConfig(seq_len=512, batch_tokens=8192, deterministic=True)
    assert worth_compiling(ModelConfig.olmo2("1M"), config, 1, peak=H100)


def test_twelve_blocks_share_one_graph() -> None:
    model: Any = ModelConfig.custom(n_layers=12, d_model=16, n_heads=2, d_ff=16, vocab_size=16).build()
    use_ragscale_attention(model)
    graphs: list[object] = []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    with compiling():
        for block in model.model.layers:
            block.compile(dynamic=False, fullgraph=True, backend=count)
        model.model(torch.zeros(1, 8, dtype=torch.long), use_cache=False)
    assert len(graphs) == 1
    torch._dynamo.reset()


def test_blocks_are_what_is_compiled_unless_the_stack_is_asked_for() -> None:
    def compiled(stack: bool) -> tuple[bool, set[bool]]:
        decoder: Any = ModelConfig.custom(n_layers=2, d_model=16, n_heads=2, d_ff=16, vocab_size=16).build().model
        compile_decoder(decoder, stack=stack)
        has = [part._compiled_call_impl is not None for part in (decoder, *decoder.layers)]
        return has[0], set(has[1:])

    assert compiled(stack=False) == (False, {True})
    assert compiled(stack=True) == (True, {False})


def test_ten_models_in_one_process_stay_compiled() -> None:
    """By default dynamo gives up on a piece of code after eight shapes and runs it uncompiled."""
    graphs: list[object] = []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    for width in range(1, 11):
        model: Any = ModelConfig.custom(n_layers=1, d_model=8 * width, n_heads=2, d_ff=16, vocab_size=16).build()
        use_ragscale_attention(model)
        with compiling():
            model.model.layers[0].compile(dynamic=False, backend=count)
            model.model(torch.zeros(1, 8, dtype=torch.long), use_cache=False)
    assert len(graphs) == 10
    torch._dynamo.reset()


def test_only_torchs_own_warnings_are_kept_from_the_user() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with compiling():
            warnings.warn("TensorFloat32 tensor cores for float32 matrix multiplication available", stacklevel=1)
            warnings.warn("a warning of the user's own", stacklevel=1)
    assert [str(one.message) for one in caught] == ["a warning of the user's own"]


def test_compile_takes_four_values() -> None:
    for value in (None, True, False, "stack"):
        assert TrainConfig(compile=value).compile == value  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"compile must be None, True, False or 'stack', got 'blocks'"):
        TrainConfig(compile="blocks")  # type: ignore[arg-type]


def test_a_cuda_graph_is_without_effect_on_a_cpu(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path
) -> None:
    weights = []
    for graph in (False, True):
        settings = config.replace(cuda_graph=graph)
        [checkpoint] = rs.train(model, stream, settings, tokens=1_000, out=tmp_path / str(graph), device="cpu")
        weights.append(load_file(checkpoint.path / "model.safetensors"))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_loaded_state_is_written_into_the_tensors_that_are_there(model: ModelConfig, config: TrainConfig) -> None:
    """A captured step knows tensors by their place; a state without moments is a fresh optimiser."""
    complete = config.replace(betas=(0.9, 0.95))
    engines = [Engine(model, complete, Processes(0, 1, torch.device("cpu"))) for _ in range(2)]
    ids = torch.randint(0, 64, (4, 17), generator=torch.Generator().manual_seed(0))
    batch = (ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), 64, 1e-3)
    fresh = engines[0].state()
    for _ in range(3):
        engines[0].step(*batch)
    trained = engines[0].state()
    places = [tensor.data_ptr() for tensor in engines[0]._changed_tensors()]
    for state in (trained, fresh):
        engines[0].load_state(state)
        engines[1].load_state(state)
        for engine in engines:
            engine.step(*batch)
        first, second = engines[0].state(), engines[1].state()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        engines[1] = Engine(model, complete, Processes(0, 1, torch.device("cpu")))
    assert [tensor.data_ptr() for tensor in engines[0]._changed_tensors()] == places


def test_a_replay_that_goes_elsewhere_is_noticed() -> None:
    before, usual = [torch.zeros(100)], [torch.ones(100)]
    result = torch.tensor([2.0, 1.0, 0.0])
    assert difference(before, [torch.ones(100) * 1.001], usual, result, result) is None
    assert "moved the weights" in str(difference(before, [torch.zeros(100)], usual, result, result))
    assert "moved the weights" in str(difference(before, [torch.full((100,), torch.nan)], usual, result, result))
    assert "returned" in str(difference(before, usual, usual, result * 1.1, result))


def test_part_batches_are_never_replayed() -> None:
    calls: list[int] = []

    def step(inputs: torch.Tensor, targets: torch.Tensor, n_targets: int) -> torch.Tensor:
        calls.append(n_targets)
        return inputs.sum()

    captured = CapturedStep(step, list, 64)
    ids = torch.zeros(4, 16)
    for _ in range(9):
        captured(ids, ids, 63)
    assert calls == [63] * 9
    assert captured.state == "warming up"
