"""Train small models over a grid of learning rates and batches, for `learning_rate.py` to judge rules by.

    python benchmarks/learning_rate_runs.py --corpus wiki_small.jsonl.zst

Sizes far below those of the public sweeps: N (core) of 21k to 0.3M. Stopped at any moment, the same command goes on.
Adds a row per run and D to benchmarks/results/learning_rate_runs.csv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

import torch
from training_ladder import VOCABULARY, make_split

import ragscale as rs
from ragscale.training import ModelConfig, TrainConfig

OUT = Path(__file__).parent / "results" / "learning_rate_runs.csv"
COLUMNS = ("model", "N", "N_core", "D", "batch_tokens", "learning_rate", "steps", "seed", "loss", "skipped_steps")
SIZES = ("0.15M", "0.05M", "0.5M")
TOKENS = (250_000, 750_000)
RATES = (0.02, 0.01, 0.04, 0.005, 0.08)
BATCHES = (1024, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, help="JSON Lines (.gz or .zst too) with id and text")
    parser.add_argument("--work", default="/tmp/ragscale-rates", help="where the split and the runs go")
    parser.add_argument("--sizes", nargs="*", default=SIZES)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = Path(options.work)
    split = make_split(options.corpus, work / "split")
    done = set()
    if OUT.exists():
        with open(OUT) as file:
            done = {(r["model"], float(r["learning_rate"]), int(r["batch_tokens"])) for r in csv.DictReader(file)}
    for batch, size, rate in itertools.product(BATCHES, options.sizes, RATES):
        if (size, rate, batch) in done:
            continue
        model = ModelConfig.olmo2(size, vocab_size=VOCABULARY, max_seq_len=128)
        config = TrainConfig(
            seq_len=128, batch_tokens=batch, learning_rate=rate, allow_short_runs=True, validation_tokens=100_000
        )
        out = work / f"{size}-{batch}-{rate}"
        made = rs.train(model, split, config, tokens=TOKENS, out=out, device=options.device, progress=False)
        new = not OUT.exists()
        with open(OUT, "a") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            for one in made:
                steps, loss = one.step, f"{one.validation_loss:.5f}"
                row = (size, model.n_params, model.n_core, one.n_tokens, batch, rate, steps, 0, loss, one.skipped_steps)
                writer.writerow(row)
        print(size, batch, rate, [f"{one.validation_loss:.4f}" for one in made], flush=True)


if __name__ == "__main__":
    main()
