"""Which jobs there are, what memory each needs, and where its code is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Measure = Callable[[], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Job:
    """Something to check or to time.

    Parameters
    ----------
    name : str
        "section/what".
    module : str
        The module of this folder whose ``prepare(device, tiny, **arguments)`` builds, compiles and warms up, and
        returns a function that measures and yields rows.
    gib : float
        GPU memory that it needs at most.
    seconds : float
        How long measuring may take.
    group : str
        Jobs of one group share a process.
    """

    name: str
    module: str
    gib: float
    seconds: float = 30.0
    arguments: dict[str, Any] = field(default_factory=dict)
    group: str = ""

    def prepare(self, device: str, tiny: bool) -> Measure:
        return importlib.import_module(f"gpu.{self.module}").prepare(device, tiny, **self.arguments)


# checks, and the process that each runs in
CHECKS = {
    "resume": "runs",
    "branch": "runs",
    "loss_head": "steps",
    "one_graph": "steps",
    "captured_step": "steps",
    "document_mask": "steps",
    "replicated": "steps",
    "evaluation_precision": "scores",
    "search": "scores",
}


def make_jobs(*, tiny: bool) -> list[Job]:
    """Return the jobs in the order of their importance."""
    if tiny:
        return [
            *(Job(f"checks/{name}", "checks", 1, 20, {"check": name}, "tiny") for name in CHECKS),
            *(_race("1M", kind, [2], 1) for kind in ("ragscale", "transformers", "lean")),
            Job("small/0.15M", "small", 1),
            Job("head", "head", 1),
            Job("evaluation/0.15M", "evaluation", 1, arguments={"size": "0.15M"}),
            Job("search", "search", 1),
            Job("encoding", "encoding", 1),
        ]
    return [
        *(Job(f"checks/{name}", "checks", 1, 10, {"check": name}, group) for name, group in CHECKS.items()),
        # the first wave on 140 GiB: what takes long to compile
        _race("30M", "ragscale", [4, 32], 16),
        _race("30M", "transformers", [4], 12),
        _race("30M", "lean", [4], 18),
        _race("136M", "ragscale", [4, 32], 34),
        _race("136M", "transformers", [4], 15),
        Job("evaluation/38M", "evaluation", 8, 40, {"size": "38M"}),
        Job("small/11M", "small", 4, 30),
        Job("search", "search", 4, 20),
        # the second
        _race("728M", "ragscale", [2, 8], 44),
        _race("1B", "ragscale", [8], 66),
        # the third
        _race("728M", "transformers", [2], 24),
        _race("233M", "ragscale", [4, 16], 34),
        Job("evaluation/728M", "evaluation", 27, 60, {"size": "728M"}),
        Job("pytest", "tests", 4, 10),
        Job("head", "head", 8, 20),
        Job("encoding", "encoding", 4, 25),
    ]


def _race(size: str, kind: str, rows: list[int], gib: float) -> Job:
    arguments = {"size": size, "kind": kind, "rows": rows}
    return Job(f"training/{size}/{kind}", "race", gib, arguments=arguments)
