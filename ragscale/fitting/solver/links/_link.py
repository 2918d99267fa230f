"""What a link is: a monotone map from the latent loss to the metric, and what the solver asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import Parameter

Space = Literal["log", "linear"]
_TINY = 1e-300


class Link(ABC):
    """A monotone map from the latent loss to the metric; the fit compares in the metric.

    A link writes `metric`, `slopes` and `latent`. Everything else follows from them; a link whose residual is simpler
    than that says so in `residual`, `residual_slopes` and `bending`, which makes fits faster and changes no result.
    """

    name: ClassVar[str]
    parameters: tuple[Parameter, ...] = ()
    """Parameters of the link that the fit determines (a free floor or ceiling)."""

    space: Space = "log"
    """Where residuals are taken by default."""

    signed: bool = False
    """Whether the latent may be negative, so that the constant E of a law is free in sign and has no natural zero."""

    invertible: ClassVar[bool] = False
    """Whether every metric has a latent, so that coefficients are found from the rows by linear least squares."""

    counts_answers: ClassVar[bool] = False
    """Whether the metric is a share of questions, whose rows weigh as binomial counts where ``n_examples`` is known."""

    positive: ClassVar[bool] = False
    """Whether no metric through this link is 0 or less, so that residuals in the logarithm always exist."""

    @abstractmethod
    def metric(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        """Return the metric; ``extra`` holds values of ``parameters``."""

    @abstractmethod
    def slopes(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Return d metric / d latent, and d metric / d parameter."""

    @abstractmethod
    def latent(self, metric: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        """Return the latent; values that the link cannot reach become the nearest that it can."""

    @property
    def rising(self) -> bool:
        """Whether the metric rises as the latent loss falls."""
        worse, better = np.asarray(self.metric(np.array([2.0, 1.0])), dtype=float)
        return bool(better > worse)

    @property
    def knows_direction(self) -> bool:
        """Whether `rising` is settled before a table is seen."""
        return True

    def resolve(self, results: pd.DataFrame) -> Link:
        """Return the link with what depends on the table made definite."""
        return self

    def problems(self, values: np.ndarray) -> list[str]:
        """Say why these values cannot be modelled through this link."""
        return []

    def limits(self, values: np.ndarray) -> tuple[float, float]:
        """Return the lowest and the highest value that the metric can take, where ``values`` were measured.

        No prediction beyond them is returned. By default 0 is the lowest where all measured values are positive.
        """
        return (0.0 if np.min(values, initial=np.inf) > 0 else -np.inf), np.inf

    def with_values(self, extra: Mapping[str, float]) -> Link:
        """Return the link with fitted parameters filled in."""
        return self

    # Residuals -----------------------------------------------------------------------------------------------------

    def residual(
        self, latent: np.ndarray, observed: np.ndarray, space: Space, extra: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Return predicted - observed, where ``observed`` is in ``space``; huge where the logarithm does not exist."""
        metric = self.metric(latent, extra)
        if space == "linear":
            return metric - observed
        with np.errstate(invalid="ignore"):
            return np.log(np.maximum(np.where(np.isfinite(metric), metric, _TINY), _TINY)) - observed

    def residual_slopes(
        self, latent: np.ndarray, space: Space, extra: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Return d residual / d latent, and d residual / d parameter."""
        slope, others = self.slopes(latent, extra)
        if space == "linear":
            return slope, others
        metric = np.maximum(self.metric(latent, extra), _TINY)
        return slope / metric, {name: value / metric for name, value in others.items()}

    def bending(self, latent: np.ndarray, space: Space) -> np.ndarray | float | None:
        """Return d2r/df2 / (dr/df)^2 of the residual r at the latent f, None where it is not known in closed form."""
        return None

    def secant(self, latent: np.ndarray, r: np.ndarray, values: np.ndarray, space: Space) -> np.ndarray:
        """Return r dr/df / (f - latent of the value): the weight that makes a linear residual with the same slope.

        Parameters
        ----------
        latent, r : ndarray (S, n)
            The latent f and its residual.
        values : ndarray (n,)
            The observed metric. Only asked of a link that is `invertible`.
        """
        apart = latent - self.latent(values)
        slope = self.residual_slopes(latent, space)[0]
        return np.where(np.abs(apart) > 1e-8, r / np.where(apart == 0, 1.0, apart), slope) * slope

    # Keeping it ----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return name and fields, JSON-able."""
        return {"name": self.name}

    @classmethod
    def _restore(cls, fields: Mapping[str, Any]) -> Link:
        """Build the link from what `to_dict` gave, without the name."""
        return cls(**fields)

    @staticmethod
    def named(name: str) -> type[Link]:
        """Return the link of this name; own links are found once their module is imported.

        Raises
        ------
        ConfigError
            Listing the links there are.
        """
        known = {link.name: link for link in _written(Link)}
        if name not in known:
            there = ", ".join(map(repr, sorted(known)))
            raise ConfigError(f"link = {name!r} must be 'auto', {there} or a Link: import the module of an own one")
        return known[name]

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> Link:
        """Build a link from what `to_dict` gave."""
        fields = dict(value)
        return Link.named(str(fields.pop("name")))._restore(fields)


def _written(link: type[Link]) -> Iterator[type[Link]]:
    """Yield all links, those written last at the end: they replace what was called the same (a cell run again)."""
    for child in link.__subclasses__():
        yield from _written(child)
        if not getattr(child, "__abstractmethods__", None):
            yield child
