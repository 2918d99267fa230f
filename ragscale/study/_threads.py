"""A fixed number of threads for a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def limited_threads(n_threads: int) -> Generator[None]:
    """Compute with a fixed number of threads, so that sums are taken in one order on every machine of a kind.

    torch takes seconds to import: where no one has yet, whoever does so in the block finds the number in its
    environment.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
        return
    given = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if given is not None:
            os.environ["OMP_NUM_THREADS"] = given
