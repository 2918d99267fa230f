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
    retriever = DenseRetriever(encoder, device=device).index(passages)
    queries = [str(i) for i in range(0, n, n // n_queries)][:n_queries]
    vectors = torch.from_numpy(encoder.vectors).to(device)
    asked = vectors[[int(query) for query in queries]]

    def raw() -> Any:
        found, rows = (asked @ vectors.T).topk(k)
        return found.cpu(), rows.cpu()

    def measure() -> Iterator[dict[str, Any]]:
        torch.set_float32_matmul_precision("highest")
        raw()
        ours = retriever.search(queries, k)
        plain = seconds(raw, device, rounds=3, times=1 if tiny else 5)
        took = seconds(lambda: retriever.search(queries, k), device, rounds=3, times=1 if tiny else 3)
        same = float((np.sort(ours.ids, 1) == np.sort(raw()[1].numpy(), 1)).mean())
        for name, cost in {"torch matmul + topk": plain, "DenseRetriever": took}.items():
            yield {
                "what": name,
                "vectors": n,
                "dim": dim,
                "queries": n_queries,
                "ms": 1e3 * cost,
                "queries_per_second": n_queries / cost,
                "of_the_raw_rate": plain / cost,
                "same_hits_as_raw": same,
            }

    return measure
