"""Task files: what is read, and that everything wrong with a file is said at once."""

from __future__ import annotations

import gzip
import json

import pytest

from ragscale.errors import ConfigError, TaskError
from ragscale.evaluation import Example, PromptTemplate, Task, load_task, task_names

CHOICE = {"question": "Which?", "choices": ["a", "b"], "answer_index": 1, "answers": ["b"]}


def write(path, *records):
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def test_kind_follows_from_the_fields(tmp_path):
    choice = load_task(write(tmp_path / "a.jsonl", {"id": "1", **CHOICE}))
    assert (choice.kind, choice.name) == ("multiple_choice", "a")
    yes_no = load_task(write(tmp_path / "b.jsonl", {"id": "1", **CHOICE, "choices": ["no", "yes"], "answers": ["yes"]}))
    assert yes_no.kind == "yes_no"
    answer = load_task(write(tmp_path / "c.jsonl", {"id": "1", "question": "Who?", "answers": ["he", "him"]}))
    assert (answer.kind, answer.examples[0].answers) == ("generate", ("he", "him"))
    text = load_task(write(tmp_path / "d.jsonl", {"id": "1", "question": "A whole text."}))
    assert text.kind == "text"
    mixed = write(tmp_path / "e.jsonl", {"id": "1", **CHOICE}, {"id": "2", "question": "Who?", "answers": ["he"]})
    assert load_task(mixed).kind == "generate"
    assert load_task(answer and tmp_path / "c.jsonl", kind="likelihood").kind == "likelihood"


def test_a_named_task_field_brings_its_kind_and_prompt(tmp_path):
    record = {"id": "1", "task": "nq_open", "question": "who was it", "answers": ["he"]}
    task = load_task(write(tmp_path / "x.jsonl", record))
    assert task.name == "nq_open"
    assert task.template.ask(task.examples[0]) == "Q: who was it?\nA:"
    assert "." in task.stop
    lambada = {"id": "1", "task": "lambada", "question": "He saw the", "answers": ["sea"]}
    assert load_task(write(tmp_path / "y.jsonl", lambada)).kind == "last_word"


def test_compressed_files_and_strange_line_ends(tmp_path):
    record = {"id": "1", "question": "Is \u2028 this\u0085 one line?", "answers": ["yes it is"]}
    plain = load_task(write(tmp_path / "a.jsonl", json.dumps(record, ensure_ascii=False) + "\n"))
    assert plain.examples[0].question == record["question"]
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n\n")
    zipped = load_task(tmp_path / "b.jsonl.gz", name="a")
    assert zipped == plain
    import zstandard

    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress((json.dumps(record) + "\n").encode()))
    assert load_task(tmp_path / "c.jsonl.zst", name="a") == plain


def test_all_problems_of_a_file_are_listed_at_once(tmp_path):
    path = write(
        tmp_path / "bad.jsonl",
        {"id": "1", **CHOICE},
        "{not json\n",
        [1, 2],
        {"id": "1", **CHOICE},
        {"id": "2", **CHOICE, "answer_index": 7},
        {"id": "3", **CHOICE, "choices": "ab"},
        {"id": "4", **CHOICE, "question": ""},
        {"id": "5", **CHOICE, "answers": ["c"]},
        {"id": "6", "question": "?", "choices": ["a"], "answer_index": 0},
        {"id": "7", **CHOICE, "anwsers": ["b"]},
        {"id": "8", **CHOICE, "answer_type": "regex", "answers": ["b("]},
        {"id": "9", **CHOICE, "answer_index": True},
    )
    with pytest.raises(TaskError) as error:
        load_task(path)
    text = str(error.value)
    for expected in (
        "line 2: not JSON",
        "line 3: expected an object, got list",
        "line 4: repeats the id '1' of line 1",
        "line 5: answer_index 7 is outside the 2 choices",
        "line 6: 'choices' must be a list of texts, got 'ab'",
        "line 7: the question is empty",
        "line 8: choice 1 is 'b' but the answer is 'c'",
        "line 9: a multiple_choice question needs at least 2 choices, got 1",
        "line 10: unknown fields anwsers",
        "line 11: answer 'b(' is not a regular expression",
        "line 12: 'answer_index' must be an integer, got True",
    ):
        assert expected in text
    assert isinstance(error.value, ConfigError | ValueError)


def test_missing_answers_empty_files_and_missing_splits(tmp_path):
    with pytest.raises(TaskError, match="at least one answer"):
        load_task(write(tmp_path / "a.jsonl", {"id": "1", "question": "?", "answers": []}))
    with pytest.raises(TaskError, match="no lines"):
        load_task(write(tmp_path / "b.jsonl"))
    records = [{"id": str(i), "split": "dev", "question": "?", "answers": ["x"]} for i in range(3)]
    path = write(tmp_path / "c.jsonl", *records)
    with pytest.raises(TaskError, match=r"no line has split 'test'; the file has dev"):
        load_task(path, split="test")
    assert len(load_task(path, split="dev", limit=2)) == 2
    broken = tmp_path / "d.jsonl.gz"
    broken.write_bytes(gzip.compress(b'{"id": "1", "question": "?", "answers": ["x"]}\n' * 50)[:-20])
    with pytest.raises(TaskError, match="cannot be read to its end"):
        load_task(broken)
    with pytest.raises(TaskError, match="neither a file nor a named task"):
        load_task("no_such_task")


def test_a_task_lists_the_problems_of_its_examples():
    good = Example(id="1", question="Q?", answers=("a",))
    with pytest.raises(TaskError) as error:
        Task(name="t", kind="generate", examples=(good, good, Example(id="2", question="Q?")), max_new_tokens=0)
    text = str(error.value)
    assert "repeats the id '1'" in text
    assert "at least one answer" in text
    assert "max_new_tokens" in text
    with pytest.raises(TaskError, match="kind 'quiz'"):
        Task(name="t", kind="quiz", examples=(good,))
    with pytest.raises(TaskError, match="no examples"):
        Task(name="t", kind="generate", examples=())


def test_digest_follows_what_scores_depend_on():
    example = Example(id="1", question="Q?", answers=("a",))
    task = Task(name="t", kind="generate", examples=(example,))
    assert task.digest == Task(name="other", kind="generate", examples=[example]).digest
    assert task.digest != Task(name="t", kind="likelihood", examples=(example,)).digest
    other = PromptTemplate(question="{question}")
    assert task.digest != Task(name="t", kind="generate", examples=(example,), template=other).digest


def test_the_tasks_of_the_paper_are_known_by_name():
    wanted = [
        "arc_easy",
        "arc_challenge",
        "hellaswag",
        "sciq",
        "sciq_support",
        "openbookqa",
        "nq_open",
        "strategyqa",
        "simpleqa",
        "piqa",
        "commonsenseqa",
        "triviaqa",
        "lambada",
        "hotpotqa",
        "musique",
        "2wikimultihopqa",
        "popqa",
        "entityquestions",
    ]
    assert set(wanted) <= set(task_names())


def test_every_question_file_of_the_real_data_loads(shared_data):
    for path in sorted((shared_data / "qa").glob("*.jsonl.gz")):
        if "unanswerable" in path.name:
            with pytest.raises(TaskError, match="4299 problems"):
                load_task(path)
        else:
            task = load_task(path)
            assert task.name == path.name.split(".")[0]
            assert len(task) >= 500
