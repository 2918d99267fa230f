"""What a retriever promises once constructed, and what it refuses from its own subclass."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale import Document, Passage
from ragscale.errors import ConfigError, ImmutableError, NotIndexedError
from ragscale.retrieval import (
    BM25Retriever,
    Encoder,
    FilteredRetriever,
    Hits,
    HybridRetriever,
    MinLength,
    Reranker,
    Retriever,
    top_k,
)
from ragscale.testing import check_retriever

STORE = [
    Passage(str(i), text, 4, f"d{i}") for i, text in enumerate(["red fish swims", "blue fish", "blue sky", "honey"])
]


def by_length(query, passages):
    return [len(passage.text) for passage in passages]


class Overlap(Retriever):
    """A user's own: counts shared words times a weight; loads something on first use."""

    def __init__(self, weight=1.0, model=None):
        self.weight, self.model, self.calls = weight, model, 0

    def _index(self, passages):
        self.words = [set(passage.text.split()) for passage in passages]

    def _search(self, queries, k):
        self.calls += 1
        self.model = self.model or "loaded"
        shared = [[self.weight * len(words & set(q.split())) or -np.inf for words in self.words] for q in queries]
        return top_k(shared, k)


class Letters(Encoder):
    dim = 26

    def __init__(self, scale=1.0):
        self.scale = scale

    def _encode(self, texts, kind):
        self.last = texts[-1]
        return [[self.scale * text.count(chr(97 + i)) for i in range(26)] for text in texts]


# -------------------------------------------------------------------------------------------------------- immutable

MADE = {
    "bm25": (BM25Retriever, ("k1", "b", "stemmer", "stop_words", "token_pattern", "length_encoding", "n_threads")),
    "hybrid": (lambda: HybridRetriever(BM25Retriever()), ("fusion", "depth", "retrievers")),
    "filtered": (lambda: FilteredRetriever(BM25Retriever(), [MinLength(1)]), ("filters", "retriever")),
    "reranked": (lambda: Reranker(BM25Retriever(), by_length), ("scorer", "depth", "retriever")),
    "own": (lambda: Overlap(2.0), ("weight", "model")),
    "encoder": (lambda: Letters(2.0), ("scale",)),
    "lsa": (lambda: rs.retrieval.LsaEncoder(2), ("n_components", "stop_words", "seed")),
    "transformer": (lambda: rs.retrieval.TransformerEncoder("x"), ("pooling", "query_prompt", "normalize", "layer")),
}  # fmt: skip


@pytest.mark.parametrize(("make", "names"), MADE.values(), ids=MADE.keys())
def test_no_argument_changes_after_construction(make, names):
    made = make()
    for name in names:
        before = getattr(made, name)
        with pytest.raises((ImmutableError, AttributeError)):
            setattr(made, name, 3.0)
        with pytest.raises(AttributeError):
            delattr(made, name)
        assert getattr(made, name) is before or getattr(made, name) == before


def test_the_error_says_what_to_do_and_nothing_has_changed():
    retriever = BM25Retriever().index(STORE)
    before = retriever.search(["blue fish"], 3, store_tokens=[4, 8, 16])
    with pytest.raises(ImmutableError, match=r"k1 of this BM25Retriever .* Make a new one, BM25Retriever\(\.\.\., k1="):
        retriever.k1 = 3.0
    after = retriever.search(["blue fish"], 3, store_tokens=[4, 8, 16])
    assert all((before[size].scores == after[size].scores).all() for size in before)
    assert retriever.describe()["parameters"]["k1"] == retriever.k1 == 0.9
    assert issubclass(ImmutableError, ConfigError)


def test_the_methods_that_a_subclass_writes_may_set_what_they_like():
    retriever = Overlap(2.0).index(STORE)
    assert retriever.search("blue fish", 2).ids.tolist() == [[1, 0]]
    assert (retriever.calls, retriever.model) == (1, "loaded")
    retriever.calls = 0  # no constructor argument
    assert Letters().encode("ab").shape == (1, 26)
    assert "another_process_loads_it" in check_retriever(lambda: BM25Retriever(compiled=False))


def test_copies_and_pickles_are_immutable_too():
    for made in (BM25Retriever(k1=2.0), Overlap(2.0).index(STORE)):
        for same in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            with pytest.raises(ImmutableError):
                same.k1 = same.weight = 1.0


