"""How long the finished jobs of a study took, against what was expected: the plan of the others is corrected by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ragscale.study._device import is_of
from ragscale.study._jobs import JobState, record_of
from ragscale.training import Device

_CPU_STAGES = ("split", "index", "search", "retrieve")
_LEAST_SECONDS = 60.0  # a shorter job tells more of how a process starts than of a rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Measured by expected time, by (stage, model); the model is empty for a whole stage.

    Parameters
    ----------
    ratios : mapping
        Empty where nothing was measured.
    words : str
        What was measured, for people.
    """

    ratios: Mapping[tuple[str, str], float] = field(default_factory=dict)
    words: str = ""

    def ratio(self, stage: str, model: str = "") -> float:
        """Return by what to multiply an expected time: that of the model, else of the stage, else 1."""
        return self.ratios.get((stage, model), self.ratios.get((stage, ""), 1.0))


NOT_MEASURED = Measured()


def measured_in(
    root: Path, states: Sequence[JobState], expected: Callable[[str, Any], float], device: Device
) -> Measured:
    """Compare the times of done jobs, of training and evaluation those on such a device, with what was expected.

    Parameters
    ----------
    root : Path
        The study's directory.
    states : sequence of JobState
    expected : callable
        (stage, inputs) -> hours, the start of a process included.
    device : Device
    """
    took: dict[tuple[str, str], float] = {}
    thought: dict[tuple[str, str], float] = {}
    counted: dict[str, int] = {}
    for state in states:
        stage, inputs = state.job.stage, state.job.inputs
        if state.state != "done" or stage == "check" or not state.seconds >= _LEAST_SECONDS:
            continue
        recorded = str(record_of(root, state.job).get("device", ""))
        hours = expected(stage, inputs)
        if not (stage in _CPU_STAGES or is_of(device, recorded)) or not hours > 0:
            continue
        counted[stage] = counted.get(stage, 0) + 1
        model = state.job.lane.rpartition(" seed ")[0] if stage == "train" else ""
        for name in {"", model}:
            took[stage, name] = took.get((stage, name), 0.0) + state.seconds / 3600
            thought[stage, name] = thought.get((stage, name), 0.0) + hours
    ratios = {name: took[name] / thought[name] for name in took}
    said = ", ".join(f"{stage} {ratios[stage, '']:.2g} times ({n} jobs)" for stage, n in counted.items())
    words = f"hours are corrected by what finished jobs took against the estimate: {said}" if said else ""
    return Measured(ratios=MappingProxyType(ratios), words=words)
