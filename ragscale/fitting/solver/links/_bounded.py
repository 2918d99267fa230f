"""The metric is a sigmoid of the loss between a floor and a ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import Parameter
from ragscale.fitting.solver.links._link import Link, Space
from ragscale.results._direction import direction

_WORDS = {"floor": "lower limit", "ceiling": "upper limit"}


@dataclass(frozen=True, slots=True)
class Bounded(Link):
    """A metric between a floor (chance) and a ceiling: ``floor + (ceiling - floor) sigmoid(+-latent)``.

    One step from N, D and R to the score; no intermediate loss is needed.

    Parameters
    ----------
    floor, ceiling : float or "free"
        The limits of the metric, or "free" to fit them.
    direction : "up", "down" or "auto"
        "up": the metric rises as the latent loss falls (accuracy); "down": it falls with it (perplexity). "auto"
        asks `ragscale.results.higher_is_better`.
    on : "identity" or "log"
        "log" bounds the logarithm of the metric instead: perplexities that level off at both ends. Floor and ceiling
        still are values of the metric.

    References
    ----------
    Bhagia et al. 2024, arXiv 2412.04403, equation 2 (the sigmoid from loss to accuracy; here in one step).
    """

    name: ClassVar[str] = "bounded"
    counts_answers: ClassVar[bool] = True
    floor: float | Literal["free"] = 0.0
    ceiling: float | Literal["free"] = 1.0
    direction: Literal["up", "down", "auto"] = "auto"
    on: Literal["identity", "log"] = "identity"
    parameters: tuple[Parameter, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        for name in ("floor", "ceiling"):
            value = getattr(self, name)
            if value != "free" and (isinstance(value, str) or not np.isfinite(value)):
                problems.append(f"{name} = {value!r} must be a number or 'free'")
            elif value != "free" and self.on == "log" and value <= 0:
                problems.append(f"{name} = {value!r} must be positive with on='log'")
        low, high = self.floor, self.ceiling
        if not problems and not isinstance(low, str) and not isinstance(high, str) and not low < high:
            problems.append(f"floor = {self.floor!r} must be below ceiling = {self.ceiling!r}")
        if self.direction not in {"up", "down", "auto"}:
            problems.append(f"direction = {self.direction!r} must be 'up', 'down' or 'auto'")
        if self.on not in {"identity", "log"}:
            problems.append(f"on = {self.on!r} must be 'identity' or 'log'")
        if problems:
            raise ConfigError("Bounded: " + "; ".join(problems))

    @property
    def space(self) -> Space:  # type: ignore[override] - follows from the fields
        """Points of a score; log for a metric that is bounded in the logarithm."""
        return "log" if self.on == "log" else "linear"

    @property
    def signed(self) -> bool:  # type: ignore[override] - as space
        """A logit has no lower limit."""
        return True

    @property
    def rising(self) -> bool:
        """Whether ``direction`` is "up"."""
        return self.direction == "up"

    @property
    def knows_direction(self) -> bool:
        """Whether ``direction`` is "up" or "down"."""
        return self.direction != "auto"

    def resolve(self, results: pd.DataFrame) -> Bounded:
        """Decide the direction, and bound what is free by the range of the table."""
        if self.parameters:
            return self
        values = results["value"].to_numpy(float)
        way = self.direction
        if way == "auto":
            way = "up" if direction(results) else "down"
        low, high = float(values.min()), float(values.max())
        if self.on == "log":
            low, high = np.log(low), np.log(high)
        spread = max(high - low, 1e-3)
        free = []
        if self.floor == "free":
            lowest = max(low - spread, 0.0) if low >= 0 else low - spread
            free.append(Parameter("floor", *self._out(lowest, low + 0.3 * spread), description=_WORDS["floor"]))
        if self.ceiling == "free":
            highest = min(high + spread, 1.0) if self.on == "identity" and high <= 1 else high + spread
            free.append(Parameter("ceiling", *self._out(high - 0.3 * spread, highest), description=_WORDS["ceiling"]))
        return replace(self, direction=way, parameters=tuple(free))

    def _out(self, *values: float) -> tuple[float, ...]:
        return tuple(float(np.exp(v)) if self.on == "log" else float(v) for v in values)

    def _limits(self, extra: Mapping[str, Any] | None) -> tuple[Any, Any]:
        values = extra or {}
        floor, ceiling = (values.get(name, getattr(self, name)) for name in ("floor", "ceiling"))
        return floor, ceiling

    def _sigmoid(self, latent: np.ndarray) -> np.ndarray:
        sign = -1.0 if self.direction == "up" else 1.0
        return 0.5 * (1.0 + np.tanh(0.5 * sign * latent))

    def metric(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        floor, ceiling = self._limits(extra)
        s = self._sigmoid(latent)
        if self.on == "log":
            return np.exp(np.log(floor) * (1.0 - s) + np.log(ceiling) * s)
        return floor * (1.0 - s) + ceiling * s

    def slopes(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        floor, ceiling = self._limits(extra)
        sign = -1.0 if self.direction == "up" else 1.0
        s = self._sigmoid(latent)
        bend = sign * s * (1.0 - s)
        if self.on == "log":
            value = self.metric(latent, extra)
            by_latent, by_floor, by_ceiling = (
                value * bend * (np.log(ceiling) - np.log(floor)),
                value * (1.0 - s) / floor,
                value * s / ceiling,
            )
        else:
            by_latent, by_floor, by_ceiling = bend * (ceiling - floor), 1.0 - s, s
        free = {parameter.name for parameter in self.parameters}
        return by_latent, {k: v for k, v in (("floor", by_floor), ("ceiling", by_ceiling)) if k in free}

    def latent(self, metric: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        floor, ceiling = self._limits(extra)
        if self.on == "log":
            metric, floor, ceiling = np.log(metric), np.log(floor), np.log(ceiling)
        s = np.clip((metric - floor) / (ceiling - floor), 0.01, 0.99)
        sign = -1.0 if self.direction == "up" else 1.0
        return sign * np.log(s / (1.0 - s))

    def problems(self, values: np.ndarray) -> list[str]:
        if self.on == "log" and (values <= 0).any():
            return [f"Bounded(on='log') needs positive values; the table has {values.min():g}"]
        return []

    def limits(self, values: np.ndarray) -> tuple[float, float]:
        return (
            -np.inf if isinstance(self.floor, str) else float(self.floor),
            np.inf if isinstance(self.ceiling, str) else float(self.ceiling),
        )

    def with_values(self, extra: Mapping[str, float]) -> Bounded:
        return replace(self, **{k: float(v) for k, v in extra.items() if k in {"floor", "ceiling"}})

    def to_dict(self) -> dict[str, Any]:
        fields = {key: getattr(self, key) for key in ("floor", "ceiling", "direction", "on")}
        return {"name": self.name, **fields, "parameters": [[p.name, p.lower, p.upper] for p in self.parameters]}

    @classmethod
    def _restore(cls, fields: Mapping[str, Any]) -> Bounded:
        parameters = tuple(Parameter(*item, description=_WORDS.get(item[0], "")) for item in fields["parameters"])
        given: dict[str, Any] = {**fields, "parameters": parameters}
        return cls(**given)
