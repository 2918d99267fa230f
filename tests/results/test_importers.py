"""Importing other people's result files: lm-eval's JSON (made by lm-eval itself) and the published study's CSVs."""

from __future__ import annotations

import hashlib
import json
import warnings

import pytest

from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results import read_lm_eval, read_paper_csv, validate

CHOICE_TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""

GENERATION_TASK = """
task: sums_written
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs:
  until: ["\\n"]
filter_list:
  - name: strict
    filter:
      - function: take_first
  - name: flexible
    filter:
      - function: remove_whitespace
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""

GROUP = """
group: sums
task: [sums_a, sums_b]
aggregate_metric_list:
  - metric: acc
    aggregation: mean
    weight_by_size: true
"""


@pytest.fixture(scope="module")
def lm_eval_output(tmp_path_factory):
    """Run lm-eval itself, offline, on two tasks, a group and a generation task with two filters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lm_eval = pytest.importorskip("lm_eval")
        from lm_eval.api.model import LM
        from lm_eval.loggers import EvaluationTracker
        from lm_eval.tasks import TaskManager

    class HashModel(LM):
        """Scores every continuation by a hash of its text: random, but the same every time."""

        def loglikelihood(self, requests, disable_tqdm=False):
            return [(-int(hashlib.sha256(repr(r.args).encode()).hexdigest()[:6], 16) / 1e6, False) for r in requests]

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            return [-1.0 for _ in requests]

        def generate_until(self, requests, disable_tqdm=False):
            return [" 4" for _ in requests]

    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "sums.jsonl"
    questions = [
        {"question": f"What is {i} plus {i}?", "choices": [f"{2 * i}", f"{2 * i + 1}", f"{i + 3}"], "answer": 0}
        for i in range(12)
    ]
    data.write_text("".join(json.dumps(q) + "\n" for q in questions))
    for name in ("sums_a", "sums_b"):
        (folder / f"{name}.yaml").write_text(CHOICE_TASK.format(name=name, data=data))
    (folder / "written.yaml").write_text(GENERATION_TASK.format(data=data))
    (folder / "group.yaml").write_text(GROUP)
    out = tmp_path_factory.mktemp("lm-eval")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        tracker = EvaluationTracker(output_path=str(out))
        evaluated = lm_eval.simple_evaluate(
            model=HashModel(),
            tasks=["sums", "sums_written"],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            bootstrap_iters=50,
            evaluation_tracker=tracker,
            log_samples=False,
        )
        tracker.save_results_aggregated(results=evaluated, samples=None)
    return out, evaluated["results"]


def test_lm_evals_own_file_is_read_with_every_metric(lm_eval_output):
    out, evaluated = lm_eval_output
    table = read_lm_eval(out, N=1e8, D=2e9, R=0, seed=42)
    assert set(table["task"]) == {"sums_a", "sums_b", "sums_written"}
    assert set(table["metric"]) == {"acc", "acc_norm", "exact_match"}
    assert not table["metric"].str.contains(",").any()
    for _, row in table.iterrows():
        assert row["value"] == evaluated[row["task"]][f"{row['metric']},{row['filter']}"]
        assert row["stderr"] == evaluated[row["task"]][f"{row['metric']}_stderr,{row['filter']}"]
    assert (table["n_examples"] == 12).all()
    assert table["higher_is_better"].all()
    assert (table["seed"] == 42).all()
    assert set(table.loc[table["task"] == "sums_written", "filter"]) == {"strict", "flexible"}


def test_group_averages_are_left_out_unless_asked_for(lm_eval_output):
    out, evaluated = lm_eval_output
    table = read_lm_eval(out, N=1e8, D=2e9, R=1e9, groups=True)
    group = table[table["task"] == "sums"]
    assert list(group["value"]) == [evaluated["sums"]["acc,none"]]
    assert list(group["n_examples"]) == [24]


def test_the_newest_of_several_files_counts(lm_eval_output, tmp_path):
    out, _ = lm_eval_output
    content = json.loads(next(out.rglob("results_*.json")).read_text())
    for date, value in (("2020-01-01T00-00-00.0", 0.1), ("2021-01-01T00-00-00.0", 0.2)):
        content["results"]["sums_a"]["acc,none"] = value
        (tmp_path / f"results_{date}.json").write_text(json.dumps(content))
    with pytest.warns(ResultsWarning, match="several results of 3 tasks"):
        table = read_lm_eval(tmp_path, N=1e8, D=2e9, R=0)
    assert table.query("task == 'sums_a' and metric == 'acc'")["value"].item() == 0.2


