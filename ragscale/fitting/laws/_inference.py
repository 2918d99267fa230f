"""Yue et al. 2024: accuracy of retrieval-augmented generation from documents, shots and iterations in the prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import LawOptions, Parameter, ScalingLaw, Theta
from ragscale.fitting.laws._published import Published

_KNOBS = ("k", "n_shot", "n_iterations")
_NAMES = ("doc", "shot", "iter")


class InferenceScaling(ScalingLaw):
    """sigma^-1(P) = (a + b i)^T ln(theta + shift) + c, theta = (documents k, shots, iterations): test-time computation.

    The columns ``k`` (passages in the prompt), ``n_shot`` and ``n_iterations`` of one model's results give the
    performance P. With ``informativeness=True`` the columns ``i_doc`` and ``i_shot`` (what one document, or one shot,
    adds to the bare question on that task) change the slopes, so that one fit covers several tasks. Limits: every knob
    helps without bound inside the sigmoid, with a slope that shrinks as 1 / k: describe the measured range only.

    Parameters
    ----------
    informativeness : bool
        Fit b_doc and b_shot and read ``i_doc`` and ``i_shot``.
    shift : float
        Added to the knobs, because ln 0 is not finite. The paper says "a small epsilon" and prints no value.
    sigmoid : (height, slope, centre, base)
        sigma(x) = height / (1 + exp(-slope (x + centre))) + base. The default is the logistic function.

    References
    ----------
    Yue et al. 2024, arXiv 2410.04343, equation 2 (computation allocation model); table 8 for the values of Gemini 1.5
    Flash, whose P is a normalised performance through ``PUBLISHED_SIGMOID`` (appendix F), not an accuracy.

    Examples
    --------
    >>> law = InferenceScaling()
    >>> theta = {"a_doc": 0.3, "a_shot": 0.1, "a_iter": 0.2, "c": -1.0}
    >>> law.loss(1, 1, 0, theta, k=[1, 10, 100], n_shot=1, n_iterations=1).round(3).tolist()
    [0.27, 0.424, 0.595]
    """

    link: ClassVar[str] = "identity"
    name = "inference_scaling"
    formula = "sigmoid((a + b i)^T ln((k, n_shot, n_iterations) + shift) + c)"
    reference = "Yue et al. 2024, arXiv 2410.04343, eq. 2"
    variables = _KNOBS
    _slopes = tuple(
        Parameter(f"a_{name}", -3.0, 5.0, start=(-0.1, 0.8), description=f"what ln of the {what} adds")
        for name, what in zip(_NAMES, ("documents", "shots", "iterations"), strict=True)
    )
    _informed = tuple(
        Parameter(f"b_{name}", -20.0, 20.0, start=(-0.5, 0.5), description=f"how the task changes a_{name}")
        for name in ("doc", "shot")
    )
    _constant = Parameter("c", -20.0, 20.0, start=(-3.0, 1.0), description="the same at one of each")
    parameters = (*_slopes, _constant)
    published: ClassVar[Mapping[str, Published]] = {
        "gemini_1.5_flash": Published(
            parameters={
                "a_doc": 0.325,
                "a_shot": 0.101,
                "a_iter": 0.177,
                "b_doc": -0.067,
                "b_shot": -0.008,
                "c": -0.730,
            },
            source="arXiv 2410.04343, table 8; InferenceScaling(informativeness=True, sigmoid=PUBLISHED_SIGMOID)",
        )
    }

    def __init__(
        self,
        *,
        informativeness: bool = False,
        shift: float = 0.01,
        sigmoid: tuple[float, float, float, float] = (1.0, 1.0, 0.0, 0.0),
        **options: Unpack[LawOptions],
    ) -> None:
        if not shift >= 0:
            raise ConfigError(f"InferenceScaling: shift = {shift!r} must not be negative")
        if len(sigmoid) != 4 or not (sigmoid[0] > 0 and sigmoid[1] > 0):
            raise ConfigError(f"InferenceScaling: sigmoid = {sigmoid!r} must be (height > 0, slope > 0, centre, base)")
        self.informativeness, self.shift = bool(informativeness), float(shift)
        self.sigmoid = tuple(float(value) for value in sigmoid)
        if self.informativeness:
            self.parameters = (*self._slopes, *self._informed, self._constant)
            self.variables = (*_KNOBS, "i_doc", "i_shot")
        super().__init__(**options)

    def options(self) -> dict[str, Any]:
        options = super().options()
        if self.informativeness:
            options["informativeness"] = True
        return {**options, "shift": self.shift, "sigmoid": self.sigmoid}

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        total = theta.c + np.zeros(np.broadcast_shapes(n.shape, d.shape, r.shape))
        for name, knob in zip(_NAMES, _KNOBS, strict=True):
            value = self.column(knob) + self.shift
            if (value <= 0).any():
                raise ConfigError(f"{self.name}: {knob} + shift must be positive; give a shift above 0")
            slope = theta[f"a_{name}"]
            if self.informativeness and name != "iter":
                slope = slope + theta[f"b_{name}"] * self.column(f"i_{name}")
            total = total + slope * np.log(value)
        height, steepness, centre, base = self.sigmoid
        return base + height * 0.5 * (1.0 + np.tanh(0.5 * steepness * (total + centre)))


PUBLISHED_SIGMOID = (3.30, 1.81, 0.46, -2.18)
"""sigma of arXiv 2410.04343, appendix F: height, slope, centre, base; for normalised performance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceAllocation:
    """The best setting under each context budget; arrays over budgets. ``tokens`` is what the setting uses."""

    budget: np.ndarray
    k: np.ndarray
    n_shot: np.ndarray
    n_iterations: np.ndarray
    tokens: np.ndarray
    performance: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """Return one row per budget."""
        return pd.DataFrame({name: getattr(self, name) for name in self.__slots__})


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextLength:
    """Input tokens of a setting over all iterations: n (question + k document + shots (shot + j document)).

    Parameters
    ----------
    question, document, shot : float
        Tokens of the instruction with the question, of one passage, and of one worked example without passages.
    documents_per_shot : float
        Passages shown with each worked example (j).
    """

    question: float = 100.0
    document: float = 128.0
    shot: float = 100.0
    documents_per_shot: float = 0.0

    def __call__(self, k: np.ndarray, n_shot: np.ndarray, n_iterations: np.ndarray) -> np.ndarray:
        """Return the effective context length in tokens."""
        example = self.shot + self.documents_per_shot * self.document
        return n_iterations * (self.question + k * self.document + n_shot * example)


