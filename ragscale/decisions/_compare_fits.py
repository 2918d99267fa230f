"""Compare two procedures, such as corpora, architectures or retrievers, by the laws that fit their results."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale._typing import RngLike
from ragscale.decisions._arguments import counts, refuse
from ragscale.decisions._estimate import quantiles
from ragscale.errors import ConfigError, ExtrapolationWarning, IdentifiabilityWarning, ResultsError
from ragscale.fitting import bootstrap, fit_manifold
from ragscale.fitting._options import TableOptions
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.results import Result

if TYPE_CHECKING:
    from ragscale.fitting import Bootstrap, ManifoldFit

_N_COMPUTE = 41
_N_SIZES = 121
_BEYOND = 10.0  # how far beyond the sizes measured the best model of a budget is looked for


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FitComparison(Result):
    """How two or more procedures differ, pair by pair.

    Attributes
    ----------
    names : tuple of str
    parameters : DataFrame
        One row per pair and parameter: ``first, second, parameter, value_first, value_second, difference`` (first minus
        second), ``difference_low, difference_high``; NaN for a parameter that only one of the laws has.
    curve : DataFrame
        One row per pair and point: ``first, second``, ``compute`` (FLOPs, 6 N D) or ``N, D, R``, ``value_first,
        value_second, difference, difference_low, difference_high``.
    crossing : DataFrame
        One row per pair: ``first, second, compute``, where the first becomes better or worse (NaN where one is better
        in the whole range), ``compute_low, compute_high`` over the replicates that cross, and ``share``, of replicates
        that do; ``better_below, better_above``.
    higher_is_better : bool
    confidence_level : float
    """

    _picture: ClassVar[str] = "compared_fits"

    names: tuple[str, ...]
    parameters: pd.DataFrame
    curve: pd.DataFrame
    crossing: pd.DataFrame
    higher_is_better: bool
    confidence_level: float
    note: str = field(default="")

    def to_frame(self) -> pd.DataFrame:
        """Return `curve`."""
        return self.curve.copy()

    def summary(self) -> str:
        """Say for each pair which is better at the ends, whether that is certain, and where they cross."""
        lines = []
        pairs = self.crossing.to_dict("records")
        for row in pairs:
            curve: Any = self.curve[(self.curve["first"] == row["first"]) & (self.curve["second"] == row["second"])]
            lines += [self._sentence(row, at) for at in (curve.iloc[0], curve.iloc[-1])]
            if not math.isnan(row["compute"]):
                text = f"{row['first']} and {row['second']} cross at {row['compute']:.2e} FLOPs"
                if not math.isnan(row["compute_low"]):
                    text += f" ({row['compute_low']:.1e} to {row['compute_high']:.1e}"
                    text += f"; {100 * row['share']:.0f} % of the replicates cross)"
                lines.append(text)
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def _sentence(self, row: dict[str, Any], at: Any) -> str:
        better = (at["difference"] > 0) == self.higher_is_better
        names = (row["first"], row["second"]) if better else (row["second"], row["first"])
        certain = at["difference_low"] > 0 or at["difference_high"] < 0
        where = f"{at['compute']:.2e} FLOPs" if "compute" in at else f"N = {at['N']:.3g}, D = {at['D']:.3g}"
        span = sorted((abs(at["difference_low"]), abs(at["difference_high"])))
        if not certain:
            low, high = at["difference_low"], at["difference_high"]
            return f"at {where} {names[0]} and {names[1]} cannot be told apart ({low:.2g} to {high:.2g})"
        size = f"{abs(at['difference']):.3g} ({span[0]:.2g} to {span[1]:.2g})"
        return f"at {where} {names[0]} is better than {names[1]} by {size}"


def compare_fits(
    fits: Mapping[str, ManifoldFit | Bootstrap] | pd.DataFrame,
    *,
    over: str | None = None,
    law: str | ScalingLaw = "auto",
    at: pd.DataFrame | None = None,
    compute: ArrayLike | None = None,
    R: float = 0.0,
    n_resamples: int = 200,
    confidence_level: float = 0.95,
    rng: RngLike = 0,
    **options: Unpack[TableOptions],
) -> FitComparison:
    r"""Compare procedures by their laws: parameters, the metric over compute, and where they cross.

    At a compute C each procedure is taken at its own best size: :math:`\min_N L(N, C / 6N, R)`. Trained models are
    resampled. Where the fits have the same ones (two retrievers on one study) they are drawn together, and what they
    share cancels; else independently.

    Parameters
    ----------
    fits : mapping of str to ManifoldFit or Bootstrap, or a results table
        A table is split by the column ``over`` and fitted with ``law`` and further ``options`` of `fit_manifold`.
    over : str, optional
        For a table: the column that names the procedure.
    law : str or ScalingLaw
        For a table.
    at : DataFrame, optional
        Columns N and D, and R if it is not 0: compare at these points instead of along compute.
    compute : array-like, optional
        FLOPs; by default 41 values over the range that all procedures were measured in.
    R : float
        Store tokens along compute.
    n_resamples, confidence_level, rng
        As for `bootstrap`; fits that already are bootstraps are used as they are.

    Returns
    -------
    FitComparison

    Raises
    ------
    ConfigError, ResultsError
        When there are fewer than two procedures, or an argument is wrong.

    References
    ----------
    Comparing procedures by their laws: Nezhurina et al. 2025, arXiv 2506.04598 (CLIP against MaMMUT).

    Examples
    --------
    >>> import ragscale as rs
    >>> fits = {name: rs.fit_manifold(rs.datasets.simulate("hill", noise=0.01, rng=rng), "hill")
    ...         for name, rng in (("a", 0), ("b", 1))}
    >>> found = rs.compare_fits(fits, n_resamples=20)
    >>> found.names
    ('a', 'b')
    """
    problems: list[str] = []
    given = counts(problems, allow_zero=("R",), R=R, **({} if compute is None else {"compute": compute}))
    if at is not None and not {"N", "D"} <= set(getattr(at, "columns", ())):
        problems.append("at must be a table with columns N and D")
    refuse(problems, "compare_fits")
    if isinstance(fits, Mapping):
        found: dict[str, Any] = {str(name): fit for name, fit in fits.items()}
    else:
        found = _fit_each(fits, over, law, options)
    if len(found) < 2:
        raise ConfigError(f"compare_fits needs at least two procedures, got {', '.join(found) or 'none'}")
    bad = [name for name, fit in found.items() if not hasattr(getattr(fit, "fit", fit), "law")]
    if bad:
        raise ConfigError(f"compare_fits: {', '.join(bad)} are no fits: give the results of rs.fit_manifold")
    boots = _bootstraps(found, n_resamples, confidence_level, rng)
    rising = {name: boot.fit.link.rising for name, boot in boots.items()}
    if len(set(rising.values())) > 1:
        raise ConfigError(f"compare_fits: the metrics point in different directions ({rising}); compare one metric")
    rises = next(iter(rising.values()))
    if at is None:
        budgets = np.ravel(given["compute"]) if compute is not None else _shared_range(boots)
        points = pd.DataFrame({"compute": budgets})
        values = {name: _frontier(boot, budgets, float(R), rises) for name, boot in boots.items()}
    else:
        points = pd.DataFrame({"N": at["N"], "D": at["D"], "R": at.get("R", R)}).reset_index(drop=True)
        where = tuple(points[name].to_numpy(float) for name in "NDR")
        values = {name: _stacked(boot, *where) for name, boot in boots.items()}
    parameters, curves, crossings = [], [], []
    for first, second in itertools.combinations(boots, 2):
        pair = {"first": first, "second": second}
        parameters += [{**pair, **row} for row in _parameters(boots[first], boots[second], confidence_level)]
        rows = min(len(values[first]), len(values[second]))
        difference = values[first][:rows] - values[second][:rows]
        low, high = quantiles(difference, confidence_level)
        curve = points.assign(value_first=values[first][0], value_second=values[second][0], difference=difference[0])
        curves.append(curve.assign(difference_low=low, difference_high=high, **pair))
        crossings.append({**pair, **_crossing(points, difference, rises, pair, confidence_level)})
    return FitComparison(
        names=tuple(boots),
        parameters=pd.DataFrame(parameters),
        curve=pd.concat(curves, ignore_index=True),
        crossing=pd.DataFrame(crossings),
        higher_is_better=rises,
        confidence_level=confidence_level,
    )


def _fit_each(table: Any, over: str | None, law: str | ScalingLaw, options: TableOptions) -> dict[str, Any]:
    if over is None:
        raise ConfigError("compare_fits: a table needs over=, the column that names the procedure")
    if over not in getattr(table, "columns", ()):
        raise ResultsError(
            f"compare_fits: over = {over!r} is no column; there are {', '.join(map(str, table.columns))}"
        )
    groups = table.groupby(over, sort=True)
    return {str(name): fit_manifold(part.drop(columns=over), law, **options) for name, part in groups}


def _bootstraps(found: Mapping[str, Any], n: int, level: float, rng: RngLike) -> dict[str, Any]:
    """Bootstrap what is not bootstrapped; fits of the same trained models get the same draws."""
    seeds = np.random.default_rng(rng).integers(2**31, size=len(found))
    first: dict[tuple[Any, ...], int] = {}
    boots = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        for (name, fit), seed in zip(found.items(), seeds, strict=True):
            if hasattr(fit, "fit"):
                boots[name] = fit
                continue
            keys = [c for c in ("run", "N", "D", "seed") if c in fit.data]
            models = tuple(map(tuple, fit.data[keys].drop_duplicates().sort_values(keys).to_numpy().tolist()))
            same = first.setdefault(models, int(seed))
            boots[name] = bootstrap(fit, n_resamples=n, confidence_level=level, rng=same)
    return boots


def _shared_range(boots: Mapping[str, Any]) -> np.ndarray:
    spans = []
    for boot in boots.values():
        spent = 6 * boot.fit.data["N"].to_numpy(float) * boot.fit.data["D"].to_numpy(float)
        spans.append((spent.min(), spent.max()))
    low, high = max(span[0] for span in spans), min(span[1] for span in spans)
    if not low < high:
        raise ConfigError("compare_fits: the procedures were measured at different compute; give compute= or at=")
    return np.geomspace(low, high, _N_COMPUTE)


def _stacked(boot: Any, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Return the metric at points, (1 + S, n_points): the fit, then its replicates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        return np.concatenate([np.atleast_2d(boot.fit.predict(n, d, r)), boot.predict(n, d, r)])


def _frontier(boot: Any, budgets: np.ndarray, r: float, rises: bool) -> np.ndarray:
    """Return the best metric of each budget over model sizes, (1 + S, n_budgets)."""
    sizes = boot.fit.data["N"].to_numpy(float)
    n = np.geomspace(sizes.min() / _BEYOND, sizes.max() * _BEYOND, _N_SIZES)
    best = []
    for budget in budgets:
        values = _stacked(boot, n, budget / (6 * n), np.full_like(n, r))
        best.append(values.max(axis=1) if rises else values.min(axis=1))
    return np.stack(best, axis=1)


def _parameters(first: Any, second: Any, level: float) -> list[dict[str, Any]]:
    rows = []
    for name in dict.fromkeys([*first.fit.theta, *second.fit.theta]):
        both = name in first.fit.theta and name in second.fit.theta
        a, b = (boot.fit.theta.get(name, math.nan) for boot in (first, second))
        row = {"parameter": name, "value_first": a, "value_second": b, "difference": a - b}
        low = high = math.nan
        if both:
            size = min(first.n_resamples, second.n_resamples)
            x, y = (np.broadcast_to(boot.theta[name], (boot.n_resamples,))[:size] for boot in (first, second))
            low, high = (float(v) for v in quantiles(np.concatenate([[a - b], x - y]), level))
        rows.append({**row, "difference_low": low, "difference_high": high})
    return rows


def _crossing(
    points: pd.DataFrame, difference: np.ndarray, rises: bool, pair: dict[str, str], level: float
) -> dict[str, Any]:
    """Find where the difference changes its sign along compute; the last place where it does."""
    if "compute" not in points:
        return {"compute": math.nan, "compute_low": math.nan, "compute_high": math.nan, "share": math.nan}
    x = np.log(points["compute"].to_numpy(float))

    def last(curve: np.ndarray) -> float:
        turns = np.flatnonzero(np.sign(curve[1:]) != np.sign(curve[:-1]))
        if not turns.size:
            return math.nan
        i = int(turns[-1])
        return float(np.exp(x[i] + (x[i + 1] - x[i]) * curve[i] / (curve[i] - curve[i + 1])))

    at = last(difference[0])
    each = np.array([last(row) for row in difference[1:]])
    inside = each[np.isfinite(each)]
    tail = (1 - level) / 2
    low, high = np.quantile(inside, [tail, 1 - tail]) if inside.size > 1 else (math.nan, math.nan)
    wins = [pair["first"] if (value > 0) == rises else pair["second"] for value in difference[0][[0, -1]]]
    share = float(np.isfinite(each).mean()) if each.size else math.nan
    ends = {"better_below": wins[0], "better_above": wins[1]}
    return {"compute": at, "compute_low": float(low), "compute_high": float(high), "share": share, **ends}
