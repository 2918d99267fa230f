"""What the rows of a table can say about N, D and R at all, and what of a law that leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import FitError
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.results._door import speaks_of
from ragscale.results._table import MEASURED

Counts = pd.DataFrame | Mapping[str, np.ndarray]
"""Columns N, D and R."""
UNKNOWN = 1_000_000_007.0
"""What stands for the N or D of a table that does not give them; no model has just this many."""

_SAME = 0.05  # N or D within 5 % of each other are one value
_TOGETHER = 0.9995  # correlation of log N and log D from which they are one variable
_REDUNDANT = 1e-8  # of the largest singular value


def unseen(table: Counts, variables: tuple[str, ...]) -> dict[str, str]:
    """Say of which variables the rows of N, D and R cannot show the effect, and why.

    Returns
    -------
    dict
        By variable a sentence: one size, one D, D and N that rise together, or one store besides none.

    Examples
    --------
    >>> unseen(pd.DataFrame({"N": [1e9, 1e9], "D": [1e9, 4e9], "R": 0.0}), ("N", "D"))
    {'N': 'what another N does is not in these data: every row has N = 1e+09'}
    """
    found: dict[str, str] = {}
    logs = {name: np.log(np.asarray(table[name], dtype=float)) for name in ("N", "D") if name in variables}
    for name, values in logs.items():
        if np.ptp(values) < _SAME:
            middle = float(np.exp(values.mean()))
            where = (
                "the table does not give it"
                if np.asarray(table[name])[0] == UNKNOWN
                else f"every row has {name} = {middle:.4g}"
            )
            found[name] = f"what another {name} does is not in these data: {where}"
    if len(logs) == 2 and not found and _rise_together(logs["N"], logs["D"]):
        ratio = logs["D"] - logs["N"]
        how = f"D = {np.exp(ratio.mean()):.3g} N" if np.ptp(ratio) < 10 * _SAME else "D rises with N"
        found["D"] = (
            f"{how} in every row: what D does cannot be told from what N does. The term in N stands for both; vary D "
            "at fixed N"
        )
    sizes = np.unique(np.asarray(table["R"], dtype=float)) if "R" in variables else np.zeros(0)
    if len(sizes) == 2:
        found["R"] = (
            f"R is {sizes[0]:.4g} or {sizes[1]:.4g} in every row: the difference between the two is measured, the "
            "shape of the gain is not; add a third store size"
        )
    return found


def fill_unknown(frame: pd.DataFrame, *, N: str = "N", D: str = "D", R: str = "R") -> pd.DataFrame:
    """Return the table of a store sweep with N and D that it does not give set to `UNKNOWN`.

    A table with stores of several sizes and no word of the model is one model's: R alone can be learnt about. A table
    without stores has to say N and D, and so has one in which another column speaks of them.
    """
    if R not in frame or pd.Series(frame[R]).nunique() < 2:
        return frame
    absent = {
        name: UNKNOWN for name in (N, D) if name in {"N", "D"} and name not in frame and not speaks_of(name, frame)
    }
    if not absent or _several_values(frame):
        return frame
    return frame.assign(**absent)


def _several_values(frame: pd.DataFrame) -> bool:
    """Whether rows that nothing tells apart have different values: then there is more than one model, or seed."""
    names = [c for c in frame.columns if c not in MEASURED]
    if "value" not in frame or not names:
        return False
    try:
        return bool((frame.groupby(names, dropna=False)["value"].nunique() > 1).any())
    except TypeError:  # lists and the like
        return False


def _rise_together(n: np.ndarray, d: np.ndarray) -> bool:
    return len(n) > 2 and float(np.corrcoef(n, d)[0, 1]) > _TOGETHER


def drop_undetermined(law: ScalingLaw, table: Counts) -> tuple[ScalingLaw, tuple[str, ...]]:
    """Return the law without the terms that the rows say nothing about, and the parameters that this leaves open.

    With one N the term A N^-alpha is a constant, which E takes over: A is set to 0, and alpha means nothing.
    """
    names: list[str] = []
    stores = np.asarray(table["R"], dtype=float)
    scale = float(np.exp(np.mean(np.log(stores[stores > 0])))) if (stores > 0).any() else 1.0
    for variable in unseen(table, law.variables):
        without: Mapping[str, float | None] = law._without(variable, scale) or {}
        open_ = [name for name in without if name not in law.fixed and name not in law.tied.values()]
        if len(open_) < len([name for name in without if name not in law.tied]):
            continue  # the user fixed a part of the term: what is left of it is theirs
        names += open_
        held = {name: value for name in open_ if (value := without[name]) is not None and name not in law.tied}
        law = law.replace(fixed={**law.fixed, **held})
    return law, tuple(dict.fromkeys(names))


def redundant(jacobian: np.ndarray) -> np.ndarray:
    """Return which parameters (p,) the rows leave open: those that can move without moving any prediction.

    Parameters
    ----------
    jacobian : ndarray (p, n)
        Slopes of the residuals, weighted.
    """
    length = np.linalg.norm(jacobian, axis=1)
    silent = ~(length > 0)
    scaled = np.nan_to_num(jacobian / np.where(silent, 1.0, length)[:, None])
    if not len(scaled):
        return silent
    u, s, _ = np.linalg.svd(scaled, full_matrices=scaled.shape[0] > scaled.shape[1])  # else an (n, n) matrix
    small = np.concatenate([s, np.zeros(len(scaled) - len(s))]) <= _REDUNDANT * max(float(s.max(initial=0.0)), 1e-300)
    return silent | (np.abs(u[:, small]) > 1e-2).any(axis=1)


def refuse_unseen(table: pd.DataFrame, why: Mapping[str, str], counts: Mapping[str, Any]) -> None:
    """Raise where a prediction is asked for at an N or D about which the rows say nothing.

    Raises
    ------
    FitError
        Saying which rows are missing.
    """
    if not {"N", "D"} & why.keys():
        return
    n, d = (np.asarray(counts[name], dtype=float) for name in ("N", "D"))
    seen = {name: np.log(table[name].to_numpy(float)) for name in ("N", "D")}
    with np.errstate(all="ignore"):
        asked = {"N": np.log(n), "D": np.log(d)}
    for name, sentence in why.items():
        if name == "R":
            continue
        together = name == "D" and np.ptp(seen["D"]) >= _SAME
        known, wanted = (seen["D"] - seen["N"], asked["D"] - asked["N"]) if together else (seen[name], asked[name])
        if together and np.ptp(known) > 10 * _SAME:  # D = c N^p: distance from that line
            slope, start = np.polyfit(seen["N"], seen["D"], 1)
            known, wanted = seen["D"] - slope * seen["N"] - start, asked["D"] - slope * asked["N"] - start
        if np.any((wanted < known.min() - _SAME) | (wanted > known.max() + _SAME)):
            at = f"N = {np.ravel(n)[0]:.4g}, D = {np.ravel(d)[0]:.4g}"
            raise FitError(f"no prediction at {at}{', ...' if max(n.size, d.size) > 1 else ''}: {sentence}")


def other_values(table: pd.DataFrame, why: Mapping[str, str], counts: Mapping[str, Any]) -> list[str]:
    """Return why nothing can be said at ``counts``: those N or D that are not the only one of the rows."""
    found = []
    for name, asked in counts.items():
        seen = np.log(table[name].to_numpy(float))
        if name not in why or np.ptp(seen) >= _SAME:
            continue
        try:
            values = np.asarray(asked, dtype=float)
        except (TypeError, ValueError):
            continue  # whoever asked with it will hear about it
        with np.errstate(all="ignore"):
            if np.any(np.abs(np.log(values) - seen.mean()) > 2 * _SAME):
                found.append(why[name])
    return found
