"""What a study costs before any of it is spent: device hours, wall hours, money, memory and disk, stage by stage."""

from __future__ import annotations

import heapq
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ragscale.errors import ConfigError
from ragscale.study._config import StudyConfig
from ragscale.study._graph import asked_conditions
from ragscale.study._inputs import EvaluateInputs, TrainInputs
from ragscale.study._jobs import Needs
from ragscale.study._plan import Cell, cells, model_training, prompt_length
from ragscale.study._plan_result import StudyPlan
from ragscale.study._sizes import Sizes
from ragscale.study._variants import variants
from ragscale.training import DEVICES, Device, ModelConfig, dry_run, make_plan

_GIB = 2**30
# measured on one core of a shared machine (benchmarks/results/splitting.json, retrieval.json)
_SPLIT_TOKENS_PER_SECOND = 320_000
_INDEX_TOKENS_PER_SECOND = 1_750_000
_SEARCH_SECONDS_PER_PASSAGE = 3.2e-9
_PROMPT_SECONDS = 2e-3
_INDEX_BYTES_PER_TOKEN, _INDEX_MEMORY_PER_TOKEN = 9.0, 40.0
# measured on an H200: scoring prompts with a 38M model reached a quarter of the share of the peak that training is
# taken to reach, and every job begins with the imports, on a GPU with compiling
_SCORING_SHARE = 0.25
_START_SECONDS, _COMPILE_SECONDS = 8.0, 30.0
_PASSAGE_BYTES_PER_TOKEN = 2.5
_SAMPLE_BYTES = 700.0
_QUESTION_TOKENS = 40


def device_of(device: str | Device | None) -> Device:
    """Return a device by name; None takes the GPU of this machine, else a CPU core.

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    if isinstance(device, Device):
        return device
    if device is None:
        return _here()
    if device not in DEVICES:
        raise ConfigError(f"device must be one of {', '.join(DEVICES)} or a ragscale.training.Device, got {device!r}")
    return DEVICES[device]


def _here() -> Device:
    if "torch" in sys.modules or shutil.which("nvidia-smi"):
        import torch

        if torch.cuda.is_available():
            name = torch.cuda.get_device_name(0)
            found = [known for known in DEVICES.values() if any(part in name for part in known.match)]
            return found[0] if found else DEVICES["A100"]
    return DEVICES["CPU-core"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A job of the plan: hours on a device, and the places of the pieces that it waits for."""

    stage: str
    hours: float
    after: tuple[int, ...]


def plan_study(
    config: StudyConfig,
    sizes: Sizes,
    *,
    device: str | Device | None,
    n_devices: int,
    price_per_hour: float | None,
    n_questions: int | None,
) -> StudyPlan:
    """Return cells and stages with what they cost; see `ragscale.study.Study.plan`.

    Columns ``train_tokens`` (of the shared trunk, charged to the D that needs it, and of the decay branch),
    ``train_flops`` and ``hours`` stand on the R = 0 row of a checkpoint and sum to the cost of the training; they come
    from `ragscale.training.dry_run`. ``prompt_tokens`` is the most that scoring the cell can read: every question at
    full length. Prompts that several stores share are read once.

    Raises
    ------
    ConfigError
    """
    if isinstance(n_devices, bool) or not isinstance(n_devices, int) or n_devices < 1:
        raise ConfigError(f"n_devices = {n_devices!r} must be a whole number of at least 1")
    if price_per_hour is not None and not (isinstance(price_per_hour, int | float) and price_per_hour >= 0):
        raise ConfigError(f"price_per_hour = {price_per_hour!r} must be a number of at least 0")
    per_run = config.processes_per_training
    if n_devices < per_run:
        raise ConfigError(f"n_devices = {n_devices} is below processes_per_training = {per_run}: a run needs that many")
    chosen = device_of(device)
    grid = cells(config, budget=sizes.budget, vocab_size=sizes.vocab_size)
    price = 0.0 if price_per_hour is None else float(price_per_hour)
    ladders = _ladders(config, sizes, grid, chosen)
    common = {"sizes": sizes, "device": chosen, "n_questions": n_questions, "price": price}
    rows = [_cell_row(config, cell, ladder=ladders[cell.model], **common) for cell in grid]
    table = pd.DataFrame(rows)
    pieces = _pieces(config, grid, ladders, chosen, n_questions)
    before = _before_models(config, sizes, grid, n_questions)
    stages = _stage_table(config, table, pieces=pieces, before=before, ladders=ladders, n=n_questions or 0, price=price)
    slots = n_devices // per_run
    wall = before["split"]["cpu_hours"] / config.n_workers + max(
        makespan(pieces, slots), before["index"]["cpu_hours"] + before["retrieve"]["cpu_hours"]
    )
    return StudyPlan(
        cells=table,
        stages=stages,
        wall_hours=wall,
        device=chosen.name,
        n_devices=n_devices,
        price_per_hour=price_per_hour,
        note=sizes.note if n_questions is not None else f"{sizes.note}; the questions are not counted".lstrip("; "),
    )


