"""The plan of a study as a value: its cells, its stages, and a few sentences."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from ragscale.results._result import Result, latex_table


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StudyPlan(Result):
    """What a study will do and cost.

    Attributes
    ----------
    cells : DataFrame
        One row for each cell: ``model, N, seed, D, R``, whether it lies on a budget, tokens and FLOPs of its training
        (on the R = 0 row of a checkpoint), hours of training and of scoring, money. ``plan["D"]`` reads a column of it.
    stages : DataFrame
        One row for each stage and one for all: ``jobs, device_hours, cpu_hours, money, memory_gib, disk_gib``.
    wall_hours : float
        Until everything is done, with ``n_devices`` side by side.
    device : str
    n_devices : int
    price_per_hour : float or None
        Of one device.
    note : str
        What is estimated, such as T before the split is made; empty where nothing is.
    measured : str
        By which jobs of this study hours were corrected; empty where none of them is done.
    below_reading : str
        That no model of the study can be expected to read by its largest D; empty where one can.
    """

    cells: pd.DataFrame
    stages: pd.DataFrame
    wall_hours: float
    device: str
    n_devices: int = 1
    price_per_hour: float | None = None
    note: str = ""
    measured: str = ""
    below_reading: str = ""

    _picture: ClassVar[str] = "costs"

    @property
    def device_hours(self) -> float:
        """Hours of all devices together, training and evaluation."""
        return self._total("device_hours")

    @property
    def money(self) -> float:
        """What the device hours cost; NaN without a price."""
        return self._total("money")

    @property
    def disk_gib(self) -> float:
        """What the study's directory will hold, training states included."""
        return self._total("disk_gib")

    @property
    def memory_gib(self) -> float:
        """The most that one job needs."""
        return self._total("memory_gib")

    def _total(self, name: str) -> float:
        return float(self.stages.loc[self.stages["stage"] == "total", name].iloc[0])

    def __getitem__(self, name: Any) -> Any:
        return self.cells[name]

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def columns(self) -> pd.Index:
        """Names of the columns of ``cells``."""
        return self.cells.columns

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of ``cells``."""
        return self.cells.copy()

    def to_latex(self, *, digits: int = 3, caption: str = "", label: str = "") -> str:
        """Return the stages as a booktabs table."""
        return latex_table(self.stages, digits=digits, caption=caption, label=label)

    def summary(self) -> str:
        """Return the cost in a few lines."""
        trained = self.cells[self.cells["R"] == 0]
        devices = self.device if self.n_devices == 1 else f"{self.n_devices} x {self.device}"
        first = (
            f"{len(self.cells):,} cells: {self.cells['model'].nunique()} models, {len(trained):,} checkpoints, "
            f"{self.cells['R'].nunique():,} stores; {trained['train_tokens'].sum():,.0f} tokens to train, "
            f"{trained['train_flops'].sum():.2g} FLOPs"
        )
        lines = [
            first,
            f"{_hours(self.device_hours)} of {self.device}; {_hours(self.wall_hours)} on {devices}",
            f"{self.memory_gib:,.1f} GiB of memory for the largest job, {self.disk_gib:,.1f} GiB of disk",
        ]
        if self.price_per_hour is not None:
            lines[1] += f"; {self.money:,.2f} at {self.price_per_hour:g} an hour"
        lines += self._said()
        return "\n".join([*lines, self.stages.to_string(index=False, float_format=lambda v: f"{v:.3g}", na_rep="")])

    def _said(self) -> list[str]:
        return [line for line in (self.note, self.measured, self.below_reading) if line]

    def __repr__(self) -> str:
        money = "" if self.price_per_hour is None else f", {self.money:,.2f}"
        return f"StudyPlan({len(self.cells)} cells, {_hours(self.device_hours)} of {self.device}{money})"

    def _repr_html_(self) -> str:
        first, *rest = self.summary().splitlines()[: 3 + len(self._said())]
        words = "<br>".join(html.escape(line) for line in (first, *rest))
        return f"<p>{words}</p>{self.stages.to_html(index=False, float_format='%.3g', na_rep='')}"


def _hours(hours: float) -> str:
    if hours < 0.1:
        return f"{60 * hours:.2g} minutes"
    return f"{hours:,.1f} hours" if hours < 100 else f"{hours:,.0f} hours"
