"""A table of any dtypes, names and index is prepared for a fit, or refused by one of ragscale's own errors."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ragscale import results
from ragscale.errors import RagscaleError, RagscaleWarning
from ragscale.fitting import retrieval_effect
from ragscale.fitting._prepare import prepare
from ragscale.fitting.solver._make_link import make_link

ROWS = 6
COUNTS = np.array([1e8, 1e8, 3e8, 3e8, 1e9, 1e9])


def _numbers(dtype: str, values: Any) -> Any:
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pd.Series(values).astype(dtype)
    except (TypeError, ValueError, OverflowError):
        return pd.Series(values)


_DTYPES = """int8 uint8 int32 int64 uint64 float16 float32 float64 Int64 Float64 boolean bool complex128 str string
category object Sparse[float64] datetime64[ns] timedelta64[s] int64[pyarrow] double[pyarrow] string[pyarrow]"""
_NAMES = """N D R value task metric seed run condition k retriever higher_is_better stderr n_examples chance filter
store_tokens loss index flops hit_rate split"""

dtypes = st.sampled_from(_DTYPES.split())
names = st.sampled_from([*_NAMES.split(), "", "Unnamed: 0"])
values = st.one_of(
    st.just(COUNTS.tolist()),
    st.just((COUNTS * 20).tolist()),
    st.just([0.0, 1e9] * 3),
    st.just([3.1, 3.0, 2.9, 2.8, 2.7, 2.6]),
    st.lists(st.floats(allow_nan=True, width=32), min_size=ROWS, max_size=ROWS),
    st.lists(st.sampled_from(["acc", "loss", None, "", "closed-book", "oracle", "190M"]), min_size=ROWS, max_size=ROWS),
    st.lists(st.sampled_from([None, 1, 2.5, "x", True, (1, 2), [3], {"a": 1}, pd.NA]), min_size=ROWS, max_size=ROWS),
)
WHOLE = {
    "N": COUNTS,
    "D": COUNTS * 20,
    "R": np.array([0.0, 1e9] * 3),
    "value": np.array([3.1, 3.0, 2.9, 2.8, 2.7, 2.6]),
}


@given(
    st.dictionaries(names, st.tuples(dtypes, values), max_size=6),
    st.booleans(),
    st.sampled_from([None, "N", "task", "seed"]),
    st.sampled_from([None, "run", "filter"]),
    st.sampled_from([None, True]),
)
@settings(max_examples=80, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
def test_any_table_is_prepared_or_refused(columns: Any, whole: bool, index: Any, by: Any, higher: Any) -> None:
    made = {name: _numbers(*column) for name, column in columns.items()}
    frame = pd.DataFrame({**(WHOLE if whole else {}), **made})
    if index in frame:
        frame = frame.set_index(index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RagscaleWarning)
        for step in (
            results.validate,
            results.average_seeds,
            results.higher_is_better,
            lambda table: results.select(table, metric="acc"),
            lambda table: _used(prepare(table, by=by, higher_is_better=higher)),
        ):
            with contextlib.suppress(RagscaleError):
                step(frame)


def _used(table: pd.DataFrame) -> None:
    assert np.isfinite(table[["N", "D", "R", "value"]].to_numpy()).all()
    make_link("auto", table)
    retrieval_effect(table, "linear")


@pytest.mark.parametrize("dtype", ["int64", "float32", "Int64", "Float64", "category", "Sparse[float64]", "object"])
def test_good_numbers_are_read_from_every_dtype_that_can_hold_them(dtype: str) -> None:
    frame = pd.DataFrame(
        {name: _numbers(dtype if name in "NDR" else "float64", column) for name, column in WHOLE.items()}
    )
    pd.testing.assert_frame_equal(results.validate(frame), results.validate(WHOLE), rtol=1e-6)
