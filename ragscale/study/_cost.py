"""What a study costs before any of it is spent: device hours, wall hours, money, memory and disk, stage by stage."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ragscale.errors import ConfigError
from ragscale.study._config import StudyConfig
from ragscale.study._cost_before import GIB, before_models
from ragscale.study._device import device_of
from ragscale.study._graph_reading import asked_conditions
from ragscale.study._measured import NOT_MEASURED, Measured
from ragscale.study._plan import Cell, cells, model_training, prompt_length
from ragscale.study._plan_result import StudyPlan
from ragscale.study._reading_law import all_below_reading
from ragscale.study._sizes import Sizes
from ragscale.study._variants import variants
from ragscale.training import Device, ModelConfig, dry_run, make_plan

# measured on an H200: scoring prompts with a 38M model reached a quarter of the share of the peak that training is
# taken to reach, and every job begins with the imports, on a GPU with compiling
_SCORING_SHARE = 0.25
START_SECONDS, COMPILE_SECONDS = 8.0, 30.0
_SAMPLE_BYTES = 700.0
_QUESTION_TOKENS = 40


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
    measured: Measured = NOT_MEASURED,
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
    rows = [
        _cell_row(
            config,
            cell,
            sizes=sizes,
            ladder=ladders[cell.model],
            device=chosen,
            n_questions=n_questions,
            price=price,
            measured=measured,
        )
        for cell in grid
    ]
    table = pd.DataFrame(rows)
    pieces = _pieces(config, grid, ladders, chosen, n_questions=n_questions, measured=measured)
    before = before_models(config, sizes, grid, n_questions, measured)
    stages = _stage_table(config, table, pieces=pieces, before=before, ladders=ladders, n=n_questions or 0, price=price)
    slots = n_devices // per_run
    asking = sum(before[stage]["cpu_hours"] for stage in before if stage != "split")
    wall = before["split"]["cpu_hours"] / config.n_workers + max(makespan(pieces, slots), asking)
    return StudyPlan(
        cells=table,
        stages=stages,
        wall_hours=wall,
        device=chosen.name,
        n_devices=n_devices,
        price_per_hour=price_per_hour,
        measured=measured.words,
        below_reading=_below_reading(config, grid, ladders),
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


def _below_reading(config: StudyConfig, grid: list[Cell], ladders: dict[str, dict[str, Any]]) -> str:
    """Warn of a study with stores whose models will not have begun to read."""
    if not any(cell.R for cell in grid):
        return ""
    checkpoints = {(cell.D, ladders[cell.model]["plan"].config.batch_tokens) for cell in grid}
    return all_below_reading(sorted(checkpoints), invented=config.is_synthetic)


def _cell_row(
    config: StudyConfig,
    cell: Cell,
    *,
    sizes: Sizes,
    ladder: dict[str, Any],
    device: Device,
    n_questions: int | None,
    price: float,
    measured: Measured,
) -> dict[str, Any]:
    cost, trained = ladder["rows"][cell.D], cell.R == 0
    totals = set(config.grids[2].tokens(n_params=cell.N, budget=sizes.budget))
    scoring = scoring_hours(config, ladder["shape"], device, n_questions, store=cell.R, k=cell.k)
    scoring *= measured.ratio("evaluate")
    hours = cost["hours"] * measured.ratio("train", cell.model) if trained else 0.0
    training = hours * config.processes_per_training
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
        "hours": hours,
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


def scoring_hours(
    config: StudyConfig, shape: ModelConfig, device: Device, n_questions: int | None, *, store: int, k: int
) -> float:
    n, length = _prompts_of(config, store, k or config.numbers_of_passages[0])
    flops = (n_questions or 0) * n * length * shape.flops(length) / 3
    return flops / (device.peak_flops * device.mfu * _SCORING_SHARE) / 3600


def _pieces(
    config: StudyConfig,
    grid: list[Cell],
    ladders: dict[str, dict[str, Any]],
    device: Device,
    *,
    n_questions: int | None,
    measured: Measured,
) -> list[Piece]:
    """Return the jobs of training and evaluation with their hours, in the order of the study."""
    pieces: list[Piece] = []
    on_gpu = device.name != "CPU-core"
    start = START_SECONDS / 3600
    for name, ladder in ladders.items():
        plan = ladder["plan"]
        rate = device.peak_flops * device.mfu * config.processes_per_training * 3600
        per_token = ladder["shape"].flops(plan.config.seq_len)
        compiling = COMPILE_SECONDS / 3600 if on_gpu and plan.config.compile is not False else 0.0
        for seed in config.seeds:
            trunk: tuple[int, ...] = ()
            branches: list[tuple[int, int]] = []
            for segment in plan.segments:
                hours = plan.segment_tokens(segment) * per_token / rate + start + compiling
                pieces.append(Piece(stage="train", hours=hours * measured.ratio("train", name), after=trunk))
                if segment.tokens is None or plan.config.schedule == "wsd-s":
                    trunk = (len(pieces) - 1,)
                if segment.tokens is not None:
                    branches.append((segment.tokens, len(pieces) - 1))
            for tokens, place in branches:
                of_run = [c for c in grid if c.model == name and c.seed == seed and tokens == c.D]
                for variant in variants(config):
                    mine = variant.cells(of_run)
                    hours = sum(
                        scoring_hours(config, ladder["shape"], device, n_questions, store=c.R, k=c.k) for c in mine
                    )
                    if mine:
                        hours = (hours + start) * measured.ratio("evaluate")
                        pieces.append(Piece(stage="evaluate", hours=hours, after=(place,)))
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
    samples = n * len(table) * _SAMPLE_BYTES / GIB
    weights = max(ladder["shape"].n_params_total for ladder in ladders.values()) * 4 / GIB
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
