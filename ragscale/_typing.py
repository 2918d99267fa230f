"""Types of arguments that many functions share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class ArrowLike(Protocol):
    """A table that others can read through Arrow's C stream: Polars, PyArrow, DuckDB and others."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


ResultsLike: TypeAlias = (
    "pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]] | ArrowLike | str | os.PathLike[str]"
)
"""A results table: a data frame, a dict of columns, a list of rows, an Arrow or Polars table, or a path."""

RngLike: TypeAlias = "int | np.integer[Any] | np.random.Generator | np.random.SeedSequence | None"
"""What `numpy.random.default_rng` takes."""

HitRateLike: TypeAlias = "Callable[[Any], Any] | pd.DataFrame | Mapping[Any, Any] | None"
"""h(R): a `ragscale.results.HitRateCurve` or a function of R, a table of stores, a mapping; None as measured."""
