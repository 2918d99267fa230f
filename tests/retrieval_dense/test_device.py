"""The flat search on a torch device: the CPU's results to the last bit, whatever stays there and in what type."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.retrieval import DenseRetriever
from ragscale.retrieval import _dense_gpu as gpu
from ragscale.retrieval._dense import _longest
from ragscale.retrieval._dense_exact import pair_scores


def definition(vectors, queries, k, metric):
    """Every score as it is stated, ordered by score and row."""
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for i, query in enumerate(queries):
        all_scores = pair_scores(np.broadcast_to(query, vectors.shape), vectors, metric)
        rows[i] = np.lexsort((np.arange(len(vectors)), -all_scores))[:k]
        scores[i] = all_scores[rows[i]]
    return rows, scores


def on_device(vectors, metric="inner_product", **options):
    return gpu.DeviceVectors(vectors, _longest(vectors), metric=metric, device="cpu", **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("resident", [0, 130, 1000])
def test_every_store_is_the_definition(monkeypatch, dtype, metric, resident):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 24)).astype(np.float32)
    vectors[700:720] = vectors[3]  # ties, across the border of the blocks
    queries = np.concatenate([rng.standard_normal((30, 24)).astype(np.float32), vectors[[3, 40]]])
    monkeypatch.setattr(gpu, "_BLOCK", 256)
    monkeypatch.setattr(gpu, "_PAIRS", 20_000)
    width = 24 * (2 if dtype == "bfloat16" else 4) + 4
    monkeypatch.setattr(gpu.DeviceVectors, "_memory", lambda self: float(resident * width))
    held = on_device(vectors, metric, dtype=dtype, share=1.0)
    assert held.n_resident == resident
    counts = [5, 300, 1000]
    for n, (rows, scores) in zip(counts, held.search(queries, 12, counts), strict=True):
        kept = min(12, n)
        true_rows, true_scores = definition(vectors[:n], queries, kept, metric)
        np.testing.assert_array_equal(rows[:, :kept], true_rows)
        np.testing.assert_array_equal(scores[:, :kept], true_scores)
        assert (rows[:, kept:] == -1).all()
        assert (scores[:, kept:] == -np.inf).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 9), scale=st.sampled_from([1e-12, 1.0, 1e12]))
def test_close_scores_of_any_size_keep_their_order(seed, k, scale):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal(16)
    vectors = (base + 1e-6 * rng.standard_normal((90, 16))).astype(np.float32) * np.float32(scale)
    queries = rng.standard_normal((3, 16)).astype(np.float32)
    for metric in ("inner_product", "l2"):
        rows, scores = on_device(vectors, metric, dtype="bfloat16").search(queries, k, [90])[0]
        true_rows, true_scores = definition(vectors, queries, k, metric)
        np.testing.assert_array_equal(rows, true_rows)
        np.testing.assert_array_equal(scores, true_scores)


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_proposal_is_further_off_than_its_bound(metric, dtype):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((2000, 96)).astype(np.float32)
    queries = rng.standard_normal((20, 96)).astype(np.float32) * np.logspace(-3, 3, 20, dtype=np.float32)[:, None]
    rows, proposed, slack = on_device(vectors, metric, dtype=dtype).propose(queries, 0, 2000, 2000)
    for query, found, guess, bound in zip(queries, rows, proposed, slack, strict=True):
        true = pair_scores(np.broadcast_to(query, vectors.shape), vectors, metric)[found]
        assert np.abs(guess.astype(np.float64) - true).max() <= bound
    if metric == "inner_product":  # and it is not so wide that everything would be asked for
        assert bound < 0.01 * np.linalg.norm(query) * np.linalg.norm(vectors, axis=1).max()


def test_a_sum_that_its_order_could_decide_is_the_cpus(monkeypatch):
    """A float64 sum halfway between two float32 numbers: the device asks the CPU's routine."""
    vectors = np.zeros((3, 8), np.float32)
    vectors[:, 0] = 1.0
    vectors[1, 1] = np.float32(2.0**-24)  # 1 + 2^-24: halfway between 1 and the next float32
    queries = np.ones((1, 8), np.float32)
    asked = []

    def counted(query, vector, metric):
        asked.append(len(query))
        return pair_scores(query, vector, metric)

    monkeypatch.setattr(gpu, "pair_scores", counted)
    rows, scores = on_device(vectors).search(queries, 3, [3])[0]
    true_rows, true_scores = definition(vectors, queries, 3, "inner_product")
    np.testing.assert_array_equal(rows, true_rows)
    np.testing.assert_array_equal(scores, true_scores)
    assert sum(asked) == 1


def test_the_retriever_gives_the_same_hits_on_every_device(noise, passages, queries, tmp_path):
    sizes = [60, 500, 1200]
    expected = DenseRetriever(noise()).index(passages).search([*queries, ""], 7, store_tokens=sizes)
    for name, options in enumerate(({}, {"device_dtype": "bfloat16"}, {"device_share": 0.0})):
        retriever = DenseRetriever(noise(), device="cpu:0", **options).index(passages)
        retriever.save(tmp_path / str(name), store_passages=True)
        for one in (retriever, DenseRetriever.load(tmp_path / str(name), encoder=noise())):
            for size, hits in one.search([*queries, ""], 7, store_tokens=sizes).items():
                np.testing.assert_array_equal(hits.ids, expected[size].ids)
                np.testing.assert_array_equal(hits.scores, expected[size].scores)
        assert retriever._on_device is not None
        assert retriever._on_device.n_resident == (0 if "device_share" in options else 600)


def test_vectors_are_copied_once_and_again_after_indexing_anew(noise, passages):
    retriever = DenseRetriever(noise(), device="cpu:0").index(passages[:40])
    retriever.search("a")
    held = retriever._on_device
    retriever.search("b")
    assert retriever._on_device is held
    hits = retriever.index(passages[40:90]).search(passages[50].text, 1)
    assert hits.ids.tolist() == DenseRetriever(noise()).index(passages[40:90]).search(passages[50].text, 1).ids.tolist()


def test_a_device_search_needs_no_faiss():
    code = (
        "import sys; sys.modules['faiss'] = None\n"
        "from ragscale import Passage\n"
        "from ragscale.retrieval import DenseRetriever, LsaEncoder\n"
        "texts = ['cats purr', 'kittens and cats purr', 'ships sail', 'boats and ships sail']\n"
        "store = [Passage(str(i), text, 3, str(i)) for i, text in enumerate(texts)]\n"
        "one = DenseRetriever(LsaEncoder(2), device='cpu:0').index(store)\n"
        "print(one.search('a ship or ships', 2).ids.tolist(), one.describe()['bytes'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[2, 3]] 32"


def test_devices_and_types_that_do_not_work_are_refused(noise, passages):
    with pytest.raises(ConfigError, match=r"device='cuda:77' cannot be used here.*use device='cpu'"):
        DenseRetriever(noise(), device="cuda:77").index(passages[:3])
    with pytest.raises(ConfigError) as error:
        DenseRetriever(noise(), "IVF8,Flat", device="cuda", device_share=2.0, device_dtype="int8")  # type: ignore[arg-type]
    for part in ("approximate indexes run on the CPU", "from 0 to 1, got 2.0", "got 'int8'"):
        assert part in str(error.value)
