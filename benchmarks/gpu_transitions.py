"""Where each task of the GPU study changes sides: knees, exchange rates, and budgets that build a store.

    python benchmarks/gpu_transitions.py    # five minutes: the table, docs/_static/studies/gpu-transitions.png, results

The law of reading is fitted to every cell of a task, with the measured hit rates h(R) of its stores. Intervals: 100
resamples of checkpoints; the hit rates are those of one permutation of the corpus and are resampled over questions.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import ragscale as rs  # noqa: E402
from benchmarks.gpu_study import PICTURES, TASKS, tokens_on  # noqa: E402

BUDGETS = np.arange(8e6, 52.5e6, 4e6)
LARGEST = 52e6
ALONG = np.geomspace(8e6, 48e6, 25)  # D on the largest budget
HELD = 8e6  # the store at which the knee in D is asked for
N_RESAMPLES = 100
INSIDE = 0.02  # share of a budget from which on a store counts as built


def fit_task(table: pd.DataFrame, task: str) -> rs.fitting.Bootstrap:
    """Fit the law of reading to every cell of a task and resample its checkpoints.

    Only 13 of PopQA's questions have a gold passage: those rows are means over other questions, and are left out.
    """
    rows = table[table["task"] == task]
    rows = rows[rows["n_examples"] == rows["n_examples"].max()]
    fit = rs.fit_manifold(rows.reset_index(drop=True), "reading")
    return rs.bootstrap(fit, n_resamples=N_RESAMPLES, rng=0)


def first_budget(shares: np.ndarray) -> np.ndarray:
    """Return the smallest budget from which on every larger one has a store; infinite where the largest has none.

    ``shares`` is (..., n_budgets); the smallest budget is returned where all have one.
    """
    built = shares > INSIDE
    lasting = np.flip(np.logical_and.accumulate(np.flip(built, -1), -1), -1)
    first = BUDGETS[np.argmax(lasting, -1)]
    return np.where(lasting.any(-1), first, np.inf)


def middle(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval; infinite values count as they are."""
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def decide(table: pd.DataFrame, task: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row per N of a task, and the exchange rates along the largest budget."""
    rows, lines = [], []
    sizes = np.sort(table["N"].unique()).astype(float)
    boot = fit_task(table, task)
    splits = rs.optimal_allocation(boot, N=sizes[:, None], budget=BUDGETS)
    change = first_budget(np.asarray(splits.share))
    changes = first_budget(np.asarray(splits.replicates["share"]))
    knee = rs.knee_point(boot, N=sizes, R=HELD, min_D=4e6, budget=44e6)
    rate = rs.exchange_rate(boot, N=sizes[:, None], D=ALONG, R=LARGEST - ALONG)
    at_end = rs.exchange_rate(boot, N=sizes, D=44e6, R=LARGEST - 44e6)
    low, high = splits.interval("R")
    for i, n in enumerate(sizes):
        first, last = middle(changes[:, i])
        rows.append(
            {
                "task": task,
                "N": int(n),
                "verdict": boot.fit.verdict.kind,
                "knee": float(knee.D[i]),
                "knee_status": str(knee.status[i]),
                "knee_low": float(knee.low[i]),
                "knee_high": float(knee.high[i]),
                "rate_44M_8M": float(np.asarray(at_end)[i]),
                "rate_low": float(at_end.low[i]),
                "rate_high": float(at_end.high[i]),
                "store_from_T": float(change[i]),
                "store_from_T_low": first,
                "store_from_T_high": last,
                "store_at_52M": float(splits.R[i, -1]),
                "store_at_52M_low": float(low[i, -1]),
                "store_at_52M_high": float(high[i, -1]),
                "replicates_with_a_store": float((splits.replicates["share"][:, i, -1] > INSIDE).mean()),
                "gain_of_the_store": float(splits.gain[i, -1]),
            }
        )
        line = {"task": task, "N": int(n), "D": ALONG, "rate": np.asarray(rate)[i]}
        lines.append(pd.DataFrame({**line, "low": rate.low[i], "high": rate.high[i]}))
    return pd.DataFrame(rows), pd.concat(lines, ignore_index=True)


def draw(lines: pd.DataFrame, path: Path) -> None:
    """Draw the exchange rate along the largest budget, one panel for each task."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(TASKS), figsize=(14, 3.4), layout="constrained", sharey=True)
    for ax, (task, title) in zip(axes, TASKS.items(), strict=True):
        mine = lines[lines["task"] == task]
        for size, colour in rs.plotting.size_colours(mine["N"]):
            one = mine[mine["N"] == size]
            ax.plot(one["D"], one["rate"].clip(-1, 6), color=colour, lw=1.4, label=f"{size / 1e6:.3g}M")
        for size, colour in list(rs.plotting.size_colours(mine["N"]))[1:4:2]:
            one = mine[mine["N"] == size]
            ax.fill_between(one["D"], one["low"].clip(-1, 6), one["high"].clip(-1, 6), color=colour, alpha=0.15, lw=0)
        ax.axhline(1, color="0.4", lw=1, ls="--")
        ax.set(title=title, xlabel="pretraining tokens D")
        tokens_on(ax, (8e6, 16e6, 24e6, 44e6))
        ax.set_ylim(-1, 6)
    axes[0].set_ylabel("pretraining tokens that one\nmore store token replaces")
    axes[-1].legend(title="N", fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="fit these, keep the others")
    given = parser.parse_args()
    warnings.simplefilter("ignore", rs.errors.RagscaleWarning)
    table = rs.datasets.load("ragscale-gpu")
    path = HERE / "results" / "gpu_transitions.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows, lines = found.get("rows", []), found.get("along the largest budget", [])
    for task in given.tasks:
        decided = decide(table, task)
        for kept, new in zip((rows, lines), decided, strict=True):
            others = [row for row in kept if row["task"] != task]
            kept[:] = others + json.loads(new.replace({np.inf: None}).to_json(orient="records", double_precision=4))
        print(decided[0].to_string(), flush=True)
    found = {"budgets": BUDGETS.tolist(), "knee_at_R": HELD, "n_resamples": N_RESAMPLES}
    found |= {"rows": rows, "along the largest budget": lines}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(pd.DataFrame(lines), PICTURES / "gpu-transitions.png")


if __name__ == "__main__":
    main()
