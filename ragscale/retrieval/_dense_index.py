"""faiss indexes other than flat: built so that a prefix of the passages can be searched as if it stood alone.

- Inverted lists ("ivf"): passages are assigned to lists by the exact nearest centroid and stored in store order, so
  a run of passages is a run of each list. One choice of lists per query then serves every store.
- Codes without lists ("codes"): one code per passage in store order; a run of passages is a run of codes.
- Graphs and the rest ("graph"): the edges depend on every passage; they do not nest.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ragscale._files import atomic_write
from ragscale.errors import CheckpointError, ConfigError
from ragscale.retrieval._dense_exact import (
    FlatPart,
    Floats,
    Part,
    Rows,
    Scores,
    best_of_parts,
    error_bound,
    load_faiss,
    rescore,
)

_BLOCK = 8192


class FaissIndex:
    """One faiss index over consecutive passages, made from a factory string.

    Parameters
    ----------
    spec : str
        A faiss factory string.
    dim : int
        Length of a vector.
    metric : {"inner_product", "l2"}
        How vectors are compared.
    """

    def __init__(self, spec: str, dim: int, metric: str) -> None:
        faiss = load_faiss()
        self.spec, self.dim, self.metric = spec, dim, metric
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        try:
            self._set(faiss.index_factory(dim, spec, kind))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].rpartition("Error: ")[2]
            raise ConfigError(f"faiss cannot make index={spec!r} for {dim} dimensions: {reason}") from error

    def _set(self, index: Any) -> None:
        faiss = load_faiss()
        self.index, self.inner, self.transforms = index, index, []
        if isinstance(index, faiss.IndexPreTransform):
            self.transforms = [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
            self.inner = faiss.downcast_index(index.index)
        if isinstance(self.inner, faiss.IndexIDMap | faiss.IndexRefine):
            raise ConfigError(
                f"index={self.spec!r}: leave out IDMap and RFlat/Refine; rows are kept here, and depth= rescores "
                "candidates with the vectors themselves"
            )
        fast_scan = isinstance(self.inner, faiss.IndexIVFFastScan)
        self.kind: Literal["ivf", "codes", "graph"] = (
            "ivf"
            if isinstance(self.inner, faiss.IndexIVF) and not fast_scan
            else "codes"
            if isinstance(self.inner, faiss.IndexFlatCodes)
            else "graph"
        )
        searched = (faiss.IndexHNSW, faiss.IndexFastScan, faiss.IndexIVFFastScan)
        if self.kind == "graph" and not isinstance(self.inner, searched):
            raise ConfigError(
                f"index={self.spec!r} gives a {type(self.inner).__name__}, which cannot be used here: take inverted "
                "lists (IVF...), codes (PQ..., SQ..., RaBitQ), fast-scan codes (...fs) or HNSW..."
            )
        plain = {faiss.IndexIVFFlat, faiss.IndexHNSWFlat}
        self.holds_vectors = not self.transforms and type(self.inner) in plain
        self.is_trained = bool(index.is_trained)
        if hasattr(self.inner, "do_polysemous_training"):
            self.inner.do_polysemous_training = False  # minutes of annealing for a search that is not used here
        self._sub: dict[tuple[int, int], Any] = {}

    @property
    def train_size(self) -> int:
        """How many vectors the index learns from by default: 64 per list, and 64 per word of a codebook of 256."""
        lists = 64 * self.inner.nlist if self.kind == "ivf" or hasattr(self.inner, "nlist") else 0
        return max(lists, 0 if self.holds_vectors else 64 * 256)

    def build(self, vectors: Floats, train: Floats | None, *, n_threads: int = 1) -> None:
        """Learn what there is to learn from ``train``, then add the vectors in their order."""
        faiss = load_faiss()
        if not self.is_trained:
            assert train is not None
            n_lists = int(getattr(self.inner, "nlist", 0))
            if len(train) < max(1, n_lists):
                raise ConfigError(
                    f"index={self.spec!r} learns {n_lists} lists and cannot be trained on {len(train)} vectors: give "
                    f"train= or train_size= of at least {n_lists} ({self.train_size:,} by default), or fewer lists"
                )
            try:
                self.index.train(np.ascontiguousarray(train))
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1]
                raise ConfigError(f"index={self.spec!r} cannot be trained on {len(train)} vectors: {reason}") from error
        if self.kind == "ivf":
            for start in range(0, len(vectors), _BLOCK):
                block = self._transformed(vectors[start : start + _BLOCK])
                lists = np.ascontiguousarray(self._lists(block, 1)[0][:, 0])
                self.inner.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(lists))
            if self.transforms:
                self.index.ntotal = self.inner.ntotal
        elif self.kind == "codes":
            for start in range(0, len(vectors), _BLOCK):
                self.inner.add(self._transformed(vectors[start : start + _BLOCK]))
        else:
            with _threads(n_threads):
                self.index.add(np.ascontiguousarray(vectors))
        self._after()

    def _after(self) -> None:
        if self.kind == "ivf" and self.holds_vectors:
            self.inner.make_direct_map()

    def _transformed(self, vectors: Floats) -> Floats:
        """Apply the transforms one vector at a time: a product of matrices rounds by the shape of the batch."""
        vectors = np.ascontiguousarray(vectors)
        for transform in self.transforms:
            vectors = np.concatenate([transform.apply(row[None]) for row in vectors])
        return vectors

    @functools.cached_property
    def _centroids(self) -> Floats:
        return self.inner.quantizer.reconstruct_n(0, self.inner.nlist)

    def _lists(self, vectors: Floats, n: int) -> tuple[Rows, Scores]:
        """Return the n nearest lists of each vector and their scores, exactly (or by the quantiser's own graph)."""
        faiss = load_faiss()
        quantizer = faiss.downcast_index(self.inner.quantizer)
        if not isinstance(quantizer, faiss.IndexFlat):
            distances, lists = quantizer.search(vectors, n)
            return lists, -distances if self.metric == "l2" else distances
        longest = float(np.sqrt(np.square(self._centroids.astype(np.float64)).sum(axis=1)).max())
        return best_of_parts(
            [FlatPart(vectors, self._centroids, 0, self.metric)],
            len(vectors),
            n,
            score=lambda which, rows, _: rescore(vectors[which], rows, lambda r: self._centroids[r], self.metric),
            slack=error_bound(vectors, longest, self.metric),
            margin=7,
        )[0]

    def fetch(self, rows: Rows) -> Floats:
        """Return the vectors of rows, where the index holds them as they are."""
        return self.inner.reconstruct_batch(np.ascontiguousarray(rows))

    def parts(self, queries: Floats, counts: list[int], *, first: int, n_probe: int, ef: int, depth: int) -> list[Part]:
        """Return the runs between counts as parts of one search; rows of this index begin at ``first``."""
        if self.kind == "graph":
            return [_GraphPart(self, queries, first, max(ef, depth), depth)]
        queries = self._transformed(queries)
        edges = list(zip([0, *counts[:-1]], counts, strict=True))
        if self.kind == "ivf":
            lists, scores = self._lists(queries, min(n_probe, self.inner.nlist))
            distances = -scores if self.metric == "l2" else scores
            return [_ListsPart(self, queries, (lists, distances), edge) for edge in edges]
        kept, self._sub = self._sub, {}
        for edge in edges:
            self._sub[edge] = kept[edge] if edge in kept else self._run_of_codes(*edge)
        return [_CodesPart(self, queries, self._sub[edge], edge[0]) for edge in edges]

    def _run_of_codes(self, start: int, stop: int) -> Any:
        if (start, stop) == (0, self.inner.ntotal):
            return self.inner
        faiss = load_faiss()
        run = faiss.clone_index(self.inner)
        codes = faiss.vector_to_array(run.codes).reshape(self.inner.ntotal, -1)[start:stop].copy()
        run.reset()
        run.add_sa_codes(codes)
        return run

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        faiss = load_faiss()
        if self.kind == "ivf" and self.holds_vectors:
            self.inner.set_direct_map_type(faiss.DirectMap.NoMap)
        try:
            with atomic_write(path) as file:
                faiss.write_index(self.index, faiss.PyCallbackIOWriter(file.write))
        finally:
            self._after()

    @classmethod
    def load(cls, path: Path, spec: str, metric: str, *, memory_map: bool) -> FaissIndex:
        """Read what `save` wrote; memory-mapped, only the pages that are searched are read."""
        faiss = load_faiss()
        self = cls.__new__(cls)
        try:
            index = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC if memory_map else 0)
            if isinstance(
                index, faiss.IndexFlatCodes | faiss.IndexPreTransform
            ):  # mapped codes cannot be cut into runs
                index = faiss.read_index(os.fspath(path))
        except RuntimeError as error:
            raise CheckpointError(f"{path} cannot be read by faiss {faiss.__version__}: {error}") from error
        self.spec, self.dim, self.metric = spec, index.d, metric
        self._set(index)
        self._after()
        return self


