"""The scaling laws of the literature, as `ScalingLaw` classes."""

from __future__ import annotations

from ragscale.fitting._law import ScalingLaw

LAWS: tuple[type[ScalingLaw], ...] = ()
