"""Which rule for learning rate and batch predicts the best runs of sizes that it has not seen?

    python benchmarks/learning_rate.py --runs ../shared/data/results/scalebench/lr_bsz.csv

The table holds 2,819 public runs (arXiv 2503.04715; rows of 2,048 tokens; 42 pairs of N and D, each with a grid of
rates and batches). A rule's regret at a pair is the loss at its rate and batch, interpolated between the runs, less
the loss of the pair's best run. Our own fit is made without the pairs that it is judged on; the Step Law was published
from these very runs, so nothing is held out for it but our own small runs (`learning_rate_runs.py`), which are one to
four orders of magnitude smaller. Writes benchmarks/results/learning_rate.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import LinearNDInterpolator
from scipy.optimize import minimize

from ragscale.training._rates import CEILING, deepseek, olmo_ladder, step_law

HERE = Path(__file__).parent
Rule = Callable[[float, float], tuple[float, float]]
RULES: dict[str, Rule] = {
    "Step Law": step_law,
    "OLMo ladder": lambda n, d: (2 * olmo_ladder(n, d)[0], olmo_ladder(n, d)[1]),
    "OLMo ladder, half the rate": olmo_ladder,
    "DeepSeek": deepseek,
}
# what is left out of our own fit, and judged
HELD_OUT: dict[str, Callable[[float, float], bool]] = {
    "the largest N (1.07B)": lambda n, d: n > 1e9,
    "the two smallest N (60M, 120M)": lambda n, d: n < 1.5e8,
    "D of 40B and more": lambda n, d: d >= 4e10,
    "D of 2B": lambda n, d: d <= 2e9,
}


class Pair:
    """The runs of one N and D."""

    def __init__(self, n: float, d: float, runs: pd.DataFrame) -> None:
        self.n, self.d, self.runs = n, d, runs
        self.best = float(runs.loss.min())
        self.points = np.log(runs[["learning_rate", "batch_tokens"]].to_numpy(float))
        self.losses = runs.loss.to_numpy(float)
        self.surface = LinearNDInterpolator(self.points, self.losses, rescale=True)

    def regret(self, rate: float, batch: float) -> float:
        """Return how much is lost; outside the grid, at its nearest edge on the way to the best run."""
        at = np.log([rate, batch])
        best = self.points[self.losses.argmin()]
        for t in np.linspace(0, 1, 101):
            value = float(self.surface(at * (1 - t) + best * t)[0])
            if not math.isnan(value):
                return value - self.best
        return 0.0

    def slices(self) -> list[tuple[float, np.ndarray, np.ndarray]]:
        """Return (batch, log rates, losses) where the best rate at a batch lies inside the grid."""
        result = []
        for batch, runs in self.runs.sort_values("learning_rate").groupby("batch_tokens"):
            losses = runs.loss.to_numpy(float)
            if len(losses) >= 4 and 0 < losses.argmin() < len(losses) - 1:
                result.append((float(batch), np.log(runs.learning_rate.to_numpy(float)), losses))  # type: ignore[arg-type]
        return result


def read(path: str) -> list[Pair]:
    table = pd.read_csv(path).rename(
        columns={"lr": "learning_rate", "data_size": "D", "non_embedding_param_size": "N", "lm_loss": "loss"}
    )
    table["batch_tokens"] = 2048 * table.bsz
    return pairs(table)


def pairs(table: pd.DataFrame) -> list[Pair]:
    table = table.groupby(["N", "D", "learning_rate", "batch_tokens"], as_index=False).loss.mean()
    return [Pair(n, d, runs) for (n, d), runs in table.groupby(["N", "D"])]


def own_fit(training: list[Pair]) -> Rule:
    """Return the rule rate = a N^b D^c, batch = e D^f whose mean regret on these pairs is least."""

    def rule(q: np.ndarray) -> Rule:
        return lambda n, d: (
            math.exp(q[0] + q[1] * math.log(n / 1e8) + q[2] * math.log(d / 1e10)),
            math.exp(q[3] + q[4] * math.log(d / 1e10)),
        )

    def regret(q: np.ndarray) -> float:
        made = rule(q)
        return float(np.mean([pair.regret(*made(pair.n, pair.d)) for pair in training]))

    q = np.array([math.log(2e-3), -0.5, 0.2, math.log(3e5), 0.5])
    for _ in range(3):
        q = minimize(regret, q, method="Nelder-Mead", options={"maxiter": 300, "xatol": 1e-3, "fatol": 1e-6}).x
    made = rule(q)
    made.exponents = {"N": q[1], "D": q[2], "batch": q[4]}  # type: ignore[attr-defined]
    return made


def judge(rule: Rule, judged: list[Pair]) -> dict[str, float]:
    regrets = [pair.regret(*rule(pair.n, pair.d)) for pair in judged]
    return {"mean": float(np.mean(regrets)), "worst": float(np.max(regrets))}


def by_batch(judged: list[Pair], below: float, above: float) -> dict[str, float]:
    """Return the mean regret of the Step Law's rate x (B / B*)^exponent where the batch is given."""
    small, large = [], []
    for pair in judged:
        rate, best = step_law(pair.n, pair.d)
        for batch, rates, losses in pair.slices():
            exponent = below if batch < best else above
            value = np.interp(math.log(rate * (batch / best) ** exponent), rates, losses) - losses.min()
            (small if batch < best else large).append(value)
    return {"below": float(np.mean(small)), "above": float(np.mean(large)), "n": len(small) + len(large)}


