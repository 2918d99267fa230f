"""Which law? Held-out errors by whole models, AICc with trained models as sample size, and ties called ties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd

from ragscale._typing import ResultsLike
from ragscale.errors import ConfigError, FitError, RagscaleError
from ragscale.fitting._comparison import Comparison, akaike_weights
from ragscale.fitting._conditions import reads_evidence, rows_for
from ragscale.fitting._criterion import aicc
from ragscale.fitting._cross_validation import LeaveOut, prepared, validate, with_link
from ragscale.fitting._determined import unseen
from ragscale.fitting._fit_table import fit_table
from ragscale.fitting._options import FitOptions
from ragscale.fitting.laws._catalogue import BUILT_IN, make_law
from ragscale.fitting.laws._law import ScalingLaw

_TIE = 2.0


def compare_laws(
    results: ResultsLike,
    laws: Sequence[str | ScalingLaw] | None = None,
    *,
    held_out: bool = True,
    folds: int = 5,
    **options: Unpack[FitOptions],
) -> Comparison:
    """Fit several laws to one table and compare them; laws that cannot be told apart are called tied.

    Parameters
    ----------
    results : DataFrame
        As for `fit_manifold`.
    laws : sequence of str or ScalingLaw, optional
        By default the built-in laws, or only Chinchilla's where R does not vary.
    held_out : bool
        Compute the held-out errors too.
    folds : int
        Folds of whole trained models for ``k_fold``.
    **options
        Further arguments of `fit_manifold`, the same for all laws.

    Returns
    -------
    Comparison
        ``.table`` (indexed by law, best first), ``.fits``, ``.best``, ``.tied``, ``.weights``, and ``.to_frame()``.

    Examples
    --------
    >>> from ragscale.datasets import simulate
    >>> found = compare_laws(simulate("hill", noise=0.003, rng=0), ["chinchilla", "hill", "rpower"], held_out=False)
    >>> found.best, "chinchilla" in found.tied
    ('hill', False)
    """
    if isinstance(laws, (str, ScalingLaw)) or not (laws is None or isinstance(laws, Iterable)):
        raise ConfigError(f"laws = {laws!r:.60} must be several laws, such as ['log1p', 'hill']")
    laws, rest = None if laws is None else list(laws), dict[str, Any](options)
    table = prepared(results, [make_law(law) for law in laws or ()], rest)
    return compare_on(table, laws, held_out=held_out, folds=folds, options=rest)


def default_laws(table: pd.DataFrame) -> list[ScalingLaw]:
    """Return the built-in laws that rows can tell about: without R where it never varies, of R alone in its sweep."""
    laws = [law() for law in BUILT_IN]
    if np.ptp(table["R"].to_numpy(float)) == 0:
        return [law for law in laws if "R" not in law.variables]
    if {"N", "D"} <= unseen(table, ("N", "D")).keys():  # the stores of one model
        return [law for law in laws if "R" in law.variables and not law.gain_depends_on_N]
    return laws


def compare_on(
    table: pd.DataFrame,
    laws: Sequence[str | ScalingLaw] | None,
    *,
    held_out: bool,
    folds: int = 5,
    options: Mapping[str, Any],
) -> Comparison:
    """Compare laws on a prepared table."""
    if laws is None:
        laws = default_laws(table)
    chosen = [make_law(law) for law in laws]
    if not chosen:
        raise ConfigError("laws is empty: name at least one law")
    names = _labels(chosen)
    if not all(reads_evidence(law) for law in chosen):  # all laws are compared on the rows that each of them can read
        common, kept, _ = rows_for(table, next(law for law in chosen if not reads_evidence(law)))
        weights = options.get("weights")
        if weights is not None and not isinstance(weights, str) and np.shape(weights) == kept.shape:
            options = {**options, "weights": np.asarray(weights)[kept]}
        table = common
    rows, fits = [], {}
    for name, law in zip(names, chosen, strict=True):
        row: dict[str, Any] = {"law": name, "n_parameters": len(law.free), "problem": ""}
        settled = with_link(table, options, law)
        try:
            fit = fit_table(table, law, **settled)
        except RagscaleError as error:
            rows.append({**row, "problem": str(error)})
            continue
        fits[name] = fit
        row |= {
            "n_parameters": len(fit.law.free) + len(fit.link.parameters),
            "objective": fit.objective,
            "aicc": aicc(fit),
        }
        if held_out:
            problems = []
            ways: dict[str, LeaveOut] = {"leave_one_N": "N", "largest_compute": "compute", "k_fold": folds}
            validated = validate(table, law, list(ways.values()), options=settled, whole=fit)
            for column, held in zip(ways, validated, strict=True):
                if isinstance(held, RagscaleError):
                    problems.append(f"{column}: {held}")
                else:
                    row[column] = held.error
            row["problem"] = "; ".join(problems)
        rows.append(row)
    if not fits:
        raise FitError("no law could be fitted: " + "; ".join(f"{row['law']}: {row['problem']}" for row in rows))
    found = pd.DataFrame(rows).set_index("law")
    lowest = found["aicc"].min()
    # with too few models for the criterion every law is as good as another
    found["delta_aicc"] = found["aicc"] - lowest if np.isfinite(lowest) else np.nan
    found["tied"] = found["delta_aicc"] <= _TIE if np.isfinite(lowest) else found["aicc"].notna()
    found["weight"] = akaike_weights(found["aicc"].to_numpy(float))
    found = found.sort_values(["aicc", "n_parameters"], kind="stable")
    order = ["n_parameters", "objective", "aicc", "delta_aicc", "weight", "tied", "leave_one_N", "largest_compute"]
    return Comparison(table=pd.DataFrame(found[[c for c in (*order, "k_fold", "problem") if c in found]]), fits=fits)


def _labels(laws: Sequence[ScalingLaw]) -> list[str]:
    plain = [law.name for law in laws]
    return [repr(law) if plain.count(law.name) > 1 else law.name for law in laws]
