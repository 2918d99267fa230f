"""Whatever is no path is refused by name, and no file is touched."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from ragscale import results
from ragscale.errors import ResultsError

ROW = pd.DataFrame({"N": [1e9], "D": [1e10], "R": [0.0], "value": [2.5]})


@pytest.mark.parametrize("wrong", [None, 3, [1], ["a.csv"], {"a": 1}, object(), ROW], ids=lambda x: type(x).__name__)
def test_what_is_no_path_is_said_to_be_none(wrong: Any) -> None:
    for ask in (
        lambda: results.read(wrong),
        lambda: results.write(ROW, wrong),
        lambda: results.append(ROW, wrong),
        lambda: results.read_lm_eval(wrong, N=1e9, D=1e10, R=0),
        lambda: results.read_paper_csv(wrong),
    ):
        with pytest.raises(ResultsError, match=f"expected the path of a file, got {type(wrong).__name__}"):
            ask()


def test_a_table_in_memory_is_sent_to_validate() -> None:
    with pytest.raises(ResultsError, match=r"rs\.results\.validate"):
        results.read(ROW)  # type: ignore[arg-type]


def test_a_path_may_be_bytes(tmp_path: Any) -> None:
    results.write(ROW, tmp_path / "t.csv")
    assert len(results.read(str(tmp_path / "t.csv").encode())) == 1  # type: ignore[arg-type]