def test_searching_in_threads_opens_no_door():
    retriever, errors = BM25Retriever().index(STORE), []

    def change():
        try:
            retriever.k1 = 5.0
        except ImmutableError as error:
            errors.append(error)

    class Slow(Overlap):
        def _search(self, queries, k):
            thread = threading.Thread(target=change)
            thread.start()
            thread.join()
            return super()._search(queries, k)

    Slow().index(STORE).search("fish")
    assert len(errors) == 1
    assert retriever.k1 == 0.9


def test_signatures_stay_readable():
    import inspect

    assert "k1" in inspect.signature(BM25Retriever).parameters
    assert list(inspect.signature(Overlap).parameters) == ["weight", "model"]


# ----------------------------------------------------------------------------------------- retrievers made of others


@pytest.mark.parametrize(
    "wrap", [HybridRetriever, lambda r: FilteredRetriever(r, [MinLength(1)]), lambda r: Reranker(r, by_length)]
)
def test_a_retriever_that_was_handed_over_is_never_indexed_again(wrap):
    mine = BM25Retriever().index(STORE)
    before = mine.search(["blue fish", "honey"], 3)
    others = [Passage("x", "honey and blue", 3, "x"), Passage("y", "fish", 3, "y")]
    wrapped = wrap(mine).index(others)
    assert mine.passages == tuple(STORE)
    assert (mine.search(["blue fish", "honey"], 3).ids == before.ids).all()
    assert wrapped.search("honey", 1).ids.tolist() == [[0]]
    assert wrapped.describe()["n_passages"] == wrapped.describe()["parts"][0]["n_passages"] == 2
    again = wrap(mine).index(list(STORE))
    assert again._parts()[0] is mine  # the same passages: nothing is done twice
    assert wrapped.search("honey", 1).ids.tolist() == [[0]]


def test_two_hybrids_over_two_stores_share_what_they_can():
    bm25 = BM25Retriever()
    one = HybridRetriever(bm25).index(STORE)
    two = HybridRetriever(bm25).index(STORE[:2])
    assert one.search("sky", 1).ids.tolist() == [[2]]
    assert two.search("sky", 1).ids.tolist() == [[-1]]
    assert bm25.n_passages == 4
    nested = FilteredRetriever(one, [MinLength(1)])
    assert nested.index(STORE[:3]).search("sky", 1).ids.tolist() == [[2]]
    assert nested.index(list(STORE)).index(STORE[1:]).search("honey", 1).ids.tolist() == [[2]]
    assert one.search("honey", 1).ids.tolist() == [[3]]
    bm25.index(STORE[2:])
    with pytest.raises(NotIndexedError, match="other passages since"):
        one.search("sky")


# ---------------------------------------------------------------------------------------------------- what goes in


@pytest.mark.parametrize(
    "texts",
    [
        ["red fish", "blue 東京"],
        ("red fish", "blue 東京"),
        np.array(["red fish", "blue 東京"]),
        pd.Series(["red fish", "blue 東京"]),
    ],
)
def test_plain_strings_are_passages(texts, tmp_path):
    retriever = BM25Retriever().index(texts)
    assert [p.id for p in retriever.passages] == ["0", "1"]
    assert [p.n_tokens for p in retriever.passages] == [2, 3]
    assert retriever.search("blue", 1).ids.tolist() == [[1]]
    assert set(retriever.search("blue", 1, store_tokens=[2, 5])) == {2, 5}
    retriever.save(tmp_path / "a", store_passages=False)
    assert BM25Retriever.load(tmp_path / "a", passages=texts).search("blue", 1).ids.tolist() == [[1]]


@pytest.mark.parametrize(
    ("passages", "message"),
    [
        ("one long text", r"list of Passage or of strings, got str: give \[text\]"),
        (b"bytes", "got bytes"),
        (5, "got int"),
        (None, "got NoneType"),
        (pd.DataFrame({"text": ["a"]}), "got DataFrame"),
        ([], "no passage"),
        ([""] * 0, "no passage"),
        ([STORE[0], "a"], "row 1 is a str, not a Passage: give strings alone"),
        ([Document("a", "text")], r"row 0 is a Document, not a Passage: cut it with ragscale\.passages\.chunk"),
        ([{"text": "a"}], "row 0 is a dict"),
        ([Passage("a", None, 3, "a")], "row 0 has a text that is a NoneType"),
        (["a", 5], "row 1 is a int"),
    ],
)
def test_what_is_no_list_of_passages_is_refused(passages, message):
    with pytest.raises(ConfigError, match=message):
        BM25Retriever().index(passages)


