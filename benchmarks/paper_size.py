"""Plan the paper's grid, 30M to 3B parameters and up to 150 tokens for each, with stores of 20B tokens.

    python benchmarks/paper_size.py

No corpus and no GPU are needed: it prints, and writes to benchmarks/results/paper_size.json, what
docs/guide/at-the-papers-size.md shows.
"""

from __future__ import annotations

import json
from pathlib import Path

from ragscale.study import Grid, StudyConfig
from ragscale.study._cost import plan_study
from ragscale.study._sizes import Sizes

HERE = Path(__file__).parent
VOCABULARY = 100_352
RATIOS = (1, 5, 20, 50, 150)
STORES = (1_000_000_000, 5_000_000_000, 20_000_000_000)
N_QUESTIONS = 12_000  # twelve tasks of a thousand
PRICE = 2.5


def configuration(models: tuple[str, ...], per_run: int) -> StudyConfig:
    """Return the study; T is what the largest D and the largest store need together."""
    return StudyConfig(
        corpus="pool.jsonl.zst",
        tasks=["questions.jsonl"],
        models=models,
        D=Grid(RATIOS, "per_parameter"),
        R=STORES,
        tokenizer=VOCABULARY,
        max_tokens=520_000_000_000,
        passage_tokens=128,
        k=5,
        training={"seq_len": 4096},
        processes_per_training=per_run,
        n_workers=64,
    )


def main() -> None:
    """Plan on 8 and on 64 devices, with and without the largest model."""
    ladder = ("3B", "1B", "728M", "233M", "136M", "30M")
    rows = []
    for models in (ladder, ladder[1:], ladder[2:]):
        for n_devices, per_run in ((8, 8), (64, 8), (64, 64)):
            chosen = configuration(models, per_run)
            plan = plan_study(
                chosen,
                Sizes(budget=chosen.max_tokens or 0, vocab_size=VOCABULARY),
                device="H100",
                n_devices=n_devices,
                price_per_hour=PRICE,
                n_questions=N_QUESTIONS,
            )
            stages = plan.stages.set_index("stage")
            rows.append(
                {
                    "models": f"{models[-1]} to {models[0]}",
                    "devices": n_devices,
                    "per run": per_run,
                    "cells": len(plan),
                    "checkpoints": int((plan["R"] == 0).sum()),
                    "train device hours": round(stages.loc["train", "device_hours"]),
                    "evaluate device hours": round(stages.loc["evaluate", "device_hours"]),
                    "wall hours": round(plan.wall_hours),
                    "money": round(plan.money),
                    "disk GiB": round(plan.disk_gib),
                    "memory GiB, train": round(stages.loc["train", "memory_gib"], 1),
                    "memory GiB, index": round(stages.loc["index", "memory_gib"]),
                    "CPU hours": round(stages.loc["total", "cpu_hours"]),
                }
            )
            print(json.dumps(rows[-1]))
            if (models, n_devices, per_run) == (ladder, 64, 8):
                print(plan.stages.round(2).to_string(index=False))
    (HERE / "results" / "paper_size.json").write_text(json.dumps({"price": PRICE, "plans": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
