"""The (N, D, R) experiment from a corpus to the best split of a budget: plan, run, fit, report.

`StudyConfig` says what, `Study` does it, on any executor, and goes on where it was stopped.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
