"""Dense retrieval against raw faiss in the same run: speed, stores of six sizes, disk, recall.

    OMP_NUM_THREADS=1 python benchmarks/retrieval_dense.py [--passages 50000] [--dim 384]

Writes benchmarks/results/retrieval_dense.json. Vectors are made here: clusters in a space whose spectrum decays, of
length 1. Times are CPU seconds of the process, medians of repeated runs that alternate with the peer; encoding is left
out on both sides.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ragscale import Passage
from ragscale.retrieval import DenseRetriever, Encoder

RESULT = Path(__file__).resolve().parent / "results" / "retrieval_dense.json"
SIX = (1, 2, 5, 10, 15, 20)  # twentieths of the largest store
K = 10


class Known(Encoder):
    """Looks the vector of a text up: the text is its row."""

    vectors = np.zeros((0, 1), np.float32)

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def _encode(self, texts, kind):
        return self.vectors[[int(text) for text in texts]]


def make_vectors(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.arange(1, dim + 1) ** -0.4
    centres = rng.standard_normal((n // 40 + 1, dim)) * spectrum
    vectors = centres[rng.integers(len(centres), size=n)] + 0.7 * rng.standard_normal((n, dim)) * spectrum
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def alternate(calls: dict[str, Callable[[], Any]], repeats: int = 11) -> dict[str, float]:
    """Return the median CPU seconds of each call; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                times[name].append(time.process_time() - start)
    return {name: float(np.median(taken)) for name, taken in times.items()}


