"""What the jobs of a study ask of an executor: hours, memory, disk and GPUs of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ragscale.study._config import StudyConfig
from ragscale.study._cost import COMPILE_SECONDS, START_SECONDS, scoring_hours
from ragscale.study._cost_before import GIB, before_models
from ragscale.study._device import device_of
from ragscale.study._inputs import EvaluateInputs, TrainInputs
from ragscale.study._jobs import Needs
from ragscale.study._measured import NOT_MEASURED, Measured
from ragscale.study._plan import cells
from ragscale.study._sizes import Sizes
from ragscale.training import DEVICES, Device, dry_run, make_plan

USUAL_QUESTIONS = 10_000  # of all tasks, where they are not counted
_MARGIN = 2.0  # a limit is an upper bound: time over the estimate costs nothing, time under it the job
_START = (START_SECONDS + COMPILE_SECONDS) / 3600


def device_for(device: str | Device | None, executor: Any) -> Device:
    """Return what jobs will run on: what is named, what the executor names, or this machine; a queue has GPUs."""
    given = device if device is not None else getattr(executor, "device", None)
    local = given is None and not getattr(executor, "fresh_process", callable(executor))
    return device_of(given) if given is not None or local else DEVICES["A100"]


def expected_hours(
    config: StudyConfig, sizes: Sizes, device: Device, *, n_questions: int
) -> Callable[[str, Any], float]:
    """Return the function from a job's stage and inputs to the hours that it takes by the rates of the plan."""
    grid = cells(config, budget=sizes.budget, vocab_size=sizes.vocab_size)
    before = before_models(config, sizes, grid, n_questions)
    models = cast(Any, config.models)
    shapes: Any = {model.name: model.shape_for(sizes.vocab_size) for model in models}
    start = START_SECONDS / 3600

    def hours(stage: str, inputs: Any) -> float:
        if isinstance(inputs, TrainInputs):
            return _train_hours(inputs, device) + start
        if isinstance(inputs, EvaluateInputs):
            shape = shapes[inputs.model]
            of_stores = (scoring_hours(config, shape, device, n_questions, store=R, k=inputs.k) for R in inputs.stores)
            return sum(of_stores) + start
        cost = before.get("index" if stage == "check" else stage, before["split"])
        return cost["cpu_hours"] / max(1, cost["jobs"])

    return hours


def needs_for(
    config: StudyConfig,
    sizes: Sizes,
    *,
    device: str | Device | None,
    executor: Any,
    measured: Measured = NOT_MEASURED,
) -> Callable[[str, Any], Needs]:
    """Return what a job of a stage wants, from the plan of its training, the rates, and what finished jobs took."""
    chosen = device_for(device, executor)
    gpus = 0 if chosen.name == "CPU-core" else 1
    grid = cells(config, budget=sizes.budget, vocab_size=sizes.vocab_size)
    before = before_models(config, sizes, grid, USUAL_QUESTIONS)
    models = cast(Any, config.models)
    shapes: Any = {model.name: model.shape_for(sizes.vocab_size) for model in models}
    names = {shape: name for name, shape in shapes.items()}
    expected = expected_hours(config, sizes, chosen, n_questions=USUAL_QUESTIONS)

    def needs(stage: str, inputs: Any) -> Needs:
        model = names.get(inputs.model, "") if isinstance(inputs, TrainInputs) else ""
        hours = _MARGIN * expected(stage, inputs) * measured.ratio(stage, model)
        if isinstance(inputs, TrainInputs):
            dry: Any = dry_run(
                inputs.model, inputs.training, inputs.ladder, device=chosen, n_devices=inputs.n_processes
            )
            memory, disk = 4.0 + float(dry["memory_gib"].max()), float(dry["disk_gib"].max())
            return Needs(gpus=gpus * inputs.n_processes, memory_gib=memory, hours=hours + _START, disk_gib=disk)
        if isinstance(inputs, EvaluateInputs):
            memory = 4.0 + 8 * shapes[inputs.model].n_params_total / GIB
            return Needs(gpus=gpus, memory_gib=memory, hours=hours + _START)
        cost = before.get("index" if stage == "check" else stage, before["split"])
        disk = cost["disk_gib"] / max(1, cost["jobs"])
        return Needs(memory_gib=2.0 + cost["memory_gib"], hours=hours + 0.1, disk_gib=disk)

    return needs


def _train_hours(inputs: TrainInputs, device: Device) -> float:
    plan = make_plan(inputs.model, inputs.training, inputs.tokens)
    segments = [s for s in plan.segments if s.tokens == inputs.D and (inputs.D is not None or s.stop == inputs.stop)]
    tokens = sum(plan.segment_tokens(segment) for segment in segments)
    rate = device.peak_flops * device.mfu * inputs.n_processes * 3600
    return tokens * inputs.model.flops(inputs.training.seq_len) / rate
