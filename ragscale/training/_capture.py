"""A whole optimiser step as one CUDA graph, for models so small that launching their kernels takes the time.

The first steps run as usual. Then one step is recorded, replayed, and compared with the same step run as usual; if
recording fails or the two differ, the run goes on without. Batches that are not full, at the end of a D, never are
replayed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from ragscale.errors import RagscaleWarning

_WARM_UP = 3
_TOLERANCE = 0.02

Step = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


class CapturedStep:
    """Replays a step.

    Parameters
    ----------
    step : callable
        ``step(inputs, targets, n_targets)`` changes ``tensors`` in place and returns a tensor; nothing in it waits
        for the device.
    tensors : callable
        Returns the tensors that a step changes.
    n_targets : int
        Targets of a full batch, the only one that is replayed.
    """

    def __init__(self, step: Step, tensors: Callable[[], list[torch.Tensor]], n_targets: int) -> None:
        self._step, self._tensors, self._n_targets = step, tensors, n_targets
        self._warm = 0
        self._graph: Any = None
        self._inputs: Any = None
        self._targets: Any = None
        self._result: Any = None
        self.state = "warming up"

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor, n_targets: int) -> torch.Tensor:
        """Do one step, as a replay where that is possible."""
        if n_targets != self._n_targets or self.state.startswith("off"):
            return self._step(inputs, targets, n_targets)
        if self._graph is not None:
            return self._replay(inputs, targets)
        self._warm += 1
        if self._warm <= _WARM_UP:
            return self._aside(inputs, targets)
        return self._record(inputs, targets)

    def _aside(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Run a step as usual on the stream that will record: gradients remember the stream they were made on."""
        side, current = self._stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            result = self._step(inputs, targets, self._n_targets)
        current.wait_stream(side)
        return result

    def _stream(self) -> Any:
        if not hasattr(self, "_side"):
            self._side = torch.cuda.Stream()
        return self._side

    def _replay(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        self._graph.replay()
        return self._result.clone()

    def _record(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        before = [tensor.clone() for tensor in self._tensors()]
        try:
            self._inputs, self._targets = inputs.clone(), targets.clone()
            graph = torch.cuda.CUDAGraph()
            # batches are read in another thread meanwhile, which allocates
            with torch.cuda.graph(graph, stream=self._stream(), capture_error_mode="thread_local"):
                self._result = self._step(self._inputs, self._targets, self._n_targets)
            self._graph = graph
            replayed = self._replay(inputs, targets)
            problem = None
        except RuntimeError as error:
            replayed, problem = None, str(error).splitlines()[0]
        after = [tensor.clone() for tensor in self._tensors()]
        for tensor, value in zip(self._tensors(), before, strict=True):
            tensor.copy_(value)
        usual = self._aside(inputs, targets)
        if problem is None and replayed is not None:
            problem = difference(before, after, self._tensors(), replayed, usual)
        if problem is None:
            self.state = "replaying"
        else:
            self._graph = self._result = None
            self.state = f"off: {problem}"
            warnings.warn(f"cuda_graph is not used: {problem}", RagscaleWarning, stacklevel=2)
        return usual


def difference(
    before: list[torch.Tensor],
    replayed: list[torch.Tensor],
    usual: list[torch.Tensor],
    result: torch.Tensor,
    expected: torch.Tensor,
) -> str | None:
    """Return in words how a replayed step differs from the usual one beyond rounding, None if it does not.

    Parameters
    ----------
    before, replayed, usual : list of tensor
        What a step changes: before it, after a replay, after the usual step.
    result, expected : tensor
        What the two steps returned.
    """
    if not torch.allclose(result, expected, rtol=_TOLERANCE, atol=1e-6, equal_nan=True):
        return f"a replayed step returned {result.tolist()}, the usual one {expected.tolist()}"
    apart, moved = 0.0, 0.0
    for start, ours, theirs in zip(before, replayed, usual, strict=True):
        apart += float((ours.double() - theirs.double()).square().sum())
        moved += float((theirs.double() - start.double()).square().sum())
    if not apart <= _TOLERANCE**2 * moved:
        return (
            f"a replayed step moved the weights differently (by {apart**0.5:.3g} where a step moves {moved**0.5:.3g})"
        )
    return None
