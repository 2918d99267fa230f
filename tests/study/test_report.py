"""A page for every state of a study, and what stands on it is held out where it says so."""

import shutil

import numpy as np
import pandas as pd
import pytest
from tiny_study import ONE, SETTINGS, TINY, begun, copy_of

from ragscale.errors import ResultsError, StudyWarning
from ragscale.evaluation import Example, Task
from ragscale.evaluation._evidence import EvidenceSource
from ragscale.fitting import Log1p
from ragscale.passages import Passage
from ragscale.results import select
from ragscale.retrieval import BM25Retriever
from ragscale.study import Study
from ragscale.study._report_surface import held_out_frontier

pytest.importorskip("torch")
pytest.importorskip("matplotlib").use("Agg")
LAW = Log1p(tie=True, fixed={"A": 0.0, "alpha": 0.3, "eta": 1e-3})


def test_the_report_is_one_file_without_network(done, tmp_path):
    text = done.report(tmp_path / "report.html", law=LAW, n_resamples=20).read_text()
    for heading in ("The answer", "The fixed budget", "Controls", "The gain taken apart", "How this was made"):
        assert heading in text
    assert "http" not in text.replace("http-equiv", "")
    assert done.report(tmp_path / "report.md", law=LAW, n_resamples=20).read_text().startswith("# ")


def state(name, done, one, tmp_path):
    """Return a study in one of the states that studies are in."""
    if name == "not run":
        return Study(TINY, tmp_path / "study")
    if name == "split only":
        return begun(one, tmp_path / "study", ONE)
    if name == "retrieved only":
        study = copy_of(one, tmp_path / "study")
        for folder in [*study.directory.glob("stages/train-*"), *study.directory.glob("stages/evaluate-*")]:
            shutil.rmtree(folder)
        return study
    if name == "a pilot of one checkpoint":
        return one
    if name == "a pilot of three cells":
        study = copy_of(one, tmp_path / "study", ONE.replace(R=[1_000, 3_000], conditions=("retrieved",)))
    elif name == "one task":
        (folder,) = one.directory.glob("stages/split-*")
        task = {"path_or_name": str(folder / "questions" / "rare.jsonl"), "kind": "likelihood"}
        study = copy_of(one, tmp_path / "study", ONE.replace(tasks=[task], conditions=("closed-book", "random")))
    elif name == "no retrieval":
        study = copy_of(done, tmp_path / "study", TINY.replace(R=[], budgets=[], conditions=("closed-book",)))
    elif name == "with failures":
        models = [*SETTINGS["models"], {**SETTINGS["models"][0], "name": "<odd>", "training": {"eos_id": 9_999}}]
        study = copy_of(done, tmp_path / "study", TINY.replace(models=models))
        with pytest.warns(StudyWarning, match="jobs failed"):
            study.run(progress=False)
        return study
    else:  # every job failed
        study = begun(one, tmp_path / "study", ONE.replace(training={**SETTINGS["training"], "eos_id": 9_999}))
        with pytest.warns(StudyWarning, match="jobs failed"):
            study.run(progress=False)
        return study
    study.run(progress=False)
    return study


STATES = {
    "not run": ("run the study first", "waiting"),
    "split only": ("run the study first",),
    "retrieved only": ("run the study first", "hit_rate"),
    "a pilot of one checkpoint": ("could not be computed", "Every cell of the plan was evaluated"),
    "a pilot of three cells": ("Every cell of the plan was evaluated",),
    "one task": ("Every cell of the plan was evaluated",),
    "no retrieval": ("No cell has a store", "Nothing is retrieved in this study"),
    "with failures": ("jobs of the study are not done", "&lt;odd&gt;"),
    "all failed": ("jobs failed", "eos_id=9999"),
}


@pytest.mark.parametrize("name", STATES)
def test_there_is_a_page_for_every_state(name, done, one, tmp_path):
    study = state(name, done, one, tmp_path)
    text = study.report(tmp_path / "report.md", n_resamples=10).read_text()
    for said in STATES[name]:
        assert said in text
    assert "How this was made" in text
    assert "Traceback" not in text


def test_a_metric_or_task_that_is_not_there_is_named(one, tmp_path):
    with pytest.raises(ResultsError, match=r"no metric 'bpb'; it has .*nll_per_token"):
        one.report(tmp_path / "r.html", metric="bpb")
    with pytest.raises(ResultsError, match=r"no task 'squad'; it has .*rare"):
        one.report(tmp_path / "r.html", task="squad")


