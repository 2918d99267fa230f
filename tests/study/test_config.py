"""A configuration is JSON, frozen, and names everything that is wrong with it at once."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.study import Grid, StudyConfig

SYNTHETIC = {"synthetic": {"n_documents": 100}}


def test_json_and_back_is_the_same_configuration(tmp_path):
    config = StudyConfig(
        corpus=SYNTHETIC,
        models=["0.15M", {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32}],
        D=Grid((1, 20), "per_parameter"),
        R=[1000, 2000],
        budgets=Grid((1.0,), "share_of_budget"),
        seeds=(0, 1),
        training={"seq_len": 64},
    )
    config.write(tmp_path / "config.json")
    again = StudyConfig.read(tmp_path / "config.json")
    assert again == config
    assert again.digest == config.digest
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()


def test_the_digest_changes_with_every_field_that_changes():
    base = {"corpus": SYNTHETIC, "models": ["0.15M"], "D": [1000], "R": [100]}
    digests = {StudyConfig(**{**base, **change}).digest for change in ({}, {"k": 3}, {"R": [101]}, {"seeds": (1,)})}
    assert len(digests) == 4


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


def test_unknown_fields_are_refused_by_name():
    with pytest.raises(ConfigError, match="no tokens"):
        StudyConfig.from_dict({"tokens": [1]})


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
