"""How often 95 % intervals hold the truth, on simulated tables whose noise is shared within trained models.

    python benchmarks/interval_coverage.py [--tables 250] [--resamples 200] [--minutes 60]

Two designs (30 models with 4 stores, 48 with 7), two losses (delta = 1e-3 and "auto"), the law log1p, 1 % noise, of
which three quarters are shared by the rows of one model: four kinds of table, ``--tables`` of each. Intervals are those
that a user gets: `Bootstrap.params`, `Bootstrap.interval`, and the intervals of decisions. On every eighth seed other
ways to make an interval are tried on the same table: resamples of as many models as there are, bias-corrected and
accelerated percentiles, normal intervals, and studentised ones (30 models, seeds divisible by 24).

Each table is written to runs/interval_coverage.jsonl when it is done, and not computed again after a stop. The results
are benchmarks/results/coverage.json and coverage.md.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.fitting._experiments import clusters
from ragscale.fitting._resampling import drawn_models, refit

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / "runs" / "interval_coverage.jsonl"
RESULTS = ROOT / "benchmarks" / "results"
PARAMETERS = ("alpha", "beta", "E", "C")
QUANTITIES = (*PARAMETERS, "surface", "prediction", "share", "knee")
WAYS = ("percentile", "all models drawn", "BCa", "normal", "studentised")
AT = (2e9, 4e10, 1e10)
DECISION: dict[str, Any] = {"N": 1e9, "budget": 5e10}
SMALL = pd.DataFrame(
    [(n, n * d, n * r) for n in np.geomspace(3e7, 3e9, 6) for d in (1, 4, 10, 25, 50) for r in (0, 1, 5, 20)],
    columns=["N", "D", "R"],
)
DESIGNS: dict[str, dict[str, Any]] = {"30 models": {"grid": SMALL}, "48 models": {}}
DELTAS = {"delta 1e-3": 1e-3, "delta auto": "auto"}
KINDS = [(design, label) for design in DESIGNS for label in DELTAS]


def one(design: str, label: str, seed: int, resamples: int) -> dict[str, dict[str, bool]]:
    """Return by way and quantity whether the interval holds the truth, for one table."""
    table = simulate("log1p", noise=0.01, cluster_share=0.75, rng=seed, **DESIGNS[design])
    fit = rs.fit_manifold(table, "log1p", delta=DELTAS[label])
    truth = {p.name: table.attrs["params"][p.name] for p in fit.law.parameters}
    boot = rs.bootstrap(fit, n_resamples=resamples, rng=seed)
    surface = float(fit.law.loss(*AT, truth))
    measured = surface * np.exp(np.random.default_rng(10**6 + seed).normal(0.0, 0.01))
    share = rs.optimal_allocation(boot, **DECISION)
    knee = rs.knee_point(boot, **DECISION)
    right: Any = (fit.law, truth)
    wanted_share, wanted_knee = rs.optimal_allocation(right, **DECISION).share, rs.knee_point(right, **DECISION).D
    params = boot.params
    ends = {name: tuple(params.loc[name, ["low", "high"]]) for name in PARAMETERS}
    ends["surface"] = boot.interval(*AT)
    ends["prediction"] = boot.interval(*AT, kind="prediction")
    ends["share"] = share.interval("share")
    ends["knee"] = (knee.low, knee.high)
    wanted = {**truth, "surface": surface, "prediction": measured, "share": wanted_share, "knee": wanted_knee}
    found = {"percentile": {name: holds(ends[name], wanted[name]) for name in QUANTITIES}}
    if seed % 8 == 0:
        found |= others(fit, seed, resamples, {name: wanted[name] for name in (*PARAMETERS, "surface")}, design)
    return found


def holds(ends: Any, value: Any) -> bool:
    """Tell whether a value lies in a closed interval."""
    return bool(float(ends[0]) <= float(value) <= float(ends[1]))


def others(
    fit: rs.ManifoldFit, seed: int, resamples: int, wanted: dict[str, float], design: str
) -> dict[str, dict[str, bool]]:
    """Return the same for other ways, on resamples of as many models as there are."""
    group = clusters(fit.data)
    count = int(group.max()) + 1
    draws = drawn_models(count, count, resamples, np.random.default_rng(seed))
    problem = fit.problem

    def replicates(weights: np.ndarray) -> dict[str, np.ndarray]:
        solution = refit(problem, fit, weights[:, group] * problem.table.weight)
        theta = problem.theta(solution.c, solution.u, problem.columns(solution.u, slopes=False).size)
        shaped = {name: values.reshape(-1, 1) for name, values in theta.items()}
        return {**theta, "surface": np.ravel(fit.law.loss(*(np.array([x]) for x in AT), shaped))}

    drawn = replicates(draws)
    without = replicates((1.0 - np.eye(count)) * count / (count - 1))  # the jackknife, for the acceleration
    estimate = {**fit.theta, "surface": float(fit.latent(*AT))}
    found: dict[str, dict[str, bool]] = {way: {} for way in WAYS[1:4]}
    for name, value in wanted.items():
        values, middle = drawn[name], estimate[name]
        found["all models drawn"][name] = holds(np.quantile(values, [0.025, 0.975]), value)
        found["normal"][name] = bool(abs(middle - value) <= 1.96 * np.std(values, ddof=1))
        found["BCa"][name] = holds(np.quantile(values, _bca_levels(values, middle, without[name])), value)
    if design == "30 models" and seed % 24 == 0:
        found["studentised"] = studentised(fit, draws, drawn, wanted)
    return found


def _bca_levels(values: np.ndarray, middle: float, without: np.ndarray) -> np.ndarray:
    """Return the two levels of Efron 1987, equation 2.3."""
    away = without.mean() - without
    acceleration = float(np.sum(away**3) / (6.0 * np.sum(away**2) ** 1.5))
    shift = stats.norm.ppf(np.clip(np.mean(values < middle), 0.005, 0.995))
    ends = shift + np.array([-1.96, 1.96])
    return stats.norm.cdf(shift + ends / (1.0 - acceleration * ends))


def studentised(
    fit: rs.ManifoldFit, draws: np.ndarray, drawn: dict[str, np.ndarray], wanted: dict[str, float]
) -> dict[str, bool]:
    """Return the same for bootstrap-t intervals with cluster-robust standard errors, of parameters."""
    data = fit.data
    group = clusters(data)
    spread = fit.params["stderr"]
    ratios = {name: [] for name in PARAMETERS}
    for b, counts in enumerate(draws):
        times = np.rint(counts[group]).astype(int)
        rows = np.repeat(np.arange(len(data)), times)
        copy = np.concatenate([np.arange(t) for t in times])  # a model that is drawn twice is two models
        table = data.iloc[rows].assign(_experiment=group[rows] * 1000 + copy).reset_index(drop=True)
        theta = type(fit.theta)({p.name: float(drawn[p.name][b]) for p in fit.law.parameters})
        errors = replace(fit, data=table, theta=theta).params["stderr"]
        for name in PARAMETERS:
            ratios[name].append((theta[name] - fit.theta[name]) / errors[name])
    found = {}
    for name in PARAMETERS:
        t = np.array(ratios[name])[np.isfinite(ratios[name])]
        low, high = np.quantile(t, [0.025, 0.975])
        value = fit.theta[name]
        found[name] = holds((value - high * spread[name], value - low * spread[name]), wanted[name])
    return found


def collect(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return by kind, way and quantity the coverage and the number of tables."""
    table: dict[str, Any] = {}
    for design, label in KINDS:
        kind = f"{design}, {label}"
        mine = [row["found"] for row in rows if row["kind"] == kind]
        for way in WAYS:
            inside = [found[way] for found in mine if way in found]
            if inside:
                means = {q: round(float(np.mean([x[q] for x in inside])), 4) for q in QUANTITIES if q in inside[0]}
                table.setdefault(kind, {})[way] = {"tables": len(inside), **means}
    return table


