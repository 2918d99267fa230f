"""Every setting of the wrong kind is named when the configuration is made, and what is taken can be written."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from ragscale._files import value_digest
from ragscale.errors import ConfigError
from ragscale.training import TrainConfig

ODD = [None, float("nan"), float("inf"), [], {}, "", "x", b"x", object(), True, -1, 0, [None], (1, 2), np.float32(0.5)]


@pytest.mark.parametrize("name", [field.name for field in fields(TrainConfig)])
def test_a_value_is_refused_by_name_or_can_be_written(name):
    refused = 0
    for value in ODD:
        try:
            value_digest(TrainConfig(**{"seq_len": 64, name: value}).to_dict())
        except ConfigError as error:
            assert name in str(error)  # noqa: PT017 - what is taken is checked too
            refused += 1
    assert refused > len(ODD) / 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"learning_rate": "1e-3"}, "learning_rate must be a finite number above 0, got '1e-3'"),
        ({"clip_norm": float("inf")}, "clip_norm must be a finite number above 0, got inf"),
        ({"decay_fraction": 1.5}, "decay_fraction must be a finite number above 0 and at most 1"),
        ({"final_rate": -0.1}, "final_rate must be a finite number at least 0 and at most 1"),
        ({"weight_decay": None}, "weight_decay must be a finite number at least 0, got None"),
        ({"betas": 0.9}, "betas must be two numbers"),
        ({"betas": (0.9, "0.95")}, "betas must be two numbers"),
        ({"deterministic": "no"}, "deterministic must be True or False, got 'no'"),
        ({"cuda_graph": "yes"}, "cuda_graph must be None, True or False"),
        ({"compile": []}, "compile must be None, True, False or 'stack'"),
        ({"transfer": {}}, "transfer must be None or 'wd-mup'"),
    ],
)
def test_the_problem_is_said(changes, match):
    with pytest.raises(ConfigError, match=match):
        TrainConfig(**changes)


def test_numbers_of_numpy_are_numbers():
    given = TrainConfig(
        learning_rate=np.float64(1e-3), betas=(np.float64(0.9), np.float64(0.95)), clip_norm=np.int64(2)
    )
    assert given == TrainConfig(learning_rate=1e-3, betas=(0.9, 0.95), clip_norm=2)
    assert value_digest(given.to_dict()) == value_digest(TrainConfig.from_dict(given.to_dict()).to_dict())
