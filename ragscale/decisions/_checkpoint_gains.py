"""What a passage brings to each trained model, against a control: measured pairs, never a mixture of conditions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from ragscale.errors import ConfigError, IdentifiabilityWarning, ResultsError

_BEST_FIRST = ("oracle", "retrieved")
_NO_CONDITION = "without a store"


def checkpoint_gains(table: Any, *, treated: str | None, control: str, rises: Any) -> pd.DataFrame:
    """Return one row per trained model, task and metric: N, D, the gain of a passage over the control, its error.

    Parameters
    ----------
    table : DataFrame
        A checked results table.
    treated : str or None
        The condition that is asked about; None is gold passages where a task has them, else retrieved ones (the mean
        over all stores, because the best of several noisy stores would help by chance).
    control : str
        The condition that it is compared with.
    rises : callable
        From (metric, rows) to whether a higher value is better.

    Raises
    ------
    ResultsError
        When a condition is missing, or nothing can be paired.
    """
    named = [c for c in ("task", "metric") if c in table]
    model = [c for c in ("N", "D", "seed", "run", "split", "batch_tokens") if c in table]
    if "condition" not in table:
        said = np.where(table["R"] > 0, "retrieved", _NO_CONDITION)
        table, control = table.assign(condition=said), _NO_CONDITION
        warnings.warn(
            "the table has no column 'condition': gains are over R = 0, and models that cannot read show those as well "
            "where any text helps; with rows of condition 'random' they are over a random passage",
            IdentifiabilityWarning,
            stacklevel=4,
        )
    rows, problems = [], []
    for key, part in table.groupby(named, sort=True, dropna=False) if named else [((), table)]:
        at = dict(zip(named, key, strict=True))
        there = set(part["condition"].astype(str))
        asked = treated or next((name for name in _BEST_FIRST if name in there), "retrieved")
        missing = [name for name in (asked, control) if name not in there]
        if missing:
            where = ", ".join(f"{name} {value!r}" for name, value in at.items()) or "the table"
            problems.append(f"{where} has no rows of condition {' or '.join(map(repr, missing))}, only {sorted(there)}")
            continue
        sign = 1.0 if rises(str(at.get("metric", "")), part) else -1.0
        rows += _pairs(part, model, at, treated=asked, control=control, sign=sign)
    if problems and not rows:
        raise ResultsError(
            "reading_threshold: " + "; ".join(problems) + "; name what to compare: control='closed-book', or "
            "condition='retrieved'"
        )
    if not rows:
        raise ResultsError(
            f"no checkpoint has rows of both conditions ({control} and a passage), so no gain is measured"
        )
    gains = pd.DataFrame(rows)
    gains["D_over_N"] = (gains["D"] / gains["N"]).round(6)
    if "batch_tokens" in gains:
        gains["steps"] = (gains["D"] / gains["batch_tokens"]).round()
    return gains


def _pairs(
    part: Any, model: list[str], at: dict[str, Any], *, treated: str, control: str, sign: float
) -> list[dict[str, Any]]:
    rows = []
    for key, cell in part.groupby(model, sort=True, dropna=False):
        shown, without = cell[cell["condition"] == treated], cell[cell["condition"] == control]
        if shown.empty or without.empty:
            continue
        error = np.nan
        if "stderr" in cell:
            # stores share their questions, so the mean over them is no more certain than one of them
            error = float(np.sqrt((without["stderr"] ** 2).mean() + (shown["stderr"] ** 2).mean()))
        gain = sign * float(shown["value"].mean() - without["value"].mean())
        rows.append({**at, **dict(zip(model, key, strict=True)), "of": treated, "gain": gain, "error": error})
    return rows


def gain_intervals(gains: Any, by: str, level: float) -> pd.DataFrame:
    """Return the mean gain at each value of ``by`` with Student's t interval over trained models.

    Where one model stands alone its standard error over questions is used, if there is one.
    """
    if by not in gains:
        raise ConfigError(f"reading_threshold: by={by!r} needs a column batch_tokens, from which steps follow")
    named = [c for c in ("task", "metric") if c in gains]
    out = []
    for key, group in gains.groupby([*named, by], sort=True):
        # D of one run are not separate models: with a column run their mean counts once
        each = group.groupby("run")["gain"].mean() if "run" in group and group["run"].notna().all() else group["gain"]
        m, mean = len(each), float(each.mean())
        if m > 1:
            half = float(special.stdtrit(m - 1, 0.5 + level / 2) * each.std(ddof=1) / np.sqrt(m))
        else:
            half = float(special.ndtri(0.5 + level / 2) * group["error"].iloc[0])
        at = dict(zip([*named, by], key, strict=True))
        out.append({**at, "of": group["of"].iloc[0], "gain": mean, "low": mean - half, "high": mean + half, "n": m})
    return pd.DataFrame(out)


def joint_gains(gains: Any) -> pd.DataFrame:
    """Average the gains of each trained model over its tasks."""
    keys = [c for c in ("N", "D", "seed", "run", "split", "D_over_N", "steps") if c in gains]
    joint: Any = gains.groupby(keys, dropna=False).agg(
        gain=("gain", "mean"), error=("error", "mean"), of=("of", "first")
    )
    return joint.reset_index()
