"""Given a fixed budget of text: how much should a language model memorise, and how much should it look up?

``import ragscale as rs`` loads nothing heavy; every name below is imported when it is first used.
"""

import lazy_loader as _lazy

from ragscale._version import __version__ as __version__

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