def markdown(table: dict[str, Any], resamples: int) -> str:
    """Return the results as text: what users get, then the other ways."""
    total = sum(ways["percentile"]["tables"] for ways in table.values())
    about = (
        f"`python benchmarks/interval_coverage.py`: {total} simulated tables, {resamples} resamples each; 1 % noise, "
        "three quarters of its variance shared by the rows of a trained model. "
        "The standard error of a share p of n tables is sqrt(p (1 - p) / n): 1.4 points at .95 and 250 tables."
    )
    lines = [
        "# Coverage of 95 % intervals",
        "",
        about,
        "",
        "## What a user gets",
        "",
        f"| kind of table | tables | {' | '.join(QUANTITIES)} |",
        f"|---|--:|{'--:|' * len(QUANTITIES)}",
    ]
    for kind, ways in table.items():
        found = ways["percentile"]
        lines.append(f"| {kind} | {found['tables']} | {' | '.join(f'{found[q]:.3f}' for q in QUANTITIES)} |")
    names = (*PARAMETERS, "surface")
    lines += [
        "",
        "## Other ways, on a part of the tables",
        "",
        f"| kind of table | way | tables | {' | '.join(names)} |",
    ]
    lines.append(f"|---|---|--:|{'--:|' * len(names)}")
    for kind, ways in table.items():
        for way in WAYS[1:]:
            if way in ways:
                cells = " | ".join(f"{ways[way][q]:.3f}" if q in ways[way] else "" for q in names)
                lines.append(f"| {kind} | {way} | {ways[way]['tables']} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=250)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    STATE.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in STATE.read_text().splitlines()] if STATE.exists() else []
    done = {(row["kind"], row["seed"]) for row in rows}
    start, late = time.monotonic(), False
    for seed in range(options.tables):
        for design, label in KINDS:
            kind = f"{design}, {label}"
            late = late or time.monotonic() - start > 60 * options.minutes
            if (kind, seed) in done or late:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = one(design, label, seed, options.resamples)
            rows.append({"kind": kind, "seed": seed, "found": found})
            with STATE.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    table = collect(rows)
    about = {"resamples": options.resamples, "noise": 0.01, "cluster_share": 0.75, "law": "log1p"}
    (RESULTS / "coverage.json").write_text(json.dumps({"about": about, "coverage": table}, indent=1) + "\n")
    (RESULTS / "coverage.md").write_text(markdown(table, options.resamples))
    print(markdown(table, options.resamples))


if __name__ == "__main__":
    main()
