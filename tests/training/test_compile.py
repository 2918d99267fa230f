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
from ragscale.training._compile import compile_decoder, compiling, worth_capturing, worth_compiling
from ragscale.training._engine import Engine
from ragscale.training._processes import Processes

H100 = 989e12


def steps_worth_compiling(model: ModelConfig, config: TrainConfig) -> int:
    """Return the smallest power of two of steps for which compilation pays."""
    return next(n for n in (2**i for i in range(40)) if worth_compiling(model, config, n, peak=H100))


def test_a_run_of_two_million_tokens_is_not_compiled_and_a_long_one_is() -> None:
    small = ModelConfig.custom(n_layers=6, d_model=320, n_heads=5, d_ff=1280, vocab_size=8192)
    config = TrainConfig(seq_len=512, batch_tokens=16_384)
    assert not worth_compiling(small, config, 2_000_000 // 16_384, peak=H100)
    assert worth_compiling(small, config, 61_000_000 // 16_384, peak=H100)
    large, batch = ModelConfig.olmo2("728M"), TrainConfig(seq_len=4096, batch_tokens=2**20)
    assert worth_compiling(large, batch, 100, peak=H100)


def test_steps_that_wait_for_launches_are_compiled_sooner() -> None:
    model, config = ModelConfig.olmo2("1M"), TrainConfig(seq_len=512, batch_tokens=16_384)
    captured = steps_worth_compiling(model, config)
    for waiting in ({"cuda_graph": False}, {"document_mask": True}):
        assert steps_worth_compiling(model, config.replace(**waiting)) < captured


def test_small_steps_are_captured_and_large_ones_not() -> None:
    config = TrainConfig(seq_len=4096, batch_tokens=16 * 4096)
    worth = {
        name: worth_capturing(ModelConfig.olmo2(name), config, peak=H100) for name in ("1M", "30M", "136M", "233M")
    }
    assert worth == {"1M": True, "30M": True, "136M": False, "233M": False}
    assert worth_capturing(ModelConfig.olmo2("136M"), config.replace(batch_tokens=4 * 4096), peak=H100)
    assert not worth_capturing(ModelConfig.olmo2("1M"), config.replace(document_mask=True), peak=H100)


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
    assert difference(before, result, [torch.ones(100) * 1.001], result, usual) is None
    assert "moved the weights" in str(difference(before, result, [torch.zeros(100)], result, usual))
    assert "moved the weights" in str(difference(before, result, [torch.full((100,), torch.nan)], result, usual))
    assert "returned" in str(difference(before, result * 1.1, usual, result, usual))


class OnCpu(CapturedStep):
    """A captured step whose graph is the step itself, done ``times`` times; a graph of CUDA's cannot be made here."""

    times = 1
    replays = 0

    def _capture(self, inputs: torch.Tensor, targets: torch.Tensor) -> Any:
        def replay(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            OnCpu.replays += 1
            return [self._step(inputs, targets, self._n_targets) for _ in range(self.times)][-1]

        if not self.times:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return replay


@pytest.mark.parametrize("times", [1, 2, 0])
def test_training_goes_the_same_way_whether_a_capture_works_goes_wrong_or_fails(
    model: ModelConfig, config: TrainConfig, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = config.replace(betas=(0.9, 0.95))
    usual, captured = (Engine(model, complete, Processes(0, 1, torch.device("cpu"))) for _ in range(2))
    captured.captured = OnCpu(captured._whole_step, captured._changed_tensors, 64)
    monkeypatch.setattr(OnCpu, "times", times)
    monkeypatch.setattr(OnCpu, "replays", 0)
    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(12):
            ids = torch.randint(0, 64, (4, 17), generator=generator)
            n_targets = 63 if step == 8 else 64
            batch = (ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), n_targets, 1e-3 * (1 + step % 3))
            assert torch.equal(usual.step(*batch), captured.step(*batch))
    first, second = usual.state(), captured.state()
    assert all(torch.equal(first[name], second[name]) for name in first)
    words = [str(one.message) for one in caught]
    if times == 1:
        # three steps to warm up, one to compare, seven whole batches after that
        assert (captured.captured.state, OnCpu.replays, words) == ("replaying", 8, [])
    else:
        [word] = words
        assert ("moved the weights differently" if times else "operation not permitted") in word or "returned" in word
        assert "only makes it slower" in word
        assert captured.captured.state.startswith("off")
        assert OnCpu.replays == (1 if times else 0)


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
