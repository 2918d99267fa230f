"""Muennighoff et al. 2023: repeated tokens are worth less and less; and the choice between repeating and retrieving."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError, ExtrapolationWarning
from ragscale.fitting.laws._law import Parameter, ScalingLaw, Theta
from ragscale.fitting.laws._published import Published

_UNIT = 1e9


class DataConstrained(ScalingLaw):
    """L(N, D, U) = E + A (N' / 1e9)^-alpha + B (D' / 1e9)^-beta for D tokens of which U are unique.

    ``D' = U + U r_D (1 - exp(-(D/U - 1) / r_D))``: the first epoch counts in full, later ones less and less, and no
    number of them is worth more than (1 + r_D) U tokens. In the same way ``N' = U_N + U_N r_N (1 - exp(-(N/U_N - 1) /
    r_N))``, where U_N is the smaller of N and the best model size for U tokens: parameters beyond what the data can
    use count less. Limits: U = D and N <= U_N is Chinchilla; r_D, r_N -> inf is Chinchilla with every token new.

    A and B are stated per 1e9, because U_N ties them to the exponents: the paper's A is A here times 1e9^alpha.
    ``variables`` are N, D (all tokens read, epochs included) and the column ``U`` (unique tokens; at most D counts).
    The published fit ties the exponents, ``DataConstrained(tie=True)``.

    References
    ----------
    Muennighoff et al. 2023, arXiv 2305.16264, section 3 (effective data and parameters) and section 5 (values);
    unrounded values and the form of U_N in the README of huggingface/datablations.

    Examples
    --------
    The two models of the paper's figure 1 (right), 25 billion unique tokens:

    >>> law, published = DataConstrained(), DataConstrained.published["c4"].parameters
    >>> law.loss([6.34e9, 8.67e9], [242e9, 178e9], 0, published, U=25e9).round(6).tolist()
    [2.225644, 2.226963]
    """

    name = "data_constrained"
    formula = "E + A (N'/1e9)^-alpha + B (D'/1e9)^-beta, D' = U + U r_D (1 - exp(-(D/U - 1) / r_D)), N' alike"
    reference = "Muennighoff et al. 2023, arXiv 2305.16264, sec. 3"
    variables = ("N", "D", "U")
    parameters = (
        Parameter("E", 0.0, 20.0, start=(0.5, 3.0), description="loss that no size or data removes"),
        Parameter("A", 1e-4, 1e3, log=True, start=(0.05, 3.0), description="what N' = 1e9 costs"),
        Parameter("alpha", 0.01, 2.0, log=True, start=(0.15, 0.7), description="exponent of the model size"),
        Parameter("B", 1e-4, 1e3, log=True, start=(0.05, 10.0), description="what D' = 1e9 costs"),
        Parameter("beta", 0.01, 2.0, log=True, start=(0.15, 0.7), description="exponent of the tokens"),
        Parameter("r_D", 1e-2, 1e4, log=True, start=(2.0, 60.0), description="repetitions after which 63 % is lost"),
        Parameter("r_N", 1e-2, 1e4, log=True, start=(1.0, 60.0), description="the same for excess parameters"),
    )
    published: ClassVar[Mapping[str, Published]] = {
        "c4": Published(
            parameters={
                "E": float(np.exp(0.6254804)),
                "A": float(np.exp(6.255414) * _UNIT**-0.3526596),
                "alpha": 0.3526596,
                "B": float(np.exp(7.3049974) * _UNIT**-0.3526596),
                "beta": 0.3526596,
                "r_D": 15.387756,
                "r_N": 5.309743,
            },
            source="README of huggingface/datablations (arXiv 2305.16264: E 1.87, A 521, B 1488, alpha = beta 0.353)",
        )
    }

    def _loss(self, n: np.ndarray, d: np.ndarray, r: np.ndarray, theta: Theta) -> Any:
        data = effective_tokens(d, self.column("U"), theta)
        size = effective_parameters(n, np.minimum(self.column("U"), d), theta)
        powers = (np.exp(-theta.alpha * np.log(size / _UNIT)), np.exp(-theta.beta * np.log(data / _UNIT)))
        return theta.E + theta.A * powers[0] + theta.B * powers[1]


def effective_tokens(D: ArrayLike, U: ArrayLike, parameters: Mapping[str, Any]) -> np.ndarray:
    """Return D', the fresh tokens that D tokens with U unique ones are worth.

    References
    ----------
    Muennighoff et al. 2023, arXiv 2305.16264, section 3.1.

    Examples
    --------
    Four epochs are worth almost four times the data, forty are not:

    >>> published = DataConstrained.published["c4"].parameters
    >>> (effective_tokens([4e9, 40e9], 1e9, published) / 1e9).round(2).tolist()
    [3.73, 15.17]
    """
    d = np.asarray(D, dtype=np.float64)
    u = np.minimum(np.asarray(U, dtype=np.float64), d)
    return u - u * parameters["r_D"] * np.expm1(-(d / u - 1.0) / parameters["r_D"])


def effective_parameters(N: ArrayLike, U: ArrayLike, parameters: Mapping[str, Any]) -> np.ndarray:
    """Return N', the parameters that N are worth where U unique tokens can use only U_N of them in full."""
    alpha, beta = parameters["alpha"], parameters["beta"]
    log_g = (np.log(alpha * parameters["A"]) - np.log(beta * parameters["B"])) / (alpha + beta)
    n = np.asarray(N, dtype=np.float64)
    log_best = (np.log(np.asarray(U) / _UNIT) + log_g) * beta / alpha + log_g
    used = np.minimum(n, _UNIT * np.exp(np.minimum(log_best, 600.0)))
    return used - used * parameters["r_N"] * np.expm1(-(n / used - 1.0) / parameters["r_N"])


