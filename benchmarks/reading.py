"""The law of reading: on a real study, in simulated worlds, its gate, and its speed.

    python benchmarks/reading.py --data ../shared/data/gpu_study        # about ten minutes on one core
    python benchmarks/reading.py --data ... --only study                # one part: study, gate, worlds, speed, picture

Study: the cells of a fixed budget (D + R = 16, 32 or 52 million tokens) are left out, every law is fitted to the rest,
and is asked for their losses and for the best split of each budget. Regret is the measured loss of the cell that the
law ranks best, minus that of the best cell measured, in nats per token.

Writes benchmarks/results/reading.json and reading.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ragscale as rs
from ragscale.datasets import simulate_reading
from ragscale.fitting import Identity, Interaction, Reading
from ragscale.fitting._evidence import evidence
from ragscale.fitting.laws._law import Theta

OUT = Path(__file__).resolve().parent / "results"
PICTURE = OUT.parents[1] / "docs" / "_static" / "fitting" / "reading.png"
TASKS = ("squad", "triviaqa", "nq", "sciq", "popqa")
BUDGETS = (16e6, 32e6, 52e6)
LAWS: dict[str, Any] = {
    "chinchilla": "chinchilla",
    "log1p": "log1p",
    "power": "power",
    "hill": "hill",
    "log_ratio": "log_ratio",
    "multiplicative": "multiplicative",
    "interaction": "interaction",
    "interaction(scale_D, offset)": Interaction(scale_D=True, offset=True),
    "coverage": "coverage",
    "reading": "reading",
    "reading(c=0)": Reading(c=0.0),
    "auto": "auto",
}


# The study -----------------------------------------------------------------------------------------------------------


def task_table(results: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the rows of one task and metric, without the columns that describe runs."""
    rows = results[(results["task"] == task) & (results["metric"] == "nll_per_token")]
    return rows.drop(columns=["model", "prompts"]).reset_index(drop=True)


def is_budget(table: pd.DataFrame) -> np.ndarray:
    """Say which rows are cells of a fixed budget."""
    return ((table["condition"] == "retrieved") & np.isin(table["D"] + table["R"], BUDGETS)).to_numpy()


def predicted(fit: Any, rows: pd.DataFrame, **options: Any) -> np.ndarray:
    """Predict rows with the hit rates that were measured there."""
    columns = {name: rows[name].to_numpy(float) for name in fit.law.further_columns}
    return np.asarray(fit.predict(rows["N"], rows["D"], rows["R"], **columns, **options))


def judged(guess: np.ndarray, rows: pd.DataFrame) -> dict[str, float]:
    """Return error in per cent, regret in nats, and right choices of the best split."""
    table = rows.assign(guess=guess, budget=rows["D"] + rows["R"])
    regret = [
        float(cell["value"].to_numpy()[cell["guess"].to_numpy().argmin()] - cell["value"].min())
        for _, cell in table.groupby(["N", "budget"])
    ]
    return {
        "error": 100 * float(np.abs(guess / rows["value"] - 1).mean()),
        "regret": float(np.mean(regret)),
        "right": int(np.sum(np.array(regret) == 0)),
        "choices": len(regret),
    }


def left_out(table: pd.DataFrame, law: Any, test: np.ndarray) -> float:
    """Return the error in per cent on retrieved and closed-book rows that were left out."""
    rows = table[test & table["condition"].isin(["closed-book", "retrieved"])]
    rows = rows.assign(hit_rate=rows["hit_rate"].fillna(0.0))
    fit = rs.fit_manifold(table[~test].reset_index(drop=True), law)
    return 100 * float(np.abs(predicted(fit, rows) / rows["value"] - 1).mean())


