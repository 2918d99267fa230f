"""Held-out text or text that was trained on: what is a store worth that pretraining has read? On the demo's world.

    python benchmarks/seen_stores.py --work WORK   # goes on from `benchmarks/demo_seeds.py --work WORK`: no training

Every checkpoint of the demo is asked again with stores of the same sizes from the other end of the permutation, the
first R tokens, which every D >= R has read. Writes benchmarks/results/seen_stores.json. ``--gpu`` alone tests on the
shipped table ``ragscale-gpu`` how large a store realises most of the gain, in multiples of N.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import ragscale as rs  # noqa: E402
from examples.demo import configuration  # noqa: E402

RESULT = HERE / "results" / "seen_stores.json"
FRACTION = 0.91
N_RESAMPLES = 100


def keep(found: dict) -> None:
    """Add numbers to the file of results."""
    there = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(there | found, indent=1) + "\n", encoding="utf-8")


def ask_both(work: Path, seed: int, workers: int) -> pd.DataFrame:
    """Evaluate the checkpoints of one order with stores from both ends; return the rows of one metric."""
    config = configuration(split_seed=seed).replace(store_sources=("held-out", "seen"))
    study = rs.study.Study(config, work / f"split-{seed}")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        study.run(executor, progress=False)
    rows = study.results()
    coverage = study.coverage()
    hits = coverage[coverage["condition"] == "retrieved"][["task", "R", "store_source", "hit_rate"]]
    rows = rows[rows["metric"] == "nll_per_token"].drop(columns="hit_rate", errors="ignore")
    return rows.merge(hits, on=["task", "R", "store_source"], how="left").assign(split=seed)


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """Return closed book, held-out and seen for every D and R that has both, paired by trained model."""
    key = ["split", "N", "seed", "D", "task"]
    closed = rows[rows["condition"] == "closed-book"].set_index(key)["value"]
    shown = rows[rows["condition"] == "retrieved"]
    wide = shown.pivot_table(index=[*key, "R"], columns="store_source", values=["value", "hit_rate", "seen_share"])
    wide.columns = [f"{name}_{source}" for name, source in wide.columns]
    wide = wide.dropna(subset=["value_held-out", "value_seen"]).reset_index()
    wide["closed"] = closed.reindex(pd.MultiIndex.from_frame(wide[key])).to_numpy()
    wide["gain_held_out"] = wide["closed"] - wide["value_held-out"]
    wide["gain_seen"] = wide["closed"] - wide["value_seen"]
    wide["difference"] = wide["gain_seen"] - wide["gain_held_out"]
    of_models = wide.groupby(["N", "D", "R", "split", "seed"]).mean(numeric_only=True).reset_index()
    found = of_models.groupby(["N", "D", "R"])
    table = found.mean(numeric_only=True).drop(columns=["split", "seed"])
    table["models"] = found.size()
    table["error"] = found["difference"].std(ddof=1) / np.sqrt(found.size())
    return table.reset_index()


def stores_in_multiples_of_n() -> pd.DataFrame:
    """Return the store that realises 91 % of the gain of 48M tokens, for every task and N, in multiples of N."""
    table = rs.datasets.load("ragscale-gpu")
    rows = []
    for task in sorted(table["task"].unique()):
        mine = table[table["task"] == task]
        mine = mine[mine["n_examples"] == mine["n_examples"].max()].reset_index(drop=True)
        fit = rs.fit_manifold(mine, "reading")
        boot = rs.bootstrap(fit, n_resamples=N_RESAMPLES, rng=0)
        sizes = np.sort(mine["N"].unique()).astype(float)
        for d in (24e6, 44e6):
            store = rs.critical_store(boot, N=sizes, D=d, fraction=FRACTION, max_R=48e6)
            at_n = fit.predict(sizes, np.full(5, d), np.zeros(5)) - fit.predict(sizes, np.full(5, d), sizes)
            most = fit.predict(sizes, np.full(5, d), np.zeros(5)) - fit.predict(sizes, np.full(5, d), np.full(5, 48e6))
            for i, n in enumerate(sizes):
                row = {"task": task, "D": d, "N": n, "R": float(np.asarray(store)[i]), "low": float(store.low[i])}
                row |= {"high": float(store.high[i]), "R_over_N": float(np.asarray(store)[i] / n)}
                rows.append({**row, "gain_of_48M": float(most[i]), "share_at_R=N": float(at_n[i] / most[i])})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gpu", action="store_true", help="the stores of ragscale-gpu in multiples of N")
    given = parser.parse_args()
    if given.work is None and not given.gpu:
        parser.error("give --work, the folder of benchmarks/demo_seeds.py, or --gpu")
    warnings.simplefilter("ignore", rs.errors.RagscaleWarning)
    if given.work is not None:
        rows = pd.concat([ask_both(given.work, seed, given.workers) for seed in given.seeds], ignore_index=True)
        for name, part in {"all": rows, **dict(iter(rows.groupby("task")))}.items():
            found = compare(part)
            print(name, found.round(3).to_string(index=False), sep="\n")
            keep({f"invented world, {name}": json.loads(found.to_json(orient="records", double_precision=5))})
    if given.gpu:
        found = stores_in_multiples_of_n()
        print(found.round(3).to_string(index=False))
        keep({"ragscale-gpu": json.loads(found.to_json(orient="records", double_precision=5))})


if __name__ == "__main__":
    main()