class _Predicts(Protocol):
    def predict(self, N: Any, D: Any, R: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatOrRetrieve:
    """The split of a corpus between pretraining and the store, at a fixed training length; arrays over N, D, pool.

    ``unique`` tokens are trained on for ``epochs`` = D / unique epochs and ``R`` = pool - unique go into the store.
    ``loss`` is the loss of this split; ``loss_all_trained`` that of training on as much of the corpus as D allows,
    with only the rest in the store; ``boundary`` says whether the best split is "interior", "all trained" or "all
    stored" (the smallest training set allowed).
    """

    N: np.ndarray
    D: np.ndarray
    pool: np.ndarray
    unique: np.ndarray
    R: np.ndarray
    epochs: np.ndarray
    loss: np.ndarray
    loss_all_trained: np.ndarray
    boundary: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """Return one row per case."""
        return pd.DataFrame({name: np.ravel(getattr(self, name)) for name in self.__slots__})


def repeat_or_retrieve(
    parameters: Mapping[str, float],
    store: _Predicts,
    *,
    N: ArrayLike,
    D: ArrayLike,
    pool: ArrayLike,
    max_epochs: float = 64.0,
) -> RepeatOrRetrieve:
    """Split a corpus of ``pool`` tokens between repeated pretraining and the store, where training reads D tokens.

    Training costs the same however often its tokens repeat, so every token that is not trained on is free for the
    store. The loss of a split is that of `DataConstrained` less the store's gain at the effective tokens,
    ``store.predict(N, D', 0) - store.predict(N, D', R)``.

    Parameters
    ----------
    parameters : mapping
        Parameters of `DataConstrained`: ``fit.theta`` or ``DataConstrained.published["c4"].parameters``.
    store : ManifoldFit
        A fit of a law that reads R; only its gain is used.
    N, D, pool : array-like
        Model size, tokens that training reads (epochs included), tokens of the corpus; broadcast.
    max_epochs : float
        Train on at least D / max_epochs unique tokens.

    Raises
    ------
    ConfigError
        When a count is not positive or the corpus is too small for ``max_epochs``.

    Warns
    -----
    ExtrapolationWarning
        When the split found lies far outside the data of ``store``.
    """
    n, d, t = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (N, D, pool)))
    low, high = d / max_epochs, np.minimum(d, t)
    problems = [f"{name} must be positive" for name, x in (("N", n), ("D", d), ("pool", t)) if (x <= 0).any()]
    if not max_epochs > 1:
        problems.append(f"max_epochs = {max_epochs!r} must be above 1")
    if not problems and (low > high).any():
        problems.append(f"a corpus of {t.min():g} tokens needs more than max_epochs = {max_epochs:g} epochs")
    if problems:
        raise ConfigError("repeat_or_retrieve: " + "; ".join(problems))
    law, theta = DataConstrained(), dict(parameters)

    def loss(unique: np.ndarray) -> np.ndarray:
        size, read, left = n[..., None], d[..., None], np.maximum(t[..., None] - unique, 0.0)
        fresh = effective_tokens(read, unique, theta)
        gain = np.asarray(store.predict(size, fresh, np.zeros_like(left))) - np.asarray(
            store.predict(size, fresh, left)
        )
        return law.loss(size, read, 0.0, theta, U=unique) - gain

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ExtrapolationWarning)  # the search goes far; the answer may not
        grid = np.exp(np.linspace(np.log(low), np.log(high), 257, axis=-1))
        grid[..., -1] = high  # exp(log(x)) may exceed the corpus by one ulp
        for _ in range(4):  # each round narrows the bracket 128-fold; the loss need not be convex on the first grid
            best = np.argmin(loss(grid), axis=-1)
            grid = np.linspace(_take(grid, best - 1), _take(grid, best + 1), 257, axis=-1)
        values = loss(grid)
        best = np.argmin(values, axis=-1)
        unique, found = _take(grid, best), _take(values, best)
        corner = loss(high[..., None])[..., 0]
        unique, found = np.where(corner <= found, high, unique), np.minimum(corner, found)
    store.predict(n, effective_tokens(d, unique, theta), np.maximum(t - unique, 0.0))  # warns where the answer is far
    boundary = np.where(
        unique >= high * (1 - 1e-9), "all trained", np.where(unique <= low * (1 + 1e-9), "all stored", "interior")
    )
    return RepeatOrRetrieve(
        N=n.copy(),
        D=d.copy(),
        pool=t.copy(),
        unique=unique,
        R=np.maximum(t - unique, 0.0),
        epochs=d / unique,
        loss=found,
        loss_all_trained=corner,
        boundary=boundary,
    )


def _take(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return one value per case, the nearest there is where the index lies outside."""
    inside = np.clip(index, 0, values.shape[-1] - 1)
    return np.take_along_axis(values, inside[..., None], axis=-1)[..., 0]
