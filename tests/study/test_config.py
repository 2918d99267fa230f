"""A configuration is made of objects, frozen, JSON or YAML, and names everything that is wrong with it at once."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.evaluation import Example, PromptTemplate, Task
from ragscale.retrieval import BM25Retriever
from ragscale.study import Grid, StudyConfig
from ragscale.training import ModelConfig, TrainConfig

SYNTHETIC = {"synthetic": {"n_documents": 100}}
BASE = {"corpus": SYNTHETIC, "models": ["0.15M"], "D": [1000], "R": [100]}
SHAPE = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32}
TASK = Task(
    name="dew",
    kind="multiple_choice",
    examples=(Example(id="1", question="What?", choices=("a", "b"), answer_index=1, meta={"n": [1, 2]}),),
    template=PromptTemplate(question="{question}"),
)


def config(**changes) -> StudyConfig:
    return StudyConfig(**{**BASE, **changes})


def every_kind() -> StudyConfig:
    return config(
        models=[
            "0.15M",
            {**SHAPE, "tied": True, "training": {"learning_rate": 0.1, "betas": [0.9, 0.95]}},
            ModelConfig.custom(**SHAPE, vocab_size=4096, name="own"),
            {"rung": "0.5M", "init_std": 0.02, "name": "wide"},
        ],
        D=Grid((1, 20), "per_parameter"),
        R=[1000, 2000],
        budgets=Grid((1.0,), "share_of_budget"),
        seeds=(0, 1),
        training=TrainConfig(seq_len=64),
        retriever=BM25Retriever(k1=1.2),
        tasks=[TASK, "squad.jsonl", {"path_or_name": "nq.jsonl", "limit": 5, "template": {"question": "{question}"}}],
    )


@pytest.mark.parametrize("name", ["config.json", "again.json"])
def test_json_and_back_is_the_same_configuration(tmp_path, name):
    made = every_kind()
    made.write(tmp_path / name)
    again = StudyConfig.read(tmp_path / name)
    assert again == made
    assert again.digest == made.digest
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()
    assert pickle.loads(pickle.dumps(made)) == made


def test_dictionaries_become_objects_at_once():
    made = every_kind()
    assert made.training == TrainConfig(seq_len=64) == config(training={"seq_len": 64}).training
    assert [model.name for model in made.models] == ["0.15M", "L1-d16", "own", "wide"]
    assert made.models[1].config_over(made.training).learning_rate == 0.1
    assert made.models[0].shape_for(777) == ModelConfig.olmo2("0.15M", vocab_size=777)
    assert made.models[2].shape_for(777).vocab_size == 4096, "a shape given with its vocabulary keeps it"
    assert made.tasks[0].load() == TASK
    assert made.retriever.build().k1 == 1.2
    assert config(retriever={"kind": "bm25", "k1": 1.2}).retriever == made.retriever
    assert config(models="0.15M") == config()


def test_nothing_of_a_configuration_can_be_changed():
    made = every_kind()
    given = {"synthetic": {"n_documents": 100}}
    taken = config(corpus=given)
    given["synthetic"]["n_documents"] = 5
    assert taken == config()
    for value in (made, made.D, made.models[1], made.models[1].shape, made.training, made.retriever, made.tasks[0]):
        field = dataclasses.fields(value)[0].name
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            setattr(value, field, None)
    with pytest.raises(TypeError):
        taken.corpus["synthetic"]["n_documents"] = 5
    for name in ("models", "tasks", "seeds", "conditions", "gold"):
        assert isinstance(getattr(made, name), tuple)


YAML = """
# a study as a person writes it
corpus: [a.jsonl, b.jsonl.zst]
models:
  - 0.15M
  - {rung: 0.5M, training: {learning_rate: 1e-2}}
D: {values: [1, 2.5, 20], unit: per_parameter}
R: [1e5, 1_000_000]
budgets: [2e6]
max_tokens: 5e6
seeds: [0, 1]
tokenizer: 4096
tasks:
  - {path_or_name: squad.jsonl, kind: likelihood, limit: 300}
