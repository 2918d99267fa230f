"""Train OLMo-2 decoders on the prefix of a split: one run, one annealed checkpoint per number of tokens D."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
