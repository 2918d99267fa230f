"""Questions of other people: answers as one text, patterns that never end, equal choices, broken characters."""

from __future__ import annotations

import json
import time
import warnings

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import ConfigError, EvaluationWarning, TaskError
from ragscale.evaluation import Example, GoldInQuery, LanguageModel, Score, Task, load_task
from ragscale.evaluation._patterns import AnswerPattern, answer_pattern, literals_of, pattern_problem
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever

ENDLESS = "(a|aa)+$"
VICTIM = "a" * 60 + "!"


class Says(LanguageModel):
    """Reads bytes, writes one text, and finds continuations likely that hold it."""

    max_length, prefix_token = 4096, 0

    def __init__(self, text):
        self.text, self.seen, self.scored = text, [], []

    def _encode(self, texts):
        return [list(text.encode()) for text in texts]

    def _decode(self, tokens):
        return [bytes(row).decode(errors="replace") for row in tokens]

    def _score(self, requests):
        self.seen += [bytes(r.context).decode() for r in requests]
        self.scored += [bytes(c).decode() for r in requests for c in r.continuations]
        wanted = self.text.encode()
        return [
            Score(tuple(-1.0 if wanted in bytes(c) else -9.0 for c in r.continuations), (False,) * len(r.continuations))
            for r in requests
        ]

    def _generate(self, prompts, max_new_tokens, stop):
        self.seen += [bytes(prompt).decode() for prompt in prompts]
        return [self.text] * len(prompts)


def values(evaluation):
    return evaluation.results.set_index("metric")["value"].to_dict()


def ask(text, **example):
    task = Task(name="t", kind="generate", examples=[Example(id="1", question="Which?", **example)])
    return values(rs.evaluate(Says(text), task, N=1, D=1))


# ------------------------------------------------------------------------------------------------ fields of an example


@pytest.mark.parametrize("answers", ["Paris", ("Paris",), ["Paris"], np.array(["Paris"]), pd.Series(["Paris"])])
def test_one_text_is_one_answer(answers):
    example = Example(id="1", question="Capital?", answers=answers)
    assert example.answers == ("Paris",)
    assert ask("p", answers=answers)["exact_match"] == 0
    assert ask("Paris", answers=answers)["exact_match"] == 1


def test_one_text_is_one_of_everything_that_is_listed(tmp_path):
    example = Example(id=7, question="?", answers="x", gold_titles="T", gold_doc_ids="d1", gold_passages="d1#0")
    assert (example.id, example.gold_titles, example.gold_doc_ids) == ("7", ("T",), ("d1",))
    task = Task(name="t", kind="generate", examples=example, stop="\n\n", max_new_tokens=5e0)
    assert (task.stop, task.max_new_tokens, len(task)) == (("\n\n",), 5, 1)
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": "1", "question": "?", "answers": "Paris", "gold_titles": "T"}))
    assert load_task(tmp_path / "t.jsonl").examples[0].answers == ("Paris",)


@pytest.mark.parametrize("name", ["nq_open", "triviaqa", "entityquestions"])
def test_a_named_task_with_one_text_for_its_answers_has_no_letters(tmp_path, name):
    answer = {"value": "Paris", "aliases": "Lutetia"} if name == "triviaqa" else "Paris"
    record = {"question_id": "1", "question": "who", "answer": answer, "answers": answer}
    (tmp_path / "d.jsonl").write_text(json.dumps(record) + "\n")
    pytest.importorskip("datasets")
    answers = load_task(name, source=tmp_path / "d.jsonl").examples[0].answers
    assert answers == (("Paris", "Lutetia") if name == "triviaqa" else ("Paris",))


def test_every_wrong_field_of_an_example_is_listed():
    with pytest.raises(TaskError) as caught:
        Example(
            id=None,
            question=5,
            choices={"A": "x"},
            answer_index=1.5,
            answers=(1969, "ok", "half \ud83d"),
            answer_type="glob",
            passage=None,
            gold_doc_ids={"d"},
            meta=[],
        )
    for expected in (
        "id must be text, got None",
        "question must be text, got 5",
        "choices must be a list of texts in their order, got {'A': 'x'}",
        "answer_index must be a whole number or None, got 1.5",
        "answers[0] must be text, got 1969",
        "answers[2] holds half a character ('\\ud83d', a lone surrogate) at place 5",
        "answer_type must be 'string' or 'regex', got 'glob'",
        "passage must be text, got None",
        "gold_doc_ids must be a list of texts in their order, got {'d'}",
        "meta must be a mapping, got []",
    ):
        assert expected in str(caught.value)
    assert len(caught.value.problems) == 10


