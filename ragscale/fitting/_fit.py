"""`fit_manifold`: from a results table to the best-fitted surface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack, overload

import numpy as np
import pandas as pd

from ragscale._typing import HitRateLike, ResultsLike
from ragscale.errors import ConfigError, RagscaleError
from ragscale.fitting._conditions import as_hit_rate, measured_curve
from ragscale.fitting._evidence import evidence
from ragscale.fitting._fit_table import fit_table
from ragscale.fitting._joint_fit import JointFit
from ragscale.fitting._options import FitOptions, Weights
from ragscale.fitting._prepare import prepare, read_columns
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting.laws._catalogue import make_law
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.solver._objective import LossName
from ragscale.fitting.solver.links import Link


@overload
def fit_manifold(
    results: ResultsLike, law: str | ScalingLaw = "auto", *, over: None = None, **options: Unpack[FitOptions]
) -> ManifoldFit: ...
@overload
def fit_manifold(
    results: ResultsLike,
    law: str | ScalingLaw = "auto",
    *,
    over: str,
    shared: Sequence[str] | None = None,
    **options: Unpack[FitOptions],
) -> JointFit: ...
def fit_manifold(
    results: ResultsLike,
    law: str | ScalingLaw = "auto",
    *,
    N: str = "N",
    D: str = "D",
    R: str = "R",
    value: str = "value",
    link: str | Link = "auto",
    weights: Weights = None,
    delta: float | Literal["auto"] = 1e-3,
    loss: LossName = "huber",
    tau: float = 0.5,
    space: Literal["auto", "log", "linear"] = "auto",
    seed_average: bool = True,
    by: str | Sequence[str] | None = None,
    higher_is_better: bool | None = None,
    hit_rate: HitRateLike = None,
    over: str | None = None,
    shared: Sequence[str] | None = None,
) -> ManifoldFit | JointFit:
    r"""Fit a scaling law L(N, D, R) to a results table, to the global optimum of a stated objective.

    .. math:: \min_\theta \sum_i w_i\, \mathrm{Huber}_\delta(\ln \hat y_i(\theta) - \ln y_i)

    All rows are fitted together, those without a store included. The result is deterministic.

    Parameters
    ----------
    results : DataFrame, dict of columns, list of rows, Arrow or Polars table, or path
        Columns N, D, R (counts) and ``value``; without R all rows are taken as R = 0, which `summary` says, unless
        columns look like a store. One surface: one task, one metric, one retriever; rows of one cell that differ in
        another column are refused.
    law : str or ScalingLaw
        A name from `catalogue`, a law object such as ``Hill(exponent="free")``, or ``"auto"``: see `compare_laws`.
    N, D, R, value : str
        Names of the columns, e.g. ``N="N_total"``.
    link : "auto", "identity", "log", "negative", "bounded" or Link
        How the latent loss becomes the metric. "log" for perplexity, "bounded" for scores between a floor and a
        ceiling, "negative" for log likelihoods; "auto" goes by the column ``metric``, by which way is better, and by
        the values.
    weights : None, "stderr", "binomial", str or array
        Weight of each row in the sum: 1 / stderr^2, binomial from ``n_examples``, a column, or numbers; scaled to mean
        1. None: equal, or the number of averaged seeds; binomial with a bounded link where ``n_examples`` is there.
    delta : float or "auto"
        Where Huber's loss turns linear. 1e-3 makes it nearly an absolute loss: robust, and the standard of published
        fits. "auto" is 1.345 robust standard deviations of the residuals: efficient for clean noise.
    loss : "huber", "least_squares" or "quantile"
        "quantile" with a small ``tau`` follows the lower envelope.
    tau : float
        Quantile of the "quantile" loss.
    space : "auto", "log" or "linear"
        Where residuals are taken; "auto" is the logarithm, but points for bounded scores.
    seed_average : bool
        Average rows that differ in their seed only, and weight them by how many there were.
    hit_rate : HitRateCurve, callable, table or mapping, optional
        h(R), how often a store of R tokens shows the answer, for predictions and decisions at stores that were not
        measured; by default the curve through the table's own ``hit_rate`` (see `hit_rate_curve`).
    by : str or sequence of str, optional
        Columns in which rows of one cell may differ, because they tell experiments apart: a learning rate, a corpus.
        All rows are fitted together; intervals resample the experiments. A column whose every value has one N, such as
        the name of a run, is an experiment by itself, with all its D; others count beside ``run``, or N, D and seed.
    higher_is_better : bool, optional
        Whether a higher value is better; by default see `ragscale.results.higher_is_better`.

    over : str, optional
        A column such as ``"task"``: every one of its values is a surface of its own, fitted with the parameters
        ``shared`` equal in all, by one objective. Needs a named law.
    shared : sequence of str, optional
        Parameters that are equal over ``over``, among those that enter non-linearly; by default D0, c and k of the law
        ``reading`` (the skill of a model is one, whatever the task), none of other laws.

    Returns
    -------
    ManifoldFit, or JointFit with ``over``

    Raises
    ------
    ResultsError
        Listing everything wrong with the table.
    FitError
        When the table cannot determine the law, e.g. a law in R where R never varies.
    ConfigError
        When an argument is out of range.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> grid = [(n, d) for n in (1e8, 3e8, 1e9, 3e9) for d in (2e9, 2e10, 2e11)]
    >>> table = pd.DataFrame(grid, columns=["N", "D"])
    >>> table["value"] = 1.7 + 400 * table.N**-0.34 + 410 * table.D**-0.28
    >>> fit = fit_manifold(table, "chinchilla")
    >>> round(fit.theta.alpha, 6), round(fit.theta.beta, 6), round(float(fit.predict(7e9, 1e12)), 4)
    (0.34, 0.28, 2.0587)

    References
    ----------
    Hoffmann et al. 2022, arXiv 2203.15556, appendix D.3 (objective).
    """
    chosen = None if isinstance(law, str) and law == "auto" else make_law(law)
    if shared is not None and over is None:
        raise ConfigError(f"shared = {shared!r} needs over=, the column whose values share these parameters")
    options: dict[str, Any] = {
        "link": link,
        "weights": weights,
        "delta": delta,
        "loss": loss,
        "tau": tau,
        "space": space,
    }

    def read(rows: Any) -> pd.DataFrame:
        return prepare(
            rows,
            N=N,
            D=D,
            R=R,
            value=value,
            seed_average=seed_average,
            by=by,
            higher_is_better=higher_is_better,
            link=link,
            reads=read_columns([chosen], weights),
            own_metric=chosen is not None and chosen.link != "auto",
        )

    if over is not None:
        return _over(results, over, chosen, shared=shared, read=read, hit_rate=hit_rate, options=options)
    table = read(results)
    if chosen is None:
        from ragscale.fitting._choose import choose_law

        fit = choose_law(table, options)
    else:
        fit = fit_table(table, chosen, **options)
    known = _known(table, fit, hit_rate)
    if fit.selection is not None:
        fits = {name: replace(one, **known) for name, one in fit.selection.fits.items()}
        known["selection"] = replace(fit.selection, fits=fits)
    return replace(fit, **known)


def _known(table: pd.DataFrame, fit: ManifoldFit, hit_rate: HitRateLike) -> dict[str, Any]:
    """Return what a table says beside the law: h(R), and what passages do within trained models."""
    curve = measured_curve(table) if hit_rate is None else as_hit_rate(hit_rate)
    return {"hit_rate": curve, "evidence": evidence(table, fit.link)}


def _over(
    results: ResultsLike,
    over: str,
    law: ScalingLaw | None,
    *,
    shared: Sequence[str] | None,
    read: Callable[[Any], pd.DataFrame],
    hit_rate: HitRateLike,
    options: dict[str, Any],
) -> Any:
    """Fit every group of rows, with shared parameters."""
    from ragscale.fitting._joint import fit_jointly
    from ragscale.results._door import as_frame

    if law is None:
        raise ConfigError("over= needs a named law: law='auto' chooses for one surface, e.g. law='reading'")
    several = shared is None or (isinstance(shared, Iterable) and all(isinstance(name, str) for name in shared))
    if isinstance(shared, str) or not several:
        raise ConfigError(f"shared = {shared!r} must be a sequence of parameter names, such as ('D0', 'c', 'k')")
    frame = as_frame(results)
    if not isinstance(over, str) or over not in frame:
        raise ConfigError(f"over = {over!r} is no column of the results: {', '.join(map(str, frame.columns))}")
    gaps = int(np.asarray(frame[over].isna()).sum())
    if gaps:
        raise ConfigError(f"over = {over!r} has gaps in {gaps} rows: fill or drop them")
    tables = {}
    for name, rows in frame.groupby(over, sort=False):
        try:
            tables[str(name)] = read(rows.reset_index(drop=True))
        except RagscaleError as error:
            raise type(error)(f"{over} = {name}: {error}") from error
    joint = fit_jointly(tables, law, over=over, shared=shared, options=options)
    each = dict.fromkeys(tables, hit_rate)
    if isinstance(hit_rate, Mapping) and set(tables) <= set(hit_rate):
        each = dict(hit_rate)
    fits = {name: replace(fit, **_known(tables[name], fit, each[name])) for name, fit in joint.fits.items()}
    return replace(joint, fits=fits)