def study(folder: Path) -> dict[str, Any]:
    """Run every law on every task."""
    results = pd.read_csv(folder / "results.csv.gz")
    found: dict[str, Any] = {"laws": {}}
    for task in TASKS:
        table = task_table(results, task)
        test = is_budget(table)
        seen, cells = table[~test].reset_index(drop=True), table[test]
        for name, law in LAWS.items():
            start = time.process_time()
            fit = rs.fit_manifold(seen, law)
            row = {**judged(predicted(fit, cells), cells), "seconds": time.process_time() - start}
            if name in {"log1p", "interaction(scale_D, offset)", "reading"}:
                sizes = np.unique(table["N"])
                folds = [left_out(table, law, (table["N"] == n).to_numpy()) for n in sizes]
                row["leave_one_N"] = float(np.mean(folds))
                row["largest_D"] = left_out(table, law, (table["D"] == table["D"].max()).to_numpy())
            if name == "auto":
                row |= {"law": fit.law.name, "verdict": fit.verdict.text, "note": fit.selection.note}
            if name == "reading":
                known = judged(predicted(fit, cells, at_checkpoint=True), cells)
                found["laws"].setdefault("reading, at checkpoints", {})[task] = known
            found["laws"].setdefault(name, {})[task] = row
        print(task, {k: round(v[task]["error"], 2) for k, v in found["laws"].items()}, flush=True)
    every = results[results["metric"] == "nll_per_token"].drop(columns=["model", "prompts"]).reset_index(drop=True)
    test = is_budget(every)
    start = time.process_time()
    joint = rs.fit_manifold(every[~test].reset_index(drop=True), "reading", over="task")
    found["joint"] = {"seconds": time.process_time() - start, **joint.theta, "converged": joint.converged}
    cells = every[test]
    found["laws"]["reading, one skill for all tasks"] = {
        task: judged(predicted(joint[task], cells[cells["task"] == task]), cells[cells["task"] == task])
        for task in TASKS
    }
    found["splits"] = splits(results)
    return found


def splits(results: pd.DataFrame) -> dict[str, Any]:
    """Decide SQuAD and TriviaQA at 52 million tokens with h(R) as measured, for every size."""
    found = {}
    for task in ("squad", "triviaqa"):
        table = task_table(results, task)
        test = is_budget(table)
        fit = rs.fit_manifold(table[~test].reset_index(drop=True), "reading", hit_rate=rs.results.hit_rate_curve(table))
        sizes = np.unique(table["N"])
        best = rs.optimal_allocation(fit, N=sizes, budget=52e6, min_D=4e6)
        cells = table[test & (table["D"] + table["R"] == 52e6).to_numpy()]
        regret = []
        for n, d in zip(sizes, np.ravel(best.D), strict=True):
            mine = cells[cells["N"] == n]
            nearest = mine.iloc[int(np.argmin(np.abs(np.log(mine["D"] / d))))]
            regret.append(float(nearest["value"] - mine["value"].min()))
        found[task] = {
            "D": [float(d) for d in np.ravel(best.D)],
            "boundary": [str(b) for b in np.ravel(best.boundary)],
            "regret_nearest_cell": regret,
        }
    return found


# The gate ------------------------------------------------------------------------------------------------------------


def gate(n_tables: int = 100) -> list[dict[str, Any]]:
    """Return how often the gate says "reads" and "nobody reads" by the true gain of a reader, over the needed one."""
    rows = []
    for gold in (True, False):
        for noise in (0.01,):
            for share in (0.0, 1.0, 2.0, 4.0):
                says = {"reads": 0, "nobody": 0}
                for seed in range(n_tables):
                    table, needed = _gate_table(share, gold=gold, noise=noise, seed=seed)
                    seen = evidence(table, Identity())
                    says["reads"] += seen.somebody_reads
                    says["nobody"] += seen.nobody_reads
                rows.append(
                    {"gold": gold, "row_noise": noise, "gain_over_needed": share, "needed": needed, "n": n_tables,
                     **{name: count / n_tables for name, count in says.items()}}
                )  # fmt: skip
    return rows


def _gate_table(share: float, *, gold: bool, noise: float, seed: int) -> tuple[pd.DataFrame, float]:
    """Make a table whose models gain ``share`` times what is needed by a passage with the answer."""
    flat = {"E": 4.0, "A": 0.0, "B": 0.0, "leap": 0.0, "D0": 1.0, "c": 0.0, "other": 0.0, "gold": share * 0.08}
    options = {"model_noise": 0.01, "row_noise": noise, "n_questions": 400, "rng": seed, "random": 0.0}
    return simulate_reading(flat, gold=gold, D=(4e7,), **options), 0.08


