"""How well a law predicts what it was not fitted to: whole models, sizes, or the largest compute left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from ragscale._renamed import renamed
from ragscale._typing import ResultsLike, RngLike
from ragscale.errors import ConfigError, FitError, RagscaleError
from ragscale.fitting._comparison import CrossValidation
from ragscale.fitting._conditions import rows_for
from ragscale.fitting._determined import unseen
from ragscale.fitting._experiments import clusters
from ragscale.fitting._fit_without import Counts, FoldFit, fit_without
from ragscale.fitting._options import FitOptions
from ragscale.fitting._prepare import TABLE_OPTIONS, prepare, read_columns
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting.laws._catalogue import make_law
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.solver._make_link import make_link

LeaveOut = Literal["N", "D", "R", "compute"] | int
_LARGEST = 0.2


@renamed("seed", "rng")
def cross_validate(
    results: ResultsLike,
    law: str | ScalingLaw = "log1p",
    *,
    leave_out: LeaveOut = "N",
    rng: RngLike = 0,
    **options: Unpack[FitOptions],
) -> CrossValidation:
    """Fit to a part of the table, predict the rest; every fold is fitted anew, exponents included.

    Parameters
    ----------
    results : DataFrame
        As for `fit_manifold`.
    law : str or ScalingLaw
    leave_out : "N", "D", "R", "compute" or int
        One value of N (D, R) at a time; the fifth of the rows with the largest compute N D; or so many folds of whole
        trained models (rows of one (N, D, seed) stay together).
    rng : int, Generator or None
        Which models go into which fold, for folds by number.
    **options
        Further arguments of `fit_manifold`.

    Returns
    -------
    CrossValidation
        ``.error``, the mean absolute error over all rows left out, and ``.table``, one row per fold.

    Raises
    ------
    FitError
        When a fold cannot be fitted; none is skipped.

    Examples
    --------
    >>> from ragscale.datasets import simulate
    >>> folds = cross_validate(simulate("log1p", noise=0.01, rng=0), "log1p", leave_out="N")
    >>> len(folds), folds.error < 0.03
    (6, True)
    """
    law, rest = make_law(law), dict[str, Any](options)
    table = prepared(results, [law], rest)
    found = validate(table, law, [leave_out], rng=rng, options=rest)[0]
    if isinstance(found, RagscaleError):
        raise found
    return found


def prepared(results: ResultsLike, laws: Sequence[ScalingLaw], options: dict[str, Any]) -> pd.DataFrame:
    """Prepare the table with those options that say how to read it, and take them out."""
    reading = {name: options.pop(name) for name in TABLE_OPTIONS if name in options}
    return prepare(
        results,
        **reading,
        link=options.get("link", "auto"),
        reads=read_columns(laws, options.get("weights")),
        own_metric=bool(laws) and all(law.link != "auto" for law in laws),
    )


def validate(
    table: pd.DataFrame,
    law: ScalingLaw,
    ways: Sequence[LeaveOut],
    *,
    rng: RngLike = 0,
    options: Mapping[str, Any],
    whole: ManifoldFit | None = None,
) -> list[CrossValidation | RagscaleError]:
    """Cross-validate a law on a prepared table in several ways at once; a way that cannot be gone is its error.

    ``whole`` is the fit to all of it, where that is known.
    """
    table, kept, _ = rows_for(table, law)
    law = law._resolve(*(table[name].to_numpy(float) for name in "NDR"))
    options = with_link(table, options, law)
    weights = options.pop("weights", None)
    if weights is not None and not isinstance(weights, str):
        weights = np.asarray(weights, dtype=float)[kept]
    folds: list[list[tuple[str, np.ndarray]] | RagscaleError] = [_folds_or_error(table, way, rng) for way in ways]
    parts = [test for some in folds if not isinstance(some, RagscaleError) for _, test in some]
    fits = iter(fit_without(table, law, parts, weights=weights, options=options, whole=whole))
    known = set(unseen(table, law.variables))
    columns = {name: table[name].to_numpy(float) for name in ("N", "D", "R", "value", *law.further_columns)}
    found: list[CrossValidation | RagscaleError] = []
    for way, some in zip(ways, folds, strict=True):
        if isinstance(some, RagscaleError):
            found.append(some)
            continue
        own = [(name, test, next(fits)) for name, test in some]
        try:
            rows = [_row(columns, name, test, fit, known) for name, test, fit in own]
        except FitError as error:
            found.append(error)
        else:
            found.append(CrossValidation(law=law.name, leave_out=way, table=pd.DataFrame(rows), space=options["space"]))
    return found


def _row(columns: Counts, name: str, test: np.ndarray, fit: FoldFit | RagscaleError, known: set[str]) -> dict[str, Any]:
    """Return what a fold predicts of the rows left out, against what they are."""
    if isinstance(fit, RagscaleError):
        raise FitError(f"cross_validate cannot fit without {name}: {fit}") from fit
    lost = [text for variable, text in fit.unseen.items() if variable not in known]
    if lost:
        raise FitError(f"cross_validate cannot fit without {name}: {'; '.join(lost)}")
    held_out = {column: values[test] for column, values in columns.items()}
    predicted, seen = fit.predict(held_out), held_out["value"]
    difference = predicted / seen - 1.0 if fit.space == "log" else predicted - seen
    return {
        "fold": name,
        "n_train": int((~test).sum()),
        "n_test": int(test.sum()),
        "error": float(np.abs(difference).mean()),
        "bias": float(difference.mean()),
        "objective": fit.objective,
    }


def with_link(table: pd.DataFrame, options: Mapping[str, Any], law: ScalingLaw) -> dict[str, Any]:
    """Settle the link once, on the whole table, so that folds and laws are compared in the same metric.

    A law that models the metric itself keeps its own link; its residuals are taken where those of the others are.
    """
    asked = options.get("link", "auto")
    link = make_link(asked, table)
    space = options.get("space", "auto")
    if isinstance(asked, str) and asked == "auto":
        own = make_link(law.link if law.link != "auto" else link, table)
    else:
        own = link
    return {**options, "link": own, "space": link.space if space == "auto" else space}


def _folds_or_error(
    table: pd.DataFrame, leave_out: LeaveOut, rng: RngLike
) -> list[tuple[str, np.ndarray]] | RagscaleError:
    try:
        return list(_folds(table, leave_out, rng))
    except RagscaleError as error:
        return error


def _folds(table: pd.DataFrame, leave_out: LeaveOut, rng: RngLike) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(leave_out, str) and leave_out in {"N", "D", "R"}:
        values = np.sort(np.asarray(table[str(leave_out)].unique(), dtype=float))
        if len(values) < 2:
            raise FitError(
                f"leave_out={leave_out!r} needs at least 2 values of {leave_out}; the table has {values[0]:g}"
            )
        for value in values:
            yield f"{leave_out} = {value:g}", table[str(leave_out)].to_numpy(float) == value
    elif isinstance(leave_out, str) and leave_out == "compute":
        compute = np.log(table["N"].to_numpy(float)) + np.log(table["D"].to_numpy(float))
        count = max(1, len(table) - int((1 - _LARGEST) * len(table)))
        test = np.zeros(len(table), dtype=bool)
        test[np.argsort(compute, kind="stable")[len(table) - count :]] = True
        yield f"largest {_LARGEST:.0%} by N D", test
    elif isinstance(leave_out, int) and not isinstance(leave_out, bool) and leave_out >= 2:
        group = clusters(table)
        count = int(group.max()) + 1
        if count < leave_out:
            raise FitError(f"leave_out={leave_out} folds need as many trained models; the table has {count}")
        order = np.random.default_rng(rng).permutation(count)
        for i in range(leave_out):
            yield f"fold {i + 1} of {leave_out}", np.isin(group, order[i::leave_out])
    else:
        raise ConfigError(f"leave_out = {leave_out!r} must be 'N', 'D', 'R', 'compute' or a number of folds from 2")
