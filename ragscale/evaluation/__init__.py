"""Score models on question sets, with their eyes closed and with the book open.

`evaluate` does it; `prepare_prompts` makes the prompts once for several models; `load_task` reads questions;
`compare_conditions` and `decompose_gain` say what retrieval changed and why.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
