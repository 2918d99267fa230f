"""The protocol of results: what every result can do, on a small one."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import ResultsError
from ragscale.results import Result
from ragscale.results._result import decode, encode


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Measured(Result):
    share: Any
    names: tuple[str, ...] = ()
    parts: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> str:
        return f"share {self.share}\n" + "more words " * 100

    def to_frame(self) -> pd.DataFrame:
        return pd.DataFrame(
            {"law": ["a_b"], "share": [0.34159], "share_low": [0.3], "share_high": [1.2e-7], "ok": [True]}
        )


def test_repr_is_short_and_str_is_the_summary():
    result = Measured(share=0.5)
    assert len(repr(result)) < 500
    assert repr(result).startswith("<Measured: share 0.5")
    assert str(result) == result.summary()


def test_equality_is_identity_and_results_are_hashable():
    one, two = Measured(share=np.arange(3)), Measured(share=np.arange(3))
    assert one != two
    assert one in [two, one]
    assert len({one, two}) == 2


def test_html_escapes_the_summary():
    assert "&lt;b&gt;" in Measured(share="<b>")._repr_html_()


def test_latex_puts_an_interval_beside_its_value():
    text = Measured(share=1).to_latex(caption="50 % of it", label="tab:x")
    assert r"law & share & ok \\" in text
    assert r"a\_b & 0.342 [0.3, $1.2 \times 10^{-7}$] & yes \\" in text
    assert r"\caption{50 \% of it}" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:x}"):
        assert rule in text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_what_is_encoded_comes_back(value):
    assert decode(encode(value)) == value


def test_arrays_frames_and_infinities_survive_a_file(tmp_path):
    frame = pd.DataFrame({"x": [1.5, np.nan], "name": ["a", "b"]})
    parts = {"a": np.array([[1.0, np.nan, -np.inf]]), "frame": frame, "word": np.array(["interior", "R=0"])}
    Measured(share=np.float64("nan"), names=("x", "y"), parts=parts).to_json(tmp_path / "m.json")
    found = Measured.from_json(tmp_path / "m.json")
    assert np.isnan(found.share)
    assert found.names == ("x", "y")
    np.testing.assert_array_equal(found.parts["a"], parts["a"])
    np.testing.assert_array_equal(found.parts["word"], parts["word"])
    pd.testing.assert_frame_equal(found.parts["frame"], frame)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": "ragscale.Knee", "schema_version": 1, "fields": {}}'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ResultsError, match=r"m\.json"):
        Measured.from_json(tmp_path / "m.json")


def test_a_result_without_a_picture_says_so():
    with pytest.raises(ResultsError, match="no picture"):
        Measured(share=1).plot()
