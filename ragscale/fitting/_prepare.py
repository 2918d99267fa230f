"""From whatever holds results to the canonical table of one surface: one direction, known columns, seeds averaged."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ragscale._typing import ResultsLike
from ragscale.errors import ConfigError, ResultsError, ResultsWarning
from ragscale.fitting._conditions import RETRIEVED, conditions
from ragscale.fitting._determined import fill_unknown
from ragscale.fitting._experiments import EXPERIMENT, experiments, merged, warn_of_checkpoints
from ragscale.fitting._unexplained import CELL, advice, unexplained
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.solver.links import Link
from ragscale.results import average_seeds, validate
from ragscale.results._direction import direction, rank_trend, told_direction
from ragscale.results._door import as_frame, likely, speaks_of
from ragscale.results._metric_names import kind_of
from ragscale.results._table import row_keys

TABLE_OPTIONS = ("N", "D", "R", "value", "seed_average", "by", "higher_is_better")
"""Arguments of `fit_manifold` that say how to read the table; the others say how to fit it."""

_COUNTED = {
    "N": "models apart, so give the parameters of each as N",
    "D": "checkpoints apart, so give the tokens that each was pretrained on as D (steps times tokens per step)",
}
_ONE_SURFACE = ("task", "metric", "split")
_ONE_STORE = ("retriever", "k", "store_source")
_NOTHING_SHOWN = {"closed-book", "closed_book", "closed book", "none", ""}


def prepare(
    results: ResultsLike,
    *,
    N: str = "N",
    D: str = "D",
    R: str = "R",
    value: str = "value",
    seed_average: bool = True,
    by: str | Sequence[str] | None = None,
    higher_is_better: bool | None = None,
    link: str | Link = "auto",
    reads: Collection[str] = (),
    own_metric: bool = False,
) -> pd.DataFrame:
    """Return the canonical table of one surface, with ``n_seeds`` where seeds were averaged.

    Parameters
    ----------
    results
        Whatever `ragscale.results.validate` accepts.
    N, D, R, value, seed_average, by, higher_is_better, link
        As for `fit_manifold`.
    reads : collection of str
        Columns that weights or the law read: they may differ within a cell.
    own_metric : bool
        Whether the law models the metric itself, so that it may rise or fall.

    Raises
    ------
    ResultsError
        Listing everything wrong with the table, that it holds several surfaces, or what is not explained.
    ConfigError
        When ``by`` is no column.
    """
    _check_arguments({"N": N, "D": D, "R": R, "value": value}, seed_average)
    frame = _named(fill_unknown(as_frame(results), N=N, D=D, R=R), {"N": N, "D": D, "R": R, "value": value})
    by = _by(frame, by)
    no_store = "R" not in frame
    if no_store:
        _check_no_store(frame, (*by, *reads))
        frame["R"] = 0.0
    table: Any = _validated(frame)
    table = _one_surface(table, (*by, *reads))
    if EXPERIMENT in table:
        table = table.drop(columns=EXPERIMENT)
    experiment = experiments(table, by)
    if experiment is None:
        warn_of_checkpoints(table)
    else:
        table[EXPERIMENT] = experiment
    if seed_average and len(_kinds(table, "seed")) > 1:
        table = _averaged(table)
        differing = unexplained(table, (*by, *reads))
        if differing and (table["n_seeds"] == 1).all():  # a row counter, a date: no two rows were averaged
            raise ResultsError(f"seeds are averaged, and {advice(differing)}; or keep them apart, seed_average=False")
    table["higher_is_better"] = _direction(table, higher_is_better, link, own_metric)
    return table


def _check_arguments(names: dict[str, Any], seed_average: Any) -> None:
    problems = [
        f"{what} = {name!r:.60} must be the name of a column"
        for what, name in names.items()
        if not isinstance(name, str)
    ]
    if not isinstance(seed_average, (bool, np.bool_)):
        problems.append(f"seed_average = {seed_average!r:.60} must be True or False")
    if problems:
        raise ConfigError("; ".join(problems))


def read_columns(laws: Collection[ScalingLaw | None], weights: Any) -> tuple[str, ...]:
    """Return the columns that these laws and the weights read."""
    names = [name for law in laws if law is not None for name in law.further_columns]
    return (*names, weights) if isinstance(weights, str) and weights not in {"stderr", "binomial"} else tuple(names)


def _named(frame: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Rename the columns that the arguments name, or say which are not there."""
    missing = [f"{what} = {name!r}" for what, name in names.items() if name not in frame and name != "R"]
    if missing:
        shown = ", ".join(map(str, frame.columns)) or "no columns"
        hints = [
            f"{what}={found[0]!r}"
            for what, name in names.items()
            if name == what and name not in frame and (found := likely(what, frame.columns))
        ]
        hint = f". Perhaps fit_manifold(results, {', '.join(hints)})" if hints else ""
        apart = [
            f"{name!r} tells {_COUNTED[what]}"
            for what in "ND"
            if what not in frame and names[what] == what and not likely(what, frame.columns)
            for name in speaks_of(what, frame)[:1]
        ]
        hint += f". Rows are not of one model: {'; '.join(apart)}" if apart else ""
        raise ResultsError(f"columns not in the results table: {', '.join(missing)}; it has {shown}{hint}")
    for target, source in names.items():
        if source != target:
            frame[target] = frame[source]
            if source != "N_total" and source not in names:
                frame = frame.drop(columns=source)
    if names["value"] != "value" and "metric" not in frame and kind_of(names["value"]):
        frame["metric"] = names["value"]
    return frame


