"""Memory by frequency: what a model knows by heart of facts it has seen so many times, and what a store adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError
from ragscale.fitting.laws._law import LawOptions, Parameter, ScalingLaw, SeparableLaw, Theta


class MemoryByFrequency(SeparableLaw):
    """L = E + G (1 - m) - [R > 0] (P (1 - m) h - M (1 - h)): the loss on facts shown ``exposures`` times in training.

    ``m = 1 / (1 + (half (N / N_ref)^-nu / exposures)^k)`` is the share of such facts that a model of N parameters knows
    by heart, and ``h = 1 - exp(-kappa exposures R / D)`` the share that a store of R tokens shows: a fact that stands
    exposures times in D tokens stands exposures R / D times in R of the same text, and kappa of those are found. A fact
    that is known gains nothing by being shown, a passage without it costs M. ``variables`` are N, D, R and the column
    ``exposures``, how often the D tokens state the fact (the mean of a group of facts of about one frequency).

    Limits: exposures = 0 leaves E + G, the loss of a guess; many leave E; R = 0 is the closed book; large R gives
    E + (G - P)(1 - m). Larger models need fewer exposures (nu > 0). Where facts have Zipf frequencies with exponent z
    and a model holds a fixed number of bits for each of its parameters, it knows the facts above a frequency that falls
    as N^-z: nu is then z (`bits_per_parameter` compares with the published 2 bits).

    Parameters
    ----------
    N_ref : float, optional
        Size that ``half`` belongs to; by default the power of ten nearest to the geometric mean of the sizes.
    store : bool
        False for tables without a store: closed books alone, where kappa, P and M mean nothing.

    References
    ----------
    Capacity of 2 bits a parameter after 1,000 exposures, 1 after 100: Allen-Zhu and Li 2024, arXiv 2404.05405. Facts
    memorised grow with size and with exposures up to a limit: arXiv 2406.15720. Accuracy against the number of relevant
    documents, and retrieval for the tail: Kandpal et al. 2023, arXiv 2211.08411. The form is this library's.

    Examples
    --------
    >>> theta = {"E": 0.1, "G": 2.5, "half": 30, "nu": 0.8, "k": 1.5, "kappa": 1, "P": 2.3, "M": 0.4}
    >>> law = MemoryByFrequency(N_ref=1e6)
    >>> law.loss(1e6, 1e7, 0, theta, exposures=[0, 3, 30, 300]).round(2).tolist()
    [2.6, 2.52, 1.35, 0.18]
    >>> law.loss(1e6, 1e7, 1e7, theta, exposures=[0, 3, 30, 300]).round(2).tolist()
    [3.0, 0.42, 0.2, 0.11]
    """

    name = "memory_by_frequency"
    formula = (
        "E + G (1-m) - [R>0] (P (1-m) h - M (1-h)), m = 1/(1 + (half (N/N_ref)^-nu / e)^k), h = 1 - exp(-kappa e R/D)"
    )
    reference = "this library, after arXiv 2404.05405, 2406.15720 and 2211.08411"
    variables = ("N", "D", "R", "exposures")
    parameters = (
        Parameter("E", 0.0, description="loss on a fact that is known by heart"),
        Parameter("G", 0.0, description="what a guess costs more"),
        Parameter("half", 1e-3, 1e8, log=True, start=(0.5, 3e3), description="exposures after which half is known"),
        Parameter("nu", -1.0, 4.0, start=(-0.2, 1.5), description="half falls as (N / N_ref)^-nu"),
        Parameter("k", 0.2, 10.0, log=True, start=(0.5, 4.0), description="steepness in ln exposures"),
        Parameter("kappa", 1e-5, 1e4, log=True, start=(0.02, 20.0), description="share of a store's facts found"),
        Parameter("P", 0.0, description="what a passage with the fact is worth to a model that guesses"),
        Parameter("M", 0.0, description="what a passage without the fact costs"),
        Parameter("N_ref", 1e-3, 1e3, unit="N", log=True, description="size that half belongs to"),
    )

    def __init__(self, *, N_ref: float | None = None, store: bool = True, **options: Unpack[LawOptions]) -> None:
        if not isinstance(store, bool):
            raise ConfigError(f"MemoryByFrequency: store = {store!r} must be True or False")
        if N_ref is not None and not N_ref > 0:
            raise ConfigError(f"MemoryByFrequency: N_ref = {N_ref!r} must be a positive number of parameters")
        held: dict[str, float] = {} if N_ref is None else {"N_ref": float(N_ref)}
        self.store = store
        if not store:
            self.variables = ("N", "D", "exposures")
            held |= {"kappa": 1.0, "P": 0.0, "M": 0.0}
        options["fixed"] = {**held, **(options.get("fixed") or {})}
        super().__init__(**options)

    def options(self) -> dict[str, Any]:
        return {**super().options(), **({} if self.store else {"store": False})}

    def _resolve(self, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> ScalingLaw:
        """Settle N_ref at the power of ten nearest to the typical size, and nu where there is one size."""
        held = {} if "N_ref" in self.fixed else {"N_ref": 10.0 ** round(float(np.mean(np.log10(n))))}
        if np.ptp(np.log(n)) < 1e-9 and "nu" not in self.fixed:
            held["nu"] = 0.0
        return self.replace(fixed={**self.fixed, **held}) if held else self

    def known(self, theta: Mapping[str, Any], N: ArrayLike, exposures: ArrayLike) -> np.ndarray:
        """Return m, the share of facts seen so often that a model of N parameters knows by heart."""
        n, e = np.asarray(N, dtype=np.float64), np.asarray(exposures, dtype=np.float64)
        with np.errstate(divide="ignore"):
            excess = np.log(e) - np.log(theta["half"]) + theta["nu"] * np.log(n / theta["N_ref"])
        return 1.0 / (1.0 + np.exp(-np.clip(theta["k"] * excess, -500.0, 500.0)))

    def shown(self, theta: Mapping[str, Any], D: ArrayLike, R: ArrayLike, exposures: ArrayLike) -> np.ndarray:
        """Return h, the share of facts seen so often in D tokens that a store of R tokens shows."""
        per_token = np.asarray(exposures, dtype=np.float64) / np.asarray(D, dtype=np.float64)
        return -np.expm1(-theta["kappa"] * per_token * np.asarray(R, dtype=np.float64))

    def _columns(self, theta: Theta, n: np.ndarray, d: np.ndarray, r: np.ndarray) -> dict[str, Any]:
        exposures = self.column("exposures")
        unknown = 1.0 - self.known(theta, n, exposures)
        shown = self.shown(theta, d, r, exposures)
        return {"E": np.ones_like(n), "G": unknown, "P": -unknown * shown, "M": np.where(r > 0, 1.0 - shown, 0.0)}


def bits_per_parameter(
    parameters: Mapping[str, float], *, N: float, exposures: ArrayLike, bits_per_fact: float, n_facts: ArrayLike = 1.0
) -> float:
    """Return the bits that a model knows by heart, for each of its parameters.

    Published: about 2 at most, after 1,000 exposures of every fact, and 1 after 100 (arXiv 2404.05405). Far less says
    that training, not capacity, limits the memory; more, that ``bits_per_fact`` is too high.

    Parameters
    ----------
    parameters : mapping
        Of `MemoryByFrequency`, N_ref included: ``fit.theta``.
    N : float
        Model size.
    exposures, n_facts : array-like
        For each group of facts, how often one was shown and how many there are; for one entry a fact, ``n_facts`` is 1.
    bits_per_fact : float
        Entropy of a fact: the base-2 logarithm of the number of values that it may take.

    Examples
    --------
    >>> theta = {"half": 30, "nu": 0.8, "k": 1.5, "N_ref": 1e6}
    >>> round(bits_per_parameter(theta, N=1e6, exposures=[300, 30], n_facts=[1e5, 1e6], bits_per_fact=4), 2)
    2.39
    """
    known = MemoryByFrequency().known(parameters, N, exposures)
    return float(np.sum(np.asarray(n_facts, dtype=np.float64) * bits_per_fact * known) / N)
