"""Metrics against values worked out by hand, and prompts against what they should look like."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.evaluation import Example, PromptTemplate, paired_bootstrap, per_question
from ragscale.evaluation._answers import contains, exact_match, f1, normalise
from ragscale.evaluation._coverage import contains_answer, first_passage_with_answer, words
from ragscale.evaluation._fitting_prompts import _water_level
from ragscale.evaluation._metrics import summarise
from ragscale.passages import Passage


def choice_samples(logprobs, gold, choices=None, kind="multiple_choice", **columns):
    choices = choices or [["aa", "b"]] * len(logprobs)
    return pd.DataFrame(
        {
            "kind": kind,
            "logprobs": logprobs,
            "n_tokens": [[1] * len(row) for row in logprobs],
            "n_chars": [[len(c) for c in row] for row in choices],
            "n_bytes": [[len(c.encode()) for c in row] for row in choices],
            "greedy": [[False] * len(row) for row in logprobs],
            "gold_index": gold,
            "unconditional_logprobs": columns.pop("alone", [None] * len(logprobs)),
            "n_words": None,
            **columns,
        }
    )


def values(samples):
    return {row["metric"]: row for row in summarise(samples)}


def test_choice_metrics_by_hand():
    logprobs = [[np.log(0.6), np.log(0.2)], [np.log(0.1), np.log(0.3)]]
    samples = choice_samples(logprobs, [0, 0], choices=[["aa", "b"], ["é", "b"]])
    found = values(samples)
    assert found["accuracy"]["value"] == 0.5
    assert found["accuracy"]["chance"] == 0.5
    assert found["accuracy"]["stderr"] == pytest.approx(0.5)
    assert found["brier"]["value"] == pytest.approx((2 * 0.25**2 + 2 * 0.75**2) / 2)
    assert found["choice_nll"]["value"] == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)
    assert found["margin"]["value"] == pytest.approx((np.log(3) - np.log(3)) / 2)
    assert found["neg_log_accuracy"]["value"] == pytest.approx(-np.log(1.5 / 3))
    assert found["neg_log_accuracy"]["chance"] == pytest.approx(np.log(2))
    assert found["calibration_error"]["value"] == pytest.approx(abs((0.75 - 1) + (0.75 - 0)) / 2)
    assert found["nll_per_byte"]["value"] == pytest.approx(-(np.log(0.6) / 2 + np.log(0.1) / 2) / 2)
    assert found["nll_per_char"]["value"] == pytest.approx(-(np.log(0.6) / 2 + np.log(0.1) / 1) / 2)
    assert found["perplexity_per_token"]["value"] == pytest.approx(np.exp(-(np.log(0.6) + np.log(0.1)) / 2))
    assert "accuracy_pmi" not in found


def test_normalisations_choose_differently():
    logprobs = [[-4.0, -3.0]]
    samples = choice_samples(logprobs, [0], choices=[["a long answer", "no"]], alone=[[-8.0, -1.0]])
    assert per_question(samples, "accuracy") == 0
    assert per_question(samples, "accuracy_per_char") == 1
    assert per_question(samples, "accuracy_per_byte") == 1
    assert per_question(samples, "accuracy_per_token") == 0
    assert per_question(samples, "accuracy_pmi") == 1


def test_an_accuracy_of_zero_stays_finite():
    samples = choice_samples([[-2.0, -1.0]] * 9, [0] * 9)
    found = values(samples)
    assert found["accuracy"]["value"] == 0
    assert found["neg_log_accuracy"]["value"] == pytest.approx(-np.log(0.05))


def test_calibration_of_an_honest_model_is_near_zero():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 5_000)
    gold = (rng.uniform(size=p.size) > p).astype(int)
    samples = choice_samples(np.log(np.c_[p, 1 - p]).tolist(), gold.tolist())
    assert values(samples)["calibration_error"]["value"] < 0.02


def test_log_likelihood_of_any_alias():
    samples = choice_samples([[np.log(0.1), np.log(0.2)]], [0], kind="likelihood")
    assert values(samples)["nll_any_alias"]["value"] == pytest.approx(-np.log(0.3))
    assert np.isnan(values(samples)["nll"]["stderr"])


def test_metrics_that_a_kind_does_not_have_are_refused():
    samples = choice_samples([[-1.0, -2.0]], [0])
    for metric in ("exact_match", "neg_log_accuracy", "nonsense"):
        with pytest.raises(ConfigError, match="has no value per question of a multiple_choice task"):
            per_question(samples, metric)


def test_answers_are_compared_as_squad_does():
    assert normalise("The  U.S. Army, an a!") == "us army"
    assert exact_match("the Eiffel Tower.", ["Louvre", "Eiffel tower"]) == 1
    assert exact_match("Eiffel", ["Eiffel tower"]) == 0
    assert exact_match("", ["the"]) == 1  # both are empty after normalisation
    assert f1("the the big cat cat", ["big cat"]) == pytest.approx(2 * 2 / (3 + 2))
    assert f1("dog", ["cat", "big dog"]) == pytest.approx(2 / 3)
    assert f1("", ["cat"]) == 0
    assert contains("it is in New York City", ["york"]) == 1
    assert contains("Yorkshire", ["york"]) == 0
    assert exact_match("14 Dec", [r"\d+ \w+"], regex=True) == 1
    assert contains("on 14 Dec.", [r"\d+ dec"], regex=True) == 1


@given(st.text(max_size=30), st.text(max_size=30))
def test_f1_is_symmetric_and_at_most_one(a, b):
    assert f1(a, [b]) == pytest.approx(f1(b, [a]))
    assert 0 <= f1(a, [b]) <= 1
    assert f1(a, [a]) == 1 == exact_match(a, [a])


def test_answers_are_found_as_whole_words_whatever_case_and_accents():
    example = Example(id="1", question="?", answers=("The Café Müller", "one"))
    assert contains_answer(example, "a visit to the CAFE MULLER.")
    assert not contains_answer(example, "money for a cafe")
    regex = Example(id="2", question="?", answers=(r"19\d\d",), answer_type="regex")
    assert contains_answer(regex, "in 1972")
    yes_no = Example(id="3", question="?", choices=("no", "yes"), answer_index=1, answers=("yes",))
    assert not contains_answer(yes_no, "yes")
    passages = [Passage(str(i), text, 3, "d") for i, text in enumerate(["none", "at cafe muller", "since 1955 one"])]
    assert first_passage_with_answer([example, regex, yes_no], passages).tolist() == [1, 2, -1]


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_plain_text_are_the_runs_of_letters_digits_and_underscores(text):
    assert words(text) == re.findall(r"\w+", text.lower(), re.ASCII)


LETTERS = st.sampled_from(["a", "b", "c", "d"])


@given(
    st.lists(st.lists(LETTERS, max_size=6).map(" ".join), max_size=6),
    st.lists(st.lists(LETTERS, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=4),
)
def test_the_first_passage_with_an_answer_is_the_first_that_contains_it(texts, answers):
    examples = [Example(id=str(i), question="?", answers=(f"x {a}" if a == "a" else a,)) for i, a in enumerate(answers)]
    passages = [Passage(str(i), text, 1, "d") for i, text in enumerate(texts)]
    for example, found in zip(examples, first_passage_with_answer(examples, passages), strict=True):
        expected = [i for i, text in enumerate(texts) if contains_answer(example, text)]
        assert found == (expected[0] if expected else -1)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(-10, 300))
def test_the_water_level_fills_the_budget_and_no_more(lengths, total):
    level = _water_level(lengths, total)
    used = sum(min(length, level) for length in lengths)
    assert used <= max(0, total)
    if used < sum(lengths):
        assert sum(min(length, level + 1) for length in lengths) > total


def test_prompts_are_put_together_as_the_template_says():
    template = PromptTemplate(
        question="Q: {question}\n{choices}\nA:",
        description="Read.\n",
        passage="[{rank}] {text}",
        passage_separator=" | ",
        after_passages=" ## ",
        shot_separator=" -- ",
    )
    example = Example(id="1", question="Who?", choices=("x", "y"))
    asked = template.ask(example)
    assert asked == "Q: Who?\nA. x\nB. y\nA:"
    assert template.build(asked, ["best", "next"], ["shot"]) == "Read.\n[2] next | [1] best ## shot -- " + asked
    from dataclasses import replace

    first = replace(template, order="best_first", shots_first=True)
    assert first.build("?", ["best", "next"], ["shot"]) == "Read.\nshot -- [1] best | [2] next ## ?"
    assert first.digest != template.digest
    assert template.build("?") == "Read.\n?"


def test_templates_that_cannot_work_say_everything_that_is_wrong():
    with pytest.raises(ConfigError) as error:
        PromptTemplate(question="Q: {query}", passage="{", order="worst", passage_tokens=0)
    text = str(error.value)
    for expected in ("unknown fields query", "has no {question}", "is not a format string", "order", "passage_tokens"):
        assert expected in text


def test_paired_bootstrap_covers_the_truth_and_refuses_nonsense():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = paired_bootstrap(rng.normal(0.3, 1, 60), n_resamples=200, rng=rng)
        covered += found["low"] <= 0.3 <= found["high"]
    assert 180 <= covered <= 200
    clear = paired_bootstrap(rng.normal(1, 0.1, 50), n_resamples=400, rng=1)
    assert clear["p_value"] == pytest.approx(1 / 400)
    assert paired_bootstrap(np.zeros(5), rng=0)["p_value"] == 1
    for bad in ([], [[1.0]], [np.nan]):
        with pytest.raises(ConfigError, match="one finite number per question"):
            paired_bootstrap(bad)
    with pytest.raises(ConfigError, match="confidence_level"):
        paired_bootstrap([1.0], confidence_level=1.5)
