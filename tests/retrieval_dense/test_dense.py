"""Dense search: exact, equal over nested stores, equal after loading; faiss's own answer where it can be compared."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragscale.errors import CheckpointError, ConfigError, MissingExtraError
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever, DenseRetriever, LsaEncoder, Retriever, ShardedDenseRetriever
from ragscale.retrieval._dense_exact import FlatPart, best_of_parts, error_bound, load_faiss, pair_scores, rescore
from ragscale.retrieval._dense_gpu import DeviceVectors
from ragscale.testing import check_retriever

SIZES = [60, 200, 500, 1200]  # tokens; two per passage

KINDS = {
    "flat": ("flat", {}),
    "flat-l2": ("flat", {"metric": "l2"}),
    "flat-cosine": ("flat", {"metric": "cosine"}),
    "flat-torch": ("flat", {"device": "cpu:0"}),
    "ivf": ("IVF8,Flat", {"n_probe": 3, "train_size": 80}),
    "ivf-l2": ("IVF8,Flat", {"n_probe": 3, "train_size": 80, "metric": "l2"}),
    "ivf-codes": ("IVF8,SQ8", {"n_probe": 3, "train_size": 80}),
    "ivf-rotated-pq": ("PCAR8,IVF8,PQ4x4", {"n_probe": 3, "train_size": 80}),
    "codes": ("SQ4", {"train_size": 80}),
    "codes-wide-pq": ("PQ1x4", {"train_size": 80}),
    "codes-reduced": ("PCA8,Flat", {"train_size": 80}),
    "ivf-graph-quantizer": ("IVF8_HNSW8,Flat", {"n_probe": 3, "train_size": 80}),
    "graph": ("HNSW8", {"increments": SIZES}),
}


def brute_force(vectors, queries, k, metric="inner_product"):
    """The definition: every score in float64, rounded once, ordered by score and row."""
    wide_queries, wide = queries.astype(np.float64), vectors.astype(np.float64)
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    for i, query in enumerate(wide_queries):
        exact = -((wide - query) ** 2).sum(1) if metric == "l2" else (wide * query).sum(1)
        rounded = exact.astype(np.float32)
        rows[i] = np.lexsort((np.arange(len(wide)), -rounded))[:k]
        scores[i] = rounded[rows[i]]
    return rows, scores


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_flat_search_is_the_definition(noise, passages, queries, metric):
    retriever = DenseRetriever(noise(), metric=metric).index(passages)
    vectors = noise().encode([passage.text for passage in passages])
    rows, scores = brute_force(vectors, noise().encode(queries), 12, metric)
    hits = retriever.search(queries, 12)
    np.testing.assert_array_equal(hits.ids, rows)
    np.testing.assert_array_equal(hits.scores, scores)


@pytest.mark.parametrize("kind", KINDS)
def test_every_store_equals_its_own_index_bit_for_bit(noise, passages, queries, kind):
    spec, options = KINDS[kind]
    nested = DenseRetriever(noise(), spec, **options).index(passages).search(queries, 7, store_tokens=SIZES)
    for size in SIZES:
        alone = DenseRetriever(noise(), spec, **options).index(passages[: size // 2]).search(queries, 7)
        np.testing.assert_array_equal(nested[size].ids, alone.ids)
        np.testing.assert_array_equal(nested[size].scores, alone.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batch_nor_k_changes_a_hit(noise, passages, queries, kind):
    spec, options = KINDS[kind]
    retriever = DenseRetriever(noise(), spec, **options).index(passages)
    whole = retriever.search(queries, 20)
    for few in ([queries[4]], queries[::-1], queries * 3):
        some = retriever.search(few, 5)
        place = [queries.index(query) for query in few]
        np.testing.assert_array_equal(some.ids, whole.ids[place, :5])
        np.testing.assert_array_equal(some.scores, whole.scores[place, :5])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory_map", [True, False])
def test_a_loaded_index_gives_the_same_hits(noise, passages, queries, kind, memory_map, tmp_path):
    spec, options = KINDS[kind]
    retriever = DenseRetriever(noise(), spec, **options).index(passages)
    before = retriever.search(queries, 7, store_tokens=SIZES)
    retriever.save(tmp_path / "index")
    loaded = Retriever.load(tmp_path / "index", memory_map=memory_map)
    for size, hits in loaded.search(queries, 7, store_tokens=SIZES).items():
        np.testing.assert_array_equal(hits.ids, before[size].ids)
        np.testing.assert_array_equal(hits.scores, before[size].scores)
    loaded.save(tmp_path / "again")  # a mapped index can be written, too


def test_the_whole_contract(passages):
    words = ["wild honey in the orchard", "silver compass", "winter market bridges", "a young fox paints thunder"]
    encoder = LsaEncoder(4).fit(words)
    assert "nested_stores_equal_separate_indexes" in check_retriever(lambda: DenseRetriever(encoder))
    assert check_retriever(lambda: ShardedDenseRetriever(DenseRetriever(encoder), shard_size=25))


@settings(max_examples=60)
@given(
    n=st.integers(1, 90),
    n_different=st.integers(1, 30),
    dim=st.integers(1, 9),
    k=st.integers(1, 100),
    scale=st.sampled_from([1e-6, 1.0, 1e5]),
    metric=st.sampled_from(["inner_product", "l2"]),
    seed=st.integers(0, 2**16),
)
def test_parts_are_exact_for_any_vectors(n, n_different, dim, k, scale, metric, seed):
    rng = np.random.default_rng(seed)
    distinct = (rng.integers(-2, 3, (n_different, dim)) * scale).astype(np.float32)
    vectors = distinct[rng.integers(n_different, size=n)]
    queries = (rng.standard_normal((5, dim)) * scale).astype(np.float32)
    cuts = sorted({*rng.integers(1, n + 1, 3).tolist(), n})
    longest = float(np.sqrt((vectors.astype(np.float64) ** 2).sum(1).max()))
    parts = [FlatPart(queries, vectors[a:b], a, metric) for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]
    answers = best_of_parts(
        parts,
        len(queries),
        k,
        score=lambda which, rows, _: rescore(queries[which], rows, lambda r: vectors[r], metric),
        slack=error_bound(queries, longest, metric),
        margin=1,
    )
    for cut, (rows, scores) in zip(cuts, answers, strict=True):
        kept = min(k, cut)
        true_rows, true_scores = brute_force(vectors[:cut], queries, kept, metric)
        np.testing.assert_array_equal(rows[:, :kept], true_rows)
        np.testing.assert_array_equal(scores[:, :kept], true_scores)
        assert (rows[:, kept:] == -1).all()


def test_thousands_of_ties_are_kept_in_order(noise):
    store = [Passage(str(i), "same", 1, "d") for i in range(3000)]
    hits = DenseRetriever(noise()).index(store).search(["any", ""], 5, store_tokens=[2500, 3000])
    for one in hits.values():
        np.testing.assert_array_equal(one.ids, [[0, 1, 2, 3, 4]] * 2)


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_the_error_bound_holds_for_faiss_and_torch(metric):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((2000, 384)).astype(np.float32)
    queries = rng.standard_normal((64, 384)).astype(np.float32) * np.logspace(-3, 3, 64, dtype=np.float32)[:, None]
    bound = error_bound(queries, float(np.sqrt((vectors.astype(np.float64) ** 2).sum(1).max())), metric)
    everyone = np.arange(64)
    longest = float(np.sqrt((vectors.astype(np.float64) ** 2).sum(1).max()))
    on_device = DeviceVectors(vectors, longest, metric=metric, device="cpu")
    for rows, proposed in (
        FlatPart(queries, vectors, 0, metric).top(everyone, 50),
        on_device.propose(queries, 0, 2000, 50)[:2],
    ):
        true = pair_scores(queries[:, None], vectors[rows.ravel()].reshape(64, 50, 384), metric)
        assert (np.abs(proposed - true).max(axis=1) <= bound).all()
    # and it is not so wide that every search would be widened
    assert np.median(bound / np.abs(true).max(axis=1)) < 1e-3


def test_raw_faiss_finds_the_same_passages():
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((5000, 64)).astype(np.float32)
    queries = rng.standard_normal((100, 64)).astype(np.float32)
    index = faiss.IndexFlatIP(64)
    index.add(vectors)
    _, expected = index.search(queries, 10)
    rows, _ = brute_force(vectors, queries, 10)
    assert (rows == expected).mean() > 0.999
    parts = [FlatPart(queries, vectors, 0, "inner_product")]
    found, _ = best_of_parts(parts, 100, 10, score=lambda which, r, p: p)[0]
    assert (found == expected).mean() > 0.999


def test_an_ivf_index_equals_raw_faiss_with_the_same_lists(noise, passages):
    retriever = DenseRetriever(noise(), "IVF8,Flat", n_probe=3, train_size=80).index(passages)
    vectors = noise().encode([passage.text for passage in passages])
    raw = faiss.index_factory(16, "IVF8,Flat", faiss.METRIC_INNER_PRODUCT)
    raw.train(vectors[:80])
    raw.add(vectors)
    raw.nprobe = 3
    queries = [f"other {i}" for i in range(40)]
    distances, _ = raw.search(noise().encode(queries), 6)
    np.testing.assert_allclose(retriever.search(queries, 6).scores, distances, rtol=1e-5)


def test_recall_is_measured_at_every_size_and_kept(noise, passages, queries, tmp_path):
    retriever = DenseRetriever(noise(), "IVF16,SQ8", n_probe=2, train_size=80).index(passages)
    retriever.search(queries, 5, store_tokens=SIZES)
    recall = retriever.describe()["recall"]
    assert sorted(recall) == SIZES
    assert recall[60]["recall"] == 1.0  # fewer passages than it learns from: searched exactly
    assert 0.1 < recall[500]["recall"] < 0.95  # two of sixteen lists, for vectors without any structure
    wide = DenseRetriever(noise(), "IVF16,SQ8", n_probe=16, train_size=80).index(passages)
    assert wide.measure_recall(queries, store_tokens=SIZES)[1200] == 1.0
    retriever.save(tmp_path)
    assert DenseRetriever.load(tmp_path, encoder=noise()).describe()["recall"] == recall


def test_recall_is_what_counting_gives(noise, passages, queries):
    retriever = DenseRetriever(noise(), "IVF16,Flat", n_probe=2, train_size=80).index(passages)
    exact = DenseRetriever(noise()).index(passages).search(queries, 10).ids
    found = retriever.search(queries, 10).ids
    expected = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert retriever.measure_recall(queries)[1200] == pytest.approx(expected)


def test_given_training_vectors_serve_stores_of_every_size(noise, passages, queries):
    train = noise().encode([f"elsewhere {i}" for i in range(100)])
    options = {"n_probe": 2, "train": train, "depth": None}
    retriever = DenseRetriever(noise(), "IVF4,PQ4x4", **options).index(passages)
    nested = retriever.search(queries, 5, store_tokens=[60, 1200])
    alone = DenseRetriever(noise(), "IVF4,PQ4x4", **options).index(passages[:30]).search(queries, 5)
    np.testing.assert_array_equal(nested[60].ids, alone.ids)
    np.testing.assert_array_equal(nested[60].scores, alone.scores)
    described = retriever.describe()
    assert described["bytes"] < passages.__len__() * 16 * 4  # no vectors are kept
    by_text = DenseRetriever(noise(), "IVF4,PQ4x4", n_probe=2, train=[f"elsewhere {i}" for i in range(100)], depth=None)
    np.testing.assert_array_equal(by_text.index(passages).search(queries, 5).ids, nested[1200].ids)


def test_a_graph_is_refused_with_the_reason(noise, passages, queries):
    retriever = DenseRetriever(noise(), "HNSW8").index(passages)
    with pytest.raises(ConfigError, match=r"is a graph: .*\[60\].*increments=\[60\]"):
        retriever.search(queries, store_tokens=[60, 1200])


def test_sharded_search_equals_one_flat_index(noise, passages, queries, tmp_path):
    one = DenseRetriever(noise()).index(passages).search(queries, 7, store_tokens=SIZES)
    sharded = ShardedDenseRetriever(DenseRetriever(noise()), shard_size=130, directory=tmp_path / "built")
    sharded.index(passages)
    assert len(list((tmp_path / "built").glob("shard-*"))) == 5
    sharded.save(tmp_path / "saved")
    for retriever in (sharded, Retriever.load(tmp_path / "saved")):
        for size, hits in retriever.search(queries, 7, store_tokens=SIZES).items():
            np.testing.assert_array_equal(hits.ids, one[size].ids)
            np.testing.assert_array_equal(hits.scores, one[size].scores)
    assert sharded.describe()["is_exact"]


def test_a_fresh_process_loads_an_lsa_index(tmp_path):
    texts = ["cats purr", "kittens and cats purr", "ships sail", "boats and ships sail"]
    store = [Passage(str(i), text, 3, str(i)) for i, text in enumerate(texts)]
    retriever = DenseRetriever(LsaEncoder(3)).index(store)
    retriever.save(tmp_path)
    code = (
        "import sys, ragscale as rs; from ragscale.retrieval import Retriever\n"
        "hits = Retriever.load(sys.argv[1]).search(['ships', 'cats'], 3)\n"
        "print(hits.ids.tolist(), hits.scores.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    hits = retriever.search(["ships", "cats"], 3)
    assert done.stdout.strip() == f"{hits.ids.tolist()} {hits.scores.tolist()}"


def test_a_damaged_or_foreign_index_is_refused(noise, passages, tmp_path):
    retriever = DenseRetriever(noise()).index(passages[:50])
    retriever.save(tmp_path)
    with pytest.raises(CheckpointError, match="another encoder"):
        DenseRetriever.load(tmp_path, encoder=noise(dim=17))
    with pytest.raises(CheckpointError, match="BM25Retriever"):
        BM25Retriever.load(tmp_path)
    data = bytearray((tmp_path / "vectors.npy").read_bytes())
    data[-3] ^= 1
    (tmp_path / "vectors.npy").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"vectors\.npy was changed"):
        DenseRetriever.load(tmp_path, encoder=noise())


def test_wrong_arguments_are_all_named(noise, passages):
    with pytest.raises(ConfigError, match=r"metric must be.*'dot'.*depth must be at least 1, got 0"):
        DenseRetriever(noise(), metric="dot", depth=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="encoder must be an Encoder"):
        DenseRetriever("a name")  # type: ignore[arg-type]
    for spec, message in {
        "IVF16,Nothing": "cannot make index='IVF16,Nothing'",
        "SQ8,RFlat": "leave out IDMap and RFlat",
        "NSG16": "IndexNSGFlat, which cannot be used here",
    }.items():
        with pytest.raises(ConfigError, match=message):
            DenseRetriever(noise(), spec).index(passages)
    with pytest.raises(ConfigError, match=r"k=50 is more than the 20 candidates.*depth=50"):
        DenseRetriever(noise(), "SQ8", depth=20, train_size=80).index(passages).search("a", 50)
    with pytest.raises(ConfigError, match=r"searches index='flat' only"):
        DenseRetriever(noise(), "SQ8", device="cuda")
    with pytest.raises(ConfigError, match="cannot be used here"):
        DenseRetriever(noise(), device="cuda:99").index(passages[:9]).search("a")
    with pytest.raises(ConfigError, match="trained on 80 vectors"):
        DenseRetriever(noise(), "PQ4", train_size=80).index(passages)


def test_two_faiss_wheels_or_none_are_one_clear_error(tmp_path, monkeypatch):
    other = tmp_path / "faiss_gpu_cu12-1.9.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: faiss-gpu-cu12\nVersion: 1.9.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.metadata.version("faiss-gpu-cu12") == "1.9.0"
    with pytest.raises(ConfigError, match=r"faiss-cpu and faiss-gpu-cu12 are both installed.*uninstall"):
        load_faiss.__wrapped__()
    (other / "METADATA").unlink()
    other.rmdir()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ragscale\[dense\]'"):
        load_faiss.__wrapped__()
