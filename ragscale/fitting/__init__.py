"""Scaling laws in model size, pretraining tokens and store tokens: fit them, and say how sure the fit is."""

from typing import Any as _Any

import lazy_loader as _lazy

_find, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

_DECISIONS = (
    *("Allocation", "Estimate", "Knee", "compute_optimal", "critical_store", "exchange_rate", "knee_point"),
    *("optimal_allocation", "reading_threshold", "substitution"),
)


def __getattr__(name: str) -> _Any:
    """Find a name when it is first used, or say where it is now."""
    if name in _DECISIONS:  # not imported from there: decisions stand above fits
        top = "" if name[0].isupper() else f", also ragscale.{name}"
        raise AttributeError(f"module 'ragscale.fitting' has no {name!r}: it is ragscale.decisions.{name} now{top}")
    return _find(name)