training: {seq_len: 256, learning_rate: 5e-3}
retriever: {kind: bm25, k1: 0.9}
deduplicate: null
"""


def test_yaml_by_hand_is_the_configuration_of_python(tmp_path):
    (tmp_path / "study.yaml").write_text(YAML)
    expected = StudyConfig(
        corpus=["a.jsonl", "b.jsonl.zst"],
        models=["0.15M", {"rung": "0.5M", "training": {"learning_rate": 0.01}}],
        D=Grid((1, 2.5, 20), "per_parameter"),
        R=[100_000, 1_000_000],
        budgets=[2_000_000],
        max_tokens=5_000_000,
        seeds=(0, 1),
        tasks=[{"path_or_name": "squad.jsonl", "kind": "likelihood", "limit": 300}],
        training=TrainConfig(seq_len=256, learning_rate=0.005),
        deduplicate=None,
    )
    assert StudyConfig.read(tmp_path / "study.yaml") == expected
    (tmp_path / "study.json").write_text(json.dumps({**expected.to_dict()}))
    assert StudyConfig.read(tmp_path / "study.json") == expected, "JSON needs no wrapper"


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("s.yaml", "corpus: [a\n", "not YAML"),
        ("s.yaml", "k: 1\nk: 2\n", "k stands twice"),
        ("s.json", '{"k": 1, "k": 2}', "k stands twice"),
        ("s.json", "{", "not JSON"),
        ("s.json", "[1]", "by name"),
        ("s.yaml", "", "by name"),
        ("s.yaml", YAML + "learning_rate: 1\n", "StudyConfig has no learning_rate"),
        ("s.yaml", YAML.replace("seq_len", "lr"), "learning_rate"),
        ("s.yaml", "k: 3", "needs corpus, models, D, R"),
        ("s.yaml", "corpus: !!python/object/apply:os.system ['touch ran']", "not YAML"),
        ("s.json", '{"schema": "ragscale-job", "schema_version": 1}', "expected 'ragscale-study'"),
        ("s.json", '{"schema": "ragscale-study", "schema_version": 1}', "has no 'config'"),
    ],
)
def test_files_that_are_no_study_are_refused_by_name(tmp_path, monkeypatch, name, text, match):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=match) as caught:
        StudyConfig.read(tmp_path / name)
    assert name in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_digest_changes_with_every_field_that_changes():
    changes = ({}, {"k": 3}, {"R": [101]}, {"seeds": (1,)}, {"retriever": "lsa"}, {"training": {"seq_len": 64}})
    assert len({config(**change).digest for change in changes}) == len(changes)


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        StudyConfig(
            corpus={"imaginary": {}},
            models=[],
            D=Grid((-1,), "furlongs"),
            R=[0],
            k=0,
            seeds=(1, 1),
            conditions=("open",),
            retriever={"kind": "oracle"},
            passage_overlap=200,
        )
    message = str(caught.value)
    for problem in (
        "corpus",
        "models",
        "furlongs",
        "-1",
        "tasks",
        "k = 0",
        "seeds",
        "open",
        "oracle",
        "passage_overlap",
    ):
        assert problem in message


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"training": {"lr": 1e-3}}, r"no 'lr' \(is it 'learning_rate'\?\)"),
        ({"training": {"seq_len": "long"}}, "seq_len"),
        ({"training": {"learning_rate": "high"}}, "training"),
        ({"training": {"seq_len": 100, "batch_tokens": 150}}, "no multiple of seq_len"),
        ({"training": {"seed": 3}}, "seed = 3"),
        ({"training": 5}, "TrainConfig"),
        ({"models": ["9G"]}, "9G"),
        ({"models": [{"rung": "9G"}]}, "9G"),
        ({"models": [{**SHAPE, "d_model": 17}]}, "d_model=17"),
        ({"models": [{"n_layers": 1}]}, "d_model, n_heads, d_ff is missing"),
        ({"models": [{**SHAPE, "width": 3}]}, "no 'width'"),
        ({"models": [{"rung": "0.15M", "training": {"lr": 1}}]}, r"training of model 0\.15M has no 'lr'"),
        ({"models": ["0.15M", "0.15M"]}, "stands twice"),
        ({"models": [3]}, "a model must be"),
        ({"models": [ModelConfig.olmo2("0.15M", vocab_size=100)]}, "vocab_size = 100, below the tokenizer's 4096"),
        ({"training": {"seq_len": 8192}}, "max_seq_len"),
        ({"deduplicate": "fuzzy"}, "deduplicate = 'fuzzy'"),
        ({"deduplicate": ["exact"]}, "deduplicate"),
        ({"max_tokens": "40k"}, "max_tokens = '40k'"),
        ({"max_tokens": 1.5}, r"max_tokens = 1\.5"),
        ({"max_tokens": float("nan")}, "max_tokens"),
        ({"seeds": (0.5,)}, "seeds"),
        ({"seeds": (1.0,)}, "seeds"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": ("a",)}, "seeds"),
        ({"k": [1, 1]}, r"k = \[1, 1\] must be whole numbers of at least 1, each once"),
        ({"k": True}, "k = True"),
        ({"D": ["40k"]}, "D has values"),
        ({"D": [float("inf")]}, "D has values"),
        ({"D": [True]}, "D has values"),
        ({"D": {"value": [1]}}, "D = .*must have 'values'"),
        ({"D": None}, "D = None"),
        ({"budgets": Grid((1.5,), "share_of_budget")}, "shares of the budget above 1"),
        ({"conditions": ["retrieved", 3]}, "conditions"),
        ({"corpus": {"synthetic": {"n_docs": 3}}}, "no n_docs"),
        ({"corpus": {"synthetic": [1, "a"]}}, "'synthetic' must hold the arguments"),
        ({"corpus": {"synthetic": float("inf")}}, "'synthetic' must hold the arguments"),
        ({"corpus": {"synthetic": {1: 2, "b": 3}}}, "no 1, b"),
        (
            {"corpus": {"synthetic": {"n_documents": float("nan")}}},
            r"corpus\.synthetic\.n_documents = nan must be a finite",
        ),
        ({"corpus": {"synthetic": {"n_documents": np.int64(5)}}}, "n_documents is a int64: give a number"),
        ({"training": {"learning_rate": float("inf")}}, "learning_rate"),
        ({"corpus": []}, "corpus is empty"),
        ({"corpus": 3}, "corpus must be files"),
        ({"tasks": [{"path": "x"}]}, "path_or_name"),
        ({"tasks": [{"path_or_name": "x", "limit": 0}]}, "limit = 0"),
        ({"tasks": [{"path_or_name": "x", "template": {"text": "y"}}]}, "template"),
        ({"tasks": [3]}, "a task must be"),
        ({"decontaminate": "no"}, "decontaminate = 'no'"),
        ({"threads": 0}, "threads = 0"),
        ({"conditions": None}, "conditions = None must be a list"),
        ({"store_sources": None}, "store_sources = None must be a list"),
        ({"gold": None}, "gold = None must be a list"),
        ({"models": np.int64(3)}, "models = .*3.* must be a list"),
        ({"tokenizer": ""}, "tokenizer"),
        ({"tokenizer": 0}, "tokenizer = 0"),
    ],
)
def test_each_problem_is_named_when_the_configuration_is_made(changes, match):
    with pytest.raises(ConfigError, match=match):
        config(**changes)


def test_counts_may_be_written_as_people_write_them():
    made = config(max_tokens=5e6, k=np.int64(3), D=np.array([1e3, 2e3]), R=5e2, seeds=np.arange(2))
    plain = config(max_tokens=5_000_000, k=3, D=[1000, 2000], R=[500], seeds=(0, 1))
    assert made == plain
    assert type(made.max_tokens) is int
    assert made.digest == plain.digest


def test_unknown_fields_are_refused_by_name():
    with pytest.raises(ConfigError, match="no tokens"):
        StudyConfig.from_dict({"tokens": [1]})
    with pytest.raises(ConfigError, match="must be a dictionary"):
        StudyConfig.from_dict([1])


@given(
    values=st.lists(st.floats(0.001, 100), min_size=1, max_size=6),
    n_params=st.integers(1000, 10**10),
    budget=st.integers(10**4, 10**13),
)
def test_grids_are_counts_in_order_without_repeats(values, n_params, budget):
    for unit, scale in (("tokens", 1), ("per_parameter", n_params), ("share_of_budget", budget)):
        counts = Grid(tuple(values), unit).tokens(n_params=n_params, budget=budget)
        assert list(counts) == sorted(set(counts))
        assert set(counts) == {round(value * scale) for value in values}
