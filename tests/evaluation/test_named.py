"""Named tasks, read from local data in the layout of the hub."""

from __future__ import annotations

import json

import pytest

from ragscale.errors import TaskError
from ragscale.evaluation import load_task

ABCD = {"label": ["A", "B", "C"], "text": ["wood", "stone", "air"]}
FACTS = {"title": ["Oak", "Elm", "Oak"], "sent_id": [0, 1, 2]}
CONTEXT = {"title": ["Oak", "Ash", "Elm"], "sentences": [["Oak one. ", "Oak two."], ["Ash."], ["Elm."]]}
RECORDS = {
    "arc_easy": {"id": "x1", "question": "Heaviest?", "choices": ABCD, "answerKey": "B"},
    "arc_challenge": {
        "id": "x1",
        "question": "Heaviest?",
        "choices": {"label": ["1", "2"], "text": ["a", "b"]},
        "answerKey": "2",
    },
    "hellaswag": {
        "ind": 4,
        "activity_label": "Baking",
        "ctx_a": "A man bakes. [header] Then",
        "ctx_b": "he",
        "endings": ["eats [title] Bread", "sings.", "runs.", "sleeps."],
        "label": "0",
    },
    "sciq": {
        "question": "What melts?",
        "distractor1": "sand",
        "distractor2": "gold",
        "distractor3": "iron",
        "correct_answer": "ice",
        "support": " Ice melts. ",
    },
    "openbookqa": {"id": "7-1", "question_stem": "The sun is", "choices": ABCD, "answerKey": "C"},
    "piqa": {"goal": "Open a jar", "sol1": "twist", "sol2": "sing", "label": 0},
    "commonsenseqa": {"id": "c", "question": "Where?", "question_concept": "w", "choices": ABCD, "answerKey": "A"},
    "strategyqa": {
        "qid": "s",
        "term": "Oak",
        "description": "A tree",
        "question": "Is it tall?",
        "answer": True,
        "facts": "Oaks are tall.",
    },
    "nq_open": {"question": "who was it", "answer": ["Ann", "Anne"]},
    "triviaqa": {"question_id": "t", "question": "Who?", "answer": {"value": "Ann", "aliases": ["Anne", "Ann"]}},
    "simpleqa": {"metadata": "{}", "problem": "Who?", "answer": "Ann"},
    "lambada": {"text": "They walked down to the sea"},
    "hotpotqa": {
        "id": "h",
        "question": "Who?",
        "answer": "Ann",
        "type": "bridge",
        "level": "hard",
        "supporting_facts": FACTS,
        "context": CONTEXT,
    },
    "musique": {
        "id": "m",
        "question": "Who?",
        "answer": "Ann",
        "answer_aliases": ["Anne"],
        "answerable": True,
        "paragraphs": [
            {"idx": 0, "title": "Oak", "paragraph_text": "Oak.", "is_supporting": True},
            {"idx": 1, "title": "Ash", "paragraph_text": "Ash.", "is_supporting": False},
        ],
    },
    "popqa": {
        "id": 3,
        "question": "Who?",
        "possible_answers": '["Ann", "Anne"]',
        "prop": "author",
        "s_pop": 12,
        "o_pop": 3,
        "s_wiki_title": "Oak",
    },
    "entityquestions": {"question": "Where?", "answers": ["Rome"], "relation": "P19"},
    "squad": {
        "id": "q",
        "title": "Oak",
        "context": "Oaks are tall.",
        "question": "What?",
        "answers": {"text": ["Oaks", "Oaks"], "answer_start": [0, 0]},
    },
}
RECORDS["sciq_support"] = RECORDS["sciq"]
RECORDS["2wikimultihopqa"] = RECORDS["hotpotqa"]
GOLD = {
    "arc_easy": "stone",
    "arc_challenge": "b",
    "hellaswag": "eats. Bread",
    "sciq": "ice",
    "sciq_support": "ice",
    "openbookqa": "air",
    "piqa": "twist",
    "commonsenseqa": "wood",
    "strategyqa": "yes",
    "lambada": "sea",
    "entityquestions": "Rome",
    "squad": "Oaks",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_record_in_the_hub_layout_becomes_an_example(name, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(RECORDS[name]) + "\n", encoding="utf-8")
    task = load_task(name, source=path)
    (example,) = task.examples
    assert task.name == name
    assert example.answers[0] == GOLD.get(name, "Ann")
    if example.choices:
        assert example.choices[example.answer_index] == example.answers[0]
    else:
        assert len(set(example.answers)) == len(example.answers)


def test_sciq_with_and_without_support_are_two_tasks(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(RECORDS["sciq"]) + "\n", encoding="utf-8")
    closed, support = load_task("sciq", source=path), load_task("sciq_support", source=path)
    assert closed.template.ask(closed.examples[0]) == "Question: What melts?\nAnswer:"
    assert support.template.ask(support.examples[0]) == "Ice melts.\nQuestion: What melts?\nAnswer:"
    assert {closed.name, support.name} == {"sciq", "sciq_support"}


def test_multi_hop_gold_paragraphs_are_the_oracle_passage(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(RECORDS["hotpotqa"]) + "\n", encoding="utf-8")
    example = load_task("hotpotqa", source=path).examples[0]
    assert example.gold_titles == ("Oak", "Elm")
    assert example.passage == "Oak one. Oak two.\nElm."
    path.write_text(json.dumps(RECORDS["musique"]) + "\n", encoding="utf-8")
    example = load_task("musique", source=path).examples[0]
    assert (example.passage, example.gold_titles) == ("Oak.", ("Oak",))


def test_saved_data_sets_have_splits(tmp_path):
    import datasets

    rows = [RECORDS["nq_open"], {"question": "who else", "answer": ["Bob"]}]
    saved = datasets.DatasetDict({"validation": datasets.Dataset.from_list(rows)})
    saved.save_to_disk(str(tmp_path / "saved"))
    assert len(load_task("nq_open", source=tmp_path / "saved", limit=1)) == 1
    with pytest.raises(TaskError, match="no split 'test'; it has validation"):
        load_task("nq_open", source=tmp_path / "saved", split="test")


def test_records_in_another_layout_are_all_listed(tmp_path):
    path = tmp_path / "data.jsonl"
    bad = [{"question": "who", "answer": None}, {"question": "who", "answer": []}, {"question": "", "answer": ["x"]}]
    path.write_text("".join(json.dumps(record) + "\n" for record in bad), encoding="utf-8")
    with pytest.raises(TaskError) as error:
        load_task("nq_open", source=path)
    text = str(error.value)
    assert "record 0" in text
    assert "record 1 ('nq_open-1'): a generate question needs at least one answer" in text
    assert "record 2 ('nq_open-2'): the question is empty" in text


def test_without_a_network_the_next_step_is_named():
    with pytest.raises(TaskError, match=r"source=<a local copy"):
        load_task("piqa")
