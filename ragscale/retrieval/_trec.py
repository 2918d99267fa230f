"""Runs and relevance judgements in TREC's formats, which ir_measures, pytrec_eval and trec_eval read.

A run has one hit a line, ``query Q0 passage rank score tag``; judgements (qrels) have one grade a line,
``query 0 passage grade``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ragscale._files import atomic_write, disk_errors
from ragscale.errors import ResultsError
from ragscale.retrieval._hits import Hits

if TYPE_CHECKING:
    from ragscale.passages import Passage

_PADDING = -1


def write_trec_run(
    path: str | os.PathLike[str],
    hits: Hits,
    passages: Sequence[Passage],
    query_ids: Sequence[str],
    *,
    tag: str = "ragscale",
) -> None:
    """Write the hits of a search as a TREC run.

    Scores are written so that they come back to the last bit. trec_eval sorts by score and breaks ties by name, not by
    rank: where scores are equal, its order may differ from that of the hits.

    Parameters
    ----------
    path : path
    hits : Hits
        Of ``len(query_ids)`` queries.
    passages : sequence of Passage
        What was indexed, ``retriever.passages``.
    query_ids : sequence of str
        A name for each query.
    tag : str
        The name of the run.

    Raises
    ------
    ResultsError
        When the numbers of queries differ, or a name is empty, repeated or holds white space, which the format cannot
        hold.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import ragscale as rs
    >>> store = [rs.Passage("p1", "the sea", 2, "a"), rs.Passage("p2", "the moon", 2, "b")]
    >>> hits = rs.retrieval.Hits([[1, 0]], [[2.5, 0.5]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rs.retrieval.write_trec_run(f"{folder}/run", hits, store, ["q1"])
    ...     print(Path(folder, "run").read_text(), end="")
    q1 Q0 p2 1 2.5 ragscale
    q1 Q0 p1 2 0.5 ragscale
    """
    if hits.n_queries != len(query_ids):
        raise ResultsError(f"the hits are of {hits.n_queries} queries, and {len(query_ids)} query_ids are given")
    rows = [row for row in np.unique(hits.ids).tolist() if row != _PADDING]
    if rows and rows[-1] >= len(passages):
        raise ResultsError(f"a hit is row {rows[-1]} of {len(passages)} passages: give those that were indexed")
    _check_names("query", query_ids, unique=True)
    _check_names("passage", [passages[row].id for row in rows], unique=True)
    _check_names("tag", [tag])
    with atomic_write(path, "w", encoding="utf-8", newline="\n") as file:
        for query, name in enumerate(query_ids):
            found = hits.ids[query]
            for rank, row in enumerate(found[found != _PADDING].tolist(), start=1):
                score = np.format_float_positional(hits.scores[query, rank - 1], unique=True, trim="-")
                file.write(f"{name} Q0 {passages[row].id} {rank} {score} {tag}\n")


def read_trec_run(
    path: str | os.PathLike[str], passages: Sequence[Passage], query_ids: Sequence[str] | None = None
) -> tuple[Hits, list[str]]:
    """Read a TREC run of any system as hits, best score first.

    Parameters
    ----------
    path : path
    passages : sequence of Passage
        In whose rows the hits are counted.
    query_ids : sequence of str, optional
        The queries, in the order wanted; one without a line in the file has no hits. By default those of the file, in
        its order.

    Returns
    -------
    hits : Hits
        As wide as the longest list.
    query_ids : list of str

    Raises
    ------
    ResultsError
        Listing what is wrong: lines of another shape, passages or queries that are not there, a passage twice.

    Examples
    --------
    >>> import tempfile
    >>> import ragscale as rs
    >>> store = [rs.Passage("p1", "the sea", 2, "a"), rs.Passage("p2", "the moon", 2, "b")]
    >>> with tempfile.NamedTemporaryFile("w") as file:
    ...     _ = file.write("q1 Q0 p2 1 2.5 other\\nq1 Q0 p1 2 0.5 other\\n")
    ...     file.flush()
    ...     hits, queries = rs.retrieval.read_trec_run(file.name, store)
    >>> hits.ids.tolist(), queries
    ([[1, 0]], ['q1'])
    """
    row_of = {passage.id: row for row, passage in enumerate(passages)}
    lists: dict[str, dict[int, float]] = {name: {} for name in query_ids or ()}
    problems: list[str] = []
    for line, parts in _lines(path, 6, "query Q0 passage rank score tag", problems):
        query, _, passage, _, score, _ = parts
        value = _number(score)
        if value is None:
            problems.append(f"line {line}: the score {score!r} is no number")
        elif passage not in row_of:
            problems.append(f"line {line}: there is no passage {passage!r}")
        elif query_ids is not None and query not in lists:
            problems.append(f"line {line}: there is no query {query!r}")
        elif row_of[passage] in lists.setdefault(query, {}):
            problems.append(f"line {line}: passage {passage!r} stands twice for query {query!r}")
        else:
            lists[query][row_of[passage]] = value
    _refuse(path, problems)
    width = max((len(found) for found in lists.values()), default=0)
    ids = np.full((len(lists), width), _PADDING, dtype=np.int64)
    scores = np.full((len(lists), width), -np.inf, dtype=np.float32)
    for place, found in enumerate(lists.values()):
        order = sorted(found, key=lambda row, found=found: (-np.float32(found[row]), row))
        ids[place, : len(order)] = order
        scores[place, : len(order)] = [found[row] for row in order]
    return Hits(ids, scores), list(lists)


def write_trec_qrels(path: str | os.PathLike[str], relevant: Mapping[str, Mapping[str, int]]) -> None:
    """Write relevance judgements.

    Parameters
    ----------
    path : path
    relevant : mapping of query to mapping of passage to grade
        Whole numbers; above 0 is relevant.

    Raises
    ------
    ResultsError
        When a grade is no whole number, or a name is empty or holds white space.

    Examples
    --------
    >>> import tempfile
    >>> import ragscale as rs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rs.retrieval.write_trec_qrels(f"{folder}/qrels", {"q1": {"p1": 2, "p2": 0}})
    ...     rs.retrieval.read_trec_qrels(f"{folder}/qrels")
    {'q1': {'p1': 2, 'p2': 0}}
    """
    _check_names("query", list(relevant))
    for query, grades in relevant.items():
        _check_names("passage", list(grades))
        odd = {name: grade for name, grade in grades.items() if int(grade) != grade}
        if odd:
            raise ResultsError(f"grades are whole numbers; query {query!r} has {dict(list(odd.items())[:5])}")
    with atomic_write(path, "w", encoding="utf-8", newline="\n") as file:
        for query, grades in relevant.items():
            file.writelines(f"{query} 0 {passage} {int(grade)}\n" for passage, grade in grades.items())


def read_trec_qrels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Read relevance judgements: for each query the grades of passages, for `ndcg` and `recall`.

    Raises
    ------
    ResultsError
        Listing lines of another shape, and passages that stand twice with different grades.

    Examples
    --------
    >>> import tempfile
    >>> import ragscale as rs
    >>> with tempfile.NamedTemporaryFile("w") as file:
    ...     _ = file.write("q1 0 p1 1\\n")
    ...     file.flush()
    ...     rs.retrieval.read_trec_qrels(file.name)
    {'q1': {'p1': 1}}
    """
    found: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for line, (query, _, passage, grade) in _lines(path, 4, "query 0 passage grade", problems):
        if not re.fullmatch(r"[+-]?\d+", grade):
            problems.append(f"line {line}: the grade {grade!r} is no whole number")
        elif found.setdefault(query, {}).setdefault(passage, int(grade)) != int(grade):
            problems.append(f"line {line}: passage {passage!r} has two grades for query {query!r}")
    _refuse(path, problems)
    return found


def _lines(path: str | os.PathLike[str], n: int, shape: str, problems: list[str]) -> list[tuple[int, list[str]]]:
    """Return the lines of a file in parts; note those that have another number of parts."""
    rows = []
    with disk_errors(path, "read"), open(path, encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                parts = line.split()
                if len(parts) == n:
                    rows.append((number, parts))
                elif parts:
                    problems.append(f"line {number}: {line.strip()[:60]!r} is not {shape!r}")
        except UnicodeDecodeError as error:
            raise ResultsError(f"{os.fspath(path)} is no text in UTF-8 ({error.reason})") from error
    return rows


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _refuse(path: str | os.PathLike[str], problems: list[str]) -> None:
    if problems:
        more = f", and {len(problems) - 10} more" if len(problems) > 10 else ""
        said = "\n  ".join(problems[:10])
        raise ResultsError(f"{os.fspath(path)} cannot be read, {len(problems)} problems:\n  {said}{more}")


def _check_names(what: str, names: Sequence[str], *, unique: bool = False) -> None:
    odd = [name for name in names if not str(name) or re.search(r"\s", str(name))]
    if odd:
        raise ResultsError(f"TREC's format holds no {what} named {odd[0]!r}: names have no white space")
    if unique and len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ResultsError(f"the {what} {twice!r} stands twice: TREC's format tells them apart by name alone")
