"""Synthetic results tables: a known law on a known grid, with the noise that real tables have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ragscale import results
from ragscale._typing import RngLike
from ragscale.errors import ConfigError, RagscaleError

if TYPE_CHECKING:
    from ragscale.fitting import ScalingLaw

PAPER_N = (30e6, 136e6, 233e6, 728e6, 1e9, 3e9)
PAPER_D_OVER_N = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 50.0)
PAPER_R_OVER_N = (0.0, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0)

_ALPHA, _BETA, _NU = 0.34, 0.28, 0.2
# per 1e9 parameters and tokens: E 1.7, A .354, B 1.24 (the refitted Chinchilla surface); the gain is of the size that
# puts the best split of 50e9 tokens near three quarters pretraining
_BASE = {"E": 1.7, "A": 0.354 * 1e9**_ALPHA, "alpha": _ALPHA, "B": 1.24 * 1e9**_BETA, "beta": _BETA, "offset": 0.0}
_SHAPES = {"eta": 1e-9, "gamma": 0.5, "R0": 1e9, "K": 3e9, "n": 1.0}
_DEFAULTS: dict[str, dict[str, float]] = {
    "chinchilla": {},
    "log1p": {"C": 0.05, **_SHAPES},
    "power": {"C": 0.2, **_SHAPES},
    "hill": {"C": 0.2, **_SHAPES},
    "rpower": {"C": 0.05 * 1e9**-0.3, "g": 0.3},
    "log_ratio": {"C": 0.05, **_SHAPES, "eta": 1.0},
    "interaction": {"C": 0.05 * 1e9**_NU, "nu": _NU, "mu": 0.0, **_SHAPES},
    "effective_data": {"eta": 0.3},
    "multiplicative": {"C": 0.05, **_SHAPES},
}


def simulate(
    law: str | ScalingLaw = "log1p",
    params: Mapping[str, float] | None = None,
    grid: Literal["paper"] | Mapping[str, Any] | pd.DataFrame = "paper",
    *,
    noise: float = 0.01,
    outliers: float = 0.0,
    cluster_share: float = 0.0,
    rng: RngLike = None,
) -> pd.DataFrame:
    r"""Draw a results table from a law.

    .. math:: \ln y_i = \ln L(N_i, D_i, R_i) + \sigma \left(\sqrt{s}\, u_{c(i)} + \sqrt{1 - s}\, e_i\right)

    with sigma = ``noise``, s = ``cluster_share``, c(i) the trained model of row i, that is its (N, D, seed), and u, e
    standard normal. One checkpoint is evaluated with every store, so whatever went right or wrong in its training is in
    all its rows: real tables have a high s. A share ``outliers`` of the rows, drawn independently, is
    then 10 to 30% too high, as a run that diverged is.

    Parameters
    ----------
    law : str or ScalingLaw
        A name from ``rs.fitting.catalogue()``, or a law.
    params : mapping, optional
        Parameters in counts. Those left out take the default: E 1.7, A .354, alpha .34, B 1.24, beta .28 per 1e9
        parameters and tokens, and a gain of a realistic size. Laws of your own have no defaults.
    grid : "paper", mapping or DataFrame
        ``"paper"``: the 6 model sizes of the paper, 8 ratios D/N, and 7 ratios R/N with 0, 336 rows. Otherwise columns
        ``N, D, R``; others are kept, a ``seed`` tells trained models apart, and a law may read further ones.
    noise : float
        Standard deviation of the logarithm.
    outliers : float
        Share of rows that are outliers, in [0, 1].
    cluster_share : float
        Share of the noise's variance that rows of one trained model have in common, in [0, 1].
    rng : int, Generator, SeedSequence or None
        Randomness, as `numpy.random.default_rng` takes it.

    Returns
    -------
    DataFrame
        A results table with ``N, D, R, value``; ``attrs`` has the ``law``, its ``params`` and the noise.

    Raises
    ------
    ConfigError
        When the law or a parameter is unknown, a parameter has no default, or a number is out of range.

    Examples
    --------
    >>> from ragscale import datasets
    >>> table = datasets.simulate("log1p", noise=0.01, outliers=0.02, rng=0)
    >>> len(table), table.groupby(["N", "D"]).ngroups
    (336, 48)
    """
    from ragscale.fitting.laws._catalogue import make_law

    problems = [
        f"{name} = {value!r} must be a number in [0, {top}]"
        for name, value, top in (("noise", noise, 1), ("outliers", outliers, 1), ("cluster_share", cluster_share, 1))
        if not isinstance(value, (int, float, np.number)) or not 0 <= value <= top
    ]
    if problems:
        raise ConfigError("; ".join(problems))
    try:
        generator = np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"rng = {rng!r} is no seed: {error}") from error
    definite = make_law(law)
    counts = _grid(grid)
    n, d, r = (np.asarray(counts[c], dtype=np.float64) for c in ("N", "D", "R"))
    definite = definite._resolve(n, d, r)
    theta = _complete(definite, params or {})
    missing = [c for c in definite.further_columns if c not in counts]
    if missing:
        raise ConfigError(f"the law {definite.name!r} also reads {', '.join(missing)}: give a grid with these columns")
    further = {c: np.asarray(counts[c], dtype=np.float64) for c in definite.further_columns}
    loss = np.asarray(definite.loss(n, d, r, theta, **further))
    if not (np.isfinite(loss).all() and (loss > 0).all()):
        worst = int(np.argmin(np.where(np.isfinite(loss), loss, -np.inf)))
        raise ConfigError(
            f"the law {definite.name!r} gives {loss[worst]:g} at N={n[worst]:g}, D={d[worst]:g}, R={r[worst]:g}, but "
            "noise is relative and needs positive values: lower the gain or raise E"
        )
    checkpoint = ["N", "D", *(["seed"] if "seed" in counts else [])]
    cluster = counts.groupby(checkpoint, sort=False).ngroup().to_numpy()
    shared = generator.standard_normal(cluster.max() + 1)[cluster]
    own = generator.standard_normal(len(loss))
    value = loss * np.exp(noise * (np.sqrt(cluster_share) * shared + np.sqrt(1 - cluster_share) * own))
    bad = generator.random(len(loss)) < outliers
    value = np.where(bad, value * generator.uniform(1.1, 1.3, len(loss)), value)
    table = counts.assign(value=value)
    table.attrs = {
        "law": definite.name,
        "params": {name: float(v) for name, v in theta.items()},
        "noise": noise,
        "outliers": outliers,
        "cluster_share": cluster_share,
    }
    return table


def _grid(grid: Any) -> pd.DataFrame:
    if isinstance(grid, str):
        if grid != "paper":
            raise ConfigError(f"grid = {grid!r} must be 'paper' or a table with columns N, D, R")
        cells = [(n, n * d, n * r) for n in PAPER_N for d in PAPER_D_OVER_N for r in PAPER_R_OVER_N]
        return pd.DataFrame(cells, columns=["N", "D", "R"])
    try:
        given = pd.DataFrame(grid)
        missing = [c for c in ("N", "D", "R") if c not in given]
        if missing:
            raise ConfigError(f"grid has no column {', '.join(missing)}; it needs N, D and R in counts")
        cells = given.drop(columns="value", errors="ignore").drop_duplicates().assign(value=1.0)
        return results.validate(cells).drop(columns="value")
    except ConfigError:
        raise
    except (RagscaleError, TypeError, ValueError) as error:
        raise ConfigError(f"grid must be 'paper' or a table with columns N, D, R: {error}") from error


def _complete(law: ScalingLaw, params: Mapping[str, float]) -> Mapping[str, Any]:
    defaults = {**_BASE, **_DEFAULTS[law.name]} if law.name in _DEFAULTS else {}
    names = {p.name for p in law.parameters}
    values = {name: value for name, value in defaults.items() if name in names}
    missing = sorted(names - {*values, *params, *law.fixed, *law.tied})
    if missing:
        raise ConfigError(
            f"the law {law.name!r} has no default for {', '.join(missing)}: give params={{...}} in counts"
        )
    theta = law.theta({**values, **params})
    bad = {name: value for name, value in theta.items() if np.shape(value) != () or not np.isfinite(value)}
    if bad:
        raise ConfigError(f"params must be finite numbers, not {bad}")
    return theta
