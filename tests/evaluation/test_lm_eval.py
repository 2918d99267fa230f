"""Our numbers are lm-eval's on the same prompts, and lm-eval's tasks run with retrieval."""

from __future__ import annotations

import json
import logging
import warnings

import numpy as np
import pytest
import yaml

import ragscale as rs
from ragscale.errors import ConfigError
from ragscale.evaluation import PromptTemplate, TorchModel, load_task, per_question

N = 10
COMMON = {"dataset_path": "json", "test_split": "test"}


def data_set(world, kind):
    towns, makers, materials = world.towns, world.makers, world.materials
    rows = []
    for i in range(N):
        rng = np.random.default_rng(i)
        choices = [makers[i], *(makers[j] for j in rng.permutation(40).tolist() if j != i)][:4]
        label = int(rng.integers(4))
        choices[0], choices[label] = choices[label], choices[0]
        rows.append(
            {
                "id": f"{kind}-{i}",
                "question": f"Who made the bell of {towns[i]}?",
                "support": f"  {world.fact(i)}",
                "choices": choices,
                "endings": [
                    f"of {m} and was paid in {n}." for m, n in zip(materials[i % 7 :], materials, strict=False)
                ][:3],
                "label": label,
                "ending": int(rng.integers(3)),
                "yes": bool(rng.integers(2)),
                "text": f"{world.fact(i)} {world.fact(i + 1)} {world.fact(i + 2)} {world.fact(i + 3)}",
                "aliases": [makers[i], makers[i].upper()],
            }
        )
    return rows


