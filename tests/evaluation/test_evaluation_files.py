"""An evaluation on disk: the same frames to the last bit, or an error that names the file."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import CheckpointError, ResultsError
from ragscale.evaluation import Evaluation, Example, LanguageModel, Score, Task
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever


class Says(LanguageModel):
    max_length, prefix_token = 4096, 0

    def _encode(self, texts):
        return [list(text.encode()) for text in texts]

    def _decode(self, tokens):
        return [bytes(row).decode(errors="replace") for row in tokens]

    def _score(self, requests):
        rng = np.random.default_rng(len(requests))
        return [
            Score(tuple((-rng.exponential(3, len(r.continuations))).tolist()), (False,) * len(r.continuations))
            for r in requests
        ]

    def _generate(self, prompts, max_new_tokens, stop):
        return [f"line {i}\u2028 東京 \x85 “x”" for i in range(len(prompts))]


@pytest.fixture(scope="module")
def evaluation():
    store = BM25Retriever().index([Passage(str(i), f"bell of town {i}", 4000, str(i)) for i in range(9)])
    tasks = [
        Task(
            name="choice",
            kind="multiple_choice",
            examples=[
                Example(id=str(i), question=f"town {i}", choices=("a", "b", "c"), answer_index=1) for i in range(5)
            ],
        ),
        Task(
            name="write",
            kind="generate",
            examples=[Example(id=str(i), question=f"town {i}", answers=("town 3", "x")) for i in range(3)],
        ),
        Task(
            name="pattern",
            kind="generate",
            examples=[Example(id="1", question="town", answers=r"town \d\d|7", answer_type="regex")],
        ),
    ]
    options = {"retriever": store, "store_tokens": [0, 12_000, 36_000], "k": 2, "condition": ["retrieved", "random"]}
    return rs.evaluate(Says(), tasks, N=1e6, D=2e7, pmi=True, **options)


def assert_same(one, other):
    for name in ("results", "samples"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True, check_freq=False)
        kinds = [[type(cell) for cell in column] for _, column in getattr(one, name).items()]
        assert kinds == [[type(cell) for cell in column] for _, column in getattr(other, name).items()]
    assert one.info == other.info


def test_what_is_loaded_equals_what_was_saved_bit_for_bit(evaluation, tmp_path):
    folder = evaluation.save(tmp_path / "a")
    loaded = Evaluation.load(folder)
    assert_same(loaded, evaluation)
    values = evaluation.results["value"].to_numpy()
    assert loaded.results["value"].to_numpy().tobytes() == values.tobytes()
    loaded.save(tmp_path / "b")
    for file in sorted(folder.iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    again = rs.results.read(folder / "results.jsonl")
    assert (again["value"].to_numpy() == values).all()


def test_hard_numbers_and_types_survive(tmp_path):
    frame = pd.DataFrame(
        {
            "f": [0.1 + 0.2, float("nan"), float("-inf"), 5e-324, -0.0],
            "i": np.array([2**62 + 1, -5, 0, 1, 2]),
            "u": np.array([255, 1, 2, 3, 4], dtype=np.uint8),
            "h": np.array([0.1, 1 / 3, np.inf, 2, 3], dtype=np.float32),
            "b": [True, False, True, False, True],
            "s": ["a", "東京\u2028\n", "", "NaN", "null"],
            "o": [None, float("nan"), [1.5, float("inf"), None], ("t", 1), True],
        },
        index=[7, 3, 9, 1, 0],
    )
    text = pd.DataFrame({"s": pd.Series(["x", None], dtype="str")})
    before = Evaluation(frame, text, {"k": 5, "nested": {"t": (1, 2.5), "none": None}})
    assert_same(Evaluation.load(before.save(tmp_path)), before)
    empty = Evaluation(frame.iloc[:0], pd.DataFrame(), {})
    pd.testing.assert_frame_equal(Evaluation.load(empty.save(tmp_path)).results, frame.iloc[:0])


@pytest.mark.parametrize("name", ["results.jsonl", "samples.jsonl", "evaluation.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "other"])
def test_damage_is_named(evaluation, tmp_path, name, damage):
    folder = evaluation.save(tmp_path)
    data = bytearray((folder / name).read_bytes())
    if damage == "gone":
        (folder / name).unlink()
    else:
        place = data.rindex(b"town") if b"town" in data else len(data) // 2
        changed = {"cut": data[: len(data) // 2], "other": b'{"schema": "x"}'}.get(damage)
        data[place] ^= 1
        (folder / name).write_bytes(data if changed is None else changed)
    with pytest.raises(CheckpointError, match=r"jsonl|evaluation\.json"):
        Evaluation.load(folder)


def test_saving_again_keeps_files_of_the_user(evaluation, tmp_path):
    evaluation.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    evaluation.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert_same(Evaluation.load(tmp_path), evaluation)
    card = json.loads((tmp_path / "evaluation.json").read_text())
    for name in ("columns", "content_sha256", "files", "index"):
        card.pop(name, None)
    (tmp_path / "evaluation.json").write_text(json.dumps(card | {"schema_version": 1}))
    with pytest.raises(CheckpointError, match="older ragscale"):
        Evaluation.load(tmp_path)


def test_what_cannot_be_kept_is_said(tmp_path):
    for column, what in (
        (pd.Series(["a", "b"], dtype="category"), "category"),
        (pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02"])), "datetime64"),
    ):
        with pytest.raises(ResultsError, match=f"results has columns that cannot be kept exactly: 'x' .{what}"):
            Evaluation(pd.DataFrame({"x": column}), pd.DataFrame(), {}).save(tmp_path / "a")
    twice = pd.DataFrame([[1, 2]], columns=["x", "x"])
    with pytest.raises(ResultsError, match="different names"):
        Evaluation(twice, pd.DataFrame(), {}).save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_it_speaks_the_protocol_of_results(evaluation):
    assert len(repr(evaluation)) < 500
    assert repr(evaluation).startswith("<Evaluation: ")
    summary = evaluation.summary()
    assert "samples of Says" in summary.splitlines()[0]
    assert "choice: accuracy closed-book" in summary
    assert "pattern: exact_match" in summary
    assert len(evaluation.to_frame()) == len(evaluation.results)
    assert "<table" in evaluation._repr_html_()
    assert r"\toprule" in evaluation.to_latex()
    assert Evaluation(pd.DataFrame(), pd.DataFrame(), {}).summary() == "0 results from 0 samples"
