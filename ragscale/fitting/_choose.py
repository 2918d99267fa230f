"""``law="auto"``: smooth laws or the law of reading, by what the table measured and what its models say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from ragscale.errors import ResultsWarning
from ragscale.fitting._comparison import Comparison, akaike_weights, simplest
from ragscale.fitting._conditions import rows_for
from ragscale.fitting._evidence import Evidence, evidence
from ragscale.fitting._experiments import clusters
from ragscale.fitting._fit_table import fit_table
from ragscale.fitting._own import peek
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting._selection import compare_on, default_laws
from ragscale.fitting.laws._additive import Hill, Log1p, Power
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.laws._reading import Reading
from ragscale.fitting.solver._make_link import GUESSED, make_link

_TIE = 2.0


def choose_law(table: pd.DataFrame, options: Mapping[str, Any]) -> ManifoldFit:
    """Return the fit of the law that the table speaks for.

    1. Where models surely read (`Evidence.somebody_reads`), the law of reading is a candidate beside the smooth ones.
    2. All are compared by AICc on the rows that each of them can read. A law without R is no candidate where a store
       surely helps within models.
    3. Reading is taken where its AICc is lower by 2 than that of every smooth law, and fitted again with gold rows;
       else the simplest of the tied smooth laws.
    4. With too few trained models for AICc, the laws are compared by what they leave unexplained *within* models.
    """
    link = make_link(options.get("link", "auto"), table)
    seen = evidence(table, link)
    laws, words = _candidates(table, seen)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=GUESSED, category=ResultsWarning)  # said once, above
        compared = compare_on(table, laws, held_out=False, options=options)
    if _too_few_models(compared):
        compared = _by_rows_within(compared)
        words.append("too few trained models for AICc: laws are compared by what they leave within models")
    name = _chosen(compared)
    fit = compared.fits[name]
    if isinstance(fit.law, Reading):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=GUESSED, category=ResultsWarning)
            fit = fit_table(table, Reading(), **options)
        compared = replace(compared, fits={**compared.fits, name: fit})
    note = "; ".join([_why(compared, name), *words])
    compared = replace(compared, gate=seen.reads, note=note, chosen=name)
    return replace(fit, selection=compared, left_out=fit.left_out or rows_for(table, fit.law)[2])


def _candidates(table: pd.DataFrame, seen: Evidence) -> tuple[list[ScalingLaw], list[str]]:
    """Return the laws to compare, and in words what decided about them."""
    rows = rows_for(table, Log1p())[0]
    varies = np.ptp(rows["R"].to_numpy(float)) > 0
    laws = default_laws(rows)
    words = []
    if varies and seen.helps:
        laws = [law for law in laws if "R" in law.variables]
        if seen.smallest is not None and seen.smallest.high < 0:
            laws += [Log1p(offset=True), Power(offset=True), Hill(offset=True)]
            words.append("the smallest stores hurt and larger ones help: laws with an offset are compared too")
    if "hit_rate" in table:
        if seen.somebody_reads:
            laws.append(Reading())
        elif seen.nobody_reads:
            words.append("nobody reads in this range")
        elif seen.reads is not None:
            words.append("whether anybody reads cannot be told")
    return laws, words


def _too_few_models(compared: Comparison) -> bool:
    """Say whether some fitted law has as many parameters as there are models, so that AICc cannot judge it."""
    table = compared.table
    fitted = table["problem"].to_numpy() == ""
    return not np.isfinite(table["aicc"].to_numpy(float)[fitted]).all()


def _by_rows_within(compared: Comparison) -> Comparison:
    """Compare laws by the residuals within trained models, with the rows beyond one per model as sample size.

    What a model's training did to all of its rows cancels. The criterion is that of a Laplace density, 2 m ln(mean
    absolute residual), with AIC's corrected penalty for the parameters that work within models.
    """
    table, fits = compared.table, compared.fits
    base = {"E", "A", "alpha", "B", "beta"}
    criterion = {}
    for name, fit in fits.items():
        data = peek(fit, "data")
        group, residuals = clusters(data), fit.residuals
        middle = pd.Series(residuals).groupby(group).transform("median").to_numpy(float)
        m = len(residuals) - (int(group.max()) + 1)
        p = len([one for one in fit.law.free if one.name not in base]) + 1
        spread = max(float(np.abs(residuals - middle).sum()) / max(m, 1), 1e-12)
        criterion[name] = 2.0 * m * np.log(spread) + (2.0 * p * m / (m - p - 1) if m - p - 1 > 0 else np.inf)
    table["aicc"] = [criterion.get(str(name), np.nan) for name in table.index]
    lowest = table["aicc"].min()
    table["delta_aicc"] = table["aicc"] - lowest if np.isfinite(lowest) else np.nan
    table["tied"] = table["delta_aicc"] <= _TIE if np.isfinite(lowest) else table["aicc"].notna()
    table["weight"] = akaike_weights(table["aicc"].to_numpy(float))
    return Comparison(table=table.sort_values(["aicc", "n_parameters"], kind="stable"), fits=fits)


def _chosen(compared: Comparison) -> str:
    """Return the law of reading where it is better than every smooth law by 2, else the simplest tied smooth law."""
    table = cast(Any, compared.table)
    reading = table.index == Reading.name
    if not reading.any():
        return simplest(compared)
    smooth = cast(Any, pd.DataFrame(table[~reading]))
    best = smooth["aicc"].min()
    if not np.isfinite(best) or float(table.loc[Reading.name, "aicc"]) <= best - _TIE:
        return Reading.name
    tied = pd.DataFrame(smooth[smooth["aicc"] <= best + _TIE])
    return str(tied.sort_values(["n_parameters", "aicc"], kind="stable").index[0])


def _why(compared: Comparison, name: str) -> str:
    """Say by how much the chosen law is better than the next."""
    table = compared.table
    value = table["aicc"]
    others = value.drop(index=name).dropna()
    if not len(others):
        return f"{name} is the only law that could be fitted"
    gap = float(others.iloc[0] - value[name]) if np.isfinite(others.iloc[0]) else 0.0
    if gap > _TIE:
        return f"{name} by {gap:.1f} AICc before {others.index[0]}"
    same = [str(one) for one in table.index[table["tied"].to_numpy(bool)] if one != name]
    if gap < -_TIE:
        return f"{name}, although {others.index[0]} is lower by {-gap:.1f} AICc"
    return f"{name}, the simplest of those that cannot be told apart (also {', '.join(same)})"