def once(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    made = call()
    return made, time.process_time() - start


def n_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.suffix in {".npy", ".faiss"})


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def compare(spec: str, passages: list[Passage], queries: np.ndarray, options: dict[str, Any]) -> dict[str, Any]:
    """Compare one index over all passages with raw faiss, and its six stores with six indexes."""
    vectors = Known.vectors[: len(passages)]

    def raw_index() -> Any:
        index = faiss.index_factory(vectors.shape[1], "Flat" if spec == "flat" else spec, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(options["train"])
            index.nprobe = options["n_probe"]
        index.add(vectors)
        return index

    def ours(n: int) -> DenseRetriever:
        return DenseRetriever(Known(), spec, recall_queries=0, **options).index(passages[:n])

    raw, raw_build = once(raw_index)
    counts = [len(passages) * share // 20 for share in SIX]
    separate = [ours(n) for n in counts[:-1]]
    largest, build = once(lambda: ours(counts[-1]))
    separate.append(largest)
    nested = largest.search_vectors(queries, K, n_passages=counts)
    equal = all(same(nested[i], one.search_vectors(queries, K)[0]) for i, one in enumerate(separate))
    agreement = float((raw.search(queries, K)[1] == nested[-1][0]).mean())
    times = alternate(
        {
            "raw_largest": lambda: raw.search(queries, K),
            "largest": lambda: largest.search_vectors(queries, K),
            "nested": lambda: largest.search_vectors(queries, K, n_passages=counts),
            "six_separate": lambda: [one.search_vectors(queries, K) for one in separate],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        faiss.write_index(raw, str(Path(folder) / "raw.index"))
        raw_disk = (Path(folder) / "raw.index").stat().st_size
        largest.save(Path(folder) / "ours", store_passages=False)
        disk = n_bytes(Path(folder) / "ours")
    return {
        "index": spec,
        "build_cpu_s": build,
        "build_speed_vs_raw_faiss": raw_build / build,
        "queries_per_cpu_s": len(queries) / times["largest"],
        "speed_vs_raw_faiss": times["raw_largest"] / times["largest"],
        "same_rows_as_raw_faiss": agreement,
        "six_sizes_bitwise_equal_to_separate": equal,
        "six_sizes_time_vs_largest_alone": times["nested"] / times["largest"],
        "six_sizes_speed_vs_six_indexes": times["six_separate"] / times["nested"],
        "disk_vs_raw_faiss_largest": disk / raw_disk,
        "cpu_s": times,
    }


def graph_of_all_against_own(queries: np.ndarray, n: int) -> dict[str, float]:
    """Search the smallest of six stores in the graph of the largest, and in one of its own: recall@10."""
    small, vectors = n // 20, Known.vectors[:n]
    truth = faiss.knn(queries, vectors[:small], K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    recall = {}
    for name, held in {"graph of the largest store": vectors, "graph of its own": vectors[:small]}.items():
        graph = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        graph.add(held)
        params = faiss.SearchParametersHNSW(efSearch=64, sel=faiss.IDSelectorRange(0, small))
        found = graph.search(queries, K, params=params)[1]
        recall[name] = float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))
    return recall


def recall_table(passages: list[Passage], queries: list[str], lists: int, train: np.ndarray) -> list[dict[str, Any]]:
    """Measure recall@10, bytes and speed of a few factory strings, at four store sizes."""
    table = []
    sizes = [len(passages) * share // 20 for share in (10, 15, 20)]
    vectors = Known().encode(queries)
    for spec, options in [
        ("SQ8", {}),
        (f"IVF{lists},Flat", {"n_probe": 8}),
        (f"IVF{lists},Flat", {"n_probe": 32}),
        (f"IVF{lists},PQ48", {"n_probe": 32, "depth": None}),
        (f"IVF{lists},PQ48", {"n_probe": 32}),
        (f"IVF{lists},RaBitQ", {"n_probe": 32}),
        ("HNSW32", {"increments": sizes[:-1], "ef_search": 128}),
    ]:
        learned = {} if spec.startswith("HNSW") else {"train": train}
        retriever, build = once(
            lambda s=spec, o={**options, **learned}: DenseRetriever(Known(), s, **o).index(passages)
        )
        recall = {}
        if options.get("depth", 100) is not None:
            recall = retriever.measure_recall(queries, K, store_tokens=sizes)
        else:  # no vectors are kept to compare with: count against the flat index
            exact = DenseRetriever(Known()).index(passages)
            for n in sizes:
                truth = exact.search_vectors(vectors, K, n_passages=[n])[0][0]
                found = retriever.search_vectors(vectors, K, n_passages=[n])[0][0]
                recall[n] = float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))
        times = alternate({"search": lambda r=retriever: r.search_vectors(vectors, K)}, repeats=3)
        row = {
            "index": spec,
            **options,
            "build_cpu_s": round(build, 1),
            "megabytes": round(retriever.describe()["bytes"] / 1e6, 1),
            "recall_at_10": {str(n): round(value, 4) for n, value in recall.items()},
            "queries_per_cpu_s": round(len(queries) / times["search"]),
        }
        print(row, flush=True)
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    n = arguments.passages
    rng = np.random.default_rng(0)
    Known.vectors = make_vectors(n + arguments.queries, arguments.dim, rng)
    passages = [Passage(str(i), str(i), 1, str(i)) for i in range(n)]
    queries = [str(n + i) for i in range(arguments.queries)]
    lists = 2 ** round(np.log2(2 * np.sqrt(n)))
    train = Known.vectors[rng.choice(n, min(n, 64 * lists), replace=False)]
    result: dict[str, Any] = {
        "machine": "2 shared CPU cores",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("faiss-cpu", "numpy")},
        "threads": faiss.omp_get_max_threads(),
        "passages": n,
        "dim": arguments.dim,
        "queries": len(queries),
        "compared": [],
    }
    vectors = Known().encode(queries)
    for spec, options in [("flat", {}), (f"IVF{lists},Flat", {"n_probe": 32, "train": train})]:
        row = compare(spec, passages, vectors, options)
        print(json.dumps(row, indent=1), flush=True)
        result["compared"].append(row)
    result["hnsw_recall_at_smallest_store"] = graph_of_all_against_own(vectors, n)
    print(result["hnsw_recall_at_smallest_store"], flush=True)
    result["recall"] = recall_table(passages, queries, lists, train)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
