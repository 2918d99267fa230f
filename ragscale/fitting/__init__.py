"""Scaling laws in model size, pretraining tokens and store tokens: fit them, and say how sure the fit is."""

import sys as _sys
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
        said = f"module 'ragscale.fitting' has no {name!r}: it is ragscale.decisions.{name} now{top}"
        # an import statement hears no AttributeError, and an ImportError would break hasattr: it depends on who asks
        imported = _sys._getframe(1).f_code.co_name == "_handle_fromlist"
        raise (ImportError if imported else AttributeError)(said)
    return _find(name)
