"""Shards that were indexed and saved apart give the hits of one index, bit for bit."""

import shutil

import numpy as np
import pytest

from ragscale.errors import CheckpointError, ConfigError
from ragscale.retrieval import BM25Retriever, DenseRetriever, HybridRetriever, LsaEncoder
from ragscale.retrieval._shards import search_shards, why_not_in_shards


def shards_of(make, passages, edges, folder):
    """Save an index over each run of passages, without its passages."""
    paths = []
    for number, (start, stop) in enumerate(zip([0, *edges], [*edges, len(passages)], strict=True)):
        paths.append(folder / f"shard-{number}")
        make().index(passages[start:stop]).save(paths[-1], store_passages=False)
    return paths


def assert_same_hits(whole, paths, queries, stores):
    for k in (1, 4, 30):
        expected = whole._hits(queries, k, stores)
        for n, (rows, scores) in zip(stores, search_shards(paths, queries, k, stores), strict=True):
            np.testing.assert_array_equal(rows, expected[n].ids)
            np.testing.assert_array_equal(scores, expected[n].scores)


# within, at, and over the edges of shards, one of which holds a single passage
EDGES, STORES = [130, 131, 300], [1, 20, 129, 130, 131, 132, 250, 300, 399, 400]


@pytest.mark.parametrize("compiled", [False, None])
@pytest.mark.parametrize("options", [{}, {"length_encoding": "lucene", "b": 0.9}])
def test_bm25_scores_with_the_statistics_of_the_whole_store(passages, queries, tmp_path, compiled, options):
    def make():
        return BM25Retriever(compiled=compiled, **options)

    paths = shards_of(make, passages, EDGES, tmp_path)
    assert_same_hits(make().index(passages), paths, [*queries, *queries[:3]], STORES)


def test_a_term_that_one_shard_has_alone_counts_over_all(tmp_path):
    texts = ["red fish"] * 3 + ["blue fish", "red sky"] + ["fish"] * 4
    whole = BM25Retriever().index(texts)
    paths = shards_of(BM25Retriever, list(whole.passages), [3, 5], tmp_path)
    assert_same_hits(whole, paths, ["blue fish fish", "sky", "red red fish", "of the", "green", ""], [1, 4, 9])


def test_dense_shards_of_a_fitted_encoder(passages, queries, tmp_path):
    pytest.importorskip("faiss")
    encoder = LsaEncoder(8).fit([p.text for p in passages])

    def make():
        return DenseRetriever(encoder)

    paths = shards_of(make, passages, EDGES, tmp_path)
    assert_same_hits(make().index(passages), paths, queries, STORES)


def test_a_damaged_shard_is_named(passages, queries, tmp_path):
    paths = shards_of(BM25Retriever, passages, EDGES, tmp_path)
    counts = paths[1] / "counts.npy"
    counts.write_bytes(counts.read_bytes()[:-1] + b"\7")
    with pytest.raises(CheckpointError, match=r"shard-1 is damaged: counts\.npy was changed"):
        search_shards(paths, queries, 1, [400])
    shutil.rmtree(paths[1])
    with pytest.raises(CheckpointError, match="shard-1 holds no saved retriever"):
        search_shards(paths, queries, 1, [400])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: DenseRetriever(LsaEncoder(8)), "LsaEncoder learns from all passages"),
        (lambda: DenseRetriever(LsaEncoder(8).fit(["a b c d e f g h i"] * 9), "IVF4,Flat"), "'IVF4,Flat' learns"),
        (lambda: HybridRetriever(BM25Retriever(), BM25Retriever(k1=1.0)), "HybridRetriever cannot be indexed"),
    ],
)
def test_what_would_answer_otherwise_says_why_it_has_no_shards(make, why):
    pytest.importorskip("faiss")
    assert why in why_not_in_shards(make())


def test_a_shard_without_passages_does_not_pretend_to_have_them(passages, tmp_path):
    from ragscale.retrieval._shards import _Unread

    with pytest.raises(ConfigError, match="without its passages"):
        _Unread(3)[0]
