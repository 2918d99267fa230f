"""One round of retrieval against several on multi-hop questions: recall of all gold passages.

    python benchmarks/iterative_retrieval.py ../shared/data/closed

HotpotQA and MuSiQue, 100 questions each over their own passages (994 and 1,890). ``recall`` is the mean share of the
gold passages of a question among the first k, ``all`` the share of questions whose gold passages are all there. The
defaults of `IterativeRetriever` were chosen on these sets: expect less elsewhere. `examples/graph_retriever.py` has the
entity graph.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import ragscale as rs
from ragscale import Passage
from ragscale.retrieval import BM25Retriever, IterativeRetriever, Retriever

HERE = Path(__file__).resolve().parent
DEPTHS = (2, 5, 10, 20)


def records(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def graph_retriever() -> Retriever:
    """Return the retriever of the gallery's example, which first runs its own comparison."""
    spec = importlib.util.spec_from_file_location("graph_retriever", HERE.parent / "examples" / "graph_retriever.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["graph_retriever"] = module
    spec.loader.exec_module(module)
    return module.GraphRetriever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    rows = []
    for name in ("hotpotqa", "musique"):
        store = [
            Passage(d["id"], f"{d['title']}. {d['text']}", max(len(d["text"].split()), 1), d["id"])
            for d in records(options.data / f"{name}_train100_corpus.jsonl.gz")
        ]
        asked = records(options.data / f"{name}_train100_qa.jsonl.gz")
        gold = [set(question["gold_passages"]) for question in asked]
        ways = {
            "BM25, one round": BM25Retriever(),
            "BM25, two rounds": IterativeRetriever(BM25Retriever()),
            "BM25, three rounds": IterativeRetriever(BM25Retriever(), n_iterations=3),
            "entity graph": graph_retriever(),
        }
        for way, retriever in ways.items():
            start = time.process_time()
            hits = retriever.index(store).search([question["question"] for question in asked], k=max(DEPTHS))
            row: dict[str, Any] = {"set": name, "way": way, "cpu_s": round(time.process_time() - start, 2)}
            for k in DEPTHS:
                found = [{p.id for p in hits.top(k).take(store, i)} for i in range(len(asked))]
                row[f"recall@{k}"] = round(
                    float(np.mean([len(f & g) / len(g) for f, g in zip(found, gold, strict=True)])), 3
                )
                row[f"all@{k}"] = round(float(np.mean([g <= f for f, g in zip(found, gold, strict=True)])), 3)
            rows.append(row)
            print(row, flush=True)
    text = json.dumps({"python": sys.version.split()[0], "ragscale": rs.__version__, "rows": rows}, indent=1)
    (HERE / "results" / "iterative_retrieval.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
