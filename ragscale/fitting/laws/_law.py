"""What a scaling law is: named parameters with bounds, and one formula."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from ragscale._typing import Column, Index
from ragscale.errors import ConfigError, FitError
from ragscale.fitting.laws._columns import as_column, slope_of

GainRate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
_UNIT = re.compile(r"^(1|[NDR])?(/[NDR])?$")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a law: its name, its bounds, and what the fitter must know to search for it.

    Parameters
    ----------
    name : str
        The name under which `ScalingLaw._loss` finds it in ``theta``.
    lower, upper : float
        Closed bounds, possibly infinite. With a ``unit`` they are multiples of that unit at the geometric means of
        the table: ``Parameter("K", 1e-4, 1e4, unit="R", log=True)`` may lie four decades around the typical store.
    log : bool
        Search in the logarithm; for positive parameters that may vary over decades. Needs ``lower > 0``.
    unit : str
        ``""``, ``"N"``, ``"D"``, ``"R"``, or a ratio such as ``"1/R"`` and ``"N/R"``.
    start : tuple of float, optional
        The range in which starts are drawn, in the same unit; by default the finite part of the bounds.
    description : str
        A few words for tables and the catalogue.
    """

    name: str
    lower: float = -math.inf
    upper: float = math.inf
    _: KW_ONLY
    log: bool = False
    unit: str = ""
    start: tuple[float, float] | None = None
    description: str = ""

    def __post_init__(self) -> None:
        problems = []
        if not self.name.isidentifier():
            problems.append(f"name {self.name!r} is no identifier")
        if not self.lower <= self.upper:
            problems.append(f"lower = {self.lower} is above upper = {self.upper}")
        if self.log and not self.lower > 0:
            problems.append(f"log=True needs lower > 0, not {self.lower}")
        if not _UNIT.match(self.unit):
            problems.append(f"unit = {self.unit!r} must be '', 'N', 'D', 'R' or a ratio such as '1/R' and 'N/R'")
        if problems:
            raise ConfigError(f"Parameter({self.name!r}): " + "; ".join(problems))

    def unit_value(self, typical: Mapping[str, float]) -> float:
        """Return the size of one unit where N, D and R are ``typical``."""
        if not self.unit:
            return 1.0
        over, _, under = self.unit.partition("/")
        return (1.0 if over in {"", "1"} else typical[over]) / (typical[under] if under else 1.0)

    def bounds(self, typical: Mapping[str, float]) -> tuple[float, float]:
        """Return the bounds in counts for a table whose geometric means are ``typical``."""
        unit = self.unit_value(typical)
        return self.lower * unit, self.upper * unit