def configs(path):
    data = {"dataset_kwargs": {"data_files": {"test": str(path)}}}
    choice = {
        **COMMON,
        **data,
        "output_type": "multiple_choice",
        "metric_list": [{"metric": m} for m in ("acc", "acc_norm", "acc_bytes", "brier_score", "acc_mutual_info")],
    }
    return {
        "arc_like": {
            **choice,
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_choice": "choices",
            "doc_to_target": "label",
        },
        "hellaswag_like": {
            **choice,
            "doc_to_text": "{{question}} The bell was made",
            "doc_to_choice": "{{endings}}",
            "doc_to_target": "{{ending}}",
        },
        "sciq_like": {
            **choice,
            "doc_to_text": "{{support.lstrip()}}\nQuestion: {{question}}\nAnswer:",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{choices[label]}}",
        },
        "yes_no_like": {
            **choice,
            "description": "Answer yes or no.\n\n",
            "doc_to_text": "Was the bell of {{id}} loud?",
            "doc_to_choice": ["no", "yes"],
            "doc_to_target": "{{'yes' if yes else 'no'}}",
            "target_delimiter": "\n",
        },
        "lambada_like": {
            **COMMON,
            **data,
            "output_type": "loglikelihood",
            "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
            "doc_to_target": "{{' '+text.split(' ')[-1]}}",
            "target_delimiter": "",
            "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
        },
        "nq_like": {
            **COMMON,
            **data,
            "output_type": "generate_until",
            "doc_to_text": "Q: {{question}}\nA:",
            "doc_to_target": "aliases",
            "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 8, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
        "pile_like": {
            **COMMON,
            **data,
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}, {"metric": "word_perplexity"}],
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, world):
    folder = tmp_path_factory.mktemp("lm-eval")
    rows = data_set(world, "q")
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, config in configs(folder / "data.jsonl").items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **config}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """lm-eval's own evaluate, offline and without its cache in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lm_eval
            from lm_eval.models.huggingface import HFLM

            logging.getLogger("lm_eval").setLevel(logging.ERROR)

            def run(lm, tasks):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # third-party: datasets, multiprocess
                    return lm_eval.simple_evaluate(model=lm, tasks=tasks, bootstrap_iters=0, log_samples=True)

            run.HFLM = HFLM
            yield run


@pytest.fixture(scope="module")
def small_module(world, tokenizer):
    return world.make_module(tokenizer, max_length=128)  # rolling windows and left truncation really happen


@pytest.fixture(scope="module")
def theirs(harness, folder, small_module, tokenizer):
    lm = harness.HFLM(pretrained=small_module, tokenizer=tokenizer, batch_size=10, device="cpu")
    tasks = [{"task": name, **config} for name, config in configs(folder / "data.jsonl").items()]
    return harness(lm, tasks)


@pytest.fixture(scope="module")
def ours(folder, small_module, tokenizer):
    tasks = [folder / f"{name}.yaml" for name in configs("")]
    return rs.evaluate(TorchModel(small_module, tokenizer), tasks, pmi=True, D=1e6)


def value(results, task, metric):
    row = results[(results["task"] == task) & (results["metric"] == metric)]
    assert len(row) == 1
    return row["value"].item()


@pytest.mark.parametrize("task", ["arc_like", "hellaswag_like", "sciq_like", "yes_no_like", "lambada_like"])
def test_every_log_likelihood_is_lm_evals(task, theirs, ours):
    found = ours.samples[ours.samples["task"] == task]
    samples = sorted(theirs["samples"][task], key=lambda sample: sample["doc_id"])
    assert len(found) == len(samples) == N
    for sample, logprobs, greedy in zip(samples, found["logprobs"], found["greedy"], strict=True):
        expected = [response[0] for response in sample["resps"]][: len(logprobs)]  # PMI's requests stand behind
        assert [float(e[0]) for e in expected] == pytest.approx(logprobs, abs=1e-4)
        assert [str(e[1]) == "True" for e in expected] == greedy


@pytest.mark.parametrize("task", ["arc_like", "hellaswag_like", "sciq_like", "yes_no_like"])
def test_choice_metrics_are_lm_evals(task, theirs, ours):
    expected = theirs["results"][task]
    pairs = {
        "acc": "accuracy",
        "acc_norm": "accuracy_per_char",
        "acc_bytes": "accuracy_per_byte",
        "acc_mutual_info": "accuracy_pmi",
        "brier_score": "brier",
    }
    for their_name, our_name in pairs.items():
        assert value(ours.results, task, our_name) == pytest.approx(expected[f"{their_name},none"], abs=1e-5)
    from lm_eval.api.metrics import mean_stderr

    correct = per_question(ours.samples[ours.samples["task"] == task], "accuracy")
    stderr = ours.results.query(f"task == '{task}' and metric == 'accuracy'")["stderr"].item()
    assert stderr == pytest.approx(mean_stderr(correct.tolist()), abs=1e-12)


def test_last_word_text_and_generation_metrics_are_lm_evals(theirs, ours):
    results = theirs["results"]
    word = ours.samples[ours.samples["task"] == "lambada_like"]
    assert np.exp(per_question(word, "nll").mean()) == pytest.approx(
        results["lambada_like"]["perplexity,none"], rel=1e-5
    )
    assert value(ours.results, "lambada_like", "accuracy") == results["lambada_like"]["acc,none"]
    for metric in ("bits_per_byte", "byte_perplexity", "word_perplexity"):
        assert value(ours.results, "pile_like", metric) == pytest.approx(
            results["pile_like"][f"{metric},none"], rel=1e-5
        )
    texts = ours.samples[ours.samples["task"] == "nq_like"]["generated"].tolist()
    samples = sorted(theirs["samples"]["nq_like"], key=lambda sample: sample["doc_id"])
    assert texts == [sample["resps"][0][0] for sample in samples]
    assert any(texts)


def test_windows_and_truncation_really_happened(ours, small_module, tokenizer, world):
    tokens = ours.samples.query("task == 'pile_like'")["n_tokens"].map(lambda sizes: sizes[0])
    assert (tokens > small_module.config.max_position_embeddings).all()


def test_our_model_inside_lm_eval_gives_the_same_results(harness, theirs, folder, small_module, tokenizer):
    from ragscale.evaluation import HarnessLM

    names = ("arc_like", "nq_like", "pile_like", "lambada_like")
    tasks = [{"task": name, **configs(folder / "data.jsonl")[name]} for name in names]
    inside = harness(HarnessLM(small_module, tokenizer=tokenizer), tasks)
    for name in names:
        for metric, expected in theirs["results"][name].items():
            if isinstance(expected, float):
                assert inside["results"][name][metric] == pytest.approx(expected, rel=1e-5)


def test_lm_eval_with_retrieval_equals_evaluate_with_retrieval(harness, folder, module, tokenizer, retriever):
    from ragscale.evaluation import RetrievalLM

    names = ("arc_like", "nq_like")
    tasks = [{"task": name, **configs(folder / "data.jsonl")[name]} for name in names]
    template = PromptTemplate(passage="[{rank}] {text}", passage_separator="\n", passage_tokens=30)
    lm = RetrievalLM(
        harness.HFLM(pretrained=module, tokenizer=tokenizer, batch_size=10, device="cpu"),
        retriever,
        k=2,
        store_tokens=1500,
        template=template,
    )
    found = harness(lm, tasks)
    for name in names:
        task = load_task(folder / f"{name}.yaml")
        asked = rs.evaluation.PromptTemplate(
            question="{question}", passage="[{rank}] {text}", passage_separator="\n", passage_tokens=30
        )
        ours = rs.evaluate(
            TorchModel(module, tokenizer),
            task,
            retriever=retriever,
            store_tokens=1500,
            k=2,
            template=asked,
            query=lambda example: rs.evaluation.question_in_context(example.question),
        )
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        if name == "nq_like":
            assert [sample["resps"][0][0] for sample in samples] == ours.samples["generated"].tolist()
        else:
            for sample, logprobs in zip(samples, ours.samples["logprobs"], strict=True):
                expected = [float(response[0][0]) for response in sample["resps"]][: len(logprobs)]
                assert expected == pytest.approx(logprobs, abs=1e-4)
    assert sum(cut.passage_tokens for cut in lm.cut) > 0  # passages of more than 30 tokens were cut, and counted


def test_retrieval_for_a_whole_text_is_refused(module, tokenizer, retriever):
    from lm_eval.api.instance import Instance

    from ragscale.evaluation import RetrievalLM, TorchModel

    lm = RetrievalLM(TorchModel(module, tokenizer), retriever)
    with pytest.raises(ConfigError, match="scored text itself"):
        lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("text",), 0)])


def test_only_greedy_generation_is_offered(module, tokenizer, retriever):
    from lm_eval.api.instance import Instance

    from ragscale.evaluation import HarnessLM

    request = Instance("generate_until", {}, ("Q:", {"until": ["\n"], "temperature": 0.7}), 0)
    with pytest.raises(ConfigError, match="greedy"):
        HarnessLM(module, tokenizer=tokenizer).generate_until([request])


def test_yaml_that_needs_python_is_refused_with_every_reason(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("task: bad\nprocess_docs: !function utils.f\noutput_type: odd\n", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_task(path)
    text = str(error.value)
    assert "3 problems" in text or "4 problems" in text or "5 problems" in text
    assert "utils.f" in text
    assert "'odd'" in text
    assert "doc_to_target" in text


def test_yaml_include_and_bad_records(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "output_type: multiple_choice\ntest_split: test\ndataset_path: json\ndoc_to_choice: choices\n"
        "doc_to_text: 'Q: {{q}}'\ndoc_to_target: label\n",
        encoding="utf-8",
    )
    (tmp_path / "task.yaml").write_text(
        "include: base.yaml\ntask: mine\ndataset_kwargs: {data_files: {test: data.json}}\n", encoding="utf-8"
    )
    (tmp_path / "data.json").write_text(
        json.dumps([{"q": "1?", "choices": ["a", "b"], "label": 1}, {"choices": ["a", "b"], "label": 0}]),
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=r"record 1: UndefinedError: 'q' is undefined"):
        load_task(tmp_path / "task.yaml")
    (tmp_path / "data.json").write_text(json.dumps([{"q": "1?", "choices": ["a", "b"], "label": 1}]), encoding="utf-8")
    task = load_task(tmp_path / "task.yaml", name="renamed")
    assert task.name == "renamed"
    assert task.examples[0].choices[task.examples[0].answer_index] == "b"
