"""The study of docs/studies/ragscale-gpu: five sizes, six D, stores to 48M tokens, five tasks, three budgets, one GPU.

    python benchmarks/gpu_study.py --data DATA --work WORK     # the study itself; under ten minutes on an H200
    python benchmarks/gpu_study.py --publish                   # pictures and tables of the page, from the shipped table
    python benchmarks/gpu_study.py --samples samples.parquet   # what hits and misses gain, from one row per question

``DATA`` holds ``corpus/wiki_*.jsonl.zst``, ``qa/`` and ``closed/squad_contexts.jsonl.gz``. Stopped at any moment, the
first command goes on where it was; it writes ``WORK/results.csv``. The second writes docs/_static/studies/gpu-*.png and
benchmarks/results/gpu_study.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd

import ragscale as rs

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parent / "docs" / "_static" / "studies"
TASKS = {"squad": "SQuAD", "triviaqa": "TriviaQA", "nq": "NQ", "sciq": "SciQ", "popqa": "PopQA"}
BUDGETS = (16_000_000, 32_000_000, 52_000_000)
D = (4_000_000, 8_000_000, 16_000_000, 24_000_000, 32_000_000, 44_000_000)
R = (1_000_000, 4_000_000, 16_000_000, 32_000_000)
CORPUS = ("wiki_small", "wiki_medium-01", "wiki_medium-02", "wiki_medium-03", "wiki_longtail")
QUESTIONS = {"squad": 600, "triviaqa": 400, "nq_open": 300, "sciq": 250, "popqa": 250}
# name -> (layers, width, heads, inner width, rate, tokens a step)
MODELS = {
    "4M": (4, 192, 3, 768, 0.005, 8_192),
    "6M": (4, 256, 4, 1024, 0.0045, 8_192),
    "11M": (5, 320, 5, 1280, 0.004, 8_192),
    "23M": (6, 448, 7, 1792, 0.003, 8_192),
    "38M": (8, 512, 8, 2048, 0.003, 16_384),
}


# The study -----------------------------------------------------------------------------------------------------------


def tasks(data: Path, work: Path) -> list[rs.evaluation.Task]:
    """Draw the questions of every task and write them under ``work``."""
    drawn = []
    work.mkdir(parents=True, exist_ok=True)
    for number, (name, wanted) in enumerate(QUESTIONS.items()):
        with gzip.open(data / "qa" / f"{name}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
            lines = file.readlines()
        chosen = sorted(np.random.default_rng([11, number]).permutation(len(lines))[:wanted])
        path = work / f"{name}.jsonl"
        path.write_text("".join(lines[row] for row in chosen), encoding="utf-8")
        drawn.append(rs.evaluation.load_task(path, kind="likelihood", name=name.removesuffix("_open")))
    return drawn


def configuration(data: Path, work: Path) -> rs.study.StudyConfig:
    """Return the study, of objects; the tokenizer is trained on the first file alone and kept under ``work``."""
    corpus = [data / "corpus" / f"{name}.jsonl.zst" for name in CORPUS]
    tokenizer = work / "tokenizer"
    if not tokenizer.exists():
        first = rs.splitting.read_jsonl(corpus[0])
        rs.splitting.train_tokenizer(first, vocab_size=8192).save_pretrained(tokenizer)
    models = [
        {
            "name": name,
            "n_layers": layers,
            "d_model": width,
            "n_heads": heads,
            "d_ff": inner,
            "tied": True,
            "training": {"learning_rate": rate, "batch_tokens": batch},
        }
        for name, (layers, width, heads, inner, rate, batch) in reversed(MODELS.items())
    ]
    return rs.study.StudyConfig(
        corpus=corpus,
        tokenizer=str(tokenizer),
        models=models,
        D=D,
        R=R,
        budgets=BUDGETS,
        tasks=tasks(data, work / "questions"),
        gold=[str(data / "closed" / "squad_contexts.jsonl.gz")],
        validation_tokens=500_000,
        retriever=rs.retrieval.BM25Retriever(),
        passage_tokens=192,
        k=1,
        training=rs.training.TrainConfig(seq_len=512),
    )


def tiny() -> rs.study.StudyConfig:
    """Return a study of the same kind that a CPU finishes in seconds, on an invented corpus."""
    return rs.study.StudyConfig(
        corpus={"synthetic": {"n_documents": 500, "n_questions": 4}},
        tokenizer=300,
        models=[{"n_layers": 1, "d_model": 16, "n_heads": 1, "d_ff": 32, "tied": True}],
        D=(4_000, 8_000),
        R=(2_000,),
        budgets=(12_000,),
        retriever=rs.retrieval.BM25Retriever(),
        passage_tokens=32,
        k=1,
        training=rs.training.TrainConfig(seq_len=64, batch_tokens=512, allow_short_runs=True),
    )


def run(config: rs.study.StudyConfig, work: Path, workers: int) -> None:
    """Run the study and write its results table."""
    study = rs.study.Study(config, work / "study")
    with rs.study.executors.processes(workers) as executor:
        print(study.run(executor).drop(columns="key").to_string())
    study.results().to_csv(work / "results.csv", index=False)


# What is published ---------------------------------------------------------------------------------------------------


def of_task(table: pd.DataFrame, task: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of a task that lie on no fixed budget, and those that do, with their budget."""
    rows = table[table["task"] == task].reset_index(drop=True)
    total = rows["D"] + rows["R"]
    held = (rows["condition"] == "retrieved") & total.isin(BUDGETS)
    return rows[~held].reset_index(drop=True), rows[held].assign(budget=total[held])


