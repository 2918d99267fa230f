"""The study of docs/studies/ragscale-wiki: five sizes, six D, stores of every size, two seeds, on Wikipedia text.

    python benchmarks/wiki_study.py --data DATA --work WORK [--workers 2]

``DATA`` holds ``corpus/wiki_small.jsonl.zst``, ``qa/``, ``closed/squad_contexts.jsonl.gz`` and
``qa_evidence.jsonl.gz``. Two hours of CPU time; stopped at any moment, the same command goes on. With ``--publish`` it
writes the table that ships as ``ragscale.datasets.load("ragscale-wiki")``, benchmarks/results/wiki_study.json, the
pictures of docs/studies, and a report into ``WORK``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import ragscale as rs
from ragscale._files import atomic_write
from ragscale.fitting import Coverage, Interaction, Log1p, ScalingLaw, coverage_table
from ragscale.results import select
from ragscale.study import Study, StudyConfig
from ragscale.study._report_evidence import gains

HERE = Path(__file__).parent
VOCABULARY = 2048
# the largest first, so that the longest jobs start first; rates from a sweep at D = 500,000
RATES = {"2.5M": 0.004, "1M": 0.006, "0.5M": 0.01, "0.15M": 0.02, "0.05M": 0.03}
D = (250_000, 500_000, 1_000_000, 2_000_000, 3_000_000, 4_000_000)
R = (100_000, 300_000, 600_000, 1_000_000, 1_500_000, 2_500_000)
BUDGETS = (1_500_000, 3_000_000, 5_900_000)
# task -> (file, questions, pool of the documents that hold the evidence: None takes any, "" none in the corpus)
QUESTIONS = {
    "squad": ("squad", 400, None),
    "triviaqa-evidence": ("triviaqa", 200, "evidence"),
    "triviaqa-random": ("triviaqa", 105, "random"),
    "triviaqa-absent": ("triviaqa", 100, ""),
    "sciq": ("sciq", 150, None),
    "piqa": ("piqa", 60, None),
}
CHOICE = ("piqa",)
POOLS = {
    "squad": "squad",
    "triviaqa-evidence": "evidence",
    "triviaqa-random": "random",
    "triviaqa-absent": "none",
    "sciq": "any",
    "piqa": "any",
}
CHECKPOINT = ["N", "D", "seed"]
FIXED = ("oracle", "random")
LAWS = {
    **{name: name for name in ("chinchilla", "log1p", "power", "hill", "rpower", "log_ratio", "multiplicative")},
    "log1p + offset": Log1p(offset=True),
    "interaction": "interaction",
    "interaction(N, D) + offset": Interaction(scale_D=True, offset=True),
    "coverage": Coverage(),
}


def lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def write_questions(data: Path, out: Path) -> list[dict]:
    """Draw the questions of every task, TriviaQA's by the pool of the pages that hold the evidence."""
    pools = {document["id"]: document["pool"] for document in raw_documents(data)}
    evidence = {line["id"]: line.get("evidence_docs", []) for line in lines(data / "qa_evidence.jsonl.gz")}
    tasks = []
    out.mkdir(parents=True, exist_ok=True)
    for number, (task, (file, wanted, pool)) in enumerate(QUESTIONS.items()):
        records = lines(data / "qa" / f"{file}.jsonl.gz")
        if pool is not None:
            found = [sorted({pools[d] for d in evidence.get(r["id"], ()) if d in pools}) for r in records]
            records = [r for r, pool_of in zip(records, found, strict=True) if pool_of == ([pool] if pool else [])]
        chosen = np.random.default_rng([7, number]).permutation(len(records))[:wanted]
        path = out / f"{task}.jsonl"
        path.write_text("".join(json.dumps({**records[row], "task": task}) + "\n" for row in sorted(chosen)))
        tasks.append(
            {"path_or_name": str(path), "name": task, "kind": "multiple_choice" if task in CHOICE else "likelihood"}
        )
    return tasks


