"""Does one learning rate serve every width? The best rate against the width, with `transfer="wd-mup"` and without.

    python benchmarks/width_transfer.py --corpus wiki_small.jsonl.zst       # widths 64 to 512, 40 CPU minutes
    python benchmarks/width_transfer.py --report                            # the tables from the runs there are

Two blocks, heads of 32, a vocabulary of 1,024, everything else alike; rates are those of the smallest width. For every
width, way and seed the rate is halved or doubled, from the best one of the smallest width, until the best has a worse
neighbour on both sides. The optimum is the vertex of the parabola through these three, in the logarithm; its drift is
the factor by which it moves from the smallest width to another. Stopped at any moment, the same command goes on; after
``--minutes`` no further run begins. Writes benchmarks/results/width_transfer.json and .md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import training_ladder

import ragscale as rs
from ragscale.training import Checkpoint, ModelConfig, TrainConfig, check_transfer

HERE = Path(__file__).parent
WAYS = {False: "one rate and decay for all widths", True: "transfer='wd-mup'"}
FIRST_RATE = 0.064
MOST_STEPS = 6  # of the search for the best rate, in each direction
Losses = dict[float, float]


class Runs:
    """Runs by (width, rate, transfer, seed), kept in a file; those that are in it are not run again."""

    def __init__(self, work: Path, options: argparse.Namespace) -> None:
        self.work, self.options = work, options
        self.path = work / "runs.jsonl"
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["width"], row["rate"], row["transfer"], row["seed"]] = row

    def loss(self, width: int, rate: float, transfer: bool, seed: int) -> float:
        """Return the validation loss, and train for it if need be."""
        key = width, rate, transfer and width != self.options.widths[0], seed  # at the first width both ways are one
        if key not in self.rows:
            if time.process_time() > 60 * self.options.minutes:
                raise TimeoutError
            self.rows[key] = self._train(*key)
            with self.path.open("a") as file:
                file.write(json.dumps(self.rows[key]) + "\n")
            print(json.dumps(self.rows[key]), flush=True)
        return self.rows[key]["loss"]

    def _train(self, width: int, rate: float, transfer: bool, seed: int) -> dict[str, Any]:
        options, start = self.options, time.process_time()
        head = min(32, options.widths[0] // 2)
        model = ModelConfig.custom(
            n_layers=2,
            d_model=width,
            n_heads=width // head,
            d_ff=2 * width,
            vocab_size=options.vocabulary,
            max_seq_len=128,
        )
        moved: dict[str, Any] = {"transfer": "wd-mup", "base_width": options.widths[0]} if transfer else {}
        config = TrainConfig(
            seq_len=128,
            batch_tokens=options.batch,
            learning_rate=rate,
            weight_decay=options.decay,
            allow_short_runs=True,
            validation_tokens=options.validation_tokens,
            log_every=100,
            seed=seed,
            **moved,
        )
        folder = self.work / f"{width}-{rate:g}-{transfer}-{seed}"
        split = rs.Split.load(self.work / "split")
        [made] = rs.train(
            model, split, config, tokens=options.tokens, out=folder, device=options.device, progress=False
        )
        return {
            "width": width,
            "rate": rate,
            "transfer": transfer,
            "seed": seed,
            "loss": made.validation_loss,
            "N": made.n_params,
            "skipped_steps": made.skipped_steps,
            "cpu_seconds": round(time.process_time() - start, 1),
            "path": str(made.path),
        }


def search(loss: Callable[[float], float], first: float) -> Losses:
    """Halve or double a rate until the best one tried has a worse neighbour on both sides; return all losses."""
    found: Losses = {first: loss(first)}
    for factor in (0.5, 2.0):
        rate = first
        if found[first] > min(found.values()):
            break  # lower rates were better
        for _ in range(MOST_STEPS):
            rate *= factor
            found[rate] = loss(rate)
            if found[rate] > min(found.values()):
                break
    return found


def optimum(losses: Losses) -> float:
    """Return the vertex of the parabola through the best rate and its neighbours, NaN where a neighbour is missing."""
    best = min(losses, key=losses.__getitem__)
    around = [best / 2, best, best * 2]
    if not all(rate in losses for rate in around):
        return float("nan")
    a, b, _ = np.polyfit(np.log(around), [losses[rate] for rate in around], 2)
    return float(np.exp(-b / (2 * a)))


def groups(options: argparse.Namespace) -> Iterable[tuple[int, int, bool]]:
    """Yield (seed, width, transfer): two seeds of the cheaper widths first, then the widest, then more seeds."""
    cheap = options.widths[: max(2, len(options.widths) - 1)]
    wide = options.widths[len(cheap) :]
    order = [(seed, cheap) for seed in range(min(2, options.seeds))]
    order += [(seed, wide) for seed in range(min(1, options.seeds))]
    order += [(seed, cheap) for seed in range(2, options.seeds)] + [(seed, wide) for seed in range(1, options.seeds)]
    for seed, widths in order:
        for width in widths:
            yield from ((seed, width, transfer) for transfer in WAYS if width != options.widths[0] or not transfer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="JSON Lines (.gz or .zst too) with id and text")
    parser.add_argument("--work", default="/tmp/ragscale-widths", help="where the split and the runs go")
    parser.add_argument("--widths", nargs="*", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=204_800)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--validation-tokens", type=int, default=50_000)
    parser.add_argument("--minutes", type=float, default=40, help="CPU minutes after which no run begins")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--report", action="store_true", help="train nothing more")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    options.widths.sort()
    torch.set_num_threads(1)
    work = Path(options.work)
    if not options.report:
        training_ladder.VOCABULARY = options.vocabulary
        training_ladder.make_split(options.corpus, work / "split")
        runs = Runs(work, options)
        try:
            train_all(runs, options)
        except TimeoutError:
            print(f"{options.minutes} minutes are over; the same command goes on")
    report(pd.DataFrame(Runs(work, options).rows.values()), options)


def train_all(runs: Runs, options: argparse.Namespace) -> None:
    first: dict[int, float] = {}
    for seed, width, transfer in groups(options):
        start = first.get(seed, FIRST_RATE)
        found = search(lambda rate, w=width, t=transfer, s=seed: runs.loss(w, rate, t, s), start)
        if width == options.widths[0]:
            first[seed] = min(found, key=found.__getitem__)


def losses_of(table: pd.DataFrame, width: int, transfer: bool, seed: int, base: int) -> Losses:
    mine = table[(table.width == width) & (table.seed == seed) & (table.transfer == (transfer and width != base))]
    return dict(zip(mine.rate.tolist(), mine.loss.tolist(), strict=True))


def report(table: pd.DataFrame, options: argparse.Namespace) -> None:
    base = int(table.width.min())
    widths = [int(width) for width in sorted(table.width.unique())]
    setting = (
        f"D = {options.tokens:,} tokens in {options.tokens // options.batch} steps, weight decay {options.decay} at "
        f"width {base}, two blocks, vocabulary {options.vocabulary:,}, {options.device}; {len(table)} runs, "
        f"{table.cpu_seconds.sum() / 60:.0f} CPU minutes. Rates are those of width {base}."
    )
    lines = [setting]
    results: dict[str, Any] = {"D": options.tokens, "batch_tokens": options.batch, "decay": options.decay}
    results |= {"base_width": base, "vocabulary": options.vocabulary, "ways": {}}
    for transfer, word in WAYS.items():
        rows = [row for width in widths if (row := _row(table, width, transfer, base))["seeds"]]
        lines += ["", f"## {word}", "", "| width | best rate, by seed | drift, by seed | best loss | lost at the rate"]
        lines[-1] += f" of width {base} |"
        lines.append("|" + "---|" * 5)
        for row in rows:
            cells = [", ".join(f"{value:.3g}" for value in row[name]) for name in ("best_rate", "drift")]
            cells += [", ".join(f"{value:.4f}" for value in row[name]) for name in ("best_loss", "lost")]
            lines.append(f"| {row['width']} | " + " | ".join(cells) + " |")
        slope = _spectra(table, transfer, base)
        results["ways"][word] = {"widths": rows, "slopes_of_top_singular_values": slope}
        if slope:
            words = ", ".join(f"{kind} {value:+.2f}" for kind, value in slope.items())
            lines += ["", f"Top singular values grow with the width to the power of: {words}."]
    results["runs"] = table.drop(columns="path").to_dict("records")
    text = "\n".join(lines) + "\n"
    print(text)
    (options.out / "width_transfer.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "width_transfer.md").write_text(text)


def _row(table: pd.DataFrame, width: int, transfer: bool, base: int) -> dict[str, Any]:
    """Return the optimum of one width by seed, its drift, and what the rate of the smallest width loses there."""
    row: dict[str, Any] = {"width": width, "seeds": [], "best_rate": [], "drift": [], "best_loss": [], "lost": []}
    for seed in sorted(table.seed.unique().tolist()):
        small, mine = (losses_of(table, w, transfer, seed, base) for w in (base, width))
        if not small or not np.isfinite(best := optimum(mine) if mine else np.nan):
            continue
        kept = min(small, key=small.__getitem__)
        row["seeds"].append(seed)
        row["best_rate"].append(best)
        row["drift"].append(best / optimum(small))
        row["best_loss"].append(min(mine.values()))
        row["lost"].append(mine[kept] - min(mine.values()))
    return row


def _spectra(table: pd.DataFrame, transfer: bool, base: int) -> dict[str, float]:
    """Return how top singular values grow with the width at one rate, the best of the smallest width, first seed."""
    small = losses_of(table, base, transfer, 0, base)
    kept = min(small, key=small.__getitem__)
    mine = table[(table.seed == 0) & (table.rate == kept) & ((table.width == base) | (table.transfer == transfer))]
    found = [Checkpoint.load(path) for path in mine.path if Path(path).is_dir()]
    return check_transfer(found)["slope"].to_dict() if len(found) > 1 else {}


if __name__ == "__main__":
    main()