def test_every_wrong_setting_of_a_task_is_listed():
    with pytest.raises(TaskError) as caught:
        Task(
            name="",
            kind="quiz",
            examples=["Who?", Example(id="1", question="?", answers="x")],
            shots=5,
            template="Q: {question}",
            stop=("",),
            max_new_tokens=True,
            max_aliases=2.5,
            prefix_words=-1,
        )
    for expected in (
        "name must be text",
        "kind 'quiz'",
        "examples[0] is a str, not an Example",
        "shots must be a list of Example, got 5",
        "template must be a PromptTemplate",
        "stop must be texts that are not empty",
        "max_new_tokens must be a whole number of at least 1, got True",
        "max_aliases must be a whole number of at least 1, got 2.5",
        "prefix_words must be a whole number of at least 0, got -1",
    ):
        assert expected in str(caught.value)
    with pytest.raises(TaskError, match="examples must be a list of Example, got None"):
        Task(name="t", kind="generate", examples=None)


def test_a_file_with_broken_characters_names_its_lines(tmp_path):
    lines = [
        {"id": "1", "question": "fine", "answers": ["a"]},
        {"id": "2", "question": "half \ud83d", "answers": ["a"]},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(TaskError, match=r"line 2: question holds half a character .* at place 5"):
        load_task(tmp_path / "t.jsonl")


def test_a_passage_with_half_a_character_does_not_stop_an_evaluation():
    store = [Passage("a", "bells of \ud83d iron", 3, "a")]
    task = Task(name="t", kind="generate", examples=[Example(id="1", question="bells", answers="iron")])
    model = Says("iron")
    rs.evaluate(model, task, retriever=BM25Retriever().index(store), store_tokens=3, k=1, N=1, D=1)
    assert "bells of \N{REPLACEMENT CHARACTER} iron" in model.seen[0]


# -------------------------------------------------------------------------------------------------------- patterns


def test_patterns_are_matched_as_before():
    assert ask("on 14 Dec.", answers=[r"\d+ dec"], answer_type="regex")["contains"] == 1
    got = ask(" 14 DEC ", answers=[r"\d+ \w+", "x"], answer_type="regex")
    assert got == {"exact_match": 1, "contains": 1}


def test_a_pattern_is_never_scored_by_the_likelihood_of_its_text():
    pattern = Example(id="1", question="When?", answers=(r"19\d\d",), answer_type="regex")
    text = Example(id="2", question="Who?", answers=("he",))
    model = Says("1969")
    alone = rs.evaluate(model, Task(name="t", kind="generate", examples=[pattern]), N=1, D=1)
    assert model.scored == []
    assert values(alone) == {"exact_match": 1, "contains": 1}
    assert alone.samples["logprobs"].tolist() == [[]]
    mixed = rs.evaluate(model, Task(name="t", kind="generate", examples=[pattern, text]), N=1, D=1)
    assert model.scored == [" he"]
    by_metric = mixed.results.set_index("metric")
    assert by_metric.loc[["nll", "f1", "exact_match"], "n_examples"].tolist() == [1, 1, 2]
    assert by_metric.loc["nll", "value"] == 9
    rs.results.validate(mixed.results.assign(N=1e6, D=1e6))
    for kind in ("likelihood", "last_word"):
        with pytest.raises(TaskError, match=r"patterns, and a .* question scores the likelihood"):
            Task(name="t", kind=kind, examples=[pattern])


def test_a_pattern_is_shown_and_searched_nowhere():
    examples = [
        *(Example(id=str(i), question=f"When {i}?", answers=r"19\d\d", answer_type="regex") for i in range(4)),
        *(Example(id=f"s{i}", question=f"Who {i}?", answers="he") for i in range(2)),
    ]
    task, model = Task(name="t", kind="generate", examples=examples), Says("1969")
    rs.evaluate(model, task, n_shot=1, N=1, D=1)
    assert all("Answer: he" in prompt for prompt in model.seen)
    assert not any(r"19\d" in prompt for prompt in model.seen)
    with pytest.raises(ConfigError, match=r"n_shot=2, but task 't' has 1 questions to take examples from|has 2 quest"):
        rs.evaluate(model, task, n_shot=3, N=1, D=1)
    store = BM25Retriever().index([Passage("a", "in 1969", 2, "a")])
    with pytest.raises(ConfigError, match=r"gold answer of question '0' is a pattern"):
        rs.evaluate(model, task, retriever=store, store_tokens=2, query=GoldInQuery(), N=1, D=1)


@pytest.mark.parametrize("hang", [ENDLESS, r"(\w|\w\w)+\d$", "(a?){40}a{40}b", r"(a|a)*c"])
def test_a_pattern_that_never_ends_is_given_up_and_said(hang):
    answer_pattern.cache_clear()
    start = time.monotonic()
    assert AnswerPattern(hang).search(VICTIM) in (None, False)
    assert time.monotonic() - start < 20


def test_what_a_slow_pattern_would_say_is_unknown_not_no():
    answer_pattern.cache_clear()
    examples = [
        Example(id="slow", question="one", answers=(ENDLESS,), answer_type="regex"),
        Example(id="quick", question="two", answers=("a+!",), answer_type="regex"),
    ]
    store = BM25Retriever().index([Passage("p", f"one two {VICTIM}", 3, "p")])
    task = Task(name="t", kind="generate", examples=examples)
    with pytest.warns(EvaluationWarning, match=r"1 questions of 't' .* given up \(the first: 'slow', '\(a\|aa\)\+\$'"):
        found = rs.evaluate(Says(VICTIM), task, retriever=store, store_tokens=3, k=1, N=1, D=1)
    rows = found.results.set_index("metric")
    assert rows.loc["contains", ["value", "n_examples", "hit_rate", "answer_in_store"]].tolist() == [1, 1, 1, 1]
    sample = found.samples.set_index("id").loc["slow"]
    assert sample[["exact_match", "contains", "hit", "answer_in_store"]].isna().all()


def test_patterns_that_cannot_work_are_listed():
    bad = ("b(", "a*", "", "x" * 20_000, "((a{1000}){1000}){1000}", "(?P<x", "a{2,1}", "(" * 4000 + ")" * 4000)
    with pytest.raises(TaskError) as caught:
        Task(
            name="t",
            kind="generate",
            examples=[
                Example(id=str(i), question="?", answers=(p, "good"), answer_type="regex") for i, p in enumerate(bad)
            ],
        )
    text = str(caught.value)
    for expected in (
        "is not a regular expression",
        "matches the empty text",
        "20,000 characters",
        "1,000,000,000 times",
    ):
        assert expected in text
    assert pattern_problem(r"Abraham\s+Lincoln|Honest Abe") is None


@pytest.mark.parametrize(
    ("pattern", "literals"),
    [
        ("Lincoln", ("lincoln",)),
        ("Lincoln|Abe Lincoln", ("lincoln", "abe lincoln")),
        (r"(Abra|Ibra)ham L\.?", ("ham l",)),
        ("[^]abc]defg", ("defg",)),
        ("abcd?e", ("abc",)),
        ("abcd{0,2}", ("abc",)),
        ("(?x) ab c # d", ()),
        ("Lincoln|19\\d\\d", ()),
        ("", ()),
        ("stra\u00dfe", ()),
        (r"\p{Lu}incoln", ()),
    ],
)
def test_the_quick_look_misses_nothing(pattern, literals):
    assert literals_of(pattern) == literals
    import regex

    texts = [
        "Abraham Lincoln",
        "ibraham l",
        "1969",
        "dEFG xdefg",
        "abce ABCDE",
        "ab c",
        "abab",
        "L\u0131ncoln",
        "STRASSE",
    ]
    for text in texts:
        found = AnswerPattern(pattern).search(text)
        assert found is (regex.search(pattern, text, regex.IGNORECASE) is not None), (pattern, text)


# --------------------------------------------------------------------------------------------------- equal choices


@pytest.mark.parametrize("gold", [0, 1])
def test_equal_choices_share_the_credit_and_are_said(gold):
    examples = [
        Example(id=str(i), question=f"{i}?", choices=("Paris", "Paris", "Rome"), answer_index=gold) for i in range(4)
    ]
    task = Task(name="t", kind="multiple_choice", examples=examples)
    with pytest.warns(EvaluationWarning, match="4 of 4 questions of 't' have equal choices"):
        found = values(rs.evaluate(Says("Paris"), task, pmi=True, N=1, D=1))
    assert {found[m] for m in ("accuracy", "accuracy_per_char", "accuracy_per_token")} == {0.5}
    assert found["margin"] == 0


def test_choices_that_differ_are_not_warned_about():
    task = Task(
        name="t",
        kind="multiple_choice",
        examples=[Example(id="1", question="?", choices=("Paris", "paris"), answer_index=0)],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values(rs.evaluate(Says("Paris"), task, N=1, D=1))["accuracy"] == 1


def test_a_model_that_knows_nothing_has_the_accuracy_of_chance():
    choices = ("red", "tan", "sky", "ash")
    examples = [Example(id=str(i), question=f"{i}?", choices=choices, answer_index=i) for i in range(4)]
    found = values(rs.evaluate(Says("nothing"), Task(name="t", kind="multiple_choice", examples=examples), N=1, D=1))
    assert found["accuracy"] == pytest.approx(0.25)


# ----------------------------------------------------------------------------------------------- unrelated passages


def passages_drawn(example, store, *, k=3, **options):
    task = Task(name="t", kind="generate", examples=[example])
    retriever = BM25Retriever().index(store)
    found = rs.evaluate(
        Says("x"),
        task,
        retriever=retriever,
        store_tokens=retriever.n_tokens,
        k=k,
        condition="random",
        N=1,
        D=1,
        **options,
    )
    return set(found.samples["passages"].iloc[0])


SUPPORT = "the bell of the old town was cast in a winter of deep snow by three brothers"
STORE = [
    Passage("a#0", "first part of the gold document", 5, "a"),
    Passage("a#1", "second part of it, quite different", 5, "a"),
    Passage("b#0", f"By the way, {SUPPORT} from the north", 5, "b"),
    *(Passage(f"c{i}#0", f"unrelated passage number {i}", 5, f"c{i}") for i in range(3)),
]


@pytest.mark.parametrize(
    ("gold", "kept_out"),
    [
        ({"gold_doc_ids": "a"}, {"a#0", "a#1"}),
        ({"gold_passages": "a#0"}, {"a#0", "a#1"}),
        ({"gold_titles": "a"}, {"a#0", "a#1"}),
        ({"passage": SUPPORT}, {"b#0"}),
        ({"answers": "brothers", "question": "who?"}, {"b#0"}),
    ],
)
def test_the_gold_document_is_never_among_random_passages(gold, kept_out):
    example = Example(**{"id": "1", "question": "which?", "answers": "absent", **gold})
    for seed in range(8):
        assert not passages_drawn(example, STORE, seed=seed) & kept_out


def test_gold_texts_that_are_handed_over_are_kept_out_too():
    example = Example(id="1", question="which?", answers="absent", gold_passages="elsewhere")
    for seed in range(4):
        assert "b#0" not in passages_drawn(example, STORE, seed=seed, gold={"elsewhere": SUPPORT})


def test_too_few_unrelated_passages_are_said():
    example = Example(id="q", question="which?", answers="absent", gold_doc_ids=("a", "b", "c0", "c1"))
    with pytest.warns(EvaluationWarning, match=r"1 questions of 't' \(the first: 'q'\) have fewer than k=3 unrelated"):
        assert passages_drawn(example, STORE) == {"c2#0"}
    rare = [Passage("a#0", "gold", 5, "a")] * 0 + [Passage(f"g{i}", "the answer absent", 5, "g") for i in range(400)]
    only = Passage("last", "nothing of it", 5, "z")
    assert passages_drawn(Example(id="q", question="?", answers="absent"), [*rare, only], k=1) == {"last"}


# ------------------------------------------------------------------------------------------------- models that lie


@pytest.mark.parametrize("what", ["few", "nan", "encode"])
def test_a_model_that_breaks_its_contract_is_named(what):
    class Broken(Says):
        def _score(self, requests):
            n = 0 if what == "few" else 1
            return [Score((float("nan"),) * n, (False,) * n) for _ in requests]

        def _encode(self, texts):
            return [] if what == "encode" else super()._encode(texts)

    task = Task(name="t", kind="likelihood", examples=[Example(id="1", question="?", answers="x")])
    with pytest.raises(ConfigError, match=r"Broken\._(score|encode)"):
        rs.evaluate(Broken("x"), task, N=1, D=1)
    with pytest.raises(ConfigError, match="one: give"):
        Says("x").encode("one text")