def raw_documents(data: Path) -> list[dict]:
    import zstandard

    with zstandard.open(data / "corpus" / "wiki_small.jsonl.zst", "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def configuration(data: Path, work: Path) -> StudyConfig:
    return StudyConfig(
        corpus=[str(data / "corpus" / "wiki_small.jsonl.zst")],
        tokenizer=VOCABULARY,
        models=[{"rung": rung, "training": {"learning_rate": rate}} for rung, rate in RATES.items()],
        D=D,
        R=R,
        budgets=BUDGETS,
        tasks=write_questions(data, work / "questions"),
        gold=[str(data / "closed" / "squad_contexts.jsonl.gz")],
        seeds=(0, 1),
        validation_tokens=100_000,
        passage_tokens=192,
        k=1,
        training={"seq_len": 320, "batch_tokens": 960, "validation_tokens": 100_000},
    )


# What is published ------------------------------------------------------------------------------------------------


def shipped(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that ship with the library: two metrics, six significant digits, random passages once."""
    rows = results[results["metric"].isin(["nll_per_token", "accuracy"])]
    once = rows["condition"].isin(["oracle", "random"]) & rows.duplicated(
        ["task", "metric", "condition", "N", "D", "seed"]
    )
    rows = rows[~once].assign(pool=rows["task"].map(POOLS))
    columns = [
        *("N", "D", "R", "value", "task", "metric", "seed", "condition", "N_total", "stderr", "n_examples", "k"),
        *("hit_rate", "answer_in_store", "pool", "validation_loss"),
    ]
    table = rows[columns].reset_index(drop=True)
    for name in ("value", "stderr", "hit_rate", "answer_in_store", "validation_loss"):
        table[name] = [float(f"{value:.6g}") for value in table[name]]
    for name in ("N", "D", "R", "N_total", "n_examples", "k", "seed"):
        table[name] = table[name].astype(int)
    return table


def of_task(results: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the closed-book and retrieved rows of one task, marked where they lie on a fixed budget."""
    table = select(results, metric="nll_per_token", task=task)
    total = (table["D"] + table["R"]).round()
    return table.assign(budget=total.where(total.isin(BUDGETS) & (table["R"] > 0)))


def held_out(table: pd.DataFrame, parts: pd.DataFrame | None) -> pd.DataFrame:
    """Predict the fixed-budget cells by laws fitted without them, and their gains over the closed book.

    ``parts`` are the closed-book, gold and random cells, from which the coverage law is fitted, without any store.
    """
    held, seen = table[table["budget"].notna()], table[table["budget"].isna()]
    closed = table[table["R"] == 0].set_index(["N", "D", "seed"])["value"]
    keys = pd.MultiIndex.from_frame(held[["N", "D", "seed"]])
    base = closed.reindex(keys).to_numpy()
    gain = base - held["value"].to_numpy()
    rows = []
    for name, law in LAWS.items():
        if name == "coverage":
            if parts is None:
                continue
            fit = rs.fit_manifold(parts, law)
            predicted = fit.predict(held["N"], held["D"], held["R"], hit_rate=held["hit_rate"])
            without = fit.predict(held["N"], held["D"], 0 * held["R"], hit_rate=0 * held["hit_rate"])
        else:
            fit = rs.fit_manifold(seen, law)
            predicted = fit.predict(held["N"], held["D"], held["R"])
            without = fit.predict(held["N"], held["D"], 0 * held["R"])
        off = predicted / held["value"].to_numpy() - 1
        rows.append(
            {
                "law": name,
                "parameters": len(fit.params),
                "cells": len(held),
                "error_percent": 100 * float(np.abs(off).mean()),
                "bias_percent": 100 * float(off.mean()),
                "gain_measured": float(gain.mean()),
                "gain_predicted": float((without - predicted).mean()),
                "gain_rmse": float(np.sqrt(np.mean((without - predicted - gain) ** 2))),
            }
        )
    return pd.DataFrame(rows)


def best_splits(table: pd.DataFrame, law: ScalingLaw) -> pd.DataFrame:
    """Return the best D among those measured on each fixed budget: measured, and by a law that never saw the budget."""
    seen = table[table["budget"].isna()]
    fit = rs.fit_manifold(seen, law)
    rows = []
    for (n, budget), mine in table[table["budget"].notna()].groupby(["N", "budget"]):
        mean = mine.groupby("D")["value"].mean()
        d = mean.index.to_numpy(dtype=float)
        predicted = fit.predict(np.full(d.size, n), d, budget - d)
        chosen = d[np.argmin(predicted)]
        rows.append(
            {
                "N": int(n),
                "budget": int(budget),
                "measured best D": int(mean.idxmin()),
                "predicted best D": int(chosen),
                "regret": float(mean.loc[chosen] - mean.min()),
            }
        )
    return pd.DataFrame(rows)


def samples_of(study: Study, task: str) -> pd.DataFrame:
    """Return the questions of one task, one row for each checkpoint, condition and store."""
    rows = []
    for folder in sorted(path.parent for path in (study.directory / "stages").glob("evaluate-*/done.json")):
        done = json.loads((folder / "done.json").read_text())["inputs"]
        (line,) = {
            (r["N"], r["D"], r["seed"]) for r in map(json.loads, (folder / "results.jsonl").read_text().splitlines())
        }
        for path in (folder / "cells").glob(f"{task}-*.json"):
            for sample in json.loads(path.read_text())["samples"]:
                nll = -sample["logprobs"][0] / sample["n_tokens"][0]
                rows.append((*line, done["model"], sample["id"], sample["condition"], sample["R"], nll, sample["hit"]))
    return pd.DataFrame(rows, columns=["N", "D", "seed", "model", "id", "condition", "R", "nll", "hit"])


def evidence_gains(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the retrieved questions with their gain over the random passage of the same question and checkpoint."""
    keys = [*CHECKPOINT, "id"]
    random = samples[samples["condition"] == "random"].drop_duplicates(keys).set_index(keys)["nll"]
    rows = samples[samples["condition"] == "retrieved"]
    gain = random.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy() - rows["nll"]
    return rows.assign(gain=gain, hit=rows["hit"].astype(bool))


def hits_and_misses(samples: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Return the gains of hits and misses by N and D, and how well they predict the stores of 600,000 tokens and more.

    g_gold is the gold passage's gain over the random one. The miss is taken to be a random passage (gain 0 here), or
    what misses gained with the stores of up to 300,000 tokens of the same checkpoint.
    """
    rows = evidence_gains(samples)
    keys = [*CHECKPOINT, "id"]
    by_hit = rows.groupby(["N", "D", "hit"])["gain"].mean().unstack("hit").reset_index()
    by_hit.columns = ["N", "D", "miss", "hit"]
    fixed = {c: samples[samples["condition"] == c].drop_duplicates(keys).set_index(keys)["nll"] for c in FIXED}
    gold = (fixed["random"] - fixed["oracle"]).groupby(CHECKPOINT).mean()
    missed = rows[(rows["R"] <= 300_000) & ~rows["hit"]].groupby(CHECKPOINT)["gain"].mean()
    cells = rows[rows["R"] >= 600_000].groupby([*CHECKPOINT, "R"]).agg(gain=("gain", "mean"), h=("hit", "mean"))
    cells = cells.reset_index()
    index = pd.MultiIndex.from_frame(cells[CHECKPOINT])
    found = cells["h"] * gold.reindex(index).to_numpy()
    predictions = {
        "a miss is a random passage": found,
        "a miss is a miss of a small store": found + (1 - cells["h"]) * missed.reindex(index).to_numpy(),
    }
    measured = cells["gain"]
    scores = {
        name: {
            "cells": len(cells),
            "measured": float(measured.mean()),
            "sd": float(measured.std()),
            "predicted": float(value.mean()),
            "rmse": float(np.sqrt(((value - measured) ** 2).mean())),
            "correlation": float(value.corr(measured)),
        }
        for name, value in predictions.items()
    }
    return by_hit, scores


def within_effect(
    rows: pd.DataFrame, value: str, treated: str, units: list[str], cells: list[str]
) -> tuple[float, float]:
    """Return the effect of a treatment with fixed effects of units and cells, and its error clustered by article."""
    data = rows[[value, treated]].astype(float)
    groups = [rows.groupby(names).ngroup().to_numpy() for names in (units, cells)]
    for _ in range(500):
        before = data[treated].copy()
        for group in groups:
            data -= data.groupby(group).transform("mean")
        if (data[treated] - before).abs().max() < 1e-9:
            break
    square = float((data[treated] ** 2).sum())
    effect = float((data[treated] * data[value]).sum()) / square
    scores = (data[treated] * (data[value] - effect * data[treated])).groupby(rows["article"].to_numpy()).sum()
    n = len(scores)
    return effect, float(np.sqrt((scores**2).sum() * n / (n - 1))) / square


def memory_and_search(study: Study, samples: pd.DataFrame, questions: Path) -> pd.DataFrame:
    """Compare having trained on a question's article with having the article in the store, by N.

    Trained on it: the closed book's loss, within questions and within checkpoints. In the store: the gain over the
    random passage, within (question, checkpoint) and within (checkpoint, store). The permutation decides both.
    """
    gold = {r["id"]: r["gold_doc_ids"][0] for r in map(json.loads, questions.read_text().splitlines())}
    documents = list(study.split.document_rows())
    tokens = pd.Series({document["id"]: document["n_tokens"] for document in documents})
    ends = tokens.cumsum()
    samples = samples.assign(article=samples["id"].map(gold))
    samples = samples[samples["article"].isin(ends.index)]
    end = samples["article"].map(ends)
    start = end - samples["article"].map(tokens)
    samples = samples.assign(read=end <= samples["D"], stored=start >= study.split.n_tokens - samples["R"])
    found = []
    for n, mine in samples.groupby("N"):
        closed = mine[mine["condition"] == "closed-book"].assign(gain=lambda rows: -rows["nll"])
        retrieved = evidence_gains(mine)
        row: dict = {"N": int(n), "articles": mine["article"].nunique()}
        for least in (0, 2_000_000):
            label = "all D" if not least else "D >= 2M"
            part = closed[closed["D"] >= least]
            read = within_effect(part, "gain", "read", ["id"], CHECKPOINT)
            part = retrieved[retrieved["D"] >= least]
            stored = within_effect(part, "gain", "stored", ["id", *CHECKPOINT], [*CHECKPOINT, "R"])
            row |= {f"trained on it, {label}": read[0], f"its error, {label}": read[1]}
            row |= {f"in the store, {label}": stored[0], f"error in the store, {label}": stored[1]}
        found.append(row)
    return pd.DataFrame(found)


def stage_seconds(study: Study) -> dict[str, float]:
    return study.status().groupby("stage")["seconds"].sum().round(1).to_dict()


def publish(study: Study, work: Path) -> None:
    results = study.results()
    table = shipped(results)
    with atomic_write(HERE.parent / "ragscale/datasets/tables/ragscale-wiki.csv", "w", encoding="utf-8") as file:
        table.to_csv(file, index=False)
    numbers: dict = {
        "device": "2 shared CPU cores, one thread per job",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "ragscale": rs.__version__},
        "config": study.config.digest,
        "split": study.split.digest,
        "T": study.split.n_tokens,
        "rows": len(table),
        "missing": study.missing_cells().to_dict("records"),
        "seconds": stage_seconds(study),
    }
    squad = results[(results["task"] == "squad") & (results["metric"] == "nll_per_token")]
    cells = coverage_table(squad)
    for task in ("squad", "triviaqa-evidence"):
        mine = of_task(results, task)
        parts = cells[cells["evidence"] != "retrieved"].reset_index(drop=True) if task == "squad" else None
        errors = held_out(mine, parts)
        print(f"\n{task}: fixed-budget cells held out of the fit\n{errors.round(4).to_string(index=False)}")
        numbers[f"{task}: held out"] = errors.to_dict("records")
        splits = best_splits(mine, LAWS["interaction(N, D) + offset"])
        print(splits.to_string(index=False))
        numbers[f"{task}: best splits"] = splits.to_dict("records")
    samples = samples_of(study, "squad")
    by_hit, numbers["hits and misses"] = hits_and_misses(samples)
    numbers["gain over a random passage"] = by_hit.to_dict("records")
    print(by_hit.round(4).to_string(index=False), json.dumps(numbers["hits and misses"], indent=1), sep="\n")
    effect = memory_and_search(study, samples, work / "questions" / "squad.jsonl")
    print(effect.round(4).to_string(index=False))
    numbers["memory and search"] = effect.to_dict("records")
    with atomic_write(HERE / "results" / "wiki_study.json", "w", encoding="utf-8") as file:
        json.dump(numbers, file, indent=1)
    pictures(results, HERE.parent / "docs" / "_static" / "studies")
    print(study.report(work / "report.html", task="squad"))


def tick_tokens(ax, tokens) -> None:
    ax.set_xticks(list(tokens), labels=[f"{count / 1e6:g}M" for count in tokens])
    ax.minorticks_off()


def pictures(results: pd.DataFrame, out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    nll = results[results["metric"] == "nll_per_token"]
    colours = dict(rs.plotting.size_colours(nll["N"]))
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4), layout="constrained")
    closed = nll[(nll["task"] == "squad") & (nll["condition"] == "closed-book")]
    for size, colour in colours.items():
        mean = closed[closed["N"] == size].groupby("D")["value"].mean()
        axes[0].plot(mean.index, mean, "o-", color=colour, label=f"{size / 1e6:.2f}M")
    axes[0].set(xscale="log", xlabel="pretraining tokens D", ylabel="nats per answer token", title="SQuAD, closed book")
    axes[0].legend(title="N", fontsize="small")
    found = gains(results, "nll_per_token")
    keys = ["task", *CHECKPOINT]
    random = found[found["condition"] == "random"][[*keys, "gain"]].rename(columns={"gain": "random"})
    found = found.merge(random, on=keys)
    found = found.assign(over_random=found["gain"] - found["random"])
    gold = found[(found["task"] == "squad") & (found["condition"] == "oracle")]
    for size, colour in colours.items():
        each = gold[gold["N"] == size].groupby("D")["over_random"].agg(["mean", "min", "max"])
        axes[1].plot(each.index, each["mean"], "o-", color=colour)
        axes[1].fill_between(each.index, each["min"], each["max"], color=colour, alpha=0.15, lw=0)
    axes[1].axhline(0, color="0.4", lw=1)
    axes[1].set(
        xscale="log",
        xlabel="pretraining tokens D",
        ylabel="gold passage over random passage (nats)",
        title="SQuAD, worth of reading (band: seeds)",
    )
    retrieved = found[(found["condition"] == "retrieved") & (found["D"] >= 2e6)]
    biggest = retrieved.groupby(keys)["R"].transform("max")
    for task, mine in retrieved[retrieved["R"] == biggest].groupby("task"):
        mean = mine.groupby("N")["over_random"].mean()
        axes[2].plot(mean.index, mean, "o-", label=task)
    axes[2].axhline(0, color="0.4", lw=1)
    axes[2].set(
        xscale="log",
        xlabel="N (parameters)",
        ylabel="retrieved over random passage (nats)",
        title="Largest store of each D from 2M",
    )
    axes[2].set_ylim(top=0.22)
    axes[2].legend(fontsize="x-small", ncols=2, loc="upper center")
    for ax in axes[:2]:
        tick_tokens(ax, D)
    figure.savefig(out / "wiki-gains.png", dpi=110)
    plt.close(figure)
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4), layout="constrained")
    table = of_task(results, "squad")
    fit = rs.fit_manifold(table[table["budget"].isna()], "interaction")
    for ax, budget in zip(axes, BUDGETS, strict=True):
        mine = table[table["budget"] == budget]
        for size, colour in colours.items():
            of_size = mine[mine["N"] == size].groupby("D", as_index=False)["value"].mean()
            d = of_size["D"].to_numpy(dtype=float)
            ax.plot(d, of_size["value"], "o", color=colour, label=f"{size / 1e6:.2f}M")
            line = np.geomspace(d.min(), d.max(), 60)
            ax.plot(line, fit.predict(np.full(60, size), line, budget - line), "-", color=colour, lw=1.2)
        ax.set(
            xscale="log", xlabel="pretraining tokens D (the store holds T − D)", title=f"T = {budget / 1e6:g}M tokens"
        )
        tick_tokens(ax, [tokens for tokens in D if tokens < budget])
    axes[0].set_ylabel("nats per answer token")
    axes[0].legend(title="N", fontsize="small")
    figure.savefig(out / "wiki-frontier.png", dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--until", help="stop after this stage")
    parser.add_argument("--publish", action="store_true", help="write the table, the figures and the numbers")
    options = parser.parse_args()
    study = Study(configuration(options.data, options.work), options.work / "study")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
        status = study.run(executor, until=options.until)
    print(status.drop(columns="key").to_string())
    if options.publish:
        publish(study, options.work)


if __name__ == "__main__":
    main()