class Theta(Mapping[str, Any]):
    """Parameter values, read-only, as ``theta.alpha`` or ``theta["alpha"]``; floats, or arrays of replicates."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_values", dict(values))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no parameter {name!r}; there are {', '.join(self._values)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("parameter values are read-only; make a new mapping instead")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "Theta(" + ", ".join(f"{name}={value!r}" for name, value in self._values.items()) + ")"

    def __reduce__(self) -> tuple[Any, ...]:
        return Theta, (self._values,)


class LawOptions(TypedDict, total=False):
    """What every law takes, see `ScalingLaw`."""

    offset: bool
    tie: bool | Mapping[str, str]
    fixed: Mapping[str, float] | None


class ScalingLaw(ABC):
    """A formula for the loss of a model of N parameters, trained on D tokens, that reads a store of R tokens.

    A subclass writes ``parameters`` and `_loss`, nothing more. N, D and R always are counts. Where some parameters
    enter linearly, writing `_columns` instead of `_loss` (see `SeparableLaw`) makes fits many times faster.

    Parameters
    ----------
    offset : bool
        Add a signed parameter ``offset`` to the loss wherever R > 0: what inserting text costs (or gives) by itself.
    tie : mapping or bool
        Parameters that equal others, ``{"beta": "alpha"}``; ``True`` ties beta to alpha.
    fixed : mapping
        Parameters held at given values.

    Attributes
    ----------
    name, formula, reference : str
        snake_case name, the formula in one line, paper and equation.
    variables : tuple of str
        Which of N, D and R the law reads, and the names of further columns of the results table that it needs, such
        as ``("N", "D", "U")``. ``_loss`` finds those with `column`.
    parameters : tuple of Parameter
        All parameters in order, those fixed or tied included.
    link : str
        What ``link="auto"`` means for this law: "auto" goes by the table, "identity" says that ``_loss`` returns the
        metric itself, for a law that models an accuracy directly.
    shared_by_default : tuple of str
        Parameters that several surfaces have in common, see ``fit_manifold(..., over=)``.

    Examples
    --------
    >>> class Logarithmic(ScalingLaw):
    ...     parameters = (Parameter("E", 0, 10), Parameter("b", 0, 1))
    ...     def _loss(self, n, d, r, theta):
    ...         return theta.E - theta.b * np.log(d)
    >>> law = Logarithmic()
    >>> law.name, float(law.loss(1e9, np.e, 0, {"E": 3, "b": 0.5}))
    ('logarithmic', 2.5)
    """

    name: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    link: ClassVar[str] = "auto"
    shared_by_default: ClassVar[tuple[str, ...]] = ()
    variables: tuple[str, ...] = ("N", "D", "R")
    parameters: Sequence[Parameter] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__.lstrip("_")).lower()

    def __init__(
        self,
        *,
        offset: bool = False,
        tie: bool | Mapping[str, str] = False,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        self.parameters = tuple(self.parameters)
        if offset:
            self.parameters += (Parameter("offset", description="change of the loss wherever R > 0"),)
        self.offset = bool(offset)
        self.tied = dict({"beta": "alpha"} if tie is True else tie or {})
        self.fixed = {name: float(value) for name, value in (fixed or {}).items()}
        problems = self._option_problems()
        if problems:
            raise ConfigError(f"{type(self).__name__}: " + "; ".join(problems))

    def _option_problems(self) -> list[str]:
        names = [parameter.name for parameter in self.parameters]
        known = f"the parameters are {', '.join(names)}"
        problems = [f"parameter {name!r} is given twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if not names:
            problems.append("a law needs parameters, e.g. parameters = (Parameter('E', 0, 10),)")
        for name, value in self.fixed.items():
            if name not in names:
                problems.append(f"fixed parameter {name!r} does not exist: {known}")
            elif not math.isfinite(value):
                problems.append(f"fixed parameter {name!r} = {value} is not finite")
        for name, other in self.tied.items():
            if name not in names or other not in names:
                problems.append(f"cannot tie {name!r} to {other!r}: {known}")
            elif other in self.tied or name in self.fixed:
                problems.append(f"cannot tie {name!r} to {other!r}: tie to a free parameter, and do not fix it too")
        unknown = [variable for variable in self.variables if not variable.isidentifier()]
        if unknown:
            problems.append(f"variables {unknown} must be N, D, R or names of further columns of the results")
        return problems

    # What a subclass writes ----------------------------------------------------------------------------------------

    @abstractmethod
    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        """Return the loss; ``n, d, r`` are float64 counts, ``theta`` floats or arrays that broadcast against them."""

    def _gradient(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> tuple[Any, Any, Any]:
        """Return dL/dN, dL/dD, dL/dR; closed forms where a subclass has them, else differences of fourth order."""
        slopes = []
        for axis, variable in enumerate("NDR"):
            if variable not in self.variables:
                slopes.append(np.zeros(np.broadcast(n, d, r).shape))
                continue
            slopes.append(difference(self._loss, (n, d, r), axis, theta))
        return slopes[0], slopes[1], slopes[2]

    def _resolve(self, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> ScalingLaw:
        """Return the law with the options that depend on the table made definite; by default the law itself."""
        return self

    def _without(self, variable: str, store: float = 1.0) -> Mapping[str, float | None] | None:
        """Return what makes the term in ``variable`` vanish where that variable never changes, None if nothing does.

        Its parameters with the values to hold them at; None for one that stays free although it means nothing alone.
        Of "R", with a typical ``store``, it is asked where there are two stores only: the gain's shape is then held.
        """
        return None

    # What decisions ask --------------------------------------------------------------------------------------------
    # Answers in closed form make decisions fast; None sends the decision to a search, which any law allows.

    def _gain_rate(self, n: np.ndarray, theta: Theta) -> GainRate | None:
        """Return R -> (ln(-dL/dR), its derivative in ln R) where the gain is concave in R and free of D, else None."""
        return None

    def _gain_limit(self, n: np.ndarray, d: np.ndarray, theta: Theta) -> np.ndarray | None:
        """Return L(N, D, 0) - L(N, D, R -> infinity), or None where the gain has no bound that is known."""
        return None if "R" in self.variables else np.zeros_like(n * d)

    def _constant_exchange_rate(self, theta: Theta) -> Any:
        """Return the exchange rate of a law for which it is the same everywhere, else None."""
        return None

    def _data_for(self, n: np.ndarray, loss: np.ndarray, theta: Theta) -> np.ndarray | None:
        """Return D with L(N, D, 0) = loss (infinite where no data give it), or None if it has to be searched for."""
        return None

    def _compute_optimum(self, compute: np.ndarray, theta: Theta) -> np.ndarray | None:
        """Return the N that minimises L under 6 N D = compute, whatever R is, or None if it depends or is unknown."""
        return None

    @property
    def gain_depends_on_N(self) -> bool:
        """Whether the gain of a store can differ between model sizes under this law."""
        return "R" in self.variables

    def _knows(self, answer: str) -> bool:
        """Say whether an answer was written for this formula, not inherited by a subclass that changed the formula."""
        order = type(self).__mro__

        def level(name: str) -> int:
            return next((i for i, cls in enumerate(order) if name in cls.__dict__), len(order))

        return level(answer) <= min(level("_loss"), level("_columns"))

    # What everybody calls ------------------------------------------------------------------------------------------

    @property
    def further_columns(self) -> tuple[str, ...]:
        """The columns of the results table that the law reads beyond N, D and R."""
        return tuple(variable for variable in self.variables if variable not in {"N", "D", "R"})

    def at(self, **columns: Column) -> Self:
        """Return a copy that reads its `further_columns` from ``columns``.

        Parameters
        ----------
        **columns : array-like, callable, or sequence of callables
            Numbers that broadcast against N, D and R, or a function of R; several functions are one per replicate,
            (S, 1) as parameters are (see `take`).

        Raises
        ------
        ConfigError
            When a column is missing, unknown or not finite.
        """
        arrays = {name: as_column(name, value) for name, value in columns.items()}
        problems = [f"column {name!r} is missing" for name in self.further_columns if name not in arrays]
        problems += [f"column {name!r} is not read by the law" for name in arrays if name not in self.further_columns]
        problems += [
            f"column {name!r} holds values that are not finite"
            for name, value in arrays.items()
            if not callable(value) and not np.isfinite(value).all()
        ]
        if problems:
            needs = ", ".join(self.further_columns) or "none"
            raise ConfigError(f"law {self.name!r}: " + "; ".join(problems) + f"; beyond N, D and R it reads: {needs}")
        law = copy(self)
        object.__getattribute__(law, "__dict__")["_further"] = arrays
        return law

    def column(self, name: str, r: np.ndarray | None = None) -> np.ndarray:
        """Return a further column, for ``_loss``, at stores of ``r`` tokens where it is a function of R; see `at`."""
        try:
            found = self.__dict__["_further"][name]
        except KeyError:
            raise ConfigError(
                f"law {self.name!r} reads the column {name!r} of the results; give it too, e.g. loss(..., {name}=...)"
            ) from None
        if not callable(found):
            return found
        if r is None:
            raise ConfigError(f"law {self.name!r} reads {name!r} without a store: it cannot be a function of R")
        return np.asarray(found(r), dtype=np.float64)

    def column_slope(self, name: str, r: np.ndarray) -> np.ndarray:
        """Return the slope of a further column in R; 0 where it is no function of R."""
        found = self.__dict__["_further"][name]
        return slope_of(found, r) if callable(found) else np.zeros_like(r, dtype=np.float64)

    def take(self, rows: Index) -> Self:
        """Return the law of some replicates: ``rows`` indexes the functions of R that differ between replicates."""
        further = self.__dict__.get("_further", {})
        if not any(hasattr(value, "rows") for value in further.values()):
            return self
        law = copy(self)
        chosen = {name: value[rows] if hasattr(value, "rows") else value for name, value in further.items()}
        object.__getattribute__(law, "__dict__")["_further"] = chosen
        return law

    def _shown(self, r: np.ndarray) -> np.ndarray:
        """Say where a passage is shown, which is where an ``offset`` is added."""
        return r > 0

    @property
    def free(self) -> tuple[Parameter, ...]:
        """The parameters that a fit determines: neither fixed nor tied."""
        return tuple(p for p in self.parameters if p.name not in self.fixed and p.name not in self.tied)

    def theta(self, values: Mapping[str, Any]) -> Theta:
        """Return the complete parameter values: ``values`` with what is fixed and tied filled in.

        Raises
        ------
        ConfigError
            When a parameter is missing or unknown.
        """
        names = [parameter.name for parameter in self.parameters]
        complete = {**values, **self.fixed}
        complete.update({name: complete[other] for name, other in self.tied.items() if other in complete})
        missing = [name for name in names if name not in complete]
        unknown = [name for name in complete if name not in names]
        if missing or unknown:
            raise ConfigError(
                f"theta of the law {self.name!r} needs exactly {', '.join(names)}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; unknown: {', '.join(unknown)}" if unknown else "")
            )
        return Theta({name: _float64(complete[name]) for name in names})

    def loss(self, N: ArrayLike, D: ArrayLike, R: ArrayLike, theta: Mapping[str, Any], **columns: Column) -> np.ndarray:
        """Return the loss at counts N, D and R, broadcast against each other and the parameters.

        Parameters
        ----------
        N, D, R : array-like
            Parameters, pretraining tokens, store tokens; N, D > 0 and R >= 0.
        theta : mapping of str to float or array
            Parameter values in counts; give replicates the shape (S, 1) against (n,) counts.
        **columns : array-like
            The law's `further_columns`, if it has any.

        Raises
        ------
        ConfigError
            When counts are out of range or parameters are missing.
        """
        n, d, r = check_counts(N, D, R)
        complete = self.theta(theta)
        law = self.at(**columns) if columns else self
        value = np.asarray(law._loss(n, d, r, complete), dtype=np.float64)
        if self.offset:
            value = value + complete.offset * law._shown(r)
        return value + np.zeros(np.broadcast_shapes(n.shape, d.shape, r.shape))

    def gradient(
        self, N: ArrayLike, D: ArrayLike, R: ArrayLike, theta: Mapping[str, Any], **columns: Column
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (dL/dN, dL/dD, dL/dR) per parameter and per token; see `loss`."""
        n, d, r = check_counts(N, D, R)
        complete = self.theta(theta)
        shape = np.broadcast_shapes(n.shape, d.shape, r.shape, *(np.shape(value) for value in complete.values()))
        slopes = (self.at(**columns) if columns else self)._gradient(n, d, r, complete)
        by_n, by_d, by_r = (np.broadcast_to(np.asarray(s, dtype=np.float64), shape) for s in slopes)
        return by_n, by_d, by_r

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that build this law again."""
        options: dict[str, Any] = {}
        if self.offset:
            options["offset"] = True
        if self.tied:
            options["tie"] = dict(self.tied)
        if self.fixed:
            options["fixed"] = dict(self.fixed)
        return options

    def replace(self, **options: object) -> Self:
        """Return a copy with other options, those of its own class included."""
        changed: dict[str, Any] = {**self.options(), **options}
        return type(self)(**changed)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs: the name and the options, JSON-able."""
        return {"name": self.name, "options": self.options()}

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> ScalingLaw:
        """Build a law from `to_dict`; an own law must have been defined (imported) before.

        Raises
        ------
        FitError
            When no law of that name is known.
        """
        for law in _subclasses(ScalingLaw):
            if law.name == value["name"]:
                return law(**value["options"])
        raise FitError(
            f"no law named {value['name']!r} is known here: import the module that defines it, then load again"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ and name != "parameters":
            raise AttributeError(f"{type(self).__name__} is immutable; use replace({name}=...)")
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScalingLaw) and type(other) is type(self) and other.options() == self.options()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.options())))

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options().items())
        return f"{type(self).__name__}({options})"


