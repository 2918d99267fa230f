"""Where does reading begin, and does it follow batch size times row length? Many tiny models on the invented world.

    python benchmarks/when_models_read.py                     # on a GPU: about five minutes with twelve processes
    python benchmarks/when_models_read.py --tiny --device cpu # two runs, to see that it works

The published law of copying heads (arXiv 2511.16893) says that they form after T sqrt(B C) tokens, B rows a batch, C
tokens a row, whatever the model's size. Here every D has a branch of its own that decays; a model reads from the D on
from which a gold passage beats the gold passage of another question by 0.15 nats per answer token, at that D and at
every larger one. Runs that never do within the range are censored, and counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
READS = 0.15
TOKENS = (100_000, 150_000, 225_000, 330_000, 500_000, 700_000, 1_000_000, 1_500_000)
N_QUESTIONS = 150
STRANGERS = 825  # people that the reading texts of a world of 400 tell about when none are asked for


def plan(seeds: int) -> list[dict[str, Any]]:
    """Return the runs, the most informative first."""
    base = {"rows": 96, "width": 64, "batch": 768, "rate": 0.006, "reading_share": 0.5, "strangers": None, "tied": True}
    runs = [{**base, "batch": b, "seed": s} for s in range(seeds) for b in (768, 1536, 3072, 6144)]
    for seed, batch in itertools.product(range(seeds // 2), (1536, 6144)):
        runs.append({**base, "rows": 192, "batch": batch, "seed": seed})
        runs.append({**base, "width": 128, "batch": batch, "rate": 0.004, "seed": seed})
    runs += [{**base, "batch": 1536, "rate": 0.012, "seed": s} for s in range(seeds)]  # the demo's rule
    runs += [{**base, "batch": 1536, "reading_share": 0.12, "seed": s} for s in range(seeds // 2)]
    runs += [{**base, "batch": 1536, "tied": False, "seed": s} for s in range(seeds // 2)]
    runs += [{**base, "strangers": n, "seed": s} for s in range(seeds // 2) for n in (100, 4_000)]
    return runs


def kind_of(run: dict[str, Any]) -> tuple[float, int | None]:
    """Return what decides the world of a run: the share that teaches reading, and of how many strangers it tells."""
    return run["reading_share"], run.get("strangers")


def world_in(root: Path | str, run: dict[str, Any]) -> Path:
    share, strangers = kind_of(run)
    return Path(root) / f"world-{share:g}-{strangers}"


def make_world(folder: Path, kind: tuple[float, int | None], n_documents: int, n_tokens: int) -> None:
    """Write token ids of the corpus and of the questions with a right and with a wrong passage.

    Documents that tell facts are shorter than those that teach reading, so a world with few of the latter needs more
    documents for ``n_tokens`` than ``n_documents``: it is written again, longer.
    """
    import ragscale as rs

    reading_share, n_strangers = kind
    while True:
        world = rs.datasets.synthetic_corpus(
            n_documents=n_documents,
            n_questions=60,
            reading_share=reading_share,
            n_strangers=n_strangers,
            facts_per_document=3,
            seed=0,
        )
        texts = [document.text for document in world.documents]
        tokenizer = rs.splitting.train_tokenizer(texts[:20_000], 1024)
        end = tokenizer.eos_token_id
        order = np.random.default_rng(0).permutation(len(texts))
        encoded = tokenizer([texts[i] for i in order])["input_ids"]
        ids = np.concatenate([np.asarray([*row, end], np.uint16) for row in encoded])
        if len(ids) >= n_tokens:
            break
        n_documents = int(1.05 * n_documents * n_tokens / len(ids)) + 1
    asked = [q for q in world.questions if len(q["gold_passages"]) == 1][:N_QUESTIONS]
    written = {document.id: document.text for document in world.documents}
    passages = [written[q["gold_passages"][0]] for q in asked]
    wrong = np.roll(np.arange(len(asked)), 17)
    requests = {}
    for name, shown in (("gold", passages), ("random", [passages[i] for i in wrong])):
        requests[name] = [
            (
                tuple(tokenizer(f"{passage}\n\n{question['question']}")["input_ids"]),
                tuple(tokenizer(" " + question["answers"][0])["input_ids"]),
            )
            for passage, question in zip(shown, asked, strict=True)
        ]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "ids.npy", ids)
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "requests.json").write_text(json.dumps(requests))


def one_run(run: dict[str, Any], world: str, out: str, device: str, tokens: tuple[int, ...]) -> dict[str, Any]:
    """Train one model with a branch per D, and measure what a right passage brings over a wrong one."""
    import torch
    from transformers import AutoTokenizer

    import ragscale as rs
    from ragscale.evaluation import ScoreRequest
    from ragscale.evaluation._models import load_language_model

    torch.set_num_threads(1)
    started = time.perf_counter()
    ids = np.load(Path(world) / "ids.npy", mmap_mode="r")
    tokenizer = AutoTokenizer.from_pretrained(Path(world) / "tokenizer")
    requests = json.loads((Path(world) / "requests.json").read_text())
    width = run["width"]
    model = rs.training.ModelConfig.custom(
        n_layers=2, d_model=width, n_heads=max(2, width // 32), d_ff=2 * width, vocab_size=1024, tied=run["tied"]
    )
    config = rs.training.TrainConfig(
        seq_len=run["rows"],
        batch_tokens=run["batch"],
        learning_rate=run["rate"] * (run["batch"] / 768) ** 0.5,
        precision="fp32",
        seed=run["seed"],
        warmup_steps=40,
        allow_short_runs=True,
        save_minutes=1e6,
    )
    checkpoints = rs.train(model, np.asarray(ids), config, tokens=tokens, out=out, device=device, progress=False)
    gains, losses = [], []
    for checkpoint in checkpoints:
        scorer = load_language_model(checkpoint.path, tokenizer=tokenizer, device=device, precision="float32").model
        nll = {}
        for name, pairs in requests.items():
            scores = scorer.score([ScoreRequest(tuple(context), (tuple(answer),)) for context, answer in pairs])
            each = [-s.logprobs[0] / len(answer) for s, (_, answer) in zip(scores, pairs, strict=True)]
            nll[name] = float(np.mean(each))
        gains.append(nll["random"] - nll["gold"])
        losses.append(nll["gold"])
    trained = [checkpoint.n_tokens for checkpoint in checkpoints]
    n = checkpoints[0].n_params
    seconds = time.perf_counter() - started
    return {**run, "N": n, "D": trained, "gain": gains, "gold": losses, "seconds": seconds}


def threshold(row: dict[str, Any]) -> float:
    """Return the D, between two branches by a chord in ln D, from which on every branch reads; infinite if none."""
    reads = np.asarray(row["gain"]) > READS
    if not reads[-1]:
        return float("inf")
    first = len(reads) - int(np.argmin(reads[::-1])) if not reads.all() else 0
    if first == 0:
        return float(row["D"][0])
    x, y = np.log(row["D"][first - 1 : first + 1]), row["gain"][first - 1 : first + 1]
    return float(np.exp(x[0] + (x[1] - x[0]) * np.clip((READS - y[0]) / (y[1] - y[0]), 0, 1)))


def table(runs: list[dict[str, Any]]) -> str:
    """Return a Markdown table: one row per configuration, with the median threshold and how many runs read."""
    import pandas as pd

    frame = pd.DataFrame(runs)
    frame["threshold"] = frame["threshold"].astype(float).fillna(np.inf)
    frame["strangers"] = [run.get("strangers") or STRANGERS for run in runs]
    keys = ["width", "rows", "batch", "rate", "reading_share", "strangers", "tied"]
    names = "width | rows of | batch | rate at 768 | reading share | strangers | tied"
    lines = [f"| {names} | runs that read | D at which they begin, median (range) |"]
    lines.append("|--:|--:|--:|--:|--:|--:|---|--:|---|")
    for key, part in frame.groupby(keys):
        width, rows, batch, rate, share, strangers, tied = key
        each = np.sort(part["threshold"].to_numpy())
        most = max(part["D"].iloc[0])
        middle = float(np.mean(each[[(len(each) - 1) // 2, len(each) // 2]]))
        words = [
            f"{x / 1e6:.2f}M" if np.isfinite(x) else f"beyond {most / 1e6:g}M" for x in (middle, each[0], each[-1])
        ]
        read = f"{int(np.isfinite(each).sum())} of {len(each)}"
        label = "yes" if tied else "no"
        world = f"{share:g} | {strangers:,} | {label}"
        begins = f"{words[0]} ({words[1]} to {words[2]})"
        lines.append(f"| {width} | {rows} | {batch:,} | {rate:g} | {world} | {read} | {begins} |")
    return "\n".join(lines)


def slope(runs: list[dict[str, Any]], width: int, n_resamples: int = 500) -> tuple[float, float, float]:
    """Return d ln D0 / d ln(batch) with its 95 % interval: a lognormal threshold, censored at the largest D.

    The published law says 1/2 (tokens grow with the root of rows x row length); if the number of steps decided it, 1.
    """
    from scipy.optimize import minimize
    from scipy.stats import norm

    rate = 0.006 if width == 64 else 0.004
    names, wanted = ("width", "rows", "rate", "reading_share", "tied"), (width, 96, rate, 0.5, True)
    some = [r for r in runs if tuple(r[name] for name in names) == wanted and not r.get("strangers")]
    x = np.log([r["batch"] / 1536 for r in some])
    y = np.array([np.log(r["threshold"]) if r["threshold"] else np.nan for r in some])
    censored, most = np.isnan(y), np.log(max(some[0]["D"]))

    def fit(rows: np.ndarray) -> float:
        def cost(p: np.ndarray) -> float:
            mean, sd = p[0] + p[1] * x[rows], np.exp(p[2])
            seen = norm.logpdf(np.where(censored[rows], 0, y[rows]), mean, sd)
            return -float(np.where(censored[rows], norm.logsf(most, mean, sd), seen).sum()) + 0.01 * p[2] ** 2

        return float(minimize(cost, [np.log(8e5), 0.5, -0.5], method="Nelder-Mead", options={"maxiter": 2000}).x[1])

    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(x == value) for value in np.unique(x)]
    draws = [fit(np.concatenate([rng.choice(g, len(g)) for g in groups])) for _ in range(n_resamples)]
    return (fit(np.arange(len(some))), *np.quantile(draws, [0.025, 0.975]))


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw the gain of every run against D, one panel per batch, for the base configuration and for width 128."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    standard = [run for run in runs if not run.get("strangers")]
    panels = [(64, 768), (64, 1536), (64, 3072), (64, 6144), (128, 1536), (128, 6144)]
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), sharex=True, sharey=True, layout="constrained")
    for ax, (width, batch) in zip(axes.flat, panels, strict=True):
        some = [
            r for r in standard if (r["width"], r["batch"], r["rows"], r["reading_share"]) == (width, batch, 96, 0.5)
        ]
        for run in [r for r in some if r["tied"] and r["rate"] == (0.006 if width == 64 else 0.004)]:
            ax.plot(run["D"], run["gain"], marker="o", markersize=3, linewidth=1.1)
        ax.axhline(READS, color="0.5", linewidth=0.8, linestyle="--")
        ax.set(xscale="log", title=f"width {width}, {batch:,} tokens a step")
        ax.set_xticks([1e5, 2e5, 5e5, 1e6], ["0.1M", "0.2M", "0.5M", "1M"])
        ax.minorticks_off()
    figure.supxlabel("pretraining tokens D")
    figure.supylabel("gain of the right passage over a wrong one (nats per answer token)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="of the runs")
    parser.add_argument("--most", type=int, default=max(TOKENS), help="largest D")
    parser.add_argument("--keep", action="store_true", help="add to the runs of --out instead of replacing them")
    parser.add_argument("--workers", type=int, default=min(12, os.cpu_count() or 1))
    parser.add_argument(
        "--budget", type=float, default=300, help="seconds; runs that are not done by then are left out"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "when_models_read.json")
    parser.add_argument("--publish", action="store_true", help="print the table and draw the picture of --out")
    options = parser.parse_args()
    if options.publish:
        runs = json.loads(options.out.read_text())["runs"]
        print(table(runs))
        for width in (64, 128):
            value, low, high = slope(runs, width)
            print(f"width {width}: d ln D0 / d ln(batch) = {value:.2f} [{low:.2f}, {high:.2f}]")
        draw(runs, HERE.parent / "docs" / "_static" / "studies" / "when-models-read.png")
        return
    started = time.monotonic()
    runs = [run for run in plan(options.seeds) if all(str(run[name]) == value for name, value in options.only)]
    tokens, documents = tuple(d for d in TOKENS if d <= options.most), 40_000
    if options.tiny:
        runs, tokens, documents = [runs[0], runs[2]], (20_000, 40_000), 3_000
    rows = kept_rows(options.out) if options.keep else []
    with tempfile.TemporaryDirectory() as root:
        for run in {kind_of(run): run for run in runs}.values():
            make_world(world_in(root, run), kind_of(run), documents, max(tokens) + 1)
        print(f"worlds after {time.monotonic() - started:.0f} s", flush=True)
        pool = ProcessPoolExecutor(options.workers if not options.tiny else 1, mp_context=get_context("spawn"))
        jobs = [
            pool.submit(
                one_run,
                run,
                str(world_in(root, run)),
                str(Path(root) / f"run-{i}"),
                options.device,
                tokens,
            )
            for i, run in enumerate(runs)
        ]
        try:
            for job in as_completed(jobs, timeout=max(1.0, options.budget - (time.monotonic() - started))):
                try:
                    row = job.result()
                except Exception as error:  # noqa: BLE001 (one failed run must not cost the others)
                    print(f"failed: {type(error).__name__}: {str(error)[:300]}", flush=True)
                    continue
                rows.append({**row, "threshold": threshold(row)})
                write(options, rows, len(runs))
                shown = {
                    k: row[k] for k in ("rows", "width", "batch", "rate", "reading_share", "strangers", "tied", "seed")
                }
                print(
                    f"{rows[-1]['threshold']:.3g} {shown} {np.round(row['gain'], 2)} {row['seconds']:.0f} s", flush=True
                )
        except TimeoutError:
            print("the time is up", flush=True)
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in workers:
            process.terminate()
    write(options, rows, len(runs))
    print(f"{len(rows)} of {len(runs)} runs in {time.monotonic() - started:.0f} s")


def kept_rows(path: Path) -> list[dict[str, Any]]:
    """Return the runs of a results file."""
    rows = json.loads(path.read_text())["runs"]
    return [{**row, "threshold": float("inf") if row["threshold"] is None else row["threshold"]} for row in rows]


def write(options: argparse.Namespace, rows: list[dict[str, Any]], planned: int) -> None:
    import torch

    device = torch.cuda.get_device_name(0) if options.device.startswith("cuda") else "CPU"
    about = {"device": device, "torch": torch.__version__, "reads_from": READS, "planned": planned}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    finite = [{**r, "threshold": r["threshold"] if np.isfinite(r["threshold"]) else None} for r in rows]
    options.out.write_text(json.dumps({**about, "runs": finite}, indent=1) + "\n")


if __name__ == "__main__":
    main()
