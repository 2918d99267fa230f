"""The scaling laws of the literature, as `ScalingLaw` classes, and the tools that belong to them.

Fit them with `ragscale.fitting.fit_manifold`, by name or as objects; `ragscale.fitting.catalogue` lists them.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
