"""Does one learning rate serve every width? The best rate against the width, with `transfer="wd-mup"` and without.

    python benchmarks/width_transfer.py --corpus wiki_small.jsonl.zst                     # widths 64 to 512
    python benchmarks/width_transfer.py --corpus wiki_small.jsonl.zst --widths 16 32 64 --tokens 200000 --batch 512 \\
        --rates 0.01 0.02 0.04 0.08 0.16 0.32                                             # minutes on a CPU

Two blocks, heads of 32 (16 below a width of 64), everything else alike; a rate is that of width 64 (of the smallest, if
that is less). The optimum is the vertex of a parabola through the best rate and its neighbours, in the logarithm; its
drift is the factor by which it moves from the smallest width to the largest. Stopped at any moment, the same command
goes on. Writes benchmarks/results/width_transfer.json and .md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from training_ladder import VOCABULARY, make_split

import ragscale as rs
from ragscale.training import Checkpoint, ModelConfig, TrainConfig, check_transfer

HERE = Path(__file__).parent
RATES = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)


def one_run(  # noqa: PLR0917
    split: str, out: Path, width: int, rate: float, transfer: bool, base: int, options: Any
) -> dict[str, Any]:
    torch.set_num_threads(1)
    head = 32 if base >= 64 else 16
    model = ModelConfig.custom(
        n_layers=2, d_model=width, n_heads=width // head, d_ff=2 * width, vocab_size=VOCABULARY, max_seq_len=128
    )
    moved: dict[str, Any] = {"transfer": "wd-mup", "base_width": base} if transfer else {}
    config = TrainConfig(
        seq_len=128,
        batch_tokens=options.batch,
        learning_rate=rate,
        weight_decay=options.decay,
        allow_short_runs=True,
        validation_tokens=100_000,
        log_every=50,
        **moved,
    )
    folder = out / f"{width}-{rate:g}-{transfer}"
    [made] = rs.train(
        model, rs.Split.load(split), config, tokens=options.tokens, out=folder, device=options.device, progress=False
    )
    return {
        "width": width,
        "rate": rate,
        "transfer": transfer,
        "loss": made.validation_loss,
        "skipped_steps": made.skipped_steps,
        "path": str(made.path),
    }


def optimum(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return the vertex of the parabola through the best point and its neighbours; at an edge, that edge."""
    best = int(losses.argmin())
    if best in (0, len(rates) - 1):
        return float(rates[best])
    x, y = np.log(rates[best - 1 : best + 2]), losses[best - 1 : best + 2]
    a, b, _ = np.polyfit(x, y, 2)
    return float(np.exp(-b / (2 * a)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, help="JSON Lines (.gz or .zst too) with id and text")
    parser.add_argument("--work", default="/tmp/ragscale-widths", help="where the split and the runs go")
    parser.add_argument("--widths", nargs="*", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--rates", nargs="*", type=float, default=RATES)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    work = Path(options.work)
    make_split(options.corpus, work / "split")
    base = min(64, *options.widths)
    runs = list(itertools.product(sorted(options.widths), options.rates, (False, True)))
    # at the base width both ways are one
    runs = [(width, rate, transfer) for width, rate, transfer in runs if width != base or not transfer]
    arguments = [(str(work / "split"), work / f"D{options.tokens}", *run, base, options) for run in runs]
    if options.workers > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
            rows = list(pool.map(one_run, *zip(*arguments, strict=True)))
    else:
        rows = [one_run(*one) for one in arguments]
    report(pd.DataFrame(rows), base, options)


def report(table: pd.DataFrame, base: int, options: Any) -> None:
    table = pd.concat([table, table[table.width == base].assign(transfer=True)])
    lines = [
        f"D = {options.tokens:,} tokens, weight decay {options.decay} at width {base}, one seed, {options.device}."
    ]
    results: dict[str, Any] = {
        "D": options.tokens,
        "batch_tokens": options.batch,
        "decay": options.decay,
        "base_width": base,
        "ways": {},
    }
    for transfer, word in ((False, "one rate and decay for all widths"), (True, "transfer='wd-mup'")):
        mine = table[table.transfer == transfer]
        wide = mine.pivot_table(index="width", columns="rate", values="loss")
        best = {
            int(width): optimum(wide.columns.to_numpy(float), row.to_numpy(float)) for width, row in wide.iterrows()
        }  # type: ignore[arg-type]
        widths = list(best)
        # what is lost where every width takes the best rate of the smallest
        lost = {
            width: float(
                np.interp(np.log(best[widths[0]]), np.log(wide.columns), wide.loc[width]) - wide.loc[width].min()
            )
            for width in widths
        }
        nearest = min(wide.columns, key=lambda rate: abs(np.log(rate / best[widths[0]])))
        spectra = check_transfer([Checkpoint.load(p) for p in mine[mine.rate == nearest].path])
        results["ways"][word] = {
            "losses": {int(w): {float(r): float(v) for r, v in row.items()} for w, row in wide.iterrows()},  # type: ignore[arg-type]
            "best_rate": best,
            "drift": best[widths[-1]] / best[widths[0]],
            "lost_at_the_smallest_widths_rate": lost,
            "slopes_of_top_singular_values": spectra["slope"].to_dict(),
        }
        lines += ["", f"## {word}", "", "| width | " + " | ".join(f"{rate:g}" for rate in wide.columns)]
        lines[-1] += " | best rate | lost at the smallest width's |"
        lines.append("|" + "---|" * (len(wide.columns) + 3))
        for width in widths:
            cells = " | ".join(f"{value:.4f}" for value in wide.loc[width])
            lines.append(f"| {width} | {cells} | {best[width]:.4g} | {lost[width]:.4f} |")
        slopes = ", ".join(f"{kind} {slope:+.2f}" for kind, slope in spectra["slope"].items())
        lines += ["", f"The best rate moves by a factor of {best[widths[-1]] / best[widths[0]]:.2f}."]
        lines += [f"Top singular values grow with the width to the power of: {slopes}."]
    text = "\n".join(lines) + "\n"
    print(text)
    (HERE / "results" / "width_transfer.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "results" / "width_transfer.md").write_text(text)


if __name__ == "__main__":
    main()
