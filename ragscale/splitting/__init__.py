"""One permutation of a corpus, read from both ends: a pretraining prefix, a retrieval suffix, validation set aside."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