def _by(frame: pd.DataFrame, by: str | Sequence[str] | None) -> tuple[str, ...]:
    if by is None:
        return ()
    names = (by,) if isinstance(by, str) else by
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"by = {by!r} must be a column name, or several")
    missing = [name for name in names if name not in frame]
    if missing:
        raise ConfigError(
            f"by = {by!r} names {', '.join(map(repr, missing))}, not in the results table; it has "
            f"{', '.join(frame.columns)}"
        )
    return tuple(names)


def _check_no_store(frame: pd.DataFrame, explained: Collection[str]) -> None:
    """Refuse to take R as 0 where the table plainly has stores."""
    found = [name for name in likely("R", frame.columns) if name not in explained and _has_sizes(frame[name])]
    if found:
        raise ResultsError(
            f"there is no column R, and {found[0]!r} looks like the tokens of the store: say R={found[0]!r}; if no "
            "model read from a store, drop that column or add R = 0, results.assign(R=0)"
        )
    retrieved = []
    if "condition" in frame:
        kinds = [str(kind) for kind in pd.Series(frame["condition"]).dropna().unique()]
        retrieved = [f"condition {kind!r}" for kind in kinds if kind.strip().lower() not in _NOTHING_SHOWN]
    if retrieved:
        raise ResultsError(
            f"there is no column R, and rows have {', '.join(retrieved[:3])}: R, the tokens of the store, is needed "
            "for them (0 for closed-book rows)"
        )
    keys = [name for name in (*CELL, *explained) if name in frame]
    differing = unexplained(frame.reset_index(drop=True), explained) if keys else {}
    if differing:
        name = next(iter(differing))
        raise ResultsError(
            f"there is no column R, and rows of the same N and D differ in {', '.join(map(repr, differing))} "
            f"({', '.join(map(str, differing[name]))}). If {name!r} is the tokens of the store, say R={name!r}; "
            f"otherwise: {advice(differing)}"
        )


def _has_sizes(column: Any) -> bool:
    numbers = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=float)
    return bool(np.nanmax(np.abs(numbers), initial=0.0) > 0)


def _validated(frame: pd.DataFrame) -> pd.DataFrame:
    with warnings.catch_warnings():
        # fits say themselves whether R was measured, and against what
        warnings.filterwarnings("ignore", message="no row has R = 0", category=ResultsWarning)
        return validate(frame)


def _one_surface(table: pd.DataFrame, explained: Collection[str]) -> pd.DataFrame:
    problems = [
        f"column {column!r} holds {len(_kinds(table, column))} values ({_some(table, column)}), a surface has one"
        for column in _ONE_SURFACE
        if len(_kinds(table, column)) > 1 and column not in explained
    ]
    stores = pd.DataFrame(table[(table["R"] > 0) & (conditions(table) == RETRIEVED)])
    problems += [
        f"column {column!r} holds {len(_kinds(stores, column))} values where R > 0 ({_some(stores, column)})"
        for column in _ONE_STORE
        if len(_kinds(stores, column)) > 1 and column not in explained
    ]
    if problems:
        first = next(c for c in (*_ONE_SURFACE, *_ONE_STORE) if any(repr(c) in p for p in problems))
        choice: dict[str, Any] = {c: _kinds(table, c)[0] for c in ("metric", "task") if len(_kinds(table, c)) > 1}
        if not choice:
            choice = {first: _kinds(stores if first in _ONE_STORE else table, first)[0]}
        said = ", ".join(f"{name}={value!r}" for name, value in choice.items())
        raise ResultsError(
            "; ".join(problems) + f". Choose rows first, e.g. fit_manifold(rs.results.select(results, {said}))"
        )
    differing = unexplained(table, explained)
    if differing:
        raise ResultsError(advice(differing))
    return table


def _averaged(table: pd.DataFrame) -> pd.DataFrame:
    """Average seeds; experiments that have rows in one average become one."""
    if EXPERIMENT not in table:
        return average_seeds(table)
    plain = table.drop(columns=EXPERIMENT)
    averaged = average_seeds(plain)
    group = row_keys(plain, without=("seed", "run"))
    averaged[EXPERIMENT] = merged(table[EXPERIMENT].to_numpy(int), group)
    return averaged


def _direction(table: pd.DataFrame, given: bool | None, link: str | Link, own_metric: bool) -> bool:
    presumed = None
    if isinstance(link, str) and link != "auto":
        link = Link.named(link)()
    if isinstance(link, Link) and link.knows_direction:
        presumed = link.rising
    if own_metric and given is None:
        told = told_direction(table)
        return rank_trend(table) > 0 if told is None else told
    return direction(table, given, presumed=presumed)


def _kinds(table: pd.DataFrame, column: str) -> list[Any]:
    """Return the different values of a column, none where it does not exist; gaps are no value."""
    return pd.Series(table[column]).dropna().unique().tolist() if column in table else []


def _some(table: pd.DataFrame, column: str) -> str:
    kinds = [str(kind) for kind in _kinds(table, column)]
    return ", ".join(kinds[:4]) + (", ..." if len(kinds) > 4 else "")