def _ladders(config: StudyConfig, sizes: Sizes, grid: list[Cell], device: Device) -> dict[str, dict[str, Any]]:
    """Return, for each model, its shape, training, dry run by D, and the plan of one run."""
    found = {}
    models: Any = config.models
    for model in models:
        shape, training = model.shape_for(sizes.vocab_size), model_training(config, model)
        tokens = sorted({cell.D for cell in grid if cell.model == model.name})
        per_run = config.processes_per_training
        dry = dry_run(shape, training, tokens, device=device, n_devices=per_run)
        found[model.name] = {
            "shape": shape,
            "training": training,
            "rows": {row["D"]: row for row in dry.to_dict("records")},
            "plan": make_plan(shape, training, tokens),
        }
    return found


def _cell_row(
    config: StudyConfig,
    cell: Cell,
    *,
    sizes: Sizes,
    ladder: dict[str, Any],
    device: Device,
    n_questions: int | None,
    price: float,
) -> dict[str, Any]:
    cost, trained = ladder["rows"][cell.D], cell.R == 0
    totals = set(config.grids[2].tokens(n_params=cell.N, budget=sizes.budget))
    scoring = _scoring_hours(config, ladder["shape"], device, n_questions, store=cell.R, k=cell.k)
    training = cost["hours"] * config.processes_per_training if trained else 0.0
    return {
        "model": cell.model,
        "N": cell.N,
        "seed": cell.seed,
        "D": cell.D,
        "R": cell.R,
        "tokens_per_parameter": cell.D / cell.N,
        "store_share": cell.R / (cell.D + cell.R),
        "on_frontier": cell.D + cell.R in totals,
        "store_source": cell.source,
        "seen_share": _seen_share(cell, sizes.budget),
        "k": cell.k,
        "overlap": cell.overlap,
        "train_tokens": cost["trained_tokens"] if trained else 0,
        "train_flops": cost["flops"] if trained else 0.0,
        "hours": cost["hours"] if trained else 0.0,
        "evaluation_hours": scoring,
        "device_hours": training + scoring,
        "money": (training + scoring) * price if price else float("nan"),
        "memory_gib": cost["memory_gib"],
        "disk_bytes": cost["N_total"] * 4 if trained else 0,
        "prompt_tokens": float("nan") if n_questions is None else n_questions * prompt_length(config),
    }


def _seen_share(cell: Cell, budget: int) -> float:
    """Return the share of the store that pretraining reads; whole passages move it a little."""
    shared = min(cell.D, cell.R) if cell.source == "seen" else max(0, cell.D + cell.R - budget)
    return shared / cell.R if cell.R else 0.0


def _prompts_of(config: StudyConfig, store: int, k: int) -> tuple[int, int]:
    """Return how many prompts a question has in a cell, and the tokens of each: passages fill it up to its length."""
    conditions = asked_conditions(config)
    beside = ("oracle" in conditions) + ("random" in conditions and any(config.grids[1].values))
    n = 1 if store else 1 + beside
    shown = k * config.passage_tokens if store or n > 1 else 0
    return n, min(prompt_length(config), _QUESTION_TOKENS + shown)


def _scoring_hours(
    config: StudyConfig, shape: ModelConfig, device: Device, n_questions: int | None, *, store: int, k: int
) -> float:
    n, length = _prompts_of(config, store, k or config.numbers_of_passages[0])
    flops = (n_questions or 0) * n * length * shape.flops(length) / 3
    return flops / (device.peak_flops * device.mfu * _SCORING_SHARE) / 3600


