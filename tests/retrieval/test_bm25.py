"""BM25: against bm25s and the formula, compiled against plain, and every store size against its own index."""

from __future__ import annotations

import gzip
import json
import math

import bm25s
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ragscale import Passage
from ragscale.errors import ConfigError, MissingExtraError
from ragscale.retrieval import BM25Retriever
from ragscale.retrieval._analysis import Analyzer
from ragscale.testing import check_retriever

SETTINGS = [
    {},
    {"k1": 1.5, "b": 0.75, "stemmer": None, "stop_words": None},
    {"k1": 0.0, "length_encoding": "lucene"},
    {"k1": 2.0, "b": 0.0},
    {"b": 1.0, "token_pattern": r"(?u)\b\w\w+\b", "stop_words": "english", "stemmer": "english"},
]


def assert_same(found, expected):
    assert (found.ids == expected.ids).all()
    assert (found.scores == expected.scores).all()


@pytest.mark.parametrize("compiled", [True, False])
def test_it_keeps_every_promise_of_a_retriever(compiled):
    assert "another_process_loads_it" in check_retriever(lambda: BM25Retriever(compiled=compiled))


@pytest.fixture(params=["kept impacts", "one pass"])
def way(request, monkeypatch):
    """How stores of several sizes are scored: always from kept impacts, or never."""
    from ragscale.retrieval import _bm25_impacts

    kept = request.param == "kept impacts"
    monkeypatch.setattr(_bm25_impacts.KeptImpacts, "are_worth", lambda self, sizes, **rest: kept and len(sizes) > 1)
    return request.param


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_store_equals_a_separately_built_index(passages, queries, settings, way):
    retriever, plain = (
        BM25Retriever(compiled=True, **settings).index(passages),
        BM25Retriever(compiled=False, **settings),
    )
    plain.index(passages)
    total = retriever.n_tokens
    sizes = [total * part // 100 for part in (1, 5, 10, 33, 66, 100)]
    for k in (1, 5, 60, 500):
        nested = retriever.search(queries, k, store_tokens=sizes)
        small = retriever.search(queries, k, store_tokens=sizes[:2])
        slow = plain.search(queries, k, store_tokens=sizes)
        for size in sizes:
            n = retriever.n_passages_in_store(size)
            separate = BM25Retriever(compiled=False, **settings).index(passages[:n]).search(queries, k)
            assert_same(nested[size], separate)
            assert_same(slow[size], separate)
            if size in small:
                assert_same(small[size], separate)


WORD = st.sampled_from(["ash", "birch", "cedar", "elm", "fir", "oak", "pine", "yew"])
TEXT = st.lists(WORD, max_size=12).map(" ".join)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=1, max_size=30), st.lists(TEXT, min_size=1, max_size=3), st.integers(1, 8), st.data())
def test_nested_search_is_exact_for_any_text(way, texts, queries, k, data):
    passages = [Passage(str(i), text, 1, "d") for i, text in enumerate(texts)]
    retriever = BM25Retriever(k1=1.2, b=0.75).index(passages)
    sizes = data.draw(st.lists(st.integers(0, len(texts)), min_size=1, max_size=4))
    for size, hits in retriever.search(queries, k, store_tokens=sizes).items():
        if size:
            separate = BM25Retriever(k1=1.2, b=0.75, compiled=False).index(passages[:size]).search(queries, k)
            assert_same(hits, separate)
        else:
            assert (hits.ids == -1).all()


def test_where_the_reserve_runs_out_the_whole_store_is_scored(way):
    """A word that is rare in the whole and common in the small store turns the order around."""
    passages = [Passage(str(i), "reed willow", 1, "d") for i in range(60)]
    passages += [Passage(str(i), "reed", 1, "d") for i in range(60, 160)]
    passages += [Passage(str(i), "willow moss", 1, "d") for i in range(160, 6000)]
    passages[100:100] = [Passage(f"x{i}", "willow willow", 1, "d") for i in range(3)]
    retriever = BM25Retriever().index(passages)
    sizes = (120, 163, 1000)
    together = retriever.search("reed willow", 3, store_tokens=sizes)
    for size in sizes:
        alone = BM25Retriever(compiled=False).index(passages[:size]).search("reed willow", 3)
        assert_same(retriever.search("reed willow", 3, store_tokens=size)[size], alone)
        assert_same(together[size], alone)


@pytest.mark.parametrize("k", [1, 7, 100, 900])
def test_ties_and_stores_of_any_size_are_selected_in_store_order(way, k):
    """Two texts make ties by the hundred; some stores hold fewer passages than k, some end between two equal ones."""
    rng = np.random.default_rng(k)
    passages = [Passage(str(i), "elm fir" if rng.random() < 0.5 else "elm", 1, "d") for i in range(800)]
    sizes = [1, 3, 40, 41, 500, 800]
    nested = BM25Retriever().index(passages).search(["elm", "fir", "fir elm elm", "oak"], k, store_tokens=sizes)
    for size in sizes:
        alone = BM25Retriever(compiled=False).index(passages[:size]).search(["elm", "fir", "fir elm elm", "oak"], k)
        assert_same(nested[size], alone)


