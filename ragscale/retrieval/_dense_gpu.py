"""Flat search with torch, block by block, on a GPU or any other torch device.

It proposes candidates as faiss does on a CPU; the scores that count are the same, so the results are bit for bit
those of the CPU. Matrix products must be true float32: the error bound does not hold for TF32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ragscale._extras import require
from ragscale.errors import ConfigError
from ragscale.retrieval._dense_exact import Floats, Rows, Scores

_BLOCK = 1 << 18


class TorchPart:
    """Vectors of the rows from ``start`` on, copied to the device one block at a time."""

    def __init__(self, queries: Floats, vectors: Floats, start: int, metric: str, device: str) -> None:
        torch = require("torch", "dense")
        try:
            self.device = torch.device(device)
            self.queries = torch.from_numpy(queries).to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device={device!r} cannot be used here: {str(error).splitlines()[0]}") from error
        self.torch, self.vectors, self.start, self.metric = torch, vectors, start, metric

    def top(self, which: Rows, m: int) -> tuple[Rows, Scores]:
        torch = self.torch
        m = min(m, len(self.vectors))
        queries = self.queries[torch.from_numpy(which).to(self.device)]
        best: tuple[Any, Any] | None = None
        allowed = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            for left in range(0, len(self.vectors), _BLOCK):
                block = torch.from_numpy(np.array(self.vectors[left : left + _BLOCK])).to(self.device)
                scores = queries @ block.T
                if self.metric == "l2":
                    scores = 2 * scores - block.square().sum(1) - queries.square().sum(1, keepdim=True)
                found, rows = scores.topk(min(m, len(block)), dim=1)
                rows = rows + (left + self.start)
                if best is not None:
                    found, rows = torch.cat([best[0], found], 1), torch.cat([best[1], rows], 1)
                    found, chosen = found.topk(min(m, found.shape[1]), dim=1)
                    rows = rows.gather(1, chosen)
                best = (found, rows)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed
        assert best is not None
        return best[1].cpu().numpy(), best[0].cpu().numpy()
