"""Which link a table asks for: by the metric's name, by which way is better, and by the range of the values."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError, ResultsError, ResultsWarning
from ragscale.fitting.solver.links import Bounded, Identity, Link, Log, Negative
from ragscale.results._direction import LARGEST_LOSS, direction
from ragscale.results._metric_names import Kind, kind_of

GUESSED = "values up to |a metric that rises, with"
"""How warnings begin that say which link was taken by the range of the values; see `make_link`."""
_ODD = 10.0  # a largest value this many times the 95 % quantile is no sign of what the metric is


def make_link(link: str | Link, results: pd.DataFrame) -> Link:
    """Return the link, from its name, or from what the table holds with "auto".

    "auto" goes by the column ``metric``, by which way is better (`ragscale.results.higher_is_better`) and by the range
    of the values: a metric that falls is the loss itself, perplexities their exponential; a score that rises within 0
    and 1, or 0 and 100, is bounded there (from the column ``chance``, if there is one), and log likelihoods, which rise
    to 0, are minus the loss. "bounded" has free limits for other values.

    Raises
    ------
    ConfigError
        When there is no such link.
    ResultsError
        When "auto" finds no link, or which way is better cannot be told.
    """
    if isinstance(link, str) and link in {"auto", "bounded"}:
        link = _guess(results) if link == "auto" else _bounded(results)
    if isinstance(link, str):
        link = Link.named(link)()
    if not isinstance(link, Link):
        raise ConfigError(f"link = {link!r} must be 'auto', 'identity', 'log', 'negative', 'bounded' or a Link")
    return link.resolve(results)


def _guess(results: pd.DataFrame) -> Link:
    values = results["value"].to_numpy(float)
    low, high = float(values.min()), float(values.max())
    names = results["metric"].dropna().unique() if "metric" in results else []
    kind = kind_of(str(names[0])) if len(names) else None
    if direction(results):
        return _rising(results, low, high, kind)
    if kind == "perplexity":
        return Log() if low >= 1 else Identity()
    most = float(np.quantile(values, 0.95))
    if kind is None and low >= 1 and high > LARGEST_LOSS and most <= LARGEST_LOSS and high > _ODD * most:
        warnings.warn(
            f"values up to {high:.4g} stand beside {most:.4g} for 95 % of the rows (row {int(values.argmax())} is the "
            "largest): they are taken as losses with outliers, link='identity'; check these rows, or say link='log' if "
            "all are perplexities",
            ResultsWarning,
            stacklevel=4,
        )
        return Identity()
    if kind is None and low >= 1 and high > LARGEST_LOSS:
        warnings.warn(
            f"values up to {high:.4g} are no loss per token: they are taken as perplexities, link='log'; say "
            "metric='perplexity' (a column) or link='log' if so, link='identity' if not",
            ResultsWarning,
            stacklevel=4,
        )
        return Log()
    return Identity()


def _rising(results: pd.DataFrame, low: float, high: float, kind: Kind | None) -> Link:
    if low >= 0 and high <= 1:
        return _bounded(results)
    if low >= 0 and high <= 100 and kind in {"score", None}:
        if kind is None:
            warnings.warn(
                f"a metric that rises, with values of {low:.4g} to {high:.4g}, is taken as percent, bounded at 100; if "
                "it is not, give its limits: link=Bounded(floor, ceiling)",
                ResultsWarning,
                stacklevel=4,
            )
        return _bounded(results)
    if high <= 0:
        return Negative()
    raise ResultsError(
        f"higher is better, and the values go from {low:.4g} to {high:.4g}: neither shares (0 to 1), percent (0 to "
        "100) nor log likelihoods (at most 0). Give the limits of the metric, link=Bounded(floor, ceiling), or 'free' "
        "for one that is fitted; or higher_is_better=False if lower is better"
    )


def _bounded(results: pd.DataFrame) -> Bounded:
    values = results["value"].to_numpy(float)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 100 or (high > 1 and not direction(results)):
        return Bounded("free", "free", on="log" if low > 0 else "identity")
    top = 1.0 if high <= 1 else 100.0
    given = pd.to_numeric(results["chance"], errors="coerce") if "chance" in results else []
    chance = np.unique(np.asarray(given, dtype=float))
    floor = 0.0
    if len(chance) == 1 and np.isfinite(chance[0]):
        floor = float(chance[0]) * (top if chance[0] <= 1 else 1.0)
    return Bounded(floor=floor if 0 <= floor < high else 0.0, ceiling=top)
