"""Checkpoints for others (Hugging Face folders) and states for resuming, both whole or absent, both with digests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragscale import _files
from ragscale._extras import from_pretrained, require, without_progress_bars
from ragscale._files import check_fields, damaged, file_digest, read_json, write_json
from ragscale.errors import CheckpointError, RagscaleWarning
from ragscale.training._config import TrainConfig
from ragscale.training._model import ModelConfig

_CARD = "ragscale.json"
_AGAIN = " and call train again with the same arguments; it goes on from the last saved state"
_CHECKPOINT, _STATE = "ragscale.checkpoint", "ragscale.training-state"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A trained model on disk: a Hugging Face folder with a card, ``ragscale.json``.

    ``AutoModelForCausalLM.from_pretrained(checkpoint.path)`` reads it, and so do lm-eval and vLLM.

    Parameters
    ----------
    path : Path
        The folder.
    model : ModelConfig
    config : TrainConfig
        Complete: with batch, rate and warm-up as they were used.
    n_tokens : int
        D, the tokens it was trained on (counting repeats).
    step : int
        Optimiser steps, with the skipped ones.
    epochs : float
        Passes over the stream; above 1 only with ``repeat``.
    validation_loss, train_loss : float or None
        Cross-entropy in nats per token: of the validation stream, and of the last logged steps.
    skipped_steps : int
        Steps whose loss or gradient was not finite; they changed nothing.
    split, tokenizer_digest : str or None
        Digests of the data and of the tokenizer.
    versions : dict
        Of ragscale, torch, transformers and Python.
    """

    path: Path
    model: ModelConfig
    config: TrainConfig
    n_tokens: int
    step: int
    epochs: float
    validation_loss: float | None
    train_loss: float | None
    skipped_steps: int
    split: str | None
    tokenizer_digest: str | None
    versions: dict[str, str]

    @property
    def n_params(self) -> int:
        """N: core + output head."""
        return self.model.n_params

    @property
    def n_params_total(self) -> int:
        """Every parameter."""
        return self.model.n_params_total

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.config.seed

    @property
    def schedule(self) -> str:
        """ "wsd", "cosine" or "wsd-s"."""
        return self.config.schedule

    @property
    def flops(self) -> int:
        """Training FLOPs of this model alone, trained from scratch on its own D (convention of MFU)."""
        return self.n_tokens * self.model.flops(self.config.seq_len)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Checkpoint:
        """Read a checkpoint's card; with ``verify``, also check every file against its digest.

        Raises
        ------
        CheckpointError
            When there is no checkpoint, or a file is missing or damaged; the message names it.
        """
        path = Path(path)
        if not (path / _CARD).is_file():
            raise CheckpointError(
                f"{path} is no ragscale checkpoint: it has no {_CARD}. "
                "A run's folder holds one checkpoint per D, in D<tokens>/"
            )
        card = read_json(path / _CARD, schema=_CHECKPOINT, version=1, fields=_CARD_KINDS)
        if verify:
            damage = _damage(path, card["files"])
            if damage:
                raise CheckpointError(
                    f"checkpoint {path} is damaged: {damage}. Delete the folder and call train again with the same "
                    "arguments: only this branch is trained anew"
                )
        with damaged(path / _CARD):
            model, config = ModelConfig.from_dict(card["model"]), TrainConfig.from_dict(card["config"])
        return cls(path=path, model=model, config=config, **{name: card[name] for name in _CARD_FIELDS})

    def load_model(self, *, device: str = "cpu") -> Any:
        """Return the transformers model, in evaluation mode, on a device."""
        transformers = require("transformers", "train")
        with without_progress_bars():
            model = from_pretrained(transformers.Olmo2ForCausalLM, self.path, dtype="auto")
        return model.to(device).eval()

    def load_tokenizer(self) -> Any:
        """Return the tokenizer saved with the model.

        Raises
        ------
        CheckpointError
            When the model was trained on a plain array, which has no tokenizer.
        """
        if not (self.path / "tokenizer.json").is_file():
            raise CheckpointError(f"{self.path} has no tokenizer: it was trained on a plain array of token ids")
        return from_pretrained(require("transformers", "train").AutoTokenizer, self.path)


_CARD_FIELDS = {
    "n_tokens": int,
    "step": int,
    "epochs": float,
    "validation_loss": (float, type(None)),
    "train_loss": (float, type(None)),
    "skipped_steps": int,
    "split": (str, type(None)),
    "tokenizer_digest": (str, type(None)),
    "versions": dict,
}
_CARD_KINDS = {"model": dict, "config": dict, "files": dict, **_CARD_FIELDS}
_STATE_KINDS = {"step": int, "keep": bool, "values": dict, "files": dict}
_VALUES_KINDS = {"skipped_steps": int, "train_loss": (float, type(None))}