def best_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Return the best measured split of every task, budget and size, and how much it is ahead of the largest D."""
    rows = []
    for task in TASKS:
        for (budget, n), cells in of_task(table, task)[1].groupby(["budget", "N"]):
            best, corner = cells.loc[cells["value"].idxmin()], cells.loc[cells["D"].idxmax()]
            rows.append(
                {
                    "task": task,
                    "T": int(budget),
                    "N": int(n),
                    "D": int(best["D"]),
                    "R": int(best["R"]),
                    "inside": bool(best["D"] < corner["D"]),
                    "ahead_of_largest_D": float(corner["value"] - best["value"]),
                }
            )
    return pd.DataFrame(rows)


def over_closed_book(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return what gold, random and the largest store's passages gain over the closed book, by N and D."""
    rows = table[table["task"] == task]
    closed = rows[rows["condition"] == "closed-book"].set_index(["N", "D"])["value"]
    found = {}
    for condition, name in (("oracle", "gold"), ("random", "random"), ("retrieved", "retrieved")):
        shown = rows[rows["condition"] == condition].sort_values("R").groupby(["N", "D"])["value"].last()
        found[name] = closed - shown
    return pd.DataFrame(found).reset_index()


def hits_and_misses(samples: pd.DataFrame) -> pd.DataFrame:
    """Return what hits and misses gain over the random passage of the same question and model, within questions.

    Only pairs of question and model count that some stores answered with a hit and others with a miss, so that both
    columns are means over the same pairs; errors are over questions. ``samples`` has N, D, task, id, condition, R, hit
    and the answer's summed ``nll`` over ``n_tokens``.
    """
    samples = samples.assign(task=samples["task"].astype(str), id=samples["id"].astype(str))
    samples = samples.assign(value=samples["nll"].astype(float) / samples["n_tokens"])
    pair = ["task", "N", "D", "id"]
    random = samples[samples["condition"] == "random"].drop_duplicates(pair).set_index(pair)["value"]
    shown = samples[(samples["condition"] == "retrieved") & (samples["hit"] >= 0)]
    gain = random.reindex(pd.MultiIndex.from_frame(shown[pair])).to_numpy() - shown["value"]
    both = shown.assign(gain=gain).groupby([*pair, "hit"])["gain"].mean().unstack("hit").dropna().reset_index()
    both.columns = [*pair, "miss", "hit"]
    rows = []
    for (task, d), mine in both.groupby(["task", "D"]):
        questions = mine.groupby("id")[["miss", "hit"]].mean()
        row = {"task": task, "D": int(d), "pairs": len(mine), "questions": len(questions)}
        for name in ("hit", "miss"):
            row |= {name: float(mine[name].mean()), f"{name}_error": float(questions[name].sem())}
        rows.append(row)
    return pd.DataFrame(rows)


def tokens_on(ax, values) -> None:
    ax.set_xscale("log")
    ax.set_xticks(list(values), labels=[f"{value / 1e6:g}M" for value in values])
    ax.minorticks_off()


