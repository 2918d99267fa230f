"""Fusion, weights, filters and rerankers: retrievers made of retrievers."""

from __future__ import annotations

from functools import partial

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale import Passage
from ragscale.errors import CheckpointError, ConfigError, NotIndexedError
from ragscale.retrieval import (
    BM25Retriever,
    ContainsQuestion,
    CrossEncoder,
    FilteredRetriever,
    FromDocuments,
    Hits,
    HybridRetriever,
    MinLength,
    NearDuplicates,
    Reranker,
    Retriever,
    WeightedSum,
    ndcg,
    recall,
    reciprocal_rank_fusion,
    tune_weights,
    weighted_sum,
)
from ragscale.testing import check_retriever

RRF2 = partial(reciprocal_rank_fusion, weights=(1.0, 2.0))


def arms():
    return BM25Retriever(compiled=False), BM25Retriever(k1=2.0, b=1.0, stemmer=None, compiled=False)


def by_length(query, passages):
    return [len(passage.text) for passage in passages]


@pytest.mark.parametrize(
    "factory",
    [
        lambda: HybridRetriever(*arms()),
        lambda: HybridRetriever(*arms(), fusion=RRF2, depth=6),
        lambda: HybridRetriever(*arms(), fusion=weighted_sum((0.3, 0.7), normalisation="z_score")),
        lambda: FilteredRetriever(arms()[0], [FromDocuments({"d3", "d5"}), NearDuplicates(0.9, 3), ContainsQuestion()]),
        lambda: FilteredRetriever(HybridRetriever(*arms()), [FromDocuments({"honey": {"d9"}}), MinLength(2)]),
    ],
    ids=["ranks", "weighted ranks", "scores", "filtered", "filtered hybrid"],
)
def test_it_keeps_every_promise_of_a_retriever(factory):
    assert "another_process_loads_it" in check_retriever(factory)


def test_ranks_are_fused_by_the_formula():
    one, two = Hits([[3, 1, -1]], [[9.0, 8.0, -np.inf]]), Hits([[1, 0, 3]], [[0.9, 0.5, 0.1]])
    rows, scores = reciprocal_rank_fusion([one, two])
    fused = dict(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
    assert fused == pytest.approx({0: 1 / 62, 1: 1 / 62 + 1 / 61, 3: 1 / 61 + 1 / 63})
    rows, scores = reciprocal_rank_fusion([one, two], weights=(0.0, 1.0), constant=1.0)
    assert dict(zip(rows[0].tolist(), scores[0].tolist(), strict=True)) == pytest.approx({0: 1 / 3, 1: 1 / 2, 3: 1 / 4})
    rows, _ = weighted_sum((0.0, 1.0))([Hits([[9]], [[1.0]]), two])
    assert sorted(rows[0].tolist()) == [0, 1, 3]  # an arm of weight 0 brings no candidates


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        ("min_max", {0: 0.5 * 0.25, 1: 0.5 * 0.0 + 0.5 * 1.0, 3: 0.5 * 1.0}),
        ("none", {0: 0.5 * 2.0, 1: 0.5 * 8.0 + 0.5 * 5.0, 3: 0.5 * 9.0 + 0.5 * 1.0}),
    ],
)
def test_scores_are_summed_after_normalising(normalisation, expected):
    one, two = Hits([[3, 1, -1]], [[9.0, 8.0, -np.inf]]), Hits([[1, 0, 3]], [[5.0, 2.0, 1.0]])
    rows, scores = weighted_sum((0.5, 0.5), normalisation=normalisation)([one, two])
    assert dict(zip(rows[0].tolist(), scores[0].tolist(), strict=True)) == pytest.approx(expected)


@given(st.integers(0, 10**6), st.floats(0.1, 100), st.floats(-50, 50))
def test_rescaling_an_arm_changes_no_normalised_fusion(seed, factor, shift):
    rng = np.random.default_rng(seed)
    ids = np.array([rng.permutation(30)[:8] for _ in range(3)])
    scores = np.sort(rng.normal(size=(3, 8)))[:, ::-1]
    other = Hits(np.array([rng.permutation(30)[:8] for _ in range(3)]), np.sort(rng.random((3, 8)))[:, ::-1])
    for normalisation in ("min_max", "z_score"):
        fusion = weighted_sum(normalisation=normalisation)
        rows, before = fusion([Hits(ids, scores), other])
        same, after = fusion([Hits(ids, scores * factor + shift), other])
        assert (rows == same).all()
        assert after == pytest.approx(before, abs=1e-3)


