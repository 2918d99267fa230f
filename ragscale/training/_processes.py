"""One process or many: who am I, on which device, and the few things that processes say to each other."""

from __future__ import annotations

import atexit
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist

from ragscale.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that torchrun started; a plain call is process 0 of 1."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def say(self, value: Any) -> Any:
        """Return what the first process says, in every process."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Return when every process has come this far."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def first_only(self) -> Generator[bool]:
        """Run a block's work in the first process; if it fails there, every process raises instead of hanging."""
        error: BaseException | None = None
        try:
            yield self.first
        except Exception as caught:  # noqa: BLE001
            error = caught
        text = self.say(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        if text is not None:
            raise ConfigError(f"the first process failed: {text}")


def open_processes(device: str) -> Processes:
    """Join the processes that torchrun started, if it did, and choose this one's device.

    Raises
    ------
    ConfigError
        When CUDA is asked for and there is none.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"device={device!r}, but torch {torch.__version__} sees no CUDA device: use device='cpu', "
                "or install a torch built for CUDA"
            )
        if chosen.index is None:  # pyright: ignore[reportUnnecessaryComparison] - None it is for "cuda"
            chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    elif chosen.type != "cpu":
        raise ConfigError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}")
    if world > 1 and not dist.is_initialized():
        if chosen.type == "cuda":
            dist.init_process_group("nccl", device_id=chosen)
        else:
            dist.init_process_group("gloo")
        # kept for further calls: a second group in one process would wait forever for the first one's keys
        atexit.register(dist.destroy_process_group)
    return Processes(rank=rank if world > 1 else 0, world=world, device=chosen)
