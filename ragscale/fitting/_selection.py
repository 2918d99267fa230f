"""Which law? Held-out errors by whole models, AICc with trained models as sample size, and ties called ties."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import optimize, special

from ragscale._renamed import renamed
from ragscale.errors import ConfigError, FitError, RagscaleError
from ragscale.fitting._comparison import Comparison, CrossValidation, akaike_weights
from ragscale.fitting._conditions import reads_evidence, rows_for
from ragscale.fitting._determined import unseen
from ragscale.fitting._experiments import clusters
from ragscale.fitting._fit import fit_table
from ragscale.fitting._own import peek
from ragscale.fitting._prepare import TABLE_OPTIONS, prepare, read_columns
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting.laws._catalogue import BUILT_IN, make_law
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.solver._make_link import make_link

LeaveOut = Literal["N", "D", "R", "compute"] | int
_TIE = 2.0
_LARGEST = 0.2


@renamed("seed", "rng")
def cross_validate(
    results: Any, law: str | ScalingLaw = "log1p", *, leave_out: LeaveOut = "N", rng: Any = 0, **options: Any
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
    law = make_law(law)
    table = _prepared(results, [law], options)
    return _validate_folds(table, law, leave_out, rng=rng, options=options)


def _prepared(results: Any, laws: Sequence[ScalingLaw], options: dict[str, Any]) -> pd.DataFrame:
    """Prepare the table with those options that say how to read it, and take them out."""
    reading = {name: options.pop(name) for name in TABLE_OPTIONS if name in options}
    return prepare(
        results,
        **reading,
        link=options.get("link", "auto"),
        reads=read_columns(laws, options.get("weights")),
        own_metric=bool(laws) and all(law.link != "auto" for law in laws),
    )


def _validate_folds(
    table: pd.DataFrame, law: ScalingLaw, leave_out: LeaveOut, *, rng: Any, options: Mapping[str, Any]
) -> CrossValidation:
    table, kept, _ = rows_for(table, law)
    law = law._resolve(*(table[name].to_numpy(float) for name in "NDR"))
    options = _with_link(table, options, law)
    space = options["space"]
    weights = options.pop("weights", None)
    given = None if weights is None or isinstance(weights, str) else np.asarray(weights, dtype=float)[kept]
    rows, known = [], unseen(table, law.variables)
    for name, test in _folds(table, leave_out, rng):
        train = pd.DataFrame(table[~test]).reset_index(drop=True)
        own = weights if given is None else given[~test]
        try:
            fit = fit_table(train, law, weights=own, **options)
        except RagscaleError as error:
            raise FitError(f"cross_validate cannot fit without {name}: {error}") from error
        held_out = pd.DataFrame(table[test])
        lost = [text for variable, text in fit.unseen.items() if variable not in known]
        if lost:
            raise FitError(f"cross_validate cannot fit without {name}: {'; '.join(lost)}")
        counts = [held_out[column].to_numpy(float) for column in "NDR"]
        further = {column: held_out[column].to_numpy(float) for column in law.further_columns}
        predicted = np.asarray(fit.link.metric(fit.latent(*counts, **further)))
        seen = held_out["value"].to_numpy(float)
        difference = predicted / seen - 1.0 if fit.space == "log" else predicted - seen
        rows.append(
            {
                "fold": name,
                "n_train": len(train),
                "n_test": len(held_out),
                "error": float(np.abs(difference).mean()),
                "bias": float(difference.mean()),
                "objective": fit.objective,
            }
        )
    return CrossValidation(law=law.name, leave_out=leave_out, table=pd.DataFrame(rows), space=space)


def _with_link(table: pd.DataFrame, options: Mapping[str, Any], law: ScalingLaw) -> dict[str, Any]:
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


def _folds(table: pd.DataFrame, leave_out: LeaveOut, rng: Any) -> Iterator[tuple[str, np.ndarray]]:
    if leave_out in {"N", "D", "R"}:
        values = np.sort(np.asarray(table[str(leave_out)].unique(), dtype=float))
        if len(values) < 2:
            raise FitError(
                f"leave_out={leave_out!r} needs at least 2 values of {leave_out}; the table has {values[0]:g}"
            )
        for value in values:
            yield f"{leave_out} = {value:g}", table[str(leave_out)].to_numpy(float) == value
    elif leave_out == "compute":
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


def aicc(fit: ManifoldFit) -> float:
    r"""Return Akaike's corrected criterion with trained models as sample size.

    The loss of the fit is taken as a negative log density with a free scale s, :math:`p(r) = e^{-\rho(r)/s} / Z(s)`,
    normalised exactly; the log likelihood of n rows is scaled to the C trained models that they come from, and the
    correction is 2 p C / (C - p - 1).

    References
    ----------
    Hurvich and Tsai 1989, Biometrika 76(2); Huber 1981, Robust Statistics, section 4.5 (the density).
    """
    count = int(clusters(peek(fit, "data")).max()) + 1
    p = len(fit.law.free) + len(fit.link.parameters) + 1
    if count - p - 1 <= 0:
        return float("inf")
    rows = len(peek(fit, "data"))
    return deviance(fit) * count / rows + 2.0 * p * count / (count - p - 1)


def deviance(fit: ManifoldFit) -> float:
    """Return -2 log likelihood of the rows under the density that belongs to the loss, at the best scale."""
    rows, objective = len(peek(fit, "data")), max(fit.objective, 1e-300)
    delta = fit.loss.limit

    def of(log_scale: float) -> float:
        s = np.exp(log_scale)
        if np.isinf(delta):
            log_z = 0.5 * np.log(2.0 * np.pi * s)
        else:
            middle = np.sqrt(2.0 * np.pi * s) * special.erf(delta / np.sqrt(2.0 * s))
            log_z = np.log(middle + 2.0 * (s / delta) * np.exp(-(delta**2) / (2.0 * s)))
        return 2.0 * rows * log_z + 2.0 * objective / s

    guess = np.log(objective / rows)
    found = optimize.minimize_scalar(of, bounds=(guess - 12.0, guess + 12.0), method="bounded", options={"xatol": 1e-9})
    return float(found.fun)


def compare_laws(
    results: Any,
    laws: Sequence[str | ScalingLaw] | None = None,
    *,
    held_out: bool = True,
    folds: int = 5,
    **options: Any,
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
    table = _prepared(results, [make_law(law) for law in laws or ()], options)
    return compare_on(table, laws, held_out=held_out, folds=folds, options=options)


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
        settled = _with_link(table, options, law)
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
            for column, leave_out in ways.items():
                try:
                    row[column] = _validate_folds(table, law, leave_out, rng=0, options=settled).error
                except RagscaleError as error:
                    problems.append(f"{column}: {error}")
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
