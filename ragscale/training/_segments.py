"""The trunk and branches of one run, each from the best state at hand, to its checkpoint."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ragscale.errors import CheckpointError, ConfigError
from ragscale.training._checkpoint import (
    Checkpoint,
    find_state,
    read_state,
    remove_old_states,
    versions,
    write_checkpoint,
    write_state,
)
from ragscale.training._config import TrainConfig
from ragscale.training._data import Order, Source, prefetch
from ragscale.training._log import Log
from ragscale.training._meter import Meter, bad_in_a_row, batch_ids, diverged
from ragscale.training._plan import Plan, Segment
from ragscale.training._run_folder import only_one
from ragscale.training._validation import mean_loss


class Run:
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
        with only_one(folder, self.processes.first):
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
        meter = Meter(plan, processes, segment)
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
                    in_a_row = bad_in_a_row(in_a_row, measured)
                    if bad:
                        row["skipped"] = [batch_ids(plan, at) for at in bad]
                        values["skipped_steps"] += len(bad)
                    values["train_loss"] = row["loss"] if row["loss"] is not None else values["train_loss"]
                    log.row(row)
                    if in_a_row >= config.max_bad_steps:
                        raise ConfigError(diverged(plan, step, in_a_row, bad))
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
        loss = mean_loss(self.engine, self.source.validation, self.plan.model, self.plan.config, self.processes)
        log.row({"segment": segment.name, "step": step, "validation_loss": loss})
        return loss