# Simulated worlds ----------------------------------------------------------------------------------------------------


def worlds(n_tables: int = 2) -> list[dict[str, Any]]:
    """Return the family that auto takes and the regret of its split, by world and scale."""
    rows = []
    scales = {
        "small": {"N": (4e6, 6e6, 1.1e7, 2.3e7, 3.8e7), "D": (4e6, 8e6, 1.6e7, 2.4e7, 3.2e7, 4.4e7),
                  "R": (1e6, 4e6, 8e6, 1.6e7, 3.2e7, 4.8e7), "T": 5.2e7, "D0": 1.2e7, "K": 3e7, "N_ref": 1e7},
        "paper": {"N": (3e7, 1.4e8, 3e8, 7e8, 1e9, 3e9), "D": (2e8, 1e9, 4e9, 1e10, 3e10, 1e11),
                  "R": (1e8, 1e9, 4e9, 1e10, 3e10, 1e11), "T": 5e10, "D0": 5e9, "K": 3e10, "N_ref": 1e9},
    }  # fmt: skip
    for scale, s in scales.items():
        for world in ("reading", "smooth", "no gain"):
            right, regrets = 0, []
            for seed in range(n_tables):
                family, regret = _one_world(world, s, seed)
                expected = {"reading": "reading", "no gain": "none"}.get(world, "smooth")
                right += family == expected
                regrets.append(regret)
            rows.append(
                {"scale": scale, "world": world, "n": n_tables, "right_family": right / n_tables,
                 "mean_regret": float(np.mean(regrets)), "largest_regret": float(np.max(regrets))}
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def _one_world(world: str, s: dict[str, Any], seed: int) -> tuple[str, float]:
    """Fit one table with auto; return the family it took, and what its split loses under the truth."""
    params = {"D0": s["D0"], "N_ref": s["N_ref"], "c": 0.1, "A": 60.0 if s["T"] < 1e9 else 400.0}

    def hit(r: Any) -> Any:
        return 0.7 * np.asarray(r) / (np.asarray(r) + s["K"])

    size = {"reading": None, "smooth": 0.06, "no gain": 0.0}[world]
    gain = None if size is None else (lambda n, d, r: size * np.log1p(r / (s["K"] / 10)))
    table = simulate_reading(
        params, N=s["N"], D=s["D"], R=s["R"], hit_rate=hit, gain=gain, model_noise=0.01, row_noise=0.004,
        n_questions=600, rng=seed,
    )  # fmt: skip
    if world == "no gain":
        table = table[table["condition"].isin(["closed-book", "retrieved"])].drop(columns=["hit_rate"])
    fit = rs.fit_manifold(table.reset_index(drop=True))
    family = "reading" if fit.law.name == "reading" else "smooth" if "R" in fit.law.variables else "none"
    theta, law = Theta(table.attrs["params"] | params), Reading()

    def truth(d: np.ndarray) -> np.ndarray:
        r = s["T"] - d
        if gain is None:
            return np.asarray(law.loss(n, d, r, theta, hit_rate=hit(r)))
        return np.asarray(law.loss(n, d, 0.0, theta, hit_rate=0.0)) - gain(n, d, r)

    losses = []
    for n in s["N"]:
        best = rs.optimal_allocation(fit, N=n, budget=s["T"], min_D=s["T"] / 100)
        grid = np.linspace(s["T"] / 100, s["T"], 4000)
        losses.append(float(truth(np.array([float(best.D)]))[0] - truth(grid).min()))
    return family, float(np.mean(losses))


# Speed ---------------------------------------------------------------------------------------------------------------


def speed() -> dict[str, float]:
    """Return CPU seconds of a fit, and of 200 replicates, on a table of 330 rows."""
    table = simulate_reading(model_noise=0.01, row_noise=0.005, n_questions=400, rng=0)
    start = time.process_time()
    fit = rs.fit_manifold(table, "reading")
    fitted = time.process_time()
    rs.bootstrap(fit, n_resamples=200, rng=0)
    drawn = time.process_time()
    rs.fit_manifold(table)
    return {"fit": fitted - start, "200 replicates": drawn - fitted, "auto": time.process_time() - drawn}


# Writing -------------------------------------------------------------------------------------------------------------


def written(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = ["# The law of reading", "", f"{found['machine']}, ragscale {found['version']}.", ""]
    if "study" in found:
        lines += _study_lines(found["study"])
    if "gate" in found:
        rows = [("gold rows", "row noise", "true gain / needed", "says reads", "says nobody reads")]
        rows += [
            tuple(str(row[name]) for name in ("gold", "row_noise", "gain_over_needed", "reads", "nobody"))
            for row in found["gate"]
        ]
        lines += ["## The gate", "", *_table(rows), ""]
    if "worlds" in found:
        rows = [("scale", "world", "tables", "right family", "mean regret, nats", "largest")]
        rows += [
            (row["scale"], row["world"], str(row["n"]), f"{row['right_family']:.2f}", f"{row['mean_regret']:.4f}",
             f"{row['largest_regret']:.4f}")
            for row in found["worlds"]
        ]  # fmt: skip
        lines += ["## Simulated worlds", "", *_table(rows), ""]
    if "speed" in found:
        said = ", ".join(f"{name} {seconds:.2f}" for name, seconds in found["speed"].items())
        lines += [f"Speed, CPU seconds on 330 rows: {said}.", ""]
    return "\n".join(lines)


def _study_lines(found: dict[str, Any]) -> list[str]:
    head = (
        "law",
        "error, %",
        "regret, nats",
        "SQuAD: error / regret / right of 15",
        "leave one N out, %",
        "largest D, %",
    )
    rows = [head]
    for name, tasks in found["laws"].items():
        mean = {k: float(np.mean([tasks[t][k] for t in TASKS])) for k in ("error", "regret")}
        one = tasks["squad"]
        rest = [
            f"{np.mean([tasks[t][k] for t in TASKS]):.2f}" if k in one else "" for k in ("leave_one_N", "largest_D")
        ]
        squad = f"{one['error']:.2f} / {one['regret']:.3f} / {one['right']}"
        rows.append((name, f"{mean['error']:.2f}", f"{mean['regret']:.4f}", squad, *rest))
    taken = ", ".join(f"{task} {found['laws']['auto'][task]['law']}" for task in TASKS)
    joint = found["joint"]
    lines = ["## A study of five sizes on natural text, held-out cells of fixed budgets", "", *_table(rows), ""]
    lines += [f"Law taken by `auto`: {taken}.", ""]
    for task, one in found["splits"].items():
        tokens = ", ".join(f"{d / 1e6:.1f}M" for d in one["D"])
        regret = float(np.mean(one["regret_nearest_cell"]))
        lines += [f"{task} at 52M tokens: D = {tokens} by size; regret of the nearest measured cells {regret:.3f}.", ""]
    said = f"D0 = {joint['D0']:.4g}, c = {joint['c']:.3g}, k = {joint['k']:.3g}, {joint['seconds']:.1f} CPU s"
    return [*lines, f"One skill for all tasks: {said}.", ""]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def picture(folder: Path) -> None:
    """Draw the gain over D and h(R) of SQuAD."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    table = task_table(pd.read_csv(folder / "results.csv.gz"), "squad")
    fit = rs.fit_manifold(table, "reading")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    rs.plotting.reading(fit, ax=left)
    fit.hit_rate.plot(ax=right)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", choices=["study", "gate", "worlds", "speed", "picture"])
    given = parser.parse_args()
    path = OUT / "reading.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found |= {"machine": f"{platform.machine()}, Python {platform.python_version()}", "version": rs.__version__}
    if given.only == "picture":
        return picture(given.data)
    parts: dict[str, Any] = {"gate": gate, "worlds": worlds, "speed": speed}
    if given.data is not None:
        parts["study"] = lambda: study(given.data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, run in parts.items():
            if given.only in {None, name}:
                found[name] = run()
                others = json.loads(path.read_text()) if path.exists() else {}
                found = others | {"machine": found["machine"], "version": found["version"], name: found[name]}
                path.write_text(json.dumps(found, indent=1) + "\n")
                (OUT / "reading.md").write_text(written(found))


if __name__ == "__main__":
    main()
