"""The page is whole in one file, safe against odd text, and its tables can be taken away."""

import base64
import re

import numpy as np
import pandas as pd
import pytest

from ragscale.study._page import Page, format_cell

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def page():
    page = Page("Title <of> & study")
    page.heading("First part")
    page.text("a < b & c")
    page.bullets(["<one>", "two"])
    page.table(pd.DataFrame({"task": ["x|y", "<b>"], "value": [1.5, 2e9]}), "numbers", caption="Two rows.")
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    page.figure(figure, "line", caption="A line.")
    plt.close(figure)
    page.code("x = 1 < 2")
    return page


def test_html_is_one_file_that_asks_for_nothing(page, tmp_path):
    text = page.write(tmp_path / "report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<script" not in text
    assert "<of>" not in text
    assert "<b>" not in text
    assert 'href="#first-part"' in text
    assert 'id="first-part"' in text


def test_tables_download_whole(page, tmp_path):
    text = page.write(tmp_path / "report.html").read_text()
    encoded = re.search(r'download="numbers.csv" href="data:text/csv;base64,([^"]+)"', text)
    assert encoded is not None
    assert base64.b64decode(encoded[1]).decode() == "task,value\nx|y,1.5\n<b>,2000000000.0\n"


def test_markdown_puts_pictures_and_tables_beside_it(page, tmp_path):
    text = page.write(tmp_path / "report.md").read_text()
    assert (tmp_path / "report-files" / "line.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report-files" / "numbers.csv").read_text().startswith("task,value\n")
    assert "| x\\|y | 1.5 |" in text


def test_the_same_page_has_the_same_bytes(page, tmp_path):
    assert page.write(tmp_path / "a.html").read_bytes() == page.write(tmp_path / "b.html").read_bytes()


def test_long_tables_say_what_is_left_out(tmp_path):
    page = Page("t")
    page.table(pd.DataFrame({"i": range(100)}), "many", max_rows=10)
    assert "First 10 of 100 rows." in page.write(tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "True"), (12345, "12.35k"), (1e20, "1e+20"), (-0.5, "-0.5"), (None, "None"), (np.str_("R=0"), "R=0")],
)
def test_cells_are_written_for_people(value, text):
    assert format_cell(value) == text


def test_three_digits_are_never_an_exponent_of_a_count():
    assert [format_cell(x, digits=3) for x in (999, 4776, 26_780, 118_400, 0.12345)] == [
        "999",
        "4.78k",
        "26.8k",
        "118k",
        "0.123",
    ]


def test_cells_of_a_page_are_words(tmp_path):
    page = Page("t")
    page.table(pd.DataFrame({"D": [4776.0], "from_here": [True], "nll_per_token": [3.21987]}), "words", shown=True)
    text = page.write(tmp_path / "r.html").read_text()
    for said in ("<th>pretraining tokens</th>", "<th>helps from here on</th>", "<th>loss (nats per token)</th>"):
        assert said in text
    for cell in ("<td>4.78k</td>", "<td>yes</td>", "<td>3.22</td>"):
        assert cell in text
    assert "<details open>" in text


def test_pictures_take_the_ink_of_the_page(tmp_path):
    from ragscale.study._drawing import draw

    page = Page("t")
    draw(page, "two", "Panels.", lambda ax: ax.set_xlabel("a"), lambda ax: ax.set_xlabel("b"))
    text = page.write(tmp_path / "r.html").read_text()
    assert text.count("<svg") == 2
    assert "currentColor" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "two pictures on one page must not share names"
