"""How fast and how exact decisions are: ours against scipy's minimize_scalar, in one run.

    python benchmarks/decisions.py        # about a minute on one core

Allocates 1,000 replicates of a law at 100 budgets, which is what a bootstrapped allocation curve takes, and writes
benchmarks/results/decisions.json. Times are CPU time of the process, medians of repeated runs.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
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


def main() -> None:
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