def _pieces(
    config: StudyConfig, grid: list[Cell], ladders: dict[str, dict[str, Any]], device: Device, n_questions: int | None
) -> list[Piece]:
    """Return the jobs of training and evaluation with their hours, in the order of the study."""
    pieces: list[Piece] = []
    on_gpu = device.name != "CPU-core"
    start = _START_SECONDS / 3600
    for name, ladder in ladders.items():
        plan = ladder["plan"]
        rate = device.peak_flops * device.mfu * config.processes_per_training * 3600
        per_token = ladder["shape"].flops(plan.config.seq_len)
        compiling = _COMPILE_SECONDS / 3600 if on_gpu and plan.config.compile is not False else 0.0
        for seed in config.seeds:
            trunk: tuple[int, ...] = ()
            branches: list[tuple[int, int]] = []
            for segment in plan.segments:
                hours = plan.segment_tokens(segment) * per_token / rate + start + compiling
                pieces.append(Piece(stage="train", hours=hours, after=trunk))
                if segment.tokens is None or plan.config.schedule == "wsd-s":
                    trunk = (len(pieces) - 1,)
                if segment.tokens is not None:
                    branches.append((segment.tokens, len(pieces) - 1))
            for tokens, place in branches:
                of_run = [c for c in grid if c.model == name and c.seed == seed and tokens == c.D]
                for variant in variants(config):
                    mine = variant.cells(of_run)
                    hours = sum(
                        _scoring_hours(config, ladder["shape"], device, n_questions, store=c.R, k=c.k) for c in mine
                    )
                    if mine:
                        pieces.append(Piece(stage="evaluate", hours=hours + start, after=(place,)))
    return pieces


def makespan(pieces: Sequence[Piece], n_slots: int) -> float:
    """Return the hours until all pieces are done on ``n_slots`` devices, each piece as soon as it can start.

    Examples
    --------
    >>> trunk, left, right = (Piece(stage="train", hours=h, after=a) for h, a in ((2, ()), (1, (0,)), (1, (0,))))
    >>> makespan([trunk, left, right], 1), makespan([trunk, left, right], 2)
    (4.0, 3.0)
    """
    waiting = [len(piece.after) for piece in pieces]
    children: list[list[int]] = [[] for _ in pieces]
    for place, piece in enumerate(pieces):
        for parent in piece.after:
            children[parent].append(place)
    ready = [place for place, n in enumerate(waiting) if n == 0]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < n_slots:
            place = heapq.heappop(ready)
            heapq.heappush(running, (now + pieces[place].hours, place))
        now, place = heapq.heappop(running)
        for child in children[place]:
            waiting[child] -= 1
            if waiting[child] == 0:
                heapq.heappush(ready, child)
    return float(now)


def _before_models(
    config: StudyConfig, sizes: Sizes, grid: list[Cell], n_questions: int | None
) -> dict[str, dict[str, float]]:
    """Return CPU hours, memory and disk of the stages that need no model."""
    largest = [max((c.R for c in grid if c.source == source), default=0) for source in config.store_sources]
    stores = {(cell.source, cell.R, cell.k) for cell in grid if cell.R}
    width = 2 if sizes.vocab_size <= 2**16 else 4
    read = sizes.budget + config.validation_tokens
    questions = n_questions or 0
    n_passages = sum(largest) / max(1, config.passage_tokens - config.passage_overlap)
    n_prompts = questions * (len(stores) + 3)
    split = {
        "cpu_hours": read / _SPLIT_TOKENS_PER_SECOND / 3600,
        "memory_gib": 0.5,
        "disk_gib": read * (width + _PASSAGE_BYTES_PER_TOKEN) / _GIB if config.given_split is None else 0.0,
    }
    index = {
        "jobs": sum(size > 0 for size in largest),
        "cpu_hours": sum(largest) / _INDEX_TOKENS_PER_SECOND / 3600,
        "memory_gib": 0.3 + max(largest) * _INDEX_MEMORY_PER_TOKEN / _GIB,
        "disk_gib": sum(largest) * _INDEX_BYTES_PER_TOKEN / _GIB,
    }
    retrieve = {
        "jobs": sum(bool(variant.cells(grid)) for variant in variants(config)),
        "cpu_hours": (questions * n_passages * _SEARCH_SECONDS_PER_PASSAGE + n_prompts * _PROMPT_SECONDS) / 3600,
        "memory_gib": index["memory_gib"] + n_prompts * prompt_length(config) * 40 / _GIB,
        "disk_gib": n_prompts * prompt_length(config) * 4 / _GIB,
    }
    return {"split": split, "index": index, "retrieve": retrieve}


