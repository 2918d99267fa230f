"""A whole optimiser step as one CUDA graph, for models so small that launching their kernels takes the time.

The first steps run as usual. Then one step is run as usual, set back, recorded and replayed; if recording fails or the
two differ, the run goes on without. Batches that are not full, at the end of a D, never are
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
        self._replay: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
        self._stream: Any = None
        self.state = "warming up"

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor, n_targets: int) -> torch.Tensor:
        """Do one step, as a replay where that is possible."""
        if n_targets != self._n_targets or self.state.startswith("off"):
            return self._step(inputs, targets, n_targets)
        if self._replay is not None:
            return self._replay(inputs, targets)
        self._warm += 1
        return self._aside(inputs, targets) if self._warm <= _WARM_UP else self._record(inputs, targets)

    def _aside(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Run a step as usual on the stream that will record: gradients remember the stream they were made on."""
        if not inputs.is_cuda:
            return self._step(inputs, targets, self._n_targets)
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = self._step(inputs, targets, self._n_targets)
        current.wait_stream(self._stream)
        return result

    def _record(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        before = self._values()
        usual = self._aside(inputs, targets)
        after = self._values()
        self._restore(before)
        try:
            replay = self._capture(inputs, targets)
            problem = difference(before, replay(inputs, targets), self._tensors(), usual, after)
        except RuntimeError as error:
            replay, problem = None, str(error).splitlines()[0]
        self._restore(after)
        if problem is None:
            self._replay, self.state = replay, "replaying"
        else:
            self.state = f"off: {problem}"
            warnings.warn(
                f"the step is not captured as a CUDA graph, which only makes it slower: {problem}. "
                "TrainConfig(cuda_graph=False) leaves the attempt out",
                RagscaleWarning,
                stacklevel=2,
            )
        return usual

    def _capture(
        self, inputs: torch.Tensor, targets: torch.Tensor
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return a function that does a step by replaying a graph; its inputs and result have places of their own."""
        own_inputs, own_targets = inputs.clone(), targets.clone()
        graph = torch.cuda.CUDAGraph()
        # batches are read in another thread meanwhile, which allocates
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            result = self._step(own_inputs, own_targets, self._n_targets)

        def replay(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            own_inputs.copy_(inputs)
            own_targets.copy_(targets)
            graph.replay()
            return result.clone()

        return replay

    def _values(self) -> list[torch.Tensor]:
        return [tensor.clone() for tensor in self._tensors()]

    def _restore(self, values: list[torch.Tensor]) -> None:
        for tensor, value in zip(self._tensors(), values, strict=True):
            tensor.copy_(value)


def difference(
    before: list[torch.Tensor],
    result: torch.Tensor,
    replayed: list[torch.Tensor],
    expected: torch.Tensor,
    usual: list[torch.Tensor],
) -> str | None:
    """Return in words how a replayed step differs from the usual one beyond rounding, None if it does not.

    Parameters
    ----------
    before, replayed, usual : list of tensor
        What a step changes: before it, after a replay, after the usual step.
    result, expected : tensor
        What the replay and the usual step returned.
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
