"""Does the demo's answer stand? The same study on five orders of the corpus, one after the other.

    python benchmarks/demo_seeds.py --work WORK           # five runs of examples/demo.py, then the table
    python benchmarks/demo_seeds.py --work WORK --publish # table and pictures from what is there

For each order (split seed): what the report answers, gold against random passages at the largest D for each model,
the measured best split of each budget, and the frequency at which memory and look-up cross.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from examples.demo import configuration  # noqa: E402
from ragscale.study import Study  # noqa: E402
from ragscale.study._report_frequency import Crossing, crossings  # noqa: E402

RESULT = HERE / "results" / "demo_seeds.json"
PICTURES = HERE.parent / "docs" / "_static" / "studies"
READS = 0.5  # nats that a gold passage gains over a random one


def one(seed: int, work: Path, workers: int, n_models: int) -> Study:
    """Run the demo's study, or its first sizes, with another order of its documents."""
    config = configuration(split_seed=seed)
    study = Study(config.replace(models=config.models[:n_models]), work / f"split-{seed}")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        status = study.run(executor, progress=False)
    if set(status["state"]) != {"done"}:
        raise SystemExit(status[["stage", "label", "state", "error"]].to_string())
    return study


def readers(study: Study) -> list[dict[str, Any]]:
    """Return closed-book, gold and random losses of every trained model at every D, over single facts."""
    rows = study.results()
    rows = rows[(rows["metric"] == "nll_per_token") & (rows["task"] != "multi-hop")]
    shown = rows.groupby(["N", "seed", "D", "condition"])["value"].mean().unstack("condition").reset_index()
    shown = shown.assign(reads=shown["random"] - shown["oracle"] > READS)
    names = ["N", "seed", "D", "closed-book", "oracle", "random", "reads"]
    return json.loads(shown[names].to_json(orient="records", double_precision=6))


def as_record(found: Crossing) -> dict[str, Any]:
    """Return a crossing as JSON."""
    names = ["N", "budget", "D", "R", "memory", "lookup", "best", "frequency", "low", "high", "gain", "gain_low"]
    record = {name: getattr(found, name) for name in [*names, "gain_high"]}
    record = {name: value if np.isfinite(value) else None for name, value in record.items()}
    return {**record, "bins": json.loads(found.bins.to_json(orient="records", double_precision=6))}


def measure(seed: int, work: Path, workers: int, n_models: int) -> dict[str, Any]:
    """Return everything that the page says about one order of the corpus."""
    started, before = time.perf_counter(), _cpu()
    study = one(seed, work, workers, n_models)
    budgets = tuple(int(value) for value in study.config.grids[2].values)
    results = study.results()
    mine = results[(results["metric"] == "nll_per_token") & results["condition"].isin(["closed-book", "retrieved"])]
    on_budget = mine[(mine["D"] + mine["R"]).isin(budgets)].assign(budget=mine["D"] + mine["R"])
    cells = on_budget.groupby(["task", "budget", "N", "D", "R", "seed"], as_index=False)["value"].mean()
    found = {
        "split_seed": seed,
        "answer": study.answer(),
        "models": readers(study),
        "crossings": [as_record(each) for each in crossings(study, budgets)],
        "cells": json.loads(cells.to_json(orient="records", double_precision=6)),
    }
    jobs = float(study.status()["seconds"].sum())
    return {
        **found,
        "wall": time.perf_counter() - started,
        "cpu": _cpu() - before,
        "job_seconds": jobs,
        "rss": _memory(),
    }


def _cpu() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def _memory() -> float:
    """Return the largest resident memory of one process so far, GiB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20


def table(found: list[dict[str, Any]]) -> str:
    """Return the page's table: one row per order, size and budget."""
    lines = ["| order | N | T | best measured D : R | it saves, nats | remembered from | gold, random, closed book |"]
    lines.append("|--:|--:|--:|---|---|---|---|")
    for each in sorted(found, key=lambda one: one["split_seed"]):
        models = pd.DataFrame(each["models"])
        last = models[models["D"] == models["D"].max()].groupby("N")[["oracle", "random", "closed-book"]].mean()
        for cross in each["crossings"]:
            split = f"{cross['D'] / 1e3:.0f}k : {cross['R'] / 1e3:.0f}k"
            saved = f"{cross['gain']:.2f} ({cross['gain_low']:.2f} to {cross['gain_high']:.2f})"
            told = f"{_told(cross['frequency'])} ({_told(cross['low'])} to {_told(cross['high'])})"
            losses = ", ".join(f"{last.loc[cross['N'], name]:.2f}" for name in last)
            size, budget = f"{cross['N'] / 1e6:.2f}M", f"{cross['budget'] / 1e3:.0f}k"
            lines.append(f"| {each['split_seed']} | {size} | {budget} | {split} | {saved} | {told} | {losses} |")
    models = pd.concat([pd.DataFrame(each["models"]) for each in found])
    read = models.groupby(["N", "D"])["reads"].agg(["sum", "size"]).reset_index()
    for n, mine in read.groupby("N"):
        counts = ", ".join(f"{row['sum']} of {row['size']} at {row['D']:,.0f}" for row in mine.to_dict("records"))
        lines.append(f"\nN = {n:,.0f} read: {counts}")
    return "\n".join(lines)


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:.0f}"