def threshold_picture(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw what passages gain over the closed book on SQuAD against D, one colour for each size."""
    from matplotlib import pyplot as plt

    gains = over_closed_book(table, "squad")
    titles = {"gold": "gold passage", "retrieved": "retrieved, largest store", "random": "random passage"}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.9), layout="constrained", sharey=True)
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for size, colour in rs.plotting.size_colours(gains["N"]):
            mine = gains[gains["N"] == size]
            ax.plot(mine["D"], mine[name], "o-", color=colour, ms=4, label=f"{size / 1e6:.3g}M")
        ax.axhline(0, color="0.5", lw=1)
        ax.set(title=title, xlabel="pretraining tokens D")
        tokens_on(ax, D)
    axes[0].set_ylabel("gain over the closed book\n(nats per answer token)")
    axes[-1].legend(title="N", fontsize="small")
    figure.suptitle("SQuAD: reading begins between 8M and 16M tokens")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return gains


def budget_picture(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Draw measured losses on the budgets and the lines of the law of reading, fitted without these cells."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 6.6), layout="constrained")
    rows = []
    for line, task in zip(axes, ("squad", "triviaqa"), strict=True):
        seen, held = of_task(table, task)
        # h(R) is measured without a model, so all stores may say it
        curve = rs.results.hit_rate_curve(table[table["task"] == task])
        fit = rs.fit_manifold(seen, "reading", hit_rate=curve)
        for ax, budget in zip(line, BUDGETS, strict=True):
            cells = held[held["budget"] == budget]
            for size, colour in rs.plotting.size_colours(table["N"]):
                mine = cells[cells["N"] == size].sort_values("D")
                d = np.geomspace(mine["D"].min(), mine["D"].max(), 80)
                predicted = np.asarray(fit.predict(np.full(80, size), d, budget - d))
                ax.plot(mine["D"], mine["value"], "o", color=colour, ms=5, label=f"{size / 1e6:.3g}M")
                ax.plot(d, predicted, "-", color=colour, lw=1.2)
                best = mine.loc[mine["value"].idxmin()]
                ax.plot(best["D"], best["value"], "o", ms=11, mfc="none", mec=colour, mew=1.4)
                lowest = float(d[predicted.argmin()])
                rows.append({"task": task, "T": budget, "N": int(size), "D": int(best["D"]), "line": lowest})
            tokens_on(ax, sorted(set(cells["D"])))
            ax.set(title=f"{TASKS[task]}, T = {budget / 1e6:g}M tokens")
            if task == "triviaqa":
                ax.set_xlabel("pretraining tokens D (the store holds T − D)")
        line[0].set_ylabel("nats per answer token")
    axes[0, 0].legend(title="N", fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return pd.DataFrame(rows)


def publish() -> None:
    """Draw the pictures, print the tables of the page, and keep their numbers."""
    import matplotlib as mpl

    mpl.use("Agg")
    table = rs.datasets.load("ragscale-gpu")
    PICTURES.mkdir(parents=True, exist_ok=True)
    splits = best_splits(table)
    gains = threshold_picture(table, PICTURES / "gpu-threshold.png")
    lines = budget_picture(table, PICTURES / "gpu-budgets.png")
    every = {task: over_closed_book(table, task) for task in TASKS}
    print(gains.round(3).to_string(index=False), splits.round(3).to_string(index=False), sep="\n\n")
    print(lines.to_string(index=False))
    for task, found in every.items():
        last = found[found["D"] == max(D)].assign(over_random=lambda rows: rows["retrieved"] - rows["random"])
        print(f"\n{task}, D = 44M\n{last.round(3).to_string(index=False)}")
    found = {
        "best splits": splits.to_dict("records"),
        "gains on SQuAD": gains.to_dict("records"),
        "minimum of the law's line": lines.to_dict("records"),
    }
    keep(found)


def keep(found: dict) -> None:
    """Add numbers to the file of results."""
    path = HERE / "results" / "gpu_study.json"
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(there | found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a toy of the study on a CPU; needs --work alone")
    parser.add_argument("--samples", type=Path, help="one row per question and cell, Parquet")
    parser.add_argument("--workers", type=int, default=6, help="processes that share the GPU")
    parser.add_argument("--publish", action="store_true", help="draw and print the page from the shipped table")
    given = parser.parse_args()
    if given.data is None and given.samples is None and not given.publish and not given.tiny:
        parser.error("give --data and --work to run the study, or --tiny --work, --publish or --samples")
    if given.data is not None or given.tiny:
        if given.work is None:
            parser.error("--data and --tiny need --work, a folder for what the study makes")
        run(tiny() if given.tiny else configuration(given.data, given.work), given.work, given.workers)
    if given.publish:
        publish()
    if given.samples is not None:
        gains = hits_and_misses(pd.read_parquet(given.samples))
        print(gains.round(3).to_string(index=False))
        keep({"hits and misses": gains.to_dict("records")})


if __name__ == "__main__":
    main()