def test_a_store_is_a_list_of_passages(tmp_path):
    tokenizer = rs.splitting.train_tokenizer(["red fish and blue sky"] * 4, 300)
    documents = [Document(str(i), f"red fish {i} and blue sky") for i in range(4)]
    split = rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer)
    store = split.store(split.n_tokens)
    assert BM25Retriever().index(store).n_passages == len(store)


# ------------------------------------------------------------------------------------------- what a subclass answers


def answering(answer, nested=None):
    class Own(Retriever):
        def _index(self, passages):
            pass

        def _search(self, queries, k):
            return answer

    if nested is not None:
        Own._search_nested = lambda self, queries, k, counts: nested
    return Own().index(STORE)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, r"a NoneType instead of rows and scores, expected both \(1, at most 2\)"),
        (7, "a int instead of rows"),
        ("ab", "a str instead of rows"),
        ({"rows": 1, "scores": 2}, "a dict instead"),
        (([[0, 1]],), "1 things instead of rows"),
        (([[0]], [[1.0]], 3), "3 things instead"),
        (([0, 1], [0.5, 0.4]), r"rows \(2,\) and scores \(2,\), expected both \(1, at most 2\)"),
        (([[0, 1]] * 2, [[0.5, 0.4]] * 2), r"rows \(2, 2\) and scores \(2, 2\), expected both \(1, at most 2\)"),
        (([[0, 1]], [[0.5]]), r"rows \(1, 2\) and scores \(1, 1\)"),
        (([[0, 1], [0]], [[0.5, 0.4], [1]]), "rows of different lengths"),
        (([["0", "1"]], [[0.5, 0.4]]), "rows of type <U1 instead of numbers"),
        (([[0.5, 1]], [[0.5, 0.4]]), "rows that are no whole numbers"),
        (([[np.nan, 1]], [[0.5, 0.4]]), "rows that are no whole numbers"),
        (([[0, 9]], [[0.5, 0.4]]), "row 9 from a store of 4 passages"),
        (([[0, -2]], [[0.5, 0.4]]), "row -2 from"),
        (([[0, 1]], [[0.5, np.nan]]), "score that is not a number"),
        (([[1, 1]], [[0.5, 0.4]]), "row 1 twice for query 0"),
        (([[0, 1]], [[None, "x"]]), "scores of type object instead of numbers"),
    ],
)  # fmt: skip
def test_an_answer_of_the_wrong_shape_is_named(answer, message):
    with pytest.raises(ConfigError, match=f"^Own returned {message}|^Own.*{message}"):
        answering(answer).search("fish", 2)
    with pytest.raises(AssertionError, match=r"hits_are_well_formed: Own|index_returns|: "):
        check_retriever(lambda: answering(answer))


@pytest.mark.parametrize("nested", [None.__class__, [], 3, [([[0]], [[1.0]])]], ids=repr)
def test_as_many_answers_as_stores_are_expected(nested):
    retriever = answering(([[0]], [[1.0]]), nested=nested)
    with pytest.raises(ConfigError, match=r"Own\._search_nested returned .* for 2 stores, expected one for each"):
        retriever.search("fish", 1, store_tokens=[4, 8])


@pytest.mark.parametrize(
    "answer", [([[1, 0]], [[0.1, 0.9]]), np.array([[[1.0, 0.0]], [[0.1, 0.9]]]), Hits([[1, 0]], [[0.1, 0.9]])]
)
def test_every_good_form_of_an_answer_is_put_in_order(answer):
    hits = answering(answer).search("fish", 2)
    assert hits.ids.tolist() == [[0, 1]]
    more = answering(([[2, 1, 0, 3]], [[0.1, 0.2, 0.3, 0.4]])).search("fish", 2)
    assert more.ids.tolist() == [[3, 0]]


@pytest.mark.parametrize("vectors", [None, [["a"]], [[1.0], [1.0, 2.0]], 5])
def test_an_encoder_that_gives_no_vectors_is_named(vectors):
    class Bad(Encoder):
        dim = 2

        def _encode(self, texts, kind):
            return vectors

    with pytest.raises(ConfigError, match="Bad returned"):
        Bad().encode("text")
    with pytest.raises(ConfigError, match=r"one: give \['text'\]"):
        Letters().fit("text")
