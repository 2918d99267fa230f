"""What comparing laws and leaving rows out found, as values."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import pandas as pd

from ragscale.fitting._own import Own
from ragscale.results._result import Result

if TYPE_CHECKING:
    from ragscale.fitting._evidence import Paired
    from ragscale.fitting._result import ManifoldFit


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CrossValidation(Result):
    """How well a law predicts rows that it was not fitted to.

    Attributes
    ----------
    law : str
    leave_out : str or int
        What was left out, fold by fold.
    table : DataFrame
        One row per fold: ``fold`` (what was left out), ``n_train``, ``n_test``, ``error``: mean absolute value of
        predicted / observed - 1 (of the difference where residuals are linear), ``bias``: the same with its sign,
        ``objective`` on the training rows.
    space : "log" or "linear"
        Whether errors are relative, or in units of the metric.
    """

    law: str
    leave_out: str | int
    table: Own[pd.DataFrame] = Own()
    space: str

    _picture: ClassVar[str] = "cross_validation"

    @property
    def error(self) -> float:
        """Mean absolute error over all rows left out."""
        return self._mean("error")

    @property
    def bias(self) -> float:
        """Mean signed error over all rows left out: positive where the law predicts too much."""
        return self._mean("bias")

    def _mean(self, column: str) -> float:
        table = self.table
        return float(np.average(table[column].to_numpy(float), weights=table["n_test"].to_numpy(float)))

    def __len__(self) -> int:
        return len(self.table)

    def summary(self) -> str:
        """Say how large the errors are, over all and fold by fold."""
        unit = "of the metric (relative)" if self.space == "log" else "in units of the metric"
        head = f"{self.law} misses rows left out by {self.error:.3g} on average {unit}; bias {self.bias:+.2g}"
        return f"{head}\n{self.table.to_string(index=False, float_format='{:.4g}'.format, max_rows=20)}"

    def to_frame(self) -> pd.DataFrame:
        """Return `table`."""
        return self.table


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Result):
    """Several laws fitted to one table; those that the data cannot tell apart are tied.

    Attributes
    ----------
    table : DataFrame
        Indexed by law, best first: ``n_parameters``, ``objective``, ``aicc``, ``delta_aicc``, ``weight`` (Akaike's),
        ``tied`` (within 2 of the best), held-out errors ``leave_one_N``, ``largest_compute``, ``k_fold`` (see
        `cross_validate`), and ``problem``: why a law could not be fitted or validated.
    fits : dict of str to ManifoldFit
        The fits of the laws that could be fitted.
    gate : Paired or None
        From ``law="auto"``: how much better a passage with the answer is than one without, which decides whether the
        law of reading is compared at all.
    chosen, note : str
        From ``law="auto"``: the law that was taken, and why, in words.

    References
    ----------
    Burnham and Anderson 2002, Model Selection and Multimodel Inference, section 2.9 (weights).
    """

    table: Own[pd.DataFrame] = Own()
    fits: Own[dict[str, ManifoldFit]] = Own()
    gate: Paired | None = None
    chosen: str = ""
    note: str = ""

    schema: ClassVar[str] = "ragscale.Comparison"

    _picture: ClassVar[str] = "comparison"

    @property
    def best(self) -> str:
        """The law with the lowest criterion."""
        return str(self.table.index[0])

    @property
    def tied(self) -> tuple[str, ...]:
        """The laws that cannot be told from the best one, that one included; best first."""
        table = self.table
        return tuple(str(name) for name in table.index[table["tied"].to_numpy(bool)])

    @property
    def weights(self) -> dict[str, float]:
        """Akaike's weight of each fitted law, best first; they add up to 1."""
        table, fits = self.table, self.fits
        pairs = zip(table.index, table["weight"].to_numpy(float), strict=True)
        return {str(name): float(weight) for name, weight in pairs if name in fits}

    def __len__(self) -> int:
        return len(self.table)

    def summary(self) -> str:
        """Say which law is best and which are as good, then the table."""
        said = [f"chosen: {self.note}"] if self.note else []
        if self.gate is not None:
            said.append(self.gate.summary())
        others = [name for name in self.tied if name != self.best]
        if others:
            head = f"{self.best} and {', '.join(others)} cannot be told apart by these results"
        elif len(self.fits) == 1:
            head = f"{self.best} is the only law that could be fitted"
        else:
            head = f"{self.best} describes these results better than the other laws"
        table = self.table
        failed = [
            f"{name}: {text}" for name, text in zip(table.index, table.pop("problem").tolist(), strict=True) if text
        ]
        lines = [*said, head, table.to_string(float_format="{:.4g}".format, max_rows=20), *failed]
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """Return `table` with the law as a column."""
        return self.table.rename_axis("law").reset_index()

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the comparison, fits included, to a JSON file."""
        from ragscale.fitting._saved import comparison_to_dict, write

        write(path, comparison_to_dict(self), self.schema)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        CheckpointError
            When the file is damaged or holds something else.
        """
        from ragscale.fitting._saved import comparison_from_dict, read

        return read(path, comparison_from_dict, cls.schema)


def akaike_weights(aicc: np.ndarray) -> np.ndarray:
    """Return exp(-difference / 2), normalised; equal weights where no value is finite, 0 for NaN (not fitted).

    Examples
    --------
    >>> akaike_weights(np.array([0.0, 2.0 * np.log(3.0), np.nan])).round(12).tolist()
    [0.75, 0.25, 0.0]
    """
    fitted = ~np.isnan(aicc)
    if not np.isfinite(aicc).any():
        return fitted / max(fitted.sum(), 1)
    relative = np.exp(-0.5 * (np.where(fitted, aicc, np.inf) - np.nanmin(aicc)))
    return relative / relative.sum()


def simplest(comparison: Comparison) -> str:
    """Return the tied law with the fewest parameters; the better one of two as simple."""
    table = comparison.table
    tied = pd.DataFrame(table[table["tied"].to_numpy(bool)])
    return str(tied.sort_values(["n_parameters", "aicc"], kind="stable").index[0])
