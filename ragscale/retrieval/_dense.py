"""Dense retrieval: passages and queries as vectors, exact by default, with stores of every size from one index."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragscale._counts import as_counts, whole_or_zero
from ragscale._files import atomic_write, read_json, write_json
from ragscale.errors import CheckpointError, ConfigError
from ragscale.passages import Passage
from ragscale.retrieval._base import Retriever
from ragscale.retrieval._dense_exact import (
    FlatPart,
    Floats,
    Part,
    Rows,
    Scores,
    best_of_parts,
    error_bound,
    load_faiss,
    ordered,
    rescore,
)
from ragscale.retrieval._dense_gpu import DeviceVectors, torch_device
from ragscale.retrieval._dense_index import FaissIndex
from ragscale.retrieval._embeddings import embed, embed_queries, warn_about_truncation
from ragscale.retrieval._encoder import Encoder, Truncation, unit_length

Metric = Literal["inner_product", "cosine", "l2"]
Answer = tuple[Rows, Scores]

_SCHEMA, _VERSION = "ragscale.dense", 1
_QUERY_BLOCK = 1024
_FETCH_BLOCK = 1 << 16


class DenseRetriever(Retriever):
    """Find passages by the similarity of vectors, with faiss.

    A score is the inner product (or minus the squared distance) of the stored vectors, summed in float64 and rounded
    once to float32; equal scores stand in store order. It does not depend on the batch, on k, on the store's size or
    on the device, and the flat index proves for every query that it missed nothing.

    Parameters
    ----------
    encoder : Encoder
        Turns texts into vectors. One that is not fitted (`LsaEncoder`) is fitted on all indexed passages.
    index : str
        ``"flat"`` compares every vector; any other faiss factory string approximates, e.g. ``"IVF1024,Flat"``,
        ``"IVF1024,PQ48"``, ``"SQ8"``, ``"HNSW32"``.
    metric : {"inner_product", "cosine", "l2"}
        How vectors are compared; ``"cosine"`` scales them to length 1 first.
    depth : int or None
        Candidates of a compressed index or graph that are rescored with the vectors themselves; the most hits it can
        give. None keeps no vectors: smaller by far, and scores are those of the codes.
    n_probe : int
        Inverted lists visited per query.
    ef_search : int
        Width of the search in a graph; at least ``depth``.
    train : sequence of str, sequence of Passage or ndarray, optional
        What lists and codebooks are learned from: texts, or vectors of shape (n, dim). By default the first
        ``train_size`` passages; smaller stores are then searched exactly, since an index over them alone could not
        have learned the same. Not stored with the index.
    train_size : int, optional
        By default 64 passages per list, and 16,384 for codebooks.
    increments : sequence of int
        For graphs, which do not nest: store sizes in tokens at which a new graph begins. Stores of these sizes can
        then be searched.
    cache : path, optional
        Directory that keeps embeddings, so that encoding resumes and is shared between indexes.
    block_size : int
        Passages per block of the cache.
    device : str
        Where the flat search runs: ``"cpu"`` (faiss) or a torch device such as ``"cuda"`` (the same results, bit for
        bit; needs no faiss).
    device_share : float
        Share of the device's free memory for vectors that stay there from search to search; what does not fit is
        copied block by block for every search.
    device_dtype : {"float32", "bfloat16"}
        In what vectors propose candidates on the device; the scores are the same. bfloat16 takes half the memory, and
        asks for more candidates.
    recall_queries : int
        Queries that measure the recall of an approximate index against the exact search; 0 measures nothing.
    build_threads : int
        Threads that build a graph. More than one is faster, and gives another graph in every run.
    memory_map : bool
        Map a saved index into memory instead of reading it.

    Examples
    --------
    >>> from ragscale.retrieval import LsaEncoder
    >>> texts = ["cats purr", "kittens and cats purr", "ships sail", "boats and ships sail"]
    >>> store = [Passage(str(i), text, 3, str(i)) for i, text in enumerate(texts)]
    >>> retriever = DenseRetriever(LsaEncoder(2)).index(store)
    >>> retriever.search("a ship or ships", k=2).ids
    array([[2, 3]])
    >>> {R: hits.ids.tolist() for R, hits in retriever.search("ships", k=2, store_tokens=[6, 12]).items()}
    {6: [[0, 1]], 12: [[2, 3]]}
    """

    def __init__(
        self,
        encoder: Encoder,
        index: str = "flat",
        *,
        metric: Metric = "inner_product",
        depth: int | None = 100,
        n_probe: int = 32,
        ef_search: int = 128,
        train: str | Sequence[str] | Sequence[Passage] | np.ndarray | None = None,
        train_size: int | None = None,
        increments: Sequence[int] = (),
        cache: str | os.PathLike[str] | None = None,
        block_size: int = 4096,
        device: str = "cpu",
        device_share: float = 0.5,
        device_dtype: Literal["float32", "bfloat16"] = "float32",
        recall_queries: int = 64,
        build_threads: int = 1,
        memory_map: bool = True,
    ) -> None:
        problems = [] if isinstance(encoder, Encoder) else [f"encoder must be an Encoder, got {encoder!r}"]
        if metric not in {"inner_product", "cosine", "l2"}:
            problems.append(f"metric must be 'inner_product', 'cosine' or 'l2', got {metric!r}")
        least = {"depth": depth, "n_probe": n_probe, "ef_search": ef_search, "train_size": train_size}
        least |= {"block_size": block_size, "build_threads": build_threads}
        problems += [
            f"{name} must be at least 1, got {n!r}"
            for name, n in least.items()
            if n is not None and (isinstance(n, float) or whole_or_zero(n) < 1)
        ]
        if not isinstance(index, str):
            raise ConfigError(f"index must be 'flat' or a faiss factory string, got {index!r}")
        if device != "cpu" and index.lower() != "flat":
            problems.append(
                f"device={device!r} searches index='flat' only, got index={index!r}: approximate indexes run on the "
                "CPU (faiss's GPU indexes do not serve stores of several sizes), so leave out device"
            )
        if not 0 <= device_share <= 1:
            problems.append(f"device_share must be from 0 to 1, got {device_share}")
        if device_dtype not in {"float32", "bfloat16"}:
            problems.append(f"device_dtype must be 'float32' or 'bfloat16', got {device_dtype!r}")
        if problems:
            raise ConfigError("; ".join(problems))
        self.encoder, self.spec, self.metric, self.depth = encoder, index, metric, depth
        self.n_probe, self.ef_search, self.train, self.train_size = n_probe, ef_search, train, train_size
        self.increments, self.cache = tuple(as_counts("increments", increments)), cache
        self.block_size, self.device = block_size, device
        self.device_share, self.device_dtype = device_share, device_dtype
        self.recall_queries, self.build_threads, self.memory_map = recall_queries, build_threads, memory_map
        self._on_device: DeviceVectors | None = None
        self._compare = "l2" if metric == "l2" else "inner_product"

    # Indexing

    def _index(self, passages: Sequence[Passage]) -> None:
        if self.device == "cpu":
            load_faiss()
        else:
            torch_device(self.device)  # known before the passages are encoded
        texts = Texts(passages)
        self._encoder = self.encoder.fitted(texts)
        vectors, self._truncation = embed(
            self._encoder,
            texts,
            cache=self.cache,
            block_size=self.block_size,
            track=lambda starts: self._track(starts, what="encode"),
        )
        warn_about_truncation(self._truncation, "passages")
        self._state = self._encoder.state()
        self._build(self._prepared(vectors))

    def _require_same_encoder(self) -> None:
        if self._encoder.state() != self._state:
            raise ConfigError(
                f"the weights of this {type(self._encoder).__name__} have changed since the passages were encoded: "
                "queries and passages no longer belong together; index again"
            )

    def _prepared(self, vectors: Floats) -> Floats:
        return unit_length(vectors) if self.metric == "cosine" else np.ascontiguousarray(vectors, dtype=np.float32)

    def _build(self, vectors: Floats) -> None:
        """Build what is searched from the vectors, in store order."""
        self._longest, self._on_device = _longest(vectors), None
        self._graphs: list[tuple[int, FaissIndex]] = []
        self._vectors: Floats | None = vectors
        self._n_train, self._recall = 0, {}
        self._is_flat = self.spec.lower() == "flat"
        self._measured_at: set[int] = set()
        if self._is_flat:
            return
        index = FaissIndex(self.spec, vectors.shape[1], self._compare)
        self._check_index(index)
        train = None
        if not index.is_trained:
            if self.train is not None:
                train = self._train_vectors()
            else:
                self._n_train = self.train_size or index.train_size
                train = vectors[: self._n_train]
                if len(vectors) < self._n_train:
                    self._is_flat = True
                    return
        edges = [0, *self._boundaries(len(vectors)), len(vectors)] if index.kind == "graph" else [0, len(vectors)]
        for start, stop in itertools.pairwise(edges):
            one = index if start == 0 else FaissIndex(self.spec, vectors.shape[1], self._compare)
            one.build(vectors[start:stop], train, n_threads=self.build_threads)
            self._graphs.append((start, one))
        if self.recall_queries:
            chosen = np.linspace(0, len(vectors) - 1, min(self.recall_queries, len(vectors))).astype(np.int64)
            self._measure(vectors[chosen], [len(vectors)], "indexed passages", 10)
        if self.depth is None or (index.holds_vectors and len(self._graphs) == 1):
            self._vectors = None

    def _check_index(self, index: FaissIndex) -> None:
        if index.kind == "graph" and self.depth is None:
            raise ConfigError(f"index={self.spec!r} is a graph, whose results depend on how many are asked: give depth")
        if self.increments and index.kind != "graph":
            raise ConfigError(f"index={self.spec!r} serves stores of every size as it is: leave out increments")

    def _boundaries(self, n: int) -> list[int]:
        counts = {self.n_passages_in_store(size) for size in self.increments}
        return sorted(count for count in counts if 0 < count < n)

    def _train_vectors(self) -> Floats:
        if isinstance(self.train, np.ndarray):
            vectors = self.train
        else:
            given = [self.train] if isinstance(self.train, str) else self.train or ()
            texts = [one.text if isinstance(one, Passage) else one for one in given]
            vectors, _ = embed(self._encoder, texts, cache=self.cache, block_size=self.block_size)
        if vectors.ndim != 2 or vectors.shape[1] != self._encoder.dim:
            raise ConfigError(f"train must be texts or vectors (n, {self._encoder.dim}), got shape {vectors.shape}")
        return self._prepared(vectors)

    # Searching

    def _search(self, queries: Sequence[str], k: int) -> Answer:
        return self._search_nested(queries, k, [self.n_passages])[0]

    def _search_nested(self, queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]) -> list[Answer]:
        counts = list(n_passages_per_store)
        self._require_same_encoder()
        vectors = self._prepared(embed_queries(self._encoder, queries))
        answers = self._search_vectors(vectors, k, counts)
        if self.recall_queries and not self._is_flat:
            new = [n for n in counts if n not in self._measured_at and n != self.n_passages]
            self._measure(vectors[: self.recall_queries], new, "queries of the first search", 10)
        return answers

    def search_vectors(
        self, vectors: ArrayLike, k: int = 10, *, n_passages: Sequence[int] | None = None
    ) -> list[Answer]:
        """Search with vectors instead of texts, shape (n_queries, dim); one (rows, scores) per store.

        Parameters
        ----------
        vectors : array_like, shape (n_queries, dim)
            Encoded queries.
        k : int
            Hits per query.
        n_passages : sequence of int, optional
            Increasing sizes of the stores, in passages; all passages by default.
        """
        n = self.n_passages
        counts = [n] if n_passages is None else list(n_passages)
        if counts != sorted(set(counts)) or not counts or counts[0] < 1 or counts[-1] > n:
            raise ConfigError(f"n_passages must increase from at least 1 to at most {n}, got {counts}")
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self._encoder.dim:
            raise ConfigError(f"vectors must have shape (n_queries, {self._encoder.dim}), got {vectors.shape}")
        return self._search_vectors(self._prepared(vectors), min(k, n), counts)

    def _search_vectors(self, vectors: Floats, k: int, counts: list[int]) -> list[Answer]:
        found: list[list[Answer]] = [[] for _ in counts]
        starts = range(0, len(vectors), _QUERY_BLOCK)
        for start in self._track(starts, what="search", total=len(starts)):
            block = vectors[start : start + _QUERY_BLOCK]
            for store, answer in zip(found, self._search_block(block, k, counts), strict=True):
                store.append(answer)
        empty = (np.zeros((0, k), np.int64), np.zeros((0, k), np.float32))
        return [
            (np.concatenate([rows for rows, _ in store]), np.concatenate([scores for _, scores in store]))
            if store
            else empty
            for store in found
        ]

    def _search_block(self, queries: Floats, k: int, counts: list[int]) -> list[Answer]:
        if self._is_flat:
            return self._exact(queries, k, counts)
        small = [n for n in counts if n < self._n_train]
        large = counts[len(small) :]
        answers = self._exact(queries, k, small) if small else []
        return answers + self._approximate(queries, k, large) if large else answers

    def _exact(self, queries: Floats, k: int, counts: list[int]) -> list[Answer]:
        """Compare every vector of each store: by increments, each scanned once."""
        if self.device != "cpu" and self._vectors is not None:
            is_zero = self._is_zero(queries)
            answers = self._device_vectors().search(queries, k, counts, is_open=~is_zero)
            return [_first_rows(is_zero, n, answer) for n, answer in zip(counts, answers, strict=True)]
        parts: list[Part] = [self._flat_part(queries, start, stop) for start, stop in _runs(counts)]
        answers = best_of_parts(
            parts,
            len(queries),
            k,
            score=lambda which, rows, _: rescore(queries[which], rows, self._fetch(), self._compare),
            slack=np.where(self._is_zero(queries), -np.inf, error_bound(queries, self._longest, self._compare)),
        )
        return [_first_rows(self._is_zero(queries), n, answer) for n, answer in zip(counts, answers, strict=True)]

    def _is_zero(self, queries: Floats) -> NDArray[np.bool_]:
        """Return which queries score 0 with every passage: no text that the encoder knows, under an inner product."""
        return np.logical_not(queries.any(axis=1)) & (self._compare != "l2")

    def _flat_part(self, queries: Floats, start: int, stop: int) -> Part:
        held = self._vectors
        vectors = self._fetch()(np.arange(start, stop)) if held is None else held[start:stop]
        return FlatPart(queries, vectors, start, self._compare)

    def _device_vectors(self) -> DeviceVectors:
        """Return the vectors on the device, copied there by the first search."""
        if self._on_device is None:
            assert self._vectors is not None
            self._on_device = DeviceVectors(
                self._vectors,
                self._longest,
                metric=self._compare,
                device=self.device,
                dtype=self.device_dtype,
                share=self.device_share,
            )
        return self._on_device

    def _fetch(self) -> Callable[[Rows], Floats]:
        if self._vectors is not None:
            held = self._vectors
            return lambda rows: held[rows]
        if self._graphs and self._graphs[0][1].holds_vectors:
            return self._graphs[0][1].fetch
        raise ConfigError(
            f"this index (index={self.spec!r}, depth=None) keeps no vectors: it cannot search a store below the "
            f"{self._n_train} passages it learned from, nor measure recall; set depth, or give train"
        )

    def _approximate(self, queries: Floats, k: int, counts: list[int]) -> list[Answer]:
        """Let faiss propose candidates for each store, and order them by the scores that count."""
        index = self._graphs[0][1]
        if index.kind == "graph":
            counts_of_parts = [start for start, _ in self._graphs[1:]] + [self.n_passages]
            self._require_boundaries(counts, counts_of_parts)
        else:
            counts_of_parts = counts
        depth = min(self.depth or k, self.n_passages)
        exact_within = index.kind == "ivf" and index.holds_vectors
        if self.depth is not None and not exact_within and k > depth:
            raise ConfigError(f"k={k} is more than the {depth} candidates this index rescores: set depth={k} or more")
        options = {"n_probe": self.n_probe, "ef": self.ef_search, "depth": depth}
        parts = [
            part for start, one in self._graphs for part in one.parts(queries, counts_of_parts, first=start, **options)
        ]
        if exact_within:
            slack = error_bound(queries, self._longest, self._compare)
            fetch = self._fetch()
            return best_of_parts(
                parts,
                len(queries),
                k,
                score=lambda which, rows, _: rescore(queries[which], rows, fetch, self._compare),
                slack=slack,
            )
        proposed = best_of_parts(parts, len(queries), depth, score=lambda which, rows, scores: scores)
        kept = [answer for n, answer in zip(counts_of_parts, proposed, strict=True) if n in counts]
        if self.depth is None:
            return kept
        fetch = self._fetch()
        return [ordered(rows, rescore(queries, rows, fetch, self._compare), k) for rows, _ in kept]

    def _require_boundaries(self, counts: list[int], available: list[int]) -> None:
        missing = [n for n in counts if n not in available]
        if missing:
            tokens = [int(self._cumulative_tokens[n - 1]) for n in missing]
            raise ConfigError(
                f"index={self.spec!r} is a graph: its edges lead through every passage, so that a smaller store cannot "
                f"be searched in it without losing neighbours. Asked for stores of {tokens} tokens; give "
                f"increments={tokens} (one graph per increment) or use index='flat' or an IVF index"
            )

    # Recall

    def measure_recall(
        self, queries: Sequence[str], k: int = 10, *, store_tokens: Sequence[int] | None = None
    ) -> dict[int, float]:
        """Measure which share of the exact k best this index finds, per store size in tokens, and record it.

        Parameters
        ----------
        queries : sequence of str
            What to search; real queries tell more than passages.
        k : int
            Hits per query.
        store_tokens : sequence of int, optional
            Store sizes; the whole index by default.

        Returns
        -------
        dict of int to float
        """
        queries = [queries] if isinstance(queries, str) else list(queries)
        sizes = [self.n_tokens] if store_tokens is None else as_counts("store_tokens", store_tokens)
        counts = {size: self.n_passages_in_store(size) for size in sizes}
        wanted = sorted({n for n in counts.values() if n > 0})
        self._measure(self._prepared(embed_queries(self._encoder, list(queries))), wanted, "given queries", k)
        return {size: self._recall[n]["recall"] if n else 1.0 for size, n in counts.items()}

    def _measure(self, queries: Floats, counts: list[int], source: str, k: int) -> None:
        if not counts or not len(queries):
            return
        self._measured_at |= set(counts)
        try:
            self._fetch()
        except ConfigError:
            return
        k = min(k, self.n_passages, self.depth or k)
        exact = self._exact_anywhere(queries, k, counts)
        found = self._search_vectors(queries, k, counts)
        for n, (rows, _), (truth, _) in zip(counts, found, exact, strict=True):
            shares = [
                np.isin(true[true >= 0], got).mean() if (true >= 0).any() else 1.0
                for got, true in zip(rows, truth, strict=True)
            ]
            self._recall[n] = {
                "k": k,
                "recall": float(np.mean(shares)),
                "n_queries": len(queries),
                "queries": source,
            }

    def _exact_anywhere(self, queries: Floats, k: int, counts: list[int]) -> list[Answer]:
        """Search exactly in bounded memory: the vectors are fetched run by run."""
        edges = sorted({*range(_FETCH_BLOCK, counts[-1], _FETCH_BLOCK), *counts})
        wanted = set(counts)
        answers = self._exact(queries, k, edges)
        return [answer for n, answer in zip(edges, answers, strict=True) if n in wanted]

    # Describing and storing

    def _describe(self) -> dict[str, Any]:
        described = {
            "encoder": self._encoder.describe(),
            "index": "flat" if self._is_flat else self.spec,
            "metric": self.metric,
            "dim": self._encoder.dim,
            "bytes": self._n_bytes(),
            "truncation": asdict(self._truncation),
            "is_exact": self._is_flat,
        }
        if self._n_train:
            described["exact_below_passages"] = self._n_train
        if not self._is_flat:
            described["recall"] = {int(self._cumulative_tokens[n - 1]): one for n, one in sorted(self._recall.items())}
        return described

    def _n_bytes(self) -> int:
        total = 0 if self._vectors is None else self._vectors.nbytes
        if not self._graphs:
            return int(total)
        faiss = load_faiss()
        for _, one in self._graphs:
            counter = faiss.VectorIOWriter()
            faiss.write_index(one.index, counter)
            total += counter.data.size()
        return int(total)

    def _save_arguments(self, directory: Path) -> dict[str, Any]:
        stored = super()._save_arguments(directory)
        if self._encoder.is_storable:
            self._encoder.save(directory / "encoder")
            stored["encoder"] = "encoder"
        return {**stored, "train": None, "cache": None, "increments": list(self.increments)}

    @classmethod
    def _load_arguments(cls, directory: Path, stored: dict[str, Any]) -> dict[str, Any]:
        if "encoder" in stored:
            return {**stored, "encoder": Encoder.load(directory / stored["encoder"])}
        return stored

    def _save(self, directory: Path) -> None:
        if self._vectors is not None:
            with atomic_write(directory / "vectors.npy") as file:
                np.lib.format.write_array(file, np.asarray(self._vectors), allow_pickle=False)
        names = [f"index-{i:03d}.faiss" for i in range(len(self._graphs))]
        for name, (_, one) in zip(names, self._graphs, strict=True):
            one.save(directory / name)
        described = {
            "encoder_digest": self._encoder.digest,
            "dim": self._encoder.dim,
            "longest": self._longest,
            "is_flat": self._is_flat,
            "n_train": self._n_train,
            "holds_vectors": self._vectors is not None,
            "indexes": [{"file": name, "first": start} for name, (start, _) in zip(names, self._graphs, strict=True)],
            "recall": {str(n): one for n, one in self._recall.items()},
            "truncation": asdict(self._truncation),
        }
        write_json(directory / "dense.json", described, schema=_SCHEMA, version=_VERSION)

    def _load(self, directory: Path) -> None:
        described = read_json(directory / "dense.json", schema=_SCHEMA, version=_VERSION)
        self._encoder, self._state = self.encoder, self.encoder.state()
        if self._encoder.digest != described["encoder_digest"]:
            raise CheckpointError(
                f"{directory} was indexed with another encoder (digest {described['encoder_digest'][:12]}) than the "
                f"one given ({self._encoder.digest[:12]}): load it with the encoder it was made with"
            )
        self._longest, self._is_flat, self._n_train = (described[name] for name in ("longest", "is_flat", "n_train"))
        self._recall = {int(n): one for n, one in described["recall"].items()}
        self._measured_at = set(self._recall)
        self._truncation = Truncation(**described["truncation"])
        self._vectors, self._on_device = None, None
        if described["holds_vectors"]:
            self._vectors = _read_vectors(directory / "vectors.npy", memory_map=self.memory_map)
            if self._vectors.shape != (self.n_passages, described["dim"]):
                raise CheckpointError(
                    f"{directory} holds vectors of shape {self._vectors.shape}, expected "
                    f"({self.n_passages}, {described['dim']})"
                )
        self._graphs = [
            (
                one["first"],
                FaissIndex.load(directory / one["file"], self.spec, self._compare, memory_map=self.memory_map),
            )
            for one in described["indexes"]
        ]


class Texts(Sequence[str]):
    """The texts of passages, read when they are asked for."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = passages

    def __len__(self) -> int:
        return len(self.passages)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [passage.text for passage in self.passages[at]]
        return self.passages[at].text


def _runs(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    yield from zip([0, *counts[:-1]], counts, strict=True)


def _first_rows(which: NDArray[np.bool_], n: int, answer: Answer) -> Answer:
    """Answer queries to which every passage scores 0 with the first rows."""
    rows, scores = answer
    place = np.arange(rows.shape[1])
    rows[which] = np.where(place < n, place, -1)
    scores[which] = np.where(place < n, np.float32(0), np.float32(-np.inf))
    return rows, scores


def _longest(vectors: Floats) -> float:
    """Return a length that no vector exceeds, whatever the rounding of its float32 sum."""
    squares = (np.einsum("nw,nw->n", block, block).max() for block in np.array_split(vectors, len(vectors) // 8192 + 1))
    return float(np.sqrt(float(max(squares)))) * (1 + (vectors.shape[1] + 8) * 2.0**-23)


def _read_vectors(path: Path, *, memory_map: bool) -> Floats:
    try:
        if memory_map:
            return np.lib.format.open_memmap(path, mode="r")
        return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from error
