"""The ways in which a study reads: from which end of the permutation a store comes, how many passages it shows."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from ragscale.errors import CheckpointError, ConfigError, ResultsError, ResultsWarning
from ragscale.results import select as select  # noqa: PLC0414 - ragscale.study.select is public
from ragscale.study._jobs import Job, folder_of, require_outputs
from ragscale.study._plan import Cell

if TYPE_CHECKING:
    from ragscale.splitting import Split
    from ragscale.study._config import StudyConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to read; what does not depend on it (closed book, gold passages) is asked with the first alone."""

    source: str
    k: int
    is_first: bool

    @property
    def words(self) -> str:
        """What tells its jobs from those of the first; empty for that one."""
        return "" if self.is_first else f", {self.source} store, k = {self.k}"

    def cells(self, grid: Sequence[Cell]) -> list[Cell]:
        """Return the cells that are asked in this way."""
        return [c for c in grid if (c.source, c.k) == (self.source, self.k) or (self.is_first and c.R == 0)]


def variants(config: StudyConfig) -> list[Variant]:
    """Return every way in which the study reads, the first being that of its first source and smallest k."""
    found = [(source, k) for source in config.store_sources for k in config.numbers_of_passages]
    return [Variant(source=source, k=k, is_first=place == 0) for place, (source, k) in enumerate(found)]


def chosen_way(config: StudyConfig, *, store_source: str | None, k: int | None) -> dict[str, Any]:
    """Return one source and one k, the first of the study where none is named.

    Raises
    ------
    ConfigError
        When the study has no such source or k.
    """
    chosen: dict[str, Any] = {}
    for name, value, there in (
        ("store_source", store_source, config.store_sources),
        ("k", k, config.numbers_of_passages),
    ):
        if value is not None and value not in there:
            raise ConfigError(f"{name} = {value!r} is not in this study; it has {', '.join(map(repr, there))}")
        chosen[name] = there[0] if value is None else value
    return chosen


def one_way(rows: pd.DataFrame, config: StudyConfig, *, store_source: str | None, k: int | None) -> pd.DataFrame:
    """Return the rows of one source and one k, and those that read no store.

    Raises
    ------
    ConfigError
        When the study has no such source or k.
    """
    kept = rows["R"] == 0
    matches = [rows[name] == value for name, value in chosen_way(config, store_source=store_source, k=k).items()]
    return pd.DataFrame(rows[kept | (matches[0] & matches[1])])


def with_source(rows: pd.DataFrame, split: Split, source: str) -> pd.DataFrame:
    """Return results with ``store_source``, "none" where no store is read, and ``seen_share``.

    The share is that of the store's tokens which pretraining on D tokens had read.
    """
    shares: dict[tuple[int, int], float] = {}
    of_row: list[tuple[str, float]] = []
    for tokens, size in zip(rows["D"].tolist(), rows["R"].tolist(), strict=True):
        if size == 0:
            of_row.append(("none", 0.0))
            continue
        cell = int(tokens), int(size)
        if cell not in shares:
            store = split.store(cell[1], cast(Any, source), D=cell[0], allow_overlap=True)
            shares[cell] = store.seen_share
        of_row.append((source, shares[cell]))
    columns: dict[str, Any] = dict(zip(("store_source", "seen_share"), zip(*of_row, strict=True), strict=True))
    return rows.assign(**{name: list(values) for name, values in columns.items()})


@contextmanager
def part_of_a_table() -> Generator[None]:
    """Read or write rows whose closed book is in the file of the study's first way to read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no row has R = 0", category=ResultsWarning)
        yield


def read_coverage(root: Path, job: Job) -> pd.DataFrame:
    """Return the hits that a job of retrieval measured, with the source and k of the store's rows.

    Raises
    ------
    ResultsError
        When the file was damaged since.
    """
    folder = folder_of(root, job)
    try:
        require_outputs(folder)
    except CheckpointError as error:
        raise ResultsError(str(error)) from error
    rows = pd.read_csv(folder / "coverage.csv")
    of_store = rows["condition"].isin(["retrieved", "random"])
    return rows.assign(
        store_source=[job.inputs.source if read else "none" for read in of_store],
        k=[job.inputs.k if read else 0 for read in of_store],
    )