def best_inference_setting(
    law: InferenceScaling,
    parameters: Mapping[str, float],
    *,
    budget: ArrayLike,
    length: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
    k: ArrayLike = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    n_shot: ArrayLike = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256),
    n_iterations: ArrayLike = (1, 2, 3, 4, 5),
    i_doc: float = 0.0,
    i_shot: float = 0.0,
) -> InferenceAllocation:
    """Choose documents, shots and iterations that the law expects to do best within a number of input tokens.

    Parameters
    ----------
    law : InferenceScaling
        With its options; ``parameters`` are its fitted values (``fit.theta``).
    budget : array-like
        Largest effective context length, in tokens over all iterations.
    length : callable
        Tokens of a setting; `ContextLength` by default.
    k, n_shot, n_iterations : array-like of int
        The settings to choose from; by default those of the paper.
    i_doc, i_shot : float
        Informativeness of the task, for a law that reads it.

    Returns
    -------
    InferenceAllocation
        Among equals the setting with fewer tokens.

    Raises
    ------
    ConfigError
        When no setting fits into a budget.

    References
    ----------
    Yue et al. 2024, arXiv 2410.04343, equation 1 and section 5.
    """
    length = length or ContextLength()
    knobs = [np.unique(np.asarray(values, dtype=np.float64)) for values in (k, n_shot, n_iterations)]
    if knobs[2].min() < 1 or min(knobs[0].min(), knobs[1].min()) < 0:
        raise ConfigError("best_inference_setting: n_iterations must be at least 1, k and n_shot at least 0")
    docs, shots, rounds = (grid.ravel() for grid in np.meshgrid(*knobs, indexing="ij"))
    tokens = np.asarray(length(docs, shots, rounds), dtype=np.float64)
    columns: dict[str, Any] = {"k": docs, "n_shot": shots, "n_iterations": rounds}
    if law.informativeness:
        columns |= {"i_doc": i_doc, "i_shot": i_shot}
    expected = law.loss(np.ones_like(docs), 1.0, 0.0, parameters, **columns)
    budgets = np.atleast_1d(np.asarray(budget, dtype=np.float64))
    if (budgets < tokens.min()).any():
        raise ConfigError(
            f"best_inference_setting: nothing fits into {budgets.min():g} tokens; the shortest takes {tokens.min():g}"
        )
    order = np.lexsort((tokens, -expected))  # best first, shorter first among equals
    best = np.array([order[np.argmax(tokens[order] <= limit)] for limit in budgets])
    return InferenceAllocation(
        budget=budgets,
        k=docs[best].astype(int),
        n_shot=shots[best].astype(int),
        n_iterations=rounds[best].astype(int),
        tokens=tokens[best],
        performance=expected[best],
    )


def performance_line(budget: ArrayLike, performance: ArrayLike) -> tuple[float, float, float]:
    """Return (intercept, slope per decade, R^2) of the best performance against log10 of the context budget.

    References
    ----------
    Yue et al. 2024, arXiv 2410.04343, section 4.3: best performance is nearly linear in the order of magnitude of
    inference computation, up to about a million tokens.

    Examples
    --------
    >>> tuple(round(v, 6) for v in performance_line([1e4, 1e5, 1e6], [0.2, 0.3, 0.4]))
    (-0.2, 0.1, 1.0)
    """
    x, y = np.log10(np.asarray(budget, dtype=np.float64)), np.asarray(performance, dtype=np.float64)
    if x.size < 2 or np.ptp(x) == 0:
        raise ConfigError("performance_line needs at least two different budgets")
    slope, intercept = np.polyfit(x, y, 1)
    rest = y - intercept - slope * x
    total = float(((y - y.mean()) ** 2).sum())
    return float(intercept), float(slope), 1.0 - float((rest**2).sum()) / total if total > 0 else 1.0
