"""How fast and how exact decisions are: ours against scipy's minimize_scalar, in one run.

    python benchmarks/decisions.py               # about a minute on one core
    python benchmarks/decisions.py --coverage    # the split under law uncertainty: about five minutes on one core

Allocates 1,000 replicates of a law at 100 budgets, which is what a bootstrapped allocation curve takes, and writes
benchmarks/results/decisions.json. Times are CPU time of the process, medians of repeated runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import scipy
from scipy.optimize import minimize_scalar

import ragscale as rs
from ragscale import fitting

RESULT = Path(__file__).resolve().parent / "results" / "decisions.json"
N_REPLICATES, N_BUDGETS, REPEATS = 1000, 100, 7


def cpu_seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the median CPU time of a call, and what it returned."""
    times, value = [], None
    for _ in range(repeats):
        start = time.process_time()
        value = function()
        times.append(time.process_time() - start)
    return float(np.median(times)), value


def replicates(name: str, n: int = N_REPLICATES) -> Any:
    """A law whose parameters scatter as they do over a bootstrap: a few per cent, exponents less."""
    law = fitting.catalogue().loc[name, "law"]()
    theta = rs.datasets.simulate(law, noise=0).attrs["params"]
    if name == "power":
        law = fitting.Power(R0=theta["R0"])
    rng = np.random.default_rng(0)
    spread = {"alpha": 0.01, "beta": 0.01}
    drawn = {k: v * np.exp(spread.get(k, 0.05) * rng.standard_normal(n)) for k, v in theta.items()}
    drawn |= {k: np.full(n, theta[k]) for k in law.fixed}
    fit = SimpleNamespace(law=law, theta=theta)
    return SimpleNamespace(fit=fit, theta=drawn, confidence_level=0.95)


def one_by_one(subject: Any, budgets: np.ndarray) -> np.ndarray:
    """Return the share of the store by scipy's bounded scalar minimiser, one problem at a time."""
    law, shares = subject.fit.law, np.empty((N_REPLICATES, len(budgets)))
    for s in range(N_REPLICATES):
        t = {k: float(v[s]) for k, v in subject.theta.items()}
        a, b = t["E"] + t["A"] * 1e9 ** -t["alpha"], t["B"]
        for j, budget in enumerate(budgets):

            def loss(
                share: float, a: float = a, b: float = b, budget: float = budget, t: dict[str, float] = t
            ) -> float:
                return a + b * (budget * (1 - share)) ** -t["beta"] - t["C"] * np.log1p(t["eta"] * budget * share)

            found = minimize_scalar(loss, bounds=(0.0, 1.0 - 1e-12), method="bounded", options={"xatol": 1e-10})
            shares[s, j] = found.x if found.fun < loss(0.0) else 0.0
    assert law.name == "log1p"
    return shares


WORLDS = ("log1p", "power", "hill", "rpower", "log_ratio", "interaction", "multiplicative")
RATIOS = (20, 50, 500)
N_SPLIT = 1e9


