"""Every law that can be called by name. A new law is one file beside this one and one line in a tuple below."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ragscale.errors import ConfigError
from ragscale.fitting.laws._additive import Hill, Log1p, LogRatio, Power, Rpower
from ragscale.fitting.laws._base import Chinchilla
from ragscale.fitting.laws._bnsl import BrokenPowerLaw
from ragscale.fitting.laws._bounded_data import BoundedData
from ragscale.fitting.laws._coverage import Coverage
from ragscale.fitting.laws._data_constrained import DataConstrained
from ragscale.fitting.laws._downstream import DirectCompute, DirectDownstream, PassAtK
from ragscale.fitting.laws._effective_data import EffectiveData
from ragscale.fitting.laws._farseer import Farseer
from ragscale.fitting.laws._inference import InferenceScaling
from ragscale.fitting.laws._kaplan import Kaplan, KaplanC, KaplanD, KaplanN
from ragscale.fitting.laws._law import ScalingLaw
from ragscale.fitting.laws._memory import MemoryByFrequency
from ragscale.fitting.laws._overtraining import LossToError, Overtraining
from ragscale.fitting.laws._pass_until import PassUntil
from ragscale.fitting.laws._reading import Reading
from ragscale.fitting.laws._shannon import Shannon
from ragscale.fitting.laws._shaped import Interaction, Multiplicative
from ragscale.fitting.laws._steps_batch import StepsAndBatch, StepsBatchPowers
from ragscale.fitting.laws._two_stage import LossToAccuracy, SingleStep

BUILT_IN: tuple[type[ScalingLaw], ...] = (
    Chinchilla,
    Log1p,
    Power,
    Hill,
    Rpower,
    LogRatio,
    Interaction,
    EffectiveData,
    Multiplicative,
)
"""The smooth laws of the manifold, which `compare_laws` and ``law="auto"`` try on every table."""

LAWS: tuple[type[ScalingLaw], ...] = (
    KaplanN,
    KaplanD,
    KaplanC,
    Kaplan,
    DataConstrained,
    BoundedData,
    StepsAndBatch,
    StepsBatchPowers,
    Overtraining,
    LossToError,
    DirectCompute,
    DirectDownstream,
    PassAtK,
    LossToAccuracy,
    SingleStep,
    BrokenPowerLaw,
    Farseer,
    Shannon,
    PassUntil,
    InferenceScaling,
)
"""The laws of the literature."""


def law_classes() -> dict[str, type[ScalingLaw]]:
    """Return the laws by name: the retrieval manifold's own, and those of the literature."""
    return {law.name: law for law in (*BUILT_IN, Coverage, Reading, MemoryByFrequency, *LAWS)}


def _near(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name.lower(), known, 1)
    return f": did you mean {close[0]!r}?" if close else ""


def make_law(law: str | ScalingLaw, options: Mapping[str, Any] | None = None) -> ScalingLaw:
    """Return a law from its name in the catalogue, or the law itself."""
    if isinstance(law, ScalingLaw):
        return law
    if isinstance(law, type) and issubclass(law, ScalingLaw):
        return law(**(options or {}))
    classes = law_classes()
    if not isinstance(law, str) or law not in classes:
        near, known = _near(str(law), classes), ", ".join(sorted(classes))
        raise ConfigError(f"law = {law!r} is not known{near}; give a ScalingLaw or one of {known}, see catalogue()")
    return classes[law](**(options or {}))


def catalogue() -> pd.DataFrame:
    """List every law that `fit_manifold` knows by name.

    Returns
    -------
    DataFrame
        Indexed by name, with ``law`` (the class), ``formula``, ``variables``, ``parameters``, ``retrieval`` (whether
        it reads R) and ``reference``.

    Examples
    --------
    >>> catalogue().loc["log1p", "formula"]
    'E + A N^-alpha + B D^-beta - C ln(1 + eta R)'
    """
    rows = [
        {
            "name": name,
            "law": law,
            "formula": law.formula,
            "variables": ", ".join(law.variables),
            "parameters": ", ".join(parameter.name for parameter in law.parameters),
            "retrieval": "R" in law.variables,
            "reference": law.reference,
        }
        for name, law in law_classes().items()
    ]
    return pd.DataFrame(rows).set_index("name")
