"""From a list of D to steps: the trunk, the branches, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ragscale._counts import as_counts
from ragscale.errors import ConfigError
from ragscale.training._config import TrainConfig
from ragscale.training._model import ModelConfig
from ragscale.training._rates import default_batch_tokens, default_learning_rate
from ragscale.training._windows import window

LEAST_STEPS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Consecutive steps that one process runs without interruption, and where their first state comes from.

    Parameters
    ----------
    name : str
        Its folder: ``"trunk"``, or ``"D<tokens>"`` for what ends in a checkpoint.
    start, stop : int
        Steps: the first one, and the one after the last.
    parent : str or None
        The segment whose state after ``start`` steps this one starts from; None starts from fresh weights.
    tokens : int or None
        D of the checkpoint at the end, None for a trunk.
    decay_start : int
        The step from which the rate decays; ``stop`` for a trunk.
    """

    name: str
    start: int
    stop: int
    parent: str | None
    tokens: int | None
    decay_start: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a call of `ragscale.train` will do, before it does it.

    Parameters
    ----------
    model : ModelConfig
    config : TrainConfig
        With every None that matters to the result filled in.
    tokens : tuple of int
        The values of D, ascending.
    segments : tuple of Segment
        In the order in which one process runs them.
    """

    model: ModelConfig
    config: TrainConfig
    tokens: tuple[int, ...]
    segments: tuple[Segment, ...]

    @property
    def batch_tokens(self) -> int:
        """Tokens per step."""
        assert self.config.batch_tokens is not None
        return self.config.batch_tokens

    def steps(self, tokens: int) -> int:
        """Return the optimiser steps after which ``tokens`` tokens have been read.

        The last step of a branch may be a partial batch. "wsd-s" goes on after each D, so there D is rounded to
        whole batches.
        """
        return _steps(tokens, self.config)

    @property
    def tokens_trained(self) -> int:
        """Tokens that pass through the model in all, over trunk and branches."""
        return sum(self.segment_tokens(segment) for segment in self.segments)

    def segment_tokens(self, segment: Segment) -> int:
        """Return the tokens that a segment reads."""
        end = segment.stop * self.batch_tokens
        if segment.tokens is not None and self.config.schedule != "wsd-s":
            end = segment.tokens
        return end - segment.start * self.batch_tokens

    def learning_rate(self, segment: Segment, step: int) -> float:
        """Return the learning rate of a step (counted from 0) of a segment."""
        return learning_rate(self.config, segment, step)


def learning_rate(config: TrainConfig, segment: Segment, step: int) -> float:
    """Return the rate of one step: linear warm-up, constant, decay over ``[decay_start, stop)``.

    Step w of a warm-up of W steps has (w + 1) / W of the peak. Step i of a decay of n steps is at
    x = (i + 1) / (n + 1), so that neither the constant phase is repeated nor a step is spent at a rate of exactly zero.

    References
    ----------
    Hägele et al. 2024, arXiv 2405.18392, section 3 (1 - sqrt); Hu et al. 2024, arXiv 2404.06395 (WSD).
    """
    assert config.learning_rate is not None
    assert config.warmup_steps is not None
    peak = config.learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if step < segment.decay_start:
        return peak
    x = (step - segment.decay_start + 1) / (segment.stop - segment.decay_start + 1)
    shape = "cosine" if config.schedule == "cosine" else config.decay_shape
    left = {"1-sqrt": 1 - math.sqrt(x), "linear": 1 - x, "cosine": (1 + math.cos(math.pi * x)) / 2}[shape]
    return peak * (config.final_rate + (1 - config.final_rate) * left)


def make_plan(model: ModelConfig, config: TrainConfig, tokens: int | Sequence[int]) -> Plan:
    """Fill in what the config leaves open and lay out the segments; a plan that cannot work is refused.

    Parameters
    ----------
    model : ModelConfig
    config : TrainConfig
    tokens : int or sequence of int
        The values of D.

    Returns
    -------
    Plan
        ``plan.config`` is complete: given to another call it computes the same, whatever the other values of D.

    Raises
    ------
    ConfigError
        With every problem of the plan and what to change.

    Examples
    --------
    >>> model = ModelConfig.olmo2("0.15M")
    >>> plan = make_plan(model, TrainConfig(seq_len=64), [500_000, 1_000_000])
    >>> [(segment.name, segment.start, segment.stop) for segment in plan.segments]
    [('trunk', 0, 313), ('D500000', 313, 391), ('trunk', 313, 626), ('D1000000', 626, 782)]
    """
    problems: list[str] = []
    values = sorted(set(as_counts("tokens", tokens, least=2)))
    if not values:
        raise ConfigError("tokens names no D: give one count of tokens or several")
    if config.seq_len > model.max_seq_len:
        problems.append(
            f"seq_len={config.seq_len} exceeds the model's max_seq_len={model.max_seq_len}: "
            "lower the one or give ModelConfig a larger max_seq_len"
        )
    complete = fill_in(model, config, values)
    if not config.allow_short_runs:
        problems += _too_short(complete, values)
    if problems:
        raise ConfigError("this plan cannot work:\n- " + "\n- ".join(problems))
    return Plan(model=model, config=complete, tokens=tuple(values), segments=_segments(complete, values))


def fill_in(model: ModelConfig, config: TrainConfig, tokens: Sequence[int]) -> TrainConfig:
    """Return the config with batch, rate, warm-up and betas set where they are None, for these values of D."""
    shortest = min(tokens)
    batch = config.batch_tokens
    if batch is None:
        batch = default_batch_tokens(tokens, config.seq_len)
    rate = config.learning_rate
    if rate is None:
        rate = default_learning_rate(model, tokens, batch)
    warmup = config.warmup_steps
    if warmup is None:
        warmup = max(1, round(min(0.1 * shortest, model.n_params) / batch))
    elif config.schedule == "wsd-s":
        warmup = min(warmup, max(1, round(shortest / batch)))
    betas = config.betas or ((0.9, 0.95) if batch >= 524_288 else (0.9, 0.99))
    return config.replace(batch_tokens=batch, learning_rate=rate, warmup_steps=warmup, betas=betas)


def _steps(tokens: int, config: TrainConfig) -> int:
    assert config.batch_tokens is not None
    if config.schedule == "wsd-s":
        return max(1, round(tokens / config.batch_tokens))
    # a last batch that holds one token would hold no target
    return max(1, math.ceil((tokens - 1) / config.batch_tokens))


def _decay_steps(n_steps: int, config: TrainConfig) -> int:
    return max(1, round(config.decay_fraction * n_steps))


def _branch_start(tokens: int, stop: int, config: TrainConfig) -> int:
    """Return the step at which D's branch leaves: before the window in which D ends, so that the trunk knows no D."""
    assert config.batch_tokens is not None
    first, _ = window(max(0, (tokens - 1) // config.seq_len), config.window_share)
    return min(stop - _decay_steps(stop, config), first * config.seq_len // config.batch_tokens)


def _too_short(config: TrainConfig, values: list[int]) -> list[str]:
    assert config.batch_tokens is not None
    assert config.warmup_steps is not None
    problems = []
    shortest, steps = values[0], _steps(values[0], config)
    if steps < LEAST_STEPS:
        fit = shortest // LEAST_STEPS // config.seq_len * config.seq_len
        advice = (
            f"batch_tokens={fit} (or less)"
            if fit
            else f"seq_len={max(1, shortest // LEAST_STEPS)} (or less) and a batch of it"
        )
        problems.append(
            f"D={shortest} is {steps} steps of {config.batch_tokens} tokens, under {LEAST_STEPS}: "
            f"use {advice}, drop this D, or set allow_short_runs=True"
        )
    decay = _decay_steps(steps, config) if config.schedule != "cosine" else 1
    if config.warmup_steps + decay > steps:
        problems.append(
            f"D={shortest} is {steps} steps, but {config.warmup_steps} of warm-up and {decay} of decay do not fit: "
            f"use warmup_steps={max(1, steps // 10)}, drop this D, or set allow_short_runs=True"
        )
    if config.schedule == "wsd-s":
        ends = [_steps(value, config) for value in values]
        if len(set(ends)) < len(ends):
            problems.append(f"some of the values of D fall on the same step of {config.batch_tokens} tokens: {values}")
    return problems


def _segments(config: TrainConfig, values: list[int]) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    if config.schedule == "cosine":
        assert config.warmup_steps is not None
        for value in values:
            stop = _steps(value, config)
            segments.append(
                Segment(
                    name=f"D{value}",
                    start=0,
                    stop=stop,
                    parent=None,
                    tokens=value,
                    decay_start=min(config.warmup_steps, stop),
                )
            )
    elif config.schedule == "wsd-s":
        previous: Segment | None = None
        for value in values:
            start = previous.stop if previous else 0
            stop = _steps(value, config)
            previous = Segment(
                name=f"D{value}",
                start=start,
                stop=stop,
                parent=previous.name if previous else None,
                tokens=value,
                decay_start=stop - _decay_steps(stop - start, config),
            )
            segments.append(previous)
    else:
        at = 0
        for value in values:
            stop = _steps(value, config)
            start = _branch_start(value, stop, config)
            if start > at:
                segments.append(
                    Segment(name="trunk", start=at, stop=start, parent=None, tokens=None, decay_start=start)
                )
                at = start
            parent = "trunk" if start > 0 else None
            segments.append(
                Segment(name=f"D{value}", start=start, stop=stop, parent=parent, tokens=value, decay_start=start)
            )
    return tuple(segments)
