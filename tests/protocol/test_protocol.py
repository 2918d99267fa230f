"""Every public result has the whole protocol, or says why not; the table in the reference is what is there."""

import inspect
import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from protocol_table import METHODS, PAGE, has, page, public_names, results
from result_makers import MAKERS

from ragscale.errors import RagscaleError
from ragscale.results import Result

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

# What functions return beside results, and why it is none: values on the way, containers with methods of their own.
NO_RESULTS = {
    "Split": "a folder on disk",
    "Plan": "the steps of a training run",
    "SyntheticWorld": "texts and questions",
    "LoadedModel": "a model with its settings",
    "PreparedPrompts": "inputs of an evaluation",
    "Task": "questions",
    "WeightedSum": "a function",
    "Source": "documents to read",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    known = {}

    def make(name):
        if name not in known:
            known[name] = MAKERS[name](tmp_path_factory.mktemp("made"))
        return known[name]

    return make


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def test_every_public_result_is_tried_here():
    assert set(MAKERS) == set(results())


def test_what_functions_return_is_a_result_or_listed():
    names = public_names()
    classes = {name.split(".")[1]: value for name, value in names.items() if inspect.isclass(value)}
    odd = {}
    for name, value in names.items():
        if inspect.isfunction(value):
            found = classes.get(str(inspect.signature(value).return_annotation))
            if found is not None and found.__module__.startswith("ragscale.") and not issubclass(found, Result):
                odd[name] = found.__name__
    assert set(odd.values()) == set(NO_RESULTS), odd


@pytest.mark.parametrize("name", MAKERS)
def test_the_protocol(name, made, tmp_path):
    one = made(name)
    assert type(one) is results()[name]
    assert len(repr(one)) <= 500
    assert "\n" not in one.summary().splitlines()[0]
    assert str(one) == one.summary()
    assert "<" in one._repr_html_()
    frame = one.to_frame()
    assert isinstance(frame.index, pd.RangeIndex)
    assert not frame.attrs
    assert all(isinstance(column, str) for column in frame.columns)
    assert "_low" not in "".join(one.to_latex().splitlines()[2]).replace(r"\_", "_"), "an interval beside its value"
    assert r"\toprule" in one.to_latex()
    frame.to_parquet(io.BytesIO())
    before = frame.copy()
    frame.iloc[:, 0] = None if frame.iloc[:, 0].dtype == object else frame.iloc[:, 0].iloc[0]
    pd.testing.assert_frame_equal(one.to_frame(), before)
    _keeps(one, name, tmp_path)


def _keeps(one, name, tmp_path):
    kind = type(one)
    ways = [("to_json", "from_json", "x.json"), ("save", "load", "kept.npz")]
    tried = 0
    for write, read, file in ways:
        if not has(kind, write):
            continue
        getattr(one, write)(tmp_path / file)
        again = getattr(kind, read)(tmp_path / file)
        pd.testing.assert_frame_equal(again.to_frame(), one.to_frame())
        assert again.summary() == one.summary()
        tried += 1
    if "to_json" in kind._absent:
        with pytest.raises(RagscaleError):
            one.to_json(tmp_path / "refused.json")
    assert tried or "to_json" in kind._absent


@pytest.mark.parametrize("name", MAKERS)
def test_the_picture(name, made):
    one = made(name)
    if not has(type(one), "plot"):
        assert type(one)._absent["plot"]
        with pytest.raises(RagscaleError):
            one.plot()
        return
    ax = one.plot()
    assert ax.get_xlabel()
    assert ax.lines or ax.patches or ax.collections or ax.texts
    ax.figure.canvas.draw()
    _, given = plt.subplots()
    assert one.plot(given) is given


def luminance(colour):
    return float(np.dot(mpl.colors.to_rgb(colour), (0.299, 0.587, 0.114)))


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_every_line_can_be_seen_on_its_background(style, made):
    for name in ("decisions.Allocation", "fitting.ManifoldFit", "fitting.Bootstrap", "fitting.Comparison"):
        with plt.style.context(style):
            ax = made(name).plot()
            back = luminance(ax.get_facecolor()[:3])
            assert all(abs(luminance(line.get_color()) - back) > 0.15 for line in ax.lines), name


def test_keywords_reach_matplotlib(made):
    for name in MAKERS:
        one = made(name)
        if has(type(one), "plot"):
            ax = one.plot(color="#123456")
            drawn = [mpl.colors.to_hex(line.get_color()) for line in ax.lines]
            drawn += [mpl.colors.to_hex(patch.get_facecolor()) for patch in ax.patches]
            assert "#123456" in drawn, name


def test_the_table_in_the_reference_is_what_is_there():
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "python tests/protocol/protocol_table.py writes it"
    assert all(f"`{method}`" in text for method in METHODS)
