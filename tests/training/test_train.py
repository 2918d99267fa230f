"""Training itself: branches, resuming, what is skipped, what is refused, what is reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ragscale as rs
from ragscale._files import read_json, write_json
from ragscale.errors import CheckpointError, ConfigError, OutOfMemory, RagscaleWarning
from ragscale.training import Checkpoint, ModelConfig, TrainConfig, evaluate_loss, read_metrics
from ragscale.training._checkpoint import find_state, read_state, write_state

Digest = Callable[[Path], str]
TOKENS = [3_000, 5_000]


class Stop(Exception):
    """Raised from `on_log` to interrupt a run."""


def stop_at(segment: str, step: int) -> Callable[[dict[str, Any]], None]:
    def check(row: dict[str, Any]) -> None:
        if row["segment"] == segment and row["step"] >= step:
            raise Stop

    return check


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, stream: np.ndarray, validation: np.ndarray) -> list[Checkpoint]:
    """One uninterrupted run of the settings that the fixtures `model` and `config` give."""
    model = ModelConfig.custom(n_layers=1, d_model=32, n_heads=2, d_ff=64, vocab_size=64, max_seq_len=64)
    config = TrainConfig(
        seq_len=16,
        batch_tokens=64,
        learning_rate=5e-3,
        warmup_steps=4,
        precision="fp32",
        allow_short_runs=True,
        log_every=5,
        save_minutes=1e6,
    )
    out = tmp_path_factory.mktemp("reference")
    return rs.train(model, stream, config, tokens=TOKENS, out=out, validation=validation, device="cpu")


def test_a_branch_equals_a_run_of_its_own(
    reference: list[Checkpoint],
    model: ModelConfig,
    config: TrainConfig,
    stream: np.ndarray,
    tmp_path: Path,
    weights_digest: Digest,
) -> None:
    for branch in reference:
        [alone] = rs.train(
            model, stream, config, tokens=branch.n_tokens, out=tmp_path / str(branch.n_tokens), device="cpu"
        )
        assert weights_digest(alone.path) == weights_digest(branch.path)


def test_more_tokens_give_a_lower_loss(reference: list[Checkpoint]) -> None:
    short, long = reference
    assert (short.n_tokens, short.step, long.n_tokens, long.step) == (3000, 47, 5000, 79)
    assert long.validation_loss < short.validation_loss < np.log(64)
    assert short.epochs == pytest.approx(3000 / 20_000)
    assert short.flops == 3000 * short.model.flops(16)


@pytest.mark.parametrize(("segment", "step"), [("trunk", 20), ("trunk", 60), ("D3000", 42), ("D5000", 75)])
def test_stopped_and_resumed_equals_uninterrupted(
    reference: list[Checkpoint],
    model: ModelConfig,
    config: TrainConfig,
    stream: np.ndarray,
    validation: np.ndarray,
    tmp_path: Path,
    weights_digest: Digest,
    segment: str,
    step: int,
) -> None:
    saving = config.replace(save_every=7)
    arguments: dict[str, Any] = {"tokens": TOKENS, "out": tmp_path, "validation": validation, "device": "cpu"}
    with pytest.raises(Stop):
        rs.train(model, stream, saving, on_log=stop_at(segment, step), **arguments)
    resumed = rs.train(model, stream, saving, **arguments)
    for checkpoint, whole in zip(resumed, reference, strict=True):
        assert weights_digest(checkpoint.path) == weights_digest(whole.path)
        assert checkpoint.validation_loss == whole.validation_loss
    columns = ["segment", "step", "tokens", "loss", "gradient_norm", "learning_rate"]
    ours, theirs = read_metrics(tmp_path)[columns], read_metrics(reference[0].path.parent)[columns]
    assert ours.equals(theirs)


def test_a_finished_run_is_read_not_trained(
    reference: list[Checkpoint], model: ModelConfig, config: TrainConfig, stream: np.ndarray
) -> None:
    rows: list[Any] = []
    again = rs.train(
        model, stream, config, tokens=TOKENS, out=reference[0].path.parent, on_log=rows.append, device="cpu"
    )
    assert again == reference
    assert rows == []


def test_a_branch_can_be_added_later(
    reference: list[Checkpoint],
    model: ModelConfig,
    config: TrainConfig,
    stream: np.ndarray,
    tmp_path: Path,
    weights_digest: Digest,
) -> None:
    shutil.copytree(reference[0].path.parent, tmp_path / "run")
    rows: list[dict[str, Any]] = []
    added = rs.train(
        model, stream, config, tokens=[4_000, 6_000], out=tmp_path / "run", on_log=rows.append, device="cpu"
    )
    # the trunk goes on from its stored states, at steps 38 and 63
    assert min(row["step"] for row in rows) > 38
    for checkpoint in added:
        [alone] = rs.train(
            model, stream, config, tokens=checkpoint.n_tokens, out=tmp_path / checkpoint.path.name, device="cpu"
        )
        assert weights_digest(checkpoint.path) == weights_digest(alone.path)
    rows = [row for row in map(dict, read_metrics(tmp_path / "run").to_dict("records")) if row["segment"] == "trunk"]
    assert len({row["step"] for row in rows}) == len(rows), "no step is logged twice, none is lost"


def test_branches_can_be_trained_apart_from_their_trunk(
    reference: list[Checkpoint],
    model: ModelConfig,
    config: TrainConfig,
    stream: np.ndarray,
    tmp_path: Path,
    weights_digest: Digest,
) -> None:
    assert rs.train(model, stream, config, tokens=TOKENS, out=tmp_path, only_trunk=True, device="cpu") == []
    for whole in reversed(reference):
        rows: list[dict[str, Any]] = []
        [branch] = rs.train(
            model, stream, config, tokens=whole.n_tokens, out=tmp_path, on_log=rows.append, device="cpu"
        )
        assert {row["segment"] for row in rows} == {branch.path.name}, "the trunk is not trained again"
        assert weights_digest(branch.path) == weights_digest(whole.path)
    with pytest.raises(ConfigError, match="no trunk"):
        rs.train(model, stream, config.replace(schedule="cosine"), tokens=9, out=tmp_path / "c", only_trunk=True)


def test_another_micro_batch_changes_only_rounding(
    reference: list[Checkpoint], model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path
) -> None:
    [split_up] = rs.train(
        model, stream, config.replace(micro_batch_tokens=16), tokens=3_000, out=tmp_path, device="cpu"
    )
    whole, parts = (load_file(checkpoint.path / "model.safetensors") for checkpoint in (reference[0], split_up))
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 1e-5


def test_a_checkpoint_is_a_hugging_face_folder(reference: list[Checkpoint], validation: np.ndarray) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(reference[1].path)
    assert sum(p.numel() for p in model.parameters()) == reference[1].n_params_total
    assert model.config._attn_implementation == "sdpa"
    assert "ragscale" not in (reference[1].path / "config.json").read_text()
    ids = torch.from_numpy(validation[: 16 * 62 + 1].astype(np.int64))
    rows = ids[:-1].view(-1, 16)
    with torch.no_grad():
        logits = model(rows).logits
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 64), ids[1:])
    assert evaluate_loss(reference[1], ids.numpy(), device="cpu") == pytest.approx(loss.item(), abs=1e-5)
    assert evaluate_loss(reference[1].path, validation, device="cpu") == reference[1].validation_loss


def test_the_tokenizer_travels_with_the_model(
    model: ModelConfig, config: TrainConfig, split: Any, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<eos>": 0, "one": 1, "two": 2}, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    split.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    [checkpoint] = rs.train(model, split, config, tokens=1_000, out=tmp_path, device="cpu")
    assert checkpoint.load_tokenizer()("two one").input_ids == [2, 1]
    assert checkpoint.split == "split-a"
    assert checkpoint.validation_loss is not None
    assert checkpoint.load_model().config.eos_token_id == 0
    other = Tokenizer(models.WordLevel({"<eos>": 0, "one": 2, "two": 1}, unk_token="<eos>"))
    split.tokenizer = PreTrainedTokenizerFast(tokenizer_object=other, eos_token="<eos>")
    with pytest.raises(CheckpointError, match="tokenizer: digest"):
        rs.train(model, split, config, tokens=[1_000, 2_000], out=tmp_path, device="cpu")


def test_another_run_in_the_same_folder_is_refused(
    reference: list[Checkpoint], model: ModelConfig, config: TrainConfig, stream: np.ndarray
) -> None:
    out = reference[0].path.parent
    with pytest.raises(CheckpointError, match=r"learning_rate: 0\.005 there, 0\.001 here\n- seed: 0 there, 1 here"):
        rs.train(model, stream, config.replace(learning_rate=1e-3, seed=1), tokens=TOKENS, out=out, device="cpu")
    with pytest.raises(CheckpointError, match="data: digest"):
        rs.train(model, stream[::-1].copy(), config, tokens=TOKENS, out=out, device="cpu")
    with pytest.raises(CheckpointError, match="resume=False"):
        rs.train(model, stream, config, tokens=TOKENS, out=out, resume=False, device="cpu")


def test_a_damaged_checkpoint_is_refused(
    reference: list[Checkpoint],
    model: ModelConfig,
    config: TrainConfig,
    stream: np.ndarray,
    tmp_path: Path,
    weights_digest: Digest,
) -> None:
    out = tmp_path / "run"
    shutil.copytree(reference[0].path.parent, out)
    weights = out / "D3000" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.safetensors does not match its digest.*Delete the folder"):
        Checkpoint.load(out / "D3000")
    with pytest.raises(CheckpointError, match="damaged"):
        rs.train(model, stream, config, tokens=TOKENS, out=out, device="cpu")
    assert Checkpoint.load(out / "D3000", verify=False).n_tokens == 3000
    shutil.rmtree(out / "D3000")
    [checkpoint, _] = rs.train(model, stream, config, tokens=TOKENS, out=out, device="cpu")
    assert weights_digest(checkpoint.path) == weights_digest(reference[0].path)
    (out / "D3000" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        Checkpoint.load(out / "D3000")
    with pytest.raises(CheckpointError, match=r"no ragscale.json"):
        Checkpoint.load(out)


@pytest.mark.parametrize("damage", ["flip", "cut", "card"])
def test_the_last_good_state_is_found_again(
    reference: list[Checkpoint],
    model: ModelConfig,
    config: TrainConfig,
    stream: np.ndarray,
    tmp_path: Path,
    weights_digest: Digest,
    damage: str,
) -> None:
    saving = config.replace(save_every=10)
    with pytest.raises(Stop):
        rs.train(model, stream, saving, tokens=TOKENS, out=tmp_path, on_log=stop_at("trunk", 35), device="cpu")
    states = sorted((tmp_path / "states" / "trunk").glob("state-*"))
    assert [state.name for state in states] == ["state-000000020", "state-000000030"], "two are kept"
    file = states[-1] / ("state.json" if damage == "card" else "state.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    else:
        content = content[: len(content) // 2]
    file.write_bytes(content)
    rows: list[dict[str, Any]] = []
    with pytest.warns(RagscaleWarning, match=r"state-000000030 is damaged"):
        resumed = rs.train(model, stream, saving, tokens=TOKENS, out=tmp_path, on_log=rows.append, device="cpu")
    assert rows[0]["step"] == 25
    assert weights_digest(resumed[1].path) == weights_digest(reference[1].path)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("values", {}),
        ("values", {"skipped_steps": "0", "train_loss": 1.0}),
        ("values", {"skipped_steps": 0, "train_loss": [1.0]}),
        ("values", {"skipped_steps": 0, "train_loss": 1, "unlogged": {}}),
        ("values", {"skipped_steps": 0, "train_loss": None, "unlogged": [[1.0, 2.0]]}),
        ("values", {"skipped_steps": 0, "train_loss": None, "unlogged": [[1.0, 2.0, "0"]]}),
        ("files", {}),
        ("files", {"state.safetensors": 3}),
    ],
)
def test_a_state_that_lacks_what_a_run_goes_on_from_is_damaged(
    tmp_path: Path, part: str, change: dict[str, Any]
) -> None:
    values = {"skipped_steps": 1, "train_loss": 2.5, "unlogged": [[1.0, 0.5, 0.0]]}
    for step in (4, 8):
        write_state(tmp_path, step, {"a": torch.zeros(2)}, values)
    assert find_state(tmp_path, after=0, at_most=9) == (8, tmp_path / "state-000000008")
    assert read_state(tmp_path / "state-000000008")[1] == values
    path = tmp_path / "state-000000008" / "state.json"
    card = read_json(path, schema="ragscale.training-state", version=1)
    # written by somebody whose digest is right
    write_json(path, {**card, part: change}, schema="ragscale.training-state", version=1)
    with pytest.warns(RagscaleWarning, match=r"state-000000008 is damaged"):
        assert find_state(tmp_path, after=0, at_most=9) == (4, tmp_path / "state-000000004")


@pytest.mark.parametrize("schedule", ["cosine", "wsd-s"])
def test_the_other_schedules_resume_too(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path, weights_digest: Digest, schedule: str
) -> None:
    settings = config.replace(schedule=schedule, save_every=9)
    whole = rs.train(model, stream, settings, tokens=TOKENS, out=tmp_path / "whole", device="cpu")
    with pytest.raises(Stop):
        rs.train(
            model, stream, settings, tokens=TOKENS, out=tmp_path / "cut", on_log=stop_at("D5000", 65), device="cpu"
        )
    resumed = rs.train(model, stream, settings, tokens=TOKENS, out=tmp_path / "cut", device="cpu")
    assert [weights_digest(c.path) for c in resumed] == [weights_digest(c.path) for c in whole]
    if schedule == "cosine":
        [alone] = rs.train(model, stream, settings, tokens=TOKENS[1], out=tmp_path / "alone", device="cpu")
        assert weights_digest(alone.path) == weights_digest(whole[1].path)


def test_steps_that_are_not_finite_change_nothing_and_are_named(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragscale.training._engine import Engine

    original, weights = Engine.step, []

    def step(self: Engine, inputs: Any, targets: Any, n_targets: Any, rate: float) -> Any:
        # poison the head for one forward pass, as an overflow would
        calls.append(1)
        poison = len(calls) in {8, 9, 23}
        head = self._parameters["lm_head.weight"]
        before = [p.detach().clone() for p in self._parameters.values()]
        moments = {k: v.clone() for k, v in self._optimizer.state.get(self._locals["lm_head.weight"], {}).items()}
        if poison:
            head.data[0, 0] = torch.nan
        result = original(self, inputs, targets, n_targets, rate)
        if poison:
            head.data[0, 0] = before[list(self._parameters).index("lm_head.weight")][0, 0]
            assert all(torch.equal(a, b) for a, b in zip(before, self._parameters.values(), strict=True))
            after = self._optimizer.state[self._locals["lm_head.weight"]]
            assert all(torch.equal(moments[key], after[key]) for key in moments)
            weights.append(1)
        return result

    calls: list[int] = []
    monkeypatch.setattr(Engine, "step", step)
    rows: list[dict[str, Any]] = []
    [checkpoint] = rs.train(model, stream, config, tokens=3_000, out=tmp_path, on_log=rows.append, device="cpu")
    assert len(weights) == 3
    assert checkpoint.skipped_steps == 3
    skipped = [entry for row in rows for entry in row.get("skipped", [])]
    assert skipped == [{"step": step, "first_token": 64 * step, "stop_token": 64 * (step + 1)} for step in (7, 8, 22)]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)


def test_a_run_that_stays_not_finite_stops_with_the_batches(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"last 2\d steps.*lower learning_rate \(now 1e\+20\)"):
        rs.train(model, stream, config.replace(learning_rate=1e20), tokens=5_000, out=tmp_path, device="cpu")
    assert "skipped" in (tmp_path / "metrics" / "trunk.jsonl").read_text()


def test_memory_that_runs_out_names_the_settings(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragscale.training._engine import Engine

    def step(*_: Any) -> Any:
        torch.empty(1 << 50)

    monkeypatch.setattr(Engine, "step", step)
    with pytest.raises(OutOfMemory, match=r"micro_batch_tokens=16.*activation_checkpointing=True"):
        rs.train(model, stream, config, tokens=3_000, out=tmp_path, device="cpu")


def test_model_and_data_must_fit(model: ModelConfig, config: TrainConfig, split: Any, tmp_path: Path) -> None:
    small = ModelConfig.custom(n_layers=1, d_model=32, n_heads=2, d_ff=64, vocab_size=50)
    with pytest.raises(ConfigError, match=r"64 tokens, the model's vocab_size is only 50.*vocab_size=128"):
        rs.train(small, split, config, tokens=1_000, out=tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="document_mask needs"):
        rs.train(model, split.tokens, config.replace(document_mask=True), tokens=1_000, out=tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="vocab_size is 50"):
        rs.train(small, split.tokens, config, tokens=1_000, out=tmp_path / "array", device="cpu")
    with pytest.raises(ConfigError, match="'auto', 'cpu' or 'cuda'"):
        rs.train(model, split, config, tokens=1_000, out=tmp_path, device="meta")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA, and there is one")
def test_cuda_without_cuda_says_so(model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        rs.train(model, stream, config, tokens=1_000, out=tmp_path, device="cuda")


def test_document_masking_trains_and_repeats_are_counted(
    model: ModelConfig, config: TrainConfig, split: Any, tmp_path: Path
) -> None:
    split.tokens = split.tokens[:2_000]
    settings = config.replace(document_mask=True, repeat=True)
    [checkpoint] = rs.train(model, split, settings, tokens=5_000, out=tmp_path, device="cpu")
    assert checkpoint.epochs == 2.5
    assert checkpoint.config.eos_id == 0
    assert checkpoint.validation_loss < np.log(64)


def test_gains_move_in_bfloat16_autocast_and_freeze_in_bf16_true(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path
) -> None:
    moved = {}
    for precision in ("bf16", "bf16-true"):
        settings = config.replace(precision=precision, allow_bf16_true=True, learning_rate=3e-4)
        [checkpoint] = rs.train(model, stream, settings, tokens=1_500, out=tmp_path / precision, device="cpu")
        weights = load_file(checkpoint.path / "model.safetensors")
        gains = torch.cat([tensor.flatten().float() for name, tensor in weights.items() if tensor.ndim == 1])
        moved[precision] = float((gains != 1).float().mean())
    assert moved["bf16"] > 0.95
    assert moved["bf16-true"] < 0.05


def test_activation_checkpointing_changes_nothing(
    reference: list[Checkpoint],
    model: ModelConfig,
    config: TrainConfig,
    stream: np.ndarray,
    tmp_path: Path,
    weights_digest: Digest,
) -> None:
    [checkpoint] = rs.train(
        model, stream, config.replace(activation_checkpointing=True), tokens=3_000, out=tmp_path, device="cpu"
    )
    assert weights_digest(checkpoint.path) == weights_digest(reference[0].path)


def test_tied_models_train(config: TrainConfig, stream: np.ndarray, tmp_path: Path) -> None:
    tied = ModelConfig.custom(n_layers=1, d_model=32, n_heads=2, d_ff=64, vocab_size=64, tied=True)
    [checkpoint] = rs.train(tied, stream, config, tokens=3_000, out=tmp_path, device="cpu")
    model = checkpoint.load_model()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(p.numel() for p in model.parameters()) == checkpoint.n_params_total
    assert checkpoint.train_loss < 4.1


def test_rows_say_what_people_ask_for(reference: list[Checkpoint], model: ModelConfig) -> None:
    metrics = read_metrics(reference[0].path.parent)
    row = metrics[(metrics.segment == "D5000") & (metrics.step == 79)].iloc[0]
    assert row["tokens"] == 5000
    assert row["D/N"] == pytest.approx(5000 / model.n_params)
    assert row["tokens_per_second"] > 0
    assert row["memory_gib"] > 0.05
    assert row["seconds_left"] == 0
    raw = (reference[0].path.parent / "metrics" / "trunk.jsonl").read_text().splitlines()
    assert all(json.loads(line)["mfu"] is None for line in raw), "a CPU has no data sheet to compare with"
    with pytest.raises(ConfigError, match="metrics"):
        read_metrics(reference[0].path)


def test_progress_bar_shows_loss_and_speed(
    model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rs.train(model, stream, config, tokens=1_000, out=tmp_path, progress=True, device="cpu")
    shown = capsys.readouterr().err
    assert "trunk" in shown
    assert "D1000" in shown
    assert "loss=" in shown
    assert "tok/s=" in shown
    assert "D/N=" in shown


def test_validation_on_the_way(model: ModelConfig, config: TrainConfig, split: Any, tmp_path: Path) -> None:
    rs.train(model, split, config.replace(validate_every=10), tokens=3_000, out=tmp_path, device="cpu")
    metrics = read_metrics(tmp_path)
    losses = metrics.dropna(subset="validation_loss").sort_values("step")
    assert list(losses.step) == [10, 20, 30, 40, 47]
    assert losses.validation_loss.is_monotonic_decreasing


def test_compiled_training_stays_close(
    reference: list[Checkpoint], model: ModelConfig, config: TrainConfig, stream: np.ndarray, tmp_path: Path
) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler on CPUs, and there is none")
    [compiled] = rs.train(model, stream, config.replace(compile=True), tokens=3_000, out=tmp_path, device="cpu")
    whole, other = (load_file(checkpoint.path / "model.safetensors") for checkpoint in (reference[0], compiled))
    assert max(float((whole[name] - other[name]).abs().max()) for name in whole) < 1e-4
    torch._dynamo.reset()
