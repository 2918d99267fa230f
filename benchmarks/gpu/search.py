"""Exact flat search against the plainest torch: a matrix product and topk with everything resident."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from gpu.clock import seconds
from gpu.jobs import Measure
from ragscale.passages import Passage
from ragscale.retrieval import DenseRetriever, Encoder


class Rows(Encoder):
    """A text is the number of a row."""

    def __init__(self, n: int, dim: int) -> None:
        self.n, self.width = n, dim
        vectors = np.random.default_rng(0).standard_normal((n, dim), dtype=np.float32)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    @property
    def dim(self) -> int:
        return self.width

    def _encode(self, texts: Any, kind: Any) -> np.ndarray:
        return self.vectors[np.array(texts, dtype=np.int64)]


def prepare(device: str, tiny: bool) -> Measure:
    n, dim, n_queries, k = (500, 16, 10, 5) if tiny else (200_000, 384, 1000, 10)
    encoder = Rows(n, dim)
    passages = [Passage(str(i), str(i), 100, str(i)) for i in range(n)]
    retrievers = {
        dtype: DenseRetriever(encoder, device=device, device_dtype=dtype).index(passages)
        for dtype in ("float32", "bfloat16")
    }
    texts = [str(i) for i in range(0, n, n // n_queries)][:n_queries]
    queries = encoder.vectors[[int(text) for text in texts]]
    vectors = torch.from_numpy(encoder.vectors).to(device)

    def raw() -> Any:
        found, rows = (torch.from_numpy(queries).to(device) @ vectors.T).topk(k)
        return found.cpu(), rows.cpu()

    ways: dict[str, Any] = {"torch matmul + topk": raw}
    for dtype, retriever in retrievers.items():
        ways[f"DenseRetriever, candidates in {dtype}"] = lambda one=retriever: one.search_vectors(queries, k)
    ways["DenseRetriever, queries as texts"] = lambda: retrievers["float32"].search(texts, k)

    def measure() -> Iterator[dict[str, Any]]:
        torch.set_float32_matmul_precision("highest")
        expected = np.sort(raw()[1].numpy(), 1)
        plain = 0.0
        for name, way in ways.items():
            found = way()
            took = seconds(way, device, rounds=5, times=1 if tiny else 5)
            plain = plain or took
            rows = found.ids if hasattr(found, "ids") else found[0][0] if isinstance(found, list) else found[1].numpy()
            yield {
                "what": name,
                "vectors": n,
                "dim": dim,
                "queries": n_queries,
                "ms": 1e3 * took,
                "queries_per_second": n_queries / took,
                "of_the_raw_rate": plain / took,
                "same_hits_as_raw": float((np.sort(rows, 1) == expected).mean()),
            }

    return measure