def test_impacts_are_kept_once_they_pay_and_only_for_small_collections(passages, queries, monkeypatch):
    from ragscale.retrieval import _bm25_impacts

    retriever = BM25Retriever().index(passages)
    sizes = [retriever.n_tokens // 3, retriever.n_tokens]
    n_postings = len(retriever._rows)
    assert 0.035 * n_postings < 1000 * 33
    first = retriever.search(queries, 10, store_tokens=sizes)
    assert not retriever._kept._impacts
    many = queries * (int(0.035 * n_postings / 33 / len(queries)) + 1)
    retriever.search(many, 10, store_tokens=sizes)
    assert len(retriever._kept._impacts) == 1
    [kept] = retriever._kept._impacts.values()
    again = retriever.search(queries, 10, store_tokens=sizes)
    assert next(iter(retriever._kept._impacts.values())) is kept
    for size in sizes:
        assert_same(again[size], first[size])
    for more in range(6):  # not without bound
        retriever.search(many, 10, store_tokens=[sizes[0] - more * 50, sizes[1]])
    assert len(retriever._kept._impacts) == 4
    new, sizes = _bm25_impacts.KeptImpacts(), np.array([20_000, 60_000])
    often = {"n_queries": 10**6, "n_postings": 10**5, "postings_per_query": 30_000.0}
    assert not new.are_worth(sizes, **{**often, "postings_per_query": 60_000.0}, k=10)
    assert new.are_worth(sizes, **{**often, "postings_per_query": 60_000.0}, k=100)
    assert new.are_worth(sizes, **often, k=10)
    assert not new.are_worth(sizes, **{**often, "n_postings": 10**8}, k=10)  # too large to keep
    assert not new.are_worth(sizes[1:], **often, k=10)  # one store


def test_indexing_compiles_so_that_a_search_does_not(passages, queries, tmp_path):
    from ragscale.retrieval import _bm25_numba

    retriever = BM25Retriever().index(passages)
    known = len(_bm25_numba.search.signatures)
    retriever.search(queries, 3)
    retriever.save(tmp_path)
    BM25Retriever.load(tmp_path).search(queries, 3)  # what is mapped from disk has the type of what is in memory
    assert len(_bm25_numba.search.signatures) == known > 0


def test_scores_are_those_of_bm25s_to_the_last_bit(passages, queries):
    retriever = BM25Retriever(k1=1.2, b=0.75).index(passages)
    analyzer = Analyzer("porter", "lucene", None)
    analyzer.index([])

    def terms(text):
        return [analyzer._stem(word) for word in analyzer.words(text) if word not in analyzer._stop_words]

    peer = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    peer.index([terms(passage.text) for passage in passages], show_progress=False)
    hits = retriever.search(queries, len(passages))
    for line, query in enumerate(queries):
        known = [term for term in terms(query) if term in peer.vocab_dict]
        scores = peer.get_scores(known) if known else np.zeros(len(passages), dtype=np.float32)
        rows = hits.ids[line][hits.ids[line] >= 0]
        assert (scores[rows] == hits.scores[line, : rows.size]).all()
        assert (np.delete(scores, rows) == 0).all()


def test_scores_follow_the_formula():
    texts = ["fish fish river", "river bank stone wall", "quiet stone"]
    passages = [Passage(str(i), text, 1, "d") for i, text in enumerate(texts)]
    hits = BM25Retriever(k1=0.9, b=0.4).index(passages).search("fish stone", 3)
    norm = {0: 0.6 + 0.4 * 3 / 3, 1: 0.6 + 0.4 * 4 / 3, 2: 0.6 + 0.4 * 2 / 3}
    expected = {
        0: math.log(1 + 2.5 / 1.5) * 2 / (2 + 0.9 * norm[0]),
        1: math.log(1 + 1.5 / 2.5) * 1 / (1 + 0.9 * norm[1]),
        2: math.log(1 + 1.5 / 2.5) * 1 / (1 + 0.9 * norm[2]),
    }
    assert hits.ids[0].tolist() == sorted(expected, key=lambda row: -expected[row])
    assert hits.scores[0] == pytest.approx([expected[row] for row in hits.ids[0].tolist()], rel=1e-6)


def test_passages_without_a_shared_term_are_no_hits(passages):
    hits = BM25Retriever().index(passages).search(["nothing of this is known", "the of and", "golden"], 400)
    assert (hits.ids[:2] == -1).all()
    assert 0 < (hits.ids[2] >= 0).sum() < 400


def test_repeating_the_corpus_keeps_the_order_of_its_passages(passages, queries):
    """Twice the passages, the same shares: document frequencies double, means stay."""
    twice = [*passages, *(Passage(f"{p.id}'", p.text, p.n_tokens, p.document_id) for p in passages)]
    hits = BM25Retriever().index(twice).search(queries, 800)
    for line in hits.ids:
        rows = line[line >= 0]
        once = rows[rows < 400]
        assert (once + 400 == rows[rows >= 400]).all()


def test_threads_give_the_same_hits(passages, queries):
    many = queries * 200
    one = BM25Retriever().index(passages).search(many, 5, store_tokens=[500, 9000])
    two = BM25Retriever(n_threads=2).index(passages).search(many, 5, store_tokens=[500, 9000])
    for size in one:
        assert_same(two[size], one[size])


def test_the_index_on_disk_is_memory_mapped_and_small(passages, tmp_path):
    retriever = BM25Retriever().index(passages)
    retriever.save(tmp_path)
    loaded = BM25Retriever.load(tmp_path)
    assert isinstance(loaded._rows, np.memmap)
    described = loaded.describe()
    assert described["bytes"] <= 5 * described["n_postings"] + 8 * (described["n_terms"] + 1) + 4 * len(passages)
    assert described["n_passages"] == 400


def test_wrong_settings_are_all_reported():
    with pytest.raises(ConfigError) as error:
        BM25Retriever(k1=-1, b=2, length_encoding="short", n_threads=0)
    for part in ("k1", "b must", "'short'", "n_threads"):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match="no stemmer 'klingon'"):
        BM25Retriever(stemmer="klingon").index([Passage("a", "b", 1, "c")])
    with pytest.raises(ConfigError, match="no stop words for 'klingon'"):
        BM25Retriever(stop_words="klingon").index([Passage("a", "b", 1, "c")])


