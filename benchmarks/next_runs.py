"""Which runs to make next, judged on ScaleBench: R^2 of the held-out large runs after a share of the cost.

    python benchmarks/next_runs.py ../shared/data/results/scalebench

Tasks and protocol: arXiv 2604.22753 (data of Farseer, arXiv 2506.10972, and of data-constrained training, arXiv
2305.16264). A run costs 6 N D. The twelve cheapest runs are given and paid for; the rest is chosen in four rounds, each
seeing the losses of the last. The laws are refitted to what was paid for and predict the test part.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ragscale as rs

HERE = Path(__file__).resolve().parent
PUBLISHED = {
    "farseer": {"theirs": (0.60, 0.88, 0.93), "v_opt": (0.67, 0.87, 0.92), "all": 0.91},
    "data_constrained": {"theirs": (0.73, 0.85, 0.86), "v_opt": (0.58, 0.83, 0.85), "all": 0.79},
}
LAWS = {"farseer": ("shannon", "farseer"), "data_constrained": ("data_constrained",)}
SHARES, ROUNDS, START = (0.01, 0.05, 0.10), 4, 12
NAMES = {"params": "N", "tokens": "D", "unique_tokens": "U", "loss": "value"}


def r_squared(seen: np.ndarray, predicted: np.ndarray) -> float:
    return float(1 - ((seen - predicted) ** 2).sum() / ((seen - seen.mean()) ** 2).sum())


def score(table: pd.DataFrame, test: pd.DataFrame, law: str) -> dict[str, float]:
    fit = rs.fit_manifold(table, law, delta="auto")
    further = {name: test[name].to_numpy(float) for name in fit.law.further_columns}
    predicted = np.asarray(fit.predict(test["N"], test["D"], **further))
    error = float(np.mean(np.abs(predicted / test["value"] - 1)))
    return {"R2": round(r_squared(test["value"].to_numpy(), predicted), 3), "error_percent": round(100 * error, 2)}


def buy(train: pd.DataFrame, test: pd.DataFrame, law: str, share: float) -> tuple[list[int], float]:
    """Return the runs paid for and the share of the cost of all that they took."""
    cost = (6 * train["N"] * train["D"]).to_numpy()
    budget = share * cost.sum()
    have = np.argsort(cost)[:START].tolist()
    at = test[[c for c in ("N", "D", "U") if c in test]]
    for k in range(ROUNDS):
        left = (budget - cost[have].sum()) / (ROUNDS - k)
        rest = train.drop(index=have).rename_axis("row").reset_index().drop(columns="value")
        chosen = rs.next_runs(train.loc[have], rest, budget_flops=left, goal="loss", at=at, law=law)
        have += chosen.runs["row"].tolist()
    return have, float(cost[have].sum() / cost.sum())


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table of R^2 on the held-out runs, theirs beside ours."""
    lines = [
        "# Which runs to make next: ScaleBench",
        "",
        "R^2 on the held-out large runs after a share of the cost of all runs. `python benchmarks/next_runs.py`.",
        "",
        "| task | law | share of the cost | runs | R^2 | mean error, % | theirs (arXiv 2604.22753) | V-opt |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        theirs, v_opt = row.get("theirs", "–"), row.get("v_opt", "–")
        share = f"{100 * row['share']:g} %"
        cells = (row["task"], row["law"], share, row["runs"], row["R2"], row["error_percent"], theirs, v_opt)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="", help="a task or a law")
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for task, laws in LAWS.items():
        table = pd.read_csv(options.data / f"{task}.csv").rename(columns=NAMES).drop(columns="group")
        parts = {name: part.drop(columns="part").reset_index(drop=True) for name, part in table.groupby("part")}
        train, test = parts["train"].assign(metric="loss"), parts["test"]
        for law in laws:
            if options.only not in ("", task, law):
                continue
            for share in options.shares:
                have, spent = buy(train, test, law, share)
                published = {name: PUBLISHED[task][name][SHARES.index(share)] for name in ("theirs", "v_opt")}
                row = {"task": task, "law": law, "share": share, "spent": round(spent, 4), "runs": len(have)}
                rows.append({**row, **score(train.loc[have], test, law), **published})
                print(rows[-1], flush=True)
            whole = {"task": task, "law": law, "share": 1.0, "spent": 1.0, "runs": len(train)}
            rows.append({**whole, **score(train, test, law), "theirs": PUBLISHED[task]["all"]})
            print(rows[-1], flush=True)
    text = json.dumps({"python": sys.version.split()[0], "ragscale": rs.__version__, "rows": rows}, indent=1)
    (HERE / "results" / "next_runs.json").write_text(text + "\n")
    (HERE / "results" / "next_runs.md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