def test_arms_with_nothing_found_do_not_matter():
    nothing = Hits(np.full((2, 3), -1), np.full((2, 3), -np.inf))
    one = Hits([[2, 0], [1, -1]], [[1.0, 0.5], [1.0, -np.inf]])
    for fusion in (reciprocal_rank_fusion, weighted_sum()):
        rows, _ = fusion([one, nothing])
        assert [sorted(row for row in line if row >= 0) for line in rows.tolist()] == [[0, 2], [1]]
    rows, scores = reciprocal_rank_fusion([nothing, nothing])
    assert rows.shape == scores.shape == (2, 0)


def test_each_store_is_the_fusion_of_its_arms(passages, queries):
    hybrid = HybridRetriever(*arms(), depth=20).index(passages)
    total = hybrid.n_tokens
    for size, hits in hybrid.search(queries, 10, store_tokens=[total // 9, total // 2, total]).items():
        found = [arm.search(queries, 20, store_tokens=size)[size] for arm in hybrid.retrievers]
        rows, scores = reciprocal_rank_fusion(found)
        for line in range(len(queries)):
            order = sorted(zip(-scores[line].astype(np.float32), rows[line], strict=True))
            expected = [row for score, row in order if row >= 0][:10]
            assert hits.ids[line].tolist() == expected + [-1] * (10 - len(expected))


def test_arms_indexed_before_are_not_indexed_again(passages):
    first, second = arms()
    first.index(passages)
    vocabulary = first._analyzer
    hybrid = HybridRetriever(first, second).index(list(passages))
    assert first._analyzer is vocabulary
    assert first.passages is hybrid.passages is second.passages
    second.index(passages[:5])
    with pytest.raises(NotIndexedError, match="indexed over other passages since"):
        hybrid.search("fish")


def test_a_hybrid_stores_its_passages_once(passages, tmp_path):
    hybrid = HybridRetriever(*arms()).index(passages)
    hybrid.save(tmp_path)
    assert len(list(tmp_path.rglob("passages.jsonl"))) == 1
    loaded = Retriever.load(tmp_path)
    assert isinstance(loaded, HybridRetriever)
    assert loaded.fusion is reciprocal_rank_fusion
    assert loaded.retrievers[1].k1 == 2.0
    assert [part["retriever"] for part in loaded.describe()["parts"]] == ["BM25Retriever"] * 2


def test_a_function_of_ones_own_must_be_given_again(passages, tmp_path):
    def first_arm(found):
        return found[0].ids, found[0].scores

    HybridRetriever(*arms(), fusion=first_arm).index(passages).save(tmp_path)
    with pytest.raises(CheckpointError, match="fusion could not be stored"):
        HybridRetriever.load(tmp_path)
    loaded = HybridRetriever.load(tmp_path, fusion=first_arm)
    assert (loaded.search("golden fish").ids == arms()[0].index(passages).search("golden fish").ids).all()


def test_wrong_hybrids_are_refused():
    arm = BM25Retriever()
    for wrong, message in [
        (HybridRetriever, "one or more retrievers"),
        (lambda: HybridRetriever("bm25"), "got str"),
        (lambda: HybridRetriever(arm, arm), "stands twice"),
        (lambda: HybridRetriever(arm, fusion="rrf"), "must be callable"),
        (lambda: HybridRetriever(arm, depth=0), "depth"),
        (lambda: weighted_sum((0, 0)), "not all 0"),
        (lambda: weighted_sum((1, -1)), "none negative"),
        (lambda: weighted_sum(normalisation="softmax"), "'softmax'"),
        (lambda: reciprocal_rank_fusion([Hits([[0]], [[1.0]])], weights=(1, 2)), "1 arms need 1 weights"),
        (lambda: FilteredRetriever(arm, []), "one or more callable filters"),
        (lambda: FromDocuments("d1"), "set of ids"),
        (lambda: Reranker(arm, "model"), "callable scorer"),
    ]:
        with pytest.raises(ConfigError, match=message):
            wrong()


class Oracle(Retriever):
    """Knows the answers of some queries, and gives a wrong passage for the others."""

    def __init__(self, *, answers):
        self.answers = answers

    def _index(self, passages):
        self.rows = {passage.id: row for row, passage in enumerate(passages)}

    def _search(self, queries, k):
        rows = [[self.rows[self.answers[query]], 0][:k] for query in queries]
        return rows, [[1.0, 0.5][:k]] * len(queries)


def test_tuning_finds_the_arm_that_is_right(passages):
    queries = [f"question {i}" for i in range(12)]
    right = Oracle(answers={query: f"p{i + 200}" for i, query in enumerate(queries)})
    wrong = Oracle(answers={query: f"p{i + 1}" for i, query in enumerate(queries)})
    hybrid = HybridRetriever(wrong, right).index(passages)
    relevant = [{f"p{i + 200}"} for i in range(12)]
    for fusion in ("weighted_sum", "reciprocal_rank_fusion"):
        tuned = tune_weights(hybrid, queries, relevant, fusion=fusion, n_steps=4)
        assert tuned.weights[1] > tuned.weights[0]
        assert tuned.score == pytest.approx(1.0)
        assert len(tuned.table) == 5
        better = hybrid.with_fusion(tuned.fusion)
        assert ndcg(better.search(queries), relevant, passages).mean() == pytest.approx(tuned.score)
    assert tuned.table["score"].max() == tuned.score
    with pytest.raises(ConfigError, match="no development query"):
        tune_weights(hybrid, queries, [()] * 12)
    with pytest.raises(ConfigError, match="one arm"):
        tune_weights(HybridRetriever(right).index(passages), queries, relevant)


def test_metrics_equal_those_of_trec_eval(passages, queries):
    rng = np.random.default_rng(3)
    hits = BM25Retriever().index(passages).search(queries, 50)
    relevant = [{f"p{row}": int(rng.integers(0, 4)) for row in rng.choice(400, 60, replace=False)} for _ in queries]
    qrels = [
        ir_measures.Qrel(str(q), name, grade) for q, grades in enumerate(relevant) for name, grade in grades.items()
    ]
    run = [
        ir_measures.ScoredDoc(str(query), passages[row].id, 100.0 - rank)
        for query, line in enumerate(hits.ids.tolist())
        for rank, row in enumerate(line)
        if row >= 0
    ]
    for measure, values in [
        (ir_measures.nDCG @ 10, ndcg(hits, relevant, passages, k=10)),
        (ir_measures.R @ 50, recall(hits, relevant, passages, k=50)),
    ]:
        expected = {int(value.query_id): value.value for value in ir_measures.iter_calc([measure], qrels, run)}
        for query, value in enumerate(values):
            assert value == pytest.approx(expected.get(query, 0.0), abs=1e-9)
    assert np.isnan(ndcg(hits.top(5), [{}] * len(queries), passages)).all()


def test_filters_drop_count_and_fill_up():
    quiz = "Which river runs under the old stone bridge of Norvik?"
    answer = "The river Dor runs under the stone bridge, and has done so since the bridge of Norvik was first built."
    passages = [
        Passage("quiz", "Q: which RIVER runs -- under the old stone bridge of Norvik. A: Dor", 15, "quiz"),
        Passage("a", answer, 20, "a"),
        Passage("copy", answer.replace(".", "!"), 20, "b"),
        Passage("short", "River bridge.", 2, "c"),
        Passage("test", "A river under a bridge of stone, as the examiners describe it at some length.", 14, "exam"),
        Passage("rest", "An entirely different river, with a wooden bridge somewhere in the far south.", 14, "e"),
    ]
    filters = [ContainsQuestion(), FromDocuments({"exam"}), MinLength(3), NearDuplicates()]
    retriever = FilteredRetriever(BM25Retriever(), filters).index(passages)
    hits = retriever.search([quiz, "river"], k=2)
    assert [passage.id for passage in hits.take(passages, 0)] == ["a", "rest"]
    everything = retriever.search([quiz, "river"], k=6)
    counts = {name: count.tolist() for name, count in everything.filtered.items()}
    assert counts == {
        "ContainsQuestion": [1, 0],
        "FromDocuments": [1, 1],
        "MinLength": [1, 1],
        "NearDuplicates": [1, 1],
    }
    assert (everything.ids[:, :2] == hits.ids).all()


def test_a_filter_looks_as_deep_as_it_must(passages):
    """Almost everything is dropped: the few that pass are found however low they stand."""
    kept = {"d7", "d50", "d99"}
    dropped = {passage.document_id for passage in passages} - kept
    retriever = FilteredRetriever(BM25Retriever(), FromDocuments(dropped)).index(passages)
    hits = retriever.search("keeps", k=5, store_tokens=[retriever.n_tokens, retriever.n_tokens // 2])
    whole = BM25Retriever().index(passages).search("keeps", k=400).ids[0].tolist()
    expected = [row for row in whole if passages[row].document_id in kept][:5]
    assert hits[retriever.n_tokens].ids[0].tolist() == expected
    half = hits[retriever.n_tokens // 2]
    assert {passages[row].document_id for row in half.ids[0].tolist() if row >= 0} <= {"d7", "d50"}


def test_near_duplicates_are_judged_by_thirteen_words():
    words = [f"w{i}" for i in range(60)]
    texts = [" ".join(words), " ".join(["other", *words[1:]]), " ".join(reversed(words)), "w0 w1", "w0 w1", ""]
    passages = [Passage(str(i), text, 1, "d") for i, text in enumerate(texts)]
    assert NearDuplicates()("", passages) == [True, False, True, True, False, True]
    assert NearDuplicates(threshold=0.99)("", passages) == [True, True, True, True, False, True]


def test_a_reranker_orders_the_candidates_anew(passages, queries):
    reranker = Reranker(BM25Retriever(), by_length, depth=15).index(passages)
    candidates = BM25Retriever().index(passages).search(queries, 15)
    hits = reranker.search(queries, 20)
    for line in range(len(queries)):
        rows = candidates.ids[line][candidates.ids[line] >= 0].tolist()
        expected = sorted(rows, key=lambda row: (-len(passages[row].text), row))
        assert hits.ids[line].tolist() == expected + [-1] * (20 - len(expected))
    half = reranker.n_tokens // 2
    separate = Reranker(BM25Retriever(), by_length, depth=15).index(passages[: reranker.n_passages_in_store(half)])
    assert (reranker.search(queries, 9, store_tokens=half)[half].ids == separate.search(queries, 9).ids).all()
    with pytest.raises(ConfigError, match=r"returned shape \(1,\) for"):
        Reranker(BM25Retriever(), lambda query, passages: [1.0]).index(passages).search("golden fish")


@pytest.fixture(scope="module")
def tiny_cross_encoder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("cross-encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "fish", "lantern", "harbour", "golden", "the"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=1,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


def test_a_cross_encoder_scores_pairs_as_the_model_does(tiny_cross_encoder, passages, tmp_path):
    import torch
    import transformers

    scorer = CrossEncoder(tiny_cross_encoder, max_tokens=64, device="cpu")
    chosen = list(passages[:9])
    scores = scorer("golden fish", chosen)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_cross_encoder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_cross_encoder)
    with torch.inference_mode():
        expected = [
            float(model(**tokenizer("golden fish", p.text, truncation=True, max_length=64, return_tensors="pt")).logits)
            for p in chosen
        ]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert scorer("golden fish", chosen[::-1]) == pytest.approx(scores[::-1], abs=1e-6)
    reranker = Reranker(BM25Retriever(), scorer, depth=10).index(passages)
    reranker.save(tmp_path)
    loaded = Reranker.load(tmp_path)
    assert isinstance(loaded.scorer, CrossEncoder)
    assert (loaded.search("golden fish", 5).ids == reranker.search("golden fish", 5).ids).all()


def test_saved_fusions_and_filters_come_back_equal(passages, tmp_path):
    fusion = WeightedSum((0.25, 0.75), "z_score")
    filters = (FromDocuments({"q": {"d1", "d2"}}), NearDuplicates(0.7), MinLength(5))
    FilteredRetriever(HybridRetriever(*arms(), fusion=fusion), filters).index(passages).save(tmp_path)
    loaded = FilteredRetriever.load(tmp_path)
    assert loaded.filters == filters
    assert loaded.retriever.fusion == fusion
