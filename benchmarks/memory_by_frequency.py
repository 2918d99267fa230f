"""What models know by heart of facts they saw so many times, and what a store adds, on the invented world.

    python benchmarks/memory_by_frequency.py --out memory             # about 3 CPU minutes
    python benchmarks/memory_by_frequency.py --out memory --only-fit  # the law, from what the first wrote

The demo's world: 80 people told about at Zipf frequencies; 40 % of the documents teach to answer from a passage. Two
sizes of decoder, two D each, are asked about single facts without a store and with stores of four sizes (BM25, one
passage). How often the D tokens state a fact is counted; rows are means over the facts of one class of exposures, a
factor of two wide.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import ragscale as rs
from ragscale.evaluation import Example, PromptTemplate, Task
from ragscale.fitting import laws

HERE = Path(__file__).resolve().parent
PEOPLE = {"n_entities": 80, "zipf": 1.0, "n_strangers": 4_000, "reading_share": 0.4, "asked_share": 0.5}
WORLD = {"n_documents": 22_000, "n_questions": 400, "n_bands": 1, "n_multi_hop": 0, **PEOPLE}  # the demo's world
WIDTHS = {128: (4, 0.006), 96: (3, 0.006)}  # heads, learning rate
D = [500_000, 800_000]
STORES = [3_000, 15_000, 75_000, 200_000]
MOST = 1_000_000  # tokens of the split
VOCABULARY = 1024


def measure(out: Path) -> pd.DataFrame:
    """Train, ask, and return one row per model, store and question."""
    world = rs.datasets.synthetic_corpus(**WORLD)
    texts = [document.text for document in world.documents]
    tokenizer = rs.splitting.train_tokenizer(texts[:6000], VOCABULARY)
    split = rs.split_corpus(
        world.documents, out / "split", tokenizer=tokenizer, max_tokens=MOST, validation_tokens=10_000, seed=0
    )
    retriever = rs.retrieval.BM25Retriever(compiled=False).index(split.store(max(STORES)).passages)
    singles = [question for question in world.questions if question["meta"]["hops"] == 1]
    task = Task(
        name="facts",
        kind="likelihood",
        examples=tuple(Example(id=q["id"], question=q["question"], answers=tuple(q["answers"])) for q in singles),
        template=PromptTemplate(question="{question}"),
    )
    pool = list(split.document_rows("pool"))
    ends = np.cumsum([row["n_tokens"] for row in pool])
    rows = []
    for width, (heads, rate) in WIDTHS.items():
        start = time.process_time()
        model = rs.training.ModelConfig.custom(
            n_layers=2, d_model=width, n_heads=heads, d_ff=2 * width, vocab_size=len(tokenizer), tied=True
        )
        config = rs.training.TrainConfig(
            seq_len=96,
            batch_tokens=768,
            learning_rate=rate,
            precision="fp32",
            seed=0,
            warmup_steps=40,
            allow_short_runs=True,
        )
        checkpoints = rs.train(model, split, config, tokens=D, out=out / f"w{width}", device="cpu")
        trained = time.process_time() - start
        for checkpoint in checkpoints:
            read = [row["id"] for row in pool[: int(np.searchsorted(ends, checkpoint.n_tokens))]]
            found = rs.evaluate(
                checkpoint,
                task,
                retriever=retriever,
                store_tokens=[0, *STORES],
                k=1,
                tokenizer=tokenizer,
                coverage=False,
            )
            part = found.samples[["id", "R", "hit", "logprobs", "n_tokens"]].copy()
            part["value"] = [-one[0] / size[0] for one, size in zip(part["logprobs"], part["n_tokens"], strict=True)]
            part["exposures"] = part["id"].map(world.exposures(read))
            rows.append(
                part.drop(columns=["logprobs", "n_tokens"]).assign(N=checkpoint.n_params, D=checkpoint.n_tokens)
            )
        print(width, f"train {trained:.0f} CPU s, all {time.process_time() - start:.0f}", flush=True)
    return pd.concat(rows, ignore_index=True)


def by_exposures(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each model, store and class of exposures; classes of fewer than eight facts are left out."""
    seen = samples[samples["exposures"] > 0]
    step = np.floor(np.log2(seen["exposures"])).astype(int)
    groups = seen.assign(step=step).groupby(["N", "D", "R", "step"], as_index=False)
    table = groups.agg(
        value=("value", "mean"), exposures=("exposures", "mean"), n=("value", "size"), hit=("hit", "mean")
    )
    return table[table["n"] >= 8].drop(columns="step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only-fit", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    path = options.out / "samples.csv"
    if not options.only_fit:
        measure(options.out).to_csv(path, index=False)
    table = by_exposures(pd.read_csv(path))
    print(table.pivot_table(index=["N", "D", "exposures"], columns="R", values="value").round(2).to_string())
    results = table[["N", "D", "R", "exposures", "value"]]
    closed = rs.fit_manifold(results[results["R"] == 0], laws.MemoryByFrequency(store=False), delta="auto")
    whole = rs.fit_manifold(results, "memory_by_frequency", delta="auto")
    boot = rs.bootstrap(whole, n_resamples=200, by=("N", "D", "exposures"), rng=0)
    sizes = np.unique(table["N"])
    crossing = rs.decisions.memory_crossing(boot, N=sizes, D=max(D), R=max(STORES))
    print(closed.summary(), whole.summary(), crossing.summary(), sep="\n")
    record = {
        "table": table.round(4).to_dict("records"),
        "closed": {k: float(v) for k, v in closed.theta.items()},
        "whole": {k: float(v) for k, v in whole.theta.items()},
        "mean_error_percent": {
            "closed": float(100 * np.mean(np.abs(closed.residuals))),
            "whole": float(100 * np.mean(np.abs(whole.residuals))),
        },
        "crossing": crossing.to_frame().to_dict("records"),
        "note": crossing.note,
        "python": sys.version.split()[0],
        "ragscale": rs.__version__,
    }
    (HERE / "results" / "memory_by_frequency.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