class _ListsPart:
    """A run of passages in inverted lists that were chosen beforehand."""

    def __init__(self, owner: FaissIndex, queries: Floats, lists: tuple[Rows, Floats], run: tuple[int, int]) -> None:
        self.owner, self.queries = owner, queries
        self.lists, self.distances = lists
        self.start, self.stop = run

    def top(self, which: Rows, m: int) -> tuple[Rows, Scores]:
        faiss = load_faiss()
        m = min(m, self.stop - self.start)
        options = {"nprobe": self.lists.shape[1]}
        if (self.start, self.stop) != (0, self.owner.inner.ntotal):
            options["sel"] = faiss.IDSelectorRange(self.start, self.stop, True)
        queries, lists, coarse = (one[which] for one in (self.queries, self.lists, self.distances))
        distances, rows = np.empty((len(which), m), np.float32), np.empty((len(which), m), np.int64)
        arrays = [faiss.swig_ptr(one) for one in (lists, coarse, distances, rows)]
        params = faiss.SearchParametersIVF(**options)
        self.owner.inner.search_preassigned_c(len(which), faiss.swig_ptr(queries), m, *arrays, False, params)
        return rows, _as_scores(distances, rows, self.owner.metric)


class _CodesPart:
    """A run of codes, scanned one by one."""

    def __init__(self, owner: FaissIndex, queries: Floats, run: Any, start: int) -> None:
        self.owner, self.queries, self.run, self.start = owner, queries, run, start

    def top(self, which: Rows, m: int) -> tuple[Rows, Scores]:
        faiss = load_faiss()
        m = min(m, self.run.ntotal)
        queries = self.queries[which]
        # These two multiply matrices, and a product of matrices rounds by the shape of the batch.
        by_batch = isinstance(self.run, faiss.IndexFlat) or (
            isinstance(self.run, faiss.IndexPQ) and self.run.pq.dsub >= 16
        )
        found = [self.run.search(batch, m) for batch in (np.split(queries, len(queries)) if by_batch else [queries])]
        distances, rows = (np.concatenate(pieces) for pieces in zip(*found, strict=True))
        return np.where(rows < 0, -1, rows + self.start), _as_scores(distances, rows, self.owner.metric)


class _GraphPart:
    """Whatever one graph finds: a fixed number of candidates, taken as they come."""

    def __init__(self, owner: FaissIndex, queries: Floats, first: int, ef: int, depth: int) -> None:
        self.owner, self.queries, self.first, self.ef, self.depth = owner, queries, first, ef, depth

    def top(self, which: Rows, m: int) -> tuple[Rows, Scores]:
        faiss = load_faiss()
        is_hnsw = isinstance(self.owner.index, faiss.IndexHNSW)
        params = faiss.SearchParametersHNSW(efSearch=self.ef) if is_hnsw else None
        depth = min(self.depth, m - 1, self.owner.index.ntotal)
        distances, rows = self.owner.index.search(self.queries[which], depth, params=params)
        return np.where(rows < 0, -1, rows + self.first), _as_scores(distances, rows, self.owner.metric)


def _as_scores(distances: Floats, rows: Rows, metric: str) -> Scores:
    scores = -distances if metric == "l2" else distances
    return np.where(rows < 0, np.float32(-np.inf), scores)


@contextmanager
def _threads(n: int) -> Generator[None]:
    """Let faiss use n threads for a while: with one, a graph is the same in every run."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
