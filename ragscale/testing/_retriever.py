"""The contract of a retriever, run on anyone's."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragscale.errors import CheckpointError, NotIndexedError
from ragscale.passages import Passage
from ragscale.retrieval import Hits, Retriever
from ragscale.testing._checks import run_checks

Factory = Callable[[], Retriever]

_INSIDE = "RAGSCALE_CHECK_RETRIEVER"

_SUBJECTS = (
    "the harbour",
    "a young fox",
    "my neighbour",
    "the old library",
    "every comet",
    "our orchard",
    "no glacier",
)
_VERBS = ("remembers", "crosses", "paints", "counts", "forgets")
_OBJECTS = (
    "seven bridges",
    "a silver compass",
    "the winter market",
    "wild honey",
    "distant thunder",
    "an empty theatre",
)
_QUERIES = [
    "silver compass",
    "which fox paints thunder?",
    "honey market in the winter",
    "the comet crosses seven bridges",
]


def check_retriever(factory: Factory) -> list[str]:
    """Run the whole contract of a retriever.

    Parameters
    ----------
    factory : callable
        Takes nothing and returns a new retriever that has indexed nothing; called many times. It must find the
        passage "wild honey in the orchard" for the query "honey".

    Returns
    -------
    list of str
        The names of the checks that ran. The one in a fresh process cannot run for a class that no importable file
        defines (typed into a prompt, written in the running script or inside a function); then it is not in the list.

    Raises
    ------
    AssertionError
        At the first broken promise, naming it.

    Examples
    --------
    >>> from ragscale.retrieval import BM25Retriever
    >>> checks = check_retriever(lambda: BM25Retriever(compiled=False))
    >>> "nested_stores_equal_separate_indexes" in checks
    True
    """
    if os.environ.get(_INSIDE):  # the fresh process runs the file that defines the class, and so may come here again
        return []
    return run_checks(CHECKS, factory)


def _passages(n: int = 60) -> list[Passage]:
    """Return passages with repeated words, equal texts, a token overlap, and one that is empty."""
    texts = [
        f"{_SUBJECTS[i % 7]} {_VERBS[i % 5]} {_OBJECTS[(i * i + i // 6) % 6]} and {_OBJECTS[i % 4]}." for i in range(n)
    ]
    texts[7 % n] = texts[3 % n]
    if n > 11:
        texts[11] = ""
    lengths = [max(len(text.split()), 1) for text in texts]
    return [
        Passage(f"p{i}", text, length, f"d{i // 3}", max(length - 2, 0) if i % 3 else length)
        for i, (text, length) in enumerate(zip(texts, lengths, strict=True))
    ]


def _search_before_index(factory: Factory) -> None:
    for what, call in {
        "search": lambda: factory().search("honey"),
        "n_tokens": lambda: factory().n_tokens,
        "save": lambda: factory().save("unused"),
    }.items():
        try:
            call()
        except NotIndexedError:
            continue
        raise AssertionError(f"{what} before index() must raise NotIndexedError")


def _index_returns_the_retriever(factory: Factory) -> None:
    passages, retriever = _passages(), factory()
    assert retriever.index(passages) is retriever, "index(passages) must return the retriever itself"
    assert retriever.n_passages == len(passages), f"n_passages is {retriever.n_passages}, indexed were {len(passages)}"
    unique = sum(passage.n_new_tokens or 0 for passage in passages)
    assert retriever.n_tokens == unique, f"n_tokens is {retriever.n_tokens}, the passages hold {unique} unique tokens"
    assert retriever.passages[5] == passages[5], "rows must be rows of the passages in the order given"
    assert retriever.describe()["n_tokens"] == unique, "describe() must tell n_tokens"


def _hits_are_well_formed(factory: Factory) -> None:
    retriever = factory().index(_passages())
    for k in (1, 7, 60):
        _assert_form(retriever.search(_QUERIES, k), len(_QUERIES), k, 60)
    single, several = retriever.search(_QUERIES[0], 5), retriever.search(_QUERIES[:1], 5)
    _assert_same(single, several, "a query given as a string must equal a list of one")
    _assert_form(retriever.search([], 3), 0, 3, 60)


def _finds_what_is_there(factory: Factory) -> None:
    texts = ["the harbour counts ships", "wild honey in the orchard", "a glacier of blue ice"]
    retriever = factory().index([Passage(str(i), text, 4, str(i)) for i, text in enumerate(texts)])
    best = retriever.search("honey", 1).ids[0, 0]
    assert best == 1, f"the best passage for 'honey' must be 'wild honey in the orchard', row 1; got row {best}"


def _search_is_deterministic(factory: Factory) -> None:
    first, second = factory().index(_passages()), factory().index(_passages())
    once = first.search(_QUERIES, 10)
    _assert_same(once, first.search(_QUERIES, 10), "the same search twice must give the same hits")
    _assert_same(once, second.search(_QUERIES, 10), "two retrievers over the same passages must give the same hits")
    first.index(_passages(9)).index(_passages())
    _assert_same(once, first.search(_QUERIES, 10), "indexing anew must leave nothing of what was indexed before")


def _a_smaller_k_is_a_prefix(factory: Factory) -> None:
    retriever = factory().index(_passages())
    largest = retriever.search(_QUERIES, 60)
    for k in (1, 2, 5, 20):
        _assert_same(retriever.search(_QUERIES, k), largest.top(k), f"the hits for k = {k} must begin those for k = 60")


def _a_batch_equals_its_queries(factory: Factory) -> None:
    retriever = factory().index(_passages())
    batch = retriever.search(_QUERIES, 10)
    for i, query in enumerate(_QUERIES):
        alone = retriever.search(query, 10)
        expected = Hits(batch.ids[i : i + 1], batch.scores[i : i + 1])
        _assert_close(alone, expected, "a query must get the same hits alone as in a batch")
    backwards = retriever.search(_QUERIES[::-1], 10)
    _assert_close(Hits(backwards.ids[::-1], backwards.scores[::-1]), batch, "hits must follow the order of the queries")


def _nested_stores_equal_separate_indexes(factory: Factory) -> None:
    passages = _passages()
    retriever = factory().index(passages)
    total, cumulative = retriever.n_tokens, np.cumsum(np.array([passage.n_new_tokens for passage in passages]))
    sizes = [total, 0, total // 20, total // 2, total // 2 + 1, total + 1000, int(passages[0].n_new_tokens or 0)]
    nested = retriever.search(_QUERIES, 8, store_tokens=sizes)
    assert sorted(nested) == sorted(set(sizes)), f"the answer must have one entry per store size, got {sorted(nested)}"
    for size, hits in nested.items():
        n = int(np.searchsorted(cumulative, size, side="right"))
        _assert_form(hits, len(_QUERIES), 8, n)
        if n == 0:
            assert (hits.ids == -1).all(), f"the store of {size} tokens is empty: all ids must be -1"
            continue
        separate = factory().index(passages[:n]).search(_QUERIES, 8)
        _assert_same(hits, separate, f"the store of {size} tokens must equal an index over its {n} passages alone")
        _assert_same(
            retriever.search(_QUERIES, 8, store_tokens=size)[size], hits, "a store must not depend on those beside it"
        )


def _an_empty_query_is_answered(factory: Factory) -> None:
    retriever = factory().index(_passages())
    for query in ("", "   ", "?!"):
        _assert_form(retriever.search(query, 5), 1, 5, 60)
        _assert_form(retriever.search([query, _QUERIES[0]], 5), 2, 5, 60)
    both, alone = retriever.search(["", _QUERIES[0]], 5), retriever.search(_QUERIES[0], 5)
    _assert_close(Hits(both.ids[1:], both.scores[1:]), alone, "an empty query must not change another query's hits")


def _k_may_exceed_the_store(factory: Factory) -> None:
    retriever = factory().index(_passages(4))
    hits = retriever.search(_QUERIES, 25)
    _assert_form(hits, len(_QUERIES), 25, 4)
    assert (hits.ids[:, 4:] == -1).all(), "beyond the 4 passages of the store every id must be -1"


def _unicode_is_text(factory: Factory) -> None:
    texts = [
        "Das Öl des Müllers",
        "naïve café — déjà vu",
        "東京は大きい",
        "emoji \U0001f98a fox",
        "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
        "a\u2028b\x00c",
        "\ud7ff",
    ]
    retriever = factory().index([Passage(f"{text}#{i}", text, 3, f"ö{i}") for i, text in enumerate(texts)])
    hits = retriever.search([*texts, "ｆｕｌｌｗｉｄｔｈ", "\u202eabc"], 3)
    _assert_form(hits, len(texts) + 2, 3, len(texts))


def _one_passage_is_enough(factory: Factory) -> None:
    retriever = factory().index([Passage("only", "wild honey in the orchard", 5, "d")])
    hits = retriever.search(["honey", "orchard"], 3)
    assert hits.ids[:, 0].tolist() == [0, 0], f"the only passage, row 0, must be found; got {hits.ids[:, 0].tolist()}"
    _assert_form(hits, 2, 3, 1)


def _equal_passages_stand_in_their_order(factory: Factory) -> None:
    passages = [Passage(f"copy{i}", "wild honey in the orchard", 5, "d") for i in range(12)]
    hits = factory().index(passages).search("honey in the orchard", 12)
    rows = [row for row in hits.ids[0].tolist() if row >= 0]
    assert rows == sorted(rows), f"passages of equal text must stand in the order of their rows, got {rows}"
    five = factory().index(passages).search("honey in the orchard", 5)
    assert five.ids[0].tolist() == hits.ids[0, :5].tolist(), "of equal passages the first rows must be returned"


def _what_is_loaded_equals_what_was_saved(factory: Factory) -> None:
    retriever = factory().index(_passages())
    with tempfile.TemporaryDirectory() as directory:
        retriever.save(directory)
        loaded = type(retriever).load(directory)
        assert loaded.n_tokens == retriever.n_tokens, "a loaded retriever must hold the same tokens"
        assert list(loaded.passages) == list(retriever.passages), "a loaded retriever must hold the same passages"
        _assert_same(loaded.search(_QUERIES, 10), retriever.search(_QUERIES, 10), "loading must not change the hits")
        half = retriever.n_tokens // 2
        _assert_same(
            loaded.search(_QUERIES, 10, store_tokens=half)[half],
            retriever.search(_QUERIES, 10, store_tokens=half)[half],
            "loading must not change the hits of a smaller store",
        )


def _another_process_loads_it(factory: Factory) -> bool:
    retriever = factory().index(_passages())
    source = _source(type(retriever))
    if source is None:
        return False
    expected = retriever.search(_QUERIES, 10)
    with tempfile.TemporaryDirectory() as directory:
        retriever.save(Path(directory) / "index")
        task = {"path": f"{directory}/index", "queries": _QUERIES, "out": f"{directory}/hits.npz", **source}
        done = subprocess.run(
            [sys.executable, "-c", _LOADER, json.dumps(task)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env={**os.environ, _INSIDE: "1"},
        )
        assert done.returncode == 0, f"a fresh process could not load and search:\n{done.stderr[-2000:]}"
        with np.load(f"{directory}/hits.npz") as found:
            _assert_same(Hits(found["ids"], found["scores"]), expected, "a fresh process must give the same hits")
    return True


def _wrong_passages_and_files_are_refused(factory: Factory) -> None:
    passages = _passages(12)
    retriever = factory().index(passages)
    kind = type(retriever)
    with tempfile.TemporaryDirectory() as directory:
        retriever.save(directory, store_passages=False)
        loaded = kind.load(directory, passages=passages)
        _assert_same(loaded.search(_QUERIES, 5), retriever.search(_QUERIES, 5), "loading must not change the hits")
        other = [replace(passages[0], text="something else"), *passages[1:]]
        for wrong in (other, passages[:-1], passages[::-1]):
            _assert_refused(lambda wrong=wrong: kind.load(directory, passages=wrong), "other passages than indexed")
        retriever.save(directory)
        for file in sorted(Path(directory).rglob("*")):
            if not file.is_file():
                continue
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 2] + b"#" + content[len(content) // 2 + 1 :] + b"#")
            _assert_refused(lambda: kind.load(directory), f"a change in {file.name}")
            file.write_bytes(content)
        kind.load(directory)


def _another_class_is_refused(factory: Factory) -> None:
    class Other(Retriever):
        def _index(self, passages: Sequence[Passage]) -> None: ...

        def _search(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((len(queries), 1)), np.zeros((len(queries), 1))

    with tempfile.TemporaryDirectory() as directory:
        factory().index(_passages(3)).save(directory)
        _assert_refused(lambda: Other.load(directory), "another class")


CHECKS: dict[str, Callable[[Factory], bool | None]] = {
    check.__name__.removeprefix("_"): check
    for check in (
        _search_before_index,
        _index_returns_the_retriever,
        _hits_are_well_formed,
        _finds_what_is_there,
        _search_is_deterministic,
        _a_smaller_k_is_a_prefix,
        _a_batch_equals_its_queries,
        _nested_stores_equal_separate_indexes,
        _an_empty_query_is_answered,
        _k_may_exceed_the_store,
        _unicode_is_text,
        _one_passage_is_enough,
        _equal_passages_stand_in_their_order,
        _what_is_loaded_equals_what_was_saved,
        _another_process_loads_it,
        _wrong_passages_and_files_are_refused,
        _another_class_is_refused,
    )
}

_LOADER = """
import importlib, importlib.util, json, sys
import numpy as np
task = json.loads(sys.argv[1])
if task["file"]:
    spec = importlib.util.spec_from_file_location(task["module"], task["file"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[task["module"]] = module
    spec.loader.exec_module(module)
else:
    module = importlib.import_module(task["module"])
kind = getattr(module, task["name"])
hits = kind.load(task["path"]).search(task["queries"], 10)
np.savez(task["out"], ids=hits.ids, scores=hits.scores)
"""


def _source(kind: type) -> dict[str, str] | None:
    """Return how a fresh process gets the class, or None for one that no file defines at its top level."""
    if "." in kind.__qualname__ or kind.__module__ == "__main__":
        return None
    if kind.__module__.partition(".")[0] == "ragscale":
        return {"module": kind.__module__, "name": kind.__name__, "file": ""}
    try:
        file = inspect.getfile(kind)
    except (TypeError, OSError):
        return None
    return {"module": kind.__module__, "name": kind.__name__, "file": file} if Path(file).exists() else None


def _assert_form(hits: Hits, n_queries: int, k: int, n_passages: int) -> None:
    ids, scores = hits.ids, hits.scores
    assert ids.shape == scores.shape == (n_queries, k), f"ids and scores must be {(n_queries, k)}, got {ids.shape}"
    assert (ids.dtype, scores.dtype) == (np.int64, np.float32), f"dtypes are {ids.dtype} and {scores.dtype}"
    assert ids.max(initial=-1) < n_passages, f"row {ids.max()} is outside the store of {n_passages} passages"
    padded = ids == -1
    assert (padded[:, :-1] <= padded[:, 1:]).all(), "padding (-1) must stand after all hits"
    assert (np.isneginf(scores) == padded).all(), "padding must have the score -inf, and hits must not"
    for row, score in zip(ids, scores, strict=True):
        kept, values = row[row >= 0], score[row >= 0]
        assert len(set(kept.tolist())) == kept.size, f"a passage must be returned once, got rows {kept.tolist()}"
        better = (values[:-1] > values[1:]) | ((values[:-1] == values[1:]) & (kept[:-1] < kept[1:]))
        assert better.all(), "hits must stand by falling score, and equal scores by rising row"


def _assert_same(found: Hits, expected: Hits, promise: str) -> None:
    same = found.ids.shape == expected.ids.shape and bool((found.ids == expected.ids).all())
    assert same, f"{promise}; ids\n{found.ids}\nand\n{expected.ids}"
    assert (found.scores == expected.scores).all(), f"{promise}; scores\n{found.scores}\nand\n{expected.scores}"


def _assert_close(found: Hits, expected: Hits, promise: str) -> None:
    """Compare up to float32 rounding: a matrix product may sum a batch in another order than one line of it."""
    same = found.ids.shape == expected.ids.shape
    hit = np.isfinite(expected.scores)
    same = same and bool((np.isfinite(found.scores) == hit).all())
    assert same, f"{promise}; ids\n{found.ids}\nand\n{expected.ids}"
    close = np.isclose(found.scores[hit], expected.scores[hit], rtol=1e-5, atol=1e-6)
    assert close.all(), f"{promise}; scores\n{found.scores}\nand\n{expected.scores}"


def _assert_refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except CheckpointError:
        return
    raise AssertionError(f"load() must refuse {what} with a CheckpointError")
