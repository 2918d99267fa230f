"""Fit real and synthetic tables with ragscale, scipy multi-start, lmfit and the paper's script, side by side.

    python benchmarks/fitting.py [--data ../shared/data/results] [--quick] [--only objective held-out ...]

Times are CPU seconds of one thread in this run and count only as ratios. Results: benchmarks/results/fitting.json; the
picture of cost against rows and replicates: docs/_static/fitting/cost.png.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmfit
import numpy as np
import pandas as pd
import scipy
from scipy.optimize import least_squares, minimize

import ragscale as rs
from ragscale.datasets import simulate
from ragscale.fitting import Bounded, fit_paper
from ragscale.fitting._experiments import clusters
from ragscale.fitting._resampling import refit

ROOT = Path(__file__).resolve().parents[1]
NINE = (
    "chinchilla_240",
    "chinchilla_245",
    "mlfoundations_c4",
    "mlfoundations_rpj",
    "misfitting",
    "olmo",
    "gemstones",
    "marin_nemotron",
    "datablations_1_epoch",
)
FORMS = {"log1p": "log", "power": "power", "hill": "hill", "log_ratio": "interactionlog"}


def real_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Return every table with N and D as columns N, D, value."""

    def take(frame: pd.DataFrame, value: str, n: str = "N") -> pd.DataFrame:
        found = frame.rename(columns={value: "value"}).assign(N=frame[n])[["N", "D", "value"]]
        return found[found["value"] > 0].astype(float).reset_index(drop=True)

    read = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
    chinchilla, losses = read["chinchilla_epoch"], read["mlfoundations_losses"]
    c4 = losses[losses["val"] == "c4_val"]
    tables = {
        "chinchilla_240": take(chinchilla[chinchilla["epoch_excluded"] == 0], "loss"),
        "chinchilla_245": take(chinchilla, "loss"),
        "mlfoundations_c4": take(c4[c4["train_dataset"] == "c4_original"], "loss"),
        "mlfoundations_rpj": take(c4[c4["train_dataset"] == "rpj"], "loss"),
        "misfitting": read["misfitting_last_ckpt"].groupby(["N", "D"], as_index=False)["loss"].min(),
        "olmo": take(read["olmo_ladder_final"], "c4_en-validation/CrossEntropyLoss"),
        "gemstones": take(read["gemstones_validation"], "loss"),
        "datablations_1_epoch": read["datablations_ndu"]
        .query("epochs == 1")
        .groupby(["N", "D"], as_index=False)["loss"]
        .mean(),
        "datablations": take(read["datablations_ndu"], "loss"),
        "steplaw_dense": take(read["steplaw_dense_best_per_nd"], "smooth_loss"),
        "steplaw_moe": take(read["steplaw_moe_best_per_nd"], "smooth_loss"),
    }
    for name in ("misfitting", "datablations_1_epoch"):
        tables[name] = take(tables[name], "loss")
    isoflops = read["isoflops_openathena"]
    isoflops = isoflops[~isoflops["outlier"].astype(bool)]
    for (source, dataset), part in isoflops.groupby(["source", "dataset"]):
        name = f"marin_{dataset}" if source.startswith("marin") else f"isoflops_{source}"
        tables[name] = take(part, "loss")
    keys = ["file", "hparams", "warmup", "decay", "param_count", "val"]
    for i, (_, part) in enumerate(read["porian_isoflops"].groupby(keys)):
        tables[f"porian_{i}"] = take(part, "loss")
    sloth = read["sloth_families_benchmarks"]
    sloth = sloth.assign(
        N=sloth["size"] * 1e9, D=sloth["tokens"] * 1e12, value=1 - sloth["bbh"] / max(1, sloth.bbh.max())
    )
    tables["sloth_bbh_error"] = take(sloth[sloth["D"] > 0].dropna(subset=["value", "D"]), "value")
    laion = read["laion_segmentation"].assign(N=lambda t: t["model_mparams"] * 1e6, D=lambda t: t["samples_seen"])
    tables["laion_miou_error"] = take(laion, "err")
    downstream = read["mlfoundations_downstream"]
    wide = downstream[downstream["task"] == "hellaswag"].assign(value=lambda t: 1 - t["accuracy"])
    if len(wide):
        tables["mlfoundations_hellaswag_error"] = take(wide, "value")
    return tables


