"""Counts: one reading of "how many" wherever the library asks for it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ragscale as rs
from ragscale._counts import as_count, as_counts, whole_or_same
from ragscale.errors import ConfigError, SplitError

FORMS = [3000, 3e3, np.int64(3000), np.uint16(3000), np.float32(3000), np.array(3000), Decimal(3000), Fraction(3000)]
TEXTS = ["3000", "3e3", " 3_000 ", "3000.0", "+3E+3"]
NO_COUNTS = [2.5, True, np.bool_(True), "three", "3M", "nan", "", float("nan"), float("inf"), None, b"3", 1 + 0j, [3]]


@pytest.mark.parametrize("value", [*FORMS, *TEXTS], ids=repr)
def test_a_whole_number_is_a_count_however_it_is_written(value):
    count = as_count("D", value)
    assert count == 3000
    assert type(count) is int
    assert as_counts("D", value) == [3000]


@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_anything_else_is_refused_by_name_and_value(value):
    with pytest.raises(ConfigError, match="D must be a whole number, got"):
        as_count("D", value)


def test_limits_are_said():
    with pytest.raises(SplitError, match="R must be at least 1, got 0"):
        as_count("R", 0, least=1, error=SplitError)
    for huge in (2**63, 1e30, "1e300"):
        with pytest.raises(ConfigError, match="at most 9,223,372,036,854,775,807"):
            as_count("R", huge)


@pytest.mark.parametrize(
    "values",
    [
        [1000, 2e3],
        (1000.0, "2e3"),
        np.array([1000, 2000], dtype=np.uint32),
        pd.Series([1e3, 2e3], index=[7, 8]),
        range(1000, 2001, 1000),
        (n for n in (1000, 2000)),
    ],
    ids=["list", "tuple", "array", "series", "range", "generator"],
)
def test_several_counts_come_in_any_container(values):
    counts = as_counts("tokens", values)
    assert counts == [1000, 2000]
    assert {type(count) for count in counts} == {int}


def test_every_wrong_one_of_several_is_named_with_its_place():
    with pytest.raises(ConfigError, match=r"tokens\[1\] .* got 2\.5; tokens\[2\] .* got True") as caught:
        as_counts("tokens", [1, 2.5, True, 4])
    assert "tokens[0]" not in str(caught.value)
    assert as_counts("tokens", []) == []


@given(st.integers(0, 2**53))
def test_floats_and_numerals_lose_nothing(n):
    assert as_count("n", float(n)) == as_count("n", str(n)) == as_count("n", f"{n}e0") == n


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_float_is_rounded(value):
    found = whole_or_same(value)
    assert found is value or (type(found) is int and found == value)


@pytest.mark.parametrize("value", [3e3, "3e3", np.int64(3000), np.float64(3000)], ids=repr)
def test_plans_read_counts_alike(value):
    training = rs.training
    model = training.ModelConfig.custom(n_layers=np.int64(1), d_model=16.0, n_heads=2, d_ff=32, vocab_size="64")
    config = training.TrainConfig(seq_len=16.0, batch_tokens=np.int64(16), validation_tokens=1e6)
    plain = training.TrainConfig(seq_len=16, batch_tokens=16)
    assert config == plain
    assert type(config.seq_len) is int
    for tokens in (value, [value], np.array([3000.0])):
        assert training.make_plan(model, config, tokens).tokens == (3000,)
        assert training.dry_run(model, config, tokens)["D"].tolist() == [3000]
    assert training.dry_run(model, config, value if value != "3e3" else 1, ratios=True)["D"].iloc[0] > 3000


@pytest.mark.parametrize("value", [True, 2.5, "many", None, [3000, -1], [3000, "x"], [], float("nan"), 1], ids=repr)
def test_plans_name_the_argument(value):
    training = rs.training
    model = training.ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=32, vocab_size=64)
    config = training.TrainConfig(seq_len=16, batch_tokens=16)
    for call in (training.make_plan, training.dry_run):
        with pytest.raises(ConfigError, match="tokens"):
            call(model, config, value)


def test_training_takes_what_the_plan_takes(tmp_path):
    training = rs.training
    model = training.ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=32, vocab_size=64)
    config = training.TrainConfig(seq_len=16, batch_tokens=64, allow_short_runs=True)
    stream = np.random.default_rng(0).integers(0, 64, 700)
    [one] = rs.train(model, stream, config, tokens=np.float64(640), out=tmp_path / "a", device="cpu", progress=False)
    assert one.n_tokens == 640
    with pytest.raises(ConfigError, match=r"tokens must be a whole number, got 640\.5"):
        rs.train(model, stream, config, tokens=640.5, out=tmp_path / "b", device="cpu", progress=False)
    assert not (tmp_path / "b").exists()
