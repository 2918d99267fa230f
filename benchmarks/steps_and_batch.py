"""Laws that read steps and batch, and laws of repeated data, on the runs of others: errors of what was held out.

    python benchmarks/steps_and_batch.py ../shared/data/results/scalebench

`lr_bsz.csv` (arXiv 2604.22753; the runs of Step Law, arXiv 2503.04715): 2,819 runs over learning rate, batch, tokens
and size. The best learning rate of each (N, D, batch) is one row. The benchmark's test part is one size at 1e11 tokens
in ten batches; beside it each of the largest sizes is held out from all smaller ones. `data_constrained.csv` (arXiv
2305.16264): 161 runs to fit and 21 larger ones to predict. Sequences have 2,048 tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ragscale as rs
from ragscale.fitting import laws

HERE = Path(__file__).resolve().parent
TOKENS_A_SEQUENCE = 2048
BATCH_LAWS: dict[str, Any] = {
    "chinchilla": "chinchilla",
    "kaplan": "kaplan",
    "steps_and_batch": laws.StepsAndBatch(),
    "steps_batch_powers": laws.StepsBatchPowers(),
}
DATA_LAWS: dict[str, Any] = {
    "chinchilla": "chinchilla",
    "data_constrained": laws.DataConstrained(),
    "data_constrained, tied": laws.DataConstrained(tie=True),
    "bounded_data": laws.BoundedData(),
    "bounded_data, L0 = ln 50257": laws.BoundedData(fixed={"L0": float(np.log(50257))}),
}


def batches(folder: Path) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield a name, the rows to fit and the rows to predict; the best learning rate of each cell is its row."""
    table = pd.read_csv(folder / "lr_bsz.csv")
    names = {"non_embedding_param_size": "N", "data_size": "D", "lm_loss": "value"}
    table = table.rename(columns=names).assign(batch_tokens=table["bsz"] * TOKENS_A_SEQUENCE)
    keys = ["N", "D", "batch_tokens"]
    best = table.loc[table.groupby([*keys, "part"])["value"].idxmin(), [*keys, "value", "part"]]
    train = best[best["part"] == "train"].drop(columns="part").reset_index(drop=True)
    yield "the benchmark's test part", train, best[best["part"] == "test"]
    for size in np.sort(train["N"].unique())[-3:]:
        yield f"N = {size / 1e6:,.0f} M from smaller ones", train[train["N"] < size], train[train["N"] == size]


def repeats(folder: Path) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    table = pd.read_csv(folder / "data_constrained.csv")
    table = table.rename(columns={"params": "N", "tokens": "D", "unique_tokens": "U", "loss": "value"})
    train, test = (table.loc[table["part"] == part, ["N", "D", "U", "value"]] for part in ("train", "test"))
    yield "the benchmark's test part", train.reset_index(drop=True), test
    yield "the same, U >= 1e9", train[train["U"] >= 1e9].reset_index(drop=True), test[test["U"] >= 1e9]


def judge(name: str, law: Any, train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    start = time.process_time()
    by: Any = {"by": next(name for name in ("batch_tokens", "U") if name in train)}
    fit = rs.fit_manifold(train.assign(metric="loss", R=0.0), law, **by)
    further = {column: test[column].to_numpy(float) for column in fit.law.further_columns}
    predicted, seen = np.asarray(fit.predict(test["N"], test["D"], **further)), test["value"].to_numpy(float)
    left = ((seen - predicted) ** 2).sum() / ((seen - seen.mean()) ** 2).sum()
    return {
        "law": name,
        "rows": len(train),
        "held": len(test),
        "error_percent": round(100 * float(np.abs(predicted / seen - 1).mean()), 3),
        "R2": round(float(1 - left), 3),
        "best_right": int(np.argmin(predicted) == np.argmin(seen)),
        "cpu_s": round(time.process_time() - start, 1),
        "parameters": {key: float(f"{value:.4g}") for key, value in fit.theta.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for what, tables, tried in (("batch", batches, BATCH_LAWS), ("repeats", repeats, DATA_LAWS)):
        for table, train, test in tables(options.data):
            for name, law in tried.items():
                rows.append({"what": what, "table": table, **judge(name, law, train, test)})
                print(rows[-1], flush=True)
    text = json.dumps({"python": sys.version.split()[0], "ragscale": rs.__version__, "rows": rows}, indent=1)
    (HERE / "results" / "steps_and_batch.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
