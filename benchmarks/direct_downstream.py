"""The direct law of accuracy with a ceiling, and by its authors' rule and residual, on the OLMo ladder.

    python benchmarks/direct_downstream.py

Every way is fitted to the smallest 80 % of the runs by N D and judged on the largest 20 %, in points of accuracy. The
rule of arXiv 2512.08894: leave out rows less than 5 points above chance, and minimise the squares of log(-log Q'), with
Q' the accuracy above chance. The held-out rows are all kept.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import ragscale as rs
from ragscale.fitting import laws

HERE = Path(__file__).resolve().parent
TASKS = {"hellaswag": 0.25, "arc_easy": 0.25, "arc_challenge": 0.25, "openbookqa": 0.25, "csqa": 0.2, "piqa": 0.5}
TASKS |= {"socialiqa": 1 / 3}
POINTS = 0.05


def halves(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the smallest 80 % of the runs by computation, and the rest."""
    order = np.argsort((table["N"] * table["D"]).to_numpy(), kind="stable")
    cut = round(0.8 * len(order))
    return table.iloc[order[:cut]], table.iloc[order[cut:]]


def ways(rows: pd.DataFrame, held: pd.DataFrame, chance: float) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield each way with what it says of the held-out rows, and E."""
    above = rows[rows["value"] >= chance + POINTS]
    for ceiling in (False, True):
        suffix = ", ceiling" if ceiling else ""
        law = laws.DirectCompute(chance=chance, ceiling=ceiling)
        for label, part in (("all rows", rows), ("5 points above chance", above)):
            fit = rs.fit_manifold(part, law)
            yield f"{label}{suffix}", np.asarray(fit.predict(held["N"], held["D"])), float(fit.theta.get("E", 0.0))
        fit = laws.fit_direct(rows, law, margin=POINTS)
        yield f"authors' rule and residual{suffix}", fit.predict(held["N"], held["D"]), fit.theta.get("E", 0.0)


def main() -> None:
    warnings.simplefilter("ignore")
    ladder = rs.datasets.load("olmo_ladder").query("metric == 'accuracy_len_norm'")
    records = []
    for task, chance in TASKS.items():
        for part in ("val", "test"):
            table = ladder[ladder["task"] == f"{task}_{part}_rc_5shot"][["N", "D", "R", "value", "run"]]
            if table.empty:
                continue
            rows, held = halves(table.reset_index(drop=True))
            for way, predicted, end in ways(rows, held, chance):
                error = 100 * float(np.abs(predicted - held["value"]).mean())
                kept = len(rows) if way.startswith("all") else int((rows["value"] >= chance + POINTS).sum())
                records.append({"task": f"{task}_{part}", "way": way, "held_out": round(error, 2), "E": round(end, 3)})
                records[-1] |= {"rows": kept, "held": len(held)}
                print(records[-1], flush=True)
    text = json.dumps({"python": sys.version.split()[0], "ragscale": rs.__version__, "rows": records}, indent=1)
    (HERE / "results" / "direct_downstream.json").write_text(text + "\n")
    print(pd.DataFrame(records).pivot(index="task", columns="way", values="held_out").to_string())


if __name__ == "__main__":
    main()