def as_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Give rows a name of their own: real tables repeat (N, D) with other seeds or widths."""
    return frame.assign(run=[f"run-{i}" for i in range(len(frame))], R=0.0)


def cpu(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and its CPU seconds."""
    begin = time.process_time()
    result = function()
    return result, time.process_time() - begin


# Peers ---------------------------------------------------------------------------------------------------------------


def _surface(
    p: np.ndarray, x: np.ndarray, z: np.ndarray, gain: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """E + exp(a) n^-alpha + exp(b) d^-beta [- C ln(1 + exp(h) r)] and its slopes; x, z are centred logarithms."""
    E, a, alpha, b, beta = p[:5]
    first, second = np.exp(a - alpha * x), np.exp(b - beta * z)
    value, slopes = E + first + second, [np.ones_like(x), first, -x * first, second, -z * second]
    if gain is not None:
        C, h = p[5:]
        scaled = np.exp(h) * gain
        value = value - C * np.log1p(scaled)
        slopes += [-np.log1p(scaled), -C * scaled / (1 + scaled)]
    return value, np.array(slopes)


def scipy_huber(
    frame: pd.DataFrame, starts: int, seed: int = 0, delta: float = 1e-3, weights: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Search with L-BFGS-B, analytic gradient, from random starts; return the best objective and parameters."""
    n, d, r, y = (frame[c].to_numpy(float) for c in ("N", "D", "R", "value"))
    x, z = np.log(n) - np.log(n).mean(), np.log(d) - np.log(d).mean()
    gain = r / np.exp(np.log(r[r > 0]).mean()) if (r > 0).any() else None
    w = np.ones_like(y) if weights is None else weights

    def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(all="ignore"):
            value, slopes = _surface(p, x, z, gain)
            if not np.all(np.isfinite(value)) or value.min() <= 0:
                return 1e6, np.zeros_like(p)
            e = np.log(value / y)
        size = np.abs(e)
        loss = np.where(size <= delta, 0.5 * e * e, delta * (size - 0.5 * delta))
        return 1e3 * float((w * loss).sum()), 1e3 * slopes @ (w * np.clip(e, -delta, delta) / value)

    rng = np.random.default_rng(seed)
    bounds = [(0, None), (-30, 30), (0.01, 2), (-30, 30), (0.01, 2)] + (
        [(0, None), (-9, 9)] if gain is not None else []
    )
    best, where = np.inf, np.zeros(len(bounds))
    for _ in range(starts):
        start = [
            rng.uniform(0, y.min()),
            rng.uniform(-4, 1),
            rng.uniform(0.05, 1),
            rng.uniform(-4, 1),
            rng.uniform(0.05, 1),
        ]
        start += [rng.uniform(0, 0.3), rng.uniform(-4, 4)] if gain is not None else []
        found = minimize(
            objective, start, jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": 3000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-11},
        )  # fmt: skip
        if found.fun < best:
            best, where = float(found.fun), found.x
    return best / 1e3, where


def predict_scipy(p: np.ndarray, train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    """Predict with what `scipy_huber` found."""
    x, z = (np.log(test[c].to_numpy(float)) - np.log(train[c].to_numpy(float)).mean() for c in ("N", "D"))
    r = train["R"].to_numpy(float)
    gain = test["R"].to_numpy(float) / np.exp(np.log(r[r > 0]).mean()) if (r > 0).any() else None
    return _surface(p, x, z, gain)[0]


def lmfit_starts(frame: pd.DataFrame, starts: int, seed: int = 0) -> np.ndarray:
    """Least squares of logarithms with lmfit, bounded, from random starts."""
    n, d, y = (frame[c].to_numpy(float) for c in ("N", "D", "value"))
    x, z = np.log(n) - np.log(n).mean(), np.log(d) - np.log(d).mean()
    rng = np.random.default_rng(seed)
    best, where = np.inf, np.zeros(5)
    for _ in range(starts):
        parameters = lmfit.Parameters()
        parameters.add("E", rng.uniform(0, y.min()), min=0, max=float(y.max()))
        parameters.add("a", rng.uniform(-4, 1), min=-30, max=30)
        parameters.add("alpha", rng.uniform(0.05, 1), min=0.01, max=2)
        parameters.add("b", rng.uniform(-4, 1), min=-30, max=30)
        parameters.add("beta", rng.uniform(0.05, 1), min=0.01, max=2)

        def residual(values: lmfit.Parameters) -> np.ndarray:
            p = np.array([values[k].value for k in ("E", "a", "alpha", "b", "beta")])
            return np.log(np.maximum(_surface(p, x, z)[0], 1e-300) / y)

        found = lmfit.minimize(residual, parameters)
        if found.chisqr < best:
            best, where = found.chisqr, np.array([found.params[k].value for k in ("E", "a", "alpha", "b", "beta")])
    return where


# Sections ------------------------------------------------------------------------------------------------------------


def objectives(folder: Path, starts: int) -> dict[str, Any]:
    """Objective on every real table against a scipy search from many starts."""
    rows = {}
    for name, frame in real_tables(folder).items():
        table = as_table(frame)
        fit, ours = cpu(lambda table=table: rs.fit_manifold(table, "chinchilla", link="identity"))
        (best, _), theirs = cpu(lambda table=table: scipy_huber(table, starts))
        rows[name] = {
            "rows": len(table), "objective": fit.objective, "scipy": best, "gap": fit.objective / best - 1,
            "cpu_s": ours, "scipy_cpu_s": theirs, "ratio": theirs / ours,
        }  # fmt: skip
        print(f"{name:34s} n {len(table):5d}  ours {fit.objective:.11g}  scipy-{starts} {best:.11g}  "
              f"gap {rows[name]['gap']:+.1e}  cpu x{theirs / ours:.0f}")  # fmt: skip
    return rows


def held_out(folder: Path, starts: int) -> dict[str, Any]:
    """Fit the smallest 80 % by compute, predict the largest 20 %: mean relative error in %, and interval coverage."""
    rows = {}
    tables = real_tables(folder)
    for name in NINE:
        table = as_table(tables[name])
        order = np.argsort(table["N"] * table["D"], kind="stable")
        cut = int(0.8 * len(table))
        train, test = table.iloc[order[:cut]].reset_index(drop=True), table.iloc[order[cut:]]
        seen = test["value"].to_numpy(float)

        def error(predicted: np.ndarray, seen: np.ndarray = seen) -> float:
            return float(100 * np.mean(np.abs(predicted / seen - 1)))

        fit = rs.fit_manifold(train, "chinchilla", link="identity")
        row = {"ours": error(fit.link.metric(fit.latent(test["N"], test["D"])))}
        row["scipy"] = error(predict_scipy(scipy_huber(train, starts)[1], train, test))
        row["lmfit"] = error(predict_scipy(lmfit_starts(train, 20), train, test))
        row["paper"] = error(fit_paper(train, "chinchilla").predict(test["N"], test["D"]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            replicates = rs.bootstrap(fit, n_resamples=400, by="rows", rng=0)
            for kind in ("confidence", "prediction", "extrapolation"):
                low, high = replicates.interval(test["N"], test["D"], kind=kind)
                row[f"coverage_{kind}"] = float(np.mean((low <= seen) & (seen <= high)))
        rows[name] = row
        print(f"{name:24s} " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    rows["mean"] = {key: float(np.mean([row[key] for row in rows.values()])) for key in row}
    print(f"{'mean':24s} " + "  ".join(f"{key} {value:.4f}" for key, value in rows["mean"].items()))
    return rows


def synthetic(seeds: int) -> dict[str, Any]:
    """The paper's grid, 1 % noise and 2 % outliers: surface error, and 3B predicted from at most 1B, medians in %."""
    found = {}
    for law, form in FORMS.items():
        truth = simulate(law, noise=0.0, rng=0)
        clean = truth["value"].to_numpy(float)
        big = truth["N"].to_numpy(float) > 1e9
        rows = []
        for seed in range(seeds):
            table = simulate(law, noise=0.01, outliers=0.02, rng=seed)
            small = table[~big].reset_index(drop=True)
            row = {}
            for name, run in (
                ("ours", lambda t, law=law: rs.fit_manifold(t, law, link="identity")),
                ("paper", lambda t, form=form: fit_paper(t, form)),
            ):
                (whole, seconds), part = cpu(lambda t=table, run=run: run(t)), run(small)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    surface = whole.predict(truth["N"], truth["D"], truth["R"])
                    beyond = part.predict(truth["N"][big], truth["D"][big], truth["R"][big])
                row[f"{name}_surface"] = 100 * np.mean(np.abs(surface / clean - 1))
                row[f"{name}_held"] = 100 * np.mean(np.abs(beyond / clean[big] - 1))
                row[f"{name}_cpu_s"] = seconds
                alpha = whole.params.loc["alpha", "value"] if name == "ours" else whole.params["alpha"]
                row[f"{name}_alpha"] = 100 * abs(alpha / 0.34 - 1)
            rows.append(row)
        medians = {key: float(value) for key, value in pd.DataFrame(rows).median().items()}
        medians["times_better"] = medians["paper_surface"] / medians["ours_surface"]
        found[law] = medians
        print(f"{law:10s} " + "  ".join(f"{key} {value:.3f}" for key, value in medians.items()))
    return found


def coverage(sets: int, n_resamples: int) -> dict[str, Any]:
    """Share of 95 % intervals that hold the truth, where 3/4 of the noise is shared by the rows of one checkpoint."""
    truth = simulate("log1p", noise=0.0, rng=0).attrs["params"]
    inside: dict[str, list[bool]] = {}
    law = rs.fitting.Log1p()
    point = (7e9, 1.4e11, 1e10)
    loss = float(law.loss(*point, {p.name: truth[p.name] for p in law.parameters}))
    for seed in range(sets):
        fit = rs.fit_manifold(simulate("log1p", noise=0.01, cluster_share=0.75, rng=1000 + seed), "log1p", delta="auto")
        for by, label in ((("N", "D", "seed"), "models"), ("rows", "rows")):
            replicates = rs.bootstrap(fit, n_resamples=n_resamples, by=by, rng=seed)
            params = replicates.params
            for name in ("E", "A", "alpha", "B", "beta", "C", "eta"):
                low, high = params.loc[name, ["low", "high"]]
                inside.setdefault(f"{label} {name}", []).append(low <= truth[name] <= high)
            low, high = replicates.interval(*point)
            inside.setdefault(f"{label} L(7B)", []).append(bool(low <= loss <= high))
    found = {key: float(np.mean(value)) for key, value in inside.items()}
    print("  ".join(f"{key} {value:.2f}" for key, value in found.items()))
    return found


def _resample_once(table: pd.DataFrame, delta: Any, n_resamples: int, peers: int) -> dict[str, Any]:
    fit, fit_seconds = cpu(lambda: rs.fit_manifold(table, "log1p", delta=delta, link="identity"))
    group = clusters(fit.data)
    count = group.max() + 1
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=n_resamples)[:, group]
    weights = weights.astype(float)
    problem = fit.problem
    ours, seconds = cpu(lambda: refit(problem, fit, weights))
    n, d, r, y = (table[c].to_numpy(float) for c in ("N", "D", "R", "value"))
    x, z = np.log(n) - np.log(n).mean(), np.log(d) - np.log(d).mean()
    unit = np.exp(np.log(r[r > 0]).mean())
    t = fit.theta
    begin = np.array([
        t.E, np.log(t.A) - t.alpha * np.log(n).mean(), t.alpha, np.log(t.B) - t.beta * np.log(d).mean(), t.beta,
        t.C, np.log(t.eta * unit),
    ])  # fmt: skip
    low = np.array([0, -30, 0.01, -30, 0.01, 0, -9.0])
    high = np.array([10, 30, 2, 30, 2, 5, 9.0])
    step = fit.loss.delta

    def cost(p: np.ndarray, w: np.ndarray) -> float:
        e = np.abs(np.log(_surface(p, x, z, r / unit)[0] / y))
        return float((w * np.where(e <= step, 0.5 * e * e, step * (e - 0.5 * step))).sum())

    def residual(p: np.ndarray, w: np.ndarray) -> np.ndarray:
        e = np.log(np.maximum(_surface(p, x, z, r / unit)[0], 1e-300) / y)
        size = np.abs(e)
        rho = np.where(size <= step, 0.5 * e * e, step * (size - 0.5 * step))
        return np.sign(e) * np.sqrt(2 * rho * w)

    def by_scipy(w: np.ndarray) -> np.ndarray:
        kept = w > 0

        def plain(p: np.ndarray) -> np.ndarray:
            return np.log(np.maximum(_surface(p, x[kept], z[kept], r[kept] / unit)[0], 1e-300) / y[kept])

        def slopes(p: np.ndarray) -> np.ndarray:
            value, jacobian = _surface(p, x[kept], z[kept], r[kept] / unit)
            return (jacobian / value).T

        # scipy's robust losses take no weights: repeated rows stand as often as they were drawn
        times = np.repeat(np.arange(kept.sum()), w[kept].astype(int))
        return least_squares(
            lambda p: plain(p)[times], begin, jac=lambda p: slopes(p)[times], bounds=(low, high), loss="huber",
            f_scale=step,
        ).x  # fmt: skip

    def by_lmfit(w: np.ndarray) -> np.ndarray:
        parameters = lmfit.Parameters()
        for name, value, lo, hi in zip(("E", "a", "al", "b", "be", "C", "h"), begin, low, high, strict=True):
            parameters.add(name, value, min=lo, max=hi)
        result = lmfit.minimize(lambda v: residual(np.array([q.value for q in v.values()]), w), parameters)
        return np.array([q.value for q in result.params.values()])

    row: dict[str, Any] = {"fit_cpu_s": fit_seconds, "bootstrap_cpu_s": seconds, "n_resamples": n_resamples}
    for name, peer in (("scipy_warm", by_scipy), ("lmfit_warm", by_lmfit)):
        answers, their_seconds = cpu(lambda peer=peer, weights=weights: [peer(w) for w in weights[:peers]])
        theirs = np.array([cost(p, w) for p, w in zip(answers, weights, strict=False)])
        gap = ours.value[:peers] / theirs - 1
        row[name] = {"ratio": their_seconds / peers * n_resamples / seconds, "gap_max": float(gap.max()),
                     "gap_median": float(np.median(gap))}  # fmt: skip
    _, multi = cpu(lambda: scipy_huber(table, 12))
    row["scipy_12_starts_ratio_to_fit"] = multi / fit_seconds
    _, paper = cpu(lambda: fit_paper(table, "log"))
    row["paper_ratio_to_fit"] = paper / fit_seconds
    print(delta, json.dumps(row, default=float))
    return row


def resampling(n_resamples: int, peers: int) -> dict[str, Any]:
    """1,000 cluster bootstraps of the 3D log1p law against warm-started scipy and lmfit on the same resamples."""
    table = simulate("log1p", noise=0.01, outliers=0.02, cluster_share=0.75, rng=0)
    found: dict[str, Any] = {str(delta): _resample_once(table, delta, n_resamples, peers) for delta in (1e-3, "auto")}
    fit = rs.fit_manifold(table, "log1p", link="identity")
    replicates = rs.bootstrap(fit, n_resamples=1000, rng=0)
    allocation, seconds = cpu(lambda: rs.optimal_allocation(replicates, N=1e9, budget=np.geomspace(2e9, 2e11, 100)))
    found["allocations"] = {"count": 100_000, "cpu_s": seconds, "type": type(allocation).__name__}
    print(f"1e5 allocations: {seconds:.3f} s of CPU")
    return found


def cost(sizes: tuple[int, ...], counts: tuple[int, ...]) -> dict[str, Any]:
    """CPU seconds against rows and against replicates, with a picture."""
    base = simulate("log1p", noise=0.01, cluster_share=0.5, rng=0)
    by_rows, by_count = {}, {}
    for size in sizes:
        parts = []
        for i in range(int(np.ceil(size / len(base)))):
            part = simulate("log1p", noise=0.01, cluster_share=0.5, rng=i)
            parts.append(part.assign(N=part["N"] * (1 + 0.01 * i)))
        table = pd.concat(parts, ignore_index=True).iloc[:size]
        _, by_rows[size] = cpu(lambda table=table: rs.fit_manifold(table, "log1p", link="identity"))
    fit = rs.fit_manifold(base, "log1p", link="identity")
    for count in counts:
        _, by_count[count] = cpu(lambda count=count: rs.bootstrap(fit, n_resamples=count, rng=0))
    print("rows", by_rows, "\nreplicates", by_count)
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for ax, data, label in (
        (axes[0], by_rows, "rows of the table"),
        (axes[1], by_count, "bootstrap replicates (336 rows)"),
    ):
        ax.loglog(list(data), list(data.values()), "o-")
        ax.set_xlabel(label)
        ax.set_ylabel("CPU seconds, one thread")
        ax.grid(alpha=0.3)
    axes[0].set_title("one fit of log1p")
    axes[1].set_title("bootstrap of log1p")
    path = ROOT / "docs/_static/fitting/cost.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return {"rows": by_rows, "replicates": by_count}


def digitised(path: Path) -> dict[str, float]:
    """Leave-one-N-out error (%) on the paper's 55 digitised SciQ perplexities, every way."""
    raw = pd.read_csv(path)
    table = raw.rename(columns={"N_params": "N", "D_tokens": "D", "perplexity": "value"})[["N", "D", "value"]]
    on_log = Bounded("free", "free", on="log")
    found = {"paper's script": 100 * fit_paper(table, "chinchilla").lomo_error}
    for name, options in {
        "chinchilla": {"link": "identity"},
        "chinchilla on log perplexity": {"link": "log"},
        "bounded": {"link": "bounded", "space": "log"},
        "bounded on log perplexity": {"link": on_log},
        "bounded on log perplexity, delta auto": {"link": on_log, "delta": "auto"},
    }.items():
        found[name] = 100 * rs.cross_validate(table, "chinchilla", leave_out="N", **options).error
    print("  ".join(f"{key}: {value:.2f} %" for key, value in found.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/results")
    parser.add_argument("--quick", action="store_true", help="fewer starts, seeds and replicates")
    parser.add_argument("--only", nargs="*", default=None)
    options = parser.parse_args()
    quick = options.quick
    path = ROOT / "benchmarks/results/fitting.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    sections: dict[str, Callable[[], Any]] = {
        "objective": lambda: objectives(options.data, 20 if quick else 200),
        "held-out": lambda: held_out(options.data, 10 if quick else 50),
        "synthetic": lambda: synthetic(3 if quick else 12),
        "resampling": lambda: resampling(200 if quick else 1000, 10 if quick else 60),
        "coverage": lambda: coverage(10 if quick else 100, 200 if quick else 400),
        "digitised": lambda: digitised(options.data.parents[1] / "paper/digitised/fig2_baselines_points.csv"),
        "cost": lambda: cost((336, 1344, 5376, 21504), (100, 300, 1000, 3000)),
    }
    for name, run in sections.items():
        if options.only is not None and name not in options.only:
            continue
        print(f"\n== {name}")
        results[name] = run()
        results["about"] = {
            "command": "python benchmarks/fitting.py" + (" --quick" if quick else ""),
            "machine": "2 shared CPU cores, one thread",
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__,
                         "lmfit": lmfit.__version__, "ragscale": rs.__version__},
        }  # fmt: skip
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