def frontier_table():
    """A law of R that fails on the budget alone: cells with D + R = T and a store lie 0.5 above it."""
    rows = []
    for n in (1e5, 3e5, 1e6):
        for d in (1e6, 2e6, 4e6, 8e6):
            for r in (0.0, 1e5, 1e6, 1e7 - d):
                value = 2 + 40 * n**-0.3 + 60 * d**-0.3 - 0.05 * np.log1p(1e-5 * r)
                on = r == 1e7 - d
                rows.append({"N": n, "D": d, "R": r, "seed": 0, "value": value + 0.5 * on, "on": on})
    # a checkpoint that was trained on the whole budget has no store: no frontier cell in the sense of a prediction
    rows.append({"N": 1e6, "D": 1e7, "R": 0.0, "seed": 0, "value": 2 + 40 * 1e6**-0.3 + 60 * 1e7**-0.3, "on": False})
    return pd.DataFrame(rows)


def test_the_frontier_is_predicted_by_a_fit_that_never_saw_it_and_holds_no_cell_without_a_store():
    table = frontier_table()
    held, inside = held_out_frontier(table, (10_000_000,), Log1p())
    assert held["on"].all()
    assert len(held) == table["on"].sum() == 12
    assert (held["R"] > 0).all()
    truth = held["value"] - 0.5
    assert held["predicted"].to_numpy() == pytest.approx(truth.to_numpy(), rel=2e-3), (
        "what is held out must not leak in"
    )
    assert inside["error_percent"].abs().max() < 0.2
    assert (held["error_percent"] < -5).all()
    assert (inside["D"] == 1e7).any(), "the checkpoint without a store is in the fit"


def test_a_mean_over_tasks_is_of_cells_that_have_them_all():
    cells = [(d, task) for d in (1e6, 2e6) for task in ("a", "b")]
    rows = [
        {"N": 1e6, "D": d, "R": 0.0, "seed": 0, "task": task, "metric": "m", "condition": "closed-book", "value": value}
        for (d, task), value in zip(cells, (1.0, 3.0, 1.0, 3.0), strict=True)
    ]
    whole = select(pd.DataFrame(rows), metric="m")
    assert whole["value"].tolist() == [2.0, 2.0]
    lacking = select(pd.DataFrame(rows[:3]), metric="m")
    assert lacking[["D", "value"]].values.tolist() == [[1e6, 2.0]]


@pytest.mark.parametrize("named", ["gold_doc_ids", "gold_passages", "both", "passages that are whole documents"])
def test_neither_a_gold_document_nor_a_gold_passage_is_a_random_one(named):
    """The gold texts hold no answer in words, so that only their names keep them out."""
    passages = [Passage(f"p{i}", f"text number {i}", 3, f"d{i // 2}") for i in range(40)]
    gold = {"gold_doc_ids": ("d3",), "gold_passages": ("p11", "p12")}
    whole = {"gold_passages": ("d3", "d7")}  # as in the invented world, where a document is a passage
    given = {"both": gold, "passages that are whole documents": whole}.get(named) or {named: gold[named]}
    forbidden = {p.id for p in passages if p.id in given.get("gold_passages", ())}
    names = {*given.get("gold_doc_ids", ()), *given.get("gold_passages", ())}
    forbidden |= {p.id for p in passages if p.document_id in names}
    questions = tuple(Example(id=str(i), question=f"what {i}", answers=("zebra",), **given) for i in range(60))
    task = Task(name="t", kind="likelihood", examples=questions)
    retriever = BM25Retriever().index(passages)
    source = EvidenceSource(
        retriever, k=5, seed=0, gold={}, rule=lambda task, e: e.question, condition_of_hits="retrieved"
    )
    ((_, drawn),) = source.of(task, questions, "random", [retriever.n_tokens])
    shown = {identity for passages_of in drawn for identity, _ in passages_of}
    assert not shown & forbidden
    beside = {p.document_id for p in passages if p.id in given.get("gold_passages", ())}
    others = {p.id for p in passages if p.document_id not in beside} - forbidden
    assert shown == others, "nor what stands beside a gold passage; every passage of other documents is drawn"
