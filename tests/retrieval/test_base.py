"""The contract that every retriever inherits: checks, order, padding, stores, saving."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from ragscale import Passage
from ragscale.errors import CheckpointError, ConfigError, NotIndexedError
from ragscale.retrieval import Hits, Retriever, top_k
from ragscale.testing import check_retriever


class WordOverlap(Retriever):
    """About ten lines, as the guide promises."""

    def __init__(self, *, weight: float = 1.0) -> None:
        self.weight = weight

    def _index(self, passages):
        self.words = [set(passage.text.lower().replace(".", " ").split()) for passage in passages]

    def _search(self, queries, k):
        asked = [set(query.lower().replace("?", " ").split()) for query in queries]
        shared = [[self.weight * len(words & query) or -np.inf for words in self.words] for query in asked]
        return top_k(np.reshape(shared, (len(queries), len(self.words))), k)


class WithFunction(WordOverlap):
    def __init__(self, function, *, weight=1.0):
        super().__init__(weight=weight)
        self.function = function


def store(*lengths: int) -> list[Passage]:
    return [Passage(f"p{i}", f"fish number{i}", n + 1, "d", n) for i, n in enumerate(lengths)]


def test_a_subclass_of_ten_lines_passes_every_check():
    checks = check_retriever(WordOverlap)
    assert len(checks) == len(set(checks)) == 17
    assert "another_process_loads_it" in checks
    assert "nested_stores_equal_separate_indexes" in checks


@pytest.mark.parametrize(("tokens", "n"), [(0, 0), (2, 0), (3, 1), (7, 1), (8, 2), (9, 2), (10, 3), (10**9, 3)])
def test_a_store_is_the_longest_prefix_that_fits(tokens, n):
    retriever = WordOverlap().index(store(3, 5, 2))
    assert retriever.n_tokens == 10
    assert retriever.n_passages_in_store(tokens) == n
    hits = retriever.search("fish", k=3, store_tokens=tokens)[tokens]
    assert sorted(hits.ids[0].tolist()) == sorted([-1] * (3 - n) + list(range(n)))
    assert np.isneginf(hits.scores[0, n:]).all()


def test_stores_of_the_same_passages_share_one_answer():
    found = WordOverlap().index(store(3, 5, 2)).search("fish", k=2, store_tokens=[8, 9])
    assert list(found) == [8, 9]
    assert (found[8].ids == found[9].ids).all()


def test_a_store_never_sees_what_lies_beyond_it():
    passages = store(3, 5, 2)
    base = WordOverlap().index(passages).search("fish number2", k=3, store_tokens=8)[8]
    other = [*passages[:2], Passage("x", "fish fish number2 number0", 3, "d", 2)]
    changed = WordOverlap().index(other).search("fish number2", k=3, store_tokens=8)[8]
    assert (base.ids == changed.ids).all()
    assert (base.scores == changed.scores).all()


def test_whole_floats_are_store_sizes_and_others_are_not():
    retriever = WordOverlap().index(store(3, 5))
    assert list(retriever.search("fish", 1, store_tokens=[3e0, np.int64(8)])) == [3, 8]
    with pytest.raises(ConfigError, match=r"whole number, got 2\.5"):
        retriever.search("fish", 1, store_tokens=2.5)
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        retriever.search("fish", 1, store_tokens=[-1])
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        retriever.search("fish", 0)


def test_every_wrong_passage_is_named_at_once():
    wrong = [*store(1, 2), Passage("p0", "again", 1, "d"), "text", Passage("q", "t", 1, "d", -1)]
    with pytest.raises(ConfigError) as error:
        WordOverlap().index(wrong)
    message = str(error.value)
    for part in ("row 2 repeats the id 'p0'", "row 3 is a str", "row 4 has n_new_tokens = -1"):
        assert part in message
    with pytest.raises(ConfigError, match="no passage"):
        WordOverlap().index([])


def test_queries_must_be_text():
    with pytest.raises(ConfigError, match="query 1 is a int"):
        WordOverlap().index(store(1)).search(["a", 3])


def test_a_failed_index_leaves_nothing_half_built():
    class Fails(WordOverlap):
        def _index(self, passages):
            raise RuntimeError("disk full")

    retriever = Fails()
    with pytest.raises(RuntimeError, match="disk full"):
        retriever.index(store(1))
    with pytest.raises(NotIndexedError, match=r"call index\(passages\) first"):
        retriever.search("fish")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (([[5]], [[1.0]]), "row 5 from a store of 2"),
        (([[-3]], [[1.0]]), "row -3"),
        (([[0]], [[np.nan]]), "not a number"),
        (([0], [1.0]), "expected both"),
        (([[0], [1]], [[1.0], [1.0]]), "expected both"),
    ],
)
def test_what_breaks_the_contract_is_refused_with_its_value(answer, message):
    class Broken(WordOverlap):
        def _search(self, queries, k):
            return answer

    with pytest.raises(ConfigError, match=message):
        Broken().index(store(1, 1)).search("fish")


def test_a_subclass_may_return_its_hits_in_any_order():
    class Shuffled(WordOverlap):
        def _search(self, queries, k):
            return [[2, -1, 0, 1]], [[1.0, 9.0, 1.0, 2.0]]

    hits = Shuffled().index(store(1, 1, 1)).search("fish", k=4)
    assert hits.ids.tolist() == [[1, 0, 2, -1]]
    assert hits.scores.tolist() == [[2.0, 1.0, 1.0, -np.inf]]


def test_top_k_breaks_ties_by_row_for_every_k():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (20, 50)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    rows, values = top_k(scores, 50)
    for line in range(20):
        order = sorted(range(50), key=lambda row, line=line: (-scores[line, row], row))
        expected = [row for row in order if scores[line, row] > -np.inf]
        assert rows[line].tolist() == expected + [-1] * (50 - len(expected))
    for k in (1, 3, 17, 60):
        fewer, _ = top_k(scores, k)
        assert (fewer[:, :50] == rows[:, :k]).all()
        assert (fewer[:, 50:] == -1).all()
    assert (values[rows == -1] == -np.inf).all()


def test_hits_give_passages_and_tables():
    hits = Hits([[1, 0], [0, -1]], [[2.0, 1.0], [0.5, -np.inf]])
    passages = store(1, 1)
    assert [passage.id for passage in hits.take(passages, 0)] == ["p1", "p0"]
    frame = hits.to_frame(passages)
    assert frame["passage_id"].tolist() == ["p1", "p0", "p0"]
    assert frame["rank"].tolist() == [1, 2, 1]
    assert len(hits) == 2
    with pytest.raises(ConfigError, match="one shape"):
        Hits([[1]], [[1.0, 2.0]])


def test_a_saved_retriever_says_what_it_cannot_store(tmp_path):
    WithFunction(len, weight=2.0).index(store(1, 2)).save(tmp_path / "index")
    with pytest.raises(CheckpointError, match=r"function could not be stored.*load\(path, function=\.\.\.\)"):
        WithFunction.load(tmp_path / "index")
    loaded = WithFunction.load(tmp_path / "index", function=len)
    assert loaded.weight == 2.0
    assert loaded.describe()["parameters"] == {"function": "len", "weight": 2.0}
    with pytest.raises(ConfigError, match="has no argument wieght"):
        WithFunction.load(tmp_path / "index", function=len, wieght=1)


def test_the_base_class_loads_any_known_subclass(tmp_path):
    retriever = WordOverlap(weight=3.0).index(store(1, 2))
    retriever.save(tmp_path)
    loaded = Retriever.load(tmp_path)
    assert type(loaded) is WordOverlap
    assert (loaded.search("fish").scores == retriever.search("fish").scores).all()
    description = json.loads((tmp_path / "retriever.json").read_text())
    description["class"] = "nowhere:Missing"
    del description["content_sha256"]
    (tmp_path / "retriever.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="nowhere:Missing, which is not loaded"):
        Retriever.load(tmp_path)


def test_save_never_mixes_with_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        WordOverlap().index(store(1)).save(tmp_path)
    with pytest.raises(CheckpointError, match="no saved retriever"):
        WordOverlap.load(tmp_path / "missing")


def test_saving_again_replaces(tmp_path):
    WordOverlap().index(store(1, 2, 3)).save(tmp_path / "index")
    WordOverlap().index(store(4)).save(tmp_path / "index", store_passages=False)
    with pytest.raises(CheckpointError, match="saved without its passages"):
        WordOverlap.load(tmp_path / "index")
    assert WordOverlap.load(tmp_path / "index", passages=store(4)).n_tokens == 4


def test_text_that_no_encoding_holds_survives(tmp_path):
    odd = [Passage("a", "lone \ud800 surrogate\u2028line\r\nend", 2, "d")]
    WordOverlap().index(odd).save(tmp_path)
    assert list(WordOverlap.load(tmp_path).passages) == odd


def test_retrievers_can_be_copied_and_pickled():
    retriever = WordOverlap(weight=2.0).index(store(1, 2))
    for twin in (copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))):
        assert (twin.search("fish").ids == retriever.search("fish").ids).all()
        assert twin.describe() == retriever.describe()


def test_a_sequence_of_passages_is_kept_as_it_is():
    class Lazy(tuple):
        __slots__ = ()

    lazy = Lazy(store(1, 2))
    assert WordOverlap().index(lazy).passages is lazy
    listed = store(1, 2)
    retriever = WordOverlap().index(listed)
    listed.clear()
    assert retriever.n_passages == 2


def test_progress_is_shown_only_when_asked(capsys):
    class Tracked(WordOverlap):
        def _index(self, passages):
            super()._index(list(self._track(passages, what="index", total=len(passages))))

    Tracked().index(store(1, 2))
    assert capsys.readouterr().err == ""
    retriever = Tracked().index(store(1, 2), progress=True)
    assert "index" in capsys.readouterr().err
    retriever.search("fish")
    assert capsys.readouterr().err == ""


def test_a_wrong_number_of_arguments_is_a_type_error():
    with pytest.raises(TypeError, match="weigth"):
        WordOverlap(weigth=1)


# check_retriever must notice each broken promise; each of these classes breaks one


class TiesByChance(WordOverlap):
    def _search(self, queries, k):
        rows, scores = super()._search(queries, len(self.words))
        last_first = np.lexsort((-rows, -scores))[:, :k]
        return np.take_along_axis(rows, last_first, 1), np.take_along_axis(scores, last_first, 1)


class ForgetsTheStore(WordOverlap):
    def _search_nested(self, queries, k, n_passages_per_store):
        rows, scores = self._search(queries, self.n_passages)
        rows = np.asarray(rows)
        return [(np.where(rows < n, rows, -1), scores) for n in n_passages_per_store]

    def _search(self, queries, k):
        rows, scores = super()._search(queries, k)
        return rows, np.where(rows < 0, -np.inf, scores + len(self.words))


class DependsOnTheBatch(WordOverlap):
    def _search(self, queries, k):
        rows, scores = super()._search(queries, k)
        return rows, np.where(rows < 0, -np.inf, scores * len(queries))


class KeepsTheOldIndex(WordOverlap):
    def _index(self, passages):
        super()._index(passages)
        self.seen = getattr(self, "seen", 0) + 1

    def _search(self, queries, k):
        rows, scores = super()._search(queries, k)
        return rows, np.where(rows < 0, -np.inf, scores + self.seen)


class LosesItsState(WordOverlap):
    def _load(self, directory):
        self.words = [set() for _ in self.passages]


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (TiesByChance, "a_smaller_k_is_a_prefix|equal_passages_stand"),
        (ForgetsTheStore, "nested_stores_equal"),
        (DependsOnTheBatch, "a_batch_equals"),
        (KeepsTheOldIndex, "search_is_deterministic"),
        (LosesItsState, "what_is_loaded"),
    ],
)
def test_check_retriever_names_the_broken_promise(broken, check):
    with pytest.raises(AssertionError, match=f"^({check})"):
        check_retriever(broken)


def test_importing_retrieval_loads_nothing_heavy():
    code = (
        "import sys, ragscale.retrieval as r; r.BM25Retriever; r.HybridRetriever; r.LuceneRetriever; "
        "heavy = ('torch', 'transformers', 'faiss', 'numba', 'bm25s', 'sklearn', 'jnius'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