def small_runs(path: Path) -> list[dict[str, Any]]:
    """Return, for each model and D of our own runs, each rule's rate and what it loses against the best rate there.

    The batch is given; the Step Law's rate is moved to it, and cut at the ceiling, as `default_learning_rate` does.
    """
    rows = []
    table = pd.read_csv(path).sort_values("learning_rate")
    for (model, d, batch), runs in table.groupby(["model", "D", "batch_tokens"]):
        rates, losses = np.log(runs.learning_rate.to_numpy(float)), runs.loss.to_numpy(float)
        if len(runs) < 3:
            continue
        n, core = float(runs.N.iloc[0]), float(runs.N_core.iloc[0])
        row = {"model": model, "D": int(d), "batch": int(batch), "best_rate": float(np.exp(rates[losses.argmin()]))}
        for name, rule in RULES.items():
            rate, best = rule(n if "OLMo" in name else core, float(d))
            if name == "Step Law":
                for cut, word in ((1.0, "Step Law"), (0.5, "Step Law, half the rate")):
                    moved = min(CEILING, cut * rate * math.sqrt(min(1.0, batch / best)))
                    row[word] = float(np.interp(math.log(moved), rates, losses) - losses.min())
                    row[f"{word}: rate"] = moved
            else:
                row[name] = float(np.interp(math.log(rate), rates, losses) - losses.min())
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default=str(HERE.parents[1] / "shared/data/results/scalebench/lr_bsz.csv"))
    parser.add_argument("--small", default=str(HERE / "results" / "learning_rate_runs.csv"))
    options = parser.parse_args()
    every = read(options.runs)
    results: dict[str, Any] = {"runs": sum(len(pair.runs) for pair in every), "pairs": len(every), "held_out": {}}
    lines = ["Mean (worst) loss above the best run, nats:", "", "| held out | pairs | own fit to the rest | "]
    lines[-1] += " | ".join(RULES) + " |"
    lines.append("|" + "---|" * (3 + len(RULES)))
    for name, of in [*HELD_OUT.items(), ("one N at a time", None)]:
        if of is None:
            sizes = sorted({pair.n for pair in every})
            fits = {n: own_fit([pair for pair in every if pair.n != n]) for n in sizes}
            judged = every

            def own(n: float, d: float, fits: dict[float, Rule] = fits) -> tuple[float, float]:
                return fits[n](n, d)
        else:
            judged = [pair for pair in every if of(pair.n, pair.d)]
            own = own_fit([pair for pair in every if not of(pair.n, pair.d)])
        found = {"own fit": judge(own, judged), **{rule: judge(made, judged) for rule, made in RULES.items()}}
        results["held_out"][name] = {"pairs": len(judged), **found}
        cells = " | ".join(f"{value['mean']:.4f} ({value['worst']:.3f})" for value in found.values())
        lines.append(f"| {name} | {len(judged)} | {cells} |")
    results["exponents of the fit to all"] = own_fit(every).exponents  # type: ignore[attr-defined]
    lines += ["", "Mean loss above the best rate where the batch B is given (Step Law's rate x (B / B*)^exponent):", ""]
    lines += ["| exponent | B below B* | B above B* |", "|---|---|---|"]
    results["exponent_of_the_batch"] = {}
    for exponent in (0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0):
        found = by_batch(every, exponent, exponent)
        results["exponent_of_the_batch"][str(exponent)] = found
        lines.append(f"| {exponent} | {found['below']:.4f} | {found['above']:.4f} |")
    if Path(options.small).exists():
        rows = small_runs(Path(options.small))
        results["small_runs"] = rows
        columns = ["Step Law", "Step Law, half the rate", *list(RULES)[1:]]
        lines += ["", "Our own runs on a CPU (the batch given), loss above the best rate:", ""]
        lines += ["| model | D | batch | best rate | " + " | ".join(columns) + " |", "|" + "---|" * (4 + len(columns))]
        for row in rows:
            cells = " | ".join(f"{row[column]:.3f}" for column in columns)
            lines.append(f"| {row['model']} | {row['D']:,} | {row['batch']:,} | {row['best_rate']:g} | {cells} |")
    text = "\n".join(lines) + "\n"
    print(text)
    (HERE / "results" / "learning_rate.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "results" / "learning_rate.md").write_text(text)


if __name__ == "__main__":
    main()