class SeparableLaw(ScalingLaw):
    """A law whose loss is a sum of coefficients times columns; only few parameters are then searched for.

    A subclass writes ``parameters`` and `_columns` instead of `_loss`, and may write `_column_slopes`.
    """

    @abstractmethod
    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        """Return, for each linear parameter, what it multiplies; ``theta`` holds the nonlinear ones only.

        A coefficient with bounds (0, inf) is kept from going negative, one with (-inf, inf) is free. Values in
        ``theta`` may have shape (S, 1) against columns of shape (n,).
        """

    def _column_slopes(
        self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray
    ) -> dict[tuple[str, str], Any] | None:
        """Return d column / d nonlinear parameter, where it is not 0, or None to have differences taken."""
        return None

    def _columns_and_slopes(
        self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray
    ) -> tuple[dict[str, Any], dict[tuple[str, str], Any] | None]:
        """Return both at once; worth writing only where they share expensive parts."""
        return self._columns(theta, n, d, r), self._column_slopes(theta, n, d, r)

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        columns = self._columns(theta, n, d, r)
        return sum(theta[name] * column for name, column in columns.items())


def check_counts(N: ArrayLike, D: ArrayLike, R: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return N, D and R as float64 arrays (an int64 product N*D overflows), or list what is wrong with them."""
    arrays, problems = [], []
    for name, value in (("N", N), ("D", D), ("R", R)):
        try:
            given = np.asarray(value)
            if given.dtype.kind in "bSUMmc":
                raise TypeError(f"{given.dtype} is no count")
            array = given.astype(np.float64)
        except (TypeError, ValueError) as error:
            problems.append(f"{name} is not numeric ({error})")
            continue
        arrays.append(array)
        bad = ~np.isfinite(array) | (array < 0 if name == "R" else array <= 0)
        if bad.any():
            rule = "finite and not negative" if name == "R" else "finite and positive"
            problems.append(f"{name} must be {rule}, got {array[bad].flat[0]}")
    if len(arrays) == 3:
        try:
            np.broadcast_shapes(*(array.shape for array in arrays))
        except ValueError:
            problems.append("shapes " + ", ".join(str(array.shape) for array in arrays) + " do not broadcast")
    if problems:
        raise ConfigError("; ".join(problems))
    return arrays[0], arrays[1], arrays[2]


def _float64(value: Any) -> Any:
    array = np.asarray(value, dtype=np.float64)
    return float(array) if array.ndim == 0 else array


def difference(function: Any, counts: tuple[np.ndarray, ...], axis: int, theta: Theta) -> np.ndarray:
    """Differentiate by central differences of fourth order; forward ones of the same order where the count is 0."""

    def at(shift: np.ndarray) -> np.ndarray:
        moved = [count + shift if i == axis else count for i, count in enumerate(counts)]
        return np.asarray(function(*moved, theta), dtype=np.float64)

    x = counts[axis] + np.zeros(np.broadcast_shapes(*(count.shape for count in counts)))
    step = 2e-3 * x
    with np.errstate(all="ignore"):
        slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * np.where(step > 0, step, 1.0))
    if np.any(x == 0):
        scale = x[x > 0].min() if np.any(x > 0) else float(np.min(counts[1]))
        h = np.where(x == 0, 1e-4 * scale, step)
        with np.errstate(all="ignore"):
            # from at(h), not at(0): a law may jump where the store becomes empty
            f = [at(k * h) for k in (1, 2, 3, 4)]
            forward = (-13 * f[0] / 3 + 9.5 * f[1] - 7 * f[2] + 11 * f[3] / 6) / h
        slope = np.where(x == 0, forward, slope)
    return slope


def _subclasses(cls: type[ScalingLaw]) -> Iterator[type[ScalingLaw]]:
    for child in reversed(cls.__subclasses__()):
        yield from _subclasses(child)
        if not getattr(child, "__abstractmethods__", None):
            yield child
