"""TREC's runs and judgements: back to the last bit, read as its own tools read them, refused with what is wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ragscale as rs
from ragscale.errors import FileError, ResultsError
from ragscale.retrieval import Hits, ndcg, read_trec_qrels, read_trec_run, recall, write_trec_qrels, write_trec_run

STORE = [rs.Passage(f"p{i}", f"text {i}", 2, f"d{i}") for i in range(8)]


@pytest.fixture
def hits():
    rng = np.random.default_rng(0)
    ids = np.array([rng.permutation(8)[:5] for _ in range(4)])
    scores = -np.sort(-rng.standard_normal((4, 5)).astype(np.float32), axis=1)
    ids[2, 3:], scores[2, 3:] = -1, -np.inf
    ids[3], scores[3] = -1, -np.inf
    return Hits(ids, scores)


def test_a_run_comes_back_to_the_last_bit(hits, tmp_path):
    write_trec_run(tmp_path / "run", hits, STORE, ["a", "b", "c", "d"], tag="mine")
    again, names = read_trec_run(tmp_path / "run", STORE, ["a", "b", "c", "d"])
    assert names == ["a", "b", "c", "d"]
    assert np.array_equal(again.ids, hits.ids)
    assert np.array_equal(again.scores, hits.scores)
    shorter, found = read_trec_run(tmp_path / "run", STORE)
    assert found == ["a", "b", "c"]
    assert np.array_equal(shorter.ids, hits.ids[:3])


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8, unique=True))
def test_every_score_survives(tmp_path_factory, scores):
    path = tmp_path_factory.getbasetemp() / "scores"
    values = -np.sort(-np.array([scores], dtype=np.float32), axis=1)
    write_trec_run(path, Hits([list(range(len(scores)))], values), STORE, ["q"])
    again, _ = read_trec_run(path, STORE)
    assert np.array_equal(again.scores, values)


def test_its_own_tools_agree_on_the_measures(hits, tmp_path):
    ir_measures = pytest.importorskip("ir_measures")
    relevant = {"a": {"p1": 2, "p3": 1}, "b": {"p0": 1, "p7": 3}, "c": {f"p{i}": 1 for i in range(8)}}
    write_trec_qrels(tmp_path / "qrels", relevant)
    write_trec_run(tmp_path / "run", hits, STORE, ["a", "b", "c", "d"])
    assert read_trec_qrels(tmp_path / "qrels") == relevant
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels")))
    run = list(ir_measures.read_trec_run(str(tmp_path / "run")))
    measures = [ir_measures.nDCG @ 10, ir_measures.R @ 100]
    grades = [relevant.get(name, {}) for name in "abcd"]
    mine = {"nDCG@10": ndcg(hits, grades, STORE), "R@100": recall(hits, grades, STORE)}
    for one in ir_measures.iter_calc(measures, qrels, run):
        assert one.value == pytest.approx(mine[str(one.measure)]["abcd".index(one.query_id)], abs=1e-6)


def test_ties_of_a_foreign_run_stand_in_the_order_of_the_store(tmp_path):
    (tmp_path / "run").write_text("q Q0 p5 1 1.0 x\nq Q0 p2 2 1.0 x\nq Q0 p7 3 4 x\n")
    again, _ = read_trec_run(tmp_path / "run", STORE)
    assert again.ids.tolist() == [[7, 2, 5]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q Q0 p1 1 2.0\n", "line 1: .* is not 'query Q0 passage rank score tag'"),
        ("q Q0 p9 1 2.0 x\n", "no passage 'p9'"),
        ("q Q0 p1 1 high x\n", "score 'high' is no number"),
        ("q Q0 p1 1 nan x\n", "score 'nan' is no number"),
        ("q Q0 p1 1 2 x\nq Q0 p1 2 1 x\n", "line 2: passage 'p1' stands twice"),
        ("z Q0 p1 1 2 x\n", "no query 'z'"),
    ],
)
def test_what_is_wrong_with_a_run_is_said(text, said, tmp_path):
    (tmp_path / "run").write_text(text)
    with pytest.raises(ResultsError, match=said):
        read_trec_run(tmp_path / "run", STORE, ["q"])


@pytest.mark.parametrize("text", ["q 0 p1 x\n", "q 0 p1\n", "q 0 p1 1\nq 0 p1 2\n", "q 0 p1 1.5\n"])
def test_what_is_wrong_with_judgements_is_said(text, tmp_path):
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(ResultsError, match="line"):
        read_trec_qrels(tmp_path / "qrels")


def test_what_the_format_cannot_hold_is_refused(hits, tmp_path):
    for names, said in ((["a", "b"], "4 queries"), (["a", "b", "c", "d e"], "white space"), (list("abca"), "twice")):
        with pytest.raises(ResultsError, match=said):
            write_trec_run(tmp_path / "run", hits, STORE, names)
    with pytest.raises(ResultsError, match="row 7 of 3 passages"):
        write_trec_run(tmp_path / "run", hits, STORE[:3], list("abcd"))
    with pytest.raises(ResultsError, match="whole numbers"):
        write_trec_qrels(tmp_path / "qrels", {"q": {"p1": 0.5}})
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileError):
        read_trec_qrels(tmp_path / "none")