def test_without_numba_the_plain_kernel_serves(passages, queries, monkeypatch):
    from ragscale.retrieval import _bm25

    real = _bm25.require

    def missing(module, extra):
        if module == "numba":
            raise MissingExtraError("'numba' is needed here and is not installed: pip install 'ragscale[bm25]'")
        return real(module, extra)

    expected = BM25Retriever(compiled=True).index(passages).search(queries, 7)
    monkeypatch.setattr(_bm25, "require", missing)
    assert_same(BM25Retriever().index(passages).search(queries, 7), expected)
    with pytest.raises(MissingExtraError, match="numba"):
        BM25Retriever(compiled=True).index(passages).search(queries, 7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop: 3.14 or 1,000,000 at 10:30!", ["don't", "stop", "3.14", "or", "1,000,000", "at", "10", "30"]),
        ("the fox's U.S.A. e-mail a_b", ["the", "fox", "u.s.a", "e", "mail", "a_b"]),
        ("L\u2019\u00e9t\u00e9 na\u00efve cafe\u0301", ["l'\u00e9t\u00e9", "na\u00efve", "caf\u00e9"]),
        ("\u6771\u4eac\u3067fox", ["\u6771", "\u4eac", "\u3067", "fox"]),
        ("10 m\u00b2 \u00a9 x", ["10", "m", "\u00a9", "x"]),
        ("\u30d1\u30eafox \ud30c\ub9ac\ub294", ["\u30d1", "\u30ea", "fox", "\ud30c\ub9ac\ub294"]),
        ("\u0e01\u0e34\u0e19 \U00020bb7\u91ce", ["\u0e01", "\u0e34", "\u0e19", "\U00020bb7", "\u91ce"]),
        ("", []),
    ],
)
def test_words_are_split_as_lucene_splits_them(text, words):
    assert Analyzer("porter", "lucene", None).words(text) == words


@pytest.mark.parametrize(
    ("word", "stem"),
    [
        ("possibly", "possibl"),
        ("technology", "technolog"),
        ("irreversibly", "irrevers"),
        ("us", "us"),
        ("running", "run"),
        ("relational", "relat"),
    ],
)
def test_porter_is_the_revised_one_of_lucene(word, stem):
    assert Analyzer("porter", None, None)._stem(word) == stem


@pytest.mark.parametrize("name", ["vaswani", "scifact"])
def test_six_stores_of_real_text_are_exact(shared_data, name):
    passages, queries = real_collection(shared_data / "ir_public" / name)
    retriever = BM25Retriever().index(passages)
    total = retriever.n_tokens
    sizes = [total * part // 20 for part in (1, 2, 5, 10, 15, 20)]
    for size, hits in retriever.search(queries, 10, store_tokens=sizes).items():
        n = retriever.n_passages_in_store(size)
        assert_same(hits, BM25Retriever().index(passages[:n]).search(queries, 10))


def real_collection(folder):
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    passages = [
        Passage(d["_id"], f"{d['title']} {d['text']}".strip(), len(d["text"].split()) + 1, d["_id"]) for d in documents
    ]
    with open(folder / "queries.jsonl", encoding="utf-8") as file:
        return passages, [json.loads(line)["text"] for line in file]
