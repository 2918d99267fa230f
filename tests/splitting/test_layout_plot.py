"""The picture shows what the cells read."""

from __future__ import annotations

import pytest

import ragscale as rs
from ragscale.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_windows(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")


def test_bars_begin_and_end_where_the_cells_do(documents, tokenizer, tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    split = rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer, validation_tokens=200)
    T = split.n_tokens
    ax = rs.plotting.split_layout(split, [(T - 100, 100), (2000, 1500), (T, 500)], ax=figure.subplots())
    assert ax.get_figure() is figure
    bars = [(round(bar.get_y() + bar.get_height() / 2), bar.get_x() * 1e3, bar.get_width() * 1e3) for bar in ax.patches]
    rows = {row: [(x, width) for y, x, width in bars if y == row] for row in (0, -1, -2, -3)}
    assert len(rows[0]) == split.n_documents + 1
    assert sum(width for _, width in rows[0]) == pytest.approx(T - 200)
    assert rows[-2][1:] == [pytest.approx((0, 2000)), pytest.approx((T - 1500, 1500))]
    assert rows[-3][-1] == pytest.approx((T - 500, 500))
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "unused" in labels
    assert "in both (allow_overlap)" in labels
    assert "thousand tokens" in ax.get_xlabel()
    with pytest.raises(ConfigError, match="between 0 and T"):
        rs.plotting.split_layout(split, [(T + 1, 0)], ax=ax)
