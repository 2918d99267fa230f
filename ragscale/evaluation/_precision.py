"""Which number format a model is scored in, and what a narrower one changes, measured on the model's own prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from ragscale.evaluation._language_model import Score, ScoreRequest

PRECISIONS = ("auto", "float32", "bf16", "fp16")
CANDIDATES = ("bf16", "fp16")  # what "auto" tries, in this order
SAMPLE = 256
MOST_NATS_PER_TOKEN = 2e-3
LEAST_SAME_RANK = 0.995
TIMED = 64  # requests of the sample that are timed


@dataclass(frozen=True, slots=True)
class Difference:
    """How far log-probabilities in a narrower format are from those in float32.

    Parameters
    ----------
    nats_per_token : float
        Mean over the continuations of the absolute difference, divided by the continuation's tokens.
    same_rank : float
        Share of the questions with several continuations whose order is the same; 1 where there are none.
    n_requests : int
        Questions compared.
    """

    nats_per_token: float
    same_rank: float
    n_requests: int

    @property
    def is_small(self) -> bool:
        """Whether "auto" takes a format with this difference."""
        return self.nats_per_token <= MOST_NATS_PER_TOKEN and self.same_rank >= LEAST_SAME_RANK


@dataclass(frozen=True, slots=True)
class Precision:
    """The format that scores are computed in.

    Parameters
    ----------
    asked : {"auto", "float32", "bf16", "fp16"}
        What the user asked for.
    used : {"float32", "bf16", "fp16"}
        What runs; the log-softmax is float32 in all of them.
    measured : mapping of str to Difference
        What "auto" measured, per format that it tried.
    seconds : mapping of str to float
        What a part of the sample took in each format, where that was measured.
    """

    asked: str
    used: str
    measured: Mapping[str, Difference] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for the settings of an evaluation."""
        measured = {name: asdict(difference) for name, difference in self.measured.items()}
        return {"asked": self.asked, "used": self.used, "measured": measured, "seconds": dict(self.seconds)}


def check_precision(precision: str) -> str:
    """Return the precision, or say which there are."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be among {', '.join(map(repr, PRECISIONS))}, got {precision!r}")
    return precision


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch type of a format."""
    import torch

    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def difference(requests: Sequence[ScoreRequest], exact: Sequence[Score], narrow: Sequence[Score]) -> Difference:
    """Compare two scorings of the same requests. A value that is not finite is as far away as can be."""
    apart: list[float] = []
    same: list[bool] = []
    for request, one, other in zip(requests, exact, narrow, strict=True):
        wide, found = np.asarray(one.logprobs), np.asarray(other.logprobs)
        lengths = np.array([len(continuation) for continuation in request.continuations])
        apart += np.where(np.isfinite(found), np.abs(found - wide) / lengths, np.inf).tolist()
        if len(wide) > 1:
            same.append(bool((np.argsort(-wide, kind="stable") == np.argsort(-found, kind="stable")).all()))
    return Difference(float(np.mean(apart)) if apart else 0.0, float(np.mean(same)) if same else 1.0, len(requests))


def is_worth_it(name: str, difference: Difference, seconds: Mapping[str, float]) -> bool:
    """Whether "auto" takes a format: it hardly changes the scores, and is not slower than float32 where that is known.

    Small models wait for the launches of kernels, of which a narrow format has more.

    Examples
    --------
    >>> small = Difference(nats_per_token=1e-3, same_rank=1.0, n_requests=256)
    >>> is_worth_it("bf16", small, {"float32": 1.36, "bf16": 2.07}), is_worth_it("bf16", small, {})
    (False, True)
    """
    known = name in seconds and "float32" in seconds
    return difference.is_small and (not known or seconds[name] < seconds["float32"])


def choose(
    requests: Sequence[ScoreRequest],
    score: Callable[[Sequence[ScoreRequest], str], Sequence[Score]],
    candidates: Sequence[str],
    *,
    clock: Callable[[], float] | None = None,
) -> Precision:
    """Return the first candidate that is worth it on an even sample of the requests, else float32.

    Parameters
    ----------
    requests : sequence of ScoreRequest
        At most `SAMPLE` of them are scored, evenly spread.
    score : callable
        ``score(requests, precision)``.
    candidates : sequence of str
        Formats to try, the fastest first; none on a CPU, where they gain nothing.
    clock : callable, optional
        Returns seconds; then a part of the sample is also timed, after it has been scored once. Leave it out where
        what was timed now would not be what runs later, as before a compilation.
    """
    measured: dict[str, Difference] = {}
    seconds: dict[str, float] = {}
    if not candidates or not requests:
        return Precision("auto", "float32")
    places = np.unique(np.linspace(0, len(requests) - 1, min(SAMPLE, len(requests))).astype(int)).tolist()
    sample = [requests[place] for place in places]

    def scored(name: str) -> Sequence[Score]:
        found = score(sample, name)
        if clock is not None:
            start = clock()
            score(sample[:: -(-len(sample) // TIMED)], name)
            seconds[name] = clock() - start
        return found

    exact = scored("float32")
    for name in candidates:
        measured[name] = difference(sample, exact, scored(name))
        if is_worth_it(name, measured[name], seconds):
            return Precision("auto", name, measured, seconds)
    return Precision("auto", "float32", measured, seconds)
