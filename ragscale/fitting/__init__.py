"""Scaling laws in model size, pretraining tokens and store tokens: fit them, and say how sure the fit is."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
