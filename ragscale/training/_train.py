"""`train`: from a plan to checkpoints, through any number of interruptions."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from ragscale._counts import as_counts
from ragscale._extras import require
from ragscale.errors import ConfigError
from ragscale.training._checkpoint import Checkpoint
from ragscale.training._config import TrainConfig
from ragscale.training._data import Source, check_ids, open_source
from ragscale.training._guards import deterministic, memory_advice
from ragscale.training._model import ModelConfig
from ragscale.training._plan import Plan, make_plan
from ragscale.training._run_folder import agree_with_stored_run, check_space, claim, open_folder, run_identity
from ragscale.training._segments import Run

if TYPE_CHECKING:
    from ragscale.training._data import TokenData


def train(
    model_config: ModelConfig,
    data: TokenData,
    config: TrainConfig,
    *,
    tokens: int | Sequence[int],
    out: str | os.PathLike[str],
    device: str = "auto",
    resume: bool = True,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    validation: ArrayLike | None = None,
    progress: bool | None = None,
    only_trunk: bool = False,
) -> list[Checkpoint]:
    """Train a decoder without retrieval; return one annealed checkpoint per D.

    With the default schedule a single trunk at constant rate reads the longest D, and at each D a branch decays over
    the last fifth of its own D. A branch equals a separate run of the same schedule bit for bit, because the data of
    a step depends on the step alone.

    Parameters
    ----------
    model_config : ModelConfig
    data : Split or one-dimensional integer array
        The first D tokens of the split's permutation are read, each once; or those of an array of token ids.
    config : TrainConfig
    tokens : int or sequence of int
        The values of D. More can be added later with the same ``out``: only what is missing is trained.
    out : path
        The run's folder: ``D<tokens>/`` checkpoints, ``metrics/*.jsonl``, ``states/`` to resume and branch from.
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    resume : bool
        Go on with what ``out`` holds. False refuses a folder that holds a run; nothing is ever deleted for you.
    on_log : callable or None
        Called with each row of the metrics (a dict) in the first process.
    validation : one-dimensional integer array or None
        Token ids to report the loss on; None takes the split's validation set.
    progress : bool or None
        Progress bar; None shows it on a terminal.
    only_trunk : bool
        Stop where the last branch leaves, and train no branch. Afterwards every D can be trained by a call, a process
        or a machine of its own, all at once: ``train(..., tokens=D)`` with the same ``out``.

    Returns
    -------
    list of Checkpoint
        By ascending D; with ``only_trunk`` those that exist.

    Raises
    ------
    ConfigError
        When plan, data and model do not fit together; every problem is listed.
    CheckpointError
        When ``out`` holds another run or a damaged checkpoint, or cannot be written.
    OutOfMemory
        With the setting to change.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> stream = np.random.default_rng(0).integers(0, 32, 4_000)
    >>> model = ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=32, vocab_size=32)
    >>> config = TrainConfig(seq_len=16, batch_tokens=16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [short, long] = train(model, stream, config, tokens=[2_000, 4_000], out=folder, device="cpu")
    >>> short.n_tokens, long.n_tokens, long.n_params
    (2000, 4000, 3152)
    """
    require("torch", "train")
    require("transformers", "train")
    from ragscale.training._processes import open_processes

    out = Path(out)
    processes = open_processes(device)
    values = as_counts("tokens", tokens, least=2)
    if not values:
        raise ConfigError("tokens names no D: give one count of tokens or several")
    source = open_source(data, max(values), validation=validation, repeat=config.repeat)
    config = _fit_to_data(model_config, config, source, processes.device, max(values))
    with processes.first_only() as first:
        if first:
            open_folder(out, resume)
    config = agree_with_stored_run(out, model_config, config, source)
    plan = make_plan(model_config, config, values)
    _check_length(plan, source)
    if only_trunk and config.schedule != "wsd":
        raise ConfigError(f"only_trunk needs schedule='wsd': {config.schedule!r} has no trunk that branches leave")
    identity = run_identity(plan, source)
    with processes.first_only() as first:
        if first:
            claim(out, identity)
            check_space(out, plan)
    with memory_advice(plan, processes), deterministic(config):
        return Run(plan, source, processes, out=out, on_log=on_log, progress=progress).all(only_trunk=only_trunk)


def _fit_to_data(model: ModelConfig, config: TrainConfig, source: Source, device: Any, longest: int) -> TrainConfig:
    """Settle what depends on the data and the device; refuse a model that the data does not fit."""
    from ragscale.training._engine import resolve_precision

    problems = []
    if source.vocab_size is not None and source.vocab_size > model.vocab_size:
        problems.append(
            f"the split's tokenizer has {source.vocab_size} tokens, the model's vocab_size is only {model.vocab_size}: "
            f"use ModelConfig with vocab_size={-(-source.vocab_size // 128) * 128}"
        )
    eos_id = source.eos_id if config.eos_id is None else config.eos_id
    if config.document_mask and eos_id is None:
        problems.append(
            "document_mask needs the end-of-document token: give TrainConfig(eos_id=...) or train on a split"
        )
    if eos_id is not None and eos_id >= model.vocab_size:
        problems.append(f"eos_id={eos_id} is outside the model's vocabulary of {model.vocab_size}")
    if source.vocab_size is None:  # a split has checked its ids
        for stream, what, limit in (
            (source.tokens, "the token stream", longest),
            (source.validation, "the validation stream", config.validation_tokens),
        ):
            try:
                check_ids(() if stream is None else stream, limit, model.vocab_size, what)
            except ConfigError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError("model and data do not fit together:\n- " + "\n- ".join(problems))
    return config.replace(eos_id=eos_id, precision=resolve_precision(config, model, device))


def _check_length(plan: Plan, source: Source) -> None:
    # whole batches of "wsd-s" can reach beyond the last D
    longest = (
        max(segment.stop * plan.batch_tokens for segment in plan.segments) if plan.config.schedule == "wsd-s" else 0
    )
    if longest > source.n_tokens and not plan.config.repeat:
        raise ConfigError(
            f"schedule 'wsd-s' rounds D to whole batches, {longest} tokens, but there are {source.n_tokens}: "
            "lower the last D or batch_tokens"
        )
