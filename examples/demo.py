"""The whole question on an invented world: train a ladder, let it read, fit the surface, write the report.

    python examples/demo.py --out demo

Nothing is downloaded and nothing is built in: whether reading helps is measured. Stopped at any moment, the same
command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib as mpl

from ragscale.study import Study, StudyConfig

mpl.use("Agg")
WIDTHS = {128: (4, 0.006), 64: (2, 0.012), 32: (2, 0.02), 16: (2, 0.03)}  # heads, learning rate; the longest first


def configuration(**world: float) -> StudyConfig:
    """Four sizes, five D, stores of four sizes, and the frontier D + R = T at two budgets T.

    Embedding and output head share their weights: models so small learn to copy from a passage several times sooner.
    """
    return StudyConfig(
        corpus={"synthetic": {"n_documents": 70_000, "n_entities": 400, "n_questions": 100, **world}},
        tokenizer=1024,
        models=[
            {
                "n_layers": 2,
                "d_model": width,
                "n_heads": heads,
                "d_ff": 2 * width,
                "tied": True,
                "training": {"learning_rate": rate},
            }
            for width, (heads, rate) in WIDTHS.items()
        ],
        D=[250_000, 500_000, 1_000_000, 1_500_000, 2_000_000],
        R=[10_000, 50_000, 200_000, 800_000],
        budgets=[1_500_000, 2_500_000],
        max_tokens=3_000_000,
        validation_tokens=50_000,
        passage_tokens=64,
        k=1,
        training={"seq_len": 96, "batch_tokens": 768, "precision": "fp32", "validation_tokens": 50_000},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    started = time.perf_counter()
    study = Study(configuration(), options.out / "study")
    plan = study.plan()
    tokens = plan["train_tokens"].sum() / 1e6
    print(f"{len(plan)} cells, {tokens:.1f} million tokens to train, about four minutes on two cores")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
        status = study.run(executor, progress=True)
    print(status[["stage", "label", "state", "seconds", "error"]].to_string(index=False))
    path = study.report(options.out / "report.html")
    print(f"\n{study.answer()}\n")
    print(f"{time.perf_counter() - started:.0f} seconds. Report: {path.resolve()}")


if __name__ == "__main__":
    main()