def write_checkpoint(
    path: Path, weights: dict[str, Any], model: ModelConfig, config: TrainConfig, tokenizer: Any, **card: Any
) -> Checkpoint:
    """Write a Hugging Face folder with its card, whole or not at all.

    Parameters
    ----------
    path : Path
    weights : dict of tensor
        On the CPU, under transformers' names.
    model, config
    tokenizer : Hugging Face tokenizer or None
    **card
        The other fields of `Checkpoint`.
    """
    transformers = require("transformers", "train")
    hf_config = model.to_hf(eos_token_id=config.eos_id)
    hf_config.architectures = ["Olmo2ForCausalLM"]
    hf_config.dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    if model.tied:
        weights = {name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}
    with _whole_folder(path, 4 * model.n_params_total) as folder:
        hf_config.save_pretrained(folder)
        transformers.GenerationConfig.from_model_config(hf_config).save_pretrained(folder)
        _save_tensors(folder / "model.safetensors", weights)
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(folder)
        elif hasattr(tokenizer, "to_str"):
            (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        values = {"model": model.to_dict(), "config": config.to_dict(), **card, "files": _digests(folder)}
        values |= {"n_params": model.n_params, "n_params_total": model.n_params_total}
        write_json(folder / _CARD, values, schema=_CHECKPOINT, version=1)
    return Checkpoint.load(path, verify=False)


def write_state(
    folder: Path, step: int, tensors: dict[str, Any], values: dict[str, Any], *, keep: bool = False
) -> Path:
    """Write everything that a run needs to go on after ``step`` steps; ``keep`` spares it from `remove_old_states`."""
    path = folder / f"state-{step:09d}"
    if path.exists() and _state_damage(path) is None and (_is_kept(path) or not keep):
        return path
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    with _whole_folder(path, size) as temporary:
        _save_tensors(temporary / "state.safetensors", tensors)
        write_json(
            temporary / "state.json",
            {"step": step, "keep": keep, "values": values, "files": _digests(temporary)},
            schema=_STATE,
            version=1,
        )
    return path


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors and values of a state that `find_state` found."""
    tensors = require("safetensors.torch", "train").load_file(path / "state.safetensors")
    return tensors, _state_card(path)["values"]


def _state_card(path: Path) -> dict[str, Any]:
    """Read a state's card, whose every entry a run goes on from is what `write_state` was given."""
    card = read_json(path / "state.json", schema=_STATE, version=1, fields=_STATE_KINDS)
    name = str(path / "state.json")
    check_fields(card["values"], _VALUES_KINDS, name=name)
    check_fields(card["files"], {"state.safetensors": str}, name=name)
    rows = card["values"].get("unlogged", [])
    if not isinstance(rows, list) or any(
        not isinstance(row, list) or len(row) != 3 or not all(type(value) in (int, float) for value in row)
        for row in rows
    ):
        raise CheckpointError(f"{name} is damaged: 'unlogged' holds no rows of three numbers")
    return card


def find_state(folder: Path, *, after: int, at_most: int) -> tuple[int, Path] | None:
    """Return the last good state with ``after < step <= at_most``; damaged ones are passed over with a warning."""
    for step, path in reversed(list_states(folder)):
        if after < step <= at_most:
            damage = _state_damage(path)
            if damage is None:
                return step, path
            warnings.warn(
                f"training state {path} is damaged ({damage}): going back to an earlier one", RagscaleWarning, 2
            )
    return None


def list_states(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of the states of a folder, by step, good or not."""
    found = []
    for path in folder.glob("state-*"):
        with contextlib.suppress(ValueError):
            found.append((int(path.name.removeprefix("state-")), path))
    return sorted(found)


def _is_kept(path: Path) -> bool:
    try:
        return bool(_state_card(path)["keep"])
    except (OSError, CheckpointError):
        return False


def remove_old_states(folder: Path, *, keep_last: int) -> None:
    """Remove periodic states beyond the last ``keep_last``, and what killed runs left half-written."""
    removable = [path for _, path in list_states(folder) if not _is_kept(path)]
    for path in removable[: max(0, len(removable) - keep_last)]:
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def versions() -> dict[str, str]:
    """Return the versions that a checkpoint's numbers depend on."""
    import torch

    from ragscale._version import __version__

    return {
        "ragscale": __version__,
        "torch": torch.__version__,
        "transformers": require("transformers", "train").__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }


@contextlib.contextmanager
def disk_errors(path: Path, size: int | None = None) -> Generator[None]:
    """Turn the operating system's refusals into errors that say what to do."""
    with _files.disk_errors(path, error=CheckpointError, size=size, advice=_AGAIN):
        yield


@contextlib.contextmanager
def _whole_folder(path: Path, size: int) -> Generator[Path]:
    """Fill a temporary folder that takes its name only when it is complete and on disk."""
    with _files.whole_folder(path, error=CheckpointError, size=size, advice=_AGAIN) as folder:
        yield folder


def _save_tensors(path: Path, tensors: dict[str, Any]) -> None:
    safetensors = require("safetensors.torch", "train")
    safetensors.save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"}
    )


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: file_digest(file) for file in sorted(folder.iterdir()) if file.name != _CARD}


def _damage(folder: Path, files: dict[str, str]) -> str | None:
    for name, digest in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if file_digest(folder / name) != digest:
            return f"{name} does not match its digest"
    return None


def _state_damage(path: Path) -> str | None:
    try:
        card = _state_card(path)
    except (OSError, CheckpointError, json.JSONDecodeError) as error:
        return str(error)
    return _damage(path, card["files"])
