"""Where retrieval starts to help: the smallest model, or the least trained one, that gains with confidence."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from ragscale.decisions._decision import Surface, counts, refuse, surface
from ragscale.errors import ConfigError, ResultsError
from ragscale.results import validate

_FALLING = ("loss", "perplexity", "ppl", "bits", "bpb", "nll", "error", "brier", "entropy")
_RISING = ("acc", "exact_match", "em", "f1", "recall", "precision", "score", "bleu", "rouge", "mrr", "ndcg")


def reading_threshold(
    results_or_fit: Any,
    *,
    by: Literal["N", "D_over_N", "D"] = "N",
    N: Any = None,
    D_over_N: Any = 20.0,
    R: Any = None,
    higher_is_better: bool | None = None,
    confidence_level: float = 0.95,
) -> pd.DataFrame:
    r"""Find where retrieval starts to help: the smallest N (or D/N, or D) with a gain above 0 with confidence.

    From a results table, the gain of a checkpoint is its value without a store minus its mean over all stores (signed
    so that positive helps): the mean, because the best of several noisy stores would help by chance. The interval is
    Student's t over the checkpoints of one N (several D, seeds). With one checkpoint only, its standard errors are
    used if the table has them, and there is no interval otherwise.

    From a fit the gain is :math:`L(N, D, 0) - L(N, D, R)`, from a bootstrap with its percentile interval. Additive laws
    (log1p, power, hill, rpower) have the same gain for every N by construction: fit ``interaction``, ``log_ratio`` or
    ``multiplicative`` to ask this question.

    Parameters
    ----------
    results_or_fit : DataFrame, ManifoldFit, Bootstrap, or (law, parameters)
    by : "N", "D_over_N" or "D"
        What the threshold is in.
    N, D_over_N, R : array-like, optional
        For a fit: the model sizes (default: those of its data), the data per parameter, and the store (default: the
        largest of its data). With ``by="D_over_N"`` give one N and several D_over_N.
    higher_is_better : bool, optional
        For a table; by default told from the metric's name.
    confidence_level : float

    Returns
    -------
    DataFrame
        One row per value of ``by`` (and task and metric): ``gain, low, high, n`` (checkpoints or replicates), ``helps``
        (low > 0), ``hurts`` (high < 0), ``threshold`` (True at the smallest value that helps) and ``from_here``
        (whether everything above helps too). ``attrs["threshold"]`` is the value, or NaN: retrieval does not help
        here; ``attrs["note"]`` says when a law leaves no room for a threshold.

    Raises
    ------
    ConfigError, ResultsError
        When arguments or the table are wrong, or nothing can be compared.
    """
    problems = []
    if by not in ("N", "D_over_N", "D"):
        problems.append(f"by = {by!r} must be 'N', 'D_over_N' or 'D'")
    if not isinstance(confidence_level, (int, float)) or not 0 < confidence_level < 1:
        problems.append(f"confidence_level = {confidence_level!r} must be in (0, 1)")
    refuse(problems, "reading_threshold")
    note = ""
    if isinstance(results_or_fit, tuple) or hasattr(results_or_fit, "theta"):
        found = surface(results_or_fit)
        rows = _from_fit(found, by, {"N": N, "D_over_N": D_over_N, "R": R}, confidence_level)
        if by == "N" and not found.law.gain_depends_on_N:
            note = f"the law {found.law.name!r} has the same gain for every N by construction"
    else:
        if N is not None or R is not None:
            raise ConfigError("reading_threshold: N and R are for a fit; filter the table instead")
        rows = _from_results(validate(results_or_fit), by, higher_is_better, confidence_level)
    rows = _mark(rows, by)
    rows.attrs["note"] = note
    return rows


def _mark(rows: Any, by: str) -> pd.DataFrame:
    names = [c for c in ("task", "metric") if c in rows]
    rows = rows.sort_values([*names, by], ignore_index=True)
    rows["helps"], rows["hurts"] = rows["low"] > 0, rows["high"] < 0
    if rows["low"].isna().all():
        rows["helps"], rows["hurts"] = rows["gain"] > 0, rows["gain"] < 0
    rows["threshold"], rows["from_here"] = False, False
    groups = rows.groupby(names, sort=False).indices if names else {"": np.arange(len(rows))}
    found = {}
    for name, index in groups.items():
        helps = rows["helps"].to_numpy()[index]
        found[name] = float("nan")
        if helps.any():
            first = int(np.argmax(helps))
            rows.loc[index[first], "threshold"] = True
            found[name] = float(rows[by].to_numpy()[index[first]])
        after = np.logical_and.accumulate(helps[::-1])[::-1]
        rows.loc[index, "from_here"] = after
    rows.attrs = {"by": by, "threshold": next(iter(found.values())) if len(found) == 1 else found}
    return rows


def _from_fit(found: Surface, by: str, asked: dict[str, Any], level: float) -> pd.DataFrame:
    problems: list[str] = []
    N, D_over_N, R = asked["N"], asked["D_over_N"], asked["R"]
    if found.data is None and (N is None or R is None):
        problems.append("a pair (law, parameters) has no data: give N and R")
    refuse(problems, "reading_threshold")
    if N is None:
        N = np.unique(np.asarray(found.data["N"], np.float64))  # type: ignore[index]
    if R is None:
        R = float(np.max(np.asarray(found.data["R"], np.float64)))  # type: ignore[index]
    given = counts(problems, N=N, D_over_N=D_over_N, R=R)
    refuse(problems, "reading_threshold")
    n, ratio, r = (np.ravel(a) for a in np.broadcast_arrays(given["N"], given["D_over_N"], given["R"]))
    theta = found.stacked()
    gain = found.law.loss(n, ratio * n, 0 * r, theta) - found.law.loss(n, ratio * n, r, theta)
    tail = (1 - level) / 2
    if len(gain) > 1:
        low, high = np.quantile(gain[1:], [tail, 1 - tail], axis=0)
    else:
        low = high = np.full(len(n), np.nan)
    frame = pd.DataFrame({"N": n, "D": ratio * n, "D_over_N": ratio, "R": r, "gain": gain[0], "low": low, "high": high})
    if frame[by].duplicated().any():
        raise ConfigError(f"reading_threshold: by={by!r} has repeated values; vary {by} only")
    return frame.assign(n=len(gain) - 1)


def _from_results(table: Any, by: str, higher: bool | None, level: float) -> pd.DataFrame:
    names = [c for c in ("task", "metric") if c in table]
    checkpoint = [*names, *(c for c in ("N", "D", "seed", "run", "split") if c in table)]
    rows = []
    for key, cell in table.groupby(checkpoint, sort=True, dropna=False):
        zero, stores = cell[cell["R"] == 0], cell[cell["R"] > 0]
        if zero.empty or stores.empty:
            continue
        at = dict(zip(checkpoint, key, strict=True))
        sign = 1.0 if _rises(at.get("metric", ""), cell, higher) else -1.0
        error = np.nan
        if "stderr" in cell:
            # stores share their questions, so the mean over them is no more certain than one of them
            error = float(np.sqrt((zero["stderr"] ** 2).mean() + (stores["stderr"] ** 2).mean()))
        gain = sign * float(stores["value"].mean() - zero["value"].mean())
        rows.append({**at, "D_over_N": at["D"] / at["N"], "gain": gain, "error": error})
    if not rows:
        raise ResultsError("no checkpoint has rows with R = 0 and with R > 0, so no gain can be measured")
    gains: Any = pd.DataFrame(rows)
    gains["D_over_N"] = gains["D_over_N"].round(6)
    out = []
    for key, group in gains.groupby([*names, by], sort=True):
        m, mean = len(group), float(group["gain"].mean())
        if m > 1:
            half = float(stats.t.ppf(0.5 + level / 2, m - 1) * group["gain"].std(ddof=1) / np.sqrt(m))
        else:
            half = float(stats.norm.ppf(0.5 + level / 2) * group["error"].iloc[0])
        at = dict(zip([*names, by], key, strict=True))
        out.append({**at, "gain": mean, "low": mean - half, "high": mean + half, "n": m})
    return pd.DataFrame(out)


def _rises(metric: str, cell: Any, higher: bool | None) -> bool:
    if higher is not None:
        return bool(higher)
    if "higher_is_better" in cell and cell["higher_is_better"].notna().any():
        return bool(cell["higher_is_better"].dropna().iloc[0])
    name = str(metric).lower()
    if any(word in name for word in _FALLING) or not name:
        return False
    if any(word in name for word in _RISING):
        return True
    raise ConfigError(f"reading_threshold: is a higher {metric!r} better? Say so: higher_is_better=True or False")