def test_lm_eval_writes_na_where_it_has_no_standard_error(tmp_path):
    content = {"results": {"wiki": {"alias": "wiki", "bits_per_byte,none": 0.9, "bits_per_byte_stderr,none": "N/A"}}}
    file = tmp_path / "results_x.json"
    file.write_text(json.dumps(content))
    row = read_lm_eval(file, N=1e8, D=2e9, R=0)
    assert row["value"].item() == 0.9
    assert row["stderr"].isna().all()
    assert "filter" not in row


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"results": []}', '{"results": {"a": 3}}', '{"results": {"a": {"alias": "a"}}}', "[" * 9999],
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "results_1.json").write_text(text)
    with pytest.raises(ResultsError):
        read_lm_eval(tmp_path / "results_1.json", N=1e8, D=2e9, R=0)


def test_lm_eval_arguments_are_checked(tmp_path):
    with pytest.raises(ResultsError, match="does not exist"):
        read_lm_eval(tmp_path / "no.json", N=1e8, D=2e9, R=0)
    with pytest.raises(ResultsError, match=r"no results_\*"):
        read_lm_eval(tmp_path, N=1e8, D=2e9, R=0)
    (tmp_path / "results_1.json").write_text('{"results": {"a": {"acc,none": 0.5}}}')
    with pytest.raises(ResultsError, match="below 1,000"):
        read_lm_eval(tmp_path, N=0.1, D=20, R=0)
    with pytest.raises(ResultsError, match="value come from the file"):
        read_lm_eval(tmp_path, N=1e8, D=2e9, R=0, value=3)


HEADER = "variant,index_label,task,metric_key,metric_value,model_scale\n"


def test_the_studys_files_give_n_d_r_and_seed(tmp_path):
    (tmp_path / "aggregated_136m_k5.csv").write_text(
        HEADER
        + 'baseline,baseline,sciq,"perplexity,none",8.41,1x\n'
        + 'rag,136M_tok,sciq,"perplexity,none",7.0,1x\n'
        + 'rag,2x,sciq,"perplexity,none",6.0,10x\n'
        + 'rag,2.72B_tok,nq_open,"exact_match,remove_whitespace",0.1,10x\n'
        + 'baseline,baseline,nq_open,"exact_match,remove_whitespace",0.05,10x\n'
    )
    (tmp_path / "aggregated_136m_seed43_k5.csv").write_text(
        HEADER + 'baseline,baseline,sciq,"perplexity,none",8.5,1x\n'
    )
    (tmp_path / "aggregated_0.728b.csv").write_text(HEADER + 'baseline,baseline,sciq,"perplexity,none",6.2,100x\n')
    table = read_paper_csv(tmp_path).sort_values(["N", "seed", "D", "R"], ignore_index=True)
    assert set(table["N"]) == {136e6, 728e6}
    big = table[table["N"] == 728e6].iloc[0]
    assert (big["D"], big["R"], big["seed"]) == (72.8e9, 0, 42)
    small = table[(table["N"] == 136e6) & (table["seed"] == 42)]
    assert list(small["D"]) == [136e6, 136e6, 1.36e9, 1.36e9, 1.36e9]
    assert list(small["R"]) == [0, 136e6, 0, 272e6, 2.72e9]  # "2x" is twice N, not two tokens
    assert set(table["seed"]) == {42, 43}
    assert list(small["condition"]) == ["closed-book", "retrieved", "closed-book", "retrieved", "retrieved"]
    assert set(table["metric"]) == {"perplexity", "exact_match"}
    assert len(validate(table)) == len(table)


def test_every_unreadable_part_of_the_studys_files_is_listed(tmp_path):
    (tmp_path / "aggregated_k5.csv").write_text(HEADER)
    (tmp_path / "aggregated_1b_k5.csv").write_text(
        HEADER + "baseline,baseline,sciq,acc,oops,1x\nrag,many,sciq,acc,0.5,1x\nbaseline,1B_tok,sciq,acc,0.5,x\n"
    )
    (tmp_path / "aggregated_3b_k5.csv").write_text("variant,task\n")
    with pytest.raises(ResultsError) as caught:
        read_paper_csv(tmp_path)
    message = str(caught.value)
    for part in ("aggregated_k5.csv", "'oops'", "'many'", "'x'", "columns index_label", "variant 'baseline'"):
        assert part in message


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match="no aggregated"):
        read_paper_csv(tmp_path)
    (tmp_path / "aggregated_1b.csv").write_text(HEADER)
    with pytest.raises(ResultsError):
        read_paper_csv(tmp_path)
