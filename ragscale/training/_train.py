"""`train`: from a plan to checkpoints, through any number of interruptions."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ragscale._counts import as_counts
from ragscale._extras import require
from ragscale._files import damaged, read_json, value_digest, write_json
from ragscale.errors import CheckpointError, ConfigError, OutOfMemory
from ragscale.training._checkpoint import (
    Checkpoint,
    disk_errors,
    find_state,
    read_state,
    remove_old_states,
    versions,
    write_checkpoint,
    write_state,
)
from ragscale.training._config import RUNTIME_FIELDS, TrainConfig
from ragscale.training._data import Order, Source, check_ids, open_source, prefetch
from ragscale.training._log import Log
from ragscale.training._model import ModelConfig
from ragscale.training._plan import Plan, Segment, make_plan

_RUN = "ragscale.training-run"


def train(
    model_config: ModelConfig,
    data: Any,
    config: TrainConfig,
    *,
    tokens: int | Sequence[int],
    out: str | os.PathLike[str],
    device: str = "auto",
    resume: bool = True,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    validation: Any = None,
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
            _open_folder(out, resume)
    config = _agree_with_stored_run(out, model_config, config, source)
    plan = make_plan(model_config, config, values)
    _check_length(plan, source)
    if only_trunk and config.schedule != "wsd":
        raise ConfigError(f"only_trunk needs schedule='wsd': {config.schedule!r} has no trunk that branches leave")
    identity = _identity(plan, source)
    with processes.first_only() as first:
        if first:
            _claim(out, identity)
            _check_space(out, plan)
    with _memory_advice(plan, processes), _deterministic(config):
        return _Run(plan, source, processes, out=out, on_log=on_log, progress=progress).all(only_trunk=only_trunk)


def evaluate_loss(
    checkpoint: Checkpoint | str | os.PathLike[str],
    data: Any,
    *,
    max_tokens: int = 1_000_000,
    device: str = "auto",
) -> float:
    """Return a checkpoint's cross-entropy on a token stream, in nats per token.

    The stream is cut into rows of the training length, as for ``Checkpoint.validation_loss``.

    Parameters
    ----------
    checkpoint : Checkpoint or path
    data : one-dimensional integer array, or a split (its validation set)
    max_tokens : int
        Read no more than this.
    device : str
    """
    from ragscale.training._engine import Engine
    from ragscale.training._processes import open_processes

    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint.load(checkpoint)
    stream = getattr(data, "validation", data)
    source = open_source(stream, 2)
    processes = open_processes(device)
    config = checkpoint.config.replace(validation_tokens=max_tokens, compile=False, cuda_graph=False, parallel="auto")
    engine = Engine(checkpoint.model, config, processes)
    weights = checkpoint.load_model().state_dict()
    engine.load_state({f"model.{name}": tensor for name, tensor in weights.items()})
    return _mean_loss(engine, source.tokens, checkpoint.model, config, processes)


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


def _identity(plan: Plan, source: Source) -> dict[str, Any]:
    config = {name: value for name, value in plan.config.to_dict().items() if name not in RUNTIME_FIELDS}
    return {
        "model": plan.model.to_dict(),
        "config": config,
        "split": source.digest,
        "tokenizer_digest": source.tokenizer_digest,
    }


def _open_folder(out: Path, resume: bool) -> None:
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    if not resume and (out / "run.json").exists():
        raise CheckpointError(f"{out} holds a run already, and resume=False: choose another out, or delete that folder")


def _agree_with_stored_run(out: Path, model: ModelConfig, config: TrainConfig, source: Source) -> TrainConfig:
    """Take what the config leaves open from the run that the folder holds; refuse another run."""
    path = out / "run.json"
    if not path.exists():
        return config
    text = (str, type(None))
    kinds = {"config": dict, "model": dict, "split": text, "tokenizer_digest": text}
    stored = read_json(path, schema=_RUN, version=1, fields=kinds)
    open_fields = ("batch_tokens", "learning_rate", "warmup_steps", "betas")
    before = stored["config"]
    with damaged(path):
        config = config.replace(**{name: before[name] for name in open_fields if getattr(config, name) is None})
    wanted = {key: value for key, value in config.to_dict().items() if key not in RUNTIME_FIELDS}
    differences = [
        f"{name}: {before.get(name)!r} there, {value!r} here"
        for name, value in wanted.items()
        if before.get(name) != value
    ]
    differences += [
        f"model {name}: {stored['model'].get(name)!r} there, {value!r} here"
        for name, value in model.to_dict().items()
        if name != "name" and stored["model"].get(name) != value
    ]
    if stored["split"] != source.digest:
        differences.append(f"data: digest {str(stored['split'])[:12]} there, {source.digest[:12]} here")
    if stored["tokenizer_digest"] != source.tokenizer_digest:
        there, here = (value and value[:12] for value in (stored["tokenizer_digest"], source.tokenizer_digest))
        differences.append(f"tokenizer: digest {there} there, {here} here")
    if differences:
        raise CheckpointError(
            f"{out} holds another run; give another out, or the same settings:\n- " + "\n- ".join(differences)
        )
    return config


def _claim(out: Path, identity: dict[str, Any]) -> None:
    if not (out / "run.json").exists():
        with disk_errors(out):
            write_json(out / "run.json", {**identity, "digest": value_digest(identity)}, schema=_RUN, version=1)


def disk_bytes(plan: Plan) -> int:
    """Estimate what a run leaves on disk: a state per branch point, the periodic ones, a checkpoint per D."""
    n_states = sum(segment.tokens is None or plan.config.schedule == "wsd-s" for segment in plan.segments)
    return plan.model.n_params_total * (12 * (n_states + plan.config.keep_states + 1) + 4 * len(plan.tokens))


def _check_space(out: Path, plan: Plan) -> None:
    present = sum(file.stat().st_size for file in out.rglob("*.safetensors"))
    needed, free = disk_bytes(plan) - present, shutil.disk_usage(out).free
    if needed > free:
        raise CheckpointError(
            f"this run needs about {needed / 2**30:.2f} GiB in {out}, which has {free / 2**30:.2f} GiB free: "
            "free some space, choose another out, or ask for fewer values of D"
        )


@contextlib.contextmanager
def _memory_advice(plan: Plan, processes: Any) -> Iterator[None]:
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)):
            raise
        seq_len = plan.config.seq_len
        advice = [f"micro_batch_tokens={seq_len} (one row per forward pass) or twice that"]
        if not plan.config.activation_checkpointing:
            advice.append("activation_checkpointing=True")
        if processes.world > 1 and plan.config.parallel != "fsdp":
            advice.append("parallel='fsdp'")
        elif processes.world == 1 and processes.device.type == "cuda":
            advice.append("more GPUs: torchrun with parallel='fsdp'")
        raise OutOfMemory(
            f"out of memory on {processes.device} with rows of {seq_len} tokens and a model of "
            f"{plan.model.n_params_total:,} parameters. Set in TrainConfig, in this order: {'; '.join(advice)}. "
            "Call train again with the same out: results do not change and it goes on from the last state"
        ) from error


@contextlib.contextmanager
def _deterministic(config: TrainConfig) -> Iterator[None]:
    import torch

    if not config.deterministic:
        yield
        return
    before, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@contextlib.contextmanager
def _only_one(folder: Path, active: bool) -> Iterator[None]:
    """Hold a lock that the operating system drops when the process dies, however it dies."""
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    if not active:
        yield
        return
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115 (closed by the with below)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"another process is training {folder.name} in {folder.parents[1]}: wait for it, or choose another out"
            ) from None
        yield


def _mean_loss(engine: Any, stream: Any, model: ModelConfig, config: TrainConfig, processes: Any) -> float:
    """Return the cross-entropy of a stream's first ``validation_tokens`` tokens, shared among the processes."""
    import torch

    limit = min(len(stream), config.validation_tokens)
    source = Source(stream, limit, "", None, None, None, None, None)
    # as many rows at a time as training takes, so that memory that sufficed there suffices here
    rows = engine.micro_rows
    order = Order(source, config.seq_len, rows, 0, model.vocab_size)
    n_steps = -(-(limit - 1) // (rows * config.seq_len))
    sums = torch.zeros(2, dtype=torch.float64)
    # sharded models need every process to take part in every forward pass
    for first in range(0, n_steps, processes.world):
        step = first + processes.rank
        inputs, targets = order.load(min(step, n_steps - 1), limit)
        total, count = engine.loss(*engine.to_device(inputs, targets))
        if step < n_steps:
            sums += torch.tensor([total, count], dtype=torch.float64)
    if processes.world > 1:
        on_device = sums.to(engine.device)
        torch.distributed.all_reduce(on_device)
        sums = on_device.cpu()
    return float(sums[0] / sums[1])


class _Run:
    """One call of `train`: the plan's segments in order, each from the best state at hand."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        processes: Any,
        *,
        out: Path,
        on_log: Callable[[dict[str, Any]], None] | None,
        progress: bool | None,
    ) -> None:
        self.plan, self.source, self.processes, self.out = plan, source, processes, out
        self.on_log, self.progress = on_log, progress
        self.engine: Any = None

    def all(self, *, only_trunk: bool) -> list[Checkpoint]:
        done = self._finished()
        needed = [
            segment for segment in self.plan.segments if segment.tokens is not None and segment.tokens not in done
        ]
        last_start = max((segment.start for segment in needed), default=0)
        todo = [
            segment
            for segment in self.plan.segments
            if (segment.stop <= last_start if segment.tokens is None else segment in needed and not only_trunk)
        ]
        for at, segment in enumerate(todo):
            checkpoint = self._run(segment, later=todo[at + 1 :])
            if segment.tokens is not None:
                done[segment.tokens] = checkpoint
        return [done[tokens] for tokens in self.plan.tokens if tokens in done]

    def _finished(self) -> dict[int, Checkpoint]:
        """Return the checkpoints that exist; a damaged one is an error, not a reason to train quietly again."""
        found: dict[int, Checkpoint] = {}
        with self.processes.first_only() as first:
            if first:
                for tokens in self.plan.tokens:
                    path = self.out / f"D{tokens}"
                    if path.exists():
                        found[tokens] = Checkpoint.load(path)
        return self.processes.say(found)

    def _states(self, segment: Segment) -> Path:
        chained = segment.tokens is None or self.plan.config.schedule == "wsd-s"
        return self.out / "states" / ("trunk" if chained else segment.name)

    def _run(self, segment: Segment, *, later: Sequence[Segment]) -> Any:
        folder = self._states(segment)
        if segment.tokens is None and self._has_state(folder, segment.stop):
            return None  # without the lock: another process may be training the trunk further, beyond this branch
        with _only_one(folder, self.processes.first):
            self.processes.wait()
            if segment.tokens is not None and self.processes.first:
                for left in self.out.glob(f".{segment.name}.*.tmp"):  # a checkpoint that a killed run was writing
                    shutil.rmtree(left, ignore_errors=True)
            step, path = self._best_state(segment, folder)
            if segment.tokens is None and step == segment.stop:
                return None
            if self.engine is None:
                from ragscale.training._engine import Engine

                self.engine = Engine(self.plan.model, self._with_compile(segment, step, later), self.processes)
                self._fresh = True
            values: dict[str, Any] = {"skipped_steps": 0, "train_loss": None}
            if path is not None:
                tensors, values = read_state(path)
                self.engine.load_state(tensors)
            elif not self._fresh:
                self._restart()
            self._fresh = False
            checkpoint = self._steps(segment, folder, step, values)
        if segment.tokens is not None and self.plan.config.schedule != "wsd-s" and self.processes.first:
            shutil.rmtree(folder, ignore_errors=True)
        return checkpoint

    def _has_state(self, folder: Path, step: int) -> bool:
        there = False
        with self.processes.first_only() as first:
            if first:
                there = find_state(folder, after=step - 1, at_most=step) is not None
        return bool(self.processes.say(there))

    def _with_compile(self, segment: Segment, step: int, later: Sequence[Segment]) -> TrainConfig:
        """Return the config with ``compile`` decided by how many steps this call has still to do."""
        config = self.plan.config
        if config.compile is not None or self.processes.device.type != "cuda":
            return config
        from ragscale.training._compile import worth_compiling
        from ragscale.training._dry_run import peak_flops

        left = segment.stop - step + sum(after.stop - after.start for after in later)
        peak = peak_flops(self.processes.device)
        return config.replace(compile=worth_compiling(self.plan.model, config, left, peak=peak))

    def _restart(self) -> None:
        model = self.plan.model.build(seed=self.plan.config.seed).state_dict()
        self.engine.load_state({f"model.{name}": tensor for name, tensor in model.items()})

    def _best_state(self, segment: Segment, folder: Path) -> tuple[int, Path | None]:
        """Return the step and state to start from: the segment's own last, else its parent's, else the beginning."""
        found: tuple[int, Path] | None = None
        with self.processes.first_only() as first:
            if first:
                chained = folder.name == "trunk"
                at_most = segment.stop if segment.tokens is None else segment.stop - 1
                if chained and segment.tokens is not None and segment.tokens == self.plan.tokens[-1]:
                    at_most = segment.stop
                found = find_state(folder, after=-1 if chained else segment.start, at_most=at_most)
                if found is None and segment.parent == "trunk":
                    found = find_state(self.out / "states" / "trunk", after=segment.start - 1, at_most=segment.start)
                    if found is None:
                        trunk = self.out / "states" / "trunk"
                        raise CheckpointError(
                            f"the trunk's state at step {segment.start}, from which {segment.name} branches, is "
                            f"missing or damaged in {trunk}: call train again, which trains the trunk anew"
                        )
        found = self.processes.say(found)
        return found if found is not None else (0, None)

    def _steps(self, segment: Segment, folder: Path, step: int, values: dict[str, Any]) -> Checkpoint | None:
        import torch

        plan, config, engine, processes = self.plan, self.plan.config, self.engine, self.processes
        limit = None if segment.tokens is None else segment.start * plan.batch_tokens + plan.segment_tokens(segment)
        order = Order(
            self.source,
            config.seq_len,
            engine.batch_rows,
            config.seed,
            plan.model.vocab_size,
            processes.rank,
            processes.world,
            config.window_share,
        )
        log = Log(
            self.out / "metrics" / f"{segment.name}.jsonl",
            step=step,
            start=segment.start,
            stop=segment.stop,
            on_log=self.on_log,
            progress=self.progress,
            active=processes.first,
        )
        meter = _Meter(plan, processes, segment)
        # what was measured since the last row of the log is part of the state, so that rows do not depend on stops
        pending = [torch.tensor(row, device=engine.device) for row in values.pop("unlogged", [])]
        in_a_row = 0
        saved_at = time.monotonic()
        batches = prefetch(lambda at: engine.to_device(*order.load(at, limit)), range(step, segment.stop))
        with contextlib.closing(log), contextlib.closing(batches):
            for inputs, targets in batches:
                rate = plan.learning_rate(segment, step)
                pending.append(engine.step(inputs, targets, order.n_targets(step, limit), rate))
                step += 1
                log.advance(1)
                end = step == segment.stop
                if step % config.log_every == 0 or end:
                    measured = torch.stack(pending).tolist()
                    pending.clear()
                    row = meter.row(step, rate, measured)
                    bad = [step - len(measured) + i for i, (_, _, skipped) in enumerate(measured) if skipped]
                    in_a_row = _in_a_row(in_a_row, measured)
                    if bad:
                        row["skipped"] = [_batch_ids(plan, at) for at in bad]
                        values["skipped_steps"] += len(bad)
                    values["train_loss"] = row["loss"] if row["loss"] is not None else values["train_loss"]
                    log.row(row)
                    if in_a_row >= config.max_bad_steps:
                        raise ConfigError(_diverged(plan, step, in_a_row, bad))
                    late = processes.say(time.monotonic() - saved_at > 60 * config.save_minutes)
                else:
                    late = False
                by_step = config.save_every is not None and step % config.save_every == 0
                if (late or by_step) and not end:
                    unlogged = torch.stack(pending).tolist() if pending else []
                    self._save(folder, segment, step, {**values, "unlogged": unlogged})
                    saved_at = time.monotonic()
                if config.validate_every and step % config.validate_every == 0 and not end:
                    self._validate(segment, step, log)
                    meter.restart()
            return self._finish(segment, folder, step, values, log)

    def _finish(self, segment: Segment, folder: Path, step: int, values: dict[str, Any], log: Log) -> Checkpoint | None:
        if segment.tokens is None or self.plan.config.schedule == "wsd-s":
            self._save(folder, segment, step, values)
        if segment.tokens is None:
            return None
        loss = self._validate(segment, step, log)
        weights = self.engine.weights()
        n_tokens = segment.start * self.plan.batch_tokens + self.plan.segment_tokens(segment)
        checkpoint: Checkpoint | None = None
        with self.processes.first_only() as first:
            if first:
                checkpoint = write_checkpoint(
                    self.out / segment.name,
                    weights,
                    self.plan.model,
                    self.plan.config,
                    self.source.tokenizer,
                    n_tokens=n_tokens,
                    step=step,
                    epochs=n_tokens / self.source.n_tokens,
                    validation_loss=loss,
                    train_loss=values["train_loss"],
                    skipped_steps=values["skipped_steps"],
                    split=self.source.digest,
                    tokenizer_digest=self.source.tokenizer_digest,
                    versions=versions(),
                )
        return self.processes.say(checkpoint)

    def _save(self, folder: Path, segment: Segment, step: int, values: dict[str, Any]) -> None:
        tensors = self.engine.state()
        with self.processes.first_only() as first:
            if first:
                loader = {"step": step, "tokens": step * self.plan.batch_tokens, "split": self.source.digest}
                write_state(folder, step, tensors, {**values, "loader": loader}, keep=step == segment.stop)
                remove_old_states(folder, keep_last=self.plan.config.keep_states)

    def _validate(self, segment: Segment, step: int, log: Log) -> float | None:
        if self.source.validation is None:
            return None
        loss = _mean_loss(self.engine, self.source.validation, self.plan.model, self.plan.config, self.processes)
        log.row({"segment": segment.name, "step": step, "validation_loss": loss})
        return loss


class _Meter:
    """Turns steps and seconds into tokens per second, MFU and time left."""

    def __init__(self, plan: Plan, processes: Any, segment: Segment) -> None:
        from ragscale.training._dry_run import peak_flops

        self.plan, self.processes, self.segment = plan, processes, segment
        self.peak = peak_flops(processes.device)
        self.restart()

    def restart(self) -> None:
        self.since = time.perf_counter()

    def row(self, step: int, rate: float, measured: list[list[float]]) -> dict[str, Any]:
        now = time.perf_counter()
        seconds, self.since = now - self.since, now
        plan = self.plan
        n_tokens = len(measured) * plan.batch_tokens
        speed = n_tokens / seconds
        good = [(loss, norm) for loss, norm, skipped in measured if not skipped]
        flops = speed * plan.model.flops(plan.config.seq_len) / self.processes.world
        done = (
            step * plan.batch_tokens
            if self.segment.tokens is None
            else min(step * plan.batch_tokens, self.segment.tokens)
        )
        return {
            "segment": self.segment.name,
            "step": step,
            "tokens": done,
            "D/N": done / plan.model.n_params,
            "loss": sum(loss for loss, _ in good) / len(good) if good else None,
            "gradient_norm": good[-1][1] if good else None,
            "learning_rate": rate,
            "tokens_per_second": speed,
            "flops_per_second_and_device": flops,
            "mfu": None if self.peak is None else flops / self.peak,
            "memory_gib": _memory_gib(self.processes.device),
            "seconds_left": (self.segment.stop - step) * seconds / len(measured),
        }


def _memory_gib(device: Any) -> float | None:
    """Return the most memory held so far: the allocator's on CUDA, the process's elsewhere."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _in_a_row(before: int, measured: list[list[float]]) -> int:
    count = before
    for *_, skipped in measured:
        count = count + 1 if skipped else 0
    return count


def _batch_ids(plan: Plan, step: int) -> dict[str, int]:
    return {"step": step, "first_token": step * plan.batch_tokens, "stop_token": (step + 1) * plan.batch_tokens}


def _diverged(plan: Plan, step: int, count: int, bad: list[int]) -> str:
    first = _batch_ids(plan, step - count)
    return (
        f"the last {count} steps up to step {step} had a loss or gradient that is not finite and were skipped "
        f"(since step {first['step']}, which read tokens {first['first_token']} to {first['stop_token']}; "
        f"in the last log interval: {bad}): lower learning_rate (now {plan.config.learning_rate:g}), lengthen "
        "warmup_steps, or look at that text; the last saved state is from before"
    )