def draw(found: list[dict[str, Any]]) -> None:
    """Draw memory and look-up against frequency, and the measured budgets, over all orders."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    import ragscale as rs

    largest = max(cross["budget"] for each in found for cross in each["crossings"])
    sizes = sorted({cross["N"] for each in found for cross in each["crossings"]})
    colours = dict(rs.plotting.size_colours(pd.Series(sizes)))
    figure, axes = plt.subplots(1, len(sizes), figsize=(5.2 * len(sizes), 3.9), layout="constrained", sharey=True)
    for ax, size in zip(np.atleast_1d(axes), sizes, strict=True):
        for number, each in enumerate(found):
            mine = [c for c in each["crossings"] if (c["N"], c["budget"]) == (size, largest)]
            if not mine:
                continue
            (cross,) = mine
            bins = pd.DataFrame(cross["bins"])
            first = number == 0
            ax.plot(bins["frequency"], bins["memory"], "o-", color="C0", ms=4, label="remembered" if first else None)
            ax.plot(bins["frequency"], bins["lookup"], "s--", color="C1", ms=4, label="looked up" if first else None)
            if cross["frequency"]:
                ax.axvline(cross["frequency"], color="0.6", lw=0.8, ls=":")
        ax.set(xscale="log", xlabel="documents of the corpus that state the fact")
        ax.set_xticks([15, 30, 60, 120, 240], labels=["15", "30", "60", "120", "240"])
        ax.minorticks_off()
        ax.set_title(f"N = {size / 1e6:.2f}M, T = {largest / 1e6:.1f}M tokens")
    np.atleast_1d(axes)[0].set_ylabel("nats per answer")
    np.atleast_1d(axes)[0].legend()
    figure.savefig(PICTURES / "world-frequency.png", dpi=110)
    plt.close(figure)
    models = pd.concat([pd.DataFrame(each["models"]).assign(split=each["split_seed"]) for each in found])
    figure, axes = plt.subplots(1, len(sizes), figsize=(5.2 * len(sizes), 3.9), layout="constrained", sharey=True)
    for ax, size in zip(np.atleast_1d(axes), sizes, strict=True):
        for number, (_, mine) in enumerate(models[models["N"] == size].groupby(["split", "seed"])):
            for (name, label), colour in zip((("oracle", "gold"), ("random", "random")), ("C2", "C3"), strict=True):
                gain = mine["closed-book"] - mine[name]
                named = f"{label} passage" if number == 0 else None
                ax.plot(mine["D"] / 1e3, gain, "o-", color=colour, ms=3, lw=1, label=named)
        ax.axhline(0, color="0.5", lw=0.8)
        ax.set(title=f"N = {size / 1e6:.2f}M", xlabel="pretraining tokens D, thousands")
    np.atleast_1d(axes)[0].set_ylabel("gain over the closed book\n(nats per answer)")
    np.atleast_1d(axes)[0].legend()
    figure.savefig(PICTURES / "world-controls.png", dpi=110)
    plt.close(figure)
    cells = pd.concat([pd.DataFrame(each["cells"]).assign(split=each["split_seed"]) for each in found])
    cells = cells[cells["task"] != "multi-hop"].groupby(["split", "budget", "N", "D"], as_index=False)["value"].mean()
    budgets = sorted(cells["budget"].unique())
    figure, axes = plt.subplots(1, len(budgets), figsize=(5.2 * len(budgets), 3.9), layout="constrained", sharey=True)
    for ax, budget in zip(np.atleast_1d(axes), budgets, strict=True):
        for (size, split), mine in cells[cells["budget"] == budget].groupby(["N", "split"]):
            label = f"N = {size / 1e6:.2f}M" if split == cells["split"].min() else None
            ax.plot(mine["D"] / 1e6, mine["value"], "o-", ms=4, color=colours[size], label=label)
        ax.set_title(f"T = {budget / 1e6:.1f}M tokens")
        ax.set_xlabel("pretraining tokens D, millions (the store holds T − D)")
    np.atleast_1d(axes)[0].set_ylabel("nats per answer")
    np.atleast_1d(axes)[0].legend()
    figure.savefig(PICTURES / "world-frontier.png", dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", type=int, default=2, help="only so many of the sizes, the largest first")
    parser.add_argument("--publish", action="store_true", help="table and pictures from the results file alone")
    options = parser.parse_args()
    if options.work is None and not options.publish:
        parser.error("give --work, a folder for the studies, or --publish")
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    for seed in options.seeds if options.work is not None else []:
        measured = measure(seed, options.work, options.workers, options.models)
        found = [each for each in found if each["split_seed"] != seed] + [measured]
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(
            f"split {seed}, {measured['wall']:.0f} s, {measured['cpu']:.0f} CPU s\n{measured['answer']}\n", flush=True
        )
    print(table(found))
    draw(found)


if __name__ == "__main__":
    main()
