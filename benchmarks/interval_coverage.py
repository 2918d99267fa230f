"""How often 95 % intervals hold the truth, on simulated tables whose noise is shared within trained models.

    python benchmarks/interval_coverage.py [--tables 1000] [--first 0] [--resamples 200] [--minutes 30]

Two designs (30 models with 4 stores, 48 with 7), two losses (delta = 1e-3 and "auto"), the law log1p, 1 % noise, of
which three quarters are shared by the rows of one model. For each quantity the truth's place among the replicates is
kept, so that four kinds of interval are compared on the same refits: percentile, bias-corrected percentile, normal, and
percentiles expanded for few models (Hesterberg 2015). What was finished is written to
benchmarks/results/coverage.json, with the number of tables.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import ragscale as rs
from ragscale.datasets import simulate

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "coverage.json"
NAMES = ("alpha", "beta", "E", "C")
AT = (2e9, 4e10, 1e10)
SMALL = pd.DataFrame(
    [(n, n * d, n * r) for n in np.geomspace(3e7, 3e9, 6) for d in (1, 4, 10, 25, 50) for r in (0, 1, 5, 20)],
    columns=["N", "D", "R"],
)
DESIGNS: dict[str, dict[str, Any]] = {"30 models": {"grid": SMALL}, "48 models": {}}
DELTAS = {"delta 1e-3": 1e-3, "delta auto": "auto"}


def one(design: str, delta: Any, seed: int, resamples: int) -> tuple[dict[str, tuple[float, float, float]], int, int]:
    """Return for each quantity the share of replicates below the truth, that below the estimate, and z."""
    table = simulate("log1p", noise=0.01, cluster_share=0.75, rng=seed, **DESIGNS[design])
    truth = table.attrs["params"]
    fit = rs.fit_manifold(table, "log1p", delta=delta)
    boot = rs.bootstrap(fit, n_resamples=resamples, rng=seed)
    right = (fit.law, {p.name: truth[p.name] for p in fit.law.parameters})
    surface = float(np.log(fit.law.loss(*AT, right[1])))
    drawn = boot._scatter((resamples,))
    noise = np.random.default_rng(10**6 + seed).normal(0.0, 0.01)
    quantities = {name: (boot.theta[name], truth[name], fit.theta[name]) for name in NAMES}
    middle = float(np.log(fit.latent(*AT)))
    quantities["surface"] = (np.log(boot.predict(*AT)), surface, middle)
    quantities["prediction"] = (np.log(boot.predict(*AT)) + drawn, surface + noise, middle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        share = rs.optimal_allocation(boot, N=1e9, budget=5e10)
        exact = rs.optimal_allocation(right, N=1e9, budget=5e10)
        knee, exact_knee = rs.knee_point(boot, N=1e9, budget=5e10), rs.knee_point(right, N=1e9, budget=5e10)
    replicates = np.ravel(np.asarray(share.replicates["share"]))
    quantities["share"] = (replicates, float(exact.share), float(share.share))
    found = {}
    for name, (values, wanted, estimate) in quantities.items():
        spread = max(float(np.std(values, ddof=1)), 1e-300)
        found[name] = (float(np.mean(values < wanted)), float(np.mean(values < estimate)), (estimate - wanted) / spread)
    inside = float(knee.low) <= float(exact_knee.D) <= float(knee.high)
    found["knee"] = (0.5 if inside else 0.0, np.nan, np.nan)  # its percentile interval alone
    return found, fit.diagnostics.n_clusters, len(fit.law.free)


def cover(places: np.ndarray, clusters: int, parameters: int) -> dict[str, float]:
    """Return the coverage of four kinds of 95 % intervals from places (n_tables, 3)."""
    below, middle, z = places.T
    spare = clusters - parameters
    wide = stats.t.ppf(0.975, spare) * np.sqrt(clusters / spare)
    shift = 2.0 * stats.norm.ppf(np.clip(middle, 0.005, 0.995))
    low, high = stats.norm.cdf(shift - 1.96), stats.norm.cdf(shift + 1.96)
    if np.isnan(z).any():
        return {"percentile": float(((below >= 0.025) & (below <= 0.975)).mean())}
    return {
        "percentile": float(((below >= 0.025) & (below <= 0.975)).mean()),
        "bias-corrected": float(((below >= low) & (below <= high)).mean()),
        "normal": float((np.abs(z) <= 1.96).mean()),
        "expanded": float(((below >= stats.norm.sf(wide)) & (below <= stats.norm.cdf(wide))).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    start = time.monotonic()
    kept: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    done = 0
    for seed in range(options.first, options.first + options.tables):
        for design in DESIGNS:
            for label, delta in DELTAS.items():
                places, clusters, parameters = one(design, delta, seed, options.resamples)
                cell = f"{design}, {label}"
                sizes[cell] = (clusters, parameters)
                for name, place in places.items():
                    kept.setdefault(cell, {}).setdefault(name, []).append(place)
        done += 1
        late = time.monotonic() - start > 60 * options.minutes
        if late or done % 25 == 0 or done == options.tables:
            found = {
                cell: {name: cover(np.array(rows), *sizes[cell]) for name, rows in by_name.items()}
                for cell, by_name in kept.items()
            }
            about = {"tables_of_each_kind": done, "first_seed": options.first, "resamples": options.resamples}
            RESULTS.write_text(json.dumps({"about": about, "coverage": found}, indent=1) + "\n")
        if late:
            break
    print(f"{done} tables of each kind")
    for cell, by_name in kept.items():
        table = pd.DataFrame({n: cover(np.array(rows), *sizes[cell]) for n, rows in by_name.items()}).T
        print(f"\n{cell}\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main()
