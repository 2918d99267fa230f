"""The whole question on an invented world: train two sizes, split two budgets, see what is remembered or looked up.

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
WIDTHS = {128: (4, 0.006), 96: (3, 0.006)}  # heads, learning rate; the longest first


def configuration(*, split_seed: int = 0, **world: float) -> StudyConfig:
    """Two sizes, two seeds, four D, and the frontier D + R = T at two budgets T, from D = T (no store) downwards.

    Four in ten documents teach to answer from a passage, about thousands of strangers. Half of the facts about the
    people of the world are told as a question and its answer, so that the same model also learns to answer from
    memory. Embedding and output head share
    their weights, which lets models so small copy from a passage several times sooner.
    """
    people = {"n_entities": 80, "zipf": 1.0, "n_strangers": 4_000, "reading_share": 0.4, "asked_share": 0.5}
    asked = {"n_questions": 70, "n_multi_hop": 0}  # one passage cannot answer a question of two hops
    return StudyConfig(
        corpus={"synthetic": {"n_documents": 22_000, **people, **asked, **world}},
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
        seeds=(0, 1),
        D=[300_000, 500_000, 700_000, 900_000],
        R=[50_000],
        budgets=[700_000, 900_000],
        max_tokens=1_000_000,
        validation_tokens=20_000,
        passage_tokens=64,
        k=1,
        training={
            "seq_len": 96,
            "batch_tokens": 768,
            "warmup_steps": 40,
            "decay_fraction": 0.15,
            "precision": "fp32",
            "validation_tokens": 20_000,
        },
        split_seed=split_seed,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--split-seed", type=int, default=0, help="another order of the documents")
    options = parser.parse_args()
    started = time.perf_counter()
    study = Study(configuration(split_seed=options.split_seed), options.out / "study")
    plan = study.plan()
    tokens = plan["train_tokens"].sum() / 1e6
    print(f"{len(plan)} cells, {tokens:.1f} million tokens to train, about four minutes on two cores")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
        status = study.run(executor, progress=True)
    print(status[["stage", "label", "state", "seconds", "error"]].to_string(index=False))
    path = study.report(options.out / "report.html")
    print(f"\n{study.answer().splitlines()[0]}\n")
    print(f"{time.perf_counter() - started:.0f} seconds. The report begins with this answer: {path.resolve()}")


if __name__ == "__main__":
    main()
