"""Conditions, stores, coverage, cuts, resuming: what `evaluate` promises beyond single scores."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale._files import write_json
from ragscale.errors import ConfigError, EvaluationWarning, TaskError
from ragscale.evaluation import (
    Example,
    GoldInQuery,
    PromptTemplate,
    ScoreRequest,
    Task,
    TorchModel,
    compare_conditions,
    decompose_gain,
    metric_names,
    prepare_prompts,
)
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever

SIZES = [0, 1000, 1500]


class Counting(TorchModel):
    """Counts what is computed."""

    asked: int = 0
    written: int = 0
    die_after: int | None = None

    def _score(self, requests):
        if self.die_after is not None and self.asked >= self.die_after:
            raise KeyboardInterrupt
        self.asked += len(requests)
        return super()._score(requests)

    def _generate(self, prompts, max_new_tokens, stop):
        self.written += len(prompts)
        return super()._generate(prompts, max_new_tokens, stop)


@pytest.fixture(scope="module")
def evaluation(module, tokenizer, retriever, choice_task, answer_task):
    lm = TorchModel(module, tokenizer)
    return rs.evaluate(
        lm,
        [choice_task, answer_task],
        retriever=retriever,
        store_tokens=SIZES,
        k=3,
        condition=["retrieved", "random", "oracle"],
        pmi=True,
        D=1e6,
    )


def cell(evaluation, task, condition, size=0):
    samples = evaluation.samples
    return samples[(samples["task"] == task) & (samples["condition"] == condition) & (samples["R"] == size)]


def test_every_condition_store_and_metric_has_its_row(evaluation, choice_task, answer_task):
    results = rs.results.validate(evaluation.results)
    cells = {("closed-book", 0), ("oracle", 0), *((c, r) for c in ("retrieved", "random") for r in SIZES[1:])}
    for task in (choice_task, answer_task):
        mine = results[results["task"] == task.name]
        assert {(c, int(r)) for c, r in zip(mine["condition"], mine["R"], strict=True)} == cells
        assert set(mine["metric"]) == set(metric_names(task.kind, pmi=True))
        assert (mine["n_examples"] == len(task)).all()
        assert mine["stderr"].notna().all()
    assert len(evaluation.samples) == 6 * (len(choice_task) + len(answer_task))
    closed = results[results["condition"] == "closed-book"]
    assert (closed["k"] == 0).all()
    assert (closed["retriever"] == "none").all()


def test_scores_are_those_of_the_prompt_that_is_described(evaluation, lm, tokenizer, retriever, choice_task):
    sample = cell(evaluation, "bells", "retrieved", SIZES[2]).iloc[4]
    by_id = {passage.id: passage.text for passage in retriever.passages}
    texts = [by_id[identity] for identity in sample["passages"]]
    example = choice_task.examples[4]
    prompt = "\n\n".join(reversed(texts)) + f"\n\nQuestion: {example.question}\nAnswer:"
    context = tuple(tokenizer.encode(prompt))
    choices = tuple(tuple(tokenizer.encode(prompt + " " + choice)[len(context) :]) for choice in example.choices)
    expected = lm.score([ScoreRequest(context, choices)])[0]
    assert sample["logprobs"] == pytest.approx(expected.logprobs, abs=1e-4)
    assert sample["n_tokens"] == [len(choice) for choice in choices]
    assert sample["n_bytes"] == [len(choice) for choice in example.choices]
    assert sample["n_prompt_tokens"] == len(context)


def test_retrieved_passages_are_the_retrievers_own(evaluation, retriever, answer_task):
    questions = [example.question for example in answer_task.examples]
    for size, hits in retriever.search(questions, 3, store_tokens=SIZES[1:]).items():
        found = cell(evaluation, "makers", "retrieved", size)["passages"].tolist()
        assert found == [[p.id for p in hits.take(retriever.passages, row)] for row in range(len(questions))]


def test_coverage_says_what_the_store_and_the_prompt_hold(evaluation, retriever, choice_task):
    everything = []
    for size in SIZES[1:]:
        n_in_store = retriever.n_passages_in_store(size)
        samples = cell(evaluation, "bells", "retrieved", size)
        in_store = [int(e.id.split("-")[1]) < n_in_store for e in choice_task.examples]
        assert samples["answer_in_store"].tolist() == in_store  # fact i is passage i, and answers are distinct
        hits = [f"p{e.id.split('-')[1]}" in p for e, p in zip(choice_task.examples, samples["passages"], strict=True)]
        assert samples["hit"].tolist() == hits
        row = evaluation.results.query(f"task == 'bells' and condition == 'retrieved' and R == {size}").iloc[0]
        assert row["hit_rate"] == pytest.approx(np.mean(hits))
        assert row["answer_in_store"] == pytest.approx(np.mean(in_store))
        everything += in_store
    assert any(everything)
    assert not all(everything)


def test_random_passages_are_unrelated_as_many_and_equal_at_every_store(evaluation, retriever):
    small, large = (cell(evaluation, "bells", "random", size) for size in SIZES[1:])
    assert small["passages"].tolist() == large["passages"].tolist()
    assert {len(passages) for passages in small["passages"]} == {3}
    assert not small["hit"].any()
    smallest = {passage.id for passage in retriever.passages[: retriever.n_passages_in_store(SIZES[1])]}
    assert set(small["passages"].explode()) <= smallest
    np.testing.assert_array_equal(np.stack(small["logprobs"]), np.stack(large["logprobs"]))


def test_the_oracle_is_the_gold_passage(evaluation):
    oracle = cell(evaluation, "bells", "oracle")
    assert oracle["passages"].tolist() == [[f"p{i}"] for i in range(len(oracle))]
    assert oracle["hit"].all()


def test_oracle_without_gold_says_which_questions_are_left_out(lm, answer_task):
    some = replace(
        answer_task, examples=(replace(answer_task.examples[0], passage="Gold."), *answer_task.examples[1:3])
    )
    with pytest.warns(EvaluationWarning, match="2 of 3 questions of 'makers' have no gold passage"):
        found = rs.evaluate(lm, some, condition="oracle", D=1e6)
    assert (found.results["n_examples"] == 1).all()
    assert (found.results["n_left_out"] == 2).all()
    none = replace(answer_task, examples=answer_task.examples[:2])
    with pytest.raises(TaskError, match=r"give them with evaluate\(gold=...\)"):
        rs.evaluate(lm, none, condition="oracle")
    gold = {"p0": "Gold text 0.", "p1": "Gold text 1."}
    assert len(rs.evaluate(lm, none, condition="oracle", gold=gold).samples) == 2
    listed = [Passage(identity, text, 3, "d") for identity, text in gold.items()]
    assert len(rs.evaluate(lm, none, condition="oracle", gold=listed).samples) == 2


def test_a_task_without_gold_does_not_cost_the_others_their_oracle(lm, answer_task):
    with_gold = replace(answer_task, examples=(replace(answer_task.examples[0], passage="Gold."),), name="with")
    without = replace(answer_task, examples=answer_task.examples[1:3], name="without")
    with pytest.warns(EvaluationWarning, match="2 of 2 questions of 'without' have no gold passage"):
        found = rs.evaluate(lm, [with_gold, without], condition=["closed-book", "oracle"], D=1e6)
    assert found.samples.groupby("task")["condition"].apply(set).to_dict() == {
        "with": {"closed-book", "oracle"},
        "without": {"closed-book"},
    }


def test_equal_prompts_at_several_stores_are_computed_once(module, tokenizer, retriever, choice_task):
    lm = Counting(module, tokenizer)
    sizes = [900, 1000, 1100, 1200, 1300, 1400, 1500]
    found = rs.evaluate(lm, choice_task, retriever=retriever, store_tokens=sizes, k=1, D=1e6)
    assert len(found.samples) == 7 * len(choice_task)
    assert lm.asked == found.samples["prompt"].nunique() < 2 * len(choice_task)


def test_prompts_are_prepared_once_for_several_models(world, module, tokenizer, retriever, choice_task):
    first, second = TorchModel(module, tokenizer), TorchModel(world.make_module(tokenizer, seed=5), tokenizer)
    arguments = {"retriever": retriever, "store_tokens": SIZES, "k": 2, "n_shot": 1}
    prepared = prepare_prompts(choice_task, first, **arguments)
    assert prepared.n_asked == 3 * len(choice_task)
    for lm in (first, second):
        shared = rs.evaluate(lm, prepared, D=1e6).results
        pd.testing.assert_frame_equal(shared, rs.evaluate(lm, choice_task, D=1e6, **arguments).results, rtol=1e-4)
    with pytest.raises(ConfigError, match="prepared already: give n_shot to prepare_prompts"):
        rs.evaluate(first, prepared, n_shot=2)
    other = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>")
    other.add_tokens(["<new>"])
    with pytest.raises(ConfigError, match="another tokenizer"):
        rs.evaluate(TorchModel(module, other), prepared)


def test_an_interrupted_evaluation_resumes(module, tokenizer, retriever, choice_task, answer_task, tmp_path):
    arguments = {
        "retriever": retriever,
        "store_tokens": SIZES,
        "k": 2,
        "D": 1e6,
        "out": tmp_path / "cells",
        "pmi": True,
    }
    tasks = [choice_task, answer_task]
    lm = Counting(module, tokenizer)
    lm.die_after = 60
    with pytest.raises(KeyboardInterrupt):
        rs.evaluate(lm, tasks, **arguments)
    done = sorted(path.name for path in (tmp_path / "cells").iterdir())
    assert 0 < len(done) < 6
    asked = lm.asked
    again = Counting(module, tokenizer)
    resumed = rs.evaluate(again, tasks, **arguments)
    whole = rs.evaluate(TorchModel(module, tokenizer), tasks, **{**arguments, "out": None})
    pd.testing.assert_frame_equal(resumed.results, whole.results, rtol=1e-4)
    once = Counting(module, tokenizer)
    rs.evaluate(once, tasks, **{**arguments, "out": None})
    assert again.asked < once.asked
    assert again.asked + asked <= once.asked + len(choice_task)  # only what died with the interruption is done again
    idle = Counting(module, tokenizer)
    finished = rs.evaluate(idle, tasks, **arguments)
    assert (idle.asked, idle.written) == (0, 0)
    pd.testing.assert_frame_equal(finished.results, resumed.results)
    pd.testing.assert_frame_equal(finished.samples, resumed.samples, check_dtype=False)


def test_other_models_seeds_and_questions_are_other_cells(world, module, tokenizer, answer_task, tmp_path):
    small = answer_task.limit(2)
    rs.evaluate(module, small, tokenizer=tokenizer, out=tmp_path)
    for model, task, extra in (
        (world.make_module(tokenizer, seed=9), small, {}),
        (module, answer_task.limit(3), {}),
        (module, small, {"n_shot": 1}),
        (module, small, {"template": PromptTemplate(question="{question}:")}),
        (module, small, {"max_length": 100}),
    ):
        before = len(list(tmp_path.iterdir()))
        rs.evaluate(model, task, tokenizer=tokenizer, out=tmp_path, **extra)
        assert len(list(tmp_path.iterdir())) == before + 1
    damaged = next(tmp_path.iterdir())
    for path in tmp_path.iterdir():
        path.write_text("{", encoding="utf-8")
    with pytest.raises(rs.errors.CheckpointError, match="damaged"):
        rs.evaluate(module, small, tokenizer=tokenizer, out=tmp_path)
    assert damaged.exists()


@pytest.mark.parametrize("precision", [{}, [], 3, True])
def test_a_finished_cell_names_its_precision_or_is_refused(module, tokenizer, answer_task, tmp_path, precision):
    small = answer_task.limit(2)
    rs.evaluate(module, small, tokenizer=tokenizer, out=tmp_path)
    [path] = tmp_path.glob("*.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["samples"][1]["precision"] = precision
    kept = {name: content.pop(name) for name in ("schema", "schema_version", "content_sha256")}
    write_json(path, content, schema=kept["schema"], version=kept["schema_version"])
    with pytest.raises(rs.errors.CheckpointError, match="sample 1 is damaged: 'precision' holds"):
        rs.evaluate(module, small, tokenizer=tokenizer, out=tmp_path)


def test_results_do_not_depend_on_the_batch(module, tokenizer, retriever, choice_task, answer_task):
    found = [
        rs.evaluate(
            TorchModel(module, tokenizer, batch_tokens=n),
            [choice_task.limit(6), answer_task.limit(6)],
            retriever=retriever,
            store_tokens=[0, 900],
            k=2,
            D=1e6,
        ).results
        for n in (64, 8192)
    ]
    pd.testing.assert_frame_equal(*found, rtol=1e-4)


def test_long_prompts_lose_passages_evenly_and_it_is_counted(module, tokenizer, retriever, choice_task):
    lm = TorchModel(module, tokenizer)
    full = rs.evaluate(lm, choice_task, retriever=retriever, store_tokens=1500, k=5, D=1e6).samples
    cut = rs.evaluate(lm, choice_task, retriever=retriever, store_tokens=1500, k=5, max_length=150, D=1e6)
    samples = cut.samples
    assert not full["cut"].any()
    assert samples["cut"].all()
    assert (cut.results["n_cut"] == len(choice_task)).all()
    longest = samples["n_tokens"].map(max)
    assert (samples["n_prompt_tokens"] + longest - 1 <= 150).all()
    assert (samples["n_prompt_tokens"] + longest - 1 >= 140).all()  # no more is cut than must be
    lost = full["n_prompt_tokens"].to_numpy() - samples["n_prompt_tokens"].to_numpy()
    assert np.abs(lost - samples["n_passage_tokens_cut"].to_numpy()).max() <= 6
    assert (samples["n_question_tokens_cut"] == 0).all()


def test_a_question_that_never_fits_is_cut_with_a_warning(lm, choice_task):
    with pytest.warns(EvaluationWarning, match="the question was cut"):
        found = rs.evaluate(lm, choice_task.limit(2), max_length=10, D=1e6)
    assert (found.samples["n_question_tokens_cut"] > 0).all()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rs.evaluate(lm, choice_task.limit(2), max_length=2, D=1e6)
    assert any("an answer was cut" in str(w.message) for w in caught)


def test_worked_examples_never_show_the_question_itself(lm, choice_task, tokenizer):
    prepared = prepare_prompts(choice_task, lm, n_shot=3, seed=4)
    for asked, example in zip(prepared.cells[0].asked, choice_task.examples, strict=True):
        text = tokenizer.decode(prepared.prompts[asked.prompt].requests[0].context)
        assert text.count("Question:") == 4
        assert text.count(example.question) == 1
    shots = (Example(id="s", question="Shot?", answers=("yes",), choices=("yes", "no"), answer_index=0),)
    with_pool = replace(choice_task, shots=shots)
    prepared = prepare_prompts(with_pool, lm, n_shot=1)
    text = tokenizer.decode(next(iter(prepared.prompts.values())).requests[0].context)
    assert text.startswith("Question: Shot?\nAnswer: yes\n\nQuestion: Who")


def test_the_gold_answer_enters_a_query_only_under_a_name_that_marks_the_rows(lm, retriever, answer_task):
    seen = []

    def nosy(example):
        seen.append((example.answers, example.gold_passages, example.passage, example.answer_index))
        return example.question

    plain = rs.evaluate(lm, answer_task, retriever=retriever, store_tokens=900, query=nosy, D=1e6)
    assert set(seen) == {((), (), "", None)}
    assert set(plain.results["query"]) == {"nosy"}
    marked = rs.evaluate(lm, answer_task, retriever=retriever, store_tokens=900, query="gold_in_query", D=1e6)
    assert set(marked.results["condition"]) == {"retrieved+gold-query"}
    assert set(marked.results["query"]) == {"gold_in_query"}

    def only_gold(example):
        return example.answers[0]

    named = rs.evaluate(lm, answer_task, retriever=retriever, store_tokens=900, query=GoldInQuery(only_gold), D=1e6)
    assert set(named.results["query"]) == {"gold_in_query:only_gold"}
    with pytest.raises(ConfigError, match="query must be one of"):
        rs.evaluate(lm, answer_task, retriever=retriever, store_tokens=900, query="questions")
    with pytest.raises(ConfigError, match="gave '' for question 'who-0'"):
        rs.evaluate(lm, answer_task, retriever=retriever, store_tokens=900, query=lambda example: "")


def test_arguments_that_cannot_work_are_all_listed(lm, retriever, choice_task):
    with pytest.raises(ConfigError) as error:
        rs.evaluate(
            lm, [choice_task, choice_task], store_tokens=[-1, 5], k=0, n_shot=99, condition=["retrieved", "magic"]
        )
    text = str(error.value)
    for expected in ("two tasks are named 'bells'", "k must be", "n_shot=99", "'magic'", "[-1]", "no retriever"):
        assert expected in text
    with pytest.raises(ConfigError, match="asks for 999,999 tokens but the retriever holds"):
        rs.evaluate(lm, choice_task, retriever=retriever, store_tokens=[0, 999_999])
    with pytest.raises(ConfigError, match="'random' draws from a store"):
        rs.evaluate(lm, choice_task, condition="random")
    with pytest.raises(ConfigError, match="max_length must be from 2"):
        rs.evaluate(lm, choice_task, max_length=10_000)
    with pytest.raises(ConfigError, match="pass tokenizer="):
        rs.evaluate(lm.module, choice_task)
    with pytest.raises(ConfigError, match="not 3"):
        rs.evaluate(3, choice_task)


def test_texts_are_scored_whole_or_after_a_prefix(lm, retriever, text_task, tokenizer):
    whole = rs.evaluate(lm, text_task, D=1e6)
    assert set(whole.results["metric"]) == set(metric_names("text"))
    total = sum(len(example.question.encode()) for example in text_task.examples)
    nll = -sum(row[0] for row in whole.samples["logprobs"])
    bits = whole.results.query("metric == 'bits_per_byte'")["value"].item()
    assert bits == pytest.approx(nll / np.log(2) / total)
    with pytest.raises(ConfigError, match="would leak it"):
        rs.evaluate(lm, text_task, retriever=retriever, store_tokens=[0, 900])
    after = replace(text_task, prefix_words=8)
    found = rs.evaluate(lm, after, retriever=retriever, store_tokens=[0, 900], k=1, D=1e6)
    closed, open_book = cell(found, "texts", "closed-book"), cell(found, "texts", "retrieved", 900)
    assert closed["n_tokens"].tolist() == open_book["n_tokens"].tolist()
    for sample, example in zip(closed.itertuples(), text_task.examples, strict=True):
        rest = example.question.split(None, 8)[-1]
        assert sample.n_bytes == [len(rest.encode()) + 1]
    with pytest.raises(TaskError, match="nothing is left to score"):
        rs.evaluate(lm, replace(text_task, prefix_words=500))


def test_a_checkpoint_directory_brings_its_place_in_the_table(module, tokenizer, answer_task, tmp_path):
    module.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    small = answer_task.limit(3)
    loaded = rs.evaluate(tmp_path / "model", small, N=5e6, D=2e7, model_seed=3, device="cpu")
    direct = rs.evaluate(module, small, tokenizer=tokenizer, N=5e6, D=2e7, model_seed=3)
    pd.testing.assert_frame_equal(loaded.results, direct.results, rtol=1e-5)
    assert set(loaded.results["seed"]) == {3}
    assert loaded.results["N_total"].iloc[0] == sum(p.numel() for p in module.parameters())
    with pytest.raises(rs.errors.CheckpointError, match="not a Hugging Face causal model"):
        rs.evaluate(tmp_path / "nothing", small)
    saved = loaded.save(tmp_path / "saved")
    again = rs.results.read(saved / "results.jsonl")
    assert again["value"].to_numpy() == pytest.approx(loaded.results["value"].to_numpy(), rel=1e-9)


def test_conditions_are_compared_question_by_question(evaluation):
    table = compare_conditions(evaluation.samples, "nll_per_byte", n_resamples=300, rng=0)
    assert len(table) == 2 * 5
    row = table.query("task == 'bells' and condition == 'oracle'").iloc[0]
    results = evaluation.results.query("task == 'bells' and metric == 'nll_per_byte'").set_index("condition")["value"]
    assert row["difference"] == pytest.approx(results["oracle"] - results["closed-book"])
    assert row["low"] <= row["difference"] <= row["high"]
    bells = evaluation.samples[evaluation.samples["task"] == "bells"]
    at_equal_length = compare_conditions(bells, "brier", reference="random", n_resamples=50, rng=0)
    assert set(at_equal_length["condition"]) == {"retrieved"}
    gain = decompose_gain(evaluation.samples)
    for found in gain.itertuples():
        parts = [h * g for h, g in ((found.hit_rate, found.gain_hit), (1 - found.hit_rate, found.gain_miss)) if h > 0]
        assert found.gain == pytest.approx(sum(parts))
    assert gain["gain_random"].notna().all()
    assert gain["gain_oracle"].notna().all()
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare_conditions(evaluation.samples, reference="magic")
    with pytest.raises(ConfigError, match="has no value per question"):
        compare_conditions(evaluation.samples, "calibration_error")


def test_a_model_that_copies_gains_from_the_gold_passage_and_not_from_random_ones(tokenizer, passages):
    """A hand-made copier: tokens that stood in the context are likelier. The decomposition must show it."""
    from ragscale.evaluation import LanguageModel, Score

    class Copier(LanguageModel):
        max_length, prefix_token = 4096, 0

        def _encode(self, texts):
            return tokenizer(list(texts), add_special_tokens=False)["input_ids"]

        def _decode(self, tokens):
            return tokenizer.batch_decode(tokens)

        def _score(self, requests):
            def one(request, continuation):
                context = " ".join(map(str, request.context))
                return -1.0 if " ".join(map(str, continuation)) in context else -10.0

            return [Score(tuple(one(r, c) for c in r.continuations), (False,) * len(r.continuations)) for r in requests]

        def _generate(self, prompts, max_new_tokens, stop):
            return ["" for _ in prompts]

    names = [passage.text.split("made by ")[1].split(" of")[0] for passage in passages]
    towns = [passage.text.split()[3] for passage in passages]
    examples = [
        Example(id=str(i), question=f"Who made the bell of {towns[i]}?", answers=(names[i],), gold_passages=(f"p{i}",))
        for i in range(30)
    ]
    task = Task(name="copy", kind="likelihood", examples=examples)
    retriever = BM25Retriever().index(passages)
    found = rs.evaluate(
        Copier(),
        task,
        retriever=retriever,
        store_tokens=[0, 400, 1200],
        condition=["retrieved", "random", "oracle"],
        k=1,
        D=1e6,
        N=1e6,
    )
    gain = decompose_gain(found.samples, "nll")
    assert gain["gain_hit"].tolist() == [9.0, 9.0]
    assert gain["gain_miss"].tolist() == [0.0, 0.0]
    assert gain["gain_random"].tolist() == [0.0, 0.0]
    assert gain["gain_oracle"].tolist() == [9.0, 9.0]
    assert gain["hit_rate"].is_monotonic_increasing
    assert gain["gain"].to_numpy() == pytest.approx(9 * gain["hit_rate"].to_numpy())