def _stage_table(
    config: StudyConfig,
    table: Any,
    *,
    pieces: list[Piece],
    before: dict[str, dict[str, float]],
    ladders: dict[str, dict[str, Any]],
    n: int,
    price: float,
) -> pd.DataFrame:
    """Return one row for each stage and one for all: jobs, device and CPU hours, money, memory, disk."""
    rows: list[dict[str, Any]] = [
        {"stage": stage, "jobs": 1, "device_hours": 0.0, **cost} for stage, cost in before.items()
    ]
    per_run = config.processes_per_training
    runs = len(config.seeds)
    training_disk = sum(max(row["disk_gib"] for row in ladder["rows"].values()) for ladder in ladders.values()) * runs
    samples = n * len(table) * _SAMPLE_BYTES / _GIB
    weights = max(ladder["shape"].n_params_total for ladder in ladders.values()) * 4 / _GIB
    for stage, memory, disk in (
        ("train", float(table["memory_gib"].max()), training_disk),
        ("evaluate", 1.0 + 2 * weights, samples),
    ):
        mine = [piece for piece in pieces if piece.stage == stage]
        hours = sum(piece.hours for piece in mine) * (per_run if stage == "train" else 1)
        row = {"stage": stage, "jobs": len(mine), "device_hours": hours, "cpu_hours": 0.0}
        rows.append({**row, "memory_gib": memory, "disk_gib": disk})
    total = {
        "stage": "total",
        **{name: sum(row[name] for row in rows) for name in ("jobs", "device_hours", "cpu_hours", "disk_gib")},
        "memory_gib": max(row["memory_gib"] for row in rows),
    }
    stages = pd.DataFrame([*rows, total])
    stages.insert(4, "money", stages["device_hours"] * price if price else float("nan"))
    return stages


# What jobs ask of an executor ------------------------------------------------------------------------------------

_MARGIN = 2.0  # a limit is an upper bound: time over the estimate costs nothing, time under it the job


def needs_for(
    config: StudyConfig, sizes: Sizes, *, device: str | Device | None, executor: Any
) -> Callable[[str, Any], Needs]:
    """Return what a job of a stage wants, from the plan of its training and the rates above."""
    given = device if device is not None else getattr(executor, "device", None)
    local = given is None and not getattr(executor, "fresh_process", callable(executor))
    chosen = device_of(given) if given is not None or local else DEVICES["A100"]
    gpus = 0 if chosen.name == "CPU-core" else 1
    margin = _MARGIN
    start = (_START_SECONDS + _COMPILE_SECONDS) / 3600
    grid = cells(config, budget=sizes.budget, vocab_size=sizes.vocab_size)
    before = _before_models(config, sizes, grid, 10_000)
    shapes: Any = {model.name: model.shape_for(sizes.vocab_size) for model in config.models}  # type: ignore[union-attr]

    def needs(stage: str, inputs: Any) -> Needs:
        if isinstance(inputs, TrainInputs):
            row = _train_needs(inputs, chosen)
            hours = margin * row["hours"] + start
            return Needs(gpus=gpus * inputs.n_processes, memory_gib=row["memory"], hours=hours, disk_gib=row["disk"])
        if isinstance(inputs, EvaluateInputs):
            shape = shapes[inputs.model]
            hours = sum(_scoring_hours(config, shape, chosen, 2_000, store=R, k=inputs.k) for R in inputs.stores)
            memory = 4.0 + 8 * shape.n_params_total / _GIB
            return Needs(gpus=gpus, memory_gib=memory, hours=margin * hours + start)
        cost = before.get("index" if stage == "check" else stage, before["split"])
        hours = margin * cost["cpu_hours"] + 0.1
        return Needs(memory_gib=2.0 + cost["memory_gib"], hours=hours, disk_gib=cost["disk_gib"])

    return needs


def _train_needs(inputs: TrainInputs, device: Device) -> dict[str, float]:
    plan = make_plan(inputs.model, inputs.training, inputs.tokens)
    segments = [s for s in plan.segments if s.tokens == inputs.D and (inputs.D is not None or s.stop == inputs.stop)]
    tokens = sum(plan.segment_tokens(segment) for segment in segments)
    dry: Any = dry_run(inputs.model, inputs.training, inputs.ladder, device=device, n_devices=inputs.n_processes)
    rate = device.peak_flops * device.mfu * inputs.n_processes * 3600
    return {
        "hours": tokens * inputs.model.flops(inputs.training.seq_len) / rate,
        "memory": 4.0 + float(dry["memory_gib"].max()),
        "disk": float(dry["disk_gib"].max()),
    }