def coverage(n_seeds: int) -> None:
    """Fit tables of seven worlds by ``law="auto"``; how often is the true best share inside the interval?

    Compared are the chosen law alone, and the average of all laws that count, whose bootstrap draws the law too. Regret
    is the true loss of the recommended split above the best one, in nats. Budgets are 20, 50 and 500 N.
    """
    budgets = np.array(RATIOS) * N_SPLIT
    rows = []
    for world in WORLDS:
        for seed in range(n_seeds):
            table = rs.datasets.simulate(world, noise=0.01, cluster_share=0.5, rng=1000 + seed)
            law = rs.fitting.catalogue().loc[world, "law"]()
            params = table.attrs["params"]
            law = rs.fitting.Power(R0=params["R0"]) if world == "power" else law
            truth = rs.optimal_allocation((law, params), N=N_SPLIT, budget=budgets)
            fit = rs.fit_manifold(table.assign(metric="loss"))
            averaged = rs.bootstrap(fit, n_resamples=200, rng=seed)
            alone = rs.bootstrap(replace(fit, selection=None), n_resamples=200, rng=seed)
            for how, subject in (("chosen law", alone), ("averaged", averaged)):
                best = rs.optimal_allocation(subject, N=N_SPLIT, budget=budgets)
                low, high = best.interval("share")
                paid = law.loss(N_SPLIT, best.D, best.R, params) - truth.loss
                for i, ratio in enumerate(RATIOS):
                    inside = bool(low[i] - 1e-6 <= truth.share[i] <= high[i] + 1e-6)
                    row = {"world": world, "seed": seed, "how": how, "ratio": ratio, "inside": inside}
                    rows.append({**row, "width": float(high[i] - low[i]), "regret": float(max(paid[i], 0.0))})
        print(world, flush=True)
    frame = pd.DataFrame(rows)
    for how, part in frame.groupby("how"):
        by_ratio = part.groupby("ratio").agg(inside=("inside", "mean"), width=("width", "median"))
        print(how, by_ratio.round(3).to_dict("index"))
        q = part["regret"].quantile([0.5, 0.95]).round(5).tolist()
        print(f"  regret: mean {part['regret'].mean():.5f}, median and 95 % {q}, largest {part['regret'].max():.4f}")
    out = {"command": "python benchmarks/decisions.py --coverage", "tables": len(WORLDS) * n_seeds}
    grouped = frame.groupby(["how", "world", "ratio"], as_index=False)
    summary = grouped.agg(inside=("inside", "mean"), width=("width", "median"), regret=("regret", "mean"))
    whole = frame.groupby(["how", "ratio"], as_index=False)
    total = whole.agg(inside=("inside", "mean"), width=("width", "median"), regret=("regret", "mean"))
    out |= {"by_world": summary.round(5).to_dict("records"), "in_all": total.round(5).to_dict("records")}
    RESULT.with_name("decisions_coverage.json").write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    if options.coverage:
        warnings.simplefilter("ignore")
        coverage(options.seeds)
        return
    budgets = np.geomspace(1e9, 1e13, N_BUDGETS)
    subject = replicates("log1p")
    ours, allocation = cpu_seconds(lambda: rs.optimal_allocation(subject, N=1e9, budget=budgets), REPEATS)
    theirs, shares = cpu_seconds(lambda: one_by_one(subject, budgets), 1)
    gap = float(np.abs(allocation.replicates["share"] - shares).max())
    print(f"{N_REPLICATES * N_BUDGETS:,} allocations, log1p: {ours:.3f} s; scipy minimize_scalar {theirs:.2f} s")
    print(f"ratio {theirs / ours:.0f}; largest difference in the share {gap:.1e}")
    laws = {}
    for name in fitting.catalogue().index[:9]:
        subject = replicates(name)
        seconds, _ = cpu_seconds(lambda subject=subject: rs.optimal_allocation(subject, N=1e9, budget=budgets), 3)
        laws[name] = round(seconds, 4)
        print(f"  {name:15s} {seconds:.3f} s for the same number of problems")
    subject = replicates("log1p")
    others = {
        "exchange_rate": lambda: rs.exchange_rate(subject, N=1e9, D=budgets, R=1e9),
        "knee_point": lambda: rs.knee_point(subject, N=1e9),
        "critical_store": lambda: rs.critical_store(subject, N=1e9, D=1e10, max_R=1e12),
        "compute_optimal, closed form": lambda: rs.compute_optimal(subject, flops=1e21),
        "compute_optimal, free store": lambda: rs.compute_optimal(subject, flops=1e21, R="free", store_flops=2e9),
    }
    decisions = {name: round(cpu_seconds(call, 3)[0], 4) for name, call in others.items()}
    for name, seconds in decisions.items():
        print(f"  {name:29s} {seconds:.3f} s, 1,000 replicates")
    content = {
        "command": "python benchmarks/decisions.py",
        "machine": "2 shared CPU cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "unit": "seconds of CPU time",
        "allocations": N_REPLICATES * N_BUDGETS,
        "ours": round(ours, 4),
        "scipy_minimize_scalar": round(theirs, 2),
        "ratio": round(theirs / ours, 1),
        "largest_difference_in_share": gap,
        "allocations_by_law": laws,
        "other_decisions_1000_replicates": decisions,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
