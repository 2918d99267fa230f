"""Types of arguments that many functions share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike


class ArrowLike(Protocol):
    """A table that others can read through Arrow's C stream: Polars, PyArrow, DuckDB and others."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


class Tokenizer(Protocol):
    """A Hugging Face tokenizer, a ``tokenizers.Tokenizer``, or any object with these two methods."""

    def encode(self, text: Any, /) -> Any: ...
    def decode(self, ids: Any, /) -> Any: ...


class InFolder(Protocol):
    """What is kept in a folder, such as a `ragscale.training.Checkpoint`."""

    @property
    def path(self) -> str | os.PathLike[str]: ...


ResultsLike: TypeAlias = (
    "pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]] | ArrowLike | str | os.PathLike[str]"
)
"""A results table: a data frame, a dict of columns, a list of rows, an Arrow or Polars table, or a path."""

RngLike: TypeAlias = "int | np.integer[Any] | np.random.Generator | np.random.SeedSequence | None"
"""What `numpy.random.default_rng` takes."""

Curve: TypeAlias = "Callable[[Any], Any]"
"""A function of R (tokens, an array), such as a `ragscale.results.HitRateCurve`."""

HitRateLike: TypeAlias = "Curve | pd.DataFrame | Mapping[Any, Any] | float | np.ndarray | None"
"""h(R): a `ragscale.results.HitRateCurve` or a function of R, a table of stores, a mapping, rates; None as measured."""

Column: TypeAlias = "ArrayLike | Curve | Sequence[Curve]"
"""A further column of a law: numbers, a function of R, or one function for each replicate."""

Numbers: TypeAlias = "float | np.ndarray"
"""A float where every argument was a single number, else an array of the shape that the arguments broadcast to."""

Words: TypeAlias = "str | np.ndarray"
"""As `Numbers`, of text."""

Index: TypeAlias = "int | slice | Sequence[int] | np.ndarray | tuple[int | slice | np.ndarray, ...]"
"""What chooses elements of an array."""
