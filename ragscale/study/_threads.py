"""A fixed number of threads for a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited_threads(n_threads: int) -> Iterator[None]:
    """Compute with a fixed number of threads, so that sums are taken in one order on every machine of a kind."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
