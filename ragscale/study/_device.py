"""The device that a plan reckons with."""

from __future__ import annotations

import shutil
import sys

from ragscale.errors import ConfigError
from ragscale.training import DEVICES, Device


def device_of(device: str | Device | None) -> Device:
    """Return a device by name; None takes the GPU of this machine, else a CPU core.

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    if isinstance(device, Device):
        return device
    if device is None:
        return _here()
    if device not in DEVICES:
        raise ConfigError(f"device must be one of {', '.join(DEVICES)} or a ragscale.training.Device, got {device!r}")
    return DEVICES[device]


def _here() -> Device:
    if "torch" in sys.modules or shutil.which("nvidia-smi"):
        import torch

        if torch.cuda.is_available():
            name = torch.cuda.get_device_name(0)
            found = [known for known in DEVICES.values() if any(part in name for part in known.match)]
            return found[0] if found else DEVICES["A100"]
    return DEVICES["CPU-core"]


def is_of(device: Device, recorded: str) -> bool:
    """Tell whether a job that noted the machine it ran on ran on such a device."""
    if device.name == "CPU-core":
        return recorded == "cpu"
    return any(part in recorded for part in device.match)


def here() -> str:
    """Return what a job notes: the name of the GPU, or "cpu"."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else "cpu"
