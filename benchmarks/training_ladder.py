"""Train four sizes at five D each on real text, on one CPU thread, and check that loss falls along both.

    python benchmarks/training_ladder.py --corpus wiki_small.jsonl.zst

About five minutes of one core. Stopped at any moment, the same command goes on. Writes
benchmarks/results/training_ladder.json and the pictures in docs/_static/training/.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers

import ragscale as rs
from ragscale.training import ModelConfig, TrainConfig, dry_run

HERE = Path(__file__).parent
SIZES = ("0.05M", "0.15M", "0.5M", "1M")
TOKENS = (200_000, 300_000, 450_000, 700_000, 1_000_000)
VOCABULARY = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, help="JSON Lines (.gz or .zst too) with id and text")
    parser.add_argument("--work", default="/tmp/ragscale-ladder", help="where the split and the runs go")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = Path(options.work)
    split = make_split(options.corpus, work / "split")
    # one rate for all: at so few steps it matters more than size, and this one did best in a sweep at 0.15M
    config = TrainConfig(seq_len=256, learning_rate=0.03, log_every=25)
    models = [ModelConfig.olmo2(size, vocab_size=VOCABULARY, max_seq_len=256) for size in SIZES]
    plan = dry_run(models, config, TOKENS, device="CPU-core")
    print(plan[["model", "N", "D", "D/N", "steps", "learning_rate", "batch_tokens", "hours"]].to_string())
    rows = []
    for model in models:
        started = time.process_time()
        out = work / model.name
        for checkpoint in rs.train(model, split, config, tokens=TOKENS, out=out, device="cpu"):
            rows.append(  # noqa: PERF401
                {
                    "model": model.name,
                    "N": checkpoint.n_params,
                    "N_total": checkpoint.n_params_total,
                    "D": checkpoint.n_tokens,
                    "steps": checkpoint.step,
                    "validation_loss": checkpoint.validation_loss,
                    "precision": checkpoint.config.precision,
                    "learning_rate": checkpoint.config.learning_rate,
                    "batch_tokens": checkpoint.config.batch_tokens,
                }
            )
        print(model.name, f"{time.process_time() - started:.0f} CPU seconds in this call", flush=True)
    table = pd.DataFrame(rows)
    report(table, work)


def make_split(corpus: str, path: Path) -> object:
    if (path / "manifest.json").exists():
        return rs.Split.load(path)
    documents = list(rs.splitting.read_jsonl(corpus))
    tokenizer = rs.splitting.train_tokenizer(documents[:: max(1, len(documents) // 500)], VOCABULARY)
    return rs.split_corpus(documents, path, tokenizer=tokenizer, validation_tokens=200_000, seed=0)


def report(table: pd.DataFrame, work: Path) -> None:
    grid = table.pivot(index="N", columns="D", values="validation_loss").sort_index()
    print(grid.round(3).to_string())
    along_d, along_n = np.diff(grid.to_numpy(), axis=1), np.diff(grid.to_numpy(), axis=0)
    result = {
        "device": "2 shared CPU cores, 1 thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "ragscale": rs.__version__,
        },
        "falls_along_D": f"{int((along_d < 0).sum())} of {along_d.size} neighbours",
        "falls_along_N": f"{int((along_n < 0).sum())} of {along_n.size} neighbours",
        "rows": table.to_dict("records"),
    }
    print("falls along D:", result["falls_along_D"], "- along N:", result["falls_along_N"])
    path = HERE / "results" / "training_ladder.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    from matplotlib import pyplot as plt

    pictures = HERE.parent / "docs" / "_static" / "training"
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    rs.plotting.ladder(table, ax=axes[0])
    rs.plotting.loss_curves(work / SIZES[1], ax=axes[1])
    figure.savefig(pictures / "ladder.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
