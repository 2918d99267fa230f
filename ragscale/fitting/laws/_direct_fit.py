"""Direct laws of accuracy by their authors' rule and residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError, FitError, ResultsError
from ragscale.fitting.laws._downstream import Accuracy, DirectCompute, DirectDownstream, PassAtK
from ragscale.fitting.laws._law import LawOptions, ScalingLaw, Theta

if TYPE_CHECKING:
    from ragscale.fitting import ManifoldFit
    from ragscale.fitting._options import FitOptions


class _Inverse(ScalingLaw):
    """-log of the accuracy above chance of a direct law, as a loss."""

    def __init__(self, accuracy: Accuracy | None = None, **options: Unpack[LawOptions]) -> None:
        self.accuracy = accuracy or DirectCompute()
        self.parameters, self.variables = self.accuracy.parameters, self.accuracy.variables
        settings: LawOptions = {"tie": self.accuracy.tied, "fixed": self.accuracy.fixed, **options}
        super().__init__(**settings)

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        law = self.accuracy
        if law.further_columns:
            law = law.at(**{name: self.column(name) for name in law.further_columns})
        return law._log_inverse(n, d, theta)


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectFit:
    """A direct law as its authors fit it.

    ``law`` and ``theta`` are those of the accuracy; ``fit`` is the `ManifoldFit` behind them, whose values are the
    accuracies themselves or, with the authors' residual, -log of the accuracy above chance. ``left_out`` rows were less
    than ``margin`` above chance.
    """

    law: DirectCompute | DirectDownstream | PassAtK
    fit: ManifoldFit
    margin: float
    left_out: int

    @property
    def theta(self) -> dict[str, float]:
        """The parameters."""
        return {name: float(value) for name, value in self.fit.theta.items()}

    def predict(self, N: ArrayLike, D: ArrayLike, **columns: ArrayLike) -> np.ndarray:
        """Return the accuracy; ``n_samples`` of `PassAtK` in ``columns``."""
        own = {k: v for k, v in self.theta.items() if k not in self.law.fixed and k not in self.law.tied}
        return np.asarray(self.law.loss(N, D, 0.0, own, **columns))


def fit_direct(
    results: pd.DataFrame,
    law: DirectCompute | DirectDownstream | PassAtK,
    *,
    margin: float = 0.05,
    residual: Literal["log_log", "accuracy"] = "log_log",
    **options: Unpack[FitOptions],
) -> DirectFit:
    r"""Fit a direct law by its authors' rule: leave out rows near chance, and minimise squares of :math:`\ln(-\ln Q)`.

    Q is the accuracy above chance, ``(value - chance) / (1 - chance)``. Near chance :math:`-\ln Q` has no bound and is
    mostly noise, which is why rows are left out; what is held out to judge a law by should be kept.

    Parameters
    ----------
    results : DataFrame
        Columns N, D, ``value`` (accuracies in [0, 1]) and what else the law reads.
    law : DirectCompute, DirectDownstream or PassAtK
        With ``chance=``.
    margin : float
        Rows less than so much above chance are left out: 5 points in the paper. 0 leaves out what is at chance or
        below, where :math:`\ln(-\ln Q)` does not exist.
    residual : "log_log" or "accuracy"
        The authors' residual by least squares, or `fit_manifold` on the accuracies.
    **options
        Further arguments of `fit_manifold`.

    Returns
    -------
    DirectFit

    Raises
    ------
    FitError
        When too few rows are left.
    ConfigError, ResultsError
        When an argument or the table is wrong.

    References
    ----------
    Krajewski et al. 2025, arXiv 2512.08894, section 3.

    Examples
    --------
    >>> law = DirectCompute(chance=0.25)
    >>> runs = pd.DataFrame({"N": [1e8, 3e8, 1e9, 3e9], "D": [2e9, 6e9, 2e10, 6e10]})
    >>> runs["value"] = law.loss(runs["N"], runs["D"], 0, {"A": 0.8, "alpha": 0.3})
    >>> found = fit_direct(runs, law)
    >>> found.left_out, round(found.theta["alpha"], 6)
    (2, 0.3)
    """
    from ragscale.fitting import fit_manifold

    if not isinstance(law, (DirectCompute, DirectDownstream, PassAtK)):
        raise ConfigError(f"fit_direct: law = {law!r} must be a DirectCompute, DirectDownstream or PassAtK object")
    problems = []
    if not 0.0 <= margin < 1.0:
        problems.append(f"margin = {margin!r} must be in [0, 1)")
    if residual not in ("log_log", "accuracy"):
        problems.append(f"residual = {residual!r} must be 'log_log' or 'accuracy'")
    if problems:
        raise ConfigError("fit_direct: " + "; ".join(problems))
    columns = ("N", "D", *law.further_columns, "value")
    missing = [name for name in columns if name not in results]
    if missing:
        raise ResultsError(f"fit_direct needs the columns {', '.join(missing)}; the table has {list(results)}")
    q = (results["value"].to_numpy(float) - law.chance) / (1.0 - law.chance)
    wrong = ~np.isfinite(q) | (q > 1)
    if wrong.any():
        raise ResultsError(f"fit_direct: {int(wrong.sum())} values are no accuracies in [0, 1]")
    keep = (results["value"].to_numpy(float) >= law.chance + margin) & (q > 0)
    if residual == "log_log":
        keep &= q < 1  # -log 1 is 0, which has no logarithm
    rows, n_free = results[keep], len(law.free)
    if len(rows) < n_free:
        raise FitError(
            f"fit_direct: {len(rows)} of {len(results)} rows are at least {margin:g} above chance {law.chance:g}, "
            f"too few for {n_free} parameters: lower margin, or measure larger models"
        )
    run = rows["run"] if "run" in rows else np.arange(len(rows))
    table = pd.DataFrame(rows[list(columns)].astype(float)).assign(R=0.0, run=run)
    if residual == "accuracy":
        fit = fit_manifold(table, law, **options)
    else:
        settings: FitOptions = {
            "link": "identity",
            "space": "log",
            "loss": "least_squares",
            "higher_is_better": False,
            **options,
        }
        fit = fit_manifold(table.assign(value=-np.log(q[keep])), _Inverse(law), **settings)
    return DirectFit(law=law, fit=fit, margin=float(margin), left_out=int((~keep).sum()))
