"""A decision in numbers: a value with its interval, and what each law says where several fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from ragscale._typing import Numbers
from ragscale.decisions._arguments import scalar
from ragscale.results import Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Estimate(np.lib.mixins.NDArrayOperatorsMixin, Result):
    """A decision in numbers: behaves as its point estimate in arithmetic, and carries intervals beside it.

    Attributes
    ----------
    name : str
        What it is.
    value : ndarray or float
        The point estimate, in the shape that the arguments broadcast to.
    low, high : ndarray or float
        Percentile interval; NaN without a bootstrap.
    replicates : ndarray
        (n_replicates, ...) values over the bootstrap.
    confidence_level : float
    at : mapping
        The arguments, broadcast: N, D, R, ...
    laws : mapping of str to ndarray
        The value under each law that fits as well, where there are several; the interval then holds all of them.
    note : str
        What to know about it, in words; may be empty.
    """

    name: str
    value: Numbers
    low: Numbers
    high: Numbers
    replicates: np.ndarray
    confidence_level: float
    at: Mapping[str, np.ndarray] = field(default_factory=dict)
    laws: Mapping[str, np.ndarray] = field(default_factory=dict)
    note: str = ""

    _picture: ClassVar[str] = "estimate"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value, dtype=dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [x.value if isinstance(x, Estimate) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **options)

    def __hash__(self) -> int:  # arithmetic defines ==, which would take the hash away
        return object.__hash__(self)

    def __float__(self) -> float:
        return float(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)  # of many values as ambiguous as an array's

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else repr(self)

    def __len__(self) -> int:
        return len(np.asarray(self.value))

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self.value)[key]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the point estimate."""
        return np.shape(self.value)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per element: the arguments, the value, its interval, and the value under each law."""
        columns = {name: np.ravel(np.broadcast_to(a, self.shape)) for name, a in self.at.items()}
        columns[self.name] = np.ravel(self.value)
        if len(self.replicates):
            columns |= {f"{self.name}_low": np.ravel(self.low), f"{self.name}_high": np.ravel(self.high)}
        columns |= {f"{self.name}[{law}]": np.ravel(value) for law, value in self.laws.items()}
        return pd.DataFrame(columns)

    def summary(self) -> str:
        """Say the value with its interval and its range over the laws, one line per element."""
        lines = []
        for i, row in enumerate(self.to_frame().to_dict("records")):
            where = ", ".join(f"{name} = {row[name]:.3g}" for name in self.at)
            text = f"{self.name}{f' at {where}' if where else ''} = {row[self.name]:.3g}"
            if len(self.replicates):
                low, high = row[f"{self.name}_low"], row[f"{self.name}_high"]
                text += f" ({100 * self.confidence_level:g} % interval {low:.3g} to {high:.3g})"
            if len(self.laws) > 1:
                values = [float(np.ravel(value)[i]) for value in self.laws.values()]
                text += f"; {min(values):.3g} to {max(values):.3g} across {len(values)} laws that fit equally well"
            lines.append(text)
            if i == 19 and len(np.ravel(self.value)) > 20:
                lines.append(f"... and {len(np.ravel(self.value)) - 20} more, see to_frame()")
                break
        return "\n".join([*lines, *([self.note] if self.note else [])])

    def __repr__(self) -> str:
        text = f"{self.name} = {self.value}"
        if len(self.replicates):
            text += f" ({100 * self.confidence_level:g}% interval {self.low} to {self.high})"
        text += f"; {self.note}" if self.note else ""
        return text if len(text) < 800 else text[:799] + "…"


def estimate(
    name: str,
    stacked: np.ndarray,
    at: Mapping[str, np.ndarray],
    *,
    level: float,
    laws: Mapping[str, np.ndarray] | None = None,
    note: str = "",
) -> Estimate:
    """Build from the point estimate (row 0) and the replicates (further rows)."""
    low, high = quantiles(stacked, level)
    return Estimate(
        name=name,
        value=scalar(stacked[0]),
        low=scalar(low),
        high=scalar(high),
        replicates=stacked[1:],
        confidence_level=level,
        at=at,
        laws={law: scalar(value) for law, value in (laws or {}).items()},
        note=note,
    )


def quantiles(stacked: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of the percentile interval over rows 1, 2, ... of a stacked quantity."""
    tail = (1 - level) / 2
    if stacked.shape[0] < 2:
        nothing = np.full(stacked.shape[1:], np.nan)
        return nothing, nothing
    # "inverted_cdf" returns a replicate, so that infinite ones (censored, never reached) do no harm
    several = stacked[1:]
    if np.isnan(several).any():  # replicates that say nothing are left out; where none says anything it is NaN
        empty = np.isnan(several).all(axis=0)
        several = np.where(empty, 0.0, several)
        low, high = np.nanquantile(several, [tail, 1 - tail], axis=0, method="inverted_cdf")
        return np.where(empty, np.nan, low), np.where(empty, np.nan, high)
    low, high = np.quantile(several, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low, high
