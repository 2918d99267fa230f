"""Turn whatever stands for a model into a `LanguageModel`, with what the results table wants to know of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from ragscale._extras import from_pretrained, require, without_progress_bars
from ragscale.errors import ConfigError
from ragscale.evaluation._language_model import LanguageModel

if TYPE_CHECKING:
    import torch

    from ragscale._typing import InFolder, Tokenizer


_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A language model with its place in the results table; NaN where that is not known."""

    model: LanguageModel
    name: str
    N: float = _NAN
    D: float = _NAN
    N_total: float = _NAN
    seed: int = 0


ModelLike: TypeAlias = "LanguageModel | LoadedModel | torch.nn.Module | InFolder | str | os.PathLike[str]"
"""A language model of ours, a torch module, or where one lies: a checkpoint, a path, a name on the hub."""


class LoadOptions(TypedDict, total=False):
    """The options of `load_language_model`."""

    tokenizer: Tokenizer | None
    device: str
    batch_tokens: int | None
    max_length: int | None
    dtype: torch.dtype | str | None
    precision: str | None


def load_language_model(
    model: ModelLike,
    *,
    tokenizer: Tokenizer | None = None,
    device: str = "auto",
    batch_tokens: int | None = None,
    max_length: int | None = None,
    dtype: torch.dtype | str | None = None,
    precision: str | None = None,
) -> LoadedModel:
    """Load a checkpoint directory, a Hugging Face name, a model object or a bare module.

    Parameters
    ----------
    model : LanguageModel, Checkpoint, Hugging Face model, torch module, path or hub name
    tokenizer : optional
        Needed for a bare module; for a Hugging Face model object the tokenizer of ``config.name_or_path`` is the
        default.
    device : str
        Where a model from disk goes: ``"auto"`` is the first GPU, else the CPU. Objects stay where they are.
    batch_tokens, max_length : int, optional
        See `TorchModel`.
    dtype : optional
        Of a model from disk; float32 by default, in which choices that are close stay apart.
    precision : {"auto", "float32", "bf16", "fp16"}, optional
        Of the products of a torch model, see `TorchModel`; by default what the model has, else ``"auto"``.

    Returns
    -------
    LoadedModel
        With N (core and head), N_total, and for a ragscale checkpoint D and the training seed.
    """
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, LanguageModel):
        n, own = float(getattr(model, "n_params", _NAN)), cast(Any, model)
        if precision is not None:
            if not hasattr(model, "use_precision"):
                raise ConfigError(
                    f"precision={precision!r} is for torch models; {type(model).__name__} computes as it does"
                )
            own.use_precision(precision)
        if batch_tokens is not None and hasattr(model, "batch_tokens"):
            own.batch_tokens = batch_tokens
        return LoadedModel(model, type(model).__name__, n, _NAN, float(getattr(model, "n_params_total", _NAN)))
    from ragscale.evaluation._torch_model import TorchModel

    path = model if isinstance(model, str | os.PathLike) else getattr(model, "path", None)
    if isinstance(path, str | os.PathLike):
        module, tokenizer = _from_disk(path, tokenizer, device, dtype)
        name = os.fspath(path)
    else:
        torch = require("torch", "train")
        if not isinstance(model, torch.nn.Module):
            raise ConfigError(
                f"a model is a LanguageModel, a Checkpoint, a torch module, a path or a hub name, not {model!r}"
            )
        module: Any = model
        name = type(model).__name__
        if tokenizer is None:
            tokenizer = _tokenizer_of(model)
    knows_length = getattr(getattr(module, "config", None), "max_position_embeddings", None) is not None
    lm = TorchModel(
        module,
        tokenizer,
        batch_tokens=batch_tokens,
        max_length=None if knows_length else max_length,
        precision=precision or "auto",
    )
    found = _checkpoint_facts(path) if path is not None else {}
    return LoadedModel(
        lm,
        name,
        float(found.get("N", lm.n_params)),
        float(found.get("D", _NAN)),
        float(found.get("N_total", lm.n_params_total)),
        int(found.get("seed", 0)),
    )


def _from_disk(path: str | os.PathLike[str], tokenizer: Any, device: str, dtype: Any) -> tuple[Any, Tokenizer]:
    torch = require("torch", "train")
    transformers = require("transformers", "train")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    failure = f"{os.fspath(path)!r} is not a Hugging Face causal model with its tokenizer"
    with without_progress_bars():
        module = from_pretrained(transformers.AutoModelForCausalLM, path, failure=failure, dtype=dtype or torch.float32)
    if tokenizer is None:
        tokenizer = from_pretrained(transformers.AutoTokenizer, path, failure=failure)
    return module.to(device), tokenizer


def _tokenizer_of(model: Any) -> Tokenizer:
    name = getattr(getattr(model, "config", None), "name_or_path", "")
    if not name:
        raise ConfigError(f"{type(model).__name__} does not say which tokenizer it was trained with: pass tokenizer=")
    return from_pretrained(require("transformers", "train").AutoTokenizer, name)


def _checkpoint_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    if not (Path(path) / "ragscale.json").exists():
        return {}
    from ragscale.training import Checkpoint

    checkpoint = Checkpoint.load(Path(path))
    return {
        "N": checkpoint.n_params,
        "D": checkpoint.n_tokens,
        "N_total": checkpoint.n_params_total,
        "seed": checkpoint.seed,
    }
