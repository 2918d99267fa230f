"""Arguments of the wrong kind: one error that names the argument and the value, never one from inside."""

from __future__ import annotations

import pytest

import ragscale as rs
from ragscale.errors import ConfigError
from ragscale.evaluation import Example, LanguageModel, PromptTemplate, Score, Task, compare_conditions
from ragscale.passages import Passage
from ragscale.retrieval import (
    BM25Retriever,
    DenseRetriever,
    FilteredRetriever,
    HybridRetriever,
    LsaEncoder,
    Reranker,
    ShardedDenseRetriever,
)


class Says(LanguageModel):
    max_length, prefix_token = 4096, 0

    def _encode(self, texts):
        return [list(text.encode()) for text in texts]

    def _decode(self, tokens):
        return [bytes(row).decode(errors="replace") for row in tokens]

    def _score(self, requests):
        return [Score((-1.0,) * len(r.continuations), (False,) * len(r.continuations)) for r in requests]

    def _generate(self, prompts, max_new_tokens, stop):
        return ["x"] * len(prompts)


STORE = BM25Retriever().index([Passage(str(i), f"bell town {i}", 4, str(i)) for i in range(9)])
TASK = Task(name="t", kind="generate", examples=[Example(id="1", question="town 3", answers="bell")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": None}, "tasks must be a Task.*None"),
        ({"tasks": 5}, "tasks must be a Task.*5"),
        ({"tasks": [TASK, 5]}, "5"),
        ({"N": "30M"}, "N must be a whole number, got '30M'"),
        ({"D": float("nan")}, "D must be a whole number, got nan"),
        ({"D": -5}, "D must be at least 0, got -5"),
        ({"model_seed": "a"}, "model_seed must be a whole number"),
        ({"batch_tokens": -5}, "batch_tokens must be at least 1"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be"),
        ({"k": "x"}, "k must be a whole number"),
        ({"k": 2.5}, "k must be .* got 2.5"),
        ({"n_shot": None}, "n_shot must be"),
        ({"max_length": "ten"}, "max_length must be"),
        ({"condition": None}, "condition must be among"),
        ({"condition": [1]}, "condition must be among"),
        ({"store_tokens": [8, "x", None, True, -1]}, r"store_tokens must be counts.*\['x', None, True, -1\]"),
        ({"store_tokens": []}, "store_tokens must be counts.*none"),
        ({"retriever": "bm25"}, "retriever must be an indexed Retriever, got 'bm25'"),
        ({"gold": 5, "condition": "oracle"}, "gold must map"),
        ({"gold": "text", "condition": "oracle"}, "gold must map"),
        ({"gold": {"a": 5}, "condition": "oracle"}, "gold must map"),
        ({"query": 5}, "query must be"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_evaluate_names_what_is_wrong(arguments, message):
    options = {"tasks": TASK, "N": 1e6, "D": 1e7, "retriever": STORE, "store_tokens": 8, **arguments}
    with pytest.raises(ConfigError, match=message):
        rs.evaluate(Says(), options.pop("tasks"), **options)


def test_evaluate_takes_counts_in_every_form():
    found = rs.evaluate(Says(), TASK, retriever=STORE, store_tokens=["8", 1.2e1], k=2.0, N="3e7", D=2e8, max_length=4e3)
    assert sorted(set(found.results["R"])) == [8, 12]
    assert found.results[["N", "D", "k"]].drop_duplicates().to_numpy().tolist() == [[3e7, 2e8, 2]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BM25Retriever(k1="a"), "k1 must be at least 0, got 'a'"),
        (lambda: BM25Retriever(k1=float("inf")), "k1 must be"),
        (lambda: BM25Retriever(b=True), "b must be from 0 to 1"),
        (lambda: BM25Retriever(n_threads="many"), "n_threads must be at least 1, got 'many'"),
        (lambda: BM25Retriever(stop_words=5), "stop_words must be"),
        (lambda: BM25Retriever(token_pattern="("), "token_pattern"),
        (lambda: BM25Retriever(token_pattern="(a)(b)"), "at most one group"),
        (lambda: HybridRetriever(BM25Retriever(), depth="x"), "depth must be at least 1, got 'x'"),
        (lambda: Reranker(BM25Retriever(), len, depth=None), "depth of at least 1"),
        (lambda: FilteredRetriever(BM25Retriever(), 5), "callable filters.*5"),
        (lambda: LsaEncoder("x"), "n_components must be at least 1"),
        (lambda: DenseRetriever(LsaEncoder(2), None), "index must be 'flat' or"),
        (lambda: DenseRetriever(LsaEncoder(2), depth="x"), "depth must be at least 1, got 'x'"),
        (lambda: ShardedDenseRetriever("flat"), "template must be a DenseRetriever"),
        (lambda: STORE.search(None), "queries must be strings, got NoneType"),
        (lambda: STORE.search(5), "queries must be strings, got int"),
        (lambda: STORE.search("a", 10**10), r"k=10,000,000,000 hits for 1 queries .* lower k \(the index holds 9"),
        (lambda: STORE.search("a", 1, store_tokens=[None]), r"store_tokens\[0\] must be a whole number"),
        (
            lambda: HybridRetriever(BM25Retriever(), fusion=lambda hits: None).index(["b c"]).search("b"),
            "the fusion <lambda> returned a NoneType",
        ),
        (
            lambda: Reranker(BM25Retriever(), lambda q, p: ["x"]).index(["b c"]).search("b"),
            "the scorer gave no numbers for 1 passages",
        ),
        (
            lambda: Reranker(BM25Retriever(), lambda q, p: [float("nan")]).index(["b c"]).search("b"),
            "the scorer returned a score that is not a number",
        ),
        (lambda: PromptTemplate(question=5), "question must be text, got 5"),
        (lambda: PromptTemplate(question="{question:>999999999}"), "formats a field"),
        (lambda: PromptTemplate(question="{question!r}"), "formats a field"),
        (lambda: PromptTemplate(passage_tokens="x", answer_prefix=None), "answer_prefix must be text.*passage_tokens"),
        (lambda: Says().generate("abc"), "prompts must be token ids"),
        (lambda: compare_conditions("samples"), "samples must be Evaluation.samples"),
    ],
    ids=range(27),
)
def test_constructors_and_searches_name_what_is_wrong(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_right_choice_is_the_answer_where_none_is_given():
    example = Example(id="1", question="town 3", choices=("bell", "horn"), answer_index=0)
    task = Task(name="c", kind="multiple_choice", examples=[example])
    found = rs.evaluate(Says(), task, retriever=STORE, store_tokens=36, k=2, N=1, D=1).results
    assert set(found["hit_rate"]) == set(found["answer_in_store"]) == {1.0}
