"""The rows of a run's metrics, and what they say of steps that were skipped."""

from __future__ import annotations

import time
from typing import Any

from ragscale.training._plan import Plan, Segment


class Meter:
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


def bad_in_a_row(before: int, measured: list[list[float]]) -> int:
    count = before
    for *_, skipped in measured:
        count = count + 1 if skipped else 0
    return count


def batch_ids(plan: Plan, step: int) -> dict[str, int]:
    return {"step": step, "first_token": step * plan.batch_tokens, "stop_token": (step + 1) * plan.batch_tokens}


def diverged(plan: Plan, step: int, count: int, bad: list[int]) -> str:
    first = batch_ids(plan, step - count)
    return (
        f"the last {count} steps up to step {step} had a loss or gradient that is not finite and were skipped "
        f"(since step {first['step']}, which read tokens {first['first_token']} to {first['stop_token']}; "
        f"in the last log interval: {bad}): lower learning_rate (now {plan.config.learning_rate:g}), lengthen "
        "warmup_steps, or look at that text; the last saved state is from before"
    )
