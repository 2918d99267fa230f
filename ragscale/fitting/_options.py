"""The arguments of `fit_manifold` as types, for the functions that hand them on to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

from numpy.typing import ArrayLike

from ragscale._typing import HitRateLike
from ragscale.fitting.solver._objective import LossName
from ragscale.fitting.solver.links import Link

Weights: TypeAlias = "str | ArrayLike | None"
""""stderr", "binomial", the name of a column, or numbers."""


class StageOptions(TypedDict, total=False):
    """Those that several fits to different columns have in common."""

    weights: Weights
    delta: float | Literal["auto"]
    tau: float
    space: Literal["auto", "log", "linear"]
    seed_average: bool
    by: str | Sequence[str] | None
    higher_is_better: bool | None
    hit_rate: HitRateLike


class FitSettings(StageOptions, total=False):
    """All but the law and the names of columns."""

    link: str | Link
    loss: LossName


class TableOptions(FitSettings, total=False):
    """All but the law and the column of the store."""

    N: str
    D: str
    value: str


class FitOptions(TableOptions, total=False):
    """All but the law."""

    R: str
