"""The protocol of every result: a short repr, a summary in words, a frame, LaTeX, JSON, and a picture."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import pandas as pd

from ragscale._extras import call_plotting
from ragscale._files import read_json, write_json
from ragscale.errors import CheckpointError, ConfigError, ResultsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REPR_CHARACTERS = 400
_VERSION = 1
_KINDS: dict[str, type[Result]] = {}
"""The results of this library by name, for those that hold others."""


class Result:
    """What fits, decisions, comparisons, evaluations and plans have in common.

    A subclass is a frozen dataclass with ``eq=False`` and ``repr=False``. It writes `summary` and `to_frame`, and names
    the function of `ragscale.plotting` that draws it in ``_picture``. What it deliberately lacks, ``"plot"`` or
    ``"to_json"``, stands in ``_absent`` with the reason, which is what the method then says. Two results are equal only
    if they are the same object.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import pandas as pd
    >>> from ragscale.results import Result
    >>> @dataclass(frozen=True, eq=False, repr=False)
    ... class Share(Result):
    ...     share: float
    ...     def summary(self):
    ...         return f"{self.share:.0%} for the store"
    ...     def to_frame(self):
    ...         return pd.DataFrame({"share": [self.share]})
    >>> Share(0.25)
    <Share: 25% for the store>
    """

    _picture: ClassVar[str] = ""
    _absent: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("ragscale."):
            _KINDS[cls.__name__] = cls

    def summary(self) -> str:
        """Say in words what the result is; the first line is the answer."""
        raise NotImplementedError

    def to_frame(self) -> pd.DataFrame:
        """Return the numbers as a plain table: no index that carries data, no ``attrs``, safe for Parquet."""
        raise NotImplementedError

    def __repr__(self) -> str:
        text = self.summary()
        short = text if len(text) <= _REPR_CHARACTERS else text[: _REPR_CHARACTERS - 1].rstrip() + "…"
        return f"<{type(self).__name__}: {short}>"

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.summary())}</pre>" + self.to_frame().to_html(index=False, max_rows=30)

    def to_latex(self, *, digits: int = 3, caption: str = "", label: str = "") -> str:
        r"""Return a booktabs table; a value and its interval stand in one cell, ``0.34 [0.30, 0.39]``.

        Columns ``x``, ``x_low`` and ``x_high`` of `to_frame` become one column ``x``.

        Parameters
        ----------
        digits : int
            Significant digits.
        caption, label : str
            For a floating table; without them only the tabular is returned.
        """
        return latex_table(self.to_frame(), digits=digits, caption=caption, label=label)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the result to a JSON file, from which `from_json` restores it.

        Raises
        ------
        ConfigError
            For a result that is kept in another way, saying which.
        """
        self._refuse("to_json")
        fields = {field.name: encode(getattr(self, field.name)) for field in dataclasses.fields(cast(Any, self))}
        write_json(path, {"fields": fields}, schema=_schema(type(self)), version=_VERSION)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        ResultsError
            When the file is not one of this kind of result, or is damaged.
        """
        cls._refuse("to_json")
        try:
            fields = read_json(path, schema=_schema(cls), version=_VERSION).get("fields")
        except CheckpointError as error:
            raise ResultsError(str(error)) from error
        names = {field.name for field in dataclasses.fields(cast(Any, cls))}
        if not isinstance(fields, dict) or set(fields) != names:
            found = set(fields) if isinstance(fields, dict) else set()
            missing, unknown = sorted(names - found), sorted(found - names)
            raise ResultsError(f"{os.fspath(path)}: {cls.__name__} lacks {missing}, and holds the unknown {unknown}")
        try:
            return cls(**{name: decode(value) for name, value in fields.items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ResultsError(f"{os.fspath(path)}: the {cls.__name__} in it is damaged ({error})") from error

    def plot(self, ax: Axes | None = None, **kwargs: object) -> Axes:
        """Draw the result on matplotlib axes, new ones if none are given, and return them.

        Raises
        ------
        ResultsError
            When there is no picture of this kind of result.
        """
        self._refuse("plot")
        if not self._picture:
            raise ResultsError(f"there is no picture of a {type(self).__name__}; its numbers: to_frame()")
        return call_plotting(self._picture, self, ax=ax, **kwargs)

    @classmethod
    def _refuse(cls, method: str) -> None:
        """Raise where a method is deliberately absent."""
        if method in cls._absent:
            error = ResultsError if method == "plot" else ConfigError
            raise error(f"there is no {cls.__name__}.{method}(): {cls._absent[method]}")


def _schema(cls: type) -> str:
    return f"ragscale.{cls.__name__}"


def latex_table(frame: pd.DataFrame, *, digits: int = 3, caption: str = "", label: str = "") -> str:
    """Return a frame as a booktabs table, with intervals beside their values."""
    ends = {f"{name}{end}" for name in frame.columns for end in ("_low", "_high")}
    names = [name for name in frame.columns if name not in ends]
    rows = []
    for row in frame.to_dict("records"):
        cells = []
        for name in names:
            low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
            text = _latex_cell(row[name], digits)
            if not np.isnan([low, high]).any():
                text += f" [{_latex_cell(low, digits)}, {_latex_cell(high, digits)}]"
            cells.append(text)
        rows.append(" & ".join(cells) + r" \\")
    shape = "".join("r" if pd.api.types.is_numeric_dtype(frame[name]) else "l" for name in names)
    heads = " & ".join(_escape_latex(str(name)) for name in names) + r" \\"
    table = "\n".join(
        [rf"\begin{{tabular}}{{{shape}}}", r"\toprule", heads, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
    )
    if not (caption or label):
        return table
    ends = ([rf"\caption{{{_escape_latex(caption)}}}"] if caption else []) + ([rf"\label{{{label}}}"] if label else [])
    return "\n".join([r"\begin{table}", r"\centering", *ends, table, r"\end{table}"])


def _latex_cell(value: Any, digits: int) -> str:
    if value is None or value is pd.NA:
        return "--"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, float, np.number)):
        if np.isnan(value):
            return "--"
        if np.isinf(value):
            return r"$\infty$" if value > 0 else r"$-\infty$"
        text = f"{float(value):.{digits}g}"
        mantissa, e, exponent = text.partition("e")
        return rf"${mantissa} \times 10^{{{int(exponent)}}}$" if e else text.replace("-", "$-$")
    return _escape_latex(str(value))


def _escape_latex(text: str) -> str:
    for character in "\\&%$#_{}~^":
        word = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}.get(character)
        if character == "\\":
            text = text.replace("\\", "\0")
        elif word:
            text = text.replace(character, word)
        else:
            text = text.replace(character, "\\" + character)
    return text.replace("\0", r"\textbackslash{}")


def encode(value: Any) -> Any:
    """Return a value made of numbers, text, arrays, frames, mappings and sequences as JSON can hold it, exactly."""
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, np.str_) else value
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, np.ndarray):
        return {
            "$array": [encode(x) for x in value.ravel().tolist()],
            "shape": list(value.shape),
            "dtype": value.dtype.str,
        }
    if isinstance(value, pd.Series):
        return {"$series": encode(value.to_numpy()), "index": [encode(x) for x in value.index], "name": value.name}
    if isinstance(value, pd.DataFrame):
        columns = {str(name): encode(value[name].to_numpy()) for name in value.columns}
        return {"$frame": columns, "index": [encode(x) for x in value.index], "index_name": value.index.name}
    if isinstance(value, Result) and type(value).__name__ in _KINDS:
        parts = {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(cast(Any, value))}
        return {"$result": type(value).__name__, "fields": parts}
    if isinstance(value, Mapping):
        return {"$map": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [encode(item) for item in value]}
    if isinstance(value, list):
        return [encode(item) for item in value]
    raise ResultsError(f"a {type(value).__name__} cannot be kept in JSON; take its to_frame() or numbers")


def decode(value: Any) -> Any:
    """Return what `encode` was given; mappings come back as dictionaries."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$float" in value:
        return float(value["$float"])
    if "$array" in value:
        items, dtype = [decode(item) for item in value["$array"]], np.dtype(value["dtype"])
        return np.array(items, dtype=dtype).reshape(value["shape"])
    if "$frame" in value:
        index = pd.Index([decode(x) for x in value["index"]], name=value["index_name"])
        return pd.DataFrame({name: decode(column) for name, column in value["$frame"].items()}, index=index)
    if "$series" in value:
        return pd.Series(decode(value["$series"]), [decode(x) for x in value["index"]], name=value["name"])
    if "$map" in value:
        return {decode(key): decode(item) for key, item in value["$map"]}
    if "$result" in value:
        return _KINDS[value["$result"]](**{name: decode(item) for name, item in value["fields"].items()})
    if "$tuple" in value:
        return tuple(decode(item) for item in value["$tuple"])
    raise ValueError(f"no value has the form {json.dumps(value)[:80]}")
