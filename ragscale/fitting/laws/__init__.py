"""The scaling laws of the literature, as `ScalingLaw` classes, and the tools that belong to them.

Fit them with `ragscale.fitting.fit_manifold`, by name or as objects; `ragscale.fitting.catalogue` lists them.
"""

from __future__ import annotations

from ragscale.fitting._law import ScalingLaw
from ragscale.fitting.laws._bnsl import BrokenPowerLaw
from ragscale.fitting.laws._chinchilla import (
    CHINCHILLA_PUBLISHED,
    ComputeOptimal,
    chinchilla_approach_1,
    chinchilla_approach_2,
    chinchilla_approach_3,
    chinchilla_optimum,
    isoflop_bias,
)
from ragscale.fitting.laws._data_constrained import (
    DataConstrained,
    RepeatOrRetrieve,
    effective_parameters,
    effective_tokens,
    repeat_or_retrieve,
)
from ragscale.fitting.laws._downstream import DirectCompute, DirectDownstream, PassAtK
from ragscale.fitting.laws._farseer import Farseer, farseer_parameters, farseer_published
from ragscale.fitting.laws._inference import (
    PUBLISHED_SIGMOID,
    ContextLength,
    InferenceAllocation,
    InferenceScaling,
    best_inference_setting,
    performance_line,
)
from ragscale.fitting.laws._kaplan import PF_DAY, Kaplan, KaplanC, KaplanD, KaplanN, kaplan_parameters, kaplan_published
from ragscale.fitting.laws._overtraining import LossToError, Overtraining, best_ratio
from ragscale.fitting.laws._pass_until import PassUntil, SuccessRate, success_rate
from ragscale.fitting.laws._published import Published
from ragscale.fitting.laws._shannon import Shannon
from ragscale.fitting.laws._two_stage import LossToAccuracy, SingleStep, TwoStageFit, fit_two_stage

LAWS: tuple[type[ScalingLaw], ...] = (
    KaplanN,
    KaplanD,
    KaplanC,
    Kaplan,
    DataConstrained,
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
"""Every law of this package, in the order of `ragscale.fitting.catalogue`."""

__all__ = [
    "CHINCHILLA_PUBLISHED",
    "LAWS",
    "PF_DAY",
    "PUBLISHED_SIGMOID",
    "BrokenPowerLaw",
    "ComputeOptimal",
    "ContextLength",
    "DataConstrained",
    "DirectCompute",
    "DirectDownstream",
    "Farseer",
    "InferenceAllocation",
    "InferenceScaling",
    "Kaplan",
    "KaplanC",
    "KaplanD",
    "KaplanN",
    "LossToAccuracy",
    "LossToError",
    "Overtraining",
    "PassAtK",
    "PassUntil",
    "Published",
    "RepeatOrRetrieve",
    "Shannon",
    "SingleStep",
    "SuccessRate",
    "TwoStageFit",
    "best_inference_setting",
    "best_ratio",
    "chinchilla_approach_1",
    "chinchilla_approach_2",
    "chinchilla_approach_3",
    "chinchilla_optimum",
    "effective_parameters",
    "effective_tokens",
    "farseer_parameters",
    "farseer_published",
    "fit_two_stage",
    "isoflop_bias",
    "kaplan_parameters",
    "kaplan_published",
    "performance_line",
    "repeat_or_retrieve",
    "success_rate",
]
